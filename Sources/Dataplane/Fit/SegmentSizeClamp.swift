import PacketIO

/// Lowers the maximum segment size in TCP SYN packets to what the path takes (RFC 9293 §3.7.1), so that neither end
/// sends segments that would have to be cut or refused.
enum SegmentSizeClamp {
  private static let synFlag: UInt8 = 0x02
  private static let endOfOptions: UInt8 = 0
  private static let noOperation: UInt8 = 1
  private static let maximumSegmentSize: UInt8 = 2

  /// Whether the packet is a TCP SYN or SYN-ACK.
  @inline(__always)
  static func concerns(_ packet: InnerPacket, _ bytes: PacketBytes) -> Bool {
    packet.transport == IPProtocol.tcp && packet.isFirstFragment
      && packet.transportOffset &+ 20 <= packet.length && bytes[packet.transportOffset &+ 13] & synFlag != 0
  }

  /// - Parameters:
  ///   - limit: bytes of the largest inner packet that fits the path.
  ///   - hasPartialChecksum: the checksum field covers the pseudo-header only, and so not the option.
  static func apply(_ packet: InnerPacket, _ bytes: PacketBytes, limit: Int, hasPartialChecksum: Bool) {
    let start = packet.transportOffset
    let end = start + Int(bytes[start + 12] >> 4) * 4
    guard end <= packet.length else { return }
    let largest = UInt16(clamping: limit - start - 20)
    var option = start + 20
    while option < end, bytes[option] != endOfOptions {
      if bytes[option] == noOperation {
        option += 1
        continue
      }
      guard option + 1 < end else { return }
      let length = Int(bytes[option + 1])
      guard length >= 2, option + length <= end else { return }
      if bytes[option] == maximumSegmentSize, length == 4 {
        let old = bytes.load16(option + 2)
        guard old > largest else { return }
        bytes.store16(largest, option + 2)
        guard !hasPartialChecksum else { return }
        // The checksum's words begin at an even offset of the header; an option may not.
        let isOdd = (option + 2 - start) & 1 != 0
        let checksum = Checksum.updated(
          bytes.load16(start + 16), from: isOdd ? old.byteSwapped : old, to: isOdd ? largest.byteSwapped : largest)
        bytes.store16(checksum, start + 16)
        return
      }
      option += length
    }
  }
}
