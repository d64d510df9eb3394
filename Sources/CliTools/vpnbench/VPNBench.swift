import ArgumentParser
import Host

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
    version: Version.text,
    subcommands: [
      CryptoCommand.self, PipelineCommand.self, WorkersCommand.self, ScaleCommand.self, FirewallCommand.self,
      LoopbackCommand.self, HandshakeCommand.self, RekeyCommand.self, HairpinCommand.self, RelayCommand.self,
      TunnelCommand.self, FloodCommand.self, CompareCommand.self, ChartCommand.self,
      SpliceCommand.self, NullGatewayCommand.self, CrowdGatewayCommand.self, LoopbackGatewaysCommand.self,
    ])
}
