import PacketIO

/// How one packet from the TUN device is cut into packets that fit the path: decided once, then each header is laid
/// out in turn.
///
/// The cut happens in the TUN buffer itself. A segment's header is written in front of its payload, over the end
/// of the payload before it, which has been sealed by then; so the segment lies in one piece and nothing is copied.
struct Segmentation: BitwiseCopyable {
  /// The longest header chain that is cut; longer ones do not occur with segmentation offload.
  static let headerCapacity = 256

  enum Kind: UInt8, BitwiseCopyable {
    /// One packet, as it is.
    case whole
    /// TCP segments or UDP datagrams of a superpacket, each with its headers and checksum.
    case tcp, udp
    /// Fragments (RFC 791 §3.2, RFC 8200 §4.5): the IP header is repeated, the transport header is payload.
    case fragments
  }

  let kind: Kind
  let count: Int
  /// Bytes of headers that each segment repeats.
  let headerLength: Int
  /// Payload bytes of each segment but the last.
  let payloadLength: Int
  private let lastPayloadLength: Int
  private let transportOffset: Int
  private let isV4: Bool

  /// Flags that belong to the last segment only: FIN and PSH; and to the first only: CWR (RFC 3168 §6.1.2).
  private static let finAndPush: UInt16 = 0x09
  private static let cwr: UInt16 = 0x80
  /// ACK, with or without PSH, FIN and ECE: what a single TCP packet may carry to be cut.
  private static let cuttableFlags: UInt8 = 0x10
  private static let moreFragments: UInt16 = 0x2000
  private static let moreFragmentsV6: UInt16 = 1
  static let dontFragment: UInt16 = 0x4000

  /// Follows the packet's offload metadata; TCP is cut smaller where `limit` demands it, which any receiver takes.
  /// Nil when the packet contradicts its metadata.
  ///
  /// - Parameters:
  ///   - bytes: the packet and nothing behind it.
  ///   - limit: bytes of the largest inner packet that fits the path.
  @inline(__always)
  init?(_ superpacket: Superpacket, _ packet: InnerPacket, _ bytes: PacketBytes, limit: Int) {
    let offload = superpacket.offload
    let size = Int(superpacket.segmentSize)
    switch offload.segmentation {
    case .none:
      // In front of the transport header a checksum would change what the packet was routed by.
      let start = Int(offload.checksumStart)
      guard
        !offload.needsChecksum
          || start >= packet.transportOffset && start &+ Int(offload.checksumOffset) &+ 2 <= packet.length
      else { return nil }
      self.init(whole: packet)
      return
    case .tcp4, .tcp6:
      guard packet.transport == IPProtocol.tcp, packet.isV4 == (offload.segmentation == .tcp4), !packet.isFragment,
        size > 0, let headerLength = Segmentation.tcpHeaders(packet, bytes), headerLength < limit
      else { return nil }
      self.init(
        .tcp, packet, headerLength: headerLength, payload: packet.length &- headerLength,
        size: min(size, limit &- headerLength))
    case .udp:
      let headerLength = packet.transportOffset &+ 8
      guard packet.transport == IPProtocol.udp, !packet.isFragment, size > 0, headerLength <= packet.length else {
        return nil
      }
      self.init(.udp, packet, headerLength: headerLength, payload: packet.length &- headerLength, size: size)
    }
    guard headerLength <= Segmentation.headerCapacity else { return nil }
  }

  /// Cuts a single packet that is larger than the path takes: TCP data into segments, other IPv4 packets into
  /// fragments where the sender allows it, and IPv6 packets that have a fragment header and are as small as any link
  /// must take. Nil when it may not be cut, and the sender has to be told.
  init?(oversized packet: InnerPacket, _ bytes: PacketBytes, needsChecksum: Bool, limit: Int) {
    if packet.transport == IPProtocol.tcp, !packet.isFragment,
      let headerLength = Segmentation.tcpHeaders(packet, bytes),
      headerLength < limit, headerLength <= Segmentation.headerCapacity,
      bytes[packet.transportOffset &+ 13] & 0xB6 == Segmentation.cuttableFlags,
      needsChecksum || Checksum.isTransportRight(bytes.slice(0, packet.length), packet)
    {
      self.init(
        .tcp, packet, headerLength: headerLength, payload: packet.length &- headerLength, size: limit &- headerLength)
    } else if packet.isV4, bytes.load16(6) & Segmentation.dontFragment == 0 {
      self.init(
        .fragments, packet, headerLength: packet.transportOffset, payload: packet.length &- packet.transportOffset,
        size: (limit &- packet.transportOffset) & ~7)
    } else if packet.isFragment, packet.length <= InnerPacket.leastMTUv6 + FragmentHeader.lengthV6,
      let header = ExtensionHeaders(bytes)?.fragment,
      case let end = header &+ FragmentHeader.lengthV6, end <= Segmentation.headerCapacity
    {
      self.init(
        .fragments, packet, headerLength: end, payload: packet.length &- end, size: (limit &- end) & ~7)
    } else {
      return nil
    }
  }

