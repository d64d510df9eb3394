import PacketIO
import Testing

@testable import Dataplane

/// An explanation says what then happens, and leaves no trace.
@Suite struct ExplanationTests {
  /// Partners of every kind: beta is as it should be; the others lack something, or their path does.
  private static var configuration: Configuration {
    var configuration = Sites().alphaConfiguration
    configuration.peers[0].access = [
      AccessEntry(hosts: Prefix("10.1.0.0/17")!), AccessEntry(hosts: Prefix("fd00:1::/32")!),
    ]
    let names = ["gamma", "delta", "epsilon", "zeta", "theta"]
    for (index, name) in names.enumerated() {
      let number = UInt32(index)
      func association(_ spi: UInt32, _ key: UInt8) -> SecurityAssociationConfiguration {
        SecurityAssociationConfiguration(
          spi: spi + number, cipher: .aes128GCM, key: KeyMaterial((0..<20).map { $0 &+ key &+ UInt8(index) &* 20 }),
          extendedSequenceNumbers: name != "epsilon", firstSequence: name == "epsilon" && spi == 0x5000 ? 1 << 32 : 1)
      }
      var peer = PeerConfiguration(
        name: name, prefixes: [Prefix("10.\(3 + index).0.0/16")!, Prefix("fd00:\(3 + index)::/32")!],
        path: .path(10 + index), inbound: [association(0x4000, 1)], outbound: association(0x5000, 120))
      if name == "gamma" { peer.outbound = nil }
      if name == "delta" { peer.path = nil }
      if name == "theta" {
        peer.translation = TranslationConfiguration(
          mode: .fixed,
          knownAs: [PrefixPair(real: Prefix("10.1.0.0/16")!, intermediate: Prefix("100.64.0.0/16")!)])
      }
      configuration.peers.append(peer)
    }
    configuration.firewall = FirewallConfiguration(
      mode: .on,
      rules: [
        FirewallRule(
          number: 10, name: "web", protocol: .tcp, direction: .inbound, destinationPorts: 80...90, action: .allow),
        FirewallRule(number: 20, protocol: .udp, sourcePorts: 1...2, action: .deny),
        FirewallRule(number: 30, protocol: .number(47), action: .allow, logs: true),
        FirewallRule(number: 40, protocol: .udp, direction: .inbound, action: .allow),
      ], logsRefusals: true, flowCapacity: 50, pendingCapacity: 20)
    return configuration
  }

  private static func gateway() -> TestGateway {
    let alpha = TestGateway(configuration)
    for (name, size) in [("beta", 1400), ("zeta", 1182), ("theta", 1300)] {
      let sealed = ESPPacket.sealedLength(size, implicitIV: false)
      alpha.peer(name).value.pathSelected(overhead: 28, largestSealed: sealed, raiseInterval: PathMTU.raiseInterval)
    }
    return alpha
  }

  private struct Packets {
    var numbers: SeededNumbers
    private mutating func pick<T>(_ choices: [T]) -> T { choices[Int.random(in: choices.indices, using: &numbers)] }

    /// A packet between an own host and another one.
    mutating func next(inbound: Bool) -> PacketSketch {
      let isV4 = Bool.random(using: &numbers)
      let own = isV4 ? pick(["10.1.0.1", "10.1.0.2", "10.1.200.1"]) : pick(["fd00:1::1", "fd00:1::2"])
      let site = Int.random(in: inbound ? 2...7 : 2...8, using: &numbers)
      let other = isV4 ? "10.\(site).0.\(pick([1, 2]))" : "fd00:\(site)::1"
      let ports = (UInt16.random(in: 1...4, using: &numbers), pick([80, 85, 443, 53] as [UInt16]))
      let isAnswer = Bool.random(using: &numbers)
      let (source, destination) = isAnswer ? (ports.1, ports.0) : ports
      var sketch = PacketSketch(inbound ? other : own, inbound ? own : other, .other(pick([47, 50, 132])))
      switch Int.random(in: 0..<8, using: &numbers) {
      case 0, 1, 2:
        sketch.body = .udp(sourcePort: source, destinationPort: destination)
      case 3, 4, 5:
        var tcp = PacketSketch.TCP(sourcePort: source, destinationPort: destination)
        tcp.flags = pick([TCPFlags.syn, TCPFlags.ack, TCPFlags.syn | TCPFlags.ack, TCPFlags.rst, TCPFlags.fin])
        if tcp.flags == TCPFlags.syn { tcp.options = [2, 4, 0xFF, 0xFF] }
        sketch.body = .tcp(tcp)
      case 6:
        sketch.body = .other(isV4 ? 1 : 58)
        sketch.payload = [pick(isV4 ? [8, 0, 3] : [128, 129, 1]), 0, 0, 0, 0, 1, 0, 1]
      default: break
      }
      sketch.payload += numbers.bytes(pick([0, 1, 40, 500, 1000, 1142, 1160, 1240, 1250, 1380, 1500, 4000]))
      sketch.dontFragment = Bool.random(using: &numbers)
      sketch.identification = UInt16.random(in: 1...3, using: &numbers)
      if Int.random(in: 0..<8, using: &numbers) == 0 {
        sketch.fragment = (pick([0, 1, 20]), Bool.random(using: &numbers))
      }
      if Int.random(in: 0..<30, using: &numbers) == 0 { sketch.options = [131, 3, 4, 0] }
      return sketch
    }
  }

