import Glibc
import PacketIO
import Testing

@testable import Relay
@testable import Transports

/// What waits for gateways' streams.
@Suite struct GatewayStreamTests {
  /// A receiver inside TLS takes a little at a time, of much that was sealed at once: whoever takes something is not stuck.
  @Test func aSlowReaderIsNotStuck() throws {
    var ends: [Int32] = [-1, -1]
    #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue), 0, &ends) == 0)
    for end in ends {
      var size: Int32 = 4096
      setsockopt(end, SOL_SOCKET, SO_SNDBUF, &size, 4)
    }
    var table = StreamTable(
      capacity: 1, limits: .init(unauthenticated: 1, perOrigin: 1, evictsWithinOrigin: false), dials: false,
      encryption: StreamEncryption(server: try TLSContext(showing: nil), handshakes: 8, webServer: nil))
    let accepted = table.accepted(
      ends[0], from: HairpinLab.endpoint(), deadline: MonotonicTime(nanoseconds: 1 << 60))
    let place = try #require(accepted)
    let guest = try EncryptedGuest(at: ends[1])
    let pool = BufferPool(count: 1)
    let bytes = pool.bytes(try #require(pool.take()))
    for _ in 0..<100 where table[place].state != .open {
      guest.goOn()
      _ = table.receive(place, into: bytes.slice(0, 1000))
    }
    let isOpen = guest.isOpen && table[place].state == .open
    try #require(isOpen)
    var now = MonotonicTime(nanoseconds: 1 << 40)
    var streams = GatewayStreams()
    streams.begin(place, .tls, now: now)
    while streams.waiting < 100_000 { streams.stage(records: bytes.slice(0, 60_000), to: place, &table, now: now) }
    var rounds = 0
    while streams.waiting > 0 {
      rounds += 1
      try #require(rounds < 1000)
      // Half a second without anything taken is too long.
      now = now.adding(nanoseconds: 400_000_000)
      let mayTake = streams.mayTake(1, place, now: now)
      #expect(mayTake, "round \(rounds)")
      guest.read(1 << 16)
      streams.push(place, &table, now: now)
    }
    #expect(rounds > 10)
    table.release(place)
  }
}
