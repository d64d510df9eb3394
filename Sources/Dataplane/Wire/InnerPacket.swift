package import PacketIO

/// Protocol numbers (IANA) that the pipelines tell apart.
package enum IPProtocol {
  package static let hopByHop: UInt8 = 0
  package static let icmp: UInt8 = 1
  package static let tcp: UInt8 = 6
  package static let udp: UInt8 = 17
  package static let routing: UInt8 = 43
  package static let fragment: UInt8 = 44
  package static let icmpV6: UInt8 = 58
  package static let destinationOptions: UInt8 = 60
}

/// Where the parts of an IP packet lie. Parsing is the only check: whoever has a value may read its headers.
package struct InnerPacket: BitwiseCopyable {
  package let isV4: Bool
  /// Bytes of the packet by its own header; the memory may hold more behind it (RFC 4303 §2.7).
  package let length: Int
  /// First byte behind the IP header and IPv6 extension headers.
  package let transportOffset: Int
  /// The protocol found there. For a fragment other than the first, what the first one carries.
  package let transport: UInt8
  /// Part of a larger packet; `transportOffset` is then a transport header only when `isFirstFragment`.
  package let isFragment: Bool
  package let isFirstFragment: Bool

  /// Bytes that every link takes that carries IPv6 (RFC 8200 §5); no sender can be told to send less.
  static let leastMTUv6 = 1280

  /// Nil when the bytes are not a complete IPv4 or IPv6 packet.
  @inline(__always)
  package init?(_ bytes: PacketBytes) {
    guard bytes.count >= 20 else { return nil }
    let version = bytes[0] >> 4
    if version == 4 {
      let headerLength = Int(bytes[0] & 15) &* 4
      let total = Int(bytes.load16(2))
      guard headerLength >= 20, total >= headerLength, total <= bytes.count else { return nil }
      let fragmentation = bytes.load16(6) & 0x3FFF
      isV4 = true
      length = total
      transportOffset = headerLength
      transport = bytes[9]
      isFragment = fragmentation != 0
      isFirstFragment = fragmentation & 0x1FFF == 0
    } else if version == 6, bytes.count >= 40 {
      let total = 40 &+ Int(bytes.load16(4))
      guard total <= bytes.count else { return nil }
      let next = bytes[6]
      isV4 = false
      length = total
      if next == IPProtocol.tcp || next == IPProtocol.udp {
        transportOffset = 40
        transport = next
        isFragment = false
        isFirstFragment = true
      } else {
        guard let found = ExtensionHeaders(bytes.slice(0, total)) else { return nil }
        transportOffset = found.end
        transport = found.next
        isFragment = found.isFragment
        isFirstFragment = found.isFirstFragment
      }
    } else {
      return nil
    }
  }

  @inline(__always)
  package func source(_ bytes: PacketBytes) -> IPAddress {
    isV4
      ? IPAddress(v4: bytes.load32(12)) : IPAddress(v6High: bytes.load64(8), low: bytes.load64(16))
  }

  @inline(__always)
  package func destination(_ bytes: PacketBytes) -> IPAddress {
    isV4
      ? IPAddress(v4: bytes.load32(16)) : IPAddress(v6High: bytes.load64(24), low: bytes.load64(32))
  }
}
