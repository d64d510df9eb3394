import PacketIO

extension AddressRewriting {
  /// Translates the packet that an ICMP or ICMPv6 error quotes (RFC 792, RFC 4443 section 3): its addresses, its IPv4
  /// header checksum and, as far as they were quoted, its transport checksum; and the error's own checksum with them.
  ///
  /// The quoted packet went the other way, so its destination is treated as a source is, and its source as a
  /// destination (RFC 5508 section 4.2 has the same for address translators with ports).
  ///
  /// - Parameter bytes: the whole packet that carries the error, or its first fragment.
  /// - Returns: whether anything was changed. What is too short to have addresses is left as it is.
  func translateError(_ bytes: PacketBytes, _ packet: InnerPacket) -> Bool {
    let message = packet.transportOffset
    let quoted = message &+ 8
    guard quoted < bytes.count, packet.isV4 ? isError(bytes[message]) : isErrorV6(bytes[message]),
      let inner = QuotedPacket(bytes.dropFirst(quoted), isV4: packet.isV4)
    else { return false }
    let headerChecksum = packet.isV4 ? bytes.load16(quoted &+ 10) : 0
    let header = rewriteHeader(bytes, at: quoted, isV4: packet.isV4, isEmbedded: true)
    guard header.isChanged else { return false }

    // All of the quoted packet is payload of the error and covered by its checksum.
    var covered = header.addresses
    if packet.isV4 {
      covered = covered + ChecksumDelta(bytes.load16(quoted &+ 10), replacing: headerChecksum)
    }
    if let place = inner.checksum {
      let field = quoted &+ place.position
      let old = bytes.load16(field)
      let new = place.kind.updated(old, header.addresses)
      bytes.store16(new, field)
      covered = covered + ChecksumDelta(new, replacing: old)
    }
    bytes.store16(covered.applied(toChecksum: bytes.load16(message &+ 2)), message &+ 2)
    return true
  }

  /// Destination unreachable, source quench, redirect, time exceeded, parameter problem.
  private func isError(_ type: UInt8) -> Bool { (3...5).contains(type) || (11...12).contains(type) }

  /// Destination unreachable, packet too big, time exceeded, parameter problem.
  private func isErrorV6(_ type: UInt8) -> Bool { (1...4).contains(type) }
}

/// The beginning of a packet inside an ICMP error: whoever has a value may read its addresses.
private struct QuotedPacket {
  /// The transport checksum, when it was quoted.
  var checksum: (position: Int, kind: TransportChecksum)?

  /// Nil when the addresses are not all there, or it is of another version.
  init?(_ bytes: PacketBytes, isV4: Bool) {
    guard bytes.count >= (isV4 ? 20 : 40), bytes[0] >> 4 == (isV4 ? 4 : 6) else { return nil }
    var transportOffset: Int
    var transport: UInt8
    if isV4 {
      transportOffset = Int(bytes[0] & 15) &* 4
      transport = bytes[9]
      guard transportOffset >= 20, bytes.load16(6) & 0x1FFF == 0 else { return }
    } else {
      guard let chain = ExtensionHeaders(bytes), chain.isFirstFragment else { return }
      transportOffset = chain.end
      transport = chain.next
    }
    guard let kind = TransportChecksum(transport, isV4: isV4) else { return }
    let position = transportOffset &+ kind.offset
    if position &+ 2 <= bytes.count { checksum = (position, kind) }
  }
}
