import Testing

@testable import culvert

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
}
