import PacketIO
import Testing

@testable import Dataplane

/// Sequence numbers of outbound associations: never repeated, never beyond their end, and the embedder is told in time.
@Suite struct SequenceTests {
  private let packet = PacketSketch("10.1.0.1", "10.2.0.1", .other(50), payload: [1, 2, 3]).bytes

  private func superpacket(segments: Int) -> TunPacket {
    let sketch = PacketSketch(
      "10.1.0.1", "10.2.0.1", .udp(sourcePort: 1, destinationPort: 2),
      payload: [UInt8](repeating: 0, count: segments * 10))
    return TunPacket(sketch, segmentSize: 10)
  }

  private func sequences(_ trains: [Train]) -> [UInt64] { trains.datagrams.map { bigEndian($0[4..<8]) } }

  @Test func thirtyTwoBitsEnd() {
    let alpha = Sites(extended: false, firstSequence: (1 << 32) - 3).alpha()
    #expect(alpha.seal([superpacket(segments: 4)]).isEmpty, "some of a superpacket")
    #expect(sequences(alpha.seal([superpacket(segments: 3)])) == [0xFFFF_FFFD, 0xFFFF_FFFE, 0xFFFF_FFFF])
    #expect(alpha.seal(packet) == [])
    #expect(alpha.drops == [.sequenceExhausted: 5])
    #expect(alpha.outboundAssociation("beta")?.value.remaining == 0)
  }

  @Test func extendedNumbersGoOnWhereThirtyTwoBitsEnd() {
    let sites = Sites(firstSequence: (1 << 32) - 3)
    let alpha = sites.alpha()
    let trains = alpha.seal([superpacket(segments: 6)])
    #expect(sequences(trains) == [0xFFFF_FFFD, 0xFFFF_FFFE, 0xFFFF_FFFF, 0, 1, 2])
    let esp = SlowESP(sites)
    #expect(
      trains.datagrams.enumerated().allSatisfy { esp.open($1, high: $0 < 3 ? 0 : 1)?.iv == (1 << 32) - 3 + UInt64($0) })
    #expect(sites.beta().open(trains).flatMap(\.packets).count == 6)
  }

  /// The last number of 64 bits is never used, so that the next one can always be written down.
  @Test func extendedNumbersEnd() {
    let sites = Sites(firstSequence: UInt64.max - 3)
    let alpha = sites.alpha()
    #expect(alpha.seal([superpacket(segments: 4)]).isEmpty)
    #expect(sequences(alpha.seal([superpacket(segments: 3)])) == [0xFFFF_FFFC, 0xFFFF_FFFD, 0xFFFF_FFFE])
    #expect(alpha.seal(packet) == [])
    #expect(alpha.drops == [.sequenceExhausted: 5])
    #expect(alpha.outboundAssociation("beta")?.value.next == UInt64.max)
  }

  @Test func aLeaseEndsAndIsRaised() {
    let lease = SequenceLease(limit: 5)
    let alpha = Sites(lease: lease).alpha()
    #expect(alpha.seal([superpacket(segments: 6)]).isEmpty)
    #expect(sequences(alpha.seal([superpacket(segments: 5)])) == [1, 2, 3, 4, 5])
    #expect(alpha.seal(packet) == [])
    #expect(alpha.drops == [.sequenceNotLeased: 7])
    lease.raise(to: 3)
    #expect(alpha.seal(packet) == [])
    lease.raise(to: 6)
    #expect(alpha.seal(packet).count == 1)
    #expect(alpha.seal(packet) == [])
    #expect(alpha.drops == [.sequenceNotLeased: 9])
    #expect(alpha.exhausted == [])
  }

  @Test(arguments: [true, false])
  func theEmbedderIsToldOnceThatNumbersRunOutAndOnceThatNoneAreLeft(extended: Bool) {
    let end = extended ? UInt64.max - 1 : UInt64(UInt32.max)
    let margin: UInt64 = extended ? 1 << 48 : 1 << 28
    let early = Sites(extended: extended, firstSequence: end - margin - 4).alpha()
    for _ in 0..<3 { _ = early.seal(packet) }
    #expect(early.exhausted == [])
    for _ in 0..<5 { _ = early.seal(packet) }
    #expect(early.exhausted == ["beta"])

    let late = Sites(extended: extended, firstSequence: end - 2).alpha()
    _ = late.seal(packet)
    #expect(late.exhausted == ["beta"])
    _ = late.seal(packet)
    #expect(late.exhausted == ["beta"])
    for _ in 0..<10 { _ = late.seal(packet) }
    #expect(late.exhausted == ["beta", "beta"])
    #expect(late.drops == [.sequenceExhausted: 9])
  }

  /// A key has two limits in bytes: at the first the embedder is told, behind the second nothing goes.
  @Test(arguments: [false, true])
  func bytesEnd(isHard: Bool) {
    var configuration = Sites().association
    configuration.lifetime = AssociationLifetime(
      softPackets: 1 << 31, packets: 1 << 32, softBytes: 100_000, bytes: isHard ? 1_000_000 : .max)
    var sending = OutboundAssociation(
      configuration, aead: AEAD(configuration.cipher, key: configuration.key, engine: CipherEngine.available[0]))
    var granted = 0
    var warnings: [Int] = []
    for _ in 0..<20_000 {
      if case .granted = sending.claim(1) {
        granted += 1
        sending.bytes += 100
      }
      if sending.takeWarning() { warnings.append(granted) }
    }
    // Bytes are looked at every few thousand packets.
    #expect(warnings.count == (isHard ? 2 : 1))
    #expect(warnings.first.map { (1000...6000).contains($0) } == true)
    #expect(isHard ? (10_000...15_000).contains(granted) : granted == 20_000)
    #expect(!isHard || warnings.last == granted)
    #expect((sending.remaining == 0) == isHard)
  }

  /// As many peers as a batch can reach, all at once: none is forgotten.
  @Test func everyPeerThatRunsOutIsNamed() {
    let star = Star(peers: 60, firstSequence: 0xFFFF_FFFF, extended: false)
    let hub = TestGateway(star.configuration, buffers: 200)
    _ = hub.seal((0..<60).map { TunPacket(star.packetTo($0)) })
    #expect(hub.exhausted == (0..<60).map { "peer-\($0)" })
  }
}
