import PacketIO

/// Tells a peer that its sequence numbers are refused, because they were accepted before: the body of a control message.
///
/// Four bytes of SPI, eight of the highest number that was accepted, in network byte order. Whoever gets it goes on above.
struct RefusalMessage: Equatable {
  static let length = 12

  let spi: UInt32
  let highest: UInt64

  init(spi: UInt32, highest: UInt64) {
    self.spi = spi
    self.highest = highest
  }

  /// Nil for another number of bytes.
  init?(_ body: PacketBytes) {
    guard body.count == RefusalMessage.length else { return nil }
    self.init(spi: body.load32(0), highest: body.load64(4))
  }

  var bytes: [UInt8] {
    let low = (0..<4 as Range<UInt32>).map { UInt8(truncatingIfNeeded: spi >> (24 - 8 * $0)) }
    return low + (0..<8 as Range<UInt64>).map { UInt8(truncatingIfNeeded: highest >> (56 - 8 * $0)) }
  }
}
