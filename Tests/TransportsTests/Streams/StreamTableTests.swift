import PacketIO
import TestSupport
import Testing

@testable import Transports

/// Who makes room among streams that are not authenticated.
@Suite struct StreamTableTests {
  private static func endpoint(_ host: UInt32, port: UInt16) -> Endpoint {
    Endpoint(address: IPAddress(v4: 0x0A00_0000 | host), port: port)
  }

  private static func table(_ unauthenticated: Int, perOrigin: Int, evicts: Bool = true) -> StreamTable {
    StreamTable(
      capacity: unauthenticated + 8,
      limits: .init(unauthenticated: unauthenticated, perOrigin: perOrigin, evictsWithinOrigin: evicts), dials: true)
  }

  private static func add(_ streams: inout StreamTable, _ host: UInt32, _ port: UInt16, at time: UInt64 = 0) -> Int? {
    let sender = endpoint(host, port: port)
    switch streams.room(for: sender.address) {
    case .free: break
    case .evict(let place): end(&streams, place)
    case .refused: return nil
    }
    return streams.accepted(-1, from: sender, deadline: MonotonicTime(nanoseconds: time))
  }

  private static func end(_ streams: inout StreamTable, _ place: Int) {
    streams.beginClosing(place)
    streams.release(place)
  }

  private static func isOpen(_ streams: borrowing StreamTable, _ place: Int) -> Bool { streams[place].state == .open }

  /// One address opens thousands of streams; those of others, and those that have presented a ticket, stay.
  @Test func oneAddressShutsNobodyOut() throws {
    var streams = Self.table(16, perOrigin: 4)
    let first = Self.add(&streams, 1, 1)
    let gateway = try #require(first)
    for port in 0..<3000 as Range<UInt16> { _ = Self.add(&streams, 2, port) }
    #expect(Self.isOpen(streams, gateway) && streams[gateway].remote.port == 1 && streams.unauthenticated == 5)
    // Many addresses: whoever has most loses first, and who has presented something is not among them.
    streams.present(gateway)
    for host in 3..<2000 as Range<UInt32> { _ = Self.add(&streams, host, 7) }
    #expect(Self.isOpen(streams, gateway) && streams[gateway].remote.port == 1 && streams.unauthenticated == 16)
  }

  /// From one origin no more than its share count as having presented something.
  @Test func havingPresentedATicketIsLimitedToo() {
    var streams = Self.table(8, perOrigin: 2)
    for port in 0..<5 as Range<UInt16> {
      if let place = Self.add(&streams, 1, port) { streams.present(place) }
    }
    let presented = (0..<streams.used).filter { Self.isOpen(streams, $0) && streams[$0].standing == .presented }.count
    #expect(presented == 2 && streams.unauthenticated == 4)
  }

