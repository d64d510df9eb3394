/// Columns of text for a terminal of plain characters.
struct TextTable {
  enum Alignment { case left, right }

  private let titles: [String]
  private let alignments: [Alignment]
  private var rows: [[String]] = []

  var isEmpty: Bool { rows.isEmpty }

  init(_ columns: [(title: String, alignment: Alignment)]) {
    titles = columns.map(\.title)
    alignments = columns.map(\.alignment)
  }

  /// One text for each column.
  mutating func add(_ row: [String]) {
    precondition(row.count == titles.count)
    rows.append(row)
  }

  /// A title line and the rows, two spaces between columns, nothing behind the last.
  func lines(indent: String) -> [String] {
    let widths = titles.indices.map { column in ([titles] + rows).map { $0[column].count }.max() ?? 0 }
    return ([titles] + rows).map { row in
      let cells = row.enumerated().map { column, text in
        let padding = String(repeating: " ", count: widths[column] - text.count)
        return alignments[column] == .left ? text + padding : padding + text
      }
      var line = indent + cells.joined(separator: "  ")
      while line.last == " " { line.removeLast() }
      return line
    }
  }
}

/// Figures as people read them.
enum Figure {
  /// "1,234,567".
  static func count(_ value: UInt64) -> String {
    var text = ""
    for (position, digit) in String(value).reversed().enumerated() {
      if position > 0, position.isMultiple(of: 3) { text.append(",") }
      text.append(digit)
    }
    return String(text.reversed())
  }

  /// "999 B", "1.50 kB", "23.4 GB": three digits, powers of 1000.
  static func bytes(_ value: UInt64) -> String {
    guard value >= 1000 else { return "\(value) B" }
    var scaled = Double(value)
    var unit = -1
    // 999.5 is not written as "1000".
    while scaled >= 999.5, unit < units.count - 1 {
      scaled /= 1000
      unit += 1
    }
    // From a hundredth to the whole, as the number grows.
    let places = scaled < 9.995 ? 100.0 : scaled < 99.95 ? 10.0 : 1.0
    let rounded = (scaled * places).rounded() / places
    let whole = UInt64(rounded)
    guard places > 1 else { return "\(whole) \(units[unit])" }
    let fraction = UInt64(((rounded - Double(whole)) * places).rounded())
    let digits = places == 100 && fraction < 10 ? "0\(fraction)" : "\(fraction)"
    return "\(whole).\(digits) \(units[unit])"
  }

  private static let units = ["kB", "MB", "GB", "TB", "PB", "EB"]

  /// "12 s", "3 min 4 s", "2 h 5 min", "6 d 7 h".
  static func duration(_ seconds: Double) -> String {
    let whole = seconds.isFinite ? Int(min(max(seconds, 0), 1e15)) : 0
    switch whole {
    case ..<60: return "\(whole) s"
    case ..<3600: return "\(whole / 60) min \(whole % 60) s"
    case ..<86400: return "\(whole / 3600) h \(whole % 3600 / 60) min"
    default: return "\(whole / 86400) d \(whole % 86400 / 3600) h"
    }
  }
}
