import Glibc
import PacketIO
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
    func attempt(from start: MonotonicTime? = nil) throws -> Network {
      let network = try Network(plan, seed: seed)
      network.showTrace(from: start)
      try body(network)
      try network.finish(allowing: allowed)
      return network
    }
    let network = try attempt()
    guard let fault = network.model.fault else { return network }
    // What was found at the end only, began earlier: once more, to see that.
    let shown = try network.model.faultTime.map { try attempt(from: $0) } ?? network
    Issue.record(Comment(rawValue: report(fault, shown, seed: seed, test)), sourceLocation: sourceLocation)
    return network
  }

  static func report(_ fault: String, _ network: Network, seed: UInt64, _ test: String) -> String {
    let name = test.prefix { $0 != "(" }
    let length = packets == nil ? "" : "SIMULATION_PACKETS=1 "
    return """
      \(fault)
      Again: \(length)SIMULATION_SEED=\(seed) swift test --filter 'Simulation\\..*/\(name)'
      \(network.model.faultTime == nil ? "The last" : "Some") of \(network.trace.count) events:
      \(network.trace.lines.joined(separator: "\n"))
      """
  }
}