  /// A listener that refuses within an origin keeps those that are there.
  @Test func anOriginThatHasItsShareMayBeRefused() throws {
    var streams = Self.table(8, perOrigin: 2, evicts: false)
    let places = [
      Self.add(&streams, 1, 1), Self.add(&streams, 1, 2), Self.add(&streams, 1, 3), Self.add(&streams, 2, 1),
    ]
    #expect(places[0] != nil && places[1] != nil && places[2] == nil && places[3] != nil)
    streams.authenticate(try #require(places[0]))
    let again = Self.add(&streams, 1, 4)
    #expect(again != nil && streams.unauthenticated == 3)
  }

  /// A dialled stream is a partner's from the beginning, and makes no room for anybody.
  @Test func diallingMakesAPartner() throws {
    var streams = Self.table(4, perOrigin: 4)
    let now = MonotonicTime(nanoseconds: 9)
    let dialled = streams.dialled(-1, to: Self.endpoint(1, port: 1), destination: 3, deadline: now)
    let place = try #require(dialled)
    streams[place].state = .open
    #expect(!streams[place].isUnauthenticated && streams.unauthenticated == 0 && streams.expired(now) == nil)
  }

  /// Against a list, searched each time: who is there, whose time is over, who is the oldest.
  @Test(arguments: 0..<20 as Range<UInt64>) func theTableAgreesWithASlowOne(seed: UInt64) {
    struct Slow {
      var place: Int
      var host: UInt32
      var standing = Stream.Standing.unauthenticated
      var deadline: UInt64
    }
    var random = SeededNumbers(seed: seed)
    var streams = Self.table(12, perOrigin: 3)
    var slow: [Slow] = []
    var time: UInt64 = 0
    for _ in 0..<3000 {
      time += UInt64(random.below(3))
      switch random.below(6) {
      case 0...2:
        let host = UInt32(random.below(8))
        let counts = { (standing: Stream.Standing) in
          Dictionary(grouping: slow.filter { $0.standing == standing }, by: \.host).mapValues(\.count)
        }
        var victim: Int?
        if counts(.unauthenticated)[host] ?? 0 >= 3 {
          victim = slow.firstIndex { $0.host == host && $0.standing == .unauthenticated }
        } else if slow.count >= 12 {
          let standing: Stream.Standing = counts(.unauthenticated).isEmpty ? .presented : .unauthenticated
          let most = counts(standing).values.max()
          victim = slow.firstIndex { $0.standing == standing && counts(standing)[$0.host] == most }
        }
        let expected: StreamTable.Room = victim.map { .evict(slow[$0].place) } ?? .free
        #expect(streams.room(for: Self.endpoint(host, port: 1).address) == expected)
        if let victim { slow.remove(at: victim) }
        if let place = Self.add(&streams, host, 1, at: time + 20) {
          slow.append(Slow(place: place, host: host, deadline: time + 20))
        }
      case 3:
        guard let index = slow.indices.randomElement(using: &random) else { continue }
        let host = slow[index].host
        let share = slow.filter { $0.host == host && $0.standing == .presented }.count
        if slow[index].standing == .unauthenticated, share < 3 { slow[index].standing = .presented }
        streams.present(slow[index].place)
      case 4:
        guard let index = slow.indices.randomElement(using: &random) else { continue }
        let place = slow.remove(at: index).place
        if Bool.random(using: &random) { streams.authenticate(place) }
        Self.end(&streams, place)
      default:
        while let place = streams.expired(MonotonicTime(nanoseconds: time)) {
          #expect(slow.first?.place == place && slow[0].deadline <= time)
          slow.removeFirst()
          Self.end(&streams, place)
        }
        #expect(slow.allSatisfy { $0.deadline > time })
      }
      #expect(streams.unauthenticated == slow.count && streams.allUnauthenticated == slow.map(\.place))
    }
  }

  /// A customer who has a /56 has 256 times a /64, and still one share.
  @Test func aSiteOfIPv6IsBounded() {
    var streams = Self.table(256, perOrigin: 4)
    for network in 0..<256 as Range<UInt64> {
      let sender = Endpoint(address: IPAddress(v6High: 0x2001_0DB8_0000_0100 | network, low: 1), port: 9)
      if case .evict(let place) = streams.room(for: sender.address) { Self.end(&streams, place) }
      _ = streams.accepted(-1, from: sender, deadline: MonotonicTime(nanoseconds: 1))
    }
    #expect(streams.unauthenticated == 16)
  }

  /// A peer that opens stream after stream loses its oldest, and nobody else loses any.
  @Test func aPeerHasItsStreamsAndNoMore() throws {
    var streams = StreamTable(
      capacity: 64, limits: .init(unauthenticated: 16, perOrigin: 16, evictsWithinOrigin: false, perPeer: 4),
      dials: true)
    let first = Self.add(&streams, 9, 1)
    let carol = try #require(first)
    let none = streams.authenticate(carol, as: .peer(2))
    #expect(none == nil)
    var gone: [UInt64] = []
    for port in 0..<100 as Range<UInt16> {
      let place = try #require(Self.add(&streams, 1, port))
      guard let oldest = streams.authenticate(place, as: .peer(1)) else { continue }
      gone.append(streams[oldest].number)
      Self.end(&streams, oldest)
    }
    #expect(Self.isOpen(streams, carol) && streams.count == 5 && gone.count == 96 && gone == gone.sorted())
    #expect(streams.shares().holders.first { $0.holder == .peer(1) }?.refused == 96)
  }

  /// When all places are taken, dialling takes one of the peer that has most, and strangers take none.
  @Test func diallingFindsAPlace() throws {
    var streams = StreamTable(
      capacity: 16, limits: .init(unauthenticated: 16, perOrigin: 16, evictsWithinOrigin: false, perPeer: 12),
      dials: true)
    for port in 0..<16 as Range<UInt16> {
      let place = try #require(Self.add(&streams, 1, port))
      _ = streams.authenticate(place, as: .peer(port < 11 ? 1 : UInt32(port)))
    }
    let stranger = Self.add(&streams, 5, 5)
    #expect(stranger == nil)
    let place = streams.evictedByDialling(Self.endpoint(7, port: 7))
    let evicted = try #require(place)
    #expect(streams[evicted].holder == .peer(1) && streams[evicted].number == 1)
  }
}
