import PacketIO

/// Datagrams that come in fragments, of which the first one passed. Later fragments follow it; where none is known,
/// they are refused. So no fragment passes that was not judged, at the price of those that overtake their first.
///
/// Four places for each hash; when they are taken, the datagram seen longest ago gives way.
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
  }

  /// Datagrams at most.
  static let capacity = 1024
  private static let ways = 4
  /// Hosts give up after 30 to 120 s (RFC 1122 §3.3.2, RFC 8200 §4.5).
  private static let lifetime = FlowClock.ticks(seconds: 60)

  private var entries = FixedArray<Entry?>(repeating: nil, count: capacity)
  private let hash: FlowHash

  init(hash: FlowHash) { self.hash = hash }

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
    var oldest = set
    for way in set..<set + FragmentTable.ways {
      guard let other = entries[way], other.key != entry.key else {
        oldest = way
        break
      }
      if let old = entries[oldest], entry.seen &- other.seen > entry.seen &- old.seen { oldest = way }
    }
    // Under the same key further back, there would be two.
    for way in set..<set + FragmentTable.ways where entries[way]?.key == entry.key { entries[way] = nil }
    entries[oldest] = entry
  }

  /// Refuses all that still comes of a datagram: a fragment lay over what was judged (RFC 5722).
  mutating func poison(_ place: Int) { entries[place]?.end = Int32.max }

  mutating func forget(_ key: Key) {
    let set = set(key)
    for way in set..<set + FragmentTable.ways where entries[way]?.key == key { entries[way] = nil }
  }

  mutating func removeAll() {
    for place in 0..<FragmentTable.capacity { entries[place] = nil }
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
