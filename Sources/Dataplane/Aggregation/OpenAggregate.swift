import PacketIO

/// Small packets to one peer that will share an ESP packet: copied behind an AGGFRAG header as they come, sealed when
/// the next one does not join them, and at the latest at the end of the batch. A packet that is left alone is sealed
/// as it is, without the header.
///
/// Packets are not fragmented, which RFC 9347 lets a sender do without (§2.2.7): it would save the few bytes by which
/// they do not fill an ESP packet, and cost two packets for each that is lost.
struct OpenAggregate: BitwiseCopyable {
  /// Bytes of the payload begin here in `buffer`.
  static let start = BufferPool.headroom

  let buffer: BufferID
  let peer: Int32
  /// Packets in it; 0 when it was sealed, and may be begun anew.
  private(set) var count: Int32 = 0
  /// Bytes of the payload, its header among them.
  private(set) var length = Int32(AggregatePayload.headerLength)
  /// The first packet is IPv4.
  private var isV4 = false
  /// The same for all packets in it: one field of the outer header speaks for them all, and a mark on the path means
  /// them all (RFC 9347 §2.2.5, §3.1).
  private(set) var trafficClass: UInt8 = 0
  private(set) var path = Path.none
  /// Claimed with the first packet, so that what keeps it from being sealed comes to light while it can go alone.
  private(set) var sequence: UInt64 = 0
  /// Whose number that is: to be sealed under no other (invariant 1). Nil before the first packet.
  private(set) var association: StateReference<OutboundAssociation>?

  init(buffer: BufferID, peer: Int, pool: BufferPool) {
    self.buffer = buffer
    self.peer = Int32(truncatingIfNeeded: peer)
    AggregatePayload.writeHeader(to: pool.bytes(buffer).dropFirst(OpenAggregate.start))
  }

  /// Bytes of the largest packet that is gathered: of larger ones, the copy costs as much as is saved.
  private static let largestPacket = 1024

  /// Whether a packet is small enough: two of its size fit.
  @inline(__always)
  static func takes(_ length: Int, limit: Int) -> Bool {
    length <= OpenAggregate.largestPacket && AggregatePayload.headerLength &+ 2 &* length <= limit
  }

  @inline(__always)
  func hasRoom(for bytes: Int, trafficClass: UInt8, limit: Int) -> Bool {
    trafficClass == self.trafficClass && Int(length) &+ bytes <= limit
  }

  mutating func begin(
    _ association: StateReference<OutboundAssociation>, sequence: UInt64, isV4: Bool, trafficClass: UInt8, path: Path
  ) {
    self.association = association
    self.sequence = sequence
    self.isV4 = isV4
    self.trafficClass = trafficClass
    self.path = path
  }

  @inline(__always)
  mutating func append(_ packet: PacketBytes, pool: BufferPool) {
    pool.bytes(buffer).copy(packet, to: OpenAggregate.start &+ Int(length))
    length &+= Int32(truncatingIfNeeded: packet.count)
    count &+= 1
  }

  mutating func reset() {
    count = 0
    length = Int32(AggregatePayload.headerLength)
  }

  /// What is to be sealed: where it begins in the buffer, how long it is, and its next header.
  var content: (start: Int, length: Int, nextHeader: UInt8) {
    guard count == 1 else { return (OpenAggregate.start, Int(length), ESPPacket.aggregate) }
    return (
      OpenAggregate.start &+ AggregatePayload.headerLength, Int(length) &- AggregatePayload.headerLength,
      isV4 ? ESPPacket.ipv4 : ESPPacket.ipv6
    )
  }
}
