import PacketIO

@testable import Dataplane

/// A packet of a host behind one gateway to a host behind another. Its number is in it, and all its bytes follow from
/// it, so that nothing of it has to be kept.
struct Packet {
  enum Shape: UInt8 {
    case udp
    /// IPv6 and a protocol without ports.
    case other
  }

  var number: UInt64 = 0
  var shape = Shape.udp
  /// Bytes in all, `shortest` or more.
  var size: Int
  var ports: (source: UInt16, destination: UInt16) = (5000, 7)
  var source: IPAddress
  var destination: IPAddress

  static let shortest = 60
  static let udpHeader = 28
  private static let protocolOfOthers: UInt8 = 253

  /// What a device makes of several packets of one flow and size, numbered one after the other, whose first this is.
  func joined(_ count: Int) -> [UInt8] {
    precondition(shape == .udp)
    var bytes = header(length: Packet.udpHeader + count * (size - Packet.udpHeader))
    // The sum over the pseudo-header only, as a kernel leaves it to its network card.
    store16(UInt16(folding: pseudoSum(length: bytes.count + payloadSize * count - 20)), at: 26, in: &bytes)
    for index in 0..<count {
      var packet = self
      packet.number += UInt64(index)
      bytes += packet.payload
    }
    return bytes
  }

  var bytes: [UInt8] {
    var bytes = header(length: size) + payload
    guard shape == .udp else { return bytes }
    var sum = pseudoSum(length: size - 20)
    for index in stride(from: 20, to: 26, by: 2) { sum += UInt32(bytes[index]) << 8 | UInt32(bytes[index + 1]) }
    sum += payloadSum
    let checksum = ~UInt16(folding: sum)
    store16(checksum == 0 ? 0xFFFF : checksum, at: 26, in: &bytes)
    return bytes
  }

  private var payloadSize: Int { size - (shape == .udp ? Packet.udpHeader : 40) }
  private var filling: UInt8 { UInt8(truncatingIfNeeded: number &* 167 >> 3) }

  /// The number, and a byte over and over.
  private var payload: [UInt8] {
    var payload = [UInt8](repeating: filling, count: payloadSize)
    for index in 0..<8 { payload[index] = UInt8(truncatingIfNeeded: number >> UInt64(56 - 8 * index)) }
    return payload
  }

  private var payloadSum: UInt32 {
    let rest = UInt32(payloadSize - 8)
    var sum = rest / 2 * (UInt32(filling) * 0x101) + rest % 2 * (UInt32(filling) << 8)
    for shift in [0, 16, 32, 48] as [UInt64] { sum += UInt32(truncatingIfNeeded: number >> shift & 0xFFFF) }
    return sum
  }

  private func pseudoSum(length: Int) -> UInt32 {
    var sum = UInt32(17) + UInt32(length)
    for address in [source.v4, destination.v4] { sum += address >> 16 + address & 0xFFFF }
    return sum
  }

  private func header(length: Int) -> [UInt8] {
    guard shape == .udp else {
      var bytes: [UInt8] = [0x60, 0, 0, 0, 0, 0, Packet.protocolOfOthers, 64]
      store16(UInt16(length - 40), at: 4, in: &bytes)
      for address in [source, destination] {
        for word in [address.high, address.low] { append(word, to: &bytes) }
      }
      return bytes
    }
    var bytes: [UInt8] = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0]
    store16(UInt16(length), at: 2, in: &bytes)
    append(UInt64(source.v4) << 32 | UInt64(destination.v4), to: &bytes)
    var sum: UInt32 = 0
    for index in stride(from: 0, to: 20, by: 2) { sum += UInt32(bytes[index]) << 8 | UInt32(bytes[index + 1]) }
    store16(~UInt16(folding: sum), at: 10, in: &bytes)
    append(
      UInt64(ports.source) << 48 | UInt64(ports.destination) << 32 | UInt64(length - 20) << 16, to: &bytes)
    return bytes
  }

  // MARK: What came out

  /// The number of the packet that begins at `offset`; nil when there is no room for one.
  static func number(in bytes: [UInt8], at offset: Int = 0) -> UInt64? {
    guard bytes.count > offset else { return nil }
    let place = offset + (bytes[offset] >> 4 == 4 ? udpHeader : 40)
    guard bytes.count >= place + 8 else { return nil }
    return bytes[place..<place + 8].reduce(0) { $0 << 8 | UInt64($1) }
  }

  /// Cuts what a device got for several packets into these. Their checksums are not made anew.
  static func cut(_ bytes: [UInt8], headerLength: Int, segmentSize: Int) -> [[UInt8]] {
    stride(from: headerLength, to: bytes.count, by: segmentSize).map {
      var packet = bytes[..<headerLength] + bytes[$0..<min($0 + segmentSize, bytes.count)]
      let length = packet.count
      for (place, value) in [(2, length), (24, length - 20)] {
        packet[place] = UInt8(truncatingIfNeeded: value >> 8)
        packet[place + 1] = UInt8(truncatingIfNeeded: value)
      }
      return Array(packet)
    }
  }

  /// Without what may be another on arrival: the identification, which says nothing where fragments are forbidden
  /// (RFC 6864), with it the header's checksum; and that of a packet which was cut.
  static func comparable(_ bytes: [UInt8], wasCut: Bool) -> [UInt8] {
    var bytes = bytes
    guard bytes.count >= udpHeader, bytes[0] >> 4 == 4 else { return bytes }
    for place in [4, 5, 10, 11] { bytes[place] = 0 }
    if wasCut { (bytes[26], bytes[27]) = (0, 0) }
    return bytes
  }
}

extension UInt16 {
  /// The sum with its carries taken in (RFC 1071).
  fileprivate init(folding sum: UInt32) {
    var sum = sum
    while sum > 0xFFFF { sum = sum & 0xFFFF + sum >> 16 }
    self.init(truncatingIfNeeded: sum)
  }
}

private func store16(_ value: UInt16, at place: Int, in bytes: inout [UInt8]) {
  bytes[place] = UInt8(value >> 8)
  bytes[place + 1] = UInt8(truncatingIfNeeded: value)
}

private func append(_ word: UInt64, to bytes: inout [UInt8]) {
  for shift in stride(from: 56, through: 0, by: -8) { bytes.append(UInt8(truncatingIfNeeded: word >> UInt64(shift))) }
}
