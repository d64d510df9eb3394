package import PacketIO

/// Stateless translation between two sites whose prefixes clash: one pair of gateways' tables and what they do to a
/// packet. Every gateway translates what is its own, and nothing else:
///
///       site A                                  site B
///       192.168.1.0/24                          192.168.1.0/24
///       B's hosts are 100.64.7.*                A's hosts are 100.64.3.*
///
///       host .10             gateway A          gateway B           host .20
///         │  192.168.1.10        │                  │                  │
///         │  → 100.64.7.20       │  100.64.3.10     │   100.64.3.10    │
///         ├─────────────────────▶│  → 100.64.7.20   │   → 192.168.1.20 │
///         │              source: │─────────────────▶│ destination:     │
///         │         own to known │                  │ known to own     │
///         │                      │                  ├─────────────────▶│
///         │                      │                  │   192.168.1.20   │
///         │                      │   100.64.7.20    │   → 100.64.3.10  │
///         │   100.64.7.20        │   → 100.64.3.10  │◀─────────────────┤
///         │   → 192.168.1.10     │◀─────────────────│ source:          │
///         │◀─────────────────────┤ destination:     │ own to known     │
///         │                      │ known to own     │                  │
///
/// 100.64.3.0/24 is the intermediate prefix by which B knows A's LAN, 100.64.7.0/24 the one by which A knows B's. On
/// the tunnel there are intermediate addresses only. So every host sees its own prefix at home and the partner under a
/// prefix that means nothing else there; a gateway's routes, its anti-spoofing check and its firewall's view of the
/// partner are in terms of the intermediate prefix; and a third site with the same LAN is a pair of its own.
///
/// A partner that cannot translate, say another maker's, gets the same service from this side: then this gateway also
/// rewrites the partner's addresses (`remote`), and on the tunnel the partner's prefix is the real one.
///
/// Addresses that no pair covers pass untouched: those of routers on the way, say, in answers to a traceroute.
package struct PrefixTranslation: ~Copyable, Sendable {
  /// For packets to the peer.
  package let outbound: AddressRewriting
  /// For packets from the peer.
  package let inbound: AddressRewriting
  /// The UDP port of the messages that `rewriteDNS` is for; 0: none.
  package let dnsPort: UInt16

  /// Prefixes of one gateway that are translated for one peer at most.
  package static let mostPairs = 64

  /// Compiles tables. Unusable pairs have no effect.
  ///
  /// - Parameters:
  ///   - local: this side's prefixes, as the peer knows them.
  ///   - remote: the peer's, as they are known here, if they are to be translated here and not there.
  package init(local: [PrefixPair], remote: [PrefixPair] = [], dnsPort: UInt16 = 53) {
    func rules(_ pairs: [PrefixPair], toReal: Bool) -> [TranslationRule] {
      pairs.compactMap {
        toReal
          ? TranslationRule(from: $0.intermediate, to: $0.real) : TranslationRule(from: $0.real, to: $0.intermediate)
      }
    }
    outbound = AddressRewriting(source: rules(local, toReal: false), destination: rules(remote, toReal: true))
    inbound = AddressRewriting(source: rules(remote, toReal: false), destination: rules(local, toReal: true))
    self.dnsPort = dnsPort
  }

  /// The source of a packet from the peer as it is known here.
  @inline(__always)
  package func admittedSource(_ source: IPAddress) -> IPAddress {
    inbound.source.translate(source)?.address ?? source
  }

  /// Whether an address is one of this side's, by itself or as the peer knows it.
  func isOwn(_ address: IPAddress) -> Bool {
    outbound.source.translate(address) != nil || inbound.destination.translate(address) != nil
  }
}

