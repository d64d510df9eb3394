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
      guard let place = ExtensionHeaders(bytes)?.fragment else { return nil }
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
