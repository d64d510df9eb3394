/// By how much the one's-complement sum of some 16-bit words has grown: what an Internet checksum over them needs to
/// be right again (RFC 1624). Words are in host order.
package struct ChecksumDelta: BitwiseCopyable, Equatable, Sendable {
  /// Zero for no change; the other zero of one's complement, 0xFFFF, does not occur.
  private let value: UInt16

  package static let none = ChecksumDelta(0)

  /// A sum of words that came, less a sum of words that went, each in one's complement.
  @inline(__always)
  init(_ new: UInt16, replacing old: UInt16) { self.init(ChecksumDelta.add(new, ~old)) }

  /// As if a word of this value had been added.
  @inline(__always)
  init(_ value: UInt16) { self.value = value == 0xFFFF ? 0 : value }

  @inline(__always) var isNone: Bool { value == 0 }

  @inline(__always)
  static func + (a: ChecksumDelta, b: ChecksumDelta) -> ChecksumDelta { ChecksumDelta(add(a.value, b.value)) }

  @inline(__always)
  static prefix func - (a: ChecksumDelta) -> ChecksumDelta { ChecksumDelta(~a.value) }

  /// The checksum field's new value: HC' = ~(~HC + ~m + m') (RFC 1624 section 3, equation 3). What was wrong stays
  /// wrong by as much.
  @inline(__always)
  func applied(toChecksum checksum: UInt16) -> UInt16 {
    isNone ? checksum : ~ChecksumDelta.add(~checksum, value)
  }

  /// The same for a field that holds an uncomplemented sum: a partial checksum (virtio 1.2 section 5.1.6.2), or one
  /// word of an address that shall take the change up.
  @inline(__always)
  func applied(toSum sum: UInt16) -> UInt16 { isNone ? sum : ChecksumDelta.add(sum, value) }

  @inline(__always)
  static func add(_ a: UInt16, _ b: UInt16) -> UInt16 {
    let sum = UInt32(a) &+ UInt32(b)
    return UInt16(truncatingIfNeeded: (sum & 0xFFFF) &+ (sum >> 16))
  }
}
