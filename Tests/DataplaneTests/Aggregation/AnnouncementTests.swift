import PacketIO
import Testing

@testable import Dataplane

/// How two ends tell each other that they take several packets in one.
@Suite struct AnnouncementTests {
  private func parse<T>(_ body: [UInt8], _ read: (PacketBytes) -> T) -> T {
    let pool = BufferPool(count: 1)
    let bytes = pool.bytes(pool.take()!).slice(0, body.count)
    bytes.copy(body, to: 0)
    return read(bytes)
  }

  @Test(arguments: [false, true]) func probesAndAnswersCarryIt(takes: Bool) {
    let probe = ProbeMessage(number: 7, tieBreaker: 9, rank: 1, isUsed: true, takesAggregates: takes)
    #expect(probe.body == be64(7) + be64(9) + [1, takes ? 3 : 1])
    #expect(parse(probe.body) { ProbeMessage($0) } == probe)
    let seen = Endpoint(address: IPAddress(v4: 0xC000_0201), port: 4500)
    let reply = ProbeReply(number: 7, seen: seen, takesAggregates: takes)
    #expect(reply.body.count == (takes ? 28 : 27))
    #expect(parse(reply.body) { ProbeReply($0) } == reply)
  }

  /// Those who do not know it say nothing of it, and read what they know.
  @Test func olderEndsAreUnderstood() {
    #expect(parse(be64(7)) { ProbeMessage($0) }?.takesAggregates == false)
    #expect(parse(be64(7)) { ProbeReply($0) }?.takesAggregates == false)
    let reply = ProbeReply(number: 7, seen: Endpoint(address: IPAddress(v4: 1), port: 2), takesAggregates: true)
    #expect(parse(Array(reply.body.prefix(27))) { ProbeReply($0) }?.seen == reply.seen)
  }
}
