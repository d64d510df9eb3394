import PacketIO

@testable import Dataplane

/// The firewall before packets of any kind, one after the other, with time passing and policies changing in between:
/// it reads nothing outside, some worker owns the flow, `explain` says what `judge` says, the short way comes to the
/// same as the long way, and no table grows beyond its limits.
///
/// Each packet: one byte (bit 0: from the partner; bit 1: the next byte's seconds pass before; bit 2: the other policy
/// comes into force), its length in two bytes, and its bytes.
let firewallPacket = FuzzTarget(name: "FirewallPacket") { input in
  var input = FuzzInput(input)
  let policies = FirewallFuzz.policies
  var random = FixedNumbers()
  var short = Firewall(using: &random)
  var long = Firewall(using: &random)
  long.usesShortWay = false
  var policy = 0
  var now = Tunnel.now
  var fragments = FragmentOwners()
  short.adopt(policies[policy])
  long.adopt(policies[policy])
  while !input.isEmpty {
    let control = input.byte()
    if control & 2 != 0 { now = now.adding(seconds: Double(input.byte())) }
    if control & 4 != 0 {
      policy = (policy + 1) % policies.count
      short.adopt(policies[policy])
      long.adopt(policies[policy])
    }
    let bytes = input.bytes(input.number())
    withPacketBytes(bytes) { bytes in
      guard let packet = InnerPacket(bytes) else { return }
      let slice = bytes.slice(0, packet.length)
      let owner = FlowOwner.owner(packet, slice, mask: 15)
      require((0..<16).contains(owner), "worker \(owner)")
      if packet.isFragment {
        let follower = fragments.owner(packet, slice) { owner }
        require(packet.isFirstFragment ? follower == owner : (0..<16).contains(follower), "worker \(follower)")
      }
      let direction: TrafficDirection = control & 1 == 0 ? .outbound : .inbound
      let explained = short.explain(packet, slice, length: packet.length, direction: direction, now: now)
      if let flow = short.anticipate(packet, slice, direction) { short.fetch(flow) }
      let verdict = short.judge(
        packet, slice, length: packet.length, packets: 1, octets: packet.length, direction: direction, now: now)
      let other = long.judge(
        packet, slice, length: packet.length, packets: 1, octets: packet.length, direction: direction, now: now)
      require(explained == verdict, "explained as \(explained), judged \(verdict)")
      require(other == verdict, "the long way comes to \(other), the short one to \(verdict)")
      require(verdict.refusal != nil || packet.length >= 20, "a packet of \(packet.length) bytes passed")
    }
    short.sweep(now: now)
    long.sweep(now: now)
    require(short.table.count(.established) + short.table.count(.closed) <= 4, "too many established flows")
    require(short.table.count(.pendingInbound) <= 4, "too many pending flows")
    require(short.table.count(.pendingOutbound) <= 4, "too many pending flows")
  }
  _ = short.takeLog { FirewallFuzz.tables.record($0)?.configuration.name }
}

/// Compiled rules against a look at each of them. Each rule takes 16 bytes, what is left are flows of 16 bytes.
let firewallRules = FuzzTarget(name: "FirewallRules") { input in
  var input = FuzzInput(input)
  let count = Int(input.byte() % 80)
  let rules = (0..<count).map { FirewallFuzz.rule(&input, number: $0 + 1) }
  let compiled = RuleSet(rules)
  for _ in 0..<8 {
    let opening = FirewallFuzz.opening(&input)
    let expected = rules.firstIndex { $0.matches(opening) }
    let found = compiled.firstMatch(opening)
    require(found == expected, "\(opening) matches rule \(found ?? -1), and should match \(expected ?? -1)")
  }
}

enum FirewallFuzz {
  /// What comes into force in turns; compiled once, because that takes longer than all packets of an input.
  static let policies: [FirewallPolicy] = makePolicies().policies
  /// As of the last one; names are the same in all.
  static let tables: Snapshot = makePolicies().tables

