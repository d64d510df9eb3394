import Lab

/// Text in columns: the first to the left, the others to the right.
struct TextTable {
  private var rows: [[String]] = []
  /// Rows that a rule is drawn under.
  private var ruled: Set<Int> = []

  mutating func add(_ cells: [String], isHead: Bool = false) {
    if isHead { ruled.insert(rows.count) }
    rows.append(cells)
  }

  func text(indent: Int = 2) -> String {
    let columns = rows.map(\.count).max() ?? 0
    let widths = (0..<columns).map { column in rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0 }
    let margin = String(repeating: " ", count: indent)
    var lines: [String] = []
    for (number, row) in rows.enumerated() {
      var line = margin
      for (column, cell) in row.enumerated() {
        let filling = String(repeating: " ", count: widths[column] - cell.count)
        line += column == 0 ? cell + filling : "   " + filling + cell
      }
      while line.last == " " { line.removeLast() }
      lines.append(line)
      if ruled.contains(number) {
        lines.append(margin + widths.map { String(repeating: "─", count: $0) }.joined(separator: "───"))
      }
    }
    return lines.joined(separator: "\n")
  }
}

/// A number with three significant digits, at least those before the point.
func figure(_ value: Double) -> String {
  let size = abs(value)
  return fixed(value, size >= 100 || size == 0 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3)
}

/// A number with so many digits behind the point.
func fixed(_ value: Double, _ digits: Int) -> String {
  guard value.isFinite, abs(value) < 1e15 else { return "\(value)" }
  var scale = 1.0
  for _ in 0..<digits { scale *= 10 }
  let scaled = Int((abs(value) * scale).rounded())
  let whole = scaled / Int(scale)
  let sign = value < 0 && scaled != 0 ? "-" : ""
  if digits == 0 { return "\(sign)\(whole)" }
  let part = String(scaled % Int(scale))
  return "\(sign)\(whole).\(String(repeating: "0", count: digits - part.count))\(part)"
}

extension Report {
  /// Medians, with their spread and each subject's share of every bound; or, for metrics in columns, all of one
  /// title side by side.
  func tables() -> String {
    var parts = ["\(scenario): \(machine)"]
    var shown: Set<String> = []
    for metric in metrics
    where results.contains(where: { $0.metric == metric.id })
      && (metric.column == nil || shown.insert(metric.title).inserted)
    {
      parts.append(metric.column == nil ? table(metric) : table(columns: metrics.filter { $0.title == metric.title }))
    }
    if Set(metrics.map(\.higherIsBetter)).count > 1 {
      parts.append("Of rates more is better; of times, processor seconds and memory less is.")
    }
    parts += (profiles ?? []).map { $0.table() }
    parts += warnings.map { "warning: \($0)" }
    return parts.joined(separator: "\n\n") + "\n"
  }

  private func table(_ metric: Metric) -> String {
    var table = TextTable()
    let bounds = subjects.filter { $0.isBound && values(metric.id, of: $0.name) != nil }
    table.add(["\(metric.title) (\(metric.unit))", "median", "spread"] + bounds.map { "of \($0.name)" }, isHead: true)
    for subject in subjects {
      guard let values = values(metric.id, of: subject.name) else { continue }
      // A bound is compared with those that come before it, which are wider.
      let above = bounds.prefix { $0.name != subject.name }
      table.add(
        [label(subject), figure(values.median), values.count > 1 ? "±\(fixed(values.spread * 100, 0)) %" : ""]
          + above.map { ratio(values, self.values(metric.id, of: $0.name)) })
    }
    return table.text()
  }

  private func table(columns: [Metric]) -> String {
    var table = TextTable()
    table.add(["\(columns[0].title) (\(columns[0].unit))"] + columns.map { $0.column ?? "" } + ["spread"], isHead: true)
    for subject in subjects {
      let values = columns.map { self.values($0.id, of: subject.name) }
      if values.allSatisfy({ $0 == nil }) { continue }
      let spread = Samples(values.compactMap { $0?.spread }).median
      table.add(
        [label(subject)] + values.map { $0.map { figure($0.median) } ?? "" } + ["±\(fixed(spread * 100, 0)) %"])
    }
    return table.text()
  }

  private func label(_ subject: Entry) -> String { subject.name + (subject.note.map { " (\($0))" } ?? "") }

  private func ratio(_ values: Samples, _ bound: Samples?) -> String {
    guard let bound, bound.median > 0 else { return "" }
    let ratio = values.median / bound.median
    return fixed(ratio, ratio < 0.1 ? 3 : 2)
  }

  /// Adds a warning when the values of a metric lie so far apart that small differences mean nothing.
  /// - Parameter metrics: by their ids; those that were not measured are passed over.
  mutating func warnOfNoise(_ metrics: [String], above limit: Double = 0.1) {
    let noise = metrics.compactMap { id -> (spread: Double, title: String)? in
      let spreads = results.filter { $0.metric == id && $0.values.count > 2 }.map(\.values.spread)
      guard !spreads.isEmpty, let metric = self.metrics.first(where: { $0.id == id }) else { return nil }
      return (Samples(spreads).median, metric.title)
    }
    if let worst = noise.max(by: { $0.spread < $1.spread }), worst.spread > limit {
      warn(
        "the machine is noisy: values of one subject differ by ±\(fixed(worst.spread * 100, 0)) % (\(worst.title)). "
          + "Stop other programs, take more rounds, and trust ratios only")
    }
    if machine.build == "debug" {
      warn("this is a debug build, its figures say nothing about speed: build with `swift build -c release`")
    }
  }
}
