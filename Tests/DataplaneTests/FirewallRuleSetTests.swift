import PacketIO
import Testing

@testable import Dataplane

/// Compiled rules against a look at each of them in turn.
@Suite struct FirewallRuleSetTests {
  /// Random rules and flows that have much in common, so that many rules match and the order counts.
  struct Generator {
    var numbers: SeededNumbers
    /// Addresses that prefixes are cut from and that flows go to.
    var addresses: [IPAddress] = []
    var ports: [UInt16] = [0, 1, 22, 80, 443, 33434, 65535]

    init(seed: UInt64) {
      numbers = SeededNumbers(seed: seed)
      for _ in 0..<6 {
        addresses.append(IPAddress(v4: UInt32(truncatingIfNeeded: numbers.next())))
        addresses.append(IPAddress(v6High: numbers.next(), low: numbers.next()))
      }
      for _ in 0..<5 { ports.append(UInt16.random(in: 0...65535, using: &numbers)) }
    }

    mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &numbers) < percent }
    mutating func pick<T>(_ list: [T]) -> T { list[Int.random(in: list.indices, using: &numbers)] }

    /// One of the addresses, or one that shares its first bits.
    mutating func address(_ family: IPAddress.Family? = nil) -> IPAddress {
      var address = pick(addresses.filter { family == nil || $0.family == family })
      if chance(60) {
        let bit = UInt64.random(in: 0..<UInt64(address.bitWidth), using: &numbers)
        if bit < 64 { address.high ^= 1 << (63 - bit) } else { address.low ^= 1 << (127 - bit) }
      }
      return address
    }

    mutating func port() -> UInt16 {
      chance(80)
        ? pick(ports) &+ UInt16(Int.random(in: 0...1, using: &numbers)) : UInt16.random(in: 0...65535, using: &numbers)
    }

    mutating func range() -> ClosedRange<UInt16>? {
      if chance(40) { return nil }
      let (a, b) = (port(), port())
      return chance(30) ? a...a : min(a, b)...max(a, b)
    }

    mutating func prefix(_ family: IPAddress.Family) -> Prefix? {
      if chance(30) { return nil }
      let address = address(family)
      return Prefix(
        address, length: chance(20) ? address.bitWidth : Int.random(in: 0...address.bitWidth, using: &numbers))
    }

    mutating func rule(_ number: Int) -> FirewallRule {
      let family = pick([IPAddress.Family.v4, .v6])
      var rule = FirewallRule(number: number, action: chance(50) ? .allow : .deny)
      rule.direction = pick(FirewallRule.Direction.allCases)
      rule.protocol = pick([.any, .tcp, .udp, .icmp, .number(1), .number(6), .number(47), .number(58)])
      rule.source = prefix(family)
      rule.destination = prefix(family)
      if [.any, .tcp, .udp, .number(6)].contains(rule.protocol) {
        rule.sourcePorts = range()
        rule.destinationPorts = range()
      }
      return rule
    }

    mutating func opening() -> FlowOpening {
      let family = pick([IPAddress.Family.v4, .v6])
      let transport = pick([6, 6, 17, 17, 1, 58, 47, 132] as [UInt8])
      let hasPorts = transport == 6 || transport == 17
      return FlowOpening(
        direction: pick([.outbound, .inbound]), transport: transport, source: address(family),
        destination: address(family), sourcePort: hasPorts ? port() : 0, destinationPort: hasPorts ? port() : 0)
    }
  }

  @Test(arguments: [0, 1, 2, 10, 63, 64, 65, 200, 1000, 4096])
  func agreesWithALinearScan(count: Int) {
    var generator = Generator(seed: UInt64(count) + 1)
    let rules = (0..<count).map { generator.rule($0 + 1) }
    let compiled = RuleSet(rules)
    var hits = 0
    for _ in 0..<(count > 500 ? 500 : 3000) {
      let opening = generator.opening()
      let expected = rules.firstIndex { $0.matches(opening) }
      #expect(compiled.firstMatch(opening) == expected, "\(opening)")
      if expected != nil { hits += 1 }
    }
    #expect(count == 0 || count > 2 && hits > 0 || count <= 2)
  }

  /// Every rule is found by the flow that is made for it, and none by the flow beside it.
  @Test func edgesOfRangesAndPrefixesAreExact() {
    let rules = (0..<300).map { index in
      FirewallRule(
        number: index + 1, protocol: .tcp, direction: .inbound,
        source: Prefix(IPAddress(v4: 0x0A00_0000 | UInt32(index) << 8), length: 24),
        destinationPorts: UInt16(index * 10 + 3)...UInt16(index * 10 + 7), action: .allow)
    }
    let compiled = RuleSet(rules)
    func match(_ source: UInt32, _ port: Int) -> Int? {
      compiled.firstMatch(
        FlowOpening(
          direction: .inbound, transport: 6, source: IPAddress(v4: source), destination: IPAddress(v4: 1),
          sourcePort: 1,
          destinationPort: UInt16(port)))
    }
    for index in 0..<300 {
      let base = 0x0A00_0000 | UInt32(index) << 8
      for port in 3...7 { #expect(match(base, index * 10 + port) == index) }
      #expect(match(base &+ 255, index * 10 + 3) == index)
      #expect(match(base, index * 10 + 2) == nil)
      #expect(match(base, index * 10 + 8) == nil)
      #expect(match(base &- 1, index * 10 + 3) == nil)
      #expect(match(base &+ 256, index * 10 + 3) == nil)
    }
  }

  /// The worst there is: all rules match but in one property, each in another word of the vectors.
  @Test func theLastOfMostRulesIsFound() {
    var rules = (1...4095).map { number in
      FirewallRule(
        number: number, sourcePorts: number % 2 == 0 ? 1...1 : nil, destinationPorts: number % 2 == 0 ? nil : 2...2,
        action: .deny)
    }
    rules.append(FirewallRule(number: 4096, action: .allow))
    let compiled = RuleSet(rules)
    let opening = FlowOpening(
      direction: .outbound, transport: 17, source: IPAddress(v4: 1), destination: IPAddress(v4: 2), sourcePort: 9,
      destinationPort: 9)
    #expect(compiled.firstMatch(opening) == 4095)
  }

  /// Memory stays in bounds where the distinct values are as many as they can be.
  @Test func memoryIsBounded() {
    var generator = Generator(seed: 5)
    let rules = (1...4096).map { generator.rule($0) }
    #expect(RuleSet(rules).memory < 24 << 20)
    #expect(RuleSet([]).memory < 64 << 10)
  }

  @Test func accessEntriesLookAtTheRightEnds() {
    let hosts = Prefix("10.1.0.5")!
    func opening(_ direction: TrafficDirection, local: String, port: UInt16, transport: UInt8 = 6) -> FlowOpening {
      let local = IPAddress(local)!
      let remote = IPAddress("10.2.0.2")!
      return FlowOpening(
        direction: direction, transport: transport, source: direction == .outbound ? local : remote,
        destination: direction == .outbound ? remote : local, sourcePort: 40000, destinationPort: port)
    }
    let inbound = RuleSet(
      AccessEntry(hosts: hosts, direction: .inbound, protocol: .tcp, ports: 443...443).rules(from: 1))
    #expect(inbound.firstMatch(opening(.inbound, local: "10.1.0.5", port: 443)) != nil)
    #expect(inbound.firstMatch(opening(.inbound, local: "10.1.0.5", port: 444)) == nil)
    #expect(inbound.firstMatch(opening(.inbound, local: "10.1.0.6", port: 443)) == nil)
    #expect(inbound.firstMatch(opening(.inbound, local: "10.1.0.5", port: 443, transport: 17)) == nil)
    #expect(inbound.firstMatch(opening(.outbound, local: "10.1.0.5", port: 443)) == nil)
    let outbound = RuleSet(AccessEntry(hosts: hosts, direction: .outbound, ports: 443...443).rules(from: 1))
    #expect(outbound.firstMatch(opening(.outbound, local: "10.1.0.5", port: 443)) != nil)
    #expect(outbound.firstMatch(opening(.outbound, local: "10.1.0.6", port: 443)) == nil)
    #expect(outbound.firstMatch(opening(.inbound, local: "10.1.0.5", port: 443)) == nil)
    let both = RuleSet(AccessEntry(hosts: hosts).rules(from: 1))
    #expect(both.firstMatch(opening(.inbound, local: "10.1.0.5", port: 9)) != nil)
    #expect(both.firstMatch(opening(.outbound, local: "10.1.0.5", port: 9)) != nil)
    #expect(both.firstMatch(opening(.outbound, local: "10.1.0.4", port: 9)) == nil)
  }
}
