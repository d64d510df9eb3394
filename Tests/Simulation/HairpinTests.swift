import PacketIO
import Testing

@testable import Dataplane

/// Gateways that meet at a relay, of which tickets, proofs, forwarding and sessions are the real ones.
@Suite struct HairpinTests {
  private static func plan(_ gateways: Int = 2, bandwidth: UInt64 = 0, workers: [Int] = [1]) -> Plan {
    var plan = Plan()
    plan.gateways = gateways
    plan.workers = workers
    plan.rate = 200
    plan.hairpins = (1..<gateways).map { Plan.Hairpin(first: $0 - 1, second: $0, bandwidth: bandwidth) }
    return plan
  }

  private static func path(_ network: Network, from gateway: Int, to peer: Int) -> Path? {
    network.hairpins?.paths(of: gateway)[peer]
  }

  /// All that was sent since then has to have arrived.
  private static func expectAll(_ network: Network, since time: MonotonicTime) throws {
    network.trafficGoesOn = false
    try network.run(seconds: 0.5)
    let (sent, missing) = network.model.count(since: time)
    #expect(sent > 20 && missing == 0, "\(missing) of \(sent)")
    network.trafficGoesOn = true
  }

  @Test(arguments: Scenario.seeds(1, 2), [1, 2])
  func gatewaysMeetAtARelay(seed: UInt64, workers: Int) throws {
    try Scenario.run(Self.plan(3, workers: [workers, 1]), seed: seed, allowing: [.noPath]) { network in
      try network.run(seconds: 2)
      let start = network.now
      try network.run(seconds: 2)
      try Self.expectAll(network, since: start)
      for (gateway, peer) in [(0, 1), (1, 0), (1, 2), (2, 1)] {
        #expect(network.gateways[gateway].path(to: peer) == Self.path(network, from: gateway, to: peer))
      }
    }
  }

  /// What more than a hairpin's bandwidth comes waits, and goes in its order.
  @Test(arguments: Scenario.seeds(1, 2))
  func aBandwidthHolds(seed: UInt64) throws {
    var plan = Self.plan(bandwidth: 400_000)
    plan.rate = 1000
    try Scenario.run(plan, seed: seed, allowing: [.noPath]) { network in
      try network.run(seconds: 2)
      let before = network.gateways[1].books.delivered
      try network.run(seconds: 4)
      let delivered = network.gateways[1].books.delivered - before
      // 25 to 200 KB of packets of some 450 bytes.
      #expect((100...700).contains(delivered), "\(delivered)")
    }
  }

  /// A relay starts anew, and its gateways were told or were not: they find it again with their tickets.
  @Test(arguments: Scenario.seeds(1, 2), [true, false])
  func aRelayStartsAnew(seed: UInt64, isOrderly: Bool) throws {
    try Scenario.run(Self.plan(), seed: seed, allowing: [.noPath]) { network in
      try network.run(seconds: 2)
      for round in 1...3 {
        network.stopRelay(isOrderly: isOrderly)
        try network.run(seconds: 0.2)
        network.startRelay()
        try network.run(seconds: 8)
        let found = network.now
        try network.run(seconds: 1)
        try Self.expectAll(network, since: found)
        #expect(network.hairpins?.openings(0) == UInt64(round + 1))
      }
    }
  }

  /// A gateway's translator takes its ports back: the relay knows it by its next proof, and nobody else by less.
  @Test(arguments: Scenario.seeds(1, 2), [Translator.Kind.bySource, .byDestination])
  func aRebindingIsProved(seed: UInt64, kind: Translator.Kind) throws {
    var plan = Self.plan()
    let place = Place(gateway: 0, interface: plan.interfaces)
    plan.translators = [place: kind]
    try Scenario.run(plan, seed: seed, allowing: [.noPath]) { network in
      try network.run(seconds: 2)
      for _ in 0..<3 {
        network.internet.translators[place]?.rebind()
        for _ in 0..<20 { network.replay() }
        try network.run(seconds: 5)
        let found = network.now
        try network.run(seconds: 1)
        try Self.expectAll(network, since: found)
      }
      #expect((network.hairpins?.openings(0) ?? 0) > 3)
    }
  }

  /// The direct path is lost, and comes back.
  @Test(arguments: Scenario.seeds(1, 2), [1, 2])
  func aRelayTakesOver(seed: UInt64, workers: Int) throws {
    var plan = Self.plan(workers: [workers])
    plan.meetsOnlyThere = false
    try Scenario.run(plan, seed: seed, allowing: [.noPath]) { network in
      try network.run(seconds: 5)
      let direct = Path(transport: 0, endpoint: Plan.address(Place(gateway: 1, interface: 0)))
      #expect(network.gateways[0].path(to: 1) == direct)
      network.internet.change(0, 1) { $0.isUp = false }
      try network.run(seconds: 3)
      let left = network.now
      try network.run(seconds: 2)
      try Self.expectAll(network, since: left)
      #expect(network.gateways[0].path(to: 1) == Self.path(network, from: 0, to: 1))
      network.internet.change(0, 1) { $0.isUp = true }
      try network.run(seconds: 30)
      #expect(network.gateways[0].path(to: 1) == direct)
    }
  }

  private static func run(
    seed: UInt64, seconds: Double, bandwidth: UInt64 = 0, test: String = #function
  ) throws -> Network {
    var plan = plan(3, bandwidth: bandwidth, workers: [1, 2])
    plan.translators = [Place(gateway: 1, interface: plan.interfaces): .bySource]
    return try Scenario.run(plan, seed: seed, allowing: [.noPath], test: test) { network in
      Weather().begin(network)
      try network.run(seconds: seconds)
      try network.calm()
      // Some have lost the keys that others use.
      for from in 0..<3 {
        for to in 0..<3 where to != from {
          network.operators[to].inbound[from] = [network.operators[from].outbound[to] ?? 0]
        }
      }
      for gateway in 0..<3 { try network.reload(gateway) }
      try network.run(seconds: 40)
      let settled = network.now
      try network.run(seconds: 1)
      try Self.expectAll(network, since: settled)
    }
  }

  /// Loss, delay, repetition, damage, other addresses, attackers, restarts of gateways and of the relay.
  @Test(arguments: Scenario.seeds(1, 2, 3, 4), [0, 2_000_000])
  func underAllFaults(seed: UInt64, bandwidth: UInt64) throws {
    let network = try Self.run(seed: seed, seconds: 30, bandwidth: bandwidth)
    #expect(network.model.delivered > 1000)
    #expect((0..<3).reduce(0) { $0 + (network.hairpins?.openings($1) ?? 0) } >= 4)
  }

  @Test(arguments: Scenario.seeds(5))
  func theSameSeedGivesTheSameTrace(seed: UInt64) throws {
    let digests = try (0..<2).map { _ in try Self.run(seed: seed, seconds: 5).trace.digest }
    #expect(digests[0] == digests[1])
    #expect(try Self.run(seed: seed + 1, seconds: 5).trace.digest != digests[0])
  }
}
