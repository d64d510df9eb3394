import PacketIO
import Testing

@testable import Dataplane

/// Whatever RFC 9347 allows a sender to send is taken apart rightly, whatever gets lost on the way or overtakes; and
/// what it does not allow is dropped for a reason.
@Suite struct AggregatePayloadTests {
  private var sites: Sites {
    var sites = Sites()
    sites.aggregates = true
    return sites
  }

  private func beta() -> TestGateway { sites.beta(buffers: 400) }

  private func packet(_ number: Int, bytes: Int, isV4: Bool) -> [UInt8] {
    var sketch = PacketSketch(
      isV4 ? "10.1.0.1" : "fd00:1::1", isV4 ? "10.2.0.1" : "fd00:2::1", .other(50),
      payload: be32(UInt32(number)) + [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: bytes))
    sketch.identification = UInt16(truncatingIfNeeded: number)
    return sketch.bytes
  }

  private func packets(_ count: Int, _ numbers: inout SeededNumbers, upTo most: Int) -> [[UInt8]] {
    (0..<count).map {
      packet($0, bytes: Int.random(in: 0...most, using: &numbers), isV4: Bool.random(using: &numbers))
    }
  }

  private func seal(_ payloads: [[UInt8]], from first: UInt64 = 1) -> [[UInt8]] {
    payloads.enumerated().map {
      SlowESP(sites).seal($1, sequence: first + UInt64($0), nextHeader: 144)
    }
  }

  // MARK: What a sender may send

  /// Cut at any place, even inside a header, with padding at ends and in between.
  @Test(arguments: 1...12) func anySplitComesTogether(seed: UInt64) {
    var numbers = SeededNumbers(seed: seed)
    let sent = packets(80, &numbers, upTo: 700)
    // As few bytes as hold no length field, and as many as hold several packets.
    let sizes = seed % 3 == 0 ? 40...90 : seed % 3 == 1 ? 1...300 : 200...1400
    let payloads = SlowAggregate.split(
      seed % 3 == 1 ? Array(sent.prefix(20)) : sent, into: sizes, &numbers)
    let gateway = beta()
    let received = gateway.open([Train].joining(seal(payloads.map(\.bytes)))).flatMap(\.packets)
    let isSame = received == (seed % 3 == 1 ? Array(sent.prefix(20)) : sent)
    #expect(isSame)
    #expect(gateway.waitingFragments == 0)
    #expect(Set(gateway.drops.keys).isSubset(of: [.dummyPacket]))
  }

  /// A packet arrives exactly if all ESP packets arrive that have a part of it, in whatever order they do, once or
  /// twice.
  @Test(arguments: 1...12) func lossReorderingAndDuplicates(seed: UInt64) {
    var numbers = SeededNumbers(seed: seed)
    let sent = packets(150, &numbers, upTo: 600)
    let payloads = SlowAggregate.split(sent, into: 150...500, &numbers)
    var arrivals: [(place: Int, index: Int)] = []
    var lost: Set<Int> = []
    for index in payloads.indices {
      if Int.random(in: 0..<20, using: &numbers) == 0 {
        lost.insert(index)
      } else {
        for _ in 0...(Int.random(in: 0..<10, using: &numbers) == 0 ? 1 : 0) {
          arrivals.append((index + Int.random(in: 0...4, using: &numbers), index))
        }
      }
    }
    let isPadding = payloads.map(\.parts.isEmpty)
    arrivals.sort { ($0.place, $0.index) < ($1.place, $1.index) }
    let sealed = seal(payloads.map(\.bytes))
    let gateway = beta()
    var received: [[UInt8]] = []
    for arrival in arrivals { received += gateway.open(sealed[arrival.index]) }
    var missing: Set<Int> = []
    for index in lost { missing.formUnion(payloads[index].parts) }
    // A packet may also be broken by the loss, or the early arrival, of padding in its middle.
    var excused: Set<Int> = []
    for index in payloads.indices where isPadding[index] && index > 0 && index + 1 < payloads.count {
      excused.formUnion(payloads[...index].last { !$0.parts.isEmpty }?.parts ?? [])
    }
    let arrived = Set(received)
    #expect(received.count == arrived.count, "nothing arrives twice")
    for (index, packet) in sent.enumerated() where !excused.contains(index) {
      let isThere = arrived.contains(packet)
      #expect(isThere == !missing.contains(index), "packet \(index)")
    }
    let isGenuine = arrived.isSubset(of: sent)
    #expect(isGenuine)
    // What still waits is given up after its time, and the books are right.
    _ = gateway.open(seal([SlowAggregate.header(0)], from: 9000)[0], now: .seconds(9))
    #expect(gateway.waitingFragments == 0)
  }

