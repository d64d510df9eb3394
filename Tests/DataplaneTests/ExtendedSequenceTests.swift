import PacketIO
import Testing

@testable import Dataplane

/// Replay protection and extended numbers through the whole inbound pipeline, over large jumps (RFC 4303 §3.4.3 and
/// appendix A).
@Suite struct ExtendedSequenceTests {
  private let sketch = PacketSketch("10.1.0.1", "10.2.0.1", .other(50), payload: [1, 2, 3])
  private let two32: UInt64 = 1 << 32

  private func accepts(_ beta: TestGateway, _ esp: SlowESP, _ sequence: UInt64) -> Bool {
    beta.open(esp.seal(sketch, sequence: sequence)).count == 1
  }

  @Test(arguments: [64, 2048, 8192], [true, false])
  func jumpsForwardAndLateArrivals(window: Int, implicitIV: Bool) {
    let sites = Sites(implicitIV: implicitIV, replayWindow: window)
    let beta = sites.beta()
    let esp = SlowESP(sites)
    let w = UInt64(window)
    #expect(accepts(beta, esp, 1))
    // Less than 2³² ahead, over the boundary of the low half, and again.
    var highest: UInt64 = 1
    for jump in [two32 - w, two32 - w, 1, w, w - 1, 5 * w, two32 - w, 17, two32 - w] {
      highest += jump
      #expect(accepts(beta, esp, highest), "\(jump) ahead to \(highest)")
      #expect(!accepts(beta, esp, highest))
      // The left edge, and what lies left of it.
      if jump >= w {
        #expect(accepts(beta, esp, highest - (w - 1)))
        #expect(!accepts(beta, esp, highest - (w - 1)))
        #expect(!accepts(beta, esp, highest - w))
      }
    }
    // The packets left of the window look like ones far ahead, and fail there.
    let drops = beta.drops
    #expect((drops[.replayed] ?? 0) + (drops[.authenticationFailed] ?? 0) == 9 + 2 * 6)
    #expect(beta.tables.association(Sites.alphaSPI)?.state.value.window.highest == highest)
  }

  /// 2³² and more ahead, the high half cannot be told from the low one: refused, and the window stays.
  @Test func jumpsTooFarAhead() {
    let sites = Sites()
    let beta = sites.beta()
    let esp = SlowESP(sites)
    #expect(accepts(beta, esp, 5000))
    for jump in [two32, two32 + 1, 3 * two32, two32 << 20] {
      #expect(!accepts(beta, esp, 5000 + jump))
    }
    #expect(accepts(beta, esp, 5001))
    #expect(beta.peer("alpha").value.received.packets == 2)
  }

  @Test func aReceiverThatStartsLate() {
    let sites = Sites(firstSequence: 7 * two32 + 5)
    let beta = sites.beta()
    let esp = SlowESP(sites)
    #expect(!accepts(beta, esp, 7 * two32 + 4))
    #expect(!accepts(beta, esp, 6 * two32 + 5))
    #expect(accepts(beta, esp, 7 * two32 + 6))
    #expect(accepts(beta, esp, 7 * two32 + 5))
    #expect(accepts(beta, esp, 8 * two32 - 4000))
  }

  @Test func withoutExtendedNumbersThereIsNothingBehindThirtyTwoBits() {
    let sites = Sites(extended: false)
    let beta = sites.beta()
    let esp = SlowESP(sites)
    #expect(!accepts(beta, esp, 0))
    #expect(accepts(beta, esp, two32 - 1))
    #expect(accepts(beta, esp, two32 - 2048))
    #expect(!accepts(beta, esp, two32 - 2049))
    // Sealed by a sender that wrapped.
    #expect(!accepts(beta, esp, two32 + 3))
    #expect(beta.drops == [.replayed: 3])
  }

  /// A random walk with losses, jumps, late and double arrivals, against a set of all that was accepted.
  @Test(arguments: [64, 192, 2048])
  func aRandomWalk(window: Int) {
    let sites = Sites(replayWindow: window, firstSequence: two32 - 300)
    let beta = sites.beta()
    let esp = SlowESP(sites)
    var numbers = SeededNumbers(seed: UInt64(window))
    var seen: Set<UInt64> = []
    var highest = two32 - 301
    for _ in 0..<1500 {
      let ahead = Int.random(in: -window - 10...40, using: &numbers)
      let sequence = UInt64(Int(highest) + ahead)
      let fresh = sequence > highest || (highest - sequence < UInt64(window) && !seen.contains(sequence))
      let acceptable = fresh && sequence >= two32 - 300
      #expect(accepts(beta, esp, sequence) == acceptable, "\(sequence), highest \(highest)")
      if acceptable {
        seen.insert(sequence)
        highest = max(highest, sequence)
      }
    }
    #expect(highest > two32, "the walk did not get across the boundary")
  }
}
