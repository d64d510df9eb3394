import Glibc

/// By which of this machine's addresses a datagram is to leave, as CMSG_SPACE lays it out: `struct in_pktinfo` or
/// `struct in6_pktinfo` (RFC 3542 §6.2).
struct SourceControl: BitwiseCopyable {
  private var length: UInt64
  private var level: Int32
  private var type: Int32
  /// An interface, none, and the IPv4 address; or the IPv6 address.
  private var words: (UInt32, UInt32, UInt32, UInt32)
  /// The interface of IPv6.
  private var scope: UInt64 = 0
  /// Bytes that are used.
  let space: Int

  init(_ source: IPAddress) {
    if source.isV4 {
      (length, space) = (28, 32)
      (level, type) = (Int32(IPPROTO_IP), IP_PKTINFO)
      words = (0, source.v4.bigEndian, 0, 0)
    } else {
      (length, space) = (36, 40)
      (level, type) = (Int32(IPPROTO_IPV6), IPV6_PKTINFO)
      words = (
        UInt32(truncatingIfNeeded: source.high >> 32).bigEndian, UInt32(truncatingIfNeeded: source.high).bigEndian,
        UInt32(truncatingIfNeeded: source.low >> 32).bigEndian, UInt32(truncatingIfNeeded: source.low).bigEndian
      )
    }
  }
}
