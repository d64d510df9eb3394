/// Numbers of probes that nobody can guess: whoever repeats one has received the probe. So a peer cannot answer for an
/// address where it is not (return routability, RFC 8046 §3.3).
///
/// SipHash-2-4 (J.-P. Aumasson, D. J. Bernstein, 2012) of a counter, under a key that is drawn at the start: 2⁶⁴ numbers,
/// of which none comes twice but by chance.
package struct ProbeNumbers: Sendable {
  private let key: (UInt64, UInt64)
  private var count: UInt64 = 0

  package init(using random: inout some RandomNumberGenerator) { key = (random.next(), random.next()) }

  package mutating func next() -> UInt64 {
    count &+= 1
    return ProbeNumbers.hash(count, key)
  }

  /// SipHash-2-4 of the eight bytes of a word, lowest first.
  static func hash(_ word: UInt64, _ key: (UInt64, UInt64)) -> UInt64 {
    var state = State(key)
    state.take(word)
    // Eight bytes, and none left over.
    state.take(8 << 56)
    return state.finish()
  }

  private struct State {
    var a, b, c, d: UInt64

    init(_ key: (UInt64, UInt64)) {
      (a, b) = (key.0 ^ 0x736F_6D65_7073_6575, key.1 ^ 0x646F_7261_6E64_6F6D)
      (c, d) = (key.0 ^ 0x6C79_6765_6E65_7261, key.1 ^ 0x7465_6462_7974_6573)
    }

    mutating func take(_ word: UInt64) {
      d ^= word
      for _ in 0..<2 { round() }
      a ^= word
    }

    mutating func finish() -> UInt64 {
      c ^= 0xFF
      for _ in 0..<4 { round() }
      return a ^ b ^ c ^ d
    }

    private mutating func round() {
      func rotated(_ word: UInt64, _ bits: UInt64) -> UInt64 { word &<< bits | word &>> (64 - bits) }
      a &+= b
      b = rotated(b, 13) ^ a
      a = rotated(a, 32)
      c &+= d
      d = rotated(d, 16) ^ c
      a &+= d
      d = rotated(d, 21) ^ a
      c &+= b
      b = rotated(b, 17) ^ c
      c = rotated(c, 32)
    }
  }
}
