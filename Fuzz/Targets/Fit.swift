import PacketIO

@testable import Dataplane

/// TCP options of handshakes, and what a sender is told about a packet that does not fit: the clamp changes nothing but
/// the segment size and the checksum, and only downwards; a message about a packet is a whole and right one.
///
/// Two bytes of limit, one of flags (bit 0: partial checksum), then the packet.
let fit = FuzzTarget(name: "Fit") { input in
  var input = FuzzInput(input)
  let limit = max(input.number(), 576)
  let hasPartialChecksum = input.byte() & 1 != 0
  withPacketBytes(input.rest()) { bytes in
    guard let packet = InnerPacket(bytes) else { return }
    let before = bytes.array()
    if SegmentSizeClamp.concerns(packet, bytes) {
      let wasRight = !packet.isFragment && Checksum.isTransportRight(bytes.slice(0, packet.length), packet)
      SegmentSizeClamp.apply(packet, bytes, limit: limit, hasPartialChecksum: hasPartialChecksum)
      let checksum = packet.transportOffset + 16
      let changed = before.indices.filter { before[$0] != bytes[$0] && $0 / 2 != checksum / 2 }
      if let first = changed.first, let last = changed.last {
        require(last - first <= 1 && first >= packet.transportOffset + 20, "it changed \(changed)")
        require(first < packet.length && !before.isEmpty, "it changed what is behind the packet")
      }
      if wasRight, !hasPartialChecksum {
        require(Checksum.isTransportRight(bytes.slice(0, packet.length), packet), "the checksum is wrong now")
      }
      let once = bytes.array()
      SegmentSizeClamp.apply(packet, bytes, limit: limit, hasPartialChecksum: hasPartialChecksum)
      require(bytes.array() == once, "it is not done after once")
    }
    withPacketBytes([UInt8](repeating: 0xFF, count: TooBigMessage.capacity)) { room in
      let whole = bytes.slice(0, packet.length)
      guard let length = TooBigMessage.write(about: packet, whole, mtu: limit, to: room) else { return }
      let message = room.slice(0, length)
      guard let parsed = InnerPacket(message), parsed.length == length else {
        return require(false, "a sender is told in a malformed packet")
      }
      require(parsed.isV4 == packet.isV4, "of another family")
      require(
        parsed.source(message) == packet.destination(whole) && parsed.destination(message) == packet.source(whole),
        "not to the sender")
      let body = message.dropFirst(parsed.transportOffset)
      if packet.isV4 {
        require(Checksum.fold(Checksum.sum(body)) == 0xFFFF, "a wrong checksum")
      } else {
        require(Checksum.isTransportRight(message, parsed), "a wrong checksum")
      }
      require(
        body.dropFirst(8).array() == Array(whole.array().prefix(body.count - 8)), "it quotes another packet")
      require(
        TooBigMessage.write(about: parsed, message, mtu: limit, to: PacketBytes(message.pointer, count: 0)) == nil,
        "an error about an error")
    }
  }
}
