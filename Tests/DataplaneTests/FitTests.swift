import PacketIO
import Testing

@testable import Dataplane

/// What is done to packets so that they fit the path: smaller TCP segments, IPv4 fragments, or a message to the
/// sender.
@Suite struct FitTests {
  /// A gateway whose path to beta takes inner packets of `limit` bytes, a multiple of four plus two.
  private func alpha(limit: Int) -> TestGateway {
    let alpha = Sites().alpha()
    let sealed = ESPPacket.sealedLength(limit, implicitIV: false)
    alpha.peer("beta").value.pathSelected(overhead: 28, largestSealed: sealed, raiseInterval: PathMTU.raiseInterval)
    #expect(alpha.peer("beta").value.largestInner(implicitIV: false) == limit)
    return alpha
  }

  private func inner(_ trains: [Train]) -> [[UInt8]] {
    let esp = SlowESP(Sites())
    return trains.datagrams.map { esp.open($0)?.payload ?? [] }
  }

  private func packet(_ body: PacketSketch.Body, _ payload: Int, isV4: Bool = true) -> PacketSketch {
    var numbers = SeededNumbers(seed: UInt64(payload))
    let addresses = isV4 ? ("10.1.0.1", "10.2.0.1") : ("fd00:1::1", "fd00:2::1")
    return PacketSketch(addresses.0, addresses.1, body, payload: numbers.bytes(payload))
  }

  private func tcp(_ payload: Int, isV4: Bool = true, flags: UInt8 = TCPFlags.ack) -> PacketSketch {
    packet(.tcp(.init(sourcePort: 1, destinationPort: 2, sequence: 0xFFFF_FF00, flags: flags)), payload, isV4: isV4)
  }

  private let udp = PacketSketch.Body.udp(sourcePort: 1, destinationPort: 2)

  @Test func theLargestInnerPacketOfASealedSize() {
    for implicitIV in [true, false] {
      for sealed in 100...200 {
        let inner = ESPPacket.largestInner(sealed, implicitIV: implicitIV)
        #expect(ESPPacket.sealedLength(inner, implicitIV: implicitIV) <= sealed)
        #expect(ESPPacket.sealedLength(inner + 1, implicitIV: implicitIV) > sealed)
      }
    }
  }

  // MARK: TCP

  /// Segments of a superpacket that are too large are cut smaller, and the sender learns of it.
  @Test(arguments: [true, false])
  func superpacketsAreCutSmaller(isV4: Bool) {
    let header = isV4 ? 40 : 60
    for size in [1500, 1362, 1361, 1340, 900] {
      let alpha = alpha(limit: 1402)
      let sketch = tcp(10_000, isV4: isV4, flags: TCPFlags.ack | TCPFlags.psh)
      let expected = SlowPacket(TunPacket(sketch).bytes).segments(of: min(size, 1402 - header))
      #expect(inner(alpha.seal([TunPacket(sketch, segmentSize: size)])) == expected.map(\.bytes))
      #expect(alpha.replies.count == (size > 1402 - header ? 1 : 0))
      #expect(alpha.drops == [:])
    }
  }

  @Test(arguments: [true, false], [true, false])
  func aSinglePacketIsCut(isV4: Bool, isPartial: Bool) {
    let alpha = alpha(limit: 1302)
    let sketch = tcp(3000, isV4: isV4, flags: TCPFlags.ack | TCPFlags.fin | TCPFlags.psh)
    let expected = SlowPacket(sketch.bytes).segments(of: 1302 - (isV4 ? 40 : 60)).map(\.bytes)
    #expect(inner(alpha.seal([isPartial ? TunPacket(sketch) : TunPacket(sketch.bytes)])) == expected)
    #expect(alpha.replies.count == 1 && alpha.drops == [:])
  }

