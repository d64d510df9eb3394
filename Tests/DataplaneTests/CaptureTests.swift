import PacketIO
import Testing

@testable import Dataplane

/// What a capture holds: every packet that passed, as it was on its wire, and why those did not that went no further.
@Suite struct CaptureTests {
  struct Seen: Equatable {
    var side: Int
    var bytes: [UInt8]
    var length: Int
    var time: UInt64
    var isOutgoing: Bool
    var comment: String?
  }

  /// The packets of a file, read by the draft's letter.
  static func parse(_ file: [UInt8]) -> (packets: [Seen], lost: UInt64?) {
    func word(_ place: Int) -> Int { (0..<4).reduce(0) { $0 | Int(file[place + $1]) << (8 * $1) } }
    func half(_ place: Int) -> Int { Int(file[place]) | Int(file[place + 1]) << 8 }
    func options(_ range: Range<Int>) -> [Int: [UInt8]] {
      var found: [Int: [UInt8]] = [:]
      var place = range.lowerBound
      while place + 4 <= range.upperBound, half(place) != 0 {
        let length = half(place + 2)
        found[half(place)] = Array(file[(place + 4)..<(place + 4 + length)])
        place += 4 + (length + 3) & ~3
      }
      return found
    }
    var (packets, lost, place, interfaces): ([Seen], UInt64?, Int, Int) = ([], nil, 0, 0)
    while place < file.count {
      let length = word(place + 4)
      #expect(length % 4 == 0 && length >= 12 && place + length <= file.count)
      #expect(word(place + length - 4) == length, "the length at a block's end is another one")
      switch word(place) {
      case 0x0A0D_0D0A: #expect(place == 0 && word(8) == 0x1A2B_3C4D)
      case 1:
        #expect(half(place + 8) == 101 && options((place + 16)..<(place + length - 4))[9] == [9])
        interfaces += 1
      case 6:
        let kept = word(place + 20)
        let more = options((place + 28 + (kept + 3) & ~3)..<(place + length - 4))
        packets.append(
          Seen(
            side: word(place + 8), bytes: Array(file[(place + 28)..<(place + 28 + kept)]), length: word(place + 24),
            time: UInt64(word(place + 12)) << 32 | UInt64(word(place + 16)), isOutgoing: more[2]?.first == 2,
            comment: more[1].map { String(decoding: $0, as: UTF8.self) }))
      case 5:
        lost = options((place + 20)..<(place + length - 4))[5].map { $0.reversed().reduce(0) { $0 << 8 | UInt64($1) } }
      default: Issue.record("an unknown block")
      }
      place += length
    }
    #expect(interfaces == 2)
    return (packets, lost)
  }

  private static func capture(_ change: (inout PacketCapture.Request) -> Void = { _ in }) -> PacketCapture {
    var request = PacketCapture.Request()
    request.epoch = 1_700_000_000_000_000_000
    change(&request)
    return PacketCapture(request)
  }

  private func udp(_ payload: Int, to: String = "10.2.0.1") -> PacketSketch {
    PacketSketch(
      "10.1.0.1", to, .udp(sourcePort: 7, destinationPort: 8), payload: [UInt8](repeating: 7, count: payload))
  }

  @Test func aTunnelSeenFromBothSides() {
    let (alpha, beta) = (Sites().alpha(), Sites().beta())
    let (left, right) = (Self.capture(), Self.capture())
    alpha.begin(left)
    beta.begin(right)
    let big = PacketSketch(
      "10.1.0.1", "10.2.0.1", .tcp(.init(sourcePort: 1, destinationPort: 2)),
      payload: [UInt8](repeating: 3, count: 5000))
    let plain = [udp(30).bytes] + SlowPacket(TunPacket(big).bytes).segments(of: 1200).map(\.bytes)
    let trains = alpha.seal([TunPacket(udp(30)), TunPacket(big, segmentSize: 1200), TunPacket(udp(5, to: "10.9.0.1"))])
    let delivered = beta.open(trains).flatMap(\.packets)
    #expect(delivered == plain)
    alpha.end(left)
    beta.end(right)
    for (file, isOutgoing) in [(left, true), (right, false)] {
      let (packets, lost) = Self.parse(file.take() ?? [])
      #expect(lost == 0 && file.take() == nil)
      let inner = packets.filter { $0.side == 0 && $0.comment == nil }
      #expect(inner.map(\.bytes) == plain && inner.allSatisfy { $0.isOutgoing == isOutgoing })
      let outer = packets.filter { $0.side == 1 }
      #expect(outer.map { Array($0.bytes.dropFirst(28)) } == trains.datagrams)
      for packet in outer {
        let parsed = SlowPacket(packet.bytes)
        #expect(parsed.transport == 17 && parsed.hasRightHeaderChecksum && packet.bytes.count == packet.length)
        #expect(bigEndian(packet.bytes[2..<4]) == packet.length && packet.isOutgoing == isOutgoing)
        let remote = isOutgoing ? parsed.destination : parsed.source
        #expect(remote == Path.path(2).endpoint.address)
      }
      #expect(packets.allSatisfy { $0.time == 1_700_000_002_000_000_000 })
      let refused = packets.filter { $0.comment != nil }
      #expect(refused.map(\.comment) == (isOutgoing ? ["dropped: no-route"] : []))
      #expect(refused.map(\.bytes) == (isOutgoing ? [udp(5, to: "10.9.0.1").bytes] : []))
    }
  }