extension AddressRewriting {
  /// Translates a packet in place: its addresses, every checksum that covers them, and the packet inside an ICMP error.
  ///
  /// Costs the same for a superpacket as for one packet: checksums are updated, not computed (RFC 1624). A checksum
  /// that was wrong is wrong afterwards.
  ///
  /// - Parameters:
  ///   - packet: what parsing `bytes` found; it describes the packet afterwards as well.
  ///   - offload: says whether the transport checksum is partial.
  /// - Returns: whether anything was changed.
  @inline(__always) @discardableResult
  package func translate(_ bytes: PacketBytes, _ packet: InnerPacket, _ offload: Offload = Offload()) -> Bool {
    let header = rewriteHeader(bytes, at: 0, isV4: packet.isV4)
    if !header.addresses.isNone { updateTransport(bytes, packet, offload, header.addresses) }
    guard packet.transport == (packet.isV4 ? IPProtocol.icmp : IPProtocol.icmpV6), packet.isFirstFragment else {
      return header.isChanged
    }
    let isErrorChanged = translateError(bytes.slice(0, packet.length), packet)
    return header.isChanged || isErrorChanged
  }

  /// Makes of a packet that would come out of the other pipeline the one that goes into it: each address is rewritten
  /// as in an answer.
  func undoOpposite(_ bytes: PacketBytes, _ packet: InnerPacket) {
    let header = rewriteHeader(bytes, at: 0, isV4: packet.isV4, isEmbedded: true)
    if !header.addresses.isNone { updateTransport(bytes, packet, Offload(), header.addresses) }
  }

  /// Brings the transport checksum of a packet up to date with its pseudo-header.
  private func updateTransport(
    _ bytes: PacketBytes, _ packet: InnerPacket, _ offload: Offload, _ addresses: ChecksumDelta
  ) {
    guard let place = TransportChecksum(packet.transport, isV4: packet.isV4) else { return }
    var field = packet.transportOffset &+ place.offset
    if !packet.isFirstFragment {
      // A first fragment can be so short that the checksum lies in the second.
      field &-= packet.fragmentOffset(bytes)
      guard field >= packet.transportOffset else { return }
    }
    guard field &+ 2 <= packet.length else { return }
    let old = bytes.load16(field)
    if offload.needsChecksum, Int(offload.checksumStart) &+ Int(offload.checksumOffset) == field {
      bytes.store16(addresses.applied(toSum: old), field)
    } else {
      bytes.store16(place.updated(old, addresses), field)
    }
  }
}

/// Where a transport protocol has the checksum that covers the addresses, and what its zero means.
struct TransportChecksum: BitwiseCopyable {
  /// From the start of the transport header.
  let offset: Int
  /// Zero in the field says that there is none.
  private let isOptional: Bool
  /// A checksum that is zero is written as 0xFFFF.
  private let avoidsZero: Bool

  /// Nil for protocols whose checksum, if there is one, does not cover addresses.
  @inline(__always)
  init?(_ transport: UInt8, isV4: Bool) {
    switch transport {
    case IPProtocol.tcp: self.init(offset: 16)
    case IPProtocol.udp: self.init(offset: 6, isOptional: true, avoidsZero: true)
    case IPProtocol.icmpV6 where !isV4: self.init(offset: 2)
    case IPProtocol.udpLite: self.init(offset: 6, avoidsZero: true)
    case IPProtocol.dccp: self.init(offset: 6)
    default: return nil
    }
  }

  @inline(__always)
  private init(offset: Int, isOptional: Bool = false, avoidsZero: Bool = false) {
    self.offset = offset
    self.isOptional = isOptional
    self.avoidsZero = avoidsZero
  }

  /// The field's new value (RFC 768; RFC 3828 section 3.1 for UDP-Lite).
  @inline(__always)
  func updated(_ old: UInt16, _ delta: ChecksumDelta) -> UInt16 {
    if isOptional && old == 0 { return 0 }
    let new = delta.applied(toChecksum: old)
    return new == 0 && avoidsZero ? 0xFFFF : new
  }
}

extension IPProtocol {
  static let dccp: UInt8 = 33
  static let udpLite: UInt8 = 136
}

extension InnerPacket {
  /// Where a fragment's payload lies in that of the whole packet, in bytes.
  fileprivate func fragmentOffset(_ bytes: PacketBytes) -> Int {
    isV4 ? Int(bytes.load16(6) & 0x1FFF) &* 8 : Int(bytes.load16(transportOffset &- 6) & 0xFFF8)
  }
}
