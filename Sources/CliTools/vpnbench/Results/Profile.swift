import Lab

/// Where a subject's processes spend their time, by symbol, as `perf` sees it.
struct Profile: Codable, Equatable {
  struct Row: Codable, Equatable {
    /// Percent of all samples.
    var percent: Double
    /// Demangled.
    var symbol: String
    /// The program, library or kernel it belongs to.
    var module: String
  }

  var subject: String
  var rows: [Row]

  /// Rows that are kept.
  static let length = 25

  /// Why there can be no profile; nil: there can.
  static var obstacle: String? {
    Tool.exists("perf") ? nil : "no profile: perf is not installed (Debian: package linux-perf)"
  }

  /// Begins to sample processes.
  /// - Parameter seconds: for how long.
  static func record(_ processes: [ProcessHandle], seconds: Double, in directory: TemporaryDirectory) throws
    -> ProcessHandle
  {
    let pids = processes.map { "\($0.pid)" }.joined(separator: ",")
    return try ProcessHandle(
      "perf",
      ["record", "-q", "-F", "999", "-o", "\(directory.path)/perf.data", "-p", pids, "--", "sleep", "\(seconds)"])
  }

  /// Reads what `record` has written, once that has ended.
  init(of subject: String, in directory: TemporaryDirectory) throws {
    let text = try Tool.run(
      "perf",
      [
        "report", "--stdio", "-q", "--no-children", "-i", "\(directory.path)/perf.data", "-F", "overhead,sym,dso", "-t",
        "\t", "--percent-limit", "0.05",
      ])
    self.subject = subject
    rows = Array(Profile.rows(text).prefix(Profile.length))
    if rows.isEmpty { throw LabError("perf has taken no samples of \(subject)") }
    let names = Profile.demangled(rows.map(\.symbol))
    for index in rows.indices { rows[index].symbol = names[index] }
  }

  /// The rows of `perf report -F overhead,sym,dso -t TAB`: "12.34%", "[k] _copy_to_iter", "[kernel.kallsyms]".
  static func rows(_ text: String) -> [Row] {
    text.split(separator: "\n").compactMap { line in
      let fields = line.split(separator: "\t").map { $0.split(separator: " ").joined(separator: " ") }
      guard fields.count >= 3, fields[0].hasSuffix("%"), let percent = Double(fields[0].dropLast()),
        fields[1].hasPrefix("["), let end = fields[1].firstIndex(of: "]")
      else { return nil }
      let symbol = fields[1][fields[1].index(after: end)...].drop { $0 == " " }
      return Row(percent: percent, symbol: String(symbol), module: fields[2])
    }
  }

  /// Swift's names made readable, where the toolchain's program for it is found.
  private static func demangled(_ symbols: [String]) -> [String] {
    let tool: (String, [String])
    if Tool.exists("swift-demangle") {
      tool = ("swift-demangle", ["--simplified"])
    } else if Tool.exists("swift") {
      tool = ("swift", ["demangle", "--simplified"])
    } else {
      return symbols
    }
    guard let text = try? Tool.run(tool.0, tool.1, input: symbols.joined(separator: "\n") + "\n") else {
      return symbols
    }
    let names = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    return names.count >= symbols.count ? Array(names.prefix(symbols.count)) : symbols
  }

  func table() -> String {
    var table = TextTable()
    table.add(["Profile of \(subject): one TCP stream", "in", "%"], isHead: true)
    for row in rows { table.add([String(row.symbol.prefix(90)), row.module, fixed(row.percent, 1)]) }
    return table.text()
  }
}
