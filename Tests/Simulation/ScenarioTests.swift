import PacketIO
import Testing

@testable import Dataplane

/// One thing happens to a network, and traffic goes on as it must. That nothing else is lost, doubled or altered meanwhile,
/// the model sees to.
@Suite struct ScenarioTests {
  /// All that was sent since then has to have arrived.
  private func expectAll(_ network: Network, since time: MonotonicTime) throws {
    let goesOn = network.trafficGoesOn
    network.trafficGoesOn = false
    try network.run(seconds: 0.5)
    let (sent, missing) = network.model.count(since: time)
    #expect(sent > 20 && missing == 0, "\(missing) of \(sent)")
    network.trafficGoesOn = goesOn
  }

  private static func path(to gateway: Int, interface: Int = 0) -> Path {
    Path(transport: UInt8(interface), endpoint: Plan.address(Place(gateway: gateway, interface: interface)))
  }

  @Test(arguments: Scenario.seeds(1, 2), [1, 2])
  func aLostPathIsLeftForAnother(seed: UInt64, workers: Int) throws {
    var plan = Plan()
    plan.interfaces = 2
    plan.workers = [workers]
    plan.rate = 200
    try Scenario.run(plan, seed: seed) { network in
      try network.run(seconds: 3)
      for gateway in 0..<2 { #expect(network.gateways[gateway].path(to: 1 - gateway) == Self.path(to: 1 - gateway)) }
      network.internet.change(0, 1) { $0.isUp = false }
      try network.run(seconds: 2)
      let left = network.now
      try network.run(seconds: 2)
      try expectAll(network, since: left)
      for gateway in 0..<2 {
        let other = Self.path(to: 1 - gateway, interface: 1)
        #expect(network.gateways[gateway].path(to: 1 - gateway) == other)
        #expect(network.gateways[gateway].pathChanges.contains { $0.path == other })
      }
      network.internet.change(0, 1) { $0.isUp = true }
      let mended = network.now
      try network.run(seconds: 30)
      try expectAll(network, since: mended)
      for gateway in 0..<2 { #expect(network.gateways[gateway].path(to: 1 - gateway) == Self.path(to: 1 - gateway)) }
    }
  }

  /// A gateway behind a translator gets another port, and is found there as soon as it says something.
  @Test(arguments: Scenario.seeds(1, 2), [Translator.Kind.bySource, .byDestination])
  func aRebindingIsFollowed(seed: UInt64, kind: Translator.Kind) throws {
    let place = Place(gateway: 0, interface: 0)
    var plan = Plan()
    plan.gateways = 3
    plan.workers = [1, 2]
    plan.unlisted = [0]
    plan.translators = [place: kind]
    plan.rate = 200
    // Before it has said something, nobody knows where it is.
    try Scenario.run(plan, seed: seed, allowing: [.noPath]) { network in
      try network.run(seconds: 2)
      for _ in 0..<3 {
        let before = network.gateways[1].path(to: 0)
        network.internet.translators[place]?.rebind()
        try network.run(seconds: 0.5)
        let found = network.now
        #expect(network.gateways[1].path(to: 0) != before)
        try network.run(seconds: 1)
        try expectAll(network, since: found)
      }
    }
  }

  /// What a translator forgets when nothing is sent, keep-alives keep.
  @Test func keepAlivesHoldATranslatorOpen() throws {
    let place = Place(gateway: 0, interface: 0)
    for (interval, holds) in [(Duration.seconds(5), true), (.zero, false)] {
      var plan = Plan()
      plan.unlisted = [0]
      plan.translators = [place: .byDestination]
      plan.translatorLifetime = 10_000_000_000
      plan.keepAliveInterval = interval
      try Scenario.run(plan, seed: 1, allowing: [.noPath]) { network in
        try network.run(seconds: 1)
        network.trafficGoesOn = false
        try network.run(seconds: 60)
        let start = network.now
        for _ in 0..<30 { network.send(1, from: 1, to: 0) }
        try network.run(seconds: 1)
        let (sent, missing) = network.model.count(since: start)
        #expect(sent > 20 && missing == (holds ? 0 : sent))
      }
    }
  }

  /// Large packets vanish on the link from now on; nodes find out what fits, and tell senders.
  @Test(arguments: Scenario.seeds(1, 2), [1, 2])
  func aSmallerPathMTUIsFound(seed: UInt64, workers: Int) throws {
    var plan = Plan()
    plan.workers = [workers]
    plan.sizes = [200, 1390]
    plan.rate = 100
    plan.mtuRaiseInterval = 20_000_000_000
    try Scenario.run(plan, seed: seed) { network in
      try network.run(seconds: 10)
      let before = network.now
      try network.run(seconds: 1)
      try expectAll(network, since: before)
      network.internet.change(0, 1) { $0.mtu = 1380 }
      try network.run(seconds: 10)
      for gateway in 0..<2 {
        let link = network.internet.link(from: gateway, to: 1 - gateway)
        #expect(network.internet.links[link].lost[.tooLarge, default: 0] > 0)
      }
      try network.run(seconds: 5)
      for gateway in 0..<2 {
        let size = network.gateways[gateway].peer(1 - gateway)?.value.mtu?.current ?? 0
        #expect((1360...1380).contains(size), "\(size)")
      }
      network.internet.change(0, 1) { $0.mtu = 1500 }
      try network.run(seconds: 60)
      let raised = network.now
      try network.run(seconds: 1)
      try expectAll(network, since: raised)
    }
  }

  /// A peer that answers no probes: routers are believed that quote one of the last packets, and nobody else.
  @Test(arguments: Scenario.seeds(1, 2), [1, 2])
  func aPeerWithoutProbesIsReachedNevertheless(seed: UInt64, workers: Int) throws {
    var plan = Plan()
    plan.workers = [workers]
    plan.silent = [1]
    plan.sizes = [250, 1390]
    plan.rate = 100
    plan.mtuRaiseInterval = 20_000_000_000
    try Scenario.run(plan, seed: seed) { network in
      func expect(_ size: Int, _ source: PathMTUSource) {
        let mtu = network.gateways[0].peer(1)?.value.mtu
        #expect(mtu?.current == size && mtu?.source == source, "\(mtu?.current ?? 0), \(source)")
      }
      try network.run(seconds: 5)
      expect(1464, .configured)
      let path = Self.path(to: 1)
      let association = try #require(network.gateways[0][0].value.tables.peers[0].outbound)
      let (spi, next) = (association.value.spi, UInt32(truncatingIfNeeded: association.value.next))
      for quote in [
        QuotedPacket(spi: spi &+ 1, sequence: next - 1), QuotedPacket(spi: spi, sequence: next),
        QuotedPacket(spi: spi, sequence: next &+ 1000), QuotedPacket(spi: spi, sequence: 0),
      ] { network.tell(0, path, over: 1300, quote) }
      network.tell(0, path, over: 1199, QuotedPacket(spi: spi, sequence: next - 1))
      network.tell(0, Self.path(to: 0), over: 1300, QuotedPacket(spi: spi, sequence: next - 1))
      try network.run(seconds: 1)
      expect(1464, .configured)
      network.internet.change(0, 1) {
        $0.mtu = 1380
        $0.tells = true
      }
      try network.run(seconds: 1)
      expect(1380, .icmp)
      // What arrives now and whose senders are told, the model knows.
      let link = network.internet.link(from: 0, to: 1)
      let lost = network.internet.links[link].lost[.tooLarge, default: 0]
      try network.run(seconds: 10)
      #expect(network.internet.links[link].lost[.tooLarge, default: 0] == lost)
      network.internet.change(0, 1) { $0.mtu = 1500 }
      try network.run(seconds: 60)
      expect(1464, .configured)
      let raised = network.now
      try network.run(seconds: 1)
      try expectAll(network, since: raised)
    }
  }

  /// Nothing of 1200 bytes gets through: what does is found, and senders are told.
  @Test(arguments: Scenario.seeds(1, 2), [1, 2])
  func aPathBelowTheBaseIsUsed(seed: UInt64, workers: Int) throws {
    var plan = Plan()
    plan.workers = [workers]
    plan.sizes = [200, 1390]
    plan.rate = 100
    try Scenario.run(plan, seed: seed) { network in
      network.internet.change(0, 1) { $0.mtu = 1000 }
      try network.run(seconds: 40)
      for gateway in 0..<2 {
        let mtu = network.gateways[gateway].peer(1 - gateway)?.value.mtu
        #expect((984...1000).contains(mtu?.current ?? 0) && mtu?.source == .probes, "\(mtu?.current ?? 0)")
      }
      // What arrives now and whose senders are told, the model knows.
      try network.run(seconds: 2)
    }
  }

  /// Two sites with one LAN, and a third: hosts reach each other by names that the gateways have agreed on, until a LAN is
  /// taken back.
  @Test(arguments: Scenario.seeds(1, 2), [1, 2])
  func alikeSitesAgree(seed: UInt64, workers: Int) throws {
    var plan = Plan()
    plan.gateways = 3
    plan.workers = [workers]
    plan.alike = [0, 1, 2]
    plan.rate = 200
    try Scenario.run(plan, seed: seed) { network in
      for gateway in 0..<3 {
        let other = (gateway + 1) % 3
        network.internet.change(gateway, other) {
          $0.lost = 100
          $0.duplicated = 100
          $0.late = 100
        }
      }
      try network.run(seconds: 10)
      try network.calm()
      // Where probes were lost, what the path takes is found out now.
      try network.run(seconds: 10)
      let agreed = network.now
      try network.run(seconds: 2)
      try expectAll(network, since: agreed)
      for gateway in 0..<3 {
        for other in 0..<3 where other != gateway {
          #expect(network.agreement(of: gateway, with: other)?.isSettled == true)
        }
      }
      network.trafficGoesOn = false
      try network.run(seconds: 1)
      network.operators[1].hasLAN = false
      try network.reload(1)
      try network.run(seconds: 5)
      for other in [0, 2] {
        let space = network.agreement(of: other, with: 1)?.remote.first { $0.prefix == Plan.commonLAN }
        #expect(space?.state == .withdrawn)
      }
      // The others go on as they were.
      network.trafficGoesOn = true
      let withdrawn = network.now
      try network.run(seconds: 2)
      try expectAll(network, since: withdrawn)
    }
  }

  /// Keys, peers and the order of peers change under traffic, and gateways with workers that come to it one after the other
  /// lose nothing.
  @Test(arguments: Scenario.seeds(1, 2), [1, 2, 4])
  func reloadsUnderTraffic(seed: UInt64, workers: Int) throws {
    var plan = Plan()
    plan.gateways = 3
    plan.workers = [workers]
    plan.hasFirewall = seed % 2 == 0
    plan.aggregates = seed % 2 == 1
    plan.rate = 500
    try Scenario.run(plan, seed: seed) { network in
      try network.run(seconds: 2)
      let start = network.now
      for change in 0..<12 {
        let gateway = change % 3
        network.operators[gateway].extras = change % 4 == 3 ? [] : Array(0...change % 4)
        try network.reload(gateway)
        try network.run(seconds: 0.2)
      }
      try expectAll(network, since: start)
      let handedOff = network.gateways.flatMap(\.nodes).reduce(0) { $0 + $1.reference.value.handedOver }
      #expect((handedOff > 100) == (workers > 1))
    }
  }

  /// A gateway starts anew, with the numbers of its state file: nothing is used or accepted twice, and traffic goes on.
  @Test(arguments: Scenario.seeds(1, 2), [1, 2])
  func aGatewayStartsAnew(seed: UInt64, workers: Int) throws {
    var plan = Plan()
    plan.workers = [workers]
    plan.aggregates = true
    try Scenario.run(plan, seed: seed) { network in
      network.internet.change(0, 1) { $0.duplicated = 100 }
      for round in 0..<4 {
        try network.run(seconds: 1)
        network.stop(round % 2)
        try network.run(seconds: 0.1)
        try network.start(round % 2)
        for _ in 0..<20 { network.replay() }
      }
      try network.run(seconds: 1)
      let settled = network.now
      try network.run(seconds: 1)
      try expectAll(network, since: settled)
      #expect(network.gateways[0].books.dropped(.replayed) > 10)
    }
  }

  /// Small packets share sealed ones where both sides take that, and not where one does not.
  @Test(arguments: [true, false])
  func aggregation(isOn: Bool) throws {
    var plan = Plan()
    plan.aggregates = isOn
    plan.sizes = [60, 100]
    let network = try Scenario.run(plan, seed: 1) { try $0.run(seconds: 3) }
    let counts = network.gateways.map { $0[0].value.datapath.inbound.aggregation.packetsReceived }
    #expect(counts.allSatisfy { ($0 > 100) == isOn }, "\(counts)")
  }

  /// A peer that has everything has nothing that is its receiver's own.
  @Test(arguments: [1, 4])
  func whoHasEverythingSpeaksForNobodyElse(workers: Int) throws {
    var plan = Plan()
    plan.gateways = 3
    plan.isWide = true
    plan.workers = [workers]
    plan.forbidden = 300
    let network = try Scenario.run(plan, seed: 1) { try $0.run(seconds: 3) }
    let dropped = network.gateways.reduce(0) { $0 + Int($1.books.dropped(.spoofedSource)) }
    #expect(dropped == (0..<3).reduce(0) { $0 + network.model.count(.isSpoofed, from: $1) } && dropped > 150)
  }

  /// What rules forbid does not get in, and what they allow does.
  @Test(arguments: [1, 4])
  func aFirewallJudges(workers: Int) throws {
    var plan = Plan()
    plan.hasFirewall = true
    plan.workers = [workers]
    plan.forbidden = 300
    let network = try Scenario.run(plan, seed: 1) { try $0.run(seconds: 3) }
    for gateway in 0..<2 {
      let books = network.gateways[1 - gateway].books
      #expect(books.dropped(.firewallRule) == network.model.count(.isForbidden, from: gateway))
      #expect(books.dropped(.spoofedSource) == network.model.count(.isSpoofed, from: gateway))
      #expect(books.dropped(.firewallRule) > 50 && books.dropped(.spoofedSource) > 50)
    }
  }
}
