import PacketIO

/// Explicit congestion notification and traffic class across the tunnel (RFC 6040, RFC 2983).
enum Congestion {
  private static let mask: UInt8 = 3
  private static let ect1: UInt8 = 1
  private static let ect0: UInt8 = 2
  private static let experienced: UInt8 = 3

  /// The traffic class (TOS) byte of an inner packet.
  @inline(__always)
  static func trafficClass(_ bytes: PacketBytes, isV4: Bool) -> UInt8 {
    isV4 ? bytes[1] : UInt8(truncatingIfNeeded: bytes.load16(0) >> 4)
  }

  /// The outer traffic class at tunnel entry: ECN is copied (RFC 6040 §4.1), the code point where the association
  /// says so.
  @inline(__always)
  static func outer(_ inner: UInt8, copyDSCP: Bool) -> UInt8 { copyDSCP ? inner : inner & mask }

  /// Whether an outer traffic class can change inner packets at all.
  @inline(__always)
  static func matters(_ outer: UInt8) -> Bool { outer & 1 != 0 }

  /// Combines the outer mark with an inner packet at tunnel exit (RFC 6040 §4.2). False: the packet must be dropped,
  /// because its flow knows no ECN and would never learn of the congestion.
  static func decapsulate(_ outer: UInt8, _ bytes: PacketBytes, isV4: Bool) -> Bool {
    let old = trafficClass(bytes, isV4: isV4)
    let inner = old & mask
    var new = inner
    if outer & mask == experienced {
      guard inner != 0 else { return false }
      new = experienced
    } else if outer & mask == ect1, inner == ect0 {
      new = ect1
    }
    guard new != inner else { return true }
    let changed = old & ~mask | new
    if isV4 {
      let word = bytes.load16(0)
      bytes[1] = changed
      bytes.store16(Checksum.updated(bytes.load16(10), from: word, to: bytes.load16(0)), 10)
    } else {
      bytes.store16(bytes.load16(0) & 0xF00F | UInt16(changed) << 4, 0)
    }
    return true
  }
}