  /// Flags that belong to one packet only, and a checksum that would be repaired: told, not cut.
  @Test func whatCannotBeCutIsRefused() {
    for flag in [TCPFlags.syn, TCPFlags.rst, TCPFlags.urg, TCPFlags.cwr] {
      let alpha = alpha(limit: 1302)
      #expect(alpha.seal(tcp(1400, flags: TCPFlags.ack | flag).bytes) == [])
      #expect(alpha.drops == [.exceedsPathMTU: 1] && alpha.replies.count == 1)
    }
    let alpha = alpha(limit: 1302)
    var wrong = tcp(1400)
    wrong.checksumField = .wrong
    #expect(alpha.seal(wrong.bytes) == [])
    #expect(alpha.drops == [.exceedsPathMTU: 1])
  }

  // MARK: Fragments

  /// RFC 791 §3.2: data in multiples of eight bytes, and only the last without the mark that more follow.
  private func fragments(_ packet: [UInt8], limit: Int) -> [[UInt8]] {
    let header = Int(packet[0] & 15) * 4
    let size = (limit - header) / 8 * 8
    let field = Int(packet[6]) << 8 | Int(packet[7])
    let data = Array(packet[header...])
    return stride(from: 0, to: data.count, by: size).map { start in
      let isLast = start + size >= data.count
      var fragment = SlowPacket(Array(packet[..<header] + data[start..<min(start + size, data.count)]))
      fragment.set16(fragment.bytes.count, at: 2)
      fragment.set16(field + start / 8 | (isLast ? 0 : 0x2000), at: 6)
      if start > 0 {
        // RFC 791 §3.1: options without the copied bit stay with the first.
        var option = 20
        while option < header, fragment.bytes[option] != 0 {
          let length = fragment.bytes[option] == 1 ? 1 : Int(fragment.bytes[option + 1])
          if fragment.bytes[option] & 0x80 == 0 {
            for index in option..<option + length { fragment.bytes[index] = 1 }
          }
          option += length
        }
      }
      fragment.writeHeaderChecksum()
      return fragment.bytes
    }
  }

  @Test(arguments: [1302, 1402, 1178])
  func packetsThatMayBeAreFragmented(limit: Int) {
    var sketches: [PacketSketch] = []
    for payload in [limit - 20, limit - 8, limit, 3000, 9000, 65000] {
      sketches += [packet(udp, payload), packet(.other(1), payload)]
    }
    // Fragments are cut again, and options go along as far as they may.
    sketches.append(packet(udp, 4000))
    sketches[sketches.count - 1].fragment = (offset: 185, more: true)
    sketches.append(packet(udp, 4000))
    sketches[sketches.count - 1].fragment = (offset: 100, more: false)
    for options in [
      [0x94, 4, 0, 0], [7, 7, 4, 0, 0, 0, 0, 0], [1, 7, 3, 4, 0x94, 4, 9, 9], [0x83, 7, 4, 1, 2, 3, 4, 1],
      [68, 8, 5, 0, 0, 0, 0, 0, 0x94, 4, 1, 1], [7, 0, 0, 0], [7, 99, 4, 0], [0x83, 1, 4, 0],
    ] as [[UInt8]] {
      sketches.append(packet(udp, 4000))
      sketches[sketches.count - 1].options = options
    }
    for var sketch in sketches {
      sketch.dontFragment = false
      sketch.identification = 0xBEEF
      let alpha = alpha(limit: limit)
      let bytes = sketch.bytes
      let isMalformed =
        sketch.options == [7, 0, 0, 0] || sketch.options == [7, 99, 4, 0] || sketch.options == [0x83, 1, 4, 0]
      let found = inner(alpha.seal([TunPacket(bytes)]))
      #expect(alpha.drops == [:] && alpha.replies == [])
      guard !isMalformed else {
        // Options that cannot be read: nothing traps, and every fragment fits.
        #expect(found.allSatisfy { $0.count <= limit && SlowPacket($0).hasRightHeaderChecksum })
        continue
      }
      #expect(found == (bytes.count <= limit ? [bytes] : fragments(bytes, limit: limit)), "\(sketch.options)")
      #expect(found.allSatisfy { $0.count <= limit })
      #expect(found.flatMap { $0[sketch.transportOffset...] } == Array(bytes[sketch.transportOffset...]))
    }
  }

