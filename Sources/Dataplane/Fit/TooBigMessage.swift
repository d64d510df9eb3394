import PacketIO

/// Tells a sender inside that its packet does not fit the path: ICMP "fragmentation needed" (RFC 1191 §4) or ICMPv6
/// "packet too big" (RFC 4443 §3.2).
enum TooBigMessage {
  /// Bytes of the offending packet that are quoted (RFC 1812 §4.3.2.3; RFC 4443: up to the minimum MTU, of which
  /// this is plenty).
  private static let quoted = 548
  static let capacity = 40 + 8 + quoted

  /// Writes the message to `out`, which holds `capacity` bytes, and returns its length; nil when none may be sent:
  /// about a fragment other than the first, an ICMP error, or a packet from or to no single host
  /// (RFC 1122 §3.2.2, RFC 4443 §2.4 e).
  ///
  /// Its source is the address the packet was for. The device's own address would be right by the letter, but a
  /// kernel refuses packets that come in from itself.
  static func write(about packet: InnerPacket, _ bytes: PacketBytes, mtu: Int, to out: PacketBytes) -> Int? {
    guard packet.isFirstFragment, !isError(packet, bytes), !isGroup(packet.destination(bytes)),
      !isGroup(packet.source(bytes))
    else { return nil }
    let quote = bytes.slice(0, min(packet.length, quoted))
    return packet.isV4 ? writeV4(quote, mtu: mtu, to: out) : writeV6(quote, mtu: mtu, to: out)
  }

  private static func writeV4(_ quote: PacketBytes, mtu: Int, to out: PacketBytes) -> Int {
    let length = 20 + 8 + quote.count
    out.store16(0x4500, 0)
    out.store16(UInt16(length), 2)
    out.store32(0, 4)
    out[8] = 64
    out[9] = IPProtocol.icmp
    out.store32(quote.load32(16), 12)
    out.store32(quote.load32(12), 16)
    Checksum.setIPv4Header(out, length: 20)
    let message = out.slice(20, length - 20)
    // Destination unreachable, fragmentation needed.
    message.store32(0x0304_0000, 0)
    message.store32(UInt32(mtu), 4)
    message.copy(quote, to: 8)
    message.store16(Checksum.finish(Checksum.sum(message)), 2)
    return length
  }

  private static func writeV6(_ quote: PacketBytes, mtu: Int, to out: PacketBytes) -> Int {
    let length = 40 + 8 + quote.count
    out.store32(0x6000_0000, 0)
    out.store16(UInt16(length - 40), 4)
    out[6] = IPProtocol.icmpV6
    out[7] = 64
    out.copy(quote.slice(24, 16), to: 8)
    out.copy(quote.slice(8, 16), to: 24)
    let message = out.slice(40, length - 40)
    // Packet too big.
    message.store32(0x0200_0000, 0)
    message.store32(UInt32(mtu), 4)
    message.copy(quote, to: 8)
    let pseudo = Checksum.pseudoHeader(
      out, isV4: false, protocolNumber: IPProtocol.icmpV6, length: message.count)
    message.store16(Checksum.finish(Checksum.sum(message, pseudo)), 2)
    return length
  }

  private static func isError(_ packet: InnerPacket, _ bytes: PacketBytes) -> Bool {
    guard packet.transportOffset < packet.length else { return false }
    let type = bytes[packet.transportOffset]
    if packet.isV4 { return packet.transport == IPProtocol.icmp && [3, 4, 5, 11, 12].contains(type) }
    return packet.transport == IPProtocol.icmpV6 && type < 128
  }

  /// Multicast, broadcast, or no address at all.
  private static func isGroup(_ address: IPAddress) -> Bool {
    address.isV4
      ? address.v4 >> 28 >= 0xE || address.v4 == 0 : address.high >> 56 == 0xFF || (address.high | address.low) == 0
  }
}