  /// All that an explanation might have changed.
  private struct Traces: Equatable {
    var drops: [DropReason: Int]
    var counts: [TrafficCount]
    var peers: [String]
    var associations: [String]
    var firewall: Statistics.Firewall
    var replies: Int
    var free: Int

    init(_ gateway: TestGateway) {
      drops = gateway.drops
      counts = [
        gateway.outbound.counters.arrived, gateway.outbound.counters.departed, gateway.inbound.counters.arrived,
      ]
      peers = gateway.registry.configuration.peers.map(\.name).map { name in
        let peer = gateway.peer(name)
        return "\(peer.value.sent) \(peer.value.received) \(peer.value.translated) \(peer.value.lastSent) "
          + "\(String(describing: peer.value.lastHeard)) \(String(describing: peer.value.mtu?.current))"
      }
      associations = gateway.registry.configuration.peers.map { peer in
        let outbound = gateway.outboundAssociation(peer.name).map { "\($0.value.next) \($0.value.packets)" } ?? ""
        let inbound = peer.inbound.compactMap { gateway.tables.association($0.spi)?.state }.map {
          "\($0.value.window.highest) \($0.value.packets)"
        }
        return outbound + inbound.joined()
      }
      firewall = gateway.firewall.reference.value.report()
      replies = gateway.replies.count
      free = gateway.pool.available
    }
  }

  private func expectNoTrace(_ gateway: TestGateway, _ packet: [UInt8], now: MonotonicTime) -> Explanation {
    let before = Traces(gateway)
    let explanation = gateway.explain(packet, now: now)
    #expect(Traces(gateway) == before)
    #expect(gateway.explain(packet, now: now) == explanation, "asked twice, it says something else")
    return explanation
  }

  private func dropped(_ gateway: TestGateway, since before: [DropReason: Int]) -> [DropReason] {
    gateway.drops.filter { $0.value != before[$0.key] ?? 0 }.map(\.key)
  }

