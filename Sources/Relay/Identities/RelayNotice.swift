import Identity
import PacketIO

/// What an identity relay says of its own accord: a NOTIFY (RFC 7401 §5.2.19), signed, with its key in it.
enum RelayNotice: UInt16 {
  /// BLOCKED_BY_POLICY: no rule lets the two meet.
  case blockedByPolicy = 42
  /// The relay has no room left for a pair.
  case busy = 44
  /// Private: another pair has the SPI, which stands in the data. The sender draws another one.
  case spiTaken = 11303

  /// The data of `spiTaken`: an SPI whose last four bits are zero.
  static func spi(_ key: UInt32) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(number: key << 4)
    return bytes
  }

  /// The packet, without the four zero bytes.
  func packet(_ data: [UInt8], from relay: HostIdentity, to gateway: HostIdentityTag) -> [UInt8] {
    var content: [UInt8] = [0, 0]
    content.append(number: rawValue)
    var builder = HIPBuilder(.notify, from: relay.tag, to: gateway)
    builder.append(.hostID, relay.publicIdentity.hostID)
    builder.append(.notification, content + data)
    builder.appendSignature(by: relay)
    return builder.finish()
  }
}

extension HIPPacketKind {
  /// Whether the relay has to see who has signed it.
  var mayBind: Bool {
    switch self {
    case .i2, .r2, .update, .close: true
    case .i1, .r1, .closeAck, .notify: false
    }
  }
}

extension RelayTable {
  /// The key of the new SPI that an ESP_INFO tells of (RFC 7402 §5.1.1); nil: none, as when an association ends.
  static func key(ofESPInfo content: ArraySlice<UInt8>) -> UInt32? {
    var reader = ByteReader(content)
    guard reader.skip(8), let spi = reader.number(UInt32.self), reader.isAtEnd else { return nil }
    return key(spi)
  }
}

extension RelayPairs {
  /// Tells a packet from another one, by a hash with a secret of this process: who does not know it makes no two that have
  /// the same.
  static func mark(_ packet: [UInt8]) -> Int {
    var hasher = Hasher()
    hasher.combine(packet)
    return hasher.finalize()
  }
}
