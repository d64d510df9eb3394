import PacketIO
import Testing

@testable import Dataplane

/// Small packets that share ESP packets on their way out: what is sealed is what RFC 9347 says, and what comes out at
/// the other end is what went in.
@Suite struct SharedPacketTests {
  private var sites: Sites {
    var sites = Sites()
    sites.aggregates = true
    return sites
  }

  /// Alpha on a path that takes sealed packets of 1400 bytes; both have said that they take aggregates.
  private func gateways(
    firewall: FirewallConfiguration = FirewallConfiguration(), translation: TranslationConfiguration? = nil
  ) -> (alpha: TestGateway, beta: TestGateway) {
    var configurations = (sites.alphaConfiguration, sites.betaConfiguration)
    configurations.0.firewall = firewall
    configurations.1.firewall = firewall
    if let translation { configurations.0.peers[0].translation = translation }
    let pair = (alpha: TestGateway(configurations.0, buffers: 200), beta: TestGateway(configurations.1))
    pair.alpha.tables.assumeAggregation()
    pair.alpha.peer("beta").value.pathSelected(overhead: 28, largestSealed: 1400, raiseInterval: 1)
    return pair
  }

  private func udp(_ port: UInt16 = 7, bytes: Int = 64, isV4: Bool = true) -> PacketSketch {
    PacketSketch(
      isV4 ? "10.1.0.1" : "fd00:1::1", isV4 ? "10.2.0.1" : "fd00:2::1",
      .udp(sourcePort: 1000, destinationPort: port),
      payload: (0..<bytes).map { UInt8(truncatingIfNeeded: $0 ^ Int(port)) })
  }

  /// What the datagrams hold: the packets of each.
  private func contents(_ trains: [Train], sourceLocation: SourceLocation = #_sourceLocation) -> [[[UInt8]]] {
    let esp = SlowESP(sites)
    var last: UInt32 = 0
    return trains.datagrams.map { datagram in
      guard let content = esp.open(datagram) else {
        Issue.record("not authentic", sourceLocation: sourceLocation)
        return []
      }
      #expect(content.sequence > last, sourceLocation: sourceLocation)
      last = content.sequence
      guard content.nextHeader == 144 else { return [content.payload] }
      let packets = SlowAggregate.packets(content.payload)
      #expect((packets?.count ?? 0) > 1, "a payload that is not as it should be", sourceLocation: sourceLocation)
      return packets ?? []
    }
  }

  @Test func packetsOfABatchShareAPacket() {
    let (alpha, beta) = gateways()
    let packets = [udp(1), udp(2, isV4: false), udp(3, bytes: 0), udp(4, bytes: 300)].map(\.bytes)
    let trains = alpha.seal(packets.map { TunPacket($0) })
    #expect(contents(trains) == [packets])
    let sealed = SlowESP(sites).open(trains.datagrams[0])
    #expect(sealed?.nextHeader == 144 && sealed?.payload == [0, 0, 0, 0] + packets.flatMap { $0 })
    #expect(alpha.outbound.aggregation.sent == 1 && alpha.outbound.aggregation.packetsSent == 4)
    #expect(alpha.outboundAssociation("beta")?.value.next == 2)
    #expect(alpha.peer("beta").value.sent.packets == 4)

    #expect(beta.open(trains).flatMap(\.packets) == packets)
    #expect(beta.inbound.aggregation.received == 1 && beta.inbound.aggregation.packetsReceived == 4)
    #expect(beta.peer("alpha").value.received.packets == 4 && beta.drops == [:])
    #expect(beta.peer("alpha").value.path == sites.path)
    // Not twice.
    #expect(beta.open(trains).isEmpty && beta.drops == [.replayed: 1])
  }