  @Test func aPartialChecksumIsCompletedBeforeFragments() {
    var sketch = packet(udp, 4000)
    sketch.dontFragment = false
    let found = inner(alpha(limit: 1302).seal([TunPacket(sketch)]))
    #expect(found == fragments(sketch.bytes, limit: 1302))
  }

  // MARK: Messages to senders

  /// As RFC 1191 §4 and RFC 4443 §3.2 draw it.
  @Test(arguments: [true, false])
  func theSenderIsTold(isV4: Bool) throws {
    let alpha = alpha(limit: 1302)
    let sketch = packet(udp, 1400, isV4: isV4)
    #expect(alpha.seal(sketch.bytes) == [])
    #expect(alpha.drops == [.exceedsPathMTU: 1])
    let reply = SlowPacket(try #require(alpha.replies.first))
    #expect(alpha.replies.count == 1)
    #expect(reply.source == sketch.destination && reply.destination == sketch.source)
    #expect(reply.hasRightHeaderChecksum && statedLength(reply) == reply.bytes.count)
    let message = Array(reply.bytes[reply.transportOffset...])
    if isV4 {
      #expect(reply.transport == 1 && message[0] == 3 && message[1] == 4)
      #expect(onesComplementSum(message) == 0xFFFF)
      #expect(bigEndian(message[4..<6]) == 0 && bigEndian(message[6..<8]) == 1302)
    } else {
      #expect(reply.transport == 58 && message[0] == 2 && message[1] == 0)
      #expect(reply.hasRightTransportChecksum)
      #expect(bigEndian(message[4..<8]) == 1302)
    }
    #expect(message.count > 8 + 500 && Array(message[8...]) == Array(sketch.bytes.prefix(message.count - 8)))
  }

  private func statedLength(_ packet: SlowPacket) -> Int {
    Int(packet.number(packet.isV4 ? 2..<4 : 4..<6)) + (packet.isV4 ? 0 : 40)
  }

  /// RFC 1122 §3.2.2 and RFC 4443 §2.4 (e): no error about an error, a later fragment, or a group.
  @Test func whomNobodyTells() {
    var silent: [PacketSketch] = []
    for type in [3, 4, 5, 11, 12] as [UInt8] {
      silent.append(packet(.other(1), 1400))
      silent[silent.count - 1].payload[0] = type
    }
    for type in [1, 2, 3, 4, 127] as [UInt8] {
      silent.append(packet(.other(58), 1400, isV4: false))
      silent[silent.count - 1].payload[0] = type
    }
    silent.append(packet(udp, 1400))
    silent[silent.count - 1].fragment = (offset: 10, more: false)
    silent.append(packet(udp, 1400, isV4: false))
    silent[silent.count - 1].fragment = (offset: 10, more: false)
    for source in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1"] {
      silent.append(packet(udp, 1400, isV4: !source.contains(":")))
      silent[silent.count - 1].source = IPAddress(source)!
    }
    for sketch in silent {
      let alpha = alpha(limit: 1302)
      #expect(alpha.seal(sketch.bytes) == [])
      #expect(alpha.drops == [sketch.source.isHost ? .exceedsPathMTU : .foreignSource: 1])
      #expect(alpha.replies == [], "an answer to \(sketch.source), \(sketch.payload[0])")
    }
    // Echo requests are no errors.
    for isV4 in [true, false] {
      let alpha = alpha(limit: 1302)
      var ping = packet(.other(isV4 ? 1 : 58), 1400, isV4: isV4)
      ping.payload[0] = isV4 ? 8 : 128
      _ = alpha.seal(ping.bytes)
      #expect(alpha.replies.count == 1)
    }
  }

  @Test func messagesAreLimitedInRate() {
    let alpha = alpha(limit: 1302)
    let bytes = packet(udp, 1400, isV4: false).bytes
    for _ in 0..<100 { _ = alpha.seal(bytes, now: .seconds(100)) }
    #expect(alpha.replies.count == 20)
    for _ in 0..<100 { _ = alpha.seal(bytes, now: .seconds(100.1)) }
    #expect(alpha.replies.count == 30)
    for _ in 0..<100 { _ = alpha.seal(bytes, now: .seconds(1000)) }
    #expect(alpha.replies.count == 50)
    #expect(alpha.drops == [.exceedsPathMTU: 300])
  }

