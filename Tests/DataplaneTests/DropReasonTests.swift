import Foundation
import Glibc
import PacketIO
import Testing

@testable import Dataplane

/// Each reason for which a packet goes no further is provoked here, and counted under itself and nothing else.
@Suite struct DropReasonTests {
  /// What drops a packet for a reason: returns the gateways that took part.
  private typealias Provocation = @Sendable (DropReasonTests) -> [TestGateway]

  private static let provocations: [DropReason: Provocation] = [
    .malformedPacket: { $0.outbound([UInt8](repeating: 0x45, count: 40)) },
    .noRoute: { $0.outbound($0.packet(to: "10.3.0.1")) },
    .noAssociation: { $0.outbound($0.packet()) { $0.peers[0].outbound = nil } },
    .noPath: { $0.outbound($0.packet()) { $0.peers[0].path = nil } },
    .sequenceExhausted: { $0.outbound($0.packet(), sites: Sites(extended: false, firstSequence: 1 << 32)) },
    .sequenceNotLeased: { $0.outbound($0.packet(), sites: Sites(lease: SequenceLease(limit: 0))) },
    .noBuffer: { test in
      // One buffer is the pipeline's own, and the packet takes the other.
      let alpha = Sites().alpha(buffers: 2)
      #expect(alpha.seal(test.packet()) == [])
      return [alpha]
    },
    .exceedsPathMTU: { test in
      var packet = test.packet(payload: 65535 - 20)
      packet[6] |= 0x40
      let gateways = test.outbound(packet)
      #expect(gateways[0].replies.count == 1, "the sender was not told")
      return gateways
    },
    .foreignSource: { $0.outbound($0.packet(from: "10.9.0.1")) { $0.localPrefixes = Sites.alphaPrefixes } },

    .truncated: { $0.inbound(Array($0.sealed().dropLast(1))) },
    .unknownSPI: { $0.inbound([0x12, 0x34, 0x56, 0x78] + $0.sealed().dropFirst(4)) },
    .replayed: { test in
      let beta = Sites().beta()
      #expect(beta.open(test.sealed()).count == 1)
      #expect(beta.open(test.sealed()).isEmpty)
      return [beta]
    },
    .authenticationFailed: { $0.inbound($0.sealed().dropLast() + [$0.sealed().last! ^ 1]) },
    .badPadding: { test in
      test.inbound(SlowESP(Sites()).seal(test.packet(), sequence: 1, nextHeader: 4, padding: [2, 1]))
    },
    .dummyPacket: { $0.inbound(SlowESP(Sites()).seal([1, 2, 3, 4], sequence: 1, nextHeader: 59)) },
    .unknownNextHeader: { $0.inbound(SlowESP(Sites()).seal($0.packet(), sequence: 1, nextHeader: 6)) },
    .malformedInnerPacket: { $0.inbound(SlowESP(Sites()).seal($0.packet(), sequence: 1, nextHeader: 41)) },
    .congestionExperienced: { test in
      let beta = Sites().beta()
      #expect(beta.open([Train(test.sealed(), trafficClass: 3)]).isEmpty)
      return [beta]
    },
    .spoofedSource: { test in
      test.inbound(SlowESP(Sites()).seal(test.packet(from: "10.2.0.9"), sequence: 1, nextHeader: 4))
    },
    .malformedAggregate: { test in
      let beta = Sites(aggregates: true).beta()
      #expect(beta.open(SlowESP(Sites()).seal([2, 0, 0, 0] + test.packet(), sequence: 1, nextHeader: 144)) == [])
      return [beta]
    },
    .incompletePacket: { test in
      let beta = Sites(aggregates: true).beta()
      let beginning = [0, 0, 0, 0] + test.packet().dropLast(8)
      #expect(beta.open(SlowESP(Sites()).seal(beginning, sequence: 1, nextHeader: 144)) == [])
      #expect(beta.open(test.sealed(), now: .seconds(9)).count == 1)
      return [beta]
    },
    .controlLimit: { test in
      let beta = Sites().beta()
      let message = [0x43, 0x55, 0x4C, 0x56, 1, 9, 0, 0] as [UInt8]
      for sequence in 1...49 as ClosedRange<UInt64> {
        #expect(beta.open(SlowESP(Sites()).seal(message, sequence: sequence, nextHeader: 59)) == [])
      }
      return [beta]
    },

    .firewallRule: { test in
      test.outbound(test.packet()) {
        $0.firewall = FirewallConfiguration(mode: .on, rules: [FirewallRule(number: 1, action: .deny)])
      }
    },
    .firewallDefault: { test in test.outbound(test.packet()) { $0.firewall.mode = .on } },
    .accessList: { test in
      test.outbound(test.packet()) {
        $0.firewall.mode = .tunnelOnly
        $0.peers[0].access = []
      }
    },
    .invalidConnectionState: { test in
      let reset = PacketSketch(
        "10.1.0.1", "10.2.0.1", .tcp(.init(sourcePort: 1, destinationPort: 2, flags: TCPFlags.rst)))
      return test.outbound(reset.bytes) { $0.firewall.mode = .on }
    },
    .fragmentRefused: { test in
      var fragment = PacketSketch("10.1.0.1", "10.2.0.1", .other(17), payload: [1, 2, 3])
      fragment.fragment = (offset: 100, more: false)
      return test.outbound(fragment.bytes) { $0.firewall.mode = .on }
    },
    .sourceRouted: { test in
      var packet = PacketSketch("10.1.0.1", "10.2.0.1", .udp(sourcePort: 1, destinationPort: 2))
      packet.options = [131, 7, 4, 10, 2, 0, 9, 0]
      return test.outbound(packet.bytes) { $0.firewall.mode = .on }
    },
  ]

