import ArgumentParser
import Foundation
import Lab

/// `vpnbench chart RESULT.json PICTURE.svg`
struct ChartCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "chart", abstract: "Draws saved results as bars, into an SVG file.")

  @Argument(help: "A result that --json wrote.") var result: String
  @Argument(help: "The picture to write.") var picture: String

  @Option(parsing: .upToNextOption, help: "Figures to show, by their ids in the result; a panel each.")
  var metrics: [String] = []

  @Option(parsing: .upToNextOption, help: "Subjects to show, by their names; all by default.")
  var subjects: [String] = []

  @Option(help: "What stands above.")
  var title: String?

  func run() throws {
    let report = try Report(contentsOf: result)
    let unknown =
      metrics.filter { id in !report.results.contains { $0.metric == id } }
      + subjects.filter { name in !report.subjects.contains { $0.name == name } }
    guard unknown.isEmpty else {
      throw LabError(
        "\(result) has no \(unknown.joined(separator: ", ")); it has the figures "
          + "\(report.metrics.map(\.id).joined(separator: ", ")) and the subjects "
          + report.subjects.map(\.name).joined(separator: ", "))
    }
    var chart = Chart(report, metrics: metrics, subjects: subjects)
    if let title { chart.title = title }
    try chart.write(to: picture)
  }
}

extension Chart {
  func write(to path: String) throws {
    do {
      try Data(svg().utf8).write(to: URL(filePath: path), options: .atomic)
    } catch {
      throw LabError("\(path) cannot be written: choose another place for the chart")
    }
  }
}