  /// Against counting what was given within any stretch of time.
  @Test func aTokenBucketGivesNoMoreThanItsRate() {
    var bucket = TokenBucket(perSecond: 10, burst: 5)
    var numbers = SeededNumbers(seed: 1)
    var given: [UInt64] = []
    var now: UInt64 = 5_000_000_000
    for _ in 0..<3000 {
      now += UInt64.random(in: 0...200_000_000, using: &numbers)
      if bucket.takeOne(now: MonotonicTime(nanoseconds: now)) { given.append(now) }
    }
    for (index, start) in given.enumerated() {
      for later in index..<min(index + 50, given.count) {
        #expect(later - index + 1 <= 5 + Int((given[later] - start) / 100_000_000) + 1)
      }
    }
    #expect(given.count > 2000, "far less than the rate")
  }

  // MARK: IPv6 packets that every link must take

  /// Puts fragments of one datagram together, without the fragment header.
  private func reassembled(_ fragments: [[UInt8]]) -> [UInt8]? {
    var payload: [Int: [UInt8]] = [:]
    var end: Int?
    var whole: [UInt8] = []
    for fragment in fragments {
      guard fragment[6] == 44, statedLength(SlowPacket(fragment)) == fragment.count else { return nil }
      let field = Int(bigEndian(fragment[42..<44]))
      payload[field & ~7] = Array(fragment[48...])
      if field & 1 == 0 { end = field & ~7 + fragment.count - 48 } else if (fragment.count - 48) % 8 != 0 { return nil }
      guard Set(fragments.map { Array($0[44..<48]) }).count == 1 else { return nil }
    }
    while let piece = payload[whole.count] { whole += piece.isEmpty ? [0] : piece }
    guard let end, whole.count == end, var packet = fragments.first?.prefix(40) else { return nil }
    packet.replaceSubrange(4..<6, with: be16(UInt16(end)))
    packet[6] = fragments[0][40]
    return Array(packet) + whole
  }

  /// Nobody can be told to send less than 1280 bytes, so a narrower path gets fragments.
  @Test func smallIPv6PacketsPassANarrowPath() {
    for length in [1143, 1144, 1200, 1240, 1241] {
      let alpha = alpha(limit: 1182)
      let sketch = packet(udp, length - 8, isV4: false)
      let found = inner(alpha.seal([TunPacket(sketch.bytes)]))
      if length <= 1240 {
        #expect(found.count == 2 && found.allSatisfy { $0.count <= 1182 }, "\(length)")
        #expect(reassembled(found) == sketch.bytes)
        #expect(alpha.replies.isEmpty && alpha.drops == [:])
      } else {
        #expect(found == [] && alpha.drops == [.exceedsPathMTU: 1])
        // What it is told is what it can do.
        #expect(alpha.replies.first.map { bigEndian($0[44..<48]) } == 1280)
      }
    }
  }

  /// Also those that come as a superpacket, and those that are fragments already.
  @Test func superpacketsAndFragmentsPassANarrowPath() {
    let alpha = alpha(limit: 1182)
    let sketch = packet(udp, 5000, isV4: false)
    let expected = SlowPacket(TunPacket(sketch).bytes).segments(of: 1220).map(\.bytes)
    let found = inner(alpha.seal([TunPacket(sketch, segmentSize: 1220)]))
    var byNumber: [[UInt8]: [[UInt8]]] = [:]
    for fragment in found where fragment[6] == 44 { byNumber[Array(fragment[44..<48]), default: []].append(fragment) }
    let whole = byNumber.values.compactMap(reassembled) + found.filter { $0[6] != 44 }
    #expect(Set(whole) == Set(expected) && alpha.drops == [:] && alpha.replies.isEmpty)

    for (offset, more) in [(0, true), (100, true), (100, false)] as [(UInt16, Bool)] {
      let alpha = self.alpha(limit: 1182)
      var sketch = packet(udp, 1216, isV4: false)
      sketch.fragment = (offset: offset, more: more)
      let before = sketch.bytes
      let found = inner(alpha.seal([TunPacket(before)]))
      #expect(found.count == 2 && found.allSatisfy { $0.count <= 1182 && $0[6] == 44 })
      #expect(found.flatMap { $0[48...] } == Array(before[48...]))
      let fields = found.map { Int(bigEndian($0[42..<44])) }
      let start = Int(bigEndian(before[42..<44])) & ~7
      #expect(fields == [start | 1, start + found[0].count - 48 | (more ? 1 : 0)])
    }
  }

