import Identity
import KeyDerivation
import PacketIO
import Testing

@testable import Keying

/// Somebody on the way, or a partner, who knows the rules and means harm.
struct AdversaryTests {
  private static let elsewhere = KeyingNetwork.path(to: 99)

  /// Gateway 1 answers gateway 0, and never asks.
  private static func network(kem: Bool = false, _ change: (inout Partner) -> Void = { _ in }) -> KeyingNetwork {
    let network = RekeyTests.network(kem: kem)
    for gateway in [1, 0] {
      var partner = network.partner(1 - gateway, of: gateway)
      if gateway == 1 { partner.paths = [] }
      change(&partner)
      network.set(partner, at: gateway)
    }
    return network
  }

  private static func isFirst(_ kind: HIPPacketKind, from gateway: Int) -> (Int, HIPPacket) -> Bool {
    { $0 == gateway && $1.kind == kind }
  }

  // MARK: Keys that go

  /// A session ends while a rekey of it is in force and not acknowledged: what it accepted before goes too.
  @Test(arguments: [false, true], [false, true])
  func keysOfARekeyThatWasNotOver(_ kem: Bool, _ closes: Bool) {
    let network = Self.network(kem: kem)
    network.run(seconds: 3)
    network.run(seconds: 61)
    #expect(network.gateways[1].inbound.count == 1)
    // The last acknowledgment is lost.
    network.judge = { from, _, packet in
      from == 0 && packet.kind == .update && packet.content(.seq) == nil ? [] : [KeyingNetwork.delay]
    }
    network.act(0) { $0.rekey("g1", now: network.now) }
    network.run(seconds: 1)
    #expect(network.gateways[1].inbound.count == 2)
    if closes {
      network.act(0) { $0.closeAll(now: network.now) }
      network.run(seconds: 1)
      #expect(network.gateways[1].inbound.isEmpty)
    } else {
      network.judge = nil
      network.restart(0, with: [network.partner(1, of: 0)])
      network.run(seconds: 5)
      #expect(network.areJoined(0, 1))
      network.run(seconds: 70)
      #expect(network.gateways[1].inbound.count == 1)
    }
    #expect(network.violations == [])
  }

  /// One lost acknowledgment of a rekey with two UPDATEs a side costs no handshake.
  @Test func aLostAcknowledgmentOfTwo() {
    let network = Self.network(kem: true)
    network.run(seconds: 3)
    var lost = 0
    network.judge = { from, _, packet in
      guard from == 0, packet.kind == .update, packet.content(.seq) == nil, lost == 0 else {
        return [KeyingNetwork.delay]
      }
      lost += 1
      return []
    }
    let before = network.wire.count
    network.act(0) { $0.rekey("g1", now: network.now) }
    network.run(seconds: 100)
    #expect(lost == 1)
    #expect(!network.wire[before...].contains { HIPPacket($0.bytes)?.kind == .i1 })
    for (number, gateway) in network.gateways.enumerated() {
      #expect(gateway.exchange.report(of: "g\(1 - number)")?.rekeys == 2)
      #expect(gateway.inbound.count == 1)
    }
    #expect(network.violations == [])
  }

  // MARK: Floods in a partner's name

