import PacketIO

/// A packet described field by field, and written out as the RFCs say: slow, obvious, and sharing no code with the
/// packet path that is tested with it.
struct PacketSketch {
  enum Body {
    case tcp(TCP)
    case udp(sourcePort: UInt16, destinationPort: UInt16, hasChecksum: Bool = true)
    /// ICMP, or any protocol whose checksum is the sender's business.
    case other(UInt8)
  }

  struct TCP {
    var sourcePort: UInt16
    var destinationPort: UInt16
    var sequence: UInt32 = 1
    var acknowledgement: UInt32 = 1
    var flags: UInt8 = TCPFlags.ack
    var window: UInt16 = 1000
    /// A multiple of four bytes, 40 at most.
    var options: [UInt8] = []
  }

  /// What stands in the transport checksum field.
  enum ChecksumField {
    case right, wrong
    /// The pseudo-header's sum only, as a kernel leaves it to its network card.
    case partial
  }

  var source: IPAddress
  var destination: IPAddress
  var body: Body
  var payload: [UInt8] = []
  var checksumField = ChecksumField.right

  /// TOS, or the traffic class.
  var tos: UInt8 = 0
  /// TTL, or the hop limit.
  var ttl: UInt8 = 64
  /// IPv4.
  var identification: UInt16 = 0
  var dontFragment = true
  var wrongHeaderChecksum = false
  var options: [UInt8] = []
  /// IPv6.
  var flowLabel: UInt32 = 0
  /// Extension headers: their number and what follows the next-header byte, 7 bytes or 8 more.
  var extensions: [(type: UInt8, rest: [UInt8])] = []
  /// As in the IPv4 header or the fragment header: units of 8 bytes.
  var fragment: (offset: UInt16, more: Bool)?

  init(_ source: String, _ destination: String, _ body: Body, payload: [UInt8] = []) {
    self.source = IPAddress(source)!
    self.destination = IPAddress(destination)!
    self.body = body
    self.payload = payload
  }

  var isV4: Bool { source.isV4 }

  var transport: UInt8 {
    switch body {
    case .tcp: 6
    case .udp: 17
    case .other(let number): number
    }
  }

  /// The packet as it is on a wire.
  var bytes: [UInt8] { isV4 ? bytesV4 : bytesV6 }

  /// The TUN header's `csum_start`: where the transport header begins.
  var transportOffset: Int {
    if isV4 { return 20 + options.count }
    return 40 + extensions.reduce(0) { $0 + 1 + $1.rest.count } + (fragment == nil ? 0 : 8)
  }

  /// The TUN header's `csum_offset`.
  var checksumOffset: Int { transport == 6 ? 16 : 6 }

  private var bytesV4: [UInt8] {
    let content = transportBytes
    var header: [UInt8] = [0x40 | UInt8(5 + options.count / 4), tos]
    header += be16(UInt16(20 + options.count + content.count)) + be16(identification)
    header += be16((dontFragment ? 0x4000 : 0) | (fragment?.more == true ? 0x2000 : 0) | (fragment?.offset ?? 0))
    header += [ttl, transport, 0, 0] + source.octets + destination.octets + options
    let checksum = ~onesComplementSum(header) ^ (wrongHeaderChecksum ? 0x1111 : 0)
    header.replaceSubrange(10..<12, with: be16(checksum))
    return header + content
  }

  private var bytesV6: [UInt8] {
    let content = transportBytes
    var chain: [UInt8] = []
    var next = transport
    if let fragment {
      chain = [next, 0] + be16(fragment.offset << 3 | (fragment.more ? 1 : 0)) + be32(UInt32(identification))
      next = 44
    }
    for header in extensions.reversed() {
      precondition((1 + header.rest.count) % 8 == 0)
      chain = [next] + header.rest + chain
      next = header.type
    }
    var header = be32(6 << 28 | UInt32(tos) << 20 | flowLabel)
    header += be16(UInt16(chain.count + content.count)) + [next, ttl] + source.octets + destination.octets
    return header + chain + content
  }

  private var transportBytes: [UInt8] {
    var segment: [UInt8]
    switch body {
    case .other: return payload
    case .udp(let sourcePort, let destinationPort, let hasChecksum):
      segment = be16(sourcePort) + be16(destinationPort) + be16(UInt16(truncatingIfNeeded: 8 + payload.count)) + [0, 0]
      segment += payload
      if !hasChecksum { return segment }
    case .tcp(let tcp):
      segment = be16(tcp.sourcePort) + be16(tcp.destinationPort) + be32(tcp.sequence) + be32(tcp.acknowledgement)
      segment += [UInt8(5 + tcp.options.count / 4) << 4, tcp.flags] + be16(tcp.window) + [0, 0, 0, 0] + tcp.options
      segment += payload
    }
    // Of a fragment the checksum cannot be told; the sender's own stays as it is.
    if fragment != nil { return segment }
    let pseudo = pseudoHeader(source, destination, transport, length: segment.count)
    var checksum: UInt16
    switch checksumField {
    case .partial: checksum = onesComplementSum(pseudo)
    case .right: checksum = ~onesComplementSum(pseudo + segment)
    case .wrong: checksum = ~onesComplementSum(pseudo + segment) ^ 0x0101
    }
    if checksum == 0, transport == 17 { checksum = 0xFFFF }
    segment.replaceSubrange(checksumOffset..<checksumOffset + 2, with: be16(checksum))
    return segment
  }
}

enum TCPFlags {
  static let fin: UInt8 = 0x01
  static let syn: UInt8 = 0x02
  static let rst: UInt8 = 0x04
  static let psh: UInt8 = 0x08
  static let ack: UInt8 = 0x10
  static let urg: UInt8 = 0x20
  static let ece: UInt8 = 0x40
  static let cwr: UInt8 = 0x80
}

func be16(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 0xFF)] }
func be32(_ value: UInt32) -> [UInt8] { be16(UInt16(value >> 16)) + be16(UInt16(value & 0xFFFF)) }
func be64(_ value: UInt64) -> [UInt8] { be32(UInt32(value >> 32)) + be32(UInt32(truncatingIfNeeded: value)) }

/// The sum of 16-bit words with end-around carry (RFC 1071), an odd last byte padded with zero.
func onesComplementSum(_ bytes: [UInt8]) -> UInt16 {
  var sum: UInt64 = 0
  var index = 0
  while index < bytes.count {
    sum += UInt64(bytes[index]) << 8 + (index + 1 < bytes.count ? UInt64(bytes[index + 1]) : 0)
    index += 2
  }
  while sum > 0xFFFF { sum = sum & 0xFFFF + sum >> 16 }
  return UInt16(sum)
}

func pseudoHeader(_ source: IPAddress, _ destination: IPAddress, _ transport: UInt8, length: Int) -> [UInt8] {
  source.octets + destination.octets
    + (source.isV4 ? [0, transport] + be16(UInt16(length)) : be32(UInt32(length)) + [0, 0, 0, transport])
}

extension IPAddress {
  var octets: [UInt8] { isV4 ? be32(v4) : be64(high) + be64(low) }

  init(octets: [UInt8]) {
    if octets.count == 4 {
      self.init(v4: UInt32(bigEndian(octets)))
    } else {
      self.init(v6High: bigEndian(octets[0..<8]), low: bigEndian(octets[8..<16]))
    }
  }
}
