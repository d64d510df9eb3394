public import PacketIO

/// The first 40 bytes of a HIP packet (RFC 7401 §5.1), as UDP and TCP carry it.
public struct HIPHeader: Sendable, Equatable {
  /// Bytes.
  public static let length = 40

  public let kind: HIPPacketKind
  public let sender: HostIdentityTag
  public let receiver: HostIdentityTag

  static let nextHeader: UInt8 = 59
  static let version: UInt8 = 0x21

  /// The header of a packet that has the right shape up to its parameters, which are not looked at; nil for any other.
  ///
  /// For packet threads: it neither copies nor allocates.
  /// - Parameter bytes: the whole packet, without the four zero bytes before it.
  public static func peek(_ bytes: PacketBytes) -> HIPHeader? {
    try? HIPHeader(count: bytes.count) { bytes.load64($0) }
  }

  /// - Parameters:
  ///   - count: of the whole packet.
  ///   - word: eight bytes from a place on, as a number; asked for places within the header only.
  @inline(__always)
  init(count: Int, word: (Int) -> UInt64) throws(HIPProblem) {
    guard count >= HIPHeader.length, count <= HIPPacket.longest, count & 7 == 0 else { throw .length(count) }
    let first = word(0)
    let (next, length) = (UInt8(truncatingIfNeeded: first >> 56), UInt8(truncatingIfNeeded: first >> 48))
    let (type, version) = (UInt8(truncatingIfNeeded: first >> 40), UInt8(truncatingIfNeeded: first >> 32))
    let checksum = UInt16(truncatingIfNeeded: first >> 16)
    guard next == HIPHeader.nextHeader else { throw .nextHeader(next) }
    guard (Int(length) + 1) * 8 == count else { throw .length(count) }
    guard version == HIPHeader.version else { throw .version(version) }
    guard checksum == 0 else { throw .checksum(checksum) }
    guard let kind = HIPPacketKind(rawValue: type) else { throw .kind(type) }
    guard let sender = HostIdentityTag(high: word(8), low: word(16)) else { throw .sender }
    guard let receiver = HostIdentityTag(high: word(24), low: word(32)) else { throw .receiver }
    self.kind = kind
    self.sender = sender
    self.receiver = receiver
  }
}
