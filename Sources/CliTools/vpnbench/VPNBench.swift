import ArgumentParser
import Lab

/// Measures Culvert, what bounds it, and what else is installed.
///
/// Nothing of it is asynchronous, so that it runs under valgrind, which fails where the main thread only waits.
@main struct VPNBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "vpnbench",
    abstract: "Measures the tunnel, its parts, the bounds of the machine, and other VPN programs.",
    discussion: """
      Figures of different moments cannot be compared on a machine that does other things too: each scenario \
      measures all its subjects in turns, several rounds of it, and reports medians, their spread, and ratios.
      """,
    subcommands: [
      CryptoCommand.self, PipelineCommand.self, WorkersCommand.self, ScaleCommand.self, FirewallCommand.self,
      LoopbackCommand.self, HairpinCommand.self, TunnelCommand.self, CompareCommand.self, ChartCommand.self,
      SpliceCommand.self,
      NullGatewayCommand.self, LoopbackGatewaysCommand.self,
    ])
}

/// Options that all scenarios share.
struct OutputOptions: ParsableArguments {
  @Option(name: .long, help: "Also write the results, all single values included, to this file.")
  var json: String?

  @Option(name: .long, help: "Also draw the results into this file, as SVG.")
  var chart: String?

  @Option(name: .long, help: "Rounds; every round measures every subject once.")
  var rounds = 5

  func validate() throws {
    guard (1...1000).contains(rounds) else { throw ValidationError("--rounds is from 1 to 1000") }
  }

  /// Prints the tables and, where asked, writes the file.
  func deliver(_ report: Report) throws {
    print(report.tables())
    if let json { try report.write(to: json) }
    if let chart { try Chart(report).write(to: chart) }
  }
}
