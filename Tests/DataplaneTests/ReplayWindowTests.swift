import Testing

@testable import Dataplane

/// A window that `#expect` can hold.
private final class Window {
  private var window: ReplayWindow
  init(size: Int, extended: Bool, lowest: UInt64) {
    window = ReplayWindow(size: size, extended: extended, lowest: lowest)
  }
  var highest: UInt64 { window.highest }
  func infer(_ low: UInt32) -> UInt64 { window.infer(low) }
  func mayAccept(_ sequence: UInt64) -> Bool { window.mayAccept(sequence) }
  func commit(_ sequence: UInt64) -> Bool { window.commit(sequence) }
}

/// The window as RFC 4303 §3.4.3 says it: a set of numbers seen.
private struct ReplayOracle {
  let size: UInt64
  let extended: Bool
  let lowest: UInt64
  var highest: UInt64
  var seen: Set<UInt64> = []

  init(size: Int, extended: Bool, lowest: UInt64) {
    self.size = UInt64(size)
    self.extended = extended
    self.lowest = max(lowest, 1)
    highest = self.lowest - 1
  }

  func mayAccept(_ sequence: UInt64) -> Bool {
    if !extended && sequence > UInt64(UInt32.max) { return false }
    if sequence < lowest || seen.contains(sequence) { return false }
    return sequence > highest || highest - sequence < size
  }

  mutating func commit(_ sequence: UInt64) -> Bool {
    guard mayAccept(sequence) else { return false }
    seen.insert(sequence)
    highest = max(highest, sequence)
    return true
  }

  /// Of all numbers that end in `low`, the one from the window's left edge on (RFC 4303 appendix A2.1: a receiver
  /// never takes a number for one left of the window); before the first number there is nothing to reach back to.
  func infer(_ low: UInt32) -> UInt64 {
    guard extended else { return UInt64(low) }
    guard highest >= size - 1 else { return UInt64(low) }
    let left = highest - (size - 1)
    // The distance from the left edge, within one round of 2³².
    return left &+ UInt64(low &- UInt32(truncatingIfNeeded: left))
  }
}

