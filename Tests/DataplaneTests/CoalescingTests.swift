import PacketIO
import Testing

@testable import Dataplane

/// Packets of a flow are merged, and only where the kernel would cut them into the very same packets again.
@Suite struct CoalescingTests {
  /// Carries packets as they are from alpha to beta and judges what arrives.
  @discardableResult
  private func carry(_ packets: [[UInt8]], offloads: TunOffloads = .all) -> [Delivered] {
    let beta = Sites().beta(offloads: offloads)
    let delivered = beta.open(Sites().alpha().seal(packets.map { TunPacket($0) }))
    var oracle = DeliveryOracle(packets)
    oracle.judge(delivered)
    return delivered
  }

  private func counts(_ sketches: [PacketSketch], offloads: TunOffloads = .all) -> [Int] {
    carry(sketches.map(\.bytes), offloads: offloads).map(\.count)
  }

  private static func tcp(_ index: Int, isV4: Bool = true, size: Int = 100, port: UInt16 = 1) -> PacketSketch {
    var sketch = PacketSketch(
      isV4 ? "10.1.0.1" : "fd00:1::1", isV4 ? "10.2.0.1" : "fd00:2::1",
      .tcp(
        .init(
          sourcePort: port, destinationPort: 2, sequence: 0xFFFF_FF00 &+ UInt32(index * size),
          options: [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2])),
      payload: (0..<size).map { UInt8(truncatingIfNeeded: $0 &+ index) })
    sketch.identification = UInt16(truncatingIfNeeded: 0xFFFE + index)
    return sketch
  }

  private static func udp(_ index: Int, isV4: Bool = true, size: Int = 100, port: UInt16 = 1) -> PacketSketch {
    var sketch = tcp(index, isV4: isV4, size: size)
    sketch.body = .udp(sourcePort: port, destinationPort: 2)
    return sketch
  }

  @Test(arguments: 1...6 as ClosedRange<UInt64>)
  func randomFlows(seed: UInt64) {
    var traffic = Traffic(seed: seed, flows: 6, superpackets: false)
    var merged = 0
    for _ in 0..<12 {
      let delivered = carry((0..<100).map { _ in traffic.next().packet.bytes })
      merged += delivered.reduce(0) { $0 + $1.count - 1 }
    }
    #expect(merged > 100, "nearly nothing was merged, so nothing was tested")
  }

  @Test func aStreamBecomesOneSuperpacket() {
    for isV4 in [true, false] {
      #expect(counts((0..<40).map { Self.tcp($0, isV4: isV4) }) == [40])
      #expect(counts((0..<40).map { Self.udp($0, isV4: isV4) }) == [40])
    }
    // The last may be shorter, and then it is the last.
    var packets = (0..<5).map { Self.udp($0) }
    packets[2].payload.removeLast(99)
    #expect(counts(packets) == [3, 2])
    packets[2].payload = []
    #expect(counts(packets) == [2, 1, 2])
    packets[2].payload = [UInt8](repeating: 1, count: 101)
    #expect(counts(packets) == [2, 2, 1])
    // Four times 20000 bytes are too many for one, and 64 packets are the most.
    #expect(counts((0..<4).map { Self.udp($0, size: 20000) }) == [3, 1])
    #expect(counts((0..<130).map { Self.udp($0, size: 1) }) == [64, 64, 2])
  }

  @Test func identificationsMatterOnlyWithoutDontFragment() {
    var packets = (0..<4).map { Self.tcp($0) }
    for index in packets.indices { packets[index].identification = 0 }
    #expect(counts(packets) == [4])
    for index in packets.indices { packets[index].dontFragment = false }
    #expect(counts(packets) == [1, 1, 1, 1])
    for index in packets.indices { packets[index].identification = 0xFFFE &+ UInt16(index) }
    #expect(counts(packets) == [4])
  }

  /// Five packets of a flow, of which the third differs.
  @Test(
    arguments: [
      "ttl", "tos", "don't fragment", "header checksum", "checksum", "options", "fragment", "protocol",
    ], [true, false])
  func whatDiffersStaysApart(what: String, isTCP: Bool) {
    var packets = (0..<5).map { isTCP ? Self.tcp($0) : Self.udp($0) }
    switch what {
    case "ttl": packets[2].ttl = 63
    case "tos": packets[2].tos = 3
    case "don't fragment": packets[2].dontFragment = false
    case "header checksum": packets[2].wrongHeaderChecksum = true
    case "checksum": packets[2].checksumField = .wrong
    case "options": packets[2].options = [1, 1, 1, 1]
    case "fragment": packets[2].fragment = (offset: 0, more: true)
    default: packets[2].body = .other(132)
    }
    switch (what, isTCP) {
    // Another protocol is another flow, between whose packets the rest goes on; but a gap in TCP's sequence stays.
    case ("protocol", false): #expect(counts(packets) == [4, 1])
    default: #expect(counts(packets) == [2, 1, 2])
    }
    packets.swapAt(0, 2)
    if isTCP {
      // Only the last two still follow each other.
      #expect(counts(Array(packets[0...1]) + packets[3...]).suffix(1) == [2])
    }
  }

  @Test func aWrongChecksumInFrontIsNotRepaired() {
    for isTCP in [true, false] {
      for header in [true, false] {
        var packets = (0..<4).map { isTCP ? Self.tcp($0) : Self.udp($0) }
        if header { packets[0].wrongHeaderChecksum = true } else { packets[0].checksumField = .wrong }
        #expect(counts(packets) == [1, 3])
      }
    }
  }

