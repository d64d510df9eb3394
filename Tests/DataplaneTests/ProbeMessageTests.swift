import PacketIO
import Testing

@testable import Dataplane

/// The bodies of probes and their answers, byte by byte as the documentation has them.
@Suite struct ProbeMessageTests {
  private func bytes(_ text: String) -> [UInt8] {
    let digits = text.filter { !$0.isWhitespace }
    return stride(from: 0, to: digits.count, by: 2).compactMap { UInt8(digits.dropFirst($0).prefix(2), radix: 16) }
  }

  private let pool = BufferPool(count: 1)

  /// Lends bytes that end where the body ends.
  private func read<Message>(_ body: [UInt8], _ parse: (PacketBytes) -> Message?) -> Message? {
    guard let buffer = pool.take() else { return nil }
    defer { pool.release(buffer) }
    let bytes = pool.bytes(buffer).slice(0, body.count)
    bytes.copy(body, to: 0)
    return parse(bytes)
  }

  private func probe(_ body: [UInt8]) -> ProbeMessage? { read(body) { ProbeMessage($0) } }
  private func reply(_ body: [UInt8]) -> ProbeReply? { read(body) { ProbeReply($0) } }

  /// Written by hand.
  @Test func probesOnTheWire() {
    let vectors: [(String, ProbeMessage)] = [
      (
        "0000000000000001 1122334455667788 00 01",
        ProbeMessage(number: 1, tieBreaker: 0x1122_3344_5566_7788, rank: 0, isUsed: true)
      ),
      (
        "ffffffffffffffff 0000000000000002 ff 00",
        ProbeMessage(number: UInt64.max, tieBreaker: 2, rank: ProbeMessage.unlisted, isUsed: false)
      ),
      (
        "0102030405060708 8000000000000000 07 01",
        ProbeMessage(number: 0x0102_0304_0506_0708, tieBreaker: 1 << 63, rank: 7, isUsed: true)
      ),
    ]
    for (text, message) in vectors {
      #expect(message.body == bytes(text))
      #expect(probe(bytes(text)) == message)
      // Flags and bytes to come change nothing.
      var later = bytes(text) + [1, 2, 3]
      later[17] |= 0xFC
      #expect(probe(later) == message)
    }
    // Of an implementation that knows no paths, or not all of what is said here.
    for length in 8..<18 {
      let body = Array(bytes(vectors[2].0).prefix(length))
      #expect(probe(body) == ProbeMessage(number: 0x0102_0304_0506_0708, tieBreaker: nil, rank: 255, isUsed: true))
    }
    for length in 0..<8 { #expect(probe([UInt8](repeating: 1, count: length)) == nil) }
  }

  @Test func answersOnTheWire() throws {
    let v4 = Endpoint(address: IPAddress(v4: 0xC000_0201), port: 4500)
    let v6 = Endpoint(address: try #require(IPAddress("2001:db8::1")), port: 443)
    let vectors: [(String, ProbeReply)] = [
      ("0000000000000005 04 1194 c0000201 000000000000000000000000", ProbeReply(number: 5, seen: v4)),
      ("0000000000000006 06 01bb 20010db8000000000000000000000001", ProbeReply(number: 6, seen: v6)),
      ("8000000000000007", ProbeReply(number: 1 << 63 | 7, seen: nil)),
    ]
    for (text, message) in vectors {
      #expect(message.body == bytes(text))
      #expect(reply(bytes(text)) == message)
      #expect(reply(bytes(text) + [0])?.number == message.number)
    }
    // Neither family, and too little of it: the number alone counts.
    #expect(
      reply(bytes("0000000000000006 05 01bb 20010db8000000000000000000000001")) == ProbeReply(number: 6, seen: nil))
    for length in 8..<27 {
      #expect(reply(Array(bytes(vectors[1].0).prefix(length))) == ProbeReply(number: 6, seen: nil))
    }
    for length in 0..<8 { #expect(reply([UInt8](repeating: 1, count: length)) == nil) }
  }

  /// Whatever comes, against arithmetic over the bytes.
  @Test func anyBytes() {
    var numbers = SeededNumbers(seed: 7)
    for _ in 0..<5000 {
      let count = Int.random(in: 0...40, using: &numbers)
      var body = (0..<count).map { _ in UInt8.random(in: 0...255, using: &numbers) }
      if count > 8, numbers.next() & 1 == 0 { body[8] = numbers.next() & 1 == 0 ? 4 : 6 }
      func value(_ range: Range<Int>) -> UInt64 { body[range].reduce(0) { $0 << 8 | UInt64($1) } }
      guard count >= 8 else {
        #expect(probe(body) == nil && reply(body) == nil)
        continue
      }
      let isWhole = count >= 18
      #expect(
        probe(body)
          == ProbeMessage(
            number: value(0..<8), tieBreaker: isWhole ? value(8..<16) : nil, rank: isWhole ? body[16] : 255,
            isUsed: isWhole ? body[17] % 2 == 1 : true, takesAggregates: isWhole && body[17] / 2 % 2 == 1))
      var seen: Endpoint?
      if count >= 27, body[8] == 4 || body[8] == 6 {
        let address =
          body[8] == 4
          ? IPAddress(v4: UInt32(value(11..<15))) : IPAddress(v6High: value(11..<19), low: value(19..<27))
        seen = Endpoint(address: address, port: UInt16(value(9..<11)))
      }
      let takes = seen != nil && count > 27 && body[27] / 2 % 2 == 1
      #expect(reply(body) == ProbeReply(number: value(0..<8), seen: seen, takesAggregates: takes))
    }
  }
}
