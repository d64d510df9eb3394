import Identity
import PacketIO
import TestSupport
import Testing

@testable import Relay
@testable import Transports

/// What one gateway, or a stranger in its name, does at an identity relay costs the others nothing.
@Suite struct RelayShareTests {
  private static let start = MonotonicTime(nanoseconds: 1 << 50)

  // MARK: Bandwidth

  /// One gateway sends by eight pairs all that it can, and the same by one: each gets the same. What one does not want the
  /// others have.
  @Test func whoHasManyPairsGetsNoMore() throws {
    let sites = RelaySites(12) { options, sites in
      options.bandwidth = 80_000_000
      for other in 1...8 { options.policy.allow(sites[0].tag, sites[other].tag) }
      options.policy.allow(sites[9].tag, sites[10].tag)
      options.policy.allow(sites[9].tag, sites[11].tag)
    }
    for number in 0..<12 { sites.enrol(number) }
    func side(from sender: Int, to receiver: Int) throws -> Int {
      let spi = UInt32(1 + receiver) << 12
      sites.announce(receiver, sender, spi)
      guard case .forward(let side, _, _) = sites.route(spi, from: sites.sites[sender].endpoint) else {
        throw Missing()
      }
      return side
    }
    let many = try (1...8).map { try side(from: 0, to: $0) }
    let one = try side(from: 9, to: 10)
    var passed = [0, 0]
    func run(_ milliseconds: Int, packetsOfOne: Int) {
      passed = [0, 0]
      for _ in 0..<milliseconds {
        sites.wait(0.001)
        for side in many { for _ in 0..<10 where sites.admits(1000, side) { passed[0] += 1000 } }
        for _ in 0..<packetsOfOne where sites.admits(1000, one) { passed[1] += 1000 }
      }
    }
    run(500, packetsOfOne: 10)
    // Two seconds of 10 MB each.
    run(2000, packetsOfOne: 10)
    #expect((9_000_000...11_000_000).contains(passed[0]) && (9_000_000...11_000_000).contains(passed[1]), "\(passed)")
    run(500, packetsOfOne: 2)
    run(2000, packetsOfOne: 2)
    #expect(passed[1] >= 3_900_000 && passed[0] >= 15_000_000, "\(passed)")
    run(500, packetsOfOne: 0)
    run(2000, packetsOfOne: 0)
    #expect(passed[0] >= 19_000_000, "\(passed)")
  }

  private struct Missing: Error {}

  /// Each direction of each pair has its own, however many there are.
  @Test func handshakesOfOthersTakeNothing() {
    var bandwidth = RelayBandwidth(bitRate: 0, gateways: 64, now: Self.start)
    for sender in 0..<64 {
      for receiver in 0..<64 where receiver != sender {
        var passed = 0
        while bandwidth.admitsHandshake(
          1000, from: sender, to: receiver, isProven: true, bitRate: 1_000_000, now: Self.start)
        { passed += 1 }
        #expect(passed == 17, "\(sender) to \(receiver)")
      }
    }
  }

  // MARK: Pairs

  /// A gateway has half of all pairs, and then others still get theirs.
  @Test func nobodyHasAllPairs() {
    let sites = RelaySites(43) { options, sites in
      options.pairs = 40
      for other in 1..<41 { options.policy.allow(sites[0].tag, sites[other].tag) }
      options.policy.allow(sites[41].tag, sites[42].tag)
    }
    for number in 0..<43 { sites.enrol(number) }
    var refused = 0
    for other in 1..<41 {
      if case .drop(.tooManyPairs, let answer) = sites.announce(0, other, UInt32(other) << 12) {
        refused += 1
        // Ten in a second.
        #expect(refused > 10 || answer != nil)
      }
    }
    #expect(sites.pairs == 20 && refused == 20 && sites.relay.statistics[.tooManyPairs] == 20)
    sites.announce(41, 42, 0x7F000)
    #expect(sites.receiver(0x7F000, from: 42) == 41)
    // What goes makes room.
    var policy = RelayPolicy()
    policy.allow(sites.sites[0].tag, sites.sites[40].tag)
    _ = sites.relay.set(policy, sites.clock)
    #expect(sites.pairs == 0)
    sites.announce(0, 40, 0x50000)
    #expect(sites.receiver(0x50000, from: 40) == 0)
  }