  private static func makePolicies() -> (policies: [FirewallPolicy], tables: Snapshot) {
    let web = FirewallRule(
      number: 1, protocol: .tcp, direction: .inbound, destinationPorts: 80...80, action: .allow, logs: true)
    let names = FirewallRule(number: 2, protocol: .udp, destinationPorts: 53...53, action: .allow)
    let all = FirewallRule(number: 3, action: .allow)
    let access = Prefix("10.1.0.0/24").map { [AccessEntry(hosts: $0)] }
    let choices: [(FirewallConfiguration.Mode, [FirewallRule], [AccessEntry]?)] = [
      (.on, [web, names], nil), (.on, [all], nil), (.tunnelOnly, [], access), (.on, [names], access),
    ]
    var registry: Registry?
    var policies: [FirewallPolicy] = []
    for (mode, rules, access) in choices {
      let peer = PeerConfiguration(
        name: "peer", prefixes: ["10.2.0.0/16", "fd00:2::/32"].compactMap { Prefix($0) }, access: access)
      let configuration = Configuration(
        interface: InterfaceConfiguration(source: .name("fuzz")), peers: [peer],
        firewall: FirewallConfiguration(
          mode: mode, rules: rules, logsRefusals: true, flowCapacity: 4, pendingCapacity: 4))
      let limits = ConfigurationLimits(transports: 1, workers: 1, engine: .openSSL, isRunning: true)
      var next = registry ?? Registry(configuration, sealing: .leftOut, workers: 1, now: Tunnel.now)
      if let draft = try? next.draft(configuration, limits: limits) { _ = next.commit(draft, now: Tunnel.now) }
      policies.append(Snapshot(next.parts(of: 0)).firewall)
      registry = next
    }
    let tables = registry.map { Snapshot($0.parts(of: 0)) }
    return (
      policies,
      tables
        ?? Snapshot(
          Configuration(interface: InterfaceConfiguration(source: .name("fuzz"))), sealing: .leftOut, now: Tunnel.now)
    )
  }

  private static func address(_ input: inout FuzzInput, isV4: Bool) -> IPAddress {
    let low = UInt64(input.number()) << 16 | UInt64(input.number())
    return isV4
      ? IPAddress(v4: UInt32(low)) : IPAddress(v6High: 0xFD00_0000_0000_0000 | low >> 16, low: low << 32 | low)
  }

  static func rule(_ input: inout FuzzInput, number: Int) -> FirewallRule {
    let flags = input.byte()
    let isV4 = flags & 1 == 0
    let protocols: [FirewallProtocol] = [.any, .tcp, .udp, .icmp, .number(58), .number(6), .number(47), .any]
    var rule = FirewallRule(
      number: number, protocol: protocols[Int(flags >> 1 & 7)],
      direction: FirewallRule.Direction.allCases[Int(flags >> 4) % 3], action: .allow)
    let width = isV4 ? 33 : 129
    let lengths = (Int(input.byte()) % width, Int(input.byte()) % width)
    let (source, destination) = (address(&input, isV4: isV4), address(&input, isV4: isV4))
    if flags & 0x40 != 0 { rule.source = Prefix(source, length: lengths.0) }
    if flags & 0x80 != 0 { rule.destination = Prefix(destination, length: lengths.1) }
    let (first, last) = (UInt16(input.number()), UInt16(input.number()))
    switch input.byte() & 3 {
    case 1: rule.sourcePorts = min(first, last)...max(first, last)
    case 2: rule.destinationPorts = min(first, last)...max(first, last)
    case 3:
      rule.sourcePorts = first...first
      rule.destinationPorts = last...last
    default: break
    }
    return rule
  }

  static func opening(_ input: inout FuzzInput) -> FlowOpening {
    let flags = input.byte()
    let isV4 = flags & 1 == 0
    let transport = ([6, 17, 1, 58, 47, 6, 17, 0] as [UInt8])[Int(flags >> 1 & 7)]
    let hasPorts = transport == 6 || transport == 17
    let (source, destination) = (address(&input, isV4: isV4), address(&input, isV4: isV4))
    let (first, last) = (UInt16(input.number()), UInt16(input.number()))
    return FlowOpening(
      direction: flags & 0x10 == 0 ? .outbound : .inbound, transport: transport, source: source,
      destination: destination, sourcePort: hasPorts ? first : 0, destinationPort: hasPorts ? last : 0)
  }
}

/// Fuzzing needs the same secret every time.
private struct FixedNumbers: RandomNumberGenerator {
  private var state: UInt64 = 1
  mutating func next() -> UInt64 {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return state ^ state >> 29
  }
}
