import Glibc

/// Why a packet was too large, as the error queue of a UDP socket has it (IP_RECVERR of ip(7), IPV6_RECVERR of ipv6(7)):
/// this machine's own link, or a router by ICMP (RFC 1191 §4, RFC 4443 §3.2), which anybody may have invented.
package struct SizeRefusal: Equatable {
  /// Where the packet was sent to; the port is 0 where the kernel does not say.
  package let endpoint: Endpoint
  /// Bytes of the largest IP packet that would not be refused.
  package let size: Int
  /// Of a router's message, the sealed packet that it is about; nil: it is this machine that refuses.
  package let quote: QuotedPacket?

  /// Origins of struct sock_extended_err (Linux include/uapi/linux/errqueue.h).
  private static let local: UInt8 = 1
  private static let icmp: UInt8 = 2
  private static let icmpV6: UInt8 = 3
  private static let controlHeader = 16
  private static let extendedError = 16

  /// - Parameters:
  ///   - name: where the packet was sent to, a `sockaddr`.
  ///   - control: the control data that came with it.
  ///   - payload: what is quoted of the datagram.
  /// - Returns: nil for errors of other kinds, and for messages that quote too little to be judged.
  package init?(name: PacketBytes, control: PacketBytes, payload: PacketBytes) {
    guard let endpoint = SocketName.endpoint(name), let error = SizeRefusal.error(control),
      error.loadNative(0, as: Int32.self) == EMSGSIZE
    else { return nil }
    let (origin, type, code) = (error[4], error[5], error[6])
    switch origin {
    case SizeRefusal.local: quote = nil
    case SizeRefusal.icmp where type == 3 && code == 4, SizeRefusal.icmpV6 where type == 2 && code == 0:
      guard payload.count >= 8, payload.load32(0) != 0 else { return nil }
      quote = QuotedPacket(spi: payload.load32(0), sequence: payload.load32(4))
    default: return nil
    }
    size = Int(truncatingIfNeeded: error.loadNative(8, as: UInt32.self))
    self.endpoint = endpoint
  }

  /// The `struct sock_extended_err` among the control messages.
  private static func error(_ control: PacketBytes) -> PacketBytes? {
    var offset = 0
    while offset + controlHeader < control.count {
      let length = Int(truncatingIfNeeded: control.loadNative(offset, as: UInt64.self))
      guard length > controlHeader, length <= control.count - offset else { return nil }
      let level = Int(truncatingIfNeeded: control.loadNative(offset + 8, as: Int32.self))
      let type = control.loadNative(offset + 12, as: Int32.self)
      let isError =
        (level == IPPROTO_IP && type == IP_RECVERR) || (level == IPPROTO_IPV6 && type == IPV6_RECVERR)
      if isError, length >= controlHeader + extendedError {
        return control.slice(offset + controlHeader, extendedError)
      }
      offset += (length + 7) & ~7
    }
    return nil
  }
}