@Suite struct ReplayWindowTests {
  /// Random walks of duplicates, reordering, jumps ahead within and past the window, numbers far below and far
  /// ahead; starting beside every edge there is.
  @Test(arguments: [64, 128, 192, 1024, 2048, 8128, 8192], [true, false])
  func agreesWithASet(size: Int, extended: Bool) {
    let round = UInt64(1) << 32
    let starts: [UInt64] =
      [0, 1, 2, 63, 64, 65, 5000, round - 20_000, round - 100, round - 1]
      + (extended ? [round, round + 1, round + 70, 7 * round - 500, .max - 30_000, .max - 100, .max] : [])
    for (index, start) in starts.enumerated() {
      var numbers = SeededNumbers(seed: UInt64(size * 100 + index))
      let window = Window(size: size, extended: extended, lowest: start)
      var oracle = ReplayOracle(size: size, extended: extended, lowest: start)
      #expect(window.highest == oracle.highest)
      for _ in 0..<4000 {
        let here = oracle.highest
        let span = UInt64(size)
        func ahead(_ range: ClosedRange<UInt64>) -> UInt64 {
          let (sum, overflow) = here.addingReportingOverflow(.random(in: range, using: &numbers))
          return overflow ? .max : sum
        }
        func behind(_ range: ClosedRange<UInt64>) -> UInt64 {
          let step = UInt64.random(in: range, using: &numbers)
          return here > step ? here - step : 0
        }
        let sequence =
          switch Int.random(in: 0..<100, using: &numbers) {
          case ..<40: ahead(1...1)
          case ..<50: ahead(1...70)
          case ..<53: ahead(1...2 * span)
          case ..<54: ahead(span...20 * span)
          case ..<56: ahead(1...UInt64(UInt32.max))
          case ..<75: behind(0...70)
          case ..<92: behind(0...span + 3)
          case ..<96: behind(span - 2...span + 2)
          case ..<98: behind(0...2 * round)
          default: UInt64.random(in: 0...5, using: &numbers)
          }
        // Now and then a number far ahead is looked at, but was forged: nothing moves.
        let authentic = sequence <= here || sequence - here <= 2 * span || Int.random(in: 0..<50, using: &numbers) == 0
        let may = window.mayAccept(sequence)
        guard may == oracle.mayAccept(sequence) else {
          Issue.record("\(sequence) is \(may ? "" : "not ")acceptable, highest \(here), size \(size)")
          return
        }
        if authentic { #expect(window.commit(sequence) == oracle.commit(sequence), "\(sequence) after \(here)") }
        #expect(window.highest == oracle.highest)

        let low = UInt32(truncatingIfNeeded: sequence)
        #expect(window.infer(low) == oracle.infer(low), "\(low) at \(window.highest)")
        let any = UInt32.random(in: 0...UInt32.max, using: &numbers)
        #expect(window.infer(any) == oracle.infer(any), "\(any) at \(window.highest)")
      }
    }
  }

  /// Every number is accepted once, in order and in the worst order that the window allows.
  @Test(arguments: [64, 256, 8192])
  func nothingIsRefusedWithinTheWindow(size: Int) {
    let count = UInt64(size)
    let window = Window(size: size, extended: true, lowest: 1)
    for block in UInt64(0)..<4 {
      for sequence in (block * count + 1...(block + 1) * count).reversed() {
        #expect(window.mayAccept(sequence))
        #expect(window.commit(sequence))
        #expect(!window.mayAccept(sequence))
        #expect(!window.commit(sequence))
      }
    }
  }

  @Test(arguments: [true, false])
  func zeroIsNeverAccepted(extended: Bool) {
    for lowest in [UInt64(0), 1] {
      let window = Window(size: 64, extended: extended, lowest: lowest)
      #expect(window.highest == 0)
      #expect(!window.mayAccept(0))
      #expect(!window.commit(0))
      #expect(window.commit(1))
      #expect(!window.mayAccept(0))
    }
  }

  @Test func numbersBelowTheFirstCountAsSeen() {
    let window = Window(size: 128, extended: true, lowest: 1000)
    #expect(window.highest == 999)
    for sequence in UInt64(0)...999 { #expect(!window.mayAccept(sequence)) }
    for sequence in UInt64(1000)...1200 { #expect(window.mayAccept(sequence)) }
    #expect(window.commit(1010))
    for sequence in UInt64(1000)...1009 { #expect(window.commit(sequence)) }
    #expect(!window.mayAccept(999))
  }

  @Test func thirtyTwoBitsEndWithoutWrapping() {
    let last = UInt64(UInt32.max)
    let window = Window(size: 64, extended: false, lowest: last - 1)
    #expect(window.infer(.max) == last)
    #expect(window.commit(last))
    #expect(window.infer(0) == 0)
    #expect(window.infer(1) == 1)
    for sequence in [0, 1, last, last + 1, last + 2, .max] {
      #expect(!window.mayAccept(sequence))
      #expect(!window.commit(sequence))
    }
    #expect(window.highest == last)
    #expect(window.commit(last - 1))

    let spent = Window(size: 64, extended: false, lowest: last + 5)
    #expect(spent.highest == last)
    #expect(!spent.mayAccept(last) && !spent.mayAccept(last + 5))
  }

  @Test func extendedNumbersEndWithoutWrapping() {
    let window = Window(size: 64, extended: true, lowest: .max - 1)
    #expect(window.commit(.max))
    #expect(!window.mayAccept(window.infer(0)))
    #expect(!window.mayAccept(window.infer(1)))
    #expect(window.commit(.max - 1))
    #expect(!window.commit(.max))
  }
}

/// RFC 4303 appendix A2.2, case by case, with a window of 64. Th and Tl are the halves of the highest number.
@Suite struct SequenceInferenceTests {
  struct Case: Sendable {
    let name: String
    let highest: UInt64
    let low: UInt32
    let expected: UInt64
  }

  static let cases = [
    // Case A: Tl ≥ W − 1, the window lies in one subspace; its left edge is Tl − 63.
    Case(name: "A, right edge", highest: 0x5_0000_1000, low: 0x1000, expected: 0x5_0000_1000),
    Case(name: "A, right of the window", highest: 0x5_0000_1000, low: 0x1001, expected: 0x5_0000_1001),
    Case(name: "A, far above", highest: 0x5_0000_1000, low: 0xFFFF_FFFF, expected: 0x5_FFFF_FFFF),
    Case(name: "A, left edge", highest: 0x5_0000_1000, low: 0x0FC1, expected: 0x5_0000_0FC1),
    Case(name: "A, just left of the window", highest: 0x5_0000_1000, low: 0x0FC0, expected: 0x6_0000_0FC0),
    Case(name: "A, far below", highest: 0x5_0000_1000, low: 0, expected: 0x6_0000_0000),
    Case(name: "A, wrap ahead", highest: 0x5_FFFF_FFFF, low: 0, expected: 0x6_0000_0000),
    Case(name: "A, wrap ahead and on", highest: 0x5_FFFF_FFFF, low: 0x10, expected: 0x6_0000_0010),
    Case(name: "A, smallest Tl, left edge", highest: 0x5_0000_003F, low: 0, expected: 0x5_0000_0000),
    Case(name: "A, smallest Tl, far above", highest: 0x5_0000_003F, low: 0xFFFF_FFFF, expected: 0x5_FFFF_FFFF),
    // Case B: Tl < W − 1, the window reaches back into the subspace before.
    Case(name: "B, largest Tl, left edge", highest: 0x5_0000_003E, low: 0xFFFF_FFFF, expected: 0x4_FFFF_FFFF),
    Case(name: "B, largest Tl, left of the window", highest: 0x5_0000_003E, low: 0xFFFF_FFFE, expected: 0x5_FFFF_FFFE),
    Case(name: "B, right edge", highest: 0x5_0000_0010, low: 0x10, expected: 0x5_0000_0010),
    Case(name: "B, behind, in this subspace", highest: 0x5_0000_0010, low: 0, expected: 0x5_0000_0000),
    Case(name: "B, behind, in the one before", highest: 0x5_0000_0010, low: 0xFFFF_FFFF, expected: 0x4_FFFF_FFFF),
    Case(name: "B, left edge", highest: 0x5_0000_0010, low: 0xFFFF_FFD1, expected: 0x4_FFFF_FFD1),
    Case(name: "B, just left of the window", highest: 0x5_0000_0010, low: 0xFFFF_FFD0, expected: 0x5_FFFF_FFD0),
    Case(name: "B, far above", highest: 0x5_0000_0010, low: 0x8000_0000, expected: 0x5_8000_0000),
    Case(name: "B, Tl zero", highest: 0x5_0000_0000, low: 0xFFFF_FFC1, expected: 0x4_FFFF_FFC1),
    // At the start there is nothing to reach back to.
    Case(name: "first packet", highest: 0, low: 1, expected: 1),
    Case(name: "start, far above", highest: 3, low: 0xFFFF_FFF0, expected: 0xFFFF_FFF0),
    Case(name: "start, zero", highest: 3, low: 0, expected: 0),
  ]

  @Test(arguments: cases)
  func appendixA(_ example: Case) {
    let window = Window(size: 64, extended: true, lowest: example.highest + 1)
    #expect(window.highest == example.highest)
    #expect(window.infer(example.low) == example.expected, "\(example.name)")
  }
}
