import PacketIO
import Testing
import TransportSupport

@testable import Transports

/// Streams that are handed on to a web server: how many there may be, and for how long.
@Suite struct WebHandOnTests {
  private static func networks(_ count: Int) -> [IPAddress] {
    (0..<count).map { IPAddress(v6High: 0x2001_0DB8_0000_0100 + UInt64($0), low: 1) }
  }

  @Test func nobodyHasAll() throws {
    let server = UnixListener()
    var ring = try Ring(entries: 64)
    ring.activate()
    var table = StreamTable(
      capacity: 1000, limits: .init(unauthenticated: 1000, perOrigin: 1000, evictsWithinOrigin: false), dials: false)
    var handOn = WebHandOn(server.path, owner: 1)
    var now = MonotonicTime(nanoseconds: 1 << 40)
    // One address, one site of IPv6 with many networks, and one address each.
    let crowds = [
      [IPAddress](repeating: IPAddress(v4: 1), count: 100), Self.networks(200), (2...100).map { IPAddress(v4: $0) },
    ]
    var begun: [Int] = []
    for crowd in crowds {
      begun.append(0)
      for address in crowd {
        now = now.adding(nanoseconds: 1_000_000)
        server.acceptAll()
        let stream = table.accepted(
          -1, from: Endpoint(address: address, port: 1), deadline: MonotonicTime(nanoseconds: 1 << 60))
        let place = try #require(stream)
        if handOn.begin(place, from: address, of: table.capacity, ring: &ring, now: now) {
          begun[begun.count - 1] += 1
        } else if begun.count == 3 {
          break
        }
      }
    }
    #expect(begun == [64, 128, 64])
    // One more was not taken: of the one that has most, the one that was silent for longest makes room.
    var gone = handOn.sweep(table, ring: &ring, now: now)
    #expect(gone == [0])
    handOn.end(0, ring: &ring)
    let isTaken = handOn.begin(0, from: IPAddress(v4: 1 << 20), of: table.capacity, ring: &ring, now: now)
    gone = handOn.sweep(table, ring: &ring, now: now)
    #expect(isTaken && gone.isEmpty)
    // Two minutes in which neither side says anything.
    gone = handOn.sweep(table, ring: &ring, now: now.adding(nanoseconds: 121_000_000_000))
    #expect(gone.count == 256)
    for place in gone { handOn.end(place, ring: &ring) }
    ring.submitAndWait(nanoseconds: 0)
  }
}
