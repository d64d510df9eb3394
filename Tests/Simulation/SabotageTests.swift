import Testing

@testable import Dataplane

/// The simulator finds what is broken on purpose.
@Suite struct SabotageTests {
  @Test(arguments: Sabotage.allCases)
  func isFound(sabotage: Sabotage) throws {
    var plan = Plan()
    plan.gateways = 3
    plan.hasFirewall = true
    if sabotage.ofRelay != nil {
      plan.hairpins = [Plan.Hairpin(first: 0, second: 1), Plan.Hairpin(first: 1, second: 2)]
    }
    let network = try Network(plan, seed: 1)
    network.internet.change(0, 1) { ($0.duplicated, $0.jitter) = (50, 1_000_000) }
    network.sabotage = sabotage
    network.stop(0)
    try network.start(0)
    try network.run(seconds: 1)
    for _ in 0..<20 where sabotage.ofRelay != nil { network.replay() }
    network.stop(0)
    try network.start(0)
    try network.run(seconds: 1)
    try network.finish()
    let found = network.model.fault
    let fault = try #require(found)
    let report = Scenario.report(fault, network, seed: 1, "isFound()")
    #expect(report.contains("SIMULATION_SEED=1 swift test --filter"))
    #expect(report.split(separator: "\n").count > 20)
    #expect(fault.contains(Self.words(sabotage)), "\(fault)")
  }

  private static func words(_ sabotage: Sabotage) -> String {
    switch sabotage {
    case .acceptsTwice: "again"
    case .deliversElsewhere: "instead of"
    case .losesDelivery: "missing"
    case .altersDelivery: "altered"
    case .leaksBuffer: "misses 1 buffers"
    case .forgetsFirewall: "isForbidden"
    case .repeatsNumbers: "used again"
    case .relayLosesPackets: "packets"
    case .relayConfusesHairpins, .relayServesAnybody: "the relay sends"
    }
  }

  /// Without it the same run is right.
  @Test func nothingIsFoundWhereNothingIsBroken() throws {
    var plan = Plan()
    plan.gateways = 3
    plan.hasFirewall = true
    try Scenario.run(plan, seed: 1) { network in
      network.internet.change(0, 1) { ($0.duplicated, $0.jitter) = (50, 1_000_000) }
      try network.run(seconds: 2)
    }
  }
}
