import PacketIO

/// Writes the blocks of a capture file (pcapng, draft-ietf-opsawg-pcapng), in little-endian order.
package enum CaptureFile {
  /// Raw IP, of either family.
  private static let linkType: UInt32 = 101
  private static let nanoseconds: UInt8 = 9

  /// The side of the tunnel a packet was seen on: its interface in the file.
  package enum Side: UInt8, Sendable, BitwiseCopyable {
    case inner = 0
    case outer = 1
  }

  /// What a file begins with: the section, and an interface for each side.
  package static func header(snapLength: Int) -> [UInt8] {
    var section = word(0x1A2B_3C4D) + half(1) + half(0) + [UInt8](repeating: 0xFF, count: 8)
    section += option(4, Array("culvert".utf8)) + word(0)
    return block(0x0A0D_0D0A, section)
      + interface("inner", "packets inside the tunnel", snapLength: snapLength)
      + interface(
        "outer",
        "sealed packets; their IP and UDP headers are made up from the path, with no checksum, and with the local address "
          + "only where the gateway listens on one", snapLength: snapLength)
  }

  private static func interface(_ name: String, _ description: String, snapLength: Int) -> [UInt8] {
    let options =
      option(2, Array(name.utf8)) + option(3, Array(description.utf8)) + option(9, [nanoseconds]) + word(0)
    return block(1, half(UInt16(linkType)) + half(0) + word(UInt32(clamping: snapLength)) + options)
  }

  /// - Parameters:
  ///   - time: nanoseconds since 1970.
  ///   - length: bytes of the whole packet, of which `bytes` are the first.
  ///   - isOutgoing: whether it goes from this side to a peer.
  package static func packet(
    _ bytes: ArraySlice<UInt8>, length: Int, side: Side, time: UInt64, isOutgoing: Bool, comment: String?
  ) -> [UInt8] {
    var body = word(UInt32(side.rawValue)) + word(UInt32(truncatingIfNeeded: time >> 32))
    body += word(UInt32(truncatingIfNeeded: time)) + word(UInt32(bytes.count)) + word(UInt32(length))
    body += bytes
    body += padding(bytes.count)
    // Inbound 1, outbound 2, as the network card of this side would see it.
    body += option(2, word(isOutgoing ? 2 : 1))
    if let comment { body += option(1, Array(comment.utf8)) }
    return block(6, body + word(0))
  }

  /// How many packets found no room (`isb_ifdrop`).
  package static func statistics(side: Side, time: UInt64, lost: UInt64) -> [UInt8] {
    let body =
      word(UInt32(side.rawValue)) + word(UInt32(truncatingIfNeeded: time >> 32))
      + word(UInt32(truncatingIfNeeded: time))
    let count = word(UInt32(truncatingIfNeeded: lost)) + word(UInt32(truncatingIfNeeded: lost >> 32))
    return block(5, body + option(5, count) + word(0))
  }

  private static func block(_ type: UInt32, _ body: [UInt8]) -> [UInt8] {
    let length = word(UInt32(body.count + 12))
    return word(type) + length + body + length
  }

  private static func option(_ code: UInt16, _ value: [UInt8]) -> [UInt8] {
    half(code) + half(UInt16(value.count)) + value + padding(value.count)
  }

  private static func padding(_ count: Int) -> [UInt8] { [UInt8](repeating: 0, count: -count & 3) }
  private static func half(_ value: UInt16) -> [UInt8] { [UInt8(value & 0xFF), UInt8(value >> 8)] }
  private static func word(_ value: UInt32) -> [UInt8] {
    half(UInt16(truncatingIfNeeded: value)) + half(UInt16(value >> 16))
  }
}

/// IP and UDP headers for a sealed packet, from what is known of its path (RFC 3948 §2.1).
enum OuterHeader {
  static func bytes(
    _ count: Int, from source: Endpoint, to destination: Endpoint, trafficClass: UInt8
  ) -> [UInt8] {
    let udp = half(source.port) + half(destination.port) + half(UInt16(truncatingIfNeeded: 8 + count)) + [0, 0]
    if source.address.isV4 {
      var header: [UInt8] = [0x45, trafficClass] + half(UInt16(truncatingIfNeeded: 28 + count))
      header += [0, 0, 0x40, 0, 64, IPProtocol.udp, 0, 0] + octets(source.address) + octets(destination.address)
      var sum = 0
      for place in stride(from: 0, to: 20, by: 2) { sum += Int(header[place]) << 8 | Int(header[place + 1]) }
      while sum > 0xFFFF { sum = sum >> 16 + sum & 0xFFFF }
      header.replaceSubrange(10..<12, with: half(UInt16(~sum & 0xFFFF)))
      return header + udp
    }
    return [0x60 | trafficClass >> 4, trafficClass << 4, 0, 0] + half(UInt16(truncatingIfNeeded: 8 + count))
      + [IPProtocol.udp, 64] + octets(source.address) + octets(destination.address) + udp
  }

  private static func half(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 0xFF)] }
  private static func octets(_ address: IPAddress) -> [UInt8] {
    if address.isV4 { return (0..<4).map { UInt8(truncatingIfNeeded: address.v4 >> (24 - 8 * $0)) } }
    return [address.high, address.low].flatMap { half in
      (0..<8).map { UInt8(truncatingIfNeeded: half >> (56 - 8 * $0)) }
    }
  }
}
