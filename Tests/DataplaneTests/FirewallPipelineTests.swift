import PacketIO
import Testing

@testable import Dataplane

/// The firewall in its place in both pipelines, with books that must be right to the packet: see `TestGateway`.
@Suite struct FirewallPipelineTests {
  private func gateways(
    alpha: FirewallConfiguration = FirewallConfiguration(), beta: FirewallConfiguration = FirewallConfiguration()
  ) -> (TestGateway, TestGateway) {
    var configurations = (Sites().alphaConfiguration, Sites().betaConfiguration)
    configurations.0.firewall = alpha
    configurations.1.firewall = beta
    return (TestGateway(configurations.0), TestGateway(configurations.1))
  }

  private func udp(_ source: String, _ destination: String, _ ports: (UInt16, UInt16), bytes: Int = 10) -> PacketSketch
  {
    PacketSketch(
      source, destination, .udp(sourcePort: ports.0, destinationPort: ports.1),
      payload: (0..<bytes).map { UInt8(truncatingIfNeeded: $0) })
  }

  /// Of a train of several flows, those that are refused are taken out, and the others arrive whole and in order.
  @Test func refusedDeliveriesAreTakenOutOfATrain() {
    let rule = FirewallRule(number: 1, protocol: .udp, direction: .inbound, destinationPorts: 7...9, action: .allow)
    let (alpha, beta) = gateways(beta: FirewallConfiguration(mode: .on, rules: [rule]))
    var packets: [TunPacket] = []
    var expected: [[UInt8]] = []
    for index in 0..<60 {
      let port = UInt16(5 + index % 7)
      var sketch = udp("10.1.0.1", "10.2.0.1", (1000, port), bytes: 100)
      sketch.identification = UInt16(index / 7)
      packets.append(TunPacket(sketch.bytes))
      if (7...9).contains(port) { expected.append(sketch.bytes) }
    }
    let delivered = beta.open(alpha.seal(packets))
    #expect(delivered.flatMap(\.packets).count == expected.count && expected.count == 26)
    #expect(Set(delivered.flatMap(\.packets)) == Set(expected))
    #expect(beta.drops == [.firewallDefault: 34])
  }

  /// A superpacket that is refused counts as the packets it stands for, in both directions.
  @Test func aRefusedSuperpacketCountsItsPackets() {
    let (alpha, beta) = gateways(beta: FirewallConfiguration(mode: .on))
    let sketch = udp("10.1.0.1", "10.2.0.1", (1000, 7), bytes: 20_000)
    let trains = alpha.seal([TunPacket(sketch, segmentSize: 1000)])
    #expect(trains.datagrams.count == 20)
    #expect(beta.open(trains).isEmpty)
    #expect(beta.drops == [.firewallDefault: 20])
    let (strict, _) = gateways(
      alpha: FirewallConfiguration(mode: .on, rules: [FirewallRule(number: 1, action: .deny)]))
    #expect(strict.seal([TunPacket(sketch, segmentSize: 1000)]).isEmpty)
    #expect(strict.drops == [.firewallRule: 20])
    #expect(strict.firewall.reference.value.report().rules[0].traffic.packets == 20)
  }

  /// Nothing was sealed for a packet that was refused: no sequence number is missing.
  @Test func aRefusedPacketCostsNoSequenceNumber() {
    let (alpha, _) = gateways(alpha: FirewallConfiguration(mode: .on))
    #expect(alpha.seal(PacketSketch("10.1.0.1", "10.2.0.1", .other(47), payload: [1, 2]).bytes).isEmpty)
    #expect(alpha.outboundAssociation("beta")?.value.next == 1)
  }

  /// Random traffic of all kinds, both firewalls on and nothing denied: everything arrives as without.
  @Test(arguments: 1...4) func allowedTrafficArrivesUnchanged(seed: UInt64) {
    let allow = FirewallConfiguration(mode: .tunnelOnly)
    var configurations = (Sites().alphaConfiguration, Sites().betaConfiguration)
    configurations.0.firewall = allow
    configurations.1.firewall = allow
    let everything = [AccessEntry(hosts: Prefix("0.0.0.0/0")!), AccessEntry(hosts: Prefix("::/0")!)]
    configurations.0.peers[0].access = everything
    configurations.1.peers[0].access = everything
    let (alpha, beta) = (TestGateway(configurations.0), TestGateway(configurations.1))
    let (plainAlpha, plainBeta) = gateways()
    var traffic = Traffic(seed: seed, flows: 12)
    var refused: [DropReason: Int] = [:]
    for _ in 0..<20 {
      let items = (0..<40).map { _ in traffic.next().packet }
      let with = beta.open(alpha.seal(items)).flatMap(\.packets)
      let without = plainBeta.open(plainAlpha.seal(items)).flatMap(\.packets)
      #expect(Set(with).isSubset(of: Set(without)))
      refused = alpha.drops.merging(beta.drops) { $0 + $1 }
      #expect(without.count - with.count >= 0)
    }
    // Random flags and fragments contradict themselves now and then; nothing else may be refused.
    let tolerated: Set<DropReason> = [
      .invalidConnectionState, .fragmentRefused, .malformedPacket, .malformedInnerPacket, .sourceRouted,
    ]
    #expect(Set(refused.keys).subtracting(plainAlpha.drops.keys).isSubset(of: tolerated), "\(refused)")
    #expect(beta.firewall.reference.value.report().opened > 0)
  }

