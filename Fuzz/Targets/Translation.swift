import Dataplane
import PacketIO

/// Translation of whole packets, ICMP errors and what they quote among them: a checksum is afterwards as right, or as
/// wrong, as before, and the packet has the same shape.
let translatedPackets = FuzzTarget(name: "TranslatedPackets") { input in
  guard let first = input.first else { return }
  withPacketBytes(Array(input.dropFirst())) { bytes in
    guard let packet = InnerPacket(bytes) else { return }
    let header = headerResidue(bytes, packet)
    let transport = transportResidue(bytes, packet)
    if first & 1 == 0 {
      alikeSites.outbound.translate(bytes, packet)
    } else {
      alikeSites.inbound.translate(bytes, packet)
    }
    require(InnerPacket(bytes).map { "\($0)" } == "\(packet)", "\(packet) has become another")
    require(headerResidue(bytes, packet) == header, "the IP header's checksum is off")
    require(transportResidue(bytes, packet) == transport, "the checksum of protocol \(packet.transport) is off")
  }
}

/// DNS messages in UDP packets: what is rewritten has the right lengths and a checksum as right as before.
let dnsMessages = FuzzTarget(name: "DNSMessages") { input in
  var input = FuzzInput(input)
  let flags = input.byte()
  let room = Int(input.byte() & 31)
  let message = input.bytes(1500)
  let isV4 = flags & 2 == 0
  let headers = isV4 ? 28 : 48
  let length = headers + message.count
  withPacketBytes([UInt8](repeating: 0, count: headers) + message + [UInt8](repeating: 0xEE, count: room)) { bytes in
    bytes[0] = isV4 ? 0x45 : 0x60
    bytes.store16(UInt16(isV4 ? length : length - 40), isV4 ? 2 : 4)
    bytes[isV4 ? 9 : 6] = IPProtocol.udp
    bytes.store16(53, headers - 8)
    bytes.store16(UInt16(8 + message.count), headers - 4)
    bytes.store16(flags & 4 == 0 ? 0x1234 : 0, headers - 2)
    guard let packet = InnerPacket(bytes.slice(0, length)) else { return }
    let transport = transportResidue(bytes.slice(0, length), packet)
    let outcome =
      flags & 1 == 0
      ? alikeSites.outbound.rewriteDNS(bytes, packet, port: 53)
      : alikeSites.inbound.rewriteDNS(bytes, packet, port: 53)
    guard case .rewritten(let newLength) = outcome else {
      require(bytes.slice(headers, message.count).array() == message, "\(outcome) and altered")
      return
    }
    require(newLength <= bytes.count, "\(newLength) bytes in \(bytes.count)")
    guard let rewritten = InnerPacket(bytes.slice(0, newLength)) else { return require(false, "no packet any more") }
    require(rewritten.length == newLength, "the packet says \(rewritten.length), not \(newLength)")
    require(Int(bytes.load16(headers - 4)) == newLength - headers + 8, "the UDP length is off")
    require(transportResidue(bytes.slice(0, newLength), rewritten) == transport, "the UDP checksum is off")
  }
}

private let alikeSites = PrefixTranslation(
  local: [
    pair("10.0.0.0/24", "100.112.3.0/24"), pair("192.168.0.0/16", "9.9.0.0/16"),
    pair("10.0.0.128/25", "100.113.0.0/25"),
    pair("fd00:1::/64", "fd08:5bf2:c718:9::/64"), pair("fd00:2::/48", "fd08:5bf2:1::/48"),
    pair("fd00:3::/96", "fd00:4::/96"),
  ],
  remote: [pair("172.16.0.0/24", "100.120.0.0/24"), pair("fd00:5::/64", "fd08:1:2:3::/64")])

private func pair(_ real: String, _ intermediate: String) -> PrefixPair {
  let none = Prefix(IPAddress(v4: 0), length: 32)
  return PrefixPair(real: Prefix(real) ?? none, intermediate: Prefix(intermediate) ?? none)
}

/// What the header's words add up to, modulo 2¹⁶ - 1: zero where the checksum is right.
private func headerResidue(_ bytes: PacketBytes, _ packet: InnerPacket) -> UInt16 {
  packet.isV4 ? Checksum.fold(Checksum.sum(bytes.slice(0, Int(bytes[0] & 15) * 4))) % 0xFFFF : 0
}

/// The same of the transport segment and its pseudo-header; nil where there is no checksum, or not all that it covers.
private func transportResidue(_ bytes: PacketBytes, _ packet: InnerPacket) -> UInt16? {
  guard !packet.isFragment else { return nil }
  let segment = bytes.slice(packet.transportOffset, packet.length - packet.transportOffset)
  switch packet.transport {
  case IPProtocol.tcp where segment.count >= 18: break
  case IPProtocol.udp where segment.count >= 8 && segment.load16(6) != 0: break
  case IPProtocol.icmpV6 where !packet.isV4 && segment.count >= 4: break
  case IPProtocol.icmp where packet.isV4 && segment.count >= 4: return Checksum.fold(Checksum.sum(segment)) % 0xFFFF
  default: return nil
  }
  let pseudo = Checksum.pseudoHeader(
    bytes, isV4: packet.isV4, protocolNumber: packet.transport, length: segment.count)
  return Checksum.fold(Checksum.sum(segment, pseudo)) % 0xFFFF
}