  /// One packet alone is sealed as ever: it costs nothing to have been gathered.
  @Test func oneAloneGoesAsItIs() {
    let (alpha, _) = gateways()
    let batches = [
      [udp()], [udp(), udp(bytes: 1200)], [udp(bytes: 1200), udp()], [udp(bytes: 700), udp(bytes: 700)],
    ]
    for packets in batches {
      let trains = alpha.seal(packets.map { TunPacket($0.bytes) })
      #expect(trains.datagrams.compactMap { SlowESP(sites).open($0)?.nextHeader } == packets.map { _ in 4 })
      #expect(contents(trains) == packets.map { [$0.bytes] })
    }
    #expect(alpha.outbound.aggregation == AggregationCount())
  }

  /// To a peer that has not said that it takes them, or without leave, nothing is shared; and nothing shared is taken.
  @Test func withoutLeaveNothingIsShared() {
    let packets = (0..<5).map { TunPacket(udp($0).bytes) }
    let (alpha, _) = gateways()
    alpha.peer("beta").value.takesAggregates = false
    #expect(alpha.seal(packets).datagrams.count == 5)
    let plain = Sites().alpha()
    plain.tables.assumeAggregation()
    #expect(plain.seal(packets).datagrams.count == 5)
    let refusing = Sites().beta()
    #expect(refusing.open(gateways().alpha.seal(packets)).isEmpty)
    #expect(refusing.drops == [.unknownNextHeader: 1])
  }

  /// A mark on the path would mean all packets: so they must be alike in what the path sees of them.
  @Test func packetsOfDifferentTrafficClassGoApart() {
    let classes: [UInt8] = [0, 0, 2, 2, 1, 0xB8, 0, 0x22, 2]
    for copiesDSCP in [false, true] {
      var configuration = sites.alphaConfiguration
      configuration.peers[0].outbound?.copiesDSCP = copiesDSCP
      let alpha = TestGateway(configuration)
      alpha.tables.assumeAggregation()
      let packets = classes.map { tos in
        var sketch = udp()
        sketch.tos = tos
        return sketch.bytes
      }
      let trains = alpha.seal(packets.map { TunPacket($0) })
      let sizes = contents(trains).map(\.count)
      #expect(sizes == (copiesDSCP ? [2, 2, 1, 1, 1, 1, 1] : [2, 2, 1, 2, 2]))
      #expect(contents(trains).flatMap { $0 } == packets)
      let outer = trains.flatMap { train in train.datagrams.map { _ in train.trafficClass } }
      #expect(outer == (copiesDSCP ? [0, 2, 1, 0xB8, 0, 0x22, 2] : [0, 2, 1, 0, 2]))
    }
  }

  /// An ESP packet is filled as far as the path takes it, and no farther; full ones make up a train.
  @Test func aFullPacketIsFollowedByAnother() {
    let (alpha, beta) = gateways()
    let packets = (0..<64).map { udp($0).bytes }
    let trains = alpha.seal(packets.map { TunPacket($0) })
    // 14 × 92 and the header are 1292; one more would make the sealed packet larger than 1372.
    #expect(contents(trains).map(\.count) == [14, 14, 14, 14, 8])
    #expect(trains.count == 1 && trains.datagrams.allSatisfy { $0.count <= 1372 })
    #expect(beta.open(trains).flatMap(\.packets) == packets)
  }

  /// What does not join lets nobody be overtaken: whatever goes to a peer comes out in the order in which it went in.
  @Test(arguments: [1, 2, 3]) func nobodyIsOvertaken(seed: UInt64) {
    let (alpha, _) = gateways()
    var traffic = Traffic(seed: seed, flows: 6)
    let items = (0..<300).map { _ in traffic.next() }.filter { $0.segments.allSatisfy { $0.bytes.count <= 1300 } }
    let trains = alpha.seal(items.map(\.packet))
    #expect(contents(trains).flatMap { $0 } == items.flatMap { $0.segments.map(\.bytes) })
    #expect(alpha.outbound.aggregation.sent > 5 && alpha.drops == [:])
  }