  /// A TCP transfer whose segments are gathered and cut otherwise at each end: the windows of both firewalls fit.
  @Test func aTransferThroughBothFirewalls() {
    let inbound = FirewallRule(
      number: 1, protocol: .tcp, direction: .inbound, destinationPorts: 80...80, action: .allow)
    let (alpha, beta) = gateways(
      alpha: FirewallConfiguration(mode: .on), beta: FirewallConfiguration(mode: .on, rules: [inbound]))
    var next: (client: UInt32, server: UInt32) = (1000, 5000)
    func packet(_ fromClient: Bool, _ flags: UInt8, _ bytes: Int = 0, options: [UInt8] = []) -> PacketSketch {
      let tcp = PacketSketch.TCP(
        sourcePort: fromClient ? 40000 : 80, destinationPort: fromClient ? 80 : 40000,
        sequence: fromClient ? next.client : next.server,
        acknowledgement: flags & TCPFlags.ack != 0 ? (fromClient ? next.server : next.client) : 0, flags: flags,
        window: 60000, options: options)
      var sketch = PacketSketch(
        fromClient ? "10.1.0.1" : "10.2.0.1", fromClient ? "10.2.0.1" : "10.1.0.1", .tcp(tcp),
        payload: [UInt8](repeating: 3, count: bytes))
      sketch.dontFragment = true
      let used = UInt32(bytes) &+ (flags & (TCPFlags.syn | TCPFlags.fin) != 0 ? 1 : 0)
      if fromClient { next.client &+= used } else { next.server &+= used }
      return sketch
    }
    func carry(_ fromClient: Bool, _ flags: UInt8, _ bytes: Int = 0, options: [UInt8] = []) -> Int {
      let sketch = packet(fromClient, flags, bytes, options: options)
      let trains = (fromClient ? alpha : beta).seal([TunPacket(sketch, segmentSize: bytes > 0 ? 1348 : 0)])
      return (fromClient ? beta : alpha).open(trains).flatMap(\.packets).reduce(0) { $0 + $1.count - 40 }
    }
    let scale: [UInt8] = [1, 3, 3, 7]
    #expect(carry(true, TCPFlags.syn, options: scale) == 4)
    #expect(carry(false, TCPFlags.syn | TCPFlags.ack, options: scale) == 4)
    #expect(carry(true, TCPFlags.ack) == 0)
    for round in 0..<30 {
      #expect(carry(true, TCPFlags.ack, 60_000 - round * 7) == 60_000 - round * 7)
      #expect(carry(false, TCPFlags.ack) == 0)
      #expect(carry(false, TCPFlags.ack, 30_000) == 30_000)
      #expect(carry(true, TCPFlags.ack) == 0)
    }
    #expect(alpha.drops.isEmpty && beta.drops.isEmpty)
    for gateway in [alpha, beta] {
      let report = gateway.firewall.reference.value.report()
      #expect(report.establishedFlows == 1)
      #expect(gateway.firewall.reference.value.table.flows[0].isLoose == false)
    }
    #expect(carry(true, TCPFlags.fin | TCPFlags.ack) == 0)
    #expect(carry(false, TCPFlags.fin | TCPFlags.ack) == 0)
    #expect(carry(true, TCPFlags.ack) == 0)
    #expect(beta.firewall.reference.value.report().closedFlows == 1)
  }

  /// Nothing at all is judged while the mode is off, or there are no access lists to hold.
  @Test func withoutAFirewallThePipelinesHaveNone() {
    let (off, tunnelOnly) = gateways(alpha: FirewallConfiguration(), beta: FirewallConfiguration(mode: .tunnelOnly))
    #expect(off.outbound.firewall == nil && off.inbound.firewall == nil)
    #expect(tunnelOnly.outbound.firewall == nil && tunnelOnly.inbound.firewall == nil)
  }

  // MARK: Log

  @Test func whatIsToBeLoggedIsLoggedAndNotTooOften() throws {
    let rule = FirewallRule(
      number: 7, name: "no telnet", protocol: .tcp, destinationPorts: 23...23, action: .deny, logs: true)
    let gate = Gate(
      FirewallConfiguration(
        mode: .on, rules: [rule, FirewallRule(number: 8, direction: .inbound, action: .allow)], logsRefusals: true))
    let syn = PacketSketch(.inbound, .tcp(.init(sourcePort: 40000, destinationPort: 23, flags: TCPFlags.syn)))
    #expect(gate.back(syn) == .firewallRule)
    #expect(gate.back(.udp(.inbound, 1, 2)) == nil, "a rule that does not log")
    #expect(gate.out(PacketSketch(.outbound, .other(47), payload: [1])) == .firewallDefault)
    var entries = gate.takeLog()
    #expect(entries.map(\.ground) == ["rule", "default: refused"])
    let first = try #require(entries.first)
    #expect(first.rule == 7 && first.ruleName == "no telnet" && !first.isAllowed && first.peer == "beta")
    #expect(
      first.direction == .inbound && first.transport == 6 && first.sourcePort == 40000 && first.destinationPort == 23)
    #expect("\(first.source) \(first.destination)" == "10.2.0.2 10.1.0.1" && first.suppressed == 0)
    #expect(gate.takeLog().isEmpty)
    for _ in 0..<1000 { #expect(gate.back(syn) == .firewallRule) }
    entries = gate.takeLog()
    #expect(entries.count == 18, "20 at once, two of which were used")
    gate.wait(2)
    #expect(gate.back(syn) == .firewallRule)
    #expect(gate.takeLog().first?.suppressed == 982)
  }

  @Test func allowedFlowsAreLoggedOnceWhenTheyBegin() {
    let gate = Gate(
      FirewallConfiguration(mode: .on, rules: [FirewallRule(number: 7, action: .allow, logs: true)]))
    let connection = Connection(gate, opener: .outbound)
    connection.open()
    for _ in 0..<10 { connection.send(.inbound, 1000) }
    let entries = gate.takeLog()
    #expect(entries.count == 1 && entries[0].isAllowed && entries[0].rule == 7 && entries[0].destinationPort == 443)
  }
}