  // MARK: Strangers

  private static func two() -> RelaySites {
    let sites = RelaySites(4) { options, sites in
      options.policy.allow(sites[0].tag, sites[1].tag, .init(bandwidth: 1_000_000))
      options.policy.allow(sites[2].tag, sites[3].tag)
    }
    for number in 0..<4 { sites.enrol(number) }
    return sites
  }

  /// Somebody sends in a gateway's name and from its address, as anybody can: what nobody signs, and what is signed wrong. It takes
  /// nothing of what the gateway has for what it signs, and nothing of its pair's bandwidth.
  @Test func whatIsForgedTakesNothing() {
    let sites = Self.two()
    let unsigned = sites.packet(.i1, 0, 1, padding: 400)
    for _ in 0..<20_000 { _ = sites.observe(unsigned, from: sites.sites[0].endpoint) }
    #expect(sites.relay.statistics[.tooManySignatures] + sites.relay.statistics[.overBandwidth] > 10_000)
    let forged = sites.packet(.i2, 0, 1, spis: [0x5000], signer: 2)
    for _ in 0..<500 { _ = sites.observe(forged, from: sites.sites[0].endpoint) }
    #expect(sites.relay.statistics[.badSignature] == 500)
    sites.announce(0, 1, 0x1000)
    #expect(sites.receiver(0x1000, from: 1) == 0)
    // More than are looked at: that is over when the flood is.
    for _ in 0..<1000 { _ = sites.observe(forged, from: sites.sites[0].endpoint) }
    #expect(sites.relay.statistics[.badSignature] < 1100)
    sites.announce(2, 3, 0x2000)
    #expect(sites.receiver(0x2000, from: 3) == 2)
    sites.wait(1)
    sites.announce(1, 0, 0x3000)
    sites.announce(0, 1, 0x1010, kind: .update)
    #expect(sites.receiver(0x1010, from: 1) == 0)
  }

  /// As many signatures as a gateway that comes back needs, when they are right.
  @Test func whatIsSignedIsNotHeldBack() {
    let sites = Self.two()
    for step in 1...3000 as ClosedRange<UInt32> {
      sites.wait(0.001)
      guard case .forward = sites.announce(2, 3, 0x10000 + step << 4, kind: .update) else {
        Issue.record("\(step)")
        return
      }
    }
  }

  /// One origin floods with what nobody knows to be whose, and another one is heard.
  @Test func messagesAreChargedToTheirOrigin() {
    let sites = Self.two()
    let flood = IPAddress(v4: 0xCB00_7101)
    let heard = (0..<100_000).filter { _ in
      sites.relay.admitsStranger(at: flood, byStream: false, now: sites.clock.monotonic)
    }.count
    #expect(heard == 200)
    // Buckets are shared by a hash: not all of these have that one's.
    let others = (1...8).filter {
      sites.relay.admitsStranger(
        at: IPAddress(v4: 0x0A01_0000 + UInt32($0)), byStream: false, now: sites.clock.monotonic)
    }
    #expect(others.count >= 6)
    #expect(sites.relay.statistics[.tooManyStrangers] == UInt64(100_000 - heard + 8 - others.count))
  }

  // MARK: Notices

  /// Who asks for what is not allowed all the time is told ten times a second, and the others are told, too.
  @Test func oneNoisyGatewaySilencesNobody() {
    let sites = Self.two()
    func told(_ number: Int, _ times: Int) -> Int {
      let packet = sites.packet(.i1, number, (number + 2) % 4)
      return (0..<times).filter { _ in
        guard case .drop(.notAllowed, .some) = sites.observe(packet, from: sites.sites[number].endpoint) else {
          return false
        }
        return true
      }.count
    }
    #expect(told(0, 1000) == 10)
    for number in 1..<4 { #expect(told(number, 1) == 1) }
    sites.wait(1)
    #expect(told(0, 1000) == 10)
  }
}