  /// Random traffic of all kinds, there and merged for the device: everything arrives as without.
  @Test(arguments: [4, 5, 6]) func trafficArrivesUnchanged(seed: UInt64) {
    let (alpha, beta) = gateways(firewall: FirewallConfiguration(mode: .tunnelOnly))
    var traffic = Traffic(seed: seed, flows: 10)
    for _ in 0..<6 {
      let items = (0..<40).map { _ in traffic.next() }.filter { $0.segments.allSatisfy { $0.bytes.count <= 1300 } }
      let trains = alpha.seal(items.map(\.packet))
      var oracle = DeliveryOracle(items.flatMap { $0.segments.map(\.bytes) })
      oracle.judge(beta.open([Train].joining(trains.datagrams)))
    }
    #expect(beta.inbound.aggregation.received > 5 && beta.drops == [:])
  }

  /// Numbers that may not be used, and buffers that are not there: what cannot be sealed is counted, packet by packet.
  @Test func whatCannotBeSealedIsCounted() {
    var bounded = sites
    bounded.lease = SequenceLease(limit: 1)
    let alpha = bounded.alpha()
    alpha.tables.assumeAggregation()
    let trains = alpha.seal([udp(), udp(), udp(bytes: 30_000), udp(), udp()].map { TunPacket($0.bytes) })
    #expect(trains.datagrams.count == 1 && alpha.drops == [.sequenceNotLeased: 3])

    // A buffer for gathering, none for sealing.
    let (poor, _) = gateways()
    var held: [BufferID] = []
    var batch = PacketBatch(capacity: 8)
    for port in 0..<3 {
      let buffer = poor.pool.take()!
      let bytes = udp(UInt16(port)).bytes
      poor.pool.bytes(buffer).copy(bytes, to: BufferPool.headroom)
      batch.append(
        Superpacket(buffer: buffer, offset: BufferPool.headroom, length: bytes.count, segmentSize: bytes.count))
    }
    while poor.pool.available > 1 { held.append(poor.pool.take()!) }
    // The first read's buffer comes free while the others are gathered; it is taken away as well.
    var results = OutboundResults(buffers: 8, batchCapacity: 8)
    var outbound = OutboundPipeline(scratch: poor.pool.bytes(held[0]), batchCapacity: 8)
    let extra = (0..<3).map { batch[$0].buffer }
    for buffer in extra { poor.pool.retain(buffer) }
    outbound.run(&batch, Turn(tables: poor.tables, pool: poor.pool, now: .seconds(2)), into: &results)
    #expect(results.trains.isEmpty && outbound.counters.dropped(.noBuffer) == 3)
    #expect(outbound.counters.arrived.packets == 3 && poor.pool.available == 1)
    for buffer in extra + held { poor.pool.release(buffer) }
  }

  /// Firewall and translation see every packet.
  @Test func everyPacketIsJudgedAndTranslated() throws {
    let rules = [
      FirewallRule(number: 1, protocol: .udp, direction: .outbound, destinationPorts: 3...3, action: .deny)
    ]
    let real = try #require(Prefix("10.1.0.0/16"))
    let known = try #require(Prefix("100.64.0.0/16"))
    let (alpha, _) = gateways(
      firewall: FirewallConfiguration(mode: .on, rules: rules),
      translation: TranslationConfiguration(
        mode: .fixed, knownAs: [PrefixPair(real: real, intermediate: known)]))
    let packets = (1...5).map { udp($0) }
    let sealed = contents(alpha.seal(packets.map { TunPacket($0.bytes) }))
    let expected = [1, 2, 4, 5].map { port in
      var sketch = udp(UInt16(port))
      sketch.source = IPAddress("100.64.0.1")!
      return sketch.bytes
    }
    #expect(sealed == [expected])
    #expect(alpha.drops == [.firewallRule: 1])
    #expect(alpha.peer("beta").value.translated.sent == 4)
  }
}
