package import PacketIO

/// The AGGFRAG payload of an ESP packet with next header 144 (RFC 9347 §6.1), taken apart block by block:
/// ```
/// sub-type (1) | reserved (1) | block offset (2) | data blocks …
/// ```
/// A data block (§6.1.3) is an IPv4 or IPv6 packet, known by its version and as long as its own header says, or padding
/// up to the end, known by a version of 0. The last packet may go on in the next ESP packet; the block offset says how
/// many bytes in front of the first block belong to a packet that began earlier. Offsets are relative to the payload.
package struct AggregatePayload {
  /// Sub-type 0 (§6.1.1).
  package static let headerLength = 4
  /// Sub-type 1 has round-trip times and loss behind the same first four bytes (§6.1.2). They serve a sender that
  /// adapts its rate; here they are passed over.
  package static let congestionHeaderLength = 24
  /// Bytes of the smallest block that is no padding: an IPv4 packet that is nothing but its header (§6.1.3.1).
  package static let leastBlock = 20

  package enum Block: Equatable {
    /// A whole packet.
    case packet(offset: Int, length: Int)
    /// The first bytes of a packet that goes on in the next ESP packet. So few may be here that its length is unknown.
    case beginning(offset: Int, length: Int)
    case padding
    case malformed
  }

  private let bytes: PacketBytes
  private var next: Int
  /// Bytes that belong to a packet that began in an earlier ESP packet: where they are and how many.
  package let continuation: (offset: Int, length: Int)
  /// That packet does not end here either.
  package let continues: Bool

  /// - Parameter bytes: what the ESP packet brought, without padding and trailer.
  /// - Returns: nil when the header is cut off, or the sub-type is unknown.
  package init?(_ bytes: PacketBytes) {
    guard bytes.count >= AggregatePayload.headerLength else { return nil }
    let header: Int
    switch bytes[0] {
    case 0: header = AggregatePayload.headerLength
    case 1: header = AggregatePayload.congestionHeaderLength
    default: return nil
    }
    guard bytes.count >= header else { return nil }
    let blockOffset = Int(bytes.load16(2))
    let room = bytes.count &- header
    self.bytes = bytes
    continuation = (header, min(blockOffset, room))
    continues = blockOffset > room
    next = header &+ min(blockOffset, room)
  }

  /// Nothing but padding, with which a sender hides that it has nothing to say. It may stand between two fragments of a
  /// packet (§2.2.3). So may, as it is taken here, a payload without any block (§2.2.4).
  package var isPadding: Bool {
    continuation.length == 0 && !continues && (next == bytes.count || bytes[next] >> 4 == 0)
  }

  /// The next data block; nil at the end. Nothing follows `beginning`, `padding` and `malformed`.
  @inline(__always)
  package mutating func nextBlock() -> Block? {
    let offset = next
    let room = bytes.count &- offset
    guard room > 0 else { return nil }
    next = bytes.count
    let length: Int
    switch bytes[offset] >> 4 {
    case 4:
      guard room >= 4 else { return .beginning(offset: offset, length: room) }
      length = Int(bytes.load16(offset &+ 2))
      guard length >= AggregatePayload.leastBlock else { return .malformed }
    case 6:
      guard room >= 6 else { return .beginning(offset: offset, length: room) }
      length = 40 &+ Int(bytes.load16(offset &+ 4))
    case 0: return .padding
    default: return .malformed
    }
    guard length <= room else { return .beginning(offset: offset, length: room) }
    next = offset &+ length
    return .packet(offset: offset, length: length)
  }

  /// The header of a payload whose first block begins at once.
  static func writeHeader(to bytes: PacketBytes) { bytes.store32(0, 0) }
}