  /// One packet, as it is.
  init(whole packet: InnerPacket) {
    let payload = packet.length &- packet.transportOffset
    self.init(.whole, packet, headerLength: packet.transportOffset, payload: payload, size: payload)
  }

  @inline(__always)
  private init(_ kind: Kind, _ packet: InnerPacket, headerLength: Int, payload: Int, size: Int) {
    self.kind = kind
    self.headerLength = headerLength
    isV4 = packet.isV4
    transportOffset = packet.transportOffset
    guard kind != .whole, size > 0, payload > size else {
      count = 1
      payloadLength = max(payload, kind == .whole ? payload : 1)
      lastPayloadLength = payload
      return
    }
    payloadLength = size
    count = (payload &+ size &- 1) / size
    lastPayloadLength = payload &- (count &- 1) &* size
  }

  /// Bytes of IP and TCP headers; nil when they do not fit the packet.
  @inline(__always)
  private static func tcpHeaders(_ packet: InnerPacket, _ bytes: PacketBytes) -> Int? {
    guard packet.transportOffset &+ 20 <= packet.length else { return nil }
    let length = Int(bytes[packet.transportOffset &+ 12] >> 4) &* 4
    guard length >= 20, packet.transportOffset &+ length <= packet.length else { return nil }
    return packet.transportOffset &+ length
  }

  /// Bytes of segment `index`, headers and payload.
  @inline(__always)
  func length(_ index: Int) -> Int {
    headerLength &+ (index == count &- 1 ? lastPayloadLength : payloadLength)
  }

  /// Bytes of all segments.
  @inline(__always)
  var totalLength: Int { count &* headerLength &+ (count &- 1) &* payloadLength &+ lastPayloadLength }

  /// Where segment `index` begins, relative to the superpacket.
  @inline(__always)
  func start(_ index: Int) -> Int { index &* payloadLength }

  /// Sums of what the headers of all segments have in common, so that each adds only what it has of its own.
  struct HeaderSums: BitwiseCopyable {
    /// Of the IPv4 header, without length, identification and checksum.
    fileprivate var network: UInt64 = 0
    /// Of pseudo-header and transport header, without lengths, checksum, TCP's sequence number, data offset and flags.
    fileprivate var transport: UInt64 = 0
  }

  /// - Parameter header: the first `headerLength` bytes as they are before the first segment is laid out.
  func sums(_ header: PacketBytes) -> HeaderSums {
    var sums = HeaderSums()
    guard kind == .tcp || kind == .udp else { return sums }
    if isV4 {
      sums.network = Checksum.sum(header.slice(0, 2))
      sums.network = Checksum.sum(header.slice(6, 4), sums.network)
      sums.network = Checksum.sum(header.slice(12, transportOffset &- 12), sums.network)
    }
    let number = kind == .tcp ? IPProtocol.tcp : IPProtocol.udp
    sums.transport = Checksum.pseudoHeader(header, isV4: isV4, protocolNumber: number, length: 0)
    let transport = header.slice(transportOffset, headerLength &- transportOffset)
    sums.transport = Checksum.sum(transport.slice(0, 4), sums.transport)
    guard kind == .tcp else { return sums }
    sums.transport = Checksum.sum(transport.slice(8, 4), sums.transport)
    sums.transport = Checksum.sum(transport.slice(14, 2), sums.transport)
    sums.transport = Checksum.sum(transport.dropFirst(18), sums.transport)
    return sums
  }

  /// Writes the header of segment `index` in front of its payload. Call in ascending order, each segment only when
  /// the one before it is no longer needed.
  ///
  /// - Parameters:
  ///   - header: a copy of the first `headerLength` bytes as they were before the first call.
  ///   - sums: what `sums` says of it.
  @inline(__always)
  func layOut(_ index: Int, in bytes: PacketBytes, header: PacketBytes, sums: HeaderSums) {
    let segment = bytes.slice(start(index), length(index))
    if index > 0 { segment.copy(header.slice(0, headerLength), to: 0) }
    switch kind {
    case .whole: break
    case .fragments: layOutFragment(index, segment)
    case .tcp, .udp:
      layOutNetworkHeader(index, segment, sums)
      layOutTransportHeader(index, segment, sums)
    }
  }

