import Glibc
import Testing

/// Three relays and ten gateways while everything moves, starts anew and is allowed and forbidden in every order.
@Suite struct RelaySimulationTests {
  private static func environment(_ name: String) -> UInt64? {
    getenv(name).flatMap { UInt64(String(cString: $0)) }
  }

  /// `SIMULATION_SEED` is one of them, `SIMULATION_RELAY_SEEDS` how many there are.
  private static var seeds: [UInt64] {
    environment("SIMULATION_SEED").map { [$0] } ?? Array(1...(environment("SIMULATION_RELAY_SEEDS") ?? 20))
  }

  private static func report(_ simulation: RelaySimulation, seed: UInt64) -> String {
    """
    \(simulation.faults.joined(separator: "\n"))
    Again: SWIFT_DETERMINISTIC_HASHING=1 SIMULATION_SEED=\(seed) swift test --filter RelaySimulationTests
    The last of \(simulation.trace.count) events:
    \(simulation.trace.suffix(200).joined(separator: "\n"))
    """
  }

  /// Nothing is ever forwarded outside the policy or to where nobody has enrolled, and after 20 s of quiet who may talk does.
  @Test(arguments: seeds) func whoMayMeetDoesAndNobodyElse(seed: UInt64) {
    let simulation = RelaySimulation(seed % 5 == 0 ? .sparse : RelaySimulation.Plan(), seed: seed)
    simulation.run()
    guard !simulation.faults.isEmpty else {
      #expect(simulation.forwarded > 100, "seed \(seed) shows nothing")
      return
    }
    Issue.record(Comment(rawValue: Self.report(simulation, seed: seed)))
  }

  /// What is broken on purpose is found, and said so that it can be seen again.
  @Test(arguments: [
    (RelaySimulation.Sabotage.removalsAreIgnored, "outside the policy"),
    (.aPairIsForgotten, "of quiet"),
    (.packetsGoToFormerAddresses, "where it is not enrolled"),
  ])
  func aFaultIsFound(sabotage: RelaySimulation.Sabotage, words: String) {
    var plan = RelaySimulation.Plan()
    plan.sabotage = sabotage
    let simulation = RelaySimulation(plan, seed: 1)
    simulation.run()
    let report = Self.report(simulation, seed: 1)
    #expect(simulation.faults.contains { $0.contains(words) }, "\(simulation.faults)")
    #expect(report.contains("SIMULATION_SEED=1 swift test") && report.contains(words))
  }
}