  @Test func thePathsMarkGoesToEveryPacket() {
    var sketches = (0..<3).map { PacketSketch("10.1.0.1", "10.2.0.1", .other(50), payload: [UInt8($0)]) }
    for (index, tos) in [2, 0, 1].enumerated() { sketches[index].tos = UInt8(tos) }
    let gateway = beta()
    let datagram = seal([SlowAggregate.header(0) + sketches.flatMap(\.bytes)])[0]
    let received = gateway.open([Train(datagram, trafficClass: 3)]).flatMap(\.packets)
    // The one in the middle knows no ECN.
    #expect(gateway.drops == [.congestionExperienced: 1])
    #expect(received.map { $0[1] } == [3, 3] && received.allSatisfy { SlowPacket($0).hasRightHeaderChecksum })
    // One congested fragment of two.
    var large = PacketSketch("10.1.0.1", "10.2.0.1", .other(50), payload: [UInt8](repeating: 1, count: 500))
    large.tos = 2
    let bytes = large.bytes
    let parts = seal(
      [SlowAggregate.header(0) + bytes[..<300], SlowAggregate.header(220) + bytes[300...]], from: 2)
    #expect(gateway.open([Train(parts[0]), Train(parts[1], trafficClass: 3)]).flatMap(\.packets).map { $0[1] } == [3])
  }

  /// More packets in a train than there is room for among the deliveries: it is opened in several goes.
  @Test func aTrainOfMorePacketsThanFit() {
    let gateway = TestGateway(sites.betaConfiguration, inboundCapacity: 128)
    let sent = (0..<900).map { packet($0, bytes: 0, isV4: true) }
    let payloads = stride(from: 0, to: 900, by: 50).map { SlowAggregate.header(0) + sent[$0..<$0 + 50].flatMap { $0 } }
    let received = gateway.open([Train].joining(seal(payloads))).flatMap(\.packets)
    let isSame = received == sent
    #expect(isSame && gateway.drops == [:])
  }

  // MARK: What a sender may not send

  @Test func whatIsMalformedIsDroppedForAReason() {
    let good = packet(1, bytes: 40, isV4: true)
    let header = SlowAggregate.header(0)
    func altered(_ change: (inout [UInt8]) -> Void) -> [UInt8] {
      var bytes = good
      change(&bytes)
      return bytes
    }
    let spoofed = PacketSketch("10.9.0.1", "10.2.0.1", .other(50)).bytes
    let cases: [(payload: [UInt8], drops: [DropReason: Int], delivered: Int)] = [
      // Header: cut off, unknown sub-type, cut off behind a known one.
      ([], [.malformedAggregate: 1], 0), ([0, 0, 0], [.malformedAggregate: 1], 0),
      ([2, 0, 0, 0] + good, [.malformedAggregate: 1], 0),
      ([1, 0, 0, 0] + [UInt8](repeating: 0, count: 19), [.malformedAggregate: 1], 0),
      // The reserved byte is ignored.
      ([0, 0xFF, 0, 0] + good, [:], 1),
      // Blocks: unknown version, impossible length; whatever came before stays.
      (header + good + altered { $0[0] = 0x55 }, [.malformedAggregate: 1], 1),
      (header + good + altered { ($0[2], $0[3]) = (0, 19) }, [.malformedAggregate: 1], 1),
      // Packets that contradict themselves or their sender, among others.
      (header + altered { $0[0] = 0x41 } + good, [.malformedInnerPacket: 1], 1),
      (header + spoofed + good + spoofed, [.spoofedSource: 2], 1),
      // Nothing, padding behind and alone.
      (header, [.dummyPacket: 1], 0), (header + [0, 1, 2, 3], [.dummyPacket: 1], 0),
      (header + good + [0, 9, 9], [:], 1),
      // The offset leads over what has no beginning.
      (SlowAggregate.header(3) + [1, 2, 3] + good, [:], 1),
      (SlowAggregate.header(65535) + good, [:], 0),
    ]
    for (index, (payload, drops, delivered)) in cases.enumerated() {
      let gateway = beta()
      #expect(gateway.open(seal([payload])[0]).count == delivered, "case \(index)")
      #expect(gateway.drops == drops, "case \(index)")
    }
  }