  // MARK: Maximum segment size

  /// A SYN whose option begins at `place` of the options.
  private func syn(_ mss: UInt16?, at place: Int, isV4: Bool, partial: Bool = false) -> PacketSketch {
    var options = [UInt8](repeating: 1, count: place)
    if let mss { options += [2, 4] + be16(mss) }
    while options.count % 4 != 0 { options.append(0) }
    var sketch = tcp(0, isV4: isV4, flags: TCPFlags.syn)
    if case .tcp(var tcp) = sketch.body {
      tcp.options = options
      sketch.body = .tcp(tcp)
    }
    if partial { sketch.checksumField = .partial }
    return sketch
  }

  @Test(arguments: [0, 1, 2, 3, 5], [true, false])
  func theSegmentSizeOfAHandshakeIsLowered(place: Int, isV4: Bool) {
    let largest = UInt16(1302 - (isV4 ? 40 : 60))
    for mss in [536, largest - 1, largest, largest + 1, 1460, 65535] {
      let expected = syn(min(mss, largest), at: place, isV4: isV4).bytes
      #expect(inner(alpha(limit: 1302).seal([TunPacket(syn(mss, at: place, isV4: isV4).bytes)])) == [expected])
      #expect(inner(alpha(limit: 1302).seal([TunPacket(syn(mss, at: place, isV4: isV4))])) == [expected])
    }
    // A wrong checksum stays wrong.
    var wrong = syn(9000, at: place, isV4: isV4)
    wrong.checksumField = .wrong
    let found = inner(alpha(limit: 1302).seal([TunPacket(wrong.bytes)]))
    #expect(found.count == 1 && !SlowPacket(found[0]).hasRightTransportChecksum)
  }

  @Test func whatIsNoHandshakeOrHasNoOptionStays() {
    var kept: [[UInt8]] = [syn(nil, at: 0, isV4: true).bytes, syn(nil, at: 7, isV4: true).bytes]
    var data = syn(9000, at: 0, isV4: true)
    if case .tcp(var tcp) = data.body {
      tcp.flags = TCPFlags.ack
      data.body = .tcp(tcp)
    }
    kept.append(data.bytes)
    // Options that are broken: too long, of no length, cut off; another option of the same length.
    for options in [[2, 40, 9, 9], [2, 0, 9, 9], [1, 1, 1, 2], [2, 3, 9, 9], [0, 2, 4, 9], [3, 4, 255, 255]]
      as [[UInt8]]
    {
      var sketch = syn(nil, at: 0, isV4: true)
      if case .tcp(var tcp) = sketch.body {
        tcp.options = options
        sketch.body = .tcp(tcp)
      }
      kept.append(sketch.bytes)
    }
    for packet in kept { #expect(inner(alpha(limit: 1302).seal([TunPacket(packet)])) == [packet]) }
  }

  /// Also what comes in is lowered, so that the host here sends segments that fit.
  @Test func theOthersHandshakeIsLoweredToo() {
    let sites = Sites()
    let beta = sites.beta()
    let sealed = ESPPacket.sealedLength(1302, implicitIV: false)
    beta.peer("alpha").value.pathSelected(overhead: 28, largestSealed: sealed, raiseInterval: PathMTU.raiseInterval)
    let opened = beta.open(SlowESP(sites).seal(syn(1460, at: 1, isV4: true), sequence: 1))
    #expect(opened == [syn(1262, at: 1, isV4: true).bytes])
  }
}
