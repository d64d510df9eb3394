import PacketIO

extension IPAddress {
  /// Whether a single host can have the address and send from it: it is neither unspecified, loopback, multicast nor
  /// broadcast (RFC 1122 §3.2.1.3, RFC 4291 §2.7), nor an IPv4 address written as an IPv6 one (RFC 4291 §2.5.5.2).
  @inline(__always)
  package var isHost: Bool {
    if isV4 {
      let first = v4 &>> 24
      return first != 0 && first != 127 && first &>> 4 != 0xE && v4 != 0xFFFF_FFFF
    }
    return high != 0 ? high &>> 56 != 0xFF : low &>> 32 != 0xFFFF && low > 1
  }

  /// Whether it lies in `Prefix.linkLocal`.
  @inline(__always) var isLinkLocalV6: Bool { !isV4 && high &>> 54 == 0xFE80 &>> 6 }
}

extension Prefix {
  /// IPv6's addresses of one link (RFC 4291 §2.5.6).
  static let linkLocal = Prefix(IPAddress(v6High: 0xFE80 << 48, low: 0), length: 10)
  /// Those and IPv4's (RFC 3927): who has a wider prefix does not have them.
  static let linkLocals = [Prefix(IPAddress(v4: 0xA9FE_0000), length: 16), linkLocal]
}
