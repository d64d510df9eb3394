import PacketIO

/// Datagrams that come in fragments, of which the first one passed. Later fragments follow it; where none is known,
/// they are refused. So no fragment passes that was not judged, at the price of those that overtake their first.
///
/// A datagram whose last fragment has passed is kept, because others may still come, but is nobody's share any more.
///
/// Four places for each hash. When they are taken, one goes that is over; else a datagram of the peer that has most in the
/// whole table gives way, of several the one seen longest ago; where that is the peer of the new one, and it has nothing
/// there, the new one finds no place.
struct FragmentTable: ~Copyable {
  struct Key: BitwiseCopyable, Equatable {
    let source: IPAddress
    let destination: IPAddress
    let identification: UInt32
    /// IPv4 only: there it is part of what identifies a datagram (RFC 791 §3.2).
    let transport: UInt8
    let direction: TrafficDirection

    init(_ packet: InnerPacket, _ bytes: PacketBytes, _ header: FragmentHeader, _ direction: TrafficDirection) {
      source = packet.source(bytes)
      destination = packet.destination(bytes)
      identification = header.identification
      transport = packet.isV4 ? packet.transport : 0
      self.direction = direction
    }
  }

  struct Entry: BitwiseCopyable {
    var key: Key
    /// Bytes of the first fragment; what lies in front of it has been judged and may not be written over.
    var end: Int32
    /// In ticks of `FlowClock`.
    var seen: UInt32
    var version: UInt32
    var ground: FirewallGround
    /// The row of the peer at the other end; -1: nobody's.
    var peer: Int32
    /// The last fragment has passed.
    fileprivate(set) var isOver = false

    fileprivate var holder: Holder { Holder(row: peer) }
  }

  /// Datagrams at most.
  static let capacity = 1024
  private static let ways = 4
  /// Hosts give up after 30 to 120 s (RFC 1122 §3.3.2, RFC 8200 §4.5).
  private static let lifetime = FlowClock.ticks(seconds: 60)

  private var entries = FixedArray<Entry?>(repeating: nil, count: capacity)
  private let hash: FlowHash
  private var held = Shares(.fragments, capacity: capacity)

  init(hash: FlowHash) { self.hash = hash }

  /// Who has how many datagrams.
  borrowing func shares() -> ShareReport { held.report() }

  borrowing func find(_ key: Key, ticks: UInt32) -> Int? {
    let set = set(key)
    for way in set..<set + FragmentTable.ways {
      if let entry = entries[way], entry.key == key, ticks &- entry.seen <= FragmentTable.lifetime { return way }
    }
    return nil
  }

  borrowing func entry(_ place: Int) -> Entry? { entries[place] }

  /// Keeps the datagram whose first fragment passed, or another one under the same numbers (RFC 4963).
  mutating func remember(_ entry: Entry) {
    let set = set(entry.key)
    forget(entry.key)
    guard let way = (set..<set + FragmentTable.ways).first(where: { entries[$0] == nil }) ?? makeRoom(for: entry, set)
    else { return }
    entries[way] = entry
    held.add(to: entry.holder)
  }

  /// Has one of a full set go. Nil: it is the new one that gives way.
  private mutating func makeRoom(for new: Entry, _ set: Int) -> Int? {
    for way in set..<set + FragmentTable.ways {
      if let old = entries[way], old.isOver || new.seen &- old.seen > FragmentTable.lifetime {
        clear(way)
        return way
      }
    }
    var (loser, most) = (-1, held.held(by: new.holder))
    for way in set..<set + FragmentTable.ways {
      guard let old = entries[way], case let has = held.held(by: old.holder), has >= most else { continue }
      if has == most, loser >= 0, let other = entries[loser], new.seen &- other.seen >= new.seen &- old.seen {
        continue
      }
      (loser, most) = (way, has)
    }
    guard loser >= 0, let old = entries[loser] else {
      held.refuse(new.holder)
      return nil
    }
    held.refuse(old.holder)
    clear(loser)
    return loser
  }

  private mutating func clear(_ place: Int) {
    if let old = entries[place], !old.isOver { held.give(from: old.holder) }
    entries[place] = nil
  }

  /// The last fragment of a datagram has passed.
  mutating func finish(_ key: Key) {
    let set = set(key)
    for way in set..<set + FragmentTable.ways {
      guard let entry = entries[way], entry.key == key, !entry.isOver else { continue }
      held.give(from: entry.holder)
      entries[way]?.isOver = true
    }
  }

  /// Refuses all that still comes of a datagram: a fragment lay over what was judged (RFC 5722).
  mutating func poison(_ place: Int) { entries[place]?.end = Int32.max }

  mutating func forget(_ key: Key) {
    let set = set(key)
    for way in set..<set + FragmentTable.ways where entries[way]?.key == key { clear(way) }
  }

  mutating func removeAll() {
    for place in 0..<FragmentTable.capacity { clear(place) }
  }

  private borrowing func set(_ key: Key) -> Int {
    let identification = key.identification ^ UInt32(key.direction.rawValue) << 31
    let flow = FlowKey(
      local: key.source, remote: key.destination, transport: key.transport,
      localPort: UInt16(truncatingIfNeeded: identification >> 16),
      remotePort: UInt16(truncatingIfNeeded: identification))
    return Int(hash.hash(flow)) & (FragmentTable.capacity / FragmentTable.ways - 1) * FragmentTable.ways
  }
}