  /// A stranger who knows both names writes packets that nobody understands, or sends one again that he has seen: a rekey
  /// goes through all the same.
  @Test(arguments: [false, true])
  func aFloodInAPartnersName(_ copies: Bool) throws {
    let network = Self.network()
    network.run(seconds: 3)
    network.act(0) { $0.rekey("g1", now: network.now) }
    network.run(seconds: 3)
    let seen = try #require(network.wire.last { HIPPacket($0.bytes)?.kind == .update && $0.from == 0 })
    var odd = Array(seen.bytes.prefix(40)) + [0x7F, 0xFF, 0, 4, 0, 0, 0, 0]
    odd[1] = UInt8(odd.count / 8 - 1)
    #expect(HIPPacket(odd)?.unknownCritical == 0x7FFF)
    for step in 0..<3000 {
      if step == 1000 { network.act(0) { $0.rekey("g1", now: network.now) } }
      network.inject(copies ? seen.bytes : odd, from: 0, to: 1)
      network.run(seconds: 0.001)
    }
    for number in 0..<2 { #expect(network.gateways[number].exchange.report(of: "g\(1 - number)")?.rekeys == 2) }
    #expect(network.violations == [])
  }

  // MARK: Answers that were recorded

  /// An R1 that was seen once, with another #I: its signature does not cover that.
  private static func forged(_ r1: [UInt8], for victim: HostIdentityTag, _ number: UInt8) throws -> [UInt8] {
    let puzzle = try #require(HIPPacket(r1)?.content(.puzzle))
    var bytes = r1
    bytes.replaceSubrange(24..<40, with: victim.bytes)
    for place in puzzle.indices.dropFirst(4) { bytes[place] = number }
    return bytes
  }

  /// A few such answers a second do not keep a pair apart, nor do as many as are let in.
  @Test(arguments: [0.4, 0.02]) func answersMadeOfAnOldOne(interval: Double) throws {
    let network = Self.network()
    network.run(seconds: 3)
    let old = try #require(network.wire.first { HIPPacket($0.bytes)?.kind == .r1 }).bytes
    network.run(seconds: 300)
    network.restart(0, with: [network.partner(1, of: 0)])
    let start = network.now
    for number in 1..<200 where !network.areJoined(0, 1) {
      let bytes = try Self.forged(old, for: network.gateways[0].identity.tag, UInt8(number))
      network.inject(bytes, from: 1, to: 0)
      network.run(seconds: interval) { network.areJoined(0, 1) }
    }
    #expect(network.areJoined(0, 1))
    #expect(network.now.nanoseconds(since: start) < 3_000_000_000)
  }

  /// An answer that was made for somebody else, who has other groups, ends no attempt.
  @Test func anAnswerForSomebodyElse() throws {
    let network = HandshakeTests.network(3)
    for (gateway, groups) in [(0, [DiffieHellmanGroup.x25519]), (2, [.p256])] {
      var partner = network.partner(gateway, of: 1)
      partner.paths = []
      network.set(partner, at: 1)
      var other = network.partner(1, of: gateway)
      other.groups = groups
      network.set(other, at: gateway)
    }
    network.run(seconds: 3)
    let theirs = try #require(
      network.wire.first {
        HIPPacket($0.bytes)?.kind == .r1 && HIPPacket($0.bytes)?.receiver == network.gateways[2].identity.tag
      }
    ).bytes
    var own = network.partner(1, of: 0)
    own.groups = [.x25519]
    network.restart(0, with: [own])
    network.inject(try Self.forged(theirs, for: network.gateways[0].identity.tag, 1), from: 1, to: 0)
    network.run(seconds: 1) { network.areJoined(0, 1) }
    #expect(network.areJoined(0, 1))
  }

  /// An answer from an address that nobody was asked at has nothing sent there.
  @Test func anAnswerFromElsewhere() throws {
    let network = Self.network()
    network.judge = { from, _, packet in packet.kind == .r1 ? [] : [KeyingNetwork.delay] }
    network.run(seconds: 0.2)
    let r1 = try #require(network.wire.first { HIPPacket($0.bytes)?.kind == .r1 }).bytes
    network.inject(r1, from: 1, to: 0, source: Self.elsewhere)
    network.run(seconds: 2)
    #expect(network.elsewhere.isEmpty)
    // It is an answer all the same: hosts of several addresses answer from any of them.
    #expect(network.areJoined(0, 1))
    #expect(network.violations == [])
  }

