import PacketIO

/// The riddle that an initiator solves before the responder does anything for it (RFC 7401 §4.1.1, §5.2.4).
public enum Puzzle {
  /// Whether the last K bits of RHASH(#I ‖ HIT-I ‖ HIT-R ‖ #J) are zero. False where #I or #J has another length than
  /// the suite's hash.
  /// - Parameter k: the difficulty, bits; 0 asks for nothing.
  public static func isSolved(
    difficulty k: UInt8, i: [UInt8], initiator: HostIdentityTag, responder: HostIdentityTag, j: [UInt8],
    suite: HostIdentitySuite
  ) -> Bool {
    guard i.count == suite.hashLength, j.count == suite.hashLength else { return false }
    return trailingZeros(suite.hash(i + initiator.bytes + responder.bytes + j)) >= Int(k)
  }

  /// Looks for #J among so many numbers.
  /// - Parameters:
  ///   - k: the difficulty, bits: 2^K tries are needed on average.
  ///   - start: where to begin; random, so that others cannot know what is tried.
  ///   - tries: how many numbers to try at most.
  /// - Returns: #J, as long as the suite's hash; nil: it is none of those, or #I has another length.
  public static func solve(
    difficulty k: UInt8, i: [UInt8], initiator: HostIdentityTag, responder: HostIdentityTag, suite: HostIdentitySuite,
    from start: UInt64, tries: Int
  ) -> [UInt8]? {
    guard i.count == suite.hashLength, tries > 0 else { return nil }
    let known = i + initiator.bytes + responder.bytes
    for step in 0..<tries {
      var j = [UInt8](repeating: 0, count: suite.hashLength - 8)
      j.append(number: start &+ UInt64(truncatingIfNeeded: step))
      if trailingZeros(suite.hash(known + j)) >= Int(k) { return j }
    }
    return nil
  }

  private static func trailingZeros(_ hash: [UInt8]) -> Int {
    let zeros = hash.reversed().prefix { $0 == 0 }.count
    return zeros == hash.count ? zeros * 8 : zeros * 8 + hash[hash.count - 1 - zeros].trailingZeroBitCount
  }
}
