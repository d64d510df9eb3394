import PacketIO
import Testing

@testable import Relay

/// Who makes room among streams that have not proved anything.
@Suite struct UnprovenStreamTests {
  private static func endpoint(_ host: UInt32, port: UInt16) -> Endpoint {
    Endpoint(address: IPAddress(v4: 0x0A00_0000 | host), port: port)
  }

  private static func add(_ streams: inout UnprovenStreams, _ host: UInt32, _ port: UInt16) -> Int? {
    let sender = endpoint(host, port: port)
    if let victim = streams.victim(for: sender.address) { streams.remove(victim) }
    return streams.add(9, .control(listen: 0), sender, deadline: MonotonicTime(nanoseconds: 0))
  }

  /// One address opens thousands of streams; those of others, and those that have shown a ticket, stay.
  @Test func oneAddressShutsNobodyOut() throws {
    var streams = UnprovenStreams(capacity: 16, perOrigin: 4)
    let first = Self.add(&streams, 1, 1)
    let gateway = try #require(first)
    for port in 0..<3000 as Range<UInt16> { _ = Self.add(&streams, 2, port) }
    #expect(streams.isOpen(gateway) && streams[gateway].sender.port == 1 && streams.count == 5)
    // Many addresses: whoever has most loses first, and who has shown something is not among them.
    streams.markShown(gateway)
    for host in 3..<2000 as Range<UInt32> { _ = Self.add(&streams, host, 7) }
    #expect(streams.isOpen(gateway) && streams[gateway].sender.port == 1 && streams.count == 16)
  }

  /// From one origin no more than its share count as having shown something.
  @Test func havingShownATicketIsLimitedToo() {
    var streams = UnprovenStreams(capacity: 8, perOrigin: 2)
    for port in 0..<5 as Range<UInt16> {
      if let place = Self.add(&streams, 1, port) { streams.markShown(place) }
    }
    let shown = (0..<8).filter { streams.isOpen($0) && streams[$0].hasShown }.count
    #expect(shown == 2 && streams.count == 4)
  }
}
