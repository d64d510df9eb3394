import PacketIO

/// The anti-replay window of an inbound association (RFC 4303 §3.4.3, in the form of RFC 6479).
///
/// The window is a ring of words, one bit a sequence number, with at least one word more than the window needs:
/// so the window slides by clearing whole words, and never shifts. Numbers run from 1; 0 is always refused.
struct ReplayWindow: ~Copyable {
  /// Numbers that the window spans.
  let size: UInt64
  /// 64-bit sequence numbers, of which only the low half is on the wire; otherwise they end at 2³² − 1.
  let extended: Bool
  /// The highest number accepted, or where the window started until then.
  private(set) var highest: UInt64
  /// A power of two of them, so that a number's word is found by masking.
  private var words: FixedArray<UInt64>

  /// - Parameters:
  ///   - size: 64 to 8192 packets, a multiple of 64.
  ///   - lowest: numbers below it count as seen.
  init(size: Int, extended: Bool, lowest: UInt64) {
    precondition((64...8192).contains(size) && size.isMultiple(of: 64), "replay window of \(size)")
    self.size = UInt64(size)
    self.extended = extended
    let limit = extended ? UInt64.max : UInt64(UInt32.max)
    highest = lowest > limit ? limit : max(lowest, 1) - 1
    var count = 2
    while count < size / 64 + 1 { count *= 2 }
    words = FixedArray(repeating: ~0, count: count)
    // What lies ahead in the word of `highest` has not been seen; the words after it are cleared on arrival there.
    words[word(highest)] = ~0 >> (63 - highest & 63)
  }

  @inline(__always) private borrowing func word(_ sequence: UInt64) -> Int {
    Int(truncatingIfNeeded: sequence >> 6) & (words.capacity &- 1)
  }

  /// The full sequence number that 32 bits from the wire stand for (RFC 4303 appendix A2.2).
  ///
  /// It is the one in reach of the window: not left of it, and not more than 2³² ahead of its left edge. Where
  /// that would lie before the first number, those bits stand for themselves.
  @inline(__always) borrowing func infer(_ low: UInt32) -> UInt64 {
    guard extended else { return UInt64(low) }
    let high = UInt32(truncatingIfNeeded: highest >> 32)
    let highestLow = UInt32(truncatingIfNeeded: highest)
    let span = UInt32(truncatingIfNeeded: size) &- 1
    let bottom = highestLow &- span
    var inferred = high
    if highestLow >= span {
      // Case A: the window lies within one subspace of 2³² numbers; what is left of it is in the next.
      // The last subspace has no next: the number then wraps to far left of the window, and is refused.
      if low < bottom { inferred = high &+ 1 }
    } else if low >= bottom, high > 0 {
      // Case B: the window reaches back into the subspace before.
      inferred = high &- 1
    }
    return UInt64(inferred) << 32 | UInt64(low)
  }

  /// Has the processor fetch the place of a number, of which `low` is what is on the wire.
  @inline(__always) borrowing func prefetch(_ low: UInt32) { words.prefetch(word(UInt64(low))) }

  /// False: seen before, or left of the window. Call before authentication.
  @inline(__always) borrowing func mayAccept(_ sequence: UInt64) -> Bool {
    if sequence > highest { return extended || sequence <= UInt64(UInt32.max) }
    return highest &- sequence < size && words[word(sequence)] & bit(sequence) == 0
  }

  /// Marks it seen and moves the window; false when it was already. Call after authentication.
  @inline(__always) mutating func commit(_ sequence: UInt64) -> Bool {
    guard mayAccept(sequence) else { return false }
    if sequence > highest { advance(to: sequence) }
    words[word(sequence)] |= bit(sequence)
    return true
  }

  @inline(__always) private mutating func advance(to sequence: UInt64) {
    let passed = min(sequence >> 6 &- highest >> 6, UInt64(words.capacity))
    var step = UInt64(0)
    while step < passed {
      words[word(sequence &- step << 6)] = 0
      step &+= 1
    }
    highest = sequence
  }

  @inline(__always) private borrowing func bit(_ sequence: UInt64) -> UInt64 { 1 &<< (sequence & 63) }
}
