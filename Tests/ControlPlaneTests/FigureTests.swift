import Testing

@testable import ControlPlane

@Suite struct FigureTests {
  @Test(
    arguments: [
      (0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567"), (UInt64.max, "18,446,744,073,709,551,615"),
    ] as [(UInt64, String)])
  func counts(_ value: UInt64, _ text: String) { #expect(Figure.count(value) == text) }

  @Test(
    arguments: [
      (0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (1049, "1.05 kB"), (9_994, "9.99 kB"), (9_995, "10.0 kB"),
      (99_949, "99.9 kB"), (99_950, "100 kB"), (999_499, "999 kB"), (999_500, "1.00 MB"), (1_500_000_000, "1.50 GB"),
      (UInt64.max, "18.4 EB"),
    ] as [(UInt64, String)])
  func bytes(_ value: UInt64, _ text: String) { #expect(Figure.bytes(value) == text) }

  @Test(
    arguments: [
      (-1, "0 s"), (59.9, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (3600, "1 h 0 min"), (90_000, "1 d 1 h"),
      (.infinity, "0 s"), (.nan, "0 s"),
    ] as [(Double, String)])
  func durations(_ value: Double, _ text: String) { #expect(Figure.duration(value) == text) }

  @Test func tablesLineUp() {
    var table = TextTable([("A", .left), ("LONG", .right), ("C", .left)])
    table.add(["alpha", "1", "x"])
    table.add(["b", "12345", ""])
    #expect(table.lines(indent: " ") == [" A       LONG  C", " alpha      1  x", " b      12345"])
  }

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
    var generator = SeededGenerator(seed: 3)
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
