import PacketIO
import Testing

@testable import Dataplane

@Suite struct DNSRewritingTests {
  private let memory = PacketMemory()
  private let local: [PrefixPair]
  private let remote: [PrefixPair]

  init() throws {
    local = [
      try DNSRewritingTests.pair("192.168.1.0/24", "100.115.7.0/24"),
      try DNSRewritingTests.pair("10.0.0.0/9", "9.0.0.0/9"),
      try DNSRewritingTests.pair("fd00:1::/64", "fd08:5bf2:c718:9::/64"),
    ]
    remote = [try DNSRewritingTests.pair("172.16.0.0/16", "100.120.0.0/16")]
  }

  private static func pair(_ real: String, _ known: String) throws -> PrefixPair {
    PrefixPair(real: try #require(Prefix(real)), intermediate: try #require(Prefix(known)))
  }

  private func rewrite(_ message: [UInt8], room: Int = 64, inbound: Bool = false) -> (DNSOutcome, [UInt8]) {
    let translation = PrefixTranslation(local: local, remote: remote)
    let bytes = memory.load(message, room: room)
    let outcome =
      inbound
      ? translation.inbound.rewrite(message: bytes, length: message.count)
      : translation.outbound.rewrite(message: bytes, length: message.count)
    #expect(memory.isIntact(message.count + room))
    guard case .rewritten(let length) = outcome else {
      let isSame = bytes.slice(0, message.count).array() == message
      #expect(isSame, "\(outcome) and yet altered")
      return (outcome, message)
    }
    return (outcome, bytes.slice(0, length).array())
  }

  @Test func messagesAreWhatTheirRewrittenDescriptionsSay() throws {
    let outbound = NaiveRewriting.outbound(local: local, remote: remote)
    let prefixes = (local + remote).flatMap { [$0.real, $0.intermediate] }
    var counts: [Bool: Int] = [:]
    var grown = 0
    for seed in 0..<2000 as Range<UInt64> {
      var generator = DNSGenerator(packets: PacketGenerator(numbers: SeededNumbers(seed: seed), prefixes: prefixes))
      let spec = generator.spec()
      let bytes = spec.bytes()
      let expected = spec.rewritten(outbound).bytes()
      let (outcome, result) = rewrite(bytes)
      let isRight = result == expected
      #expect(isRight, "\(seed): \(outcome) \(spec)")
      #expect((outcome == .rewritten(length: expected.count)) == (bytes != expected), "\(seed)")
      counts[bytes != expected, default: 0] += 1
      if bytes.count != expected.count { grown += 1 }
    }
    #expect(counts[true, default: 0] > 300 && counts[false, default: 0] > 300 && grown > 100, "\(counts) \(grown)")
  }

  /// A whole packet, with its lengths and checksums, with and without a UDP checksum, partial ones too.
  @Test(arguments: [true, false]) func packetsHaveTheRightLengthsAndChecksums(isV4: Bool) throws {
    let translation = PrefixTranslation(local: local, remote: remote)
    let outbound = NaiveRewriting.outbound(local: local, remote: remote)
    let prefixes = (local + remote).flatMap { [$0.real, $0.intermediate] }
    for seed in 0..<600 as Range<UInt64> {
      var generator = DNSGenerator(packets: PacketGenerator(numbers: SeededNumbers(seed: seed), prefixes: prefixes))
      let message = generator.spec()
      var spec = generator.packets.spec(isV4: isV4)
      let isPartial = seed % 4 == 3
      func body(_ message: DNSSpec) -> PacketSpec.Body {
        .udp(source: 53, destination: 40000, payload: message.bytes(), hasChecksum: seed % 4 > 0)
      }
      spec.body = body(message)
      let original = spec.bytes(partial: isPartial)
      let bytes = memory.load(original, room: 128)
      let packet = try #require(InnerPacket(bytes.slice(0, original.count)))
      let offload =
        isPartial
        ? Offload(needsChecksum: true, checksumStart: UInt16(packet.transportOffset), checksumOffset: 6) : Offload()
      var length = packet.length
      if case .rewritten(let new) = translation.outbound.rewriteDNS(bytes, packet, offload, port: 53) { length = new }
      let rewritten = try #require(InnerPacket(bytes.slice(0, length)))
      translation.outbound.translate(bytes, rewritten, offload)
      spec.body = body(message.rewritten(outbound))
      let isRight = bytes.slice(0, length).array() == spec.translated(outbound).bytes(partial: isPartial)
      #expect(isRight, "\(seed): \(message)")
      #expect(memory.isIntact(original.count + 128))
    }
  }

  /// A host at one site asks for the name of a host at the other, by the address it knows; the server there is asked
  /// for the address it has, and the answer is to the question that was put.
  @Test func theNameOfAnIntermediateAddressIsFound() {
    let asked = DNSSpec(flags: 0x0100, questions: [(DNSSpec.Name("20.7.115.100.in-addr.arpa"), 12)])
    let seen = DNSSpec(flags: 0x0100, questions: [(DNSSpec.Name("20.1.168.192.in-addr.arpa"), 12)])
    #expect(rewrite(asked.bytes(), inbound: true).1 == seen.bytes())

    let host = DNSSpec.Data.names([], [DNSSpec.Name("printer.bergen.example")], [])
    var answer = seen
    answer.flags = 0x8180
    answer.answers = [DNSSpec.Record(owner: DNSSpec.Name("", pointer: (0, 0)), type: 12, data: host)]
    var expected = asked
    expected.flags = 0x8180
    expected.answers = answer.answers
    #expect(rewrite(answer.bytes()).1 == expected.bytes())
  }

  @Test func lettersKeepTheirCaseWhereTheDigitStays() {
    let pair = local[2]
    let host = IPAddress("fd00:1::abcd:ef")!
    let known = pair.intermediate(of: host)!
    func question(_ address: IPAddress) -> [UInt8] {
      let labels = DNSSpec.reverse(address.octets).enumerated().map { $0 < 32 && $0 % 2 == 0 ? $1.uppercased() : $1 }
      return DNSSpec(questions: [(DNSSpec.Name(labels.joined(separator: ".")), 12)]).bytes()
    }
    let there = rewrite(question(host))
    let isRight =
      there.1.map { UInt8(ascii: "A") <= $0 && $0 <= UInt8(ascii: "Z") ? $0 | 0x20 : $0 }
      == question(known).map { UInt8(ascii: "A") <= $0 && $0 <= UInt8(ascii: "Z") ? $0 | 0x20 : $0 }
    #expect(isRight)
    #expect(there.1.prefix(36) == question(host).prefix(36))
  }

  @Test func signedMessagesStayAndAreReported() {
    func answer(_ more: [DNSSpec.Record], flags: UInt16 = 0x8180) -> [UInt8] {
      let address = DNSSpec.Record(owner: DNSSpec.Name("", pointer: (0, 0)), type: 1, data: .raw([192, 168, 1, 5]))
      return DNSSpec(
        flags: flags, questions: [(DNSSpec.Name("a.example"), 1)], answers: [address], additional: more
      ).bytes()
    }
    func record(_ type: UInt16, ttl: UInt32 = 0, _ data: [UInt8] = []) -> DNSSpec.Record {
      DNSSpec.Record(owner: DNSSpec.Name(""), type: type, timeToLive: ttl, data: .raw(data))
    }
    for type in [24, 46, 250] as [UInt16] { #expect(rewrite(answer([record(type)])).0 == .signed, "\(type)") }
    // Validated, for somebody who asked for DNSSEC.
    #expect(rewrite(answer([record(41, ttl: 0x8000)], flags: 0x81A0)).0 == .signed)
    // Asked for, but not validated and not signed.
    #expect(rewrite(answer([record(41, ttl: 0x8000)])).0 != .signed)
    // Validated, for somebody who did not ask: no longer so.
    let (outcome, bytes) = rewrite(answer([record(41)], flags: 0x81A0))
    #expect(outcome == .rewritten(length: bytes.count))
    #expect(bytes[3] == 0x80)
    // Signed, but none of our business.
    let other = DNSSpec.Record(owner: DNSSpec.Name("a.example"), type: 1, data: .raw([8, 8, 8, 8]))
    #expect(rewrite(DNSSpec(answers: [other, record(46)]).bytes()).0 == .untouched)
  }

  @Test func whatCannotBeRewrittenInPlaceIsReported() {
    // The number of the second name lies partly in the first.
    let shared = DNSSpec(
      questions: [(DNSSpec.Name("5.1.168.192.in-addr.arpa"), 12)],
      answers: [DNSSpec.Record(owner: DNSSpec.Name("6", pointer: (0, 1)), type: 16, data: .raw([0]))])
    #expect(rewrite(shared.bytes()).0 == .unfit)
    // No room to grow: 5.0.0.10 becomes 5.0.0.9, but 5.1.168.192 the longer 5.7.115.100 … and back.
    let growing = DNSSpec(questions: [(DNSSpec.Name("5.0.0.9.in-addr.arpa"), 12)])
    #expect(rewrite(growing.bytes(), room: 0, inbound: true).0 == .unfit)
    #expect(rewrite(growing.bytes(), room: 1, inbound: true).0 == .rewritten(length: growing.bytes().count + 1))
    // More names of addresses than are kept in mind.
    let many = DNSSpec(questions: (0..<9).map { (DNSSpec.Name("\($0).1.168.192.in-addr.arpa"), 12) })
    #expect(rewrite(many.bytes()).0 == .unfit)
  }

  @Test func otherMessagesAreLeftAlone() {
    let address = DNSSpec.Record(owner: DNSSpec.Name("a.example"), type: 1, data: .raw([192, 168, 1, 5]))
    // An update (RFC 2136), another class, a record of another length, addresses in text.
    #expect(rewrite(DNSSpec(flags: 0x2800, answers: [address]).bytes()).0 == .untouched)
    for record in [
      DNSSpec.Record(owner: DNSSpec.Name("a"), type: 1, recordClass: 3, data: .raw([192, 168, 1, 5])),
      DNSSpec.Record(owner: DNSSpec.Name("a"), type: 1, data: .raw([192, 168, 1, 5, 0])),
      DNSSpec.Record(owner: DNSSpec.Name("a"), type: 16, data: .raw([192, 168, 1, 5])),
    ] { #expect(rewrite(DNSSpec(answers: [record]).bytes()).0 == .untouched) }
    for text in [
      "1.168.192.in-addr.arpa", "a.5.1.168.192.in-addr.arpa", "05.1.168.192.in-addr.arpa", "256.1.168.192.in-addr.arpa",
      "5.1.168.192.in-addr.example", "5.1.168.192.ip6.arpa",
    ] {
      #expect(rewrite(DNSSpec(questions: [(DNSSpec.Name(text), 12)]).bytes()).0 == .untouched, "\(text)")
    }
  }

  @Test func hostileMessagesAreLeftAloneInLinearTime() {
    let header: [UInt8] = [0, 0, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0]
    // A pointer to itself, forward, into the header, to another pointer and back.
    for name in [[0xC0, 12], [0xC0, 20], [0xC0, 0], [1, 97, 0xC0, 12], [0x40, 0], [0x80, 0], [63]] as [[UInt8]] {
      #expect(rewrite(header + name + [0, 1, 0, 1]).0 == .untouched, "\(name)")
    }
    // A selection of pointers that every one of thousands of records climbs down.
    var selection = header
    selection.replaceSubrange(4..<8, with: [0, 0, 0xFF, 0xFF])
    var previous = 12
    selection += [0, 0, 16, 0, 1, 0, 0, 0, 0, 0, 0]
    while selection.count < 60_000 {
      let place = selection.count
      selection += big16(0xC000 | min(previous, 0x3FFF)) + [0, 16, 0, 1, 0, 0, 0, 0, 0, 0]
      previous = place
    }
    let clock = ContinuousClock()
    let time = clock.measure { #expect(rewrite(selection).0 == .untouched) }
    #expect(time < .milliseconds(500), "\(time)")
  }

  /// Every truncation and many alterations of good messages: left alone or rewritten, never a trap.
  @Test func damagedMessagesAreSurvived() {
    let prefixes = (local + remote).flatMap { [$0.real, $0.intermediate] }
    for seed in 0..<25 as Range<UInt64> {
      var generator = DNSGenerator(packets: PacketGenerator(numbers: SeededNumbers(seed: seed), prefixes: prefixes))
      let bytes = generator.spec().bytes()
      for count in 0..<bytes.count { #expect(rewrite(Array(bytes.prefix(count))).0 != .rewritten(length: 0)) }
      for _ in 0..<200 {
        var damaged = bytes
        for _ in 0..<Int.random(in: 1...4, using: &generator.packets.numbers) {
          damaged[.random(in: 0..<bytes.count, using: &generator.packets.numbers)] =
            [0, 1, 4, 12, 0xC0, 0xFF, UInt8.random(in: 0...255, using: &generator.packets.numbers)]
            .randomElement(using: &generator.packets.numbers)!
        }
        _ = rewrite(damaged)
      }
    }
  }
}
