import Glibc
import Testing

@testable import Dataplane

/// Runs networks from seeds; of one that goes wrong it tells how to see that again, and what happened last.
enum Scenario {
  /// The seeds to run: the one of the environment, or those that always are.
  static func seeds(_ usual: UInt64...) -> [UInt64] {
    guard let text = environment("SIMULATION_SEED"), let seed = UInt64(text) else { return usual }
    return [seed]
  }

  /// How many packets a long run is to send; nil: there shall be none.
  static var packets: Int? { environment("SIMULATION_PACKETS").flatMap { Int($0) } }

  private static func environment(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }

  /// Runs a network, and looks at its books at the end.
  ///
  /// - Parameter allowed: as `Network.finish`.
  @discardableResult
  static func run(
    _ plan: Plan, seed: UInt64, allowing allowed: Set<DropReason> = [], test: String = #function,
    sourceLocation: SourceLocation = #_sourceLocation, _ body: (Network) throws -> Void
  ) throws -> Network {
    let network = try Network(plan, seed: seed)
    try body(network)
    try network.finish(allowing: allowed)
    if let fault = network.model.fault {
      Issue.record(Comment(rawValue: report(fault, network, seed: seed, test)), sourceLocation: sourceLocation)
    }
    return network
  }

  static func report(_ fault: String, _ network: Network, seed: UInt64, _ test: String) -> String {
    let name = test.prefix { $0 != "(" }
    return """
      \(fault)
      Again: SIMULATION_SEED=\(seed) swift test --filter 'Simulation\\..*/\(name)'
      The last of \(network.trace.count) events:
      \(network.trace.lines.joined(separator: "\n"))
      """
  }
}
