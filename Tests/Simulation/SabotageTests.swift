import Testing

@testable import Dataplane

/// The simulator finds what is broken on purpose.
@Suite struct SabotageTests {
  @Test(arguments: Sabotage.allCases)
  func isFound(sabotage: Sabotage) throws {
    var plan = Plan()
    plan.gateways = 3
    plan.hasFirewall = true
    let network = try Network(plan, seed: 1)
    network.internet.change(0, 1) { ($0.duplicated, $0.jitter) = (50, 1_000_000) }
    network.sabotage = sabotage
    network.stop(0)
    try network.start(0)
    try network.run(seconds: 1)
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
