import Foundation
import Host
import PacketIO

/// A packet that nobody has sent, made up to ask what would become of it.
struct TestPacket: Sendable, Equatable {
  /// What it carries.
  enum Transport: String, Sendable, CaseIterable {
    /// A handshake's first packet.
    case tcp
    case udp
    /// An echo request, of either family.
    case icmp
    /// Any other protocol, without content.
    case other
  }

  var source: IPAddress
  var destination: IPAddress
  var transport: Transport
  var sourcePort: UInt16
  var destinationPort: UInt16
  /// Protocol number (IANA), where `transport` is `other`.
  var number: UInt8
  /// Bytes of the whole packet; made larger where its headers need more.
  var length: Int

  /// - Throws: `OperatorError` for two addresses of different families.
  init(
    from source: IPAddress, to destination: IPAddress, transport: Transport, sourcePort: UInt16 = 49152,
    destinationPort: UInt16 = 0, number: UInt8 = 0, length: Int = 0
  ) throws {
    guard source.family == destination.family else {
      throw OperatorError("\(source) and \(destination) are of different families", remedy: "give two of one family")
    }
    self.source = source
    self.destination = destination
    self.transport = transport
    self.sourcePort = sourcePort
    self.destinationPort = destinationPort
    self.number = number
    self.length = length
  }

  /// The packet with right checksums, its content zeros; with "don't fragment" set (RFC 791 §3.1).
  var bytes: [UInt8] {
    var content = header
    let front = source.isV4 ? 20 : 40
    content += [UInt8](repeating: 0, count: min(max(length - front - content.count, 0), 0xFFFF - front - content.count))
    if transport == .udp { content.replaceSubrange(4..<6, with: word(content.count)) }
    if let place = checksumPlace {
      let sum = TestPacket.checksum(pseudoHeader(content.count) + content)
      content.replaceSubrange(place..<place + 2, with: word(sum == 0 && transport == .udp ? 0xFFFF : sum))
    }
    return ipHeader(content.count) + content
  }

  private var protocolNumber: UInt8 {
    switch transport {
    case .tcp: 6
    case .udp: 17
    case .icmp: source.isV4 ? 1 : 58
    case .other: number
    }
  }

  private var header: [UInt8] {
    switch transport {
    case .tcp:
      word(Int(sourcePort)) + word(Int(destinationPort)) + [0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 0xFF, 0xFF, 0, 0, 0, 0]
        + [2, 4] + word(source.isV4 ? 1460 : 1440)
    case .udp: word(Int(sourcePort)) + word(Int(destinationPort)) + [0, 8, 0, 0]
    case .icmp: [source.isV4 ? 8 : 128, 0, 0, 0] + word(Int(sourcePort)) + [0, 1]
    case .other: []
    }
  }

  private var checksumPlace: Int? {
    switch transport {
    case .tcp: 16
    case .udp: 6
    case .icmp: 2
    case .other: nil
    }
  }

  private func ipHeader(_ count: Int) -> [UInt8] {
    guard source.isV4 else {
      return [0x60, 0, 0, 0] + word(count) + [protocolNumber, 64] + octets(source) + octets(destination)
    }
    var header: [UInt8] =
      [0x45, 0] + word(20 + count) + [0, 0, 0x40, 0, 64, protocolNumber, 0, 0] + octets(source) + octets(destination)
    header.replaceSubrange(10..<12, with: word(TestPacket.checksum(header)))
    return header
  }

  /// ICMP has none over IPv4 (RFC 792).
  private func pseudoHeader(_ count: Int) -> [UInt8] {
    if source.isV4, transport == .icmp { return [] }
    return octets(source) + octets(destination) + [0, protocolNumber] + word(count)
  }

  private func word(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 0xFF), UInt8(value & 0xFF)] }

  private func octets(_ address: IPAddress) -> [UInt8] {
    if address.isV4 { return (0..<4).map { UInt8(truncatingIfNeeded: address.v4 >> (24 - 8 * $0)) } }
    return [address.high, address.low].flatMap { half in
      (0..<8).map { UInt8(truncatingIfNeeded: half >> (56 - 8 * $0)) }
    }
  }

  private static func checksum(_ bytes: [UInt8]) -> Int {
    var sum = 0
    for (place, byte) in bytes.enumerated() { sum += place.isMultiple(of: 2) ? Int(byte) << 8 : Int(byte) }
    while sum > 0xFFFF { sum = sum >> 16 + sum & 0xFFFF }
    return ~sum & 0xFFFF
  }
}
