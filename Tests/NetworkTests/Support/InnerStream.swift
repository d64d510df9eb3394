import Lab

/// Looks at inner packets with no code of the product.
enum InnerStream {
  /// What is wrong with an IPv4 or IPv6 packet's lengths and checksums; nil: nothing.
  static func problem(_ packet: [UInt8]) -> String? {
    guard let parts = parts(packet) else { return "not a whole IP packet" }
    if packet[0] >> 4 == 4, sum(packet[..<parts.headerLength]) != 0xFFFF { return "IPv4 header checksum" }
    guard [1, 6, 17, 58].contains(parts.next) else { return "protocol \(parts.next)" }
    if parts.isFragment { return nil }
    // ICMP alone has no pseudo-header (RFC 792).
    let transport = packet[parts.headerLength...]
    var pseudo: [UInt8] = []
    if parts.next != 1 {
      pseudo =
        Array(parts.addresses) + [
          0, 0, UInt8(transport.count >> 8), UInt8(transport.count & 255), 0, UInt8(parts.next),
        ]
    }
    return sum(pseudo + transport) == 0xFFFF ? nil : "checksum of protocol \(parts.next)"
  }

  /// The digest of all that TCP carried to `port`, in the order of its sequence numbers.
  /// - Parameter streams: that many connections, one after the other or beside each other.
  static func digests(_ packets: [[UInt8]], toward port: UInt16? = nil) -> [UInt64] {
    struct Flow: Hashable {
      var addresses: [UInt8]
      var ports: [UInt8]
    }
    var order: [Flow] = []
    var pieces: [Flow: [(offset: UInt32, bytes: [UInt8])]] = [:]
    var starts: [Flow: UInt32] = [:]
    for packet in packets {
      guard let parts = parts(packet), parts.next == 6, !parts.isFragment else { continue }
      let tcp = Array(packet[parts.headerLength...])
      guard tcp.count >= 20 else { continue }
      let flow = Flow(addresses: Array(parts.addresses), ports: Array(tcp[..<4]))
      let sequence = tcp[4..<8].reduce(0) { $0 << 8 | UInt32($1) }
      let isSYN = tcp[13] & 2 != 0
      if isSYN {
        if starts.updateValue(sequence &+ 1, forKey: flow) == nil { order.append(flow) }
      }
      let payload = Array(tcp[(Int(tcp[12] >> 4) * 4)...])
      if !payload.isEmpty, let start = starts[flow] { pieces[flow, default: []].append((sequence &- start, payload)) }
    }
    return order.compactMap { flow in
      var digest = StreamDigest()
      var next: UInt32 = 0
      for piece in (pieces[flow] ?? []).sorted(by: { $0.offset < $1.offset })
      where piece.offset + UInt32(piece.bytes.count) > next {
        guard piece.offset <= next else { return nil }
        digest.update(Array(piece.bytes[Int(next - piece.offset)...]))
        next = piece.offset + UInt32(piece.bytes.count)
      }
      return next == 0 ? nil : digest.value
    }
  }

  private static func parts(
    _ packet: [UInt8]
  ) -> (headerLength: Int, next: Int, addresses: ArraySlice<UInt8>, isFragment: Bool)? {
    guard packet.count >= 20 else { return nil }
    func word(_ offset: Int) -> Int { Int(packet[offset]) << 8 | Int(packet[offset + 1]) }
    switch packet[0] >> 4 {
    case 4:
      let length = Int(packet[0] & 15) * 4
      guard word(2) == packet.count, length >= 20, packet.count >= length else { return nil }
      return (length, Int(packet[9]), packet[12..<20], word(6) & 0x3FFF != 0)
    case 6:
      guard packet.count >= 40, word(4) == packet.count - 40 else { return nil }
      let isFragment = packet[6] == 44
      return (40, isFragment ? Int(packet[40]) : Int(packet[6]), packet[8..<40], isFragment)
    default: return nil
    }
  }

  private static func sum(_ bytes: some Collection<UInt8>) -> Int {
    let bytes = Array(bytes)
    var sum = 0
    var index = 0
    while index + 1 < bytes.count {
      sum += Int(bytes[index]) << 8 | Int(bytes[index + 1])
      index += 2
    }
    if index < bytes.count { sum += Int(bytes[index]) << 8 }
    while sum > 0xFFFF { sum = sum >> 16 + sum & 0xFFFF }
    return sum
  }
}
