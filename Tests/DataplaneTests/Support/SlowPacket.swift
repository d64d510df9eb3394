import PacketIO

@testable import Dataplane

/// An IP packet in an array, taken apart the slow way.
struct SlowPacket: Equatable {
  var bytes: [UInt8]
  let isV4: Bool
  let transport: UInt8
  let transportOffset: Int
  /// More than one fragment, or a fragment header.
  let isFragment: Bool
  let fragmentOffset: Int

  /// - Parameter bytes: a well-formed packet, as `PacketSketch` writes it.
  init(_ bytes: [UInt8]) {
    self.bytes = bytes
    isV4 = bytes[0] >> 4 == 4
    if isV4 {
      transport = bytes[9]
      transportOffset = Int(bytes[0] & 15) * 4
      let word = Int(bytes[6]) << 8 | Int(bytes[7])
      isFragment = word & 0x3FFF != 0
      fragmentOffset = word & 0x1FFF
    } else {
      var next = bytes[6]
      var offset = 40
      var fragment: Int?
      while true {
        if next == 44 {
          fragment = (Int(bytes[offset + 2]) << 8 | Int(bytes[offset + 3])) >> 3
          next = bytes[offset]
          offset += 8
          if fragment != 0 { break }
        } else if [0, 43, 60].contains(next) {
          next = bytes[offset]
          offset += 8 * (1 + Int(bytes[offset + 1]))
        } else {
          break
        }
      }
      transport = next
      transportOffset = offset
      isFragment = fragment != nil
      fragmentOffset = fragment ?? 0
    }
  }

  func number(_ range: Range<Int>) -> UInt64 { bigEndian(bytes[range]) }

  mutating func set16(_ value: Int, at offset: Int) {
    bytes.replaceSubrange(offset..<offset + 2, with: be16(UInt16(truncatingIfNeeded: value)))
  }

  var source: IPAddress { IPAddress(octets: Array(isV4 ? bytes[12..<16] : bytes[8..<24])) }
  var destination: IPAddress { IPAddress(octets: Array(isV4 ? bytes[16..<20] : bytes[24..<40])) }
  var isTCP: Bool { transport == 6 }
  var isUDP: Bool { transport == 17 }
  /// IP and transport headers.
  var headerLength: Int {
    isTCP ? transportOffset + Int(bytes[transportOffset + 12] >> 4) * 4 : transportOffset + 8
  }
  var tcpFlags: UInt8 { bytes[transportOffset + 13] }
  var hasDontFragment: Bool { isV4 && bytes[6] & 0x40 != 0 }

  var hasRightHeaderChecksum: Bool { !isV4 || onesComplementSum(Array(bytes[0..<transportOffset])) == 0xFFFF }

  var hasRightTransportChecksum: Bool {
    let segment = Array(bytes[transportOffset...])
    let pseudo = pseudoHeader(source, destination, transport, length: segment.count)
    return onesComplementSum(pseudo + segment) == 0xFFFF
  }

  /// Packets with equal keys are to arrive in the order in which they were sent.
  var flow: [UInt8] {
    let ends = source.octets + destination.octets + [transport, isFragment ? 1 : 0]
    if isFragment { return ends + (isV4 ? Array(bytes[4..<6]) : []) }
    return ends + (isTCP || isUDP ? Array(bytes[transportOffset..<transportOffset + 4]) : [])
  }

  mutating func writeHeaderChecksum() {
    guard isV4 else { return }
    set16(0, at: 10)
    set16(Int(~onesComplementSum(Array(bytes[0..<transportOffset]))), at: 10)
  }

  mutating func writeTransportChecksum() {
    let field = transportOffset + (isTCP ? 16 : 6)
    set16(0, at: field)
    let segment = Array(bytes[transportOffset...])
    var checksum = ~onesComplementSum(pseudoHeader(source, destination, transport, length: segment.count) + segment)
    if checksum == 0, isUDP { checksum = 0xFFFF }
    set16(Int(checksum), at: field)
  }

  /// The packets that a network card makes of a superpacket: RFC 9293 §3.1 and §3.8 for TCP's numbers and flags, RFC
  /// 3168 §6.1.2 for CWR, RFC 791 and RFC 6864 for lengths and identifications, RFC 768 for UDP.
  func segments(of size: Int) -> [SlowPacket] {
    let header = Array(bytes[..<headerLength])
    let payload = Array(bytes[headerLength...])
    var pieces = stride(from: 0, to: payload.count, by: size).map { Array(payload[$0..<min($0 + size, payload.count)]) }
    if pieces.isEmpty { pieces = [[]] }
    return pieces.enumerated().map { index, piece in
      var packet = SlowPacket(header + piece)
      packet.set16(packet.bytes.count - (isV4 ? 0 : 40), at: isV4 ? 2 : 4)
      if isV4 { packet.set16(Int(number(4..<6)) + index, at: 4) }
      if isTCP {
        let field = transportOffset + 4
        let sequence = UInt32(truncatingIfNeeded: Int(number(field..<field + 4)) + index * size)
        packet.bytes.replaceSubrange(field..<field + 4, with: be32(sequence))
        if index < pieces.count - 1 { packet.bytes[transportOffset + 13] &= ~(TCPFlags.fin | TCPFlags.psh) }
        if index > 0 { packet.bytes[transportOffset + 13] &= ~TCPFlags.cwr }
      } else {
        packet.set16(packet.bytes.count - transportOffset, at: transportOffset + 4)
      }
      packet.writeHeaderChecksum()
      packet.writeTransportChecksum()
      return packet
    }
  }
}