  private func packet(from source: String = "10.1.0.1", to destination: String = "10.2.0.1", payload: Int = 20)
    -> [UInt8]
  {
    PacketSketch(source, destination, .other(50), payload: [UInt8](repeating: 5, count: payload)).bytes
  }

  private func sealed() -> [UInt8] { SlowESP(Sites()).seal(packet(), sequence: 3, nextHeader: 4) }

  private func outbound(
    _ packet: [UInt8], sites: Sites = Sites(), _ change: (inout Configuration) -> Void = { _ in }
  ) -> [TestGateway] {
    var configuration = sites.alphaConfiguration
    change(&configuration)
    let alpha = TestGateway(configuration)
    #expect(alpha.seal(packet) == [])
    #expect(alpha.peer("beta").value.sent == TrafficCount())
    return [alpha]
  }

  private func inbound(_ datagram: [UInt8]) -> [TestGateway] {
    let beta = Sites().beta()
    #expect(beta.open(datagram) == [])
    #expect(beta.peer("alpha").value.received == TrafficCount())
    return [beta]
  }

  /// A device that refuses and a full way between workers need more than pipelines: see `Tests/NetworkTests`,
  /// `WorkerStateTests`.
  @Test(arguments: DropReason.allCases.filter { $0 != .deviceRefused && $0 != .handOverFull })
  func isCountedUnderItself(reason: DropReason) throws {
    let provocation = try #require(Self.provocations[reason], "nothing provokes \(reason.name)")
    for gateway in provocation(self) { #expect(gateway.drops == [reason: 1]) }
  }

  /// A superpacket counts as its segments.
  @Test func aSuperpacketIsDroppedSegmentBySegment() {
    var configuration = Sites().alphaConfiguration
    configuration.peers[0].path = nil
    let alpha = TestGateway(configuration)
    let sketch = PacketSketch(
      "10.1.0.1", "10.2.0.1", .udp(sourcePort: 1, destinationPort: 2), payload: [UInt8](repeating: 0, count: 1000))
    #expect(alpha.seal([TunPacket(sketch, segmentSize: 100)]) == [])
    #expect(alpha.drops == [.noPath: 10])
  }

  /// When the buffers run out in the middle of a superpacket, what was sealed before goes out.
  @Test(arguments: 2...8)
  func buffersRunOut(buffers: Int) {
    let sites = Sites()
    let alpha = sites.alpha(buffers: buffers)
    let sketch = PacketSketch(
      "10.1.0.1", "10.2.0.1", .udp(sourcePort: 1, destinationPort: 2), payload: [UInt8](repeating: 0, count: 2000))
    // 700 segments of 3 bytes are six trains.
    let sealed = alpha.seal([TunPacket(sketch, segmentSize: 3)]).datagrams
    #expect(sealed.count == min((buffers - 2) * 128, 667))
    #expect(alpha.drops == (sealed.count < 667 ? [.noBuffer: 667 - sealed.count] : [:]))
    #expect(alpha.outboundAssociation("beta")?.value.packets == UInt64(sealed.count))
  }

  @Test(arguments: 0..<60)
  func everyTruncationIsRefused(length: Int) {
    let beta = Sites().beta()
    let whole = sealed()
    guard length < whole.count else { return }
    #expect(beta.open([Train(Array(whole[..<length]))]).isEmpty)
    let reason: DropReason = length < 34 || length % 4 != 0 ? .truncated : .authenticationFailed
    #expect(beta.drops == (length == 0 ? [:] : [reason: 1]))
  }

  @Test func everyFlippedBitIsRefused() {
    let beta = Sites().beta()
    let whole = sealed()
    var counts: [DropReason: Int] = [:]
    for bit in 0..<whole.count * 8 {
      var datagram = whole
      datagram[bit / 8] ^= 1 << UInt8(bit % 8)
      #expect(beta.open(datagram) == [])
      counts[bit < 32 ? .unknownSPI : .authenticationFailed, default: 0] += 1
    }
    #expect(beta.drops == counts)
    #expect(beta.open(whole).count == 1, "damaged copies kept the packet itself out")
  }

  /// In a train, what is refused takes nothing with it.
  @Test func neighboursOfARefusedPacketArrive() {
    let beta = Sites().beta()
    let esp = SlowESP(Sites())
    var datagrams = (1...9).map { esp.seal(packet(), sequence: $0, nextHeader: 4) }
    datagrams[1][3] ^= 1
    datagrams[3][30] ^= 1
    datagrams[4] = datagrams[2]
    datagrams[6] = esp.seal(packet(from: "10.7.0.1"), sequence: 7, nextHeader: 4)
    let delivered = beta.open(.joining(datagrams))
    #expect(delivered.flatMap(\.packets) == [[UInt8]](repeating: packet(), count: 5))
    #expect(beta.drops == [.unknownSPI: 1, .authenticationFailed: 1, .replayed: 1, .spoofedSource: 1])
    #expect(beta.peer("alpha").value.received.packets == 5)
  }

  /// A device that refuses a packet: counted by the queue, and the buffer comes back.
  @Test func deviceRefused() throws {
    var ends: [Int32] = [0, 0]
    try #require(pipe(&ends) == 0)
    defer { for end in ends { close(end) } }
    let sites = Sites()
    var io = WorkerIO(ring: try Ring(entries: 8), pool: BufferPool(count: 8), now: .seconds(1))
    io.ring.activate()
    // The end of a pipe that is for reading only.
    let queue = TunQueue(ends[0], capacity: 256, readBuffers: 2, io: &io)
    let tables = Snapshot(sites.betaConfiguration, sealing: .by(.openSSL), now: .seconds(1))
    let available = io.pool.available
    let buffer = try #require(io.pool.take())
    let datagram = sealed()
    io.pool.bytes(buffer).copy(datagram, to: BufferPool.headroom)
    var batch = PacketBatch(capacity: 1)
    batch.append(
      Superpacket(buffer: buffer, offset: BufferPool.headroom, length: datagram.count, segmentSize: datagram.count))
    var pipeline = InboundPipeline(capacity: 256, offloads: .all)
    #expect(pipeline.run(batch, from: 0, Turn(tables: tables, pool: io.pool, now: .seconds(1))) == 1)
    queue.send(&pipeline.coalescer, io: &io)
    io.ring.submitAndWait(nanoseconds: 1_000_000_000)
    var none = PacketBatch(capacity: 8)
    while let completion = io.ring.nextCompletion() { queue.complete(completion, io: &io, batch: &none) }
    #expect(queue.refused == 1)
    #expect(queue.delivered == TrafficCount())
    #expect(io.pool.available == available)
  }

  /// JSON has names, which stay what they are when reasons are added between others.
  @Test func reasonsAndDirectionsAreCodedByName() throws {
    for reason in DropReason.allCases {
      let text = String(decoding: try JSONEncoder().encode([reason]), as: UTF8.self)
      #expect(text == "[\"\(reason.name)\"]")
      #expect(try JSONDecoder().decode([DropReason].self, from: Data(text.utf8)) == [reason])
    }
    #expect(String(decoding: try JSONEncoder().encode([TrafficDirection.inbound]), as: UTF8.self) == #"["inbound"]"#)
    #expect(throws: DecodingError.self) { try JSONDecoder().decode([DropReason].self, from: Data("[3]".utf8)) }
    #expect(throws: DecodingError.self) { try JSONDecoder().decode([DropReason].self, from: Data(#"["no"]"#.utf8)) }
  }
}
