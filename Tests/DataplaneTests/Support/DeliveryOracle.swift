import PacketIO
import Testing

@testable import Dataplane

/// Judges what the TUN device got against the packets that were opened: cut again as the kernel would cut them, the
/// deliveries must give exactly those packets, each flow's in order.
struct DeliveryOracle {
  private var waiting: [[UInt8]: [SlowPacket]] = [:]

  /// - Parameter packets: as they were opened, in order.
  init(_ packets: [[UInt8]]) { expect(packets) }

  mutating func expect(_ packets: [[UInt8]]) {
    for packet in packets.map(SlowPacket.init) { waiting[packet.flow, default: []].append(packet) }
  }

  mutating func judge(_ deliveries: [Delivered], sourceLocation: SourceLocation = #_sourceLocation) {
    for delivery in deliveries {
      if let complaint = complaint(about: delivery) {
        Issue.record(Comment(rawValue: complaint), sourceLocation: sourceLocation)
        return
      }
    }
    let missing = waiting.values.reduce(0) { $0 + $1.count }
    if missing > 0 { Issue.record("\(missing) packets were not delivered", sourceLocation: sourceLocation) }
  }

  private mutating func complaint(about delivery: Delivered) -> String? {
    let whole = SlowPacket(delivery.packet.bytes)
    if delivery.count > 1, let complaint = complaint(aboutMerged: delivery, whole) { return complaint }
    let packets = delivery.packets.map(SlowPacket.init)
    guard packets.count == delivery.count else { return "counts \(delivery.count), is \(packets.count)" }
    var originals: [SlowPacket] = []
    for packet in packets {
      guard let next = waiting[packet.flow]?.first else { return "invented \(packet.bytes.prefix(60))" }
      waiting[packet.flow]?.removeFirst()
      originals.append(next)
    }
    if packets.count == 1 {
      return packets == originals ? nil : "altered or out of order: \(packets[0].bytes.prefix(60))"
    }
    for (packet, original) in zip(packets, originals) {
      guard original.hasRightHeaderChecksum, original.hasRightTransportChecksum else {
        return "merged a wrong checksum"
      }
      guard packet.comparable == original.comparable else {
        return "merged \(original.bytes.prefix(60)), comes out as \(packet.bytes.prefix(60))"
      }
    }
    let pushed = originals.contains { $0.isTCP && $0.tcpFlags & TCPFlags.psh != 0 }
    if whole.isTCP, pushed != (whole.tcpFlags & TCPFlags.psh != 0) { return "PSH was lost or invented" }
    return nil
  }

  /// What the kernel requires of a superpacket that is written to a TUN device.
  private func complaint(aboutMerged delivery: Delivered, _ whole: SlowPacket) -> String? {
    let offload = delivery.packet.offload
    let kind: Offload.Segmentation = whole.isUDP ? .udp : whole.isV4 ? .tcp4 : .tcp6
    guard offload.segmentation == kind, delivery.packet.segmentSize > 0 else { return "metadata \(offload)" }
    guard offload.needsChecksum, Int(offload.checksumStart) == whole.transportOffset,
      offload.checksumOffset == (whole.isUDP ? 6 : 16)
    else { return "checksum position \(offload)" }
    let length = Int(whole.number(whole.isV4 ? 2..<4 : 4..<6)) + (whole.isV4 ? 0 : 40)
    guard length == whole.bytes.count, whole.hasRightHeaderChecksum else { return "IP length or checksum" }
    let field = whole.transportOffset + Int(offload.checksumOffset)
    let pseudo = pseudoHeader(
      whole.source, whole.destination, whole.transport, length: whole.bytes.count - whole.transportOffset)
    guard whole.number(field..<field + 2) == UInt64(onesComplementSum(pseudo)) else { return "partial checksum" }
    return nil
  }
}

extension SlowPacket {
  /// Without what merging may change: PSH of all but the last, the identification where it has no meaning (RFC 6864
  /// §4.1), and checksums, which were found right.
  fileprivate var comparable: [UInt8] {
    var packet = self
    if isV4 { packet.set16(0, at: 10) }
    if hasDontFragment { packet.set16(0, at: 4) }
    if isTCP { packet.bytes[transportOffset + 13] &= ~TCPFlags.psh }
    packet.set16(0, at: transportOffset + (isTCP ? 16 : 6))
    return packet.bytes
  }
}
