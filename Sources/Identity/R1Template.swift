/// An R1 that was signed once for all initiators: HIP_SIGNATURE_2 does not cover what differs between them (RFC 7401
/// §5.2.15).
public struct R1Template: Sendable {
  private let bytes: [UInt8]
  /// Where PUZZLE's content stands.
  private let puzzle: Range<Int>

  /// - Parameter builder: has a PUZZLE, and is complete.
  public init(_ builder: HIPBuilder) {
    guard let puzzle = builder.puzzle, puzzle.count >= 4 else { preconditionFailure("an R1 without a puzzle") }
    self.puzzle = puzzle
    bytes = builder.finish()
  }

  /// Bytes of the R1.
  public var count: Int { bytes.count }

  /// The R1 for one initiator.
  /// - Parameter i: #I, as long as in the template.
  public func filled(receiver: HostIdentityTag, i: [UInt8], opaque: UInt16) -> [UInt8] {
    precondition(i.count == puzzle.count - 4, "#I of another length")
    var bytes = bytes
    bytes.replaceSubrange(24..<40, with: receiver.bytes)
    bytes.replaceSubrange(
      puzzle.dropFirst(2), with: [UInt8(truncatingIfNeeded: opaque >> 8), UInt8(truncatingIfNeeded: opaque)] + i)
    return bytes
  }
}
