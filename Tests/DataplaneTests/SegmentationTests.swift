import PacketIO
import Testing

@testable import Dataplane

/// What is sealed is what a network card would have sent: compared with `SlowPacket.segments`.
@Suite struct SegmentationTests {
  /// The inner packets of sealed trains.
  private func inner(_ trains: [Train]) -> [[UInt8]] {
    let esp = SlowESP(Sites())
    return trains.datagrams.map { esp.open($0)?.payload ?? [] }
  }

  private func expectCut(_ sketch: PacketSketch, into size: Int, count: Int, buffers: Int = 48) {
    let alpha = Sites().alpha(buffers: buffers)
    let packet = TunPacket(sketch, segmentSize: size)
    let expected = SlowPacket(packet.bytes).segments(of: size).map(\.bytes)
    #expect(expected.count == count)
    #expect(inner(alpha.seal([packet])) == expected)
    #expect(alpha.drops == [:])
  }

  private func tcp(_ payload: Int, flags: UInt8 = TCPFlags.ack, isV4: Bool = true) -> PacketSketch {
    var numbers = SeededNumbers(seed: 7)
    let addresses = isV4 ? ("10.1.0.1", "10.2.0.1") : ("fd00:1::1", "fd00:2::1")
    let body = PacketSketch.TCP(sourcePort: 1, destinationPort: 2, sequence: 0xFFFF_FF00, flags: flags)
    return PacketSketch(addresses.0, addresses.1, .tcp(body), payload: numbers.bytes(payload))
  }

  private func udp(_ payload: Int, isV4: Bool = true) -> PacketSketch {
    var sketch = tcp(payload, isV4: isV4)
    sketch.body = .udp(sourcePort: 1, destinationPort: 2)
    return sketch
  }

  @Test(arguments: 1...6 as ClosedRange<UInt64>)
  func randomFlowsAreCutAsANetworkCardCutsThem(seed: UInt64) {
    var traffic = Traffic(seed: seed, flows: 12)
    let alpha = Sites().alpha()
    for _ in 0..<30 {
      let items = (0..<8).map { _ in traffic.next() }
      let sealed = inner(alpha.seal(items.map(\.packet)))
      let expected = items.flatMap { $0.segments.map(\.bytes) }
      #expect(sealed.count == expected.count)
      for (found, right) in zip(sealed, expected) where found != right {
        Issue.record("sealed \(found.prefix(80)), not \(right.prefix(80))")
        return
      }
    }
    #expect(alpha.drops == [:])
  }

