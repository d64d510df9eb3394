import PacketIO

/// Message types that connection tracking tells apart (RFC 792, RFC 950, RFC 4443).
enum ICMP {
  static let echoReply: UInt8 = 0
  static let echoRequest: UInt8 = 8
  static let echoRequestV6: UInt8 = 128
  static let echoReplyV6: UInt8 = 129

  /// Destination unreachable, time exceeded and parameter problem, and with IPv6 packet too big: errors that a flow
  /// can provoke. Redirects and source quench are none of a partner's business (RFC 6633).
  @inline(__always)
  static func isError(_ type: UInt8, isV4: Bool) -> Bool {
    isV4 ? type == 3 || type == 11 || type == 12 : (1...4).contains(type)
  }
}

/// An ICMP or ICMPv6 message as connection tracking sees it.
struct ICMPMessage: BitwiseCopyable {
  enum Role: BitwiseCopyable, Equatable {
    /// A question, and an answer to the question of type `to`.
    case query
    case reply(to: UInt8)
    case error
    /// Anything else stands alone.
    case other
  }

  let type: UInt8
  let identifier: UInt16
  let role: Role

  /// Nil when the header is not whole.
  init?(_ bytes: PacketBytes, at offset: Int, isV4: Bool) {
    guard bytes.count - offset >= 8 else { return nil }
    type = bytes[offset]
    identifier = bytes.load16(offset + 4)
    if ICMP.isError(type, isV4: isV4) {
      role = .error
    } else if isV4 {
      role =
        switch type {
        // Echo, timestamp, information, address mask.
        case 8, 13, 15, 17: .query
        case 0: .reply(to: 8)
        case 14: .reply(to: 13)
        case 16: .reply(to: 15)
        case 18: .reply(to: 17)
        default: .other
        }
    } else {
      role = type == ICMP.echoRequestV6 ? .query : type == ICMP.echoReplyV6 ? .reply(to: ICMP.echoRequestV6) : .other
    }
  }

  /// Whether the whole message's checksum is right (RFC 5508 REQ-3 a).
  static func isChecksumRight(_ bytes: PacketBytes, _ packet: InnerPacket) -> Bool {
    if !packet.isV4 { return Checksum.isTransportRight(bytes, packet) }
    return Checksum.fold(Checksum.sum(bytes.dropFirst(packet.transportOffset))) == 0xFFFF
  }
}

/// The packet that an ICMP error quotes: the one that provoked it.
struct QuotedFlow: BitwiseCopyable {
  let key: FlowKey
  let source: IPAddress
  /// TCP only.
  let sequence: UInt32

  /// - Parameters:
  ///   - quote: what stands behind the error's header.
  ///   - direction: the way the error goes; the quoted packet went the other way.
  /// - Returns: nil for what cannot be told: too short, not a first fragment, an error about an error.
  init?(_ quote: PacketBytes, isV4: Bool, errorGoes direction: TrafficDirection) {
    guard quote.count >= (isV4 ? 20 : 40), quote[0] >> 4 == (isV4 ? 4 : 6) else { return nil }
    let offset: Int
    let transport: UInt8
    let destination: IPAddress
    if isV4 {
      offset = Int(quote[0] & 15) * 4
      transport = quote[9]
      guard offset >= 20, quote.load16(6) & 0x1FFF == 0 else { return nil }
      source = IPAddress(v4: quote.load32(12))
      destination = IPAddress(v4: quote.load32(16))
    } else {
      guard let chain = ExtensionHeaders(quote), chain.isFirstFragment else { return nil }
      offset = chain.end
      transport = chain.next
      source = IPAddress(v6High: quote.load64(8), low: quote.load64(16))
      destination = IPAddress(v6High: quote.load64(24), low: quote.load64(32))
    }
    let went = direction.opposite
    let local = went == .outbound ? source : destination
    let remote = went == .outbound ? destination : source
    // RFC 792 promises eight bytes.
    guard quote.count - offset >= 8 else { return nil }
    var ports: (local: UInt16, remote: UInt16) = (0, 0)
    switch transport {
    case IPProtocol.tcp, IPProtocol.udp:
      let pair = (quote.load16(offset), quote.load16(offset + 2))
      ports = went == .outbound ? (pair.0, pair.1) : (pair.1, pair.0)
    case isV4 ? IPProtocol.icmp : IPProtocol.icmpV6:
      guard let message = ICMPMessage(quote, at: offset, isV4: isV4) else { return nil }
      switch message.role {
      case .query: ports = (message.identifier, FlowKey.queryPort(type: message.type, opener: went))
      case .reply(let type): ports = (message.identifier, FlowKey.queryPort(type: type, opener: direction))
      case .error, .other: return nil
      }
    default: break
    }
    sequence = transport == IPProtocol.tcp ? quote.load32(offset + 4) : 0
    key = FlowKey(local: local, remote: remote, transport: transport, localPort: ports.local, remotePort: ports.remote)
  }
}
