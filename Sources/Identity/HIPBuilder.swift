public import PacketIO

/// Puts a HIP packet together (RFC 7401 §5), parameter by parameter in ascending order of their types.
public struct HIPBuilder: Sendable {
  private var bytes: [UInt8]
  private let kind: HIPPacketKind
  private var last: UInt16 = 0
  /// Where PUZZLE's content stands.
  private(set) var puzzle: Range<Int>?

  public init(_ kind: HIPPacketKind, from sender: HostIdentityTag, to receiver: HostIdentityTag) {
    self.init(kind, sender.bytes + receiver.bytes)
  }

  /// An R1 for an `R1Template`, whose receiver is not known yet.
  public init(r1From sender: HostIdentityTag) {
    self.init(.r1, sender.bytes + [UInt8](repeating: 0, count: HostIdentityTag.length))
  }

  private init(_ kind: HIPPacketKind, _ tags: [UInt8]) {
    self.kind = kind
    bytes = [HIPHeader.nextHeader, 0, kind.rawValue, HIPHeader.version, 0, 0, 0, 0] + tags
  }

  /// Whether it has become longer than anybody reads: it is not to be sent then. Echoes of what a peer asked for can do
  /// that.
  public var isTooLong: Bool { bytes.count > HIPPacket.longest }

  /// Appends a parameter.
  /// - Parameters:
  ///   - type: greater than that of the last one, or the same where several may be.
  ///   - content: without head and padding.
  public mutating func append(_ type: HIPParameter, _ content: [UInt8]) {
    precondition(type.rawValue > last || type.rawValue == last && HIPParameter.canRepeat(last), "\(type) out of order")
    last = type.rawValue
    if type == .puzzle {
      let start = bytes.count + HIPParameter.headLength
      puzzle = start..<start + content.count
    }
    bytes += type.bytes(content)
  }

  /// Appends HIP_MAC over all before it (RFC 7401 §6.4.1).
  public mutating func appendMAC(key: KeyMaterial, suite: HostIdentitySuite) {
    bytes.setHeaderLength(bytes.count)
    append(.hipMAC, suite.mac(bytes, key: key))
  }

  /// Appends HIP_MAC_2 over all before it and the responder's key (RFC 7401 §6.4.2).
  /// - Parameter hostID: the content of HOST_ID as it stood in R1.
  public mutating func appendMAC2(key: KeyMaterial, suite: HostIdentitySuite, hostID: [UInt8]) {
    let last = HIPParameter.hostID.bytes(hostID)
    bytes.setHeaderLength(bytes.count + last.count)
    append(.hipMAC2, suite.mac(bytes + last, key: key))
  }

  /// Appends HIP_SIGNATURE over all before it (RFC 7401 §5.2.14).
  public mutating func appendSignature(by identity: HostIdentity) {
    bytes.setHeaderLength(bytes.count)
    append(.hipSignature, HIPBuilder.signature(of: bytes, by: identity))
  }

  /// Appends HIP_SIGNATURE_2 to an R1 (RFC 7401 §5.2.15): over all before it but the receiver and the puzzle's opaque
  /// and #I. There is a PUZZLE.
  public mutating func appendSignature2(by identity: HostIdentity) {
    bytes.setHeaderLength(bytes.count)
    var covered = bytes
    let isBlank = puzzle.map { covered.blankForSignature2(puzzle: $0) } ?? false
    precondition(isBlank, "an R1 without a puzzle")
    append(.hipSignature2, HIPBuilder.signature(of: covered, by: identity))
  }

  private static func signature(of bytes: [UInt8], by identity: HostIdentity) -> [UInt8] {
    var content: [UInt8] = []
    content.append(number: identity.publicIdentity.algorithm)
    return content + identity.sign(bytes)
  }

  /// The packet; its checksum is zero, as over UDP and TCP (RFC 9028 §5.1).
  public func finish() -> [UInt8] {
    var bytes = bytes
    bytes.setHeaderLength(bytes.count)
    return bytes
  }
}
