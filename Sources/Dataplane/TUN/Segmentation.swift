import PacketIO

/// How one TUN superpacket is cut into inner packets: decided once, then each header is laid out in turn.
///
/// The cut happens in the TUN buffer itself. A segment's header is written in front of its payload, over the end
/// of the payload before it, which has been sealed by then; so the segment lies in one piece and nothing is copied.
struct Segmentation: BitwiseCopyable {
  /// The longest header chain that is cut; longer ones do not occur with segmentation offload.
  static let headerCapacity = 256

  /// False: the packet goes as it is, as one segment.
  let isCut: Bool
  let count: Int
  /// Bytes of IP and transport headers in each segment.
  let headerLength: Int
  /// Payload bytes of each segment but the last.
  private let payloadLength: Int
  private let lastPayloadLength: Int
  private let transportOffset: Int
  private let isV4: Bool
  private let isTCP: Bool

  /// Flags that belong to the last segment only: FIN and PSH; and to the first only: CWR (RFC 3168 §6.1.2).
  private static let finAndPush: UInt8 = 0x09
  private static let cwr: UInt8 = 0x80

  /// Nil when the packet contradicts its offload metadata.
  /// - Parameter bytes: the packet and nothing behind it.
  init?(_ superpacket: Superpacket, _ packet: InnerPacket, _ bytes: PacketBytes) {
    let offload = superpacket.offload
    isCut = offload.segmentation != .none
    isV4 = packet.isV4
    isTCP = packet.transport == IPProtocol.tcp
    transportOffset = packet.transportOffset
    guard isCut else {
      count = 1
      headerLength = transportOffset
      payloadLength = packet.length &- transportOffset
      lastPayloadLength = payloadLength
      // In front of the transport header a checksum would change what the packet was routed by.
      let start = Int(offload.checksumStart)
      guard
        !offload.needsChecksum
          || start >= transportOffset && start &+ Int(offload.checksumOffset) &+ 2 <= packet.length
      else { return nil }
      return
    }
    let size = Int(superpacket.segmentSize)
    guard size > 0, !packet.isFragment, Segmentation.suits(offload.segmentation, packet) else { return nil }
    if isTCP {
      guard transportOffset &+ 20 <= packet.length else { return nil }
      let tcpLength = Int(bytes[transportOffset &+ 12] >> 4) &* 4
      guard tcpLength >= 20 else { return nil }
      headerLength = transportOffset &+ tcpLength
    } else {
      headerLength = transportOffset &+ 8
    }
    guard headerLength <= Segmentation.headerCapacity, headerLength <= packet.length else { return nil }
    let payload = packet.length &- headerLength
    payloadLength = size
    count = max((payload &+ size &- 1) / size, 1)
    lastPayloadLength = payload &- (count &- 1) &* size
  }

  @inline(__always)
  private static func suits(_ segmentation: Offload.Segmentation, _ packet: InnerPacket) -> Bool {
    switch segmentation {
    case .tcp4: packet.transport == IPProtocol.tcp && packet.isV4
    case .tcp6: packet.transport == IPProtocol.tcp && !packet.isV4
    case .udp: packet.transport == IPProtocol.udp
    case .none: false
    }
  }

  /// Bytes of segment `index`, headers and payload.
  @inline(__always)
  func length(_ index: Int) -> Int {
    headerLength &+ (index == count &- 1 ? lastPayloadLength : payloadLength)
  }

  /// Where segment `index` begins, relative to the superpacket; behind the start of its header for all but the first.
  @inline(__always)
  func start(_ index: Int) -> Int { index &* payloadLength }

  /// Writes the header of segment `index` in front of its payload. Call in ascending order, each segment only when
  /// the one before it is no longer needed.
  @inline(__always)
  func layOut(_ index: Int, in bytes: PacketBytes, header: PacketBytes) {
    let length = length(index)
    let segment = bytes.slice(start(index), length)
    if index > 0 { segment.copy(header.slice(0, headerLength), to: 0) }

    if isV4 {
      segment.store16(UInt16(truncatingIfNeeded: length), 2)
      segment.store16(segment.load16(4) &+ UInt16(truncatingIfNeeded: index), 4)
      Checksum.setIPv4Header(segment, length: transportOffset)
    } else {
      segment.store16(UInt16(truncatingIfNeeded: length &- 40), 4)
    }

    let transport = segment.dropFirst(transportOffset)
    let checksumOffset: Int
    if isTCP {
      transport.store32(transport.load32(4) &+ UInt32(truncatingIfNeeded: start(index)), 4)
      var flags = transport[13]
      if index < count &- 1 { flags &= ~Segmentation.finAndPush }
      if index > 0 { flags &= ~Segmentation.cwr }
      transport[13] = flags
      checksumOffset = 16
    } else {
      transport.store16(UInt16(truncatingIfNeeded: transport.count), 4)
      checksumOffset = 6
    }
    transport.store16(0, checksumOffset)
    let pseudo = Checksum.pseudoHeader(
      segment, isV4: isV4, protocolNumber: isTCP ? IPProtocol.tcp : IPProtocol.udp, length: transport.count)
    let checksum = Checksum.finish(Checksum.sum(transport, pseudo))
    transport.store16(checksum == 0 && !isTCP ? 0xFFFF : checksum, checksumOffset)
  }

  /// Completes the partial checksum of a packet that is not cut (virtio 1.2 §5.1.6.2).
  static func completeChecksum(_ offload: Offload, in bytes: PacketBytes) {
    let start = Int(offload.checksumStart)
    // The field already holds the pseudo-header's sum, so it stays in the range that is summed.
    let checksum = Checksum.finish(Checksum.sum(bytes.dropFirst(start)))
    bytes.store16(checksum == 0 && offload.checksumOffset == 6 ? 0xFFFF : checksum, start &+ Int(offload.checksumOffset))
  }
}
