import PacketIO

/// The chain of IPv6 extension headers (RFC 8200 §4), walked as far as the transport header.
struct ExtensionHeaders {
  var end = 40
  var next: UInt8
  /// Where the fragment header begins.
  var fragment: Int?
  var isFirstFragment = true
  /// There is a routing header of type 0 (RFC 5095), wherever in the chain.
  var hasSourceRoute = false

  var isFragment: Bool { fragment != nil }

  /// Nil when a header reaches beyond the packet, the chain is longer than any honest one, or there are two fragment
  /// headers: whoever judges by one of them must not be misled about the other (RFC 8200 §4.1 has each once).
  init?(_ bytes: PacketBytes) {
    next = bytes[6]
    for _ in 0..<8 {
      switch next {
      case IPProtocol.hopByHop, IPProtocol.routing, IPProtocol.destinationOptions:
        guard end &+ 8 <= bytes.count else { return nil }
        if next == IPProtocol.routing, bytes[end &+ 2] == 0 { hasSourceRoute = true }
        next = bytes[end]
        end &+= 8 &+ Int(bytes[end &+ 1]) &* 8
      case IPProtocol.fragment:
        guard end &+ 8 <= bytes.count, fragment == nil else { return nil }
        next = bytes[end]
        fragment = end
        isFirstFragment = bytes.load16(end &+ 2) & 0xFFF8 == 0
        end &+= 8
        if !isFirstFragment { return }
      default:
        guard end <= bytes.count else { return nil }
        return
      }
      guard end <= bytes.count else { return nil }
    }
    return nil
  }
}

/// Packets whose sender chose the way, by which one for an allowed host goes on to another.
enum SourceRoute {
  /// IPv4 source routes (RFC 7126 §4.3, §4.4) and IPv6 routing headers of type 0 (RFC 5095, RFC 6092 REC-4), in
  /// fragments too.
  static func isPresent(_ packet: InnerPacket, _ bytes: PacketBytes) -> Bool {
    guard packet.isV4 else { return ExtensionHeaders(bytes)?.hasSourceRoute ?? false }
    var option = 20
    while option < packet.transportOffset {
      switch bytes[option] {
      case 0: return false
      case 1: option += 1
      case 131, 137: return true
      default:
        guard option + 1 < packet.transportOffset, bytes[option + 1] >= 2 else { return false }
        option += Int(bytes[option + 1])
      }
    }
    return false
  }
}
