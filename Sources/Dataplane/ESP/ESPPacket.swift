import PacketIO

/// The layout of an ESP packet in tunnel mode (RFC 4303 §2).
enum ESPPacket {
  /// SPI and sequence number.
  static let headerLength = 8
  /// The IV of the combined-mode ciphers (RFC 4106 §3.1, RFC 7634 §2.1); absent where it is implicit (RFC 8750).
  static let ivLength = 8
  /// Pad length and next header.
  static let trailerLength = 2
  static let icvLength = AEAD.icvLength

  /// Next-header values (RFC 4303 §2.6).
  static let ipv4: UInt8 = 4
  static let ipv6: UInt8 = 41
  static let dummy: UInt8 = 59
  /// AGGFRAG (RFC 9347 §6.1).
  static let aggregate: UInt8 = 144

  /// Padding that ends the trailer on a 4-byte boundary (RFC 4303 §2.4).
  @inline(__always)
  static func padding(for innerLength: Int) -> Int { (2 &- innerLength) & 3 }

  /// Bytes of the sealed packet around an inner packet.
  @inline(__always)
  static func sealedLength(_ innerLength: Int, implicitIV: Bool) -> Int {
    headerLength &+ (implicitIV ? 0 : ivLength) &+ innerLength &+ padding(for: innerLength) &+ trailerLength
      &+ icvLength
  }

  /// Bytes of the largest inner packet whose sealed packet has at most `sealedLength` bytes.
  @inline(__always)
  static func largestInner(_ sealedLength: Int, implicitIV: Bool) -> Int {
    let room = sealedLength &- headerLength &- (implicitIV ? 0 : ivLength) &- icvLength
    return (room & ~3) &- trailerLength
  }
}
