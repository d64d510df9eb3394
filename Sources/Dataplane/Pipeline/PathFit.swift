import PacketIO

/// How an outbound packet is made to fit its path.
enum PathFit {
  enum Result {
    /// `isTold`: its sender meant larger packets, and shall learn what fits.
    case cut(Segmentation, isTold: Bool)
    /// Larger than the path takes, but not larger than what any path must take for IPv6.
    case tooLargeV6(Segmentation)
    case refused(DropReason, isTold: Bool)
  }

  /// - Parameters:
  ///   - limit: bytes of the largest inner packet that the path takes.
  ///   - trial: the same of one that cannot be cut. It is more while nothing is known of the path: then senders are told
  ///     nothing, because they would believe it for minutes.
  @inline(__always)
  static func fit(
    _ superpacket: Superpacket, _ bytes: PacketBytes, _ packet: InnerPacket, limit: Int, trial: Int
  ) -> Result {
    if SegmentSizeClamp.concerns(packet, bytes) {
      SegmentSizeClamp.apply(packet, bytes, limit: trial, hasPartialChecksum: superpacket.offload.needsChecksum)
    }
    guard let segments = Segmentation(superpacket, packet, bytes, limit: limit) else {
      return .refused(.malformedPacket, isTold: false)
    }
    let fits = segments.length(0) <= limit
    if segments.kind == .tcp, fits {
      // Cut smaller than its sender meant: it shall learn why, but need not wait for it.
      let isTold =
        segments.payloadLength < Int(superpacket.segmentSize) && segments.count > 1 && limit == trial
        && isTellable(packet, segments.headerLength &+ Int(superpacket.segmentSize))
      return .cut(segments, isTold: isTold)
    }
    guard !fits else {
      if segments.kind == .whole, superpacket.offload.needsChecksum {
        Segmentation.completeChecksum(superpacket.offload, in: bytes)
      }
      return .cut(segments, isTold: false)
    }
    return fitOversized(superpacket, bytes, packet, segments, limit: limit, trial: trial)
  }

  @inline(never)
  private static func fitOversized(
    _ superpacket: Superpacket, _ bytes: PacketBytes, _ packet: InnerPacket, _ segments: Segmentation, limit: Int,
    trial: Int
  ) -> Result {
    if segments.kind == .whole {
      if superpacket.offload.needsChecksum { Segmentation.completeChecksum(superpacket.offload, in: bytes) }
      // Only TCP goes on in smaller packets; fragments are worse than a packet that may not get through.
      let most = packet.transport == IPProtocol.tcp ? limit : trial
      if packet.length > most, let cut = Segmentation(oversized: packet, bytes, needsChecksum: false, limit: most) {
        return .cut(cut, isTold: cut.kind == .tcp && limit == trial && isTellable(packet, packet.length))
      }
    }
    if segments.length(0) <= trial { return .cut(segments, isTold: false) }
    // Fragments have been cut above, and extension headers, with which nobody sends much, are left alone.
    if !isTellable(packet, segments.length(0)), packet.transportOffset == 40, segments.kind != .tcp {
      return .tooLargeV6(segments)
    }
    return .refused(.exceedsPathMTU, isTold: true)
  }

  /// Whether the sender of packets of this length can send smaller ones: with IPv6 nobody has to send less than 1280
  /// bytes (RFC 8200 §5).
  @inline(__always)
  private static func isTellable(_ packet: InnerPacket, _ length: Int) -> Bool {
    packet.isV4 || length > InnerPacket.leastMTUv6
  }

  /// Copies an IPv6 packet without extension headers, with a fragment header at which it can be cut; nil without a
  /// buffer.
  static func addFragmentHeader(
    _ bytes: PacketBytes, _ packet: InnerPacket, identification: UInt32, pool: BufferPool
  ) -> Superpacket? {
    guard let buffer = pool.take() else { return nil }
    let copy = pool.bytes(buffer).slice(BufferPool.headroom, bytes.count &+ FragmentHeader.lengthV6)
    copy.copy(bytes.slice(0, 40), to: 0)
    copy.copy(bytes.dropFirst(40), to: 40 &+ FragmentHeader.lengthV6)
    copy.store16(UInt16(truncatingIfNeeded: copy.count &- 40), 4)
    copy[6] = IPProtocol.fragment
    copy.store32(UInt32(packet.transport) << 24, 40)
    copy.store32(identification, 44)
    return Superpacket(buffer: buffer, offset: BufferPool.headroom, length: copy.count, segmentSize: copy.count)
  }
}