  @Test(arguments: ["traffic class", "flow label", "hop limit", "extension", "checksum", "fragment"])
  func whatDiffersStaysApartInIPv6(what: String) {
    var packets = (0..<5).map { Self.udp($0, isV4: false) }
    switch what {
    case "traffic class": packets[2].tos = 1
    case "flow label": packets[2].flowLabel = 1
    case "hop limit": packets[2].ttl = 1
    case "extension": packets[2].extensions = [(type: 60, rest: [0, 1, 4, 0, 0, 0, 0])]
    case "checksum": packets[2].checksumField = .wrong
    default: packets[2].fragment = (offset: 0, more: true)
    }
    #expect(counts(packets) == [2, 1, 2])
  }

  @Test(arguments: [
    "acknowledgement", "window", "options", "longer options", "sequence", "fin", "syn", "rst", "urg", "cwr", "ece",
    "no ack",
  ])
  func whatDiffersInTCPStaysApart(what: String) {
    var packets = (0..<5).map { Self.tcp($0) }
    guard case .tcp(var tcp) = packets[2].body else { return }
    switch what {
    case "acknowledgement": tcp.acknowledgement += 1
    case "window": tcp.window += 1
    case "options": tcp.options[11] += 1
    case "longer options": tcp.options += [1, 1, 1, 1]
    case "sequence": tcp.sequence += 1
    case "fin": tcp.flags |= TCPFlags.fin
    case "syn": tcp.flags |= TCPFlags.syn
    case "rst": tcp.flags |= TCPFlags.rst
    case "urg": tcp.flags |= TCPFlags.urg
    case "cwr": tcp.flags |= TCPFlags.cwr
    case "ece": tcp.flags |= TCPFlags.ece
    default: tcp.flags = 0
    }
    packets[2].body = .tcp(tcp)
    #expect(counts(packets) == [2, 1, 2])
  }

  @Test func aPushPartsNothingAndIsKept() {
    for pushed in [0, 2, 4] {
      var packets = (0..<5).map { Self.tcp($0) }
      guard case .tcp(var tcp) = packets[pushed].body else { return }
      tcp.flags |= TCPFlags.psh
      packets[pushed].body = .tcp(tcp)
      #expect(counts(packets) == [5])
    }
  }

  @Test func aDatagramWithoutChecksumStaysAlone() {
    var packets = (0..<5).map { Self.udp($0) }
    for index in packets.indices { packets[index].body = .udp(sourcePort: 1, destinationPort: 2, hasChecksum: false) }
    #expect(counts(packets) == [1, 1, 1, 1, 1])
  }

  @Test func aDatagramThatContradictsItsLengthStaysAlone() {
    for change in [1, -1] {
      var packets = (0..<5).map { Self.udp($0).bytes }
      packets[2][25] = UInt8(Int(packets[2][25]) + change)
      #expect(carry(packets).map(\.count) == [2, 1, 2])
    }
  }

  @Test func interleavedFlowsGrowSideBySide() {
    func interleaved(_ flows: Int) -> [PacketSketch] {
      (0..<10).flatMap { index in (0..<flows).map { Self.tcp(index, port: UInt16($0 + 1)) } }
    }
    #expect(counts(interleaved(8)) == [Int](repeating: 10, count: 8))
    // One more than there are places: each closes the one that is needed next.
    #expect(counts(interleaved(9)) == [Int](repeating: 1, count: 90))
  }

  @Test func eachOffloadIsNeededForItsMerging() {
    let streams: [(TunOffloads, [PacketSketch])] = [
      (.tcp4, (0..<3).map { Self.tcp($0) }), (.tcp6, (0..<3).map { Self.tcp($0, isV4: false) }),
      (.udp4, (0..<3).map { Self.udp($0) }), (.udp6, (0..<3).map { Self.udp($0, isV4: false) }),
    ]
    for (offload, stream) in streams {
      #expect(counts(stream, offloads: [.checksum, offload]) == [3])
      #expect(counts(stream, offloads: TunOffloads.all.subtracting(offload)) == [1, 1, 1])
    }
  }

  /// A packet that cannot be merged must not be overtaken by later ones of its flow that join what began before it.
  @Test func nothingIsOvertaken() {
    for isV4 in [true, false] {
      for fragment in [true, false] {
        var packets = (0..<5).map { Self.udp($0, isV4: isV4) }
        packets[2].options = [1, 1, 1, 1]
        packets[2].extensions = [(type: 60, rest: [0, 1, 4, 0, 0, 0, 0])]
        if fragment { packets[2].fragment = (offset: 0, more: true) }
        let delivered = carry(packets.map(\.bytes))
        #expect(delivered.map(\.count) == [2, 1, 2])
        #expect(delivered[1].packet.bytes == packets[2].bytes)
      }
    }
  }

  /// More packets than the gather lists take: delivered in several rounds, none lost.
  @Test func aBatchLargerThanTheGatherLists() {
    let sites = Sites()
    let beta = TestGateway(sites.betaConfiguration, inboundCapacity: 128)
    let packets = (0..<1500).map { Self.udp($0, size: 10, port: UInt16($0 % 9)).bytes }
    var oracle = DeliveryOracle(packets)
    oracle.judge(beta.open(sites.alpha().seal(packets.map { TunPacket($0) })))
    #expect(beta.drops == [:])
  }
}
