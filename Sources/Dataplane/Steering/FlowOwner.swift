package import PacketIO

/// Which of several workers remembers a flow. Both directions of a flow have the same owner, and so do ICMP errors that
/// quote a packet of it.
///
/// It is a sum over what the two ends contribute, so that it does not matter which is the source: of the addresses the
/// last byte only, which prefix translation leaves alone where the prefixes have whole bytes, so that mostly both
/// gateways agree and nothing has to be handed over. What a gateway relies on is that it looks at its own view of the
/// addresses in both directions. `QueueSteering` computes the same in the kernel.
package enum FlowOwner {
  static let addressFactor: UInt32 = 0x9E37_79B1
  static let portFactor: UInt32 = 0x85EB_CA6B
  static let protocolFactor: UInt32 = 0xC2B2_AE35
  static let mixFactor: UInt32 = 0x2C1B_3C6D

  /// Of a flow, by sums of its two ends.
  /// - Parameters:
  ///   - ports: the sum of both ports; of ICMP queries the identifier; of other protocols 0.
  ///   - mask: the number of workers, a power of two, less one.
  @inline(__always)
  static func owner(addresses: UInt32, ports: UInt32, transport: UInt8, mask: UInt32) -> Int {
    var sum = addresses &* addressFactor &+ ports &* portFactor &+ UInt32(transport) &* protocolFactor
    sum ^= sum &>> 15
    sum = sum &* mixFactor
    return Int((sum &>> 16) & mask)
  }

  /// Of a packet that is no fragment.
  /// - Parameter translation: what is still to be done to the packet's addresses before they are those of this side.
  @inline(__always)
  static func owner(
    _ packet: InnerPacket, _ bytes: PacketBytes, mask: UInt32, translation: StateReference<PrefixTranslation>? = nil
  ) -> Int {
    var addresses = (source: UInt32(bytes[packet.isV4 ? 15 : 23]), destination: UInt32(bytes[packet.isV4 ? 19 : 39]))
    if let translation {
      addresses.source = translation.value.inbound.source.lastByte(packet.source(bytes))
      addresses.destination = translation.value.inbound.destination.lastByte(packet.destination(bytes))
    }
    let sum = addresses.source &+ addresses.destination
    let ports: UInt32
    let start = packet.transportOffset
    switch packet.transport {
    case IPProtocol.tcp, IPProtocol.udp:
      ports = start &+ 4 <= packet.length ? UInt32(bytes.load16(start)) &+ UInt32(bytes.load16(start &+ 2)) : 0
    case packet.isV4 ? IPProtocol.icmp : IPProtocol.icmpV6:
      return ownerOfICMP(packet, bytes, addresses: sum, mask: mask, translation: translation)
    default: ports = 0
    }
    return owner(addresses: sum, ports: ports, transport: packet.transport, mask: mask)
  }

  /// Of queries and replies by their identifier; of errors by the packet they quote; others stand alone.
  @inline(never)
  private static func ownerOfICMP(
    _ packet: InnerPacket, _ bytes: PacketBytes, addresses: UInt32, mask: UInt32,
    translation: StateReference<PrefixTranslation>?
  ) -> Int {
    let transport = packet.transport
    guard let message = ICMPMessage(bytes.slice(0, packet.length), at: packet.transportOffset, isV4: packet.isV4) else {
      return owner(addresses: addresses, ports: 0, transport: transport, mask: mask)
    }
    switch message.role {
    case .query, .reply:
      return owner(addresses: addresses, ports: UInt32(message.identifier), transport: transport, mask: mask)
    case .other: return owner(addresses: addresses, ports: 0, transport: transport, mask: mask)
    case .error:
      let quote = bytes.slice(0, packet.length).dropFirst(packet.transportOffset &+ 8)
      guard let quoted = QuotedFlow(quote, isV4: packet.isV4, errorGoes: .inbound) else {
        return owner(addresses: addresses, ports: 0, transport: transport, mask: mask)
      }
      // The quoted packet went the other way, so what was its source is a destination now.
      var (local, remote) = (quoted.key.local, quoted.key.remote)
      if let translation {
        local = translation.value.inbound.destination.translate(local)?.address ?? local
        remote = translation.value.inbound.source.translate(remote)?.address ?? remote
      }
      let isQuery = quoted.key.transport == transport
      let ports =
        isQuery ? UInt32(quoted.key.localPort) : UInt32(quoted.key.localPort) &+ UInt32(quoted.key.remotePort)
      return owner(
        addresses: UInt32(local.lastByte) &+ UInt32(remote.lastByte), ports: ports, transport: quoted.key.transport,
        mask: mask)
    }
  }
}

extension IPAddress {
  @inline(__always)
  fileprivate var lastByte: UInt8 { isV4 ? UInt8(truncatingIfNeeded: v4) : UInt8(truncatingIfNeeded: low) }
}

extension AddressRules {
  @inline(__always)
  fileprivate func lastByte(_ address: IPAddress) -> UInt32 {
    UInt32((translate(address)?.address ?? address).lastByte)
  }
}

/// Whom the fragments of a datagram follow: the worker that owns the flow of the first one. Worker 0 keeps it, which
/// all fragments pass.
///
/// A place is taken by whichever datagram came last, so that the table never fills; a datagram that was pushed out, or
/// whose first fragment has not come, has its fragments judged by worker 0, which does not know it.
package struct FragmentOwners: ~Copyable {
  /// Datagrams at most; a power of two.
  static let capacity = 1024

  struct Entry: BitwiseCopyable {
    var source = IPAddress(v4: 0)
    var destination = IPAddress(v4: 0)
    var identification: UInt32 = 0
    var owner: Int32 = -1
  }

  private var entries = FixedArray<Entry>(repeating: Entry(), count: capacity)

  package init() {}

  /// - Parameter owner: what a packet has that is no fragment; asked of a first fragment.
  package mutating func owner(
    _ packet: InnerPacket, _ bytes: PacketBytes, owner: () -> Int
  ) -> Int {
    guard let header = FragmentHeader(packet, bytes) else { return 0 }
    var entry = Entry()
    entry.source = packet.source(bytes)
    entry.destination = packet.destination(bytes)
    entry.identification = header.identification
    let mixed = UInt64(entry.identification) &+ entry.source.low &+ entry.destination.low &* 3 &+ entry.source.high
    let place = Int(truncatingIfNeeded: (mixed &* 0x9E37_79B9_7F4A_7C15) &>> 54)
    if packet.isFirstFragment {
      entry.owner = Int32(truncatingIfNeeded: owner())
      entries[place] = entry
      return Int(entry.owner)
    }
    let known = entries[place]
    guard known.owner >= 0, known.identification == entry.identification, known.source == entry.source,
      known.destination == entry.destination
    else { return 0 }
    return Int(known.owner)
  }
}