  /// The last packet of a handshake, or the first one after it, is held back and sent from elsewhere: no path moves.
  @Test(arguments: [false, true])
  func theLastPacketFromElsewhere(_ kem: Bool) throws {
    let network = Self.network(kem: kem)
    let isHeld = kem ? Self.isFirst(.update, from: 0) : Self.isFirst(.r2, from: 1)
    var held: [UInt8]?
    network.judge = { from, _, packet in
      guard held == nil, isHeld(from, packet) else { return [KeyingNetwork.delay] }
      held = packet.bytes
      return []
    }
    network.run(seconds: 5) { held != nil }
    let sender = kem ? 0 : 1
    network.inject(try #require(held), from: sender, to: 1 - sender, source: Self.elsewhere)
    network.run(seconds: 5)
    #expect(network.areJoined(0, 1))
    #expect(network.violations == [])
    #expect(network.gateways[1 - sender].found["g\(sender)"] == KeyingNetwork.path(to: sender))
  }

  // MARK: Partners that change

  /// Post-quantum keys are required from now on: those that are none are used no more.
  @Test(arguments: [PostQuantumMode.off, .preferred])
  func requiredFromNowOn(_ theirs: PostQuantumMode) {
    let network = RekeyTests.network(kem: true)
    network.join(0, 1) { $0.postQuantum = .off }
    network.run(seconds: 3)
    #expect(network.areJoined(0, 1))
    var partner = network.partner(0, of: 1)
    partner.postQuantum = theirs
    network.set(partner, at: 1)
    partner = network.partner(1, of: 0)
    partner.postQuantum = .required
    network.set(partner, at: 0)
    network.run(seconds: 3)
    if theirs == .off {
      #expect(network.gateways[0].outbound["g1"] == nil)
      network.act(1) { $0.rekey("g0", now: network.now) }
      network.run(seconds: 30)
      #expect(network.gateways[0].outbound["g1"] == nil)
    } else {
      #expect(network.areJoined(0, 1))
      #expect(network.gateways[0].exchange.report(of: "g1")?.isPostQuantum == true)
    }
    #expect(network.violations == [])
  }

  /// Two peers exchange names, or one comes under another's.
  @Test(arguments: [false, true])
  func namesAreExchanged(_ areThree: Bool) {
    let network = HandshakeTests.network(4)
    for number in 1...3 { network.join(0, number) }
    network.run(seconds: 5)
    let order = areThree ? [2, 3, 1] : [2, 1, 3]
    for (place, number) in order.enumerated() {
      var partner = network.partner(number, of: 0)
      partner.name = "g\(place + 1)"
      network.set(partner, at: 0)
    }
    network.run(seconds: 60)
    for number in 1...3 {
      #expect(network.gateways[0].exchange.report(of: "g\(number)") != nil, "\(number)")
      #expect(network.gateways[number].exchange.report(of: "g0") != nil, "\(number)")
    }
  }

  // MARK: Sizes and loads

  /// Whatever key and group: what asks is never shorter than the answer, or nothing would come.
  @Test(arguments: [HostIdentity.Kind.p256, .p384, .ed25519, .rsa3072], [DiffieHellmanGroup.x25519, .p256, .p384])
  func everyKindInEveryGroup(_ kind: HostIdentity.Kind, _ group: DiffieHellmanGroup) {
    let network = KeyingNetwork((0..<2).map { _ in HostIdentity.generate(kind) }, seed: 3)
    network.join(0, 1) { $0.groups = [group] }
    network.run(seconds: 3) { network.areJoined(0, 1) }
    #expect(network.areJoined(0, 1))
  }

  /// Puzzles get easier with time, also when nobody solves any.
  @Test func puzzlesGetEasier() {
    var load = ResponderLoad()
    var now = MonotonicTime(nanoseconds: 10_000_000_000)
    for _ in 0..<8 {
      for _ in 0..<300 { load.noteSolution(now) }
      now = now.adding(nanoseconds: 1_000_000_000)
      load.settle(now)
    }
    #expect(load.difficulty == 20)
    load.settle(now.adding(nanoseconds: 3_000_000_000))
    #expect((10...16).contains(load.difficulty))
    load.settle(now.adding(nanoseconds: 60_000_000_000))
    #expect(load.difficulty == 0)
  }
}