  @Test func saysWhyPacketsWentNoFurther() {
    var configuration = Sites().betaConfiguration
    configuration.firewall.mode = .on
    let beta = TestGateway(configuration)
    let file = Self.capture()
    beta.begin(file)
    let esp = SlowESP(Sites())
    let spoofed = PacketSketch("10.2.0.9", "10.2.0.1", .other(50), payload: [1, 2, 3])
    let datagrams = [
      esp.seal(udp(10), sequence: 1), esp.seal(udp(10), sequence: 1), esp.seal(spoofed, sequence: 2),
      [0xFF, 0xFF, 0xFF, 0xFF] + [UInt8](repeating: 0, count: 40),
    ]
    for datagram in datagrams { #expect(beta.open([Train(datagram)]).isEmpty) }
    beta.end(file)
    let (packets, _) = Self.parse(file.take() ?? [])
    let outer = packets.filter { $0.side == 1 }
    #expect(outer.map { Array($0.bytes.dropFirst(28)) } == datagrams)
    #expect(
      outer.map(\.comment) == [nil, "dropped: replayed", "dropped: spoofed-source", "dropped: unknown-spi"])
    let inner = packets.filter { $0.side == 0 }
    #expect(inner.map(\.comment) == ["dropped: firewall-default", "dropped: spoofed-source"])
    #expect(inner.map(\.bytes) == [udp(10).bytes, spoofed.bytes])
  }

  /// What a stream brings is cut where its records end, and its framing is left out.
  @Test func recordsOfAStreamAreCutApart() {
    let beta = Sites().beta()
    let file = Self.capture()
    beta.begin(file)
    let esp = SlowESP(Sites())
    let records = (1...3).map { esp.seal(udp(10), sequence: UInt64($0)) }
    var run = Train(Array(records.joined(separator: [0, UInt8(records[0].count + 2)])), segmentSize: records[0].count)
    run.gap = 2
    #expect(beta.open([run]).flatMap(\.packets).count == 3)
    beta.end(file)
    let outer = Self.parse(file.take() ?? []).packets.filter { $0.side == 1 }
    #expect(outer.map { Array($0.bytes.dropFirst(28)) } == records)
  }

  @Test func limitsHold() {
    let alpha = Sites().alpha()
    let short = Self.capture {
      $0.snapLength = 64
      $0.count = 3
      $0.outer = false
    }
    alpha.begin(short)
    for size in [10, 100, 1000, 10] { _ = alpha.seal([TunPacket(udp(size))]) }
    let packets = Self.parse(short.take() ?? []).packets
    #expect(packets.map(\.bytes.count) == [38, 64, 64] && packets.map(\.length) == [38, 128, 1028])
    #expect(packets.allSatisfy { $0.side == 0 } && !alpha.isCapturing)

    let other = Self.capture { $0.peer = "nobody" }
    alpha.begin(other)
    _ = alpha.seal([TunPacket(udp(10))])
    alpha.end(other)
    #expect(Self.parse(other.take() ?? []).packets.isEmpty)

    // Nobody takes anything out: what does not fit is counted.
    let full = Self.capture()
    alpha.begin(full)
    let batch = (0..<60).map { _ in TunPacket(udp(1300)) }
    for _ in 0..<120 { _ = alpha.seal(batch) }
    alpha.end(full)
    let bytes = full.take() ?? []
    #expect(bytes.count <= PacketCapture.capacity + 64)
    let (kept, lost) = Self.parse(bytes)
    #expect(kept.count + Int(lost ?? 0) == 2 * 60 * 120 && (lost ?? 0) > 0 && full.lost == lost)
  }
}
