/// Bars with their spread, as a picture in SVG 1.1: no fonts, scripts or styles from elsewhere.
struct Chart {
  enum Role: String {
    /// What is measured here.
    case own
    /// What no tunnel can exceed.
    case bound
    /// Other programs.
    case other

    fileprivate var color: String {
      switch self {
      case .own: "#1f5fa8"
      case .bound: "#c3c9d1"
      case .other: "#8296ad"
      }
    }
  }

  struct Bar {
    var name: String
    var role: Role
    var value: Double
    /// The least and the greatest of all values.
    var range: ClosedRange<Double>
  }

  /// Bars of one scale.
  struct Panel {
    var title: String
    /// "Gbit/s, more is better"
    var unit: String
    var bars: [Bar]
  }

  var title: String
  /// One line below all panels.
  var note: String
  var panels: [Panel]

  // Units are those of the picture, a pixel where it is not scaled.
  private static let margin = 20.0
  private static let panelWidth = 520.0
  private static let gap = 40.0
  private static let nameWidth = 190.0
  /// Kept free behind the longest bar for its figure.
  private static let figureWidth = 60.0
  private static let barHeight = 14.0
  private static let barStep = 21.0
  private static let headHeight = 48.0
  private static let titleHeight = 34.0
  private static let noteHeight = 24.0
  private static let columns = 2

  /// The longest bar's length, its spread included.
  static let barRoom = panelWidth - nameWidth - figureWidth

  func svg() -> String {
    let columns = min(Chart.columns, max(panels.count, 1))
    var rows: [[Panel]] = []
    for start in stride(from: 0, to: panels.count, by: columns) {
      rows.append(Array(panels[start..<min(start + columns, panels.count)]))
    }
    let heights = rows.map { row in
      Chart.headHeight + Double(row.map(\.bars.count).max() ?? 0) * Chart.barStep + 14
    }
    let width = 2 * Chart.margin + Double(columns) * Chart.panelWidth + Double(columns - 1) * Chart.gap
    let height = 2 * Chart.margin + Chart.titleHeight + heights.reduce(0, +) + Chart.noteHeight
    var lines = [
      """
      <svg xmlns="http://www.w3.org/2000/svg" width="\(number(width))" height="\(number(height))" \
      viewBox="0 0 \(number(width)) \(number(height))" font-family="Helvetica, Arial, sans-serif" font-size="13" \
      fill="#20262e">
      """,
      "<title>\(Chart.escaped(title))</title>",
      "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>",
      text(title, x: Chart.margin, y: Chart.margin + 16, "font-size=\"17\" font-weight=\"bold\""),
    ]
    var top = Chart.margin + Chart.titleHeight
    for (row, height) in zip(rows, heights) {
      for (column, panel) in row.enumerated() {
        lines += draw(panel, x: Chart.margin + Double(column) * (Chart.panelWidth + Chart.gap), y: top)
      }
      top += height
    }
    lines.append(text(note, x: Chart.margin, y: top + 14, "font-size=\"11\" fill=\"#5a6470\""))
    lines.append("</svg>")
    return lines.joined(separator: "\n") + "\n"
  }

  private func draw(_ panel: Panel, x: Double, y: Double) -> [String] {
    let largest = panel.bars.map { max($0.value, $0.range.upperBound) }.max() ?? 0
    func length(_ value: Double) -> Double { largest > 0 ? max(value, 0) / largest * Chart.barRoom : 0 }
    var lines = [
      text(panel.title, x: x, y: y + 16, "font-weight=\"bold\""),
      text(panel.unit, x: x, y: y + 33, "font-size=\"11\" fill=\"#5a6470\""),
    ]
    let left = x + Chart.nameWidth
    for (index, bar) in panel.bars.enumerated() {
      let top = y + Chart.headHeight + Double(index) * Chart.barStep
      let middle = top + Chart.barHeight / 2
      let weight = bar.role == .own ? " font-weight=\"bold\"" : ""
      lines.append(text(short(bar.name), x: left - 8, y: top + 11.5, "text-anchor=\"end\"" + weight))
      lines.append(
        """
        <rect class="bar" x="\(number(left))" y="\(number(top))" width="\(number(length(bar.value)))" \
        height="\(number(Chart.barHeight))" fill="\(bar.role.color)"/>
        """)
      if bar.range.upperBound > bar.range.lowerBound {
        let (from, to) = (number(left + length(bar.range.lowerBound)), number(left + length(bar.range.upperBound)))
        let (low, high) = (number(middle - 3), number(middle + 3))
        lines.append(
          """
          <path class="spread" d="M\(from) \(low)V\(high)M\(from) \(number(middle))H\(to)M\(to) \(low)V\(high)" \
          stroke="#20262e" fill="none"/>
          """)
      }
      let end = left + length(max(bar.value, bar.range.upperBound))
      lines.append(text(figure(bar.value), x: end + 7, y: top + 11.5, weight))
    }
    return lines
  }

  /// Names end where the room for them ends.
  private func short(_ name: String) -> String { name.count <= 28 ? name : name.prefix(27) + "…" }

  private func text(_ text: String, x: Double, y: Double, _ attributes: String) -> String {
    "<text x=\"\(number(x))\" y=\"\(number(y))\" \(attributes)>\(Chart.escaped(text))</text>"
  }

  /// Tenths are finer than any screen.
  private func number(_ value: Double) -> String {
    let text = fixed(value, 1)
    return text.hasSuffix(".0") ? String(text.dropLast(2)) : text
  }

  /// Text as XML 1.0 wants it; characters that it forbids are left out.
  static func escaped(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "&": result += "&amp;"
      case "<": result += "&lt;"
      case ">": result += "&gt;"
      case "\"": result += "&quot;"
      case "\t", "\n", "\r": result += " "
      case "\u{0}"..<"\u{20}", "\u{FFFE}", "\u{FFFF}": continue
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }
}

extension Chart {
  /// What a chart of a tunnel shows unless it is told otherwise.
  static let usualMetrics = ["tcp-1", "cpu", "udp-64", "udp-1350", "ping-p50", "ping-p99"]

  /// - Parameters:
  ///   - metrics: by their ids, a panel each; empty: the usual ones, or all where there are none of those.
  ///   - subjects: by their names; empty: all.
  init(_ report: Report, metrics: [String] = [], subjects: [String] = []) {
    let measured = report.metrics.filter { metric in report.results.contains { $0.metric == metric.id } }
    let usual = measured.filter { Chart.usualMetrics.contains($0.id) }
    let chosen =
      metrics.isEmpty ? (usual.isEmpty ? measured : usual) : metrics.compactMap { id in measured.first { $0.id == id } }
    let rounds = report.results.map(\.values.count).max() ?? 0
    title = "vpnbench \(report.scenario)"
    note =
      "\(report.machine). Medians of \(rounds) round\(rounds == 1 ? "" : "s")"
      + (rounds > 1 ? "; thin lines go from the least to the greatest value" : "")
    panels = chosen.map { metric in
      Panel(
        title: metric.title + (metric.column.map { ", \($0)" } ?? ""),
        unit: "\(metric.unit), \(metric.higherIsBetter ? "more" : "less") is better",
        bars: report.subjects.filter { subjects.isEmpty || subjects.contains($0.name) }.compactMap { subject in
          guard let values = report.values(metric.id, of: subject.name), !values.isEmpty else { return nil }
          let role: Role = subject.isBound ? .bound : subject.name.hasPrefix("culvert") ? .own : .other
          return Bar(name: subject.name, role: role, value: values.median, range: values.min...values.max)
        })
    }
  }
}
