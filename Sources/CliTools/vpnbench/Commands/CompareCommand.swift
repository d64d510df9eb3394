import ArgumentParser
import Lab

/// `vpnbench compare A.json B.json`
struct CompareCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "compare", abstract: "Compares two saved results of one scenario.",
    discussion: """
      A change counts when it is larger than the noise of both runs. Where the scenario has bounds, each figure is \
      also compared as a share of the bound of its own run: that takes most of a machine's changing moods out.
      """)

  @Argument(help: "The result to compare with.") var before: String
  @Argument(help: "The result to judge.") var after: String

  func run() throws {
    let a = try Report(contentsOf: before)
    let b = try Report(contentsOf: after)
    guard a.scenario == b.scenario else {
      throw LabError("\(before) is of scenario \(a.scenario), \(after) of \(b.scenario): compare like with like")
    }
    print(Comparison(a, b).text(before: before, after: after))
  }
}

/// Two runs of one scenario, side by side.
struct Comparison {
  enum Verdict: String { case better, worse, same = "–" }

  struct Row: Equatable {
    var subject: String
    var metric: Report.Metric
    var before: Samples
    var after: Samples
    /// Medians: after through before.
    var change: Double
    /// The same for shares of the bound; nil without one.
    var relativeChange: Double?
    var verdict: Verdict
  }

  let a: Report
  let b: Report

  init(_ a: Report, _ b: Report) {
    self.a = a
    self.b = b
  }

  var rows: [Row] {
    a.metrics.flatMap { metric in
      a.subjects.compactMap { subject -> Row? in
        guard let before = a.values(metric.id, of: subject.name), let after = b.values(metric.id, of: subject.name),
          !before.isEmpty, !after.isEmpty
        else { return nil }
        // Nothing that stays nothing is no change; something out of nothing is one without a measure.
        let change = before.median == after.median ? 1 : after.median / before.median
        let relative = relativeChange(metric, subject, change)
        return Row(
          subject: subject.name, metric: metric, before: before, after: after, change: change,
          relativeChange: relative, verdict: verdict(relative ?? change, before, after, metric))
      }
    }
  }

  /// The last bound is the closest one.
  private func relativeChange(_ metric: Report.Metric, _ subject: Report.Entry, _ change: Double) -> Double? {
    if subject.isBound || !change.isFinite || change == 0 { return nil }
    for bound in a.subjects.reversed() where bound.isBound {
      guard let before = a.values(metric.id, of: bound.name), let after = b.values(metric.id, of: bound.name),
        before.median > 0, after.median > 0
      else { continue }
      return change / (after.median / before.median)
    }
    return nil
  }

  /// Noise: twice the standard error of the two medians' quotient, and never less than one percent.
  private func verdict(_ change: Double, _ a: Samples, _ b: Samples, _ metric: Report.Metric) -> Verdict {
    func error(_ samples: Samples) -> Double { samples.spread * 1.2533 / Double(samples.count).squareRoot() }
    let noise = max(0.01, 2 * (error(a) * error(a) + error(b) * error(b)).squareRoot())
    if abs(change - 1) <= noise { return .same }
    return (change > 1) == metric.higherIsBetter ? .better : .worse
  }

  func text(before: String, after: String) -> String {
    var parts = ["\(a.scenario): \(before) → \(after)"]
    if a.machine != b.machine { parts[0] += "\n  before: \(a.machine)\n  after:  \(b.machine)" }
    let rows = rows
    for metric in a.metrics where rows.contains(where: { $0.metric == metric }) {
      var table = TextTable()
      table.add(["\(metric.title) (\(metric.unit))", "before", "after", "change", "to bound", ""], isHead: true)
      for row in rows where row.metric == metric {
        table.add([
          row.subject, figure(row.before.median), figure(row.after.median), percent(row.change),
          row.relativeChange.map(percent) ?? "", row.verdict.rawValue,
        ])
      }
      parts.append(table.text())
    }
    let missing = Set(a.subjects.map(\.name)).symmetricDifference(b.subjects.map(\.name)).sorted()
    if !missing.isEmpty { parts.append("Subjects in one of the two only: \(missing.joined(separator: ", "))") }
    let lost = Set(a.metrics.map(\.id)).symmetricDifference(b.metrics.map(\.id)).sorted()
    if !lost.isEmpty { parts.append("Figures in one of the two only: \(lost.joined(separator: ", "))") }
    let differing = a.settings.filter { key, value in b.settings[key].map { $0 != value } ?? false }.map(\.key).sorted()
    if !differing.isEmpty {
      parts.append("warning: the two ran with different settings: \(differing.joined(separator: ", "))")
    }
    parts += Set(a.warnings + b.warnings).sorted().map { "warning: \($0)" }
    return parts.joined(separator: "\n\n")
  }

  private func percent(_ ratio: Double) -> String {
    guard ratio.isFinite else { return "from 0" }
    let change = (ratio - 1) * 100
    return (change > 0 ? "+" : "") + fixed(change, 1) + " %"
  }
}
