package import PacketIO

/// The header in front of every packet that crosses a TUN device with `IFF_VNET_HDR` (`struct virtio_net_hdr`,
/// virtio 1.2 §5.1.6, without the buffer count): what is left to do with the packet.
///
/// Integers are in host byte order, as the kernel has them for TUN.
package enum VirtioNetHeader {
  /// Bytes of the header.
  package static let length = 10

  // Byte positions.
  private static let flags = 0
  private static let segmentationType = 1
  private static let headerLength = 2
  private static let segmentSize = 4
  private static let checksumStart = 6
  private static let checksumOffset = 8

  private static let needsChecksum: UInt8 = 1
  /// Marks a TCP superpacket whose first segment carries CWR. It asks nothing of us: the bit is in the packet.
  private static let explicitCongestion: UInt8 = 0x80

  /// Reads the header at the start of `bytes`, whatever they are.
  ///
  /// - Returns: `gsoSize`: payload bytes of a segment, 1 or more, or zero for a single packet. `headerLength`: a hint,
  ///   how many bytes the kernel had at hand in one piece; it may reach into the payload. Positions of the checksum are
  ///   zero unless one is needed. They are as the sender wrote them: nothing says that they lie within the packet. Nil
  ///   for fewer than `length` bytes, for segmentation of another kind than `Offload` knows, and for segments of no
  ///   size.
  @inline(__always)
  package static func parse(_ bytes: PacketBytes) -> (offload: Offload, gsoSize: Int, headerLength: Int)? {
    guard bytes.count >= length,
      let segmentation = Offload.Segmentation(rawValue: bytes[segmentationType] & ~explicitCongestion)
    else { return nil }
    var offload = Offload(segmentation: segmentation)
    if bytes[flags] & needsChecksum != 0 {
      offload.needsChecksum = true
      offload.checksumStart = bytes.loadNative(checksumStart, as: UInt16.self)
      offload.checksumOffset = bytes.loadNative(checksumOffset, as: UInt16.self)
    }
    let gsoSize = segmentation == .none ? 0 : Int(bytes.loadNative(segmentSize, as: UInt16.self))
    if segmentation != .none && gsoSize == 0 { return nil }
    return (offload, gsoSize, Int(bytes.loadNative(headerLength, as: UInt16.self)))
  }

  /// Writes the header to the start of `bytes`, which must have room for `length` bytes.
  ///
  /// - Parameters:
  ///   - gsoSize: payload bytes of a segment; not used for a single packet. Clamped to 16 bits.
  ///   - headerLength: bytes of the IP and transport headers. Clamped to 16 bits.
  @inline(__always)
  package static func write(_ offload: Offload, gsoSize: Int, headerLength: Int, to bytes: PacketBytes) {
    bytes[flags] = offload.needsChecksum ? needsChecksum : 0
    bytes[segmentationType] = offload.segmentation.rawValue
    bytes.storeNative(UInt16(clamping: headerLength), Self.headerLength)
    bytes.storeNative(offload.segmentation == .none ? 0 : UInt16(clamping: gsoSize), segmentSize)
    bytes.storeNative(offload.needsChecksum ? offload.checksumStart : 0, checksumStart)
    bytes.storeNative(offload.needsChecksum ? offload.checksumOffset : 0, checksumOffset)
  }
}
