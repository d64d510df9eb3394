import Testing

@testable import Dataplane

/// Networks under every fault at once: each packet arrives, or it is known why not.
@Suite struct FaultTests {
  /// - Parameter packets: that hosts send in bad weather, about.
  static func run(
    _ plan: Plan, seed: UInt64, packets: Int, weather: Weather = Weather(), test: String = #function
  ) throws -> Network {
    let seconds = Double(packets) / Double(plan.rate * plan.gateways)
    return try Scenario.run(plan, seed: seed, allowing: [.noPath], test: test) { network in
      weather.begin(network)
      try network.run(seconds: seconds)
      try network.calm()
    }
  }

  static var two: Plan {
    var plan = Plan()
    plan.workers = [2, 1]
    plan.hasFirewall = true
    plan.variesKeys = true
    plan.unlisted = [0]
    plan.translators = [Place(gateway: 0, interface: 0): .bySource]
    return plan
  }

  static var three: Plan {
    var plan = Plan()
    plan.gateways = 3
    plan.interfaces = 2
    plan.workers = [1, 4, 2]
    plan.aggregates = true
    return plan
  }

  static var ten: Plan {
    var plan = Plan()
    plan.gateways = 10
    plan.interfaces = 2
    plan.workers = [1, 2, 1, 1]
    plan.hasFirewall = true
    plan.variesKeys = true
    plan.rate = 500
    return plan
  }

  static func plan(_ gateways: Int) -> Plan { gateways == 2 ? two : gateways == 3 ? three : ten }

  @Test(arguments: [2, 3, 10], Scenario.seeds(1, 2, 3))
  func ofAnyGateways(gateways: Int, seed: UInt64) throws {
    let packets = 10_000
    let network = try Self.run(Self.plan(gateways), seed: seed, packets: packets)
    // In some, two gateways have no key in common for most of the time.
    #expect(network.model.delivered > packets / 20)
  }

  /// All of it has to happen, or the runs show nothing.
  @Test(arguments: Scenario.seeds(1))
  func everythingHappens(seed: UInt64) throws {
    let network = try Self.run(Self.ten, seed: seed, packets: 20_000, weather: Weather(interval: 20_000_000))
    for kind in [
      .lost, .strayed, .refused, .replayed, .invented, .moved, .started, .rekeyed, .changedPeers, .reloaded, .handedOff,
    ] as [Trace.Event.Kind] {
      #expect(network.trace.counts[kind, default: 0] > 3, "\(kind)")
    }
    for loss in Link.Loss.allCases {
      #expect(network.internet.links.reduce(0) { $0 + $1.lost[loss, default: 0] } > 3, "\(loss)")
    }
    #expect(network.internet.links.reduce(0) { $0 + $1.copies } > 3)
    #expect(network.internet.links.reduce(0) { $0 + $1.damaged } > 3)
    for verdict in [.goesNowhere, .isUnsealed, .isSpoofed, .isForbidden] as [Model.Verdict] {
      #expect((0..<10).reduce(0) { $0 + network.model.count(verdict, from: $1) } > 3, "\(verdict)")
    }
  }

  /// The same seed gives the same events, and the same bytes on every link.
  @Test(arguments: Scenario.seeds(4))
  func theSameSeedGivesTheSameTrace(seed: UInt64) throws {
    let digests = try (0..<2).map { _ in try Self.run(Self.three, seed: seed, packets: 3_000).trace.digest }
    #expect(digests[0] == digests[1])
    #expect(try Self.run(Self.three, seed: seed + 1, packets: 3_000).trace.digest != digests[0])
  }
}

/// As many packets as the environment says, in networks of `each`: `SIMULATION_PACKETS=1000000`.
@Suite(.enabled("SIMULATION_PACKETS is not set") { Scenario.packets != nil })
struct LongFaultTests {
  private static let each = 50_000

  @Test(arguments: [2, 3, 10])
  func manyPackets(gateways: Int) throws {
    let share = max((Scenario.packets ?? 0) * gateways / 15, 1)
    var sent = 0
    var seed = Scenario.seeds(1000)[0]
    while sent < share {
      let network = try FaultTests.run(
        FaultTests.plan(gateways), seed: seed, packets: Self.each, test: "manyPackets()")
      let (packets, digest) = (network.model.sent.count, String(network.trace.digest, radix: 16))
      print("\(gateways) gateways, seed \(seed): \(packets) packets, digest of all events \(digest)")
      sent += packets
      seed += 1
      guard network.model.fault == nil else { return }
    }
  }
}
