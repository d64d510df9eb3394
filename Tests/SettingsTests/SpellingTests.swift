import Testing

@testable import Settings

@Suite struct SpellingTests {
  /// Against the definition: the least number of edits, by trying all.
  @Test func distanceIsTheLeastNumberOfEdits() {
    func slow(_ a: ArraySlice<Character>, _ b: ArraySlice<Character>) -> Int {
      guard let x = a.first, let y = b.first else { return a.count + b.count }
      var best = min(
        slow(a.dropFirst(), b) + 1, slow(a, b.dropFirst()) + 1,
        slow(a.dropFirst(), b.dropFirst()) + (x == y ? 0 : 1))
      if a.count > 1, b.count > 1, a[a.startIndex + 1] == y, b[b.startIndex + 1] == x {
        best = min(best, slow(a.dropFirst(2), b.dropFirst(2)) + 1)
      }
      return best
    }
    var generator = SmallGenerator(state: 3)
    for _ in 0..<300 {
      let words = (0..<2).map { _ in
        (0..<Int.random(in: 0...5, using: &generator)).map { _ in "abc".randomElement(using: &generator)! }
      }
      #expect(Spelling.distance(words[0], words[1]) == slow(words[0][...], words[1][...]), "\(words)")
    }
  }

  @Test(arguments: [("mut", "mtu"), ("prefxes", "prefixes"), ("PEERS", "peers"), ("zzz", nil), ("", nil)])
  func findsWhatWasMeant(_ word: String, _ meant: String?) {
    #expect(Spelling.nearest(to: word, among: ["mtu", "prefixes", "peers"]) == meant)
  }
}

/// Random numbers from a seed, the same on every machine (splitmix64).
private struct SmallGenerator: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
