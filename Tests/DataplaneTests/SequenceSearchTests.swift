import PacketIO
import Testing

@testable import Dataplane

/// Ends of an association that do not agree on its numbers (RFC 4303 appendix A3).
@Suite struct SequenceSearchTests {
  private let sketch = PacketSketch("10.1.0.1", "10.2.0.1", .other(50), payload: [1, 2, 3])
  private let two32: UInt64 = 1 << 32

  private func accepts(_ beta: TestGateway, _ esp: SlowESP, _ sequence: UInt64) -> Bool {
    beta.open(esp.seal(sketch, sequence: sequence)).count == 1
  }

  /// A receiver that lost its records, and a sender that is past 2³²: hundreds of packets later they agree.
  @Test(arguments: [1, 3, 64] as [UInt64], [true, false])
  func findsASenderThatIsFarAhead(halves: UInt64, implicitIV: Bool) {
    let sites = Sites(implicitIV: implicitIV)
    let beta = sites.beta()
    let esp = SlowESP(sites)
    var sequence = halves * two32 + 70_000
    var lost = 0
    while lost < 1000, !accepts(beta, esp, sequence) {
      lost += 1
      sequence += 1
    }
    #expect(lost < 16 + 8 * 65, "\(lost)")
    #expect(beta.disagreements == [.foundAgain])
    // From there on as ever.
    #expect(!accepts(beta, esp, sequence))
    for number in sequence + 1...sequence + 50 { #expect(accepts(beta, esp, number)) }
    #expect(!accepts(beta, esp, 70_000))
  }

  /// A sender that lost its records: nothing is accepted twice, and it is said once.
  @Test(arguments: [true, false])
  func tellsOfASenderThatWentBack(extended: Bool) {
    let sites = Sites(extended: extended, replayWindow: 64)
    let beta = sites.beta()
    let esp = SlowESP(sites)
    #expect(accepts(beta, esp, 5000))
    for sequence in 1...60 as ClosedRange<UInt64> { #expect(!accepts(beta, esp, sequence)) }
    #expect(beta.disagreements == [.peerWentBack])
    // Until it is where it was before; and if it happens again, that is news.
    #expect(accepts(beta, esp, 5001))
    for sequence in 1...60 as ClosedRange<UInt64> { #expect(!accepts(beta, esp, sequence)) }
    #expect(beta.disagreements == [.peerWentBack, .peerWentBack])
  }

  /// Packets that somebody makes up: nothing is said, and none that is genuine is lost.
  @Test func whoHasNoKeyChangesNothing() {
    let sites = Sites()
    let beta = sites.beta()
    let esp = SlowESP(sites)
    var stranger = sites
    stranger.key = 9
    let forger = SlowESP(stranger)
    for round in 1...20 as ClosedRange<UInt64> {
      for number in 0..<100 as Range<UInt64> { #expect(!accepts(beta, forger, round * 7919 * number &+ number)) }
      #expect(accepts(beta, esp, round))
    }
    #expect(beta.disagreements.isEmpty)
    #expect(beta.tables.association(Sites.alphaSPI)?.state.value.window.highest == 20)
  }

  /// Who is told goes on above what was accepted; nobody has to do anything.
  @Test func theSenderIsToldAndGoesOnAbove() throws {
    let lease = SequenceLease(limit: 1000)
    let pair = try NodePair(seed: 5) {
      // Beta has heard numbers that alpha does not know of any more.
      if $0.peers[0].name == "alpha" {
        $0.peers[0].inbound[0].firstSequence = 100_000
      } else {
        $0.peers[0].outbound?.lease = lease
      }
      $0.firewall = FirewallConfiguration(mode: .off)
    }
    pair.run(seconds: 2, packetsPerSecond: 100)
    #expect(pair.gateways[1].events.contains { $0.isDisagreement(.peerWentBack) })
    #expect(pair.gateways[0].events.contains { $0.isDisagreement(.peerRefusesOurs) })
    #expect(pair.gateways[1].delivered.isEmpty)
    // As soon as whoever keeps the records has leased them.
    #expect(lease.used >= 99_999)
    lease.raise(to: lease.used + 1000)
    pair.forget()
    pair.run(seconds: 2, packetsPerSecond: 100)
    pair.expectAll()
  }

  @Test func aRefusalIsReadAsItWasWritten() throws {
    let refusal = RefusalMessage(spi: 0x1234_5678, highest: 0x0102_0304_0506_0708)
    let pool = BufferPool(count: 1)
    let bytes = pool.bytes(try #require(pool.take())).slice(0, RefusalMessage.length)
    bytes.copy(refusal.bytes, to: 0)
    #expect(RefusalMessage(bytes) == refusal)
    #expect(RefusalMessage(bytes.slice(0, 11)) == nil)
  }
}

extension Event {
  fileprivate func isDisagreement(_ what: SequenceDisagreement) -> Bool {
    if case .sequenceNumbersDisagree(_, _, what) = self { true } else { false }
  }
}