  private func layOutFragment(_ index: Int, _ segment: PacketBytes) {
    guard isV4 else {
      segment.store16(UInt16(truncatingIfNeeded: segment.count &- 40), 4)
      // The offset is in units of eight bytes, and stands left of three bits.
      let place = headerLength &- FragmentHeader.lengthV6 &+ 2
      let field = segment.load16(place) &+ UInt16(truncatingIfNeeded: start(index))
      return segment.store16(index < count &- 1 ? field | Segmentation.moreFragmentsV6 : field, place)
    }
    segment.store16(UInt16(truncatingIfNeeded: segment.count), 2)
    let field = segment.load16(6) &+ UInt16(truncatingIfNeeded: start(index) / 8)
    segment.store16(index < count &- 1 ? field | Segmentation.moreFragments : field, 6)
    if index > 0, headerLength > 20 { blankOptions(segment) }
    Checksum.setIPv4Header(segment, length: headerLength)
  }

  /// Options without the copied bit stay with the first fragment (RFC 791 §3.1); no-operations take their places.
  private func blankOptions(_ segment: PacketBytes) {
    let endOfOptions: UInt8 = 0, noOperation: UInt8 = 1, copied: UInt8 = 0x80
    var option = 20
    while option < headerLength, segment[option] != endOfOptions {
      guard segment[option] != noOperation else {
        option += 1
        continue
      }
      guard option + 1 < headerLength else { return }
      let end = option + Int(segment[option + 1])
      guard end >= option + 2, end <= headerLength else { return }
      if segment[option] & copied == 0 { for index in option..<end { segment[index] = noOperation } }
      option = end
    }
  }

  @inline(__always)
  private func layOutNetworkHeader(_ index: Int, _ segment: PacketBytes, _ sums: HeaderSums) {
    if isV4 {
      let length = UInt16(truncatingIfNeeded: segment.count)
      let identification = segment.load16(4) &+ UInt16(truncatingIfNeeded: index)
      segment.store16(length, 2)
      segment.store16(identification, 4)
      let own = UInt64(length.bigEndian) &+ UInt64(identification.bigEndian)
      segment.store16(Checksum.finish(sums.network &+ own), 10)
    } else {
      segment.store16(UInt16(truncatingIfNeeded: segment.count &- 40), 4)
    }
  }

  @inline(__always)
  private func layOutTransportHeader(_ index: Int, _ segment: PacketBytes, _ sums: HeaderSums) {
    let transport = segment.dropFirst(transportOffset)
    let length = UInt16(truncatingIfNeeded: transport.count)
    var sum = sums.transport &+ UInt64(length.bigEndian)
    let checksumOffset: Int
    if kind == .tcp {
      let sequence = transport.load32(4) &+ UInt32(truncatingIfNeeded: start(index))
      var flags = transport.load16(12)
      if index < count &- 1 { flags &= ~Segmentation.finAndPush }
      if index > 0 { flags &= ~Segmentation.cwr }
      transport.store32(sequence, 4)
      transport.store16(flags, 12)
      sum &+= UInt64(sequence.bigEndian) &+ UInt64(flags.bigEndian)
      checksumOffset = 16
    } else {
      transport.store16(length, 4)
      sum &+= UInt64(length.bigEndian)
      checksumOffset = 6
    }
    let checksum = Checksum.finish(Checksum.sum(segment.dropFirst(headerLength), sum))
    transport.store16(checksum == 0 && kind == .udp ? 0xFFFF : checksum, checksumOffset)
  }

  /// Completes the partial checksum of a packet that is not cut (virtio 1.2 §5.1.6.2). Where it lies was checked by
  /// the initialiser.
  static func completeChecksum(_ offload: Offload, in bytes: PacketBytes) {
    let start = Int(offload.checksumStart)
    // The field already holds the pseudo-header's sum, so it stays in the range that is summed.
    let checksum = Checksum.finish(Checksum.sum(bytes.dropFirst(start)))
    bytes.store16(
      checksum == 0 && offload.checksumOffset == 6 ? 0xFFFF : checksum, start &+ Int(offload.checksumOffset))
  }
}
