import Lab

/// The demonstration's output: on a terminal the line of the current step is alive, elsewhere only its end is shown.
final class DemoScreen {
  private let output = TextOutput.standardOutput
  private var step = 0
  private var current = ""
  private static let width = 52

  func title(_ text: String) { output.write("\n\(text)\n\n") }
  func say(_ text: String) { output.write("\(text)\n\n") }

  func step(_ text: String) {
    step += 1
    current = "\(step < 10 ? " " : "")\(step). \(text)"
    current += String(repeating: " ", count: max(DemoScreen.width - current.count, 1))
    if output.isTerminal { output.write(current) }
  }

  /// - Parameter share: 0 to 1.
  func progress(_ share: Double, _ text: String) {
    guard output.isTerminal else { return }
    let full = Int(share * 20)
    let bar = String(repeating: "█", count: full) + String(repeating: "░", count: 20 - full)
    output.write("\r\(current)\(bar) \(Int(share * 100)) %  \(text)\u{1B}[K")
  }

  func done(_ text: String) {
    output.write((output.isTerminal ? "\r" : "") + current + text + (output.isTerminal ? "\u{1B}[K\n" : "\n"))
  }

  /// A number with so many digits behind the point.
  static func fixed(_ value: Double, _ digits: Int) -> String {
    var scale = 1.0
    for _ in 0..<digits { scale *= 10 }
    let scaled = Int((value * scale).rounded())
    let part = String(scaled % Int(scale))
    return digits == 0
      ? "\(scaled)" : "\(scaled / Int(scale)).\(String(repeating: "0", count: digits - part.count))\(part)"
  }

  /// 1234567 as "1 234 567".
  static func grouped(_ number: UInt64) -> String {
    var text = ""
    for (index, digit) in String(number).reversed().enumerated() {
      if index > 0, index % 3 == 0 { text.append(" ") }
      text.append(digit)
    }
    return String(text.reversed())
  }
}