  @Test(arguments: [1, 2, 3] as [UInt64])
  func whatIsExplainedHappens(seed: UInt64) {
    let alpha = Self.gateway()
    var packets = Packets(numbers: SeededNumbers(seed: seed))
    var sequences: [String: UInt64] = [:]
    var seen: [DropReason?: Int] = [:]
    for step in 0..<700 {
      let now = MonotonicTime.seconds(2 + Double(step) * 0.3)
      let isInbound = Bool.random(using: &packets.numbers)
      let sketch = packets.next(inbound: isInbound)
      var bytes = sketch.bytes
      if Int.random(in: 0..<40, using: &packets.numbers) == 0 { bytes.removeLast(min(bytes.count, 3)) }
      let explanation = expectNoTrace(alpha, bytes, now: now)
      let drops = alpha.drops
      if isInbound, explanation.drop != .malformedPacket {
        #expect(explanation.direction == .inbound)
        receive(sketch, explanation, alpha, &sequences, now: now)
        #expect(dropped(alpha, since: drops) == [explanation.drop].compactMap { $0 }, "\(explanation.text)")
      } else {
        alpha.replies = []
        let trains = alpha.seal([TunPacket(bytes)], now: now)
        #expect(dropped(alpha, since: drops) == [explanation.drop].compactMap { $0 }, "\(explanation.text)")
        #expect(trains.datagrams.count == explanation.packets, "\(explanation.text)")
        #expect(trains.datagrams.allSatisfy { UInt32(bigEndian($0[..<4])) == explanation.spi })
        #expect(trains.allSatisfy { "\($0.path.endpoint)" == explanation.path })
        if let reply = alpha.replies.first {
          let place = reply[0] >> 4 == 4 ? 26..<28 : 44..<48
          #expect(explanation.toldMTU == Int(bigEndian(reply[place])))
        }
      }
      seen[explanation.drop, default: 0] += 1
    }
    // The packets were of all kinds.
    for reason: DropReason in [
      .noRoute, .noAssociation, .noPath, .sequenceExhausted, .exceedsPathMTU, .firewallRule, .firewallDefault,
      .accessList, .invalidConnectionState, .fragmentRefused, .sourceRouted, .malformedPacket,
    ] { #expect(seen[reason] != nil, "never \(reason)") }
    #expect((seen[nil] ?? 0) > 100)
  }

  /// Sends the packet from its peer's side.
  private func receive(
    _ sketch: PacketSketch, _ explanation: Explanation, _ alpha: TestGateway, _ sequences: inout [String: UInt64],
    now: MonotonicTime
  ) {
    guard let peer = alpha.registry.configuration.peers.first(where: { $0.name == explanation.peer }) else {
      Issue.record("no peer: \(explanation)")
      return
    }
    var sketch = sketch
    // The peer knows this side by another name.
    if peer.name == "theta", sketch.isV4 {
      sketch.destination = IPAddress(v4: 0x6440_0000 | sketch.destination.v4 & 0xFFFF)
      #expect(explanation.translation?.destination == "\(sketch.destination)")
    }
    guard let association = peer.inbound.last else { return }
    #expect(explanation.spi == association.spi)
    let sequence = sequences[peer.name, default: 0] + 1
    sequences[peer.name] = sequence
    let datagram = SlowESP(association).seal(sketch, sequence: sequence)
    let opened = alpha.open(datagram, path: peer.path ?? .path(99), now: now)
    #expect(opened.count == explanation.packets, "\(explanation.text)")
    // Where a peer without a path was heard, it has one now: take it away again.
    if peer.path == nil { alpha.peer(peer.name).value.withSelection { $0.relist([], now: now) } }
  }

  @Test func saysWhichRuleAndWhichWay() {
    let alpha = Self.gateway()
    let request = PacketSketch(
      "10.6.0.1", "10.1.0.1", .tcp(.init(sourcePort: 5, destinationPort: 80, flags: TCPFlags.syn)))
    let explanation = alpha.explain(request.bytes)
    #expect(explanation.direction == .inbound && explanation.drop == nil && explanation.peer == "zeta")
    #expect(explanation.judgement == .init(ground: "rule", rule: 10, ruleName: "web", isKnownFlow: false))
    #expect(explanation.prefix == "10.6.0.0/16" && explanation.largestInner == 1182)
    let out = alpha.explain(
      PacketSketch("10.1.0.1", "10.7.0.1", .udp(sourcePort: 9, destinationPort: 9)).bytes)
    #expect(out.translation == .init(source: "100.64.0.1", destination: "10.7.0.1"))
    #expect(out.judgement?.ground == "default: outbound" && out.steps.last?.finding == "the next number is 1")
  }

  /// Small packets to a partner that takes several in one, and nothing of it where it does not matter.
  @Test func saysWhatSharesAPacket() {
    var sites = Sites()
    sites.aggregates = true
    let alpha = sites.alpha()
    alpha.peer("beta").value.pathSelected(overhead: 28, largestSealed: 1400, raiseInterval: PathMTU.raiseInterval)
    func finding(_ bytes: Int) -> String? {
      let packet = PacketSketch(
        "10.1.0.1", "10.2.0.1", .udp(sourcePort: 9, destinationPort: 9), payload: [UInt8](repeating: 0, count: bytes))
      return expectNoTrace(alpha, packet.bytes, now: .seconds(2)).steps.first { $0.name == .aggregation }?.finding
    }
    #expect(finding(64)?.hasPrefix("goes alone, because beta has not said") == true)
    alpha.tables.assumeAggregation()
    #expect(finding(64)?.hasPrefix("shares an ESP packet with other small packets to beta") == true)
    // Two of its size do not fit; one does not fit by itself.
    #expect(finding(700) == nil && finding(3000) == nil)
    let plain = Sites().alpha()
    plain.tables.assumeAggregation()
    let packet = PacketSketch("10.1.0.1", "10.2.0.1", .udp(sourcePort: 9, destinationPort: 9))
    #expect(plain.explain(packet.bytes).steps.allSatisfy { $0.name != .aggregation })
  }

  /// Without a gateway that runs.
  @Test func explainsFromAConfiguration() throws {
    let packet = PacketSketch("10.1.0.1", "10.2.0.1", .udp(sourcePort: 9, destinationPort: 9)).bytes
    let explanation = try Explanation(of: packet, under: Self.configuration) { _ in 28 }
    #expect(explanation.peer == "beta" && explanation.drop == nil && explanation.packets == 1)
    #expect(explanation.pathMTU == 28 + ESPPacket.sealedLength(1400, implicitIV: false))
    let refused = try Explanation(of: [1, 2, 3], under: Self.configuration) { _ in 28 }
    #expect(refused.drop == .malformedPacket)
  }
}

extension Explanation {
  fileprivate var text: String { steps.map(\.finding).joined(separator: "; ") }
}
