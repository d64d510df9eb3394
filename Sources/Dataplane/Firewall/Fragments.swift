import PacketIO

/// Where a fragment belongs (RFC 791 §3.2, RFC 8200 §4.5).
struct FragmentHeader: BitwiseCopyable {
  let identification: UInt32
  /// Bytes of the datagram's fragmentable part in front of this one's.
  let offset: Int
  /// Bytes of it that this one carries.
  let length: Int
  let hasMore: Bool

  /// Bytes of an IPv6 fragment header.
  static let lengthV6 = 8

  /// Nil when there is no fragment header.
  init?(_ packet: InnerPacket, _ bytes: PacketBytes) {
    if packet.isV4 {
      identification = UInt32(bytes.load16(4))
      let field = bytes.load16(6)
      offset = Int(field & 0x1FFF) * 8
      hasMore = field & 0x2000 != 0
      length = packet.length - packet.transportOffset
    } else {
      guard let place = HeaderChain.find(IPProtocol.fragment, bytes, end: packet.transportOffset) else { return nil }
      let field = bytes.load16(place + 2)
      identification = bytes.load32(place + 4)
      offset = Int(field & 0xFFF8)
      hasMore = field & 1 != 0
      length = packet.length - place - 8
    }
  }

  /// A whole packet that happens to have a fragment header (RFC 6946).
  var isAtomic: Bool { offset == 0 && !hasMore }
}

/// The IPv6 extension headers of a packet that was parsed, and the options of an IPv4 header.
enum HeaderChain {
  /// Where the first header of that type begins.
  static func find(_ type: UInt8, _ bytes: PacketBytes, end: Int) -> Int? {
    var next = bytes[6]
    var place = 40
    while place + 8 <= end {
      if next == type { return place }
      let length = next == IPProtocol.fragment ? 8 : 8 + Int(bytes[place + 1]) * 8
      next = bytes[place]
      place += length
    }
    return nil
  }

  /// Whether the sender chose the way: IPv4 source routes (RFC 7126 §4.3, §4.4) and IPv6 routing headers of type 0
  /// (RFC 5095, RFC 6092 REC-4), by which a packet for an allowed host goes on to another.
  static func isSourceRouted(_ packet: InnerPacket, _ bytes: PacketBytes) -> Bool {
    guard packet.isV4 else {
      guard let place = find(IPProtocol.routing, bytes, end: packet.transportOffset) else { return false }
      return bytes[place + 2] == 0
    }
    var option = 20
    while option < packet.transportOffset {
      switch bytes[option] {
      case 0: return false
      case 1: option += 1
      case 131, 137: return true
      default:
        guard option + 1 < packet.transportOffset, bytes[option + 1] >= 2 else { return false }
        option += Int(bytes[option + 1])
      }
    }
    return false
  }
}

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
