import Lab

/// Tells on standard error what is going on: one line that changes on a terminal, a line a step elsewhere.
final class Progress {
  private let isTerminal = TextOutput.standardError.isTerminal
  private let total: Int
  private var done = 0
  private let began = monotonicSeconds()

  /// - Parameter total: steps to come.
  init(total: Int) { self.total = total }

  /// A step begins.
  func step(_ text: String) {
    done += 1
    let elapsed = monotonicSeconds() - began
    let left = done > 3 ? elapsed / Double(done - 1) * Double(total - done + 1) : nil
    let rest = left.map { ", \(Progress.duration($0)) left" } ?? ""
    show("[\(done)/\(total)\(rest)] \(text)", isStep: true)
  }

  /// Something to watch within a step.
  func detail(_ text: String) { if isTerminal { show("[\(done)/\(total)] \(text)", isStep: false) } }

  /// A line that stays.
  func note(_ text: String) { write((isTerminal ? "\r\u{1B}[K" : "") + text + "\n") }

  func finish() { if isTerminal { write("\r\u{1B}[K") } }

  private func show(_ text: String, isStep: Bool) {
    if isTerminal { write("\r\u{1B}[K" + text.prefix(100)) } else if isStep { write(text + "\n") }
  }

  private func write(_ text: String) { standardError(text) }

  static func duration(_ seconds: Double) -> String {
    seconds < 90 ? "\(Int(seconds.rounded())) s" : "\(Int((seconds / 60).rounded())) min"
  }
}

/// Writes to standard error as it is.
func standardError(_ text: String) { TextOutput.standardError.write(text) }