  @Test func flagsThatBelongToTheFirstOrTheLastSegment() {
    let all = TCPFlags.ack | TCPFlags.cwr | TCPFlags.ece | TCPFlags.fin | TCPFlags.psh | TCPFlags.urg
    let sealed = inner(Sites().alpha().seal([TunPacket(tcp(250, flags: all), segmentSize: 100)]))
    #expect(
      sealed.map { SlowPacket($0).tcpFlags } == [
        all & ~(TCPFlags.fin | TCPFlags.psh), all & ~(TCPFlags.fin | TCPFlags.psh | TCPFlags.cwr), all & ~TCPFlags.cwr,
      ])
  }

  @Test(arguments: [true, false])
  func theLargestSuperpackets(isV4: Bool) {
    let header = isV4 ? 40 : 60
    expectCut(tcp(65535 - header, isV4: isV4), into: 1348, count: (65535 - header + 1347) / 1348)
    expectCut(udp(65535 - header + 12, isV4: isV4), into: 1400, count: (65535 - header + 12 + 1399) / 1400)
  }

  /// The next header is longer than the payload between the two, so it is written over more than one segment.
  @Test(arguments: [1, 2, 3, 4, 7, 19, 20, 39, 40, 41])
  func segmentsSmallerThanTheirHeaders(size: Int) {
    expectCut(tcp(300, isV4: true), into: size, count: (300 + size - 1) / size)
    expectCut(udp(300, isV4: false), into: size, count: (300 + size - 1) / size)
    var long = tcp(300)
    if case .tcp(var body) = long.body {
      body.options = [UInt8](repeating: 1, count: 40)
      long.body = .tcp(body)
    }
    long.options = [UInt8](repeating: 1, count: 40)
    expectCut(long, into: size, count: (300 + size - 1) / size)
  }

  @Test func thousandsOfSegmentsOfOneByte() {
    expectCut(udp(5000), into: 1, count: 5000, buffers: 64)
  }

  @Test func aSegmentSizeBeyondThePacketCutsNothing() {
    expectCut(tcp(100), into: 101, count: 1)
    expectCut(tcp(100), into: 65535, count: 1)
    expectCut(tcp(0), into: 10, count: 1)
    expectCut(udp(0), into: 10, count: 1)
  }

  @Test func aUDPChecksumThatComesOutAsZeroIsWrittenAsOnes() {
    // With this payload the sum of the rest is 0xFFFF (RFC 768).
    var sketch = udp(2)
    sketch.payload = [0, 0]
    let sum = bigEndian(SlowPacket(sketch.bytes).bytes[26..<28])
    sketch.payload = be16(UInt16(sum))
    let right = SlowPacket(sketch.bytes)
    #expect(right.number(26..<28) == 0xFFFF)
    #expect(inner(Sites().alpha().seal([TunPacket(sketch)])) == [right.bytes])
    sketch.payload += be16(0)
    let pieces = inner(Sites().alpha().seal([TunPacket(sketch, segmentSize: 2)]))
    #expect(pieces.map { SlowPacket($0).hasRightTransportChecksum } == [true, true])
    #expect(SlowPacket(pieces[0]).number(26..<28) == 0xFFFF)
  }

  @Test func whatLiesBehindThePacketIsNotSent() {
    for cut in [0, 100] {
      let alpha = Sites().alpha()
      var packet = TunPacket(tcp(250), segmentSize: cut)
      let expected = inner(Sites().alpha().seal([packet]))
      packet.bytes += [9, 9, 9, 9, 9]
      #expect(inner(alpha.seal([packet])) == expected)
    }
  }

  /// Metadata that contradicts the packet: dropped, and nothing else happens to it.
  @Test func contradictionsAreMalformed() {
    let good = TunPacket(tcp(1000), segmentSize: 100)
    func changed(_ change: (inout TunPacket) -> Void) -> TunPacket {
      var packet = good
      change(&packet)
      return packet
    }
    var fragment = tcp(1000)
    fragment.fragment = (offset: 0, more: true)
    var long = tcp(1000, isV4: false)
    long.extensions = [(type: 60, rest: [31] + [UInt8](repeating: 0, count: 254))]
    func shortened(to length: Int, _ change: (inout TunPacket) -> Void = { _ in }) -> TunPacket {
      changed {
        change(&$0)
        $0.bytes.replaceSubrange(2..<4, with: be16(UInt16(length)))
        $0.bytes = Array($0.bytes[..<length])
      }
    }
    func completed(from start: UInt16, at offset: UInt16) -> TunPacket {
      let offload = Offload(needsChecksum: true, checksumStart: start, checksumOffset: offset)
      return TunPacket(tcp(10).bytes, offload: offload)
    }
    let six = TunPacket(tcp(1000, isV4: false), segmentSize: 100)
    let malformed: [(String, TunPacket)] = [
      ("cut as UDP, but TCP", changed { $0.offload.segmentation = .udp }),
      ("cut as TCP over IPv6, but IPv4", changed { $0.offload.segmentation = .tcp6 }),
      ("cut as TCP over IPv4, but IPv6", TunPacket(six.bytes, offload: good.offload, segmentSize: 100)),
      ("no segment size", changed { $0.segmentSize = 0 }),
      ("data offset below 5", changed { $0.bytes[32] = 0x40 }),
      ("data offset beyond the packet", shortened(to: 60) { $0.bytes[32] = 0xF0 }),
      ("shorter than a TCP header", shortened(to: 39)),
      ("a fragment", TunPacket(fragment, segmentSize: 100)),
      ("headers of more than 256 bytes", TunPacket(long, segmentSize: 100)),
      ("checksum beyond the packet", completed(from: 20, at: 29)),
      ("checksum start beyond the packet", completed(from: 51, at: 0)),
      ("checksum far beyond", completed(from: 65535, at: 65535)),
      ("checksum in the IP header", completed(from: 0, at: 16)),
      ("IP version 5", changed { $0.bytes[0] = 0x55 }),
      ("IPv4 header of 16 bytes", changed { $0.bytes[0] = 0x44 }),
      ("longer than it is", changed { $0.bytes.removeLast() }),
      ("one byte", TunPacket([0x45])),
    ]
    for (what, packet) in malformed {
      let alpha = Sites().alpha()
      #expect(alpha.seal([packet]) == [], "\(what)")
      #expect(alpha.drops == [.malformedPacket: 1], "\(what)")
      #expect(alpha.outboundAssociation("beta")?.value.next == 1, "\(what): a sequence number was used")
    }
  }
}