  /// A packet whose own length is not what its fragments come to.
  @Test func fragmentsThatDoNotAddUp() {
    let whole = packet(1, bytes: 400, isV4: true)
    let gateway = beta()
    let short = seal([SlowAggregate.header(0) + whole[..<200], SlowAggregate.header(100) + whole[200..<300]])
    #expect(gateway.open(short[0]).isEmpty && gateway.open(short[1]).isEmpty)
    #expect(gateway.drops == [.malformedInnerPacket: 1])
    // More than it needs: the rest is nobody's.
    let long = seal(
      [SlowAggregate.header(0) + whole[..<200], SlowAggregate.header(whole.count - 100) + whole[200...] + [7, 7]],
      from: 3)
    #expect(gateway.open(long[0]).isEmpty)
    let second = gateway.open(long[1])
    #expect(second.isEmpty || second == [whole])
  }

  /// Beginnings without ends, from a peer that turned evil: memory is bounded, and others are not hurt for long.
  @Test func aFloodOfBeginnings() {
    let gateway = beta()
    let whole = packet(1, bytes: 400, isV4: true)
    let beginnings = seal([[UInt8]](repeating: SlowAggregate.header(0) + whole[..<300], count: 200))
    for beginning in beginnings {
      #expect(gateway.open(beginning).isEmpty)
      #expect(gateway.waitingFragments <= FragmentWindow.capacity)
    }
    #expect(gateway.drops == [.incompletePacket: 200 - FragmentWindow.capacity])
    let parts = seal([SlowAggregate.header(0) + whole[..<300], SlowAggregate.header(124) + whole[300...]], from: 500)
    #expect(gateway.open(parts[0]).isEmpty)
    #expect(gateway.open(parts[1]) == [whole])
    // A second later nothing is held any more.
    #expect(gateway.open(seal([SlowAggregate.header(0) + whole], from: 600)[0], now: .seconds(3.1)) == [whole])
    #expect(gateway.waitingFragments == 0 && gateway.drops == [.incompletePacket: 200])
  }

  /// Fragments of different associations do not mix, though their numbers follow each other.
  @Test func associationsDoNotMix() {
    var other = sites
    other.key = 9
    var association = other.association
    association.spi = 0xC3C3_0003
    var configuration = sites.betaConfiguration
    configuration.peers[0].inbound.append(association)
    let gateway = TestGateway(configuration)
    let whole = packet(1, bytes: 400, isV4: true)
    let halves = [SlowAggregate.header(0) + whole[..<300], SlowAggregate.header(124) + whole[300...]]
    #expect(gateway.open(SlowESP(sites).seal(halves[0], sequence: 1, nextHeader: 144)).isEmpty)
    #expect(gateway.open(SlowESP(association).seal(halves[1], sequence: 2, nextHeader: 144)).isEmpty)
    #expect(gateway.open(SlowESP(sites).seal(halves[1], sequence: 2, nextHeader: 144)) == [whole])
  }
}
