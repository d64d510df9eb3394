public import PacketIO

/// A HIP packet (RFC 7401 §5) whose shape is right: whoever has one needs to check no length of it again.
///
/// What the parameters say, and who says it, is still to be found out.
public struct HIPPacket: Sendable {
  /// Bytes; longer ones are not read.
  public static let longest = 1280

  /// The whole packet, without the four zero bytes before it.
  public let bytes: [UInt8]
  public let header: HIPHeader
  private let parameters: [Place]

  /// A parameter's place.
  private struct Place {
    let type: UInt16
    /// Of its head.
    let start: Int
    /// Of its content.
    let count: Int

    var content: Range<Int> { start + HIPParameter.headLength..<start + HIPParameter.headLength + count }
  }

  /// What it is.
  public var kind: HIPPacketKind { header.kind }
  /// Who has sent it, so far as it says so itself.
  public var sender: HostIdentityTag { header.sender }
  /// Whom it is for.
  public var receiver: HostIdentityTag { header.receiver }

  /// Nil where `problem(_:)` has something to say.
  public init?(_ bytes: [UInt8]) {
    guard let packet = try? HIPPacket(checking: bytes) else { return nil }
    self = packet
  }

  /// What is wrong with the bytes, for logs; nil: they are a packet.
  public static func problem(_ bytes: [UInt8]) -> HIPProblem? {
    do {
      _ = try HIPPacket(checking: bytes)
      return nil
    } catch {
      return error
    }
  }

  /// The one check of a packet's shape: header and length agree, tags have their prefix, parameters ascend and end with
  /// the packet. Paddings are not looked at (RFC 7401 §5.2.1).
  private init(checking bytes: [UInt8]) throws(HIPProblem) {
    header = try HIPHeader(count: bytes.count) { start in
      bytes[start..<start + 8].reduce(0) { $0 << 8 | UInt64($1) }
    }
    var places: [Place] = []
    var next = HIPHeader.length
    var last: UInt16 = 0
    // The rest is a multiple of eight bytes, as is every parameter: so there always is a whole head.
    while next < bytes.count {
      let type = UInt16(bytes[next]) << 8 | UInt16(bytes[next + 1])
      let count = Int(bytes[next + 2]) << 8 | Int(bytes[next + 3])
      let end = next + HIPParameter.paddedLength(count)
      guard end <= bytes.count else { throw .overrun(type: type) }
      guard places.isEmpty || type > last || type == last && HIPParameter.canRepeat(type) else {
        throw .order(type: type)
      }
      places.append(Place(type: type, start: next, count: count))
      last = type
      next = end
    }
    self.bytes = bytes
    parameters = places
  }

  // MARK: Parameters

  private func place(_ type: HIPParameter) -> Place? { parameters.first { $0.type == type.rawValue } }

  /// The content of the first parameter of the type, without its padding; its indices are those of `bytes`. Nil: there
  /// is none.
  public func content(_ type: HIPParameter) -> ArraySlice<UInt8>? { place(type).map { bytes[$0.content] } }

  /// The contents of all parameters of the type, in order.
  public func contents(_ type: HIPParameter) -> [ArraySlice<UInt8>] {
    parameters.filter { $0.type == type.rawValue }.map { bytes[$0.content] }
  }

  /// All types in order, known or not.
  public var types: [UInt16] { parameters.map(\.type) }

  /// The first odd type that is not known here: such a packet is to be dropped, and NOTIFY 1 tells so (RFC 7401
  /// §5.2.1).
  public var unknownCritical: UInt16? {
    parameters.first { $0.type & 1 == 1 && HIPParameter(rawValue: $0.type) == nil }?.type
  }

  // MARK: Proofs

  /// Header and parameters before a place, with the length of a packet that ends there or so many bytes behind.
  private func covered(before place: Place, and more: Int = 0) -> [UInt8] {
    var covered = Array(bytes[..<place.start])
    covered.setHeaderLength(covered.count + more)
    return covered
  }

  /// Whether HIP_MAC is right (RFC 7401 §6.4.1). It covers what stands before it, which is what may be believed then.
  public func hasValidMAC(key: KeyMaterial, suite: HostIdentitySuite) -> Bool {
    guard let place = place(.hipMAC) else { return false }
    return isEqualInConstantTime(suite.mac(covered(before: place), key: key), Array(bytes[place.content]))
  }

  /// Whether HIP_MAC_2 is right (RFC 7401 §6.4.2), which also covers the responder's key.
  /// - Parameter hostID: the content of HOST_ID as it stood in R1.
  public func hasValidMAC2(key: KeyMaterial, suite: HostIdentitySuite, hostID: [UInt8]) -> Bool {
    guard let place = place(.hipMAC2) else { return false }
    let last = HIPParameter.hostID.bytes(hostID)
    return isEqualInConstantTime(
      suite.mac(covered(before: place, and: last.count) + last, key: key), Array(bytes[place.content]))
  }

  /// Whether HIP_SIGNATURE is right (RFC 7401 §5.2.14), and made by the sender with the algorithm of its key. It covers
  /// what stands before it.
  public func hasValidSignature(by identity: PublicHostIdentity) -> Bool {
    guard let place = place(.hipSignature) else { return false }
    return isSigned(by: identity, at: place, over: covered(before: place))
  }

  /// Whether HIP_SIGNATURE_2 of an R1 is right (RFC 7401 §5.2.15). It covers what stands before it but the receiver and
  /// the puzzle's opaque and #I.
  public func hasValidSignature2(by identity: PublicHostIdentity) -> Bool {
    guard let place = place(.hipSignature2), let puzzle = self.place(.puzzle) else { return false }
    var covered = covered(before: place)
    guard covered.blankForSignature2(puzzle: puzzle.content) else { return false }
    return isSigned(by: identity, at: place, over: covered)
  }

  private func isSigned(by identity: PublicHostIdentity, at place: Place, over covered: [UInt8]) -> Bool {
    let content = bytes[place.content]
    guard identity.tag == sender, content.count > 2,
      content.prefix(2).reduce(0, { $0 << 8 | UInt16($1) }) == identity.algorithm
    else { return false }
    return identity.isValid(signature: Array(content.dropFirst(2)), over: covered)
  }
}

extension [UInt8] {
  /// Enters a packet's length into its header (RFC 7401 §5.1): a multiple of eight, 2048 bytes at most.
  mutating func setHeaderLength(_ count: Int) { self[1] = UInt8(clamping: count / 8 - 1) }

  /// Zeros for what HIP_SIGNATURE_2 does not cover: the receiver, and the puzzle's opaque and #I.
  /// - Parameter puzzle: where PUZZLE's content stands.
  /// - Returns: false where that is too short, or not before the signature.
  mutating func blankForSignature2(puzzle: Range<Int>) -> Bool {
    guard puzzle.count >= 4, puzzle.upperBound <= count else { return false }
    for place in [24..<40, puzzle.dropFirst(2)] {
      replaceSubrange(place, with: repeatElement(0, count: place.count))
    }
    return true
  }
}
