import Identity
import PacketIO
import TestSupport
import Testing

@testable import Relay
@testable import Transports

/// What an identity relay lets pass, and what becomes of all else.
@Suite struct IdentityRelayTests {
  private static let elsewhere = Endpoint(address: IPAddress(v4: 0xCB00_7142), port: 4500)

  private static func allowed(_ count: Int, _ pairs: [(Int, Int)]) -> RelaySites {
    RelaySites(count) { options, sites in
      for (a, b) in pairs { options.policy.allow(sites[a].tag, sites[b].tag) }
    }
  }

  /// Two gateways that have enrolled and told each other an SPI, 0x1000 of the first and 0x2000 of the second.
  private static func bound() -> RelaySites {
    let sites = allowed(4, [(0, 1), (2, 3)])
    for number in 0..<4 { sites.enrol(number) }
    sites.announce(0, 1, 0x1000)
    sites.announce(1, 0, 0x2000, kind: .r2)
    return sites
  }

  // MARK: Enrolment

  @Test(arguments: [HostIdentity.Kind.p256, .ed25519]) func whoIsNamedEnrols(kind: HostIdentity.Kind) throws {
    let sites = RelaySites(2, kind: kind) { options, sites in options.policy.allow(sites[0].tag, sites[1].tag) }
    #expect(RelayOptions.isFit(sites.identity.publicIdentity))
    for number in 0..<2 {
      let enrolment = sites.enrolment(number)
      let answer = try #require(sites.say(enrolment, from: sites.sites[number].endpoint))
      #expect(answer.count <= enrolment.bytes.count)
      guard case .enrolled(let enrolled) = EnrolmentMessage(answer) else {
        Issue.record("not enrolled: \(answer)")
        return
      }
      #expect(enrolled.seen == sites.sites[number].endpoint && enrolled.nonce == enrolment.enrol.nonce)
      #expect(enrolled.identity.hostIdentity == sites.identity.publicIdentity.hostIdentity)
      let proof = EnrolmentMessage.proof(
        ofEnrolled: answer, signature: enrolled.signature.count, gateway: sites.sites[number].tag.bytes)
      #expect(sites.identity.publicIdentity.isValid(signature: enrolled.signature, over: proof))
      // Said once more, because the answer was lost; and from elsewhere, where it moves nothing.
      #expect(sites.say(enrolment, from: sites.sites[number].endpoint) != nil)
      let copy = sites.enrolment(number, at: Self.elsewhere)
      let answered = try #require(sites.say(copy, from: Self.elsewhere))
      #expect(answered.count <= copy.bytes.count)
      guard case .older(let older) = EnrolmentMessage(answered) else {
        Issue.record("\(answered)")
        return
      }
      #expect(older.nonce == copy.enrol.nonce && older.sequence == 1)
      let proofOfOlder = EnrolmentMessage.proof(
        ofOlder: answered, signature: older.signature.count, gateway: sites.sites[number].tag.bytes)
      #expect(sites.identity.publicIdentity.isValid(signature: older.signature, over: proofOfOlder))
      #expect(sites.address(number) == sites.sites[number].endpoint)
    }
    #expect(sites.enrolled == 2)
  }

  /// A key as long as these are not gets answers that are longer than what they answer.
  @Test func otherKeysAreNotForRelays() {
    for kind in [HostIdentity.Kind.p384, .rsa2048] {
      #expect(!RelayOptions.isFit(HostIdentity.generate(kind).publicIdentity))
    }
  }

  /// Each thing that is wrong has a reason of its own, nothing is kept, and no answer is longer than what it answers.
  @Test func nothingIsKeptBeforeAllIsRight() throws {
    struct Wrong {
      var name: RelayDrop
      var number = 0
      var source: Endpoint?
      var relay: HostIdentityTag?
      var change: (inout EnrolmentMessage.Enrol) -> Void = { _ in }
      var forge: (inout [UInt8]) -> Void = { _ in }
    }
    let other = HostIdentity.generate(.p256)
    let cases: [Wrong] = [
      Wrong(name: .badCookie, change: { $0.cookie[3] ^= 1 }),
      Wrong(name: .badCookie, source: Self.elsewhere),
      Wrong(name: .badCookie, change: { $0.nonce.low ^= 1 }),
      Wrong(name: .enrolmentNotAllowed, number: 2),
      Wrong(name: .enrolmentForged, forge: { $0[5] ^= 1 }),
      // It was made for another relay, which has handed it on.
      Wrong(name: .enrolmentForged, relay: other.tag),
      Wrong(
        name: .enrolmentNotAllowed,
        change: { $0.identity = .init(algorithm: 7, hostIdentity: other.publicIdentity.hostIdentity) }),
      Wrong(name: .malformed, change: { $0.identity.hostIdentity[10] ^= 1 }),
    ]
    for wrong in cases {
      let sites = Self.allowed(3, [(0, 1)])
      let enrolment = sites.enrolment(wrong.number, relay: wrong.relay, wrong.change, forge: wrong.forge)
      let answer = sites.say(enrolment, from: wrong.source ?? sites.sites[wrong.number].endpoint)
      #expect(answer?.count ?? 0 <= 28)
      #expect(sites.relay.statistics[wrong.name] == 1 && sites.drops == 1, "\(wrong.name)")
      #expect(sites.enrolled == 0 && sites.place(0) == nil)
    }
  }

  /// Somebody else's key: its signature is right, and no rule names it.
  @Test func aFloodOfEnrolmentsCostsFewSignatures() {
    let sites = Self.allowed(2, [(0, 1)])
    for _ in 0..<100 {
      _ = sites.say(sites.enrolment(0, forge: { $0[0] ^= 1 }), from: sites.sites[0].endpoint)
    }
    #expect(sites.relay.statistics[.enrolmentForged] == 4 && sites.relay.statistics[.enrolmentBusy] == 96)
    sites.wait(1)
    #expect(sites.enrol(0) != nil)
  }

  @Test func aHoldIsAnsweredWhereItIsKnown() throws {
    let sites = Self.allowed(2, [(0, 1)])
    let enrolled = try #require(sites.enrol(0))
    let held = sites.hold(enrolled.token, from: sites.sites[0].endpoint)
    #expect(held.map { HairpinMessage($0) } == .held(nonce: enrolled.token, partnerIsThere: false))
    #expect(sites.hold(enrolled.token, from: Self.elsewhere) == nil)
    let guess = HairpinNumber(high: 1, low: 1)
    #expect(sites.hold(guess, from: sites.sites[0].endpoint) == nil)
    // Silence ends it; a hold in between does not let it end.
    for _ in 0..<3 {
      sites.wait(100)
      _ = sites.hold(enrolled.token, from: sites.sites[0].endpoint)
      sites.sweep()
    }
    #expect(sites.enrolled == 1)
    sites.wait(121)
    sites.sweep()
    #expect(sites.enrolled == 0 && sites.place(0) == nil)
    #expect(sites.hold(enrolled.token, from: sites.sites[0].endpoint) == nil)
  }

  @Test func aFullRelaySaysSo() throws {
    let sites = RelaySites(4) { options, sites in
      options.gateways = 2
      for a in 0..<4 { for b in 0..<a { options.policy.allow(sites[a].tag, sites[b].tag) } }
    }
    #expect(sites.enrol(0) != nil && sites.enrol(1) != nil)
    let refused = try #require(sites.say(sites.enrolment(2), from: sites.sites[2].endpoint))
    guard case .refused(_, HairpinReason.full.rawValue) = HairpinMessage(refused) else {
      Issue.record("\(refused)")
      return
    }
    #expect(sites.enrol(0) != nil, "who is there comes back")
  }

  // MARK: Handshakes and sealed packets

  @Test func whatIsSignedBindsAndIsForwarded() {
    let sites = Self.allowed(2, [(0, 1)])
    for number in 0..<2 { sites.enrol(number) }
    let places = (0..<2).map { sites.place($0)! }
    for (kind, from, to) in [(HIPPacketKind.i1, 0, 1), (.r1, 1, 0)] {
      #expect(sites.observe(sites.packet(kind, from, to), from: sites.sites[from].endpoint) == .forward(places[to]))
    }
    #expect(sites.receiver(0x1000, from: 1) == nil)
    #expect(sites.announce(0, 1, 0x1000) == .forward(places[1]))
    #expect(sites.announce(1, 0, 0x2000, kind: .r2) == .forward(places[0]))
    // Every worker's of the sixteen, and nobody else's.
    for worker in 0..<16 as Range<UInt32> {
      #expect(sites.receiver(0x1000 + worker, from: 1) == 0 && sites.receiver(0x2000 + worker, from: 0) == 1)
    }
    #expect(sites.receiver(0x1010, from: 1) == nil && sites.receiver(0x0FFF, from: 1) == nil)
    // Its own packets do not come back to it.
    #expect(sites.receiver(0x1000, from: 0) == nil && sites.receiver(0x2000, from: 1) == nil)
    #expect(sites.relay.statistics.bound == 2 && sites.relay.statistics.forwardedHandshakes == 4)
  }

  /// What can be wrong with a packet of a handshake.
  enum HandshakeFault: CaseIterable {
    case notAllowed, senderNotEnrolled, receiverNotEnrolled, foreignSource, badSignature, foreignSPI

    var reason: RelayDrop {
      switch self {
      case .notAllowed: .notAllowed
      case .senderNotEnrolled: .senderNotEnrolled
      case .receiverNotEnrolled: .receiverNotEnrolled
      case .foreignSource: .foreignSource
      case .badSignature: .badSignature
      case .foreignSPI: .spiTaken
      }
    }
  }

  /// Every one and every two of them: nothing passes, nothing is bound, and one reason is counted.
  @Test func everyTwoWrongInAHandshake() {
    for first in HandshakeFault.allCases {
      for second in HandshakeFault.allCases {
        let faults: Set = [first, second]
        let sites = Self.allowed(4, faults.contains(.notAllowed) ? [(2, 3), (0, 3), (1, 3)] : [(0, 1), (2, 3)])
        if !faults.contains(.senderNotEnrolled) { sites.enrol(0) }
        if !faults.contains(.receiverNotEnrolled) { sites.enrol(1) }
        sites.enrol(2)
        sites.enrol(3)
        sites.announce(2, 3, 0x7000)
        let packet = sites.packet(
          .i2, 0, 1, spis: [faults.contains(.foreignSPI) ? 0x7000 : 0x1000],
          signer: faults.contains(.badSignature) ? 2 : 0)
        let source = faults.contains(.foreignSource) ? sites.sites[2].endpoint : sites.sites[0].endpoint
        let (before, forwarded) = (sites.drops, sites.relay.statistics.forwardedHandshakes)
        guard case .drop(let reason, _) = sites.observe(packet, from: source) else {
          Issue.record("\(faults) passes")
          continue
        }
        #expect(sites.drops == before + 1 && sites.relay.statistics[reason] > 0, "\(faults)")
        #expect(faults.map(\.reason).contains(reason), "\(faults): \(reason)")
        #expect(sites.relay.statistics.forwardedHandshakes == forwarded)
        #expect(sites.associations == 1 && sites.pairs == 1, "\(faults) bind")
        #expect(sites.receiver(0x7000, from: 3) == 2, "\(faults) takes another's")
      }
    }
  }

  /// The same for sealed packets: they pass under an SPI that is bound, from where its partner is, and not otherwise.
  enum SealedFault: CaseIterable {
    case notAllowed, senderNotEnrolled, receiverNotEnrolled, foreignSource, unknownSPI

    var reason: RelayDrop {
      switch self {
      // What is not allowed any more is not known any more.
      case .notAllowed, .unknownSPI: .unknownSPI
      case .senderNotEnrolled: .senderNotEnrolled
      case .receiverNotEnrolled: .receiverNotEnrolled
      case .foreignSource: .foreignSource
      }
    }
  }

  @Test func everyTwoWrongInASealedPacket() {
    for first in SealedFault.allCases {
      for second in SealedFault.allCases {
        let faults: Set = [first, second]
        let sites = Self.bound()
        sites.announce(2, 3, 0x7000)
        // Both stay remembered as long as the pair is there.
        for (fault, number) in [(SealedFault.senderNotEnrolled, 1), (.receiverNotEnrolled, 0)]
        where faults.contains(fault) {
          let place = sites.place(number)!
          sites.relay.places.expire(place)
        }
        if faults.contains(.notAllowed) {
          var policy = RelayPolicy()
          policy.allow(sites.sites[2].tag, sites.sites[3].tag)
          _ = sites.relay.set(policy, sites.clock)
        }
        let spi: UInt32 = faults.contains(.unknownSPI) ? 0x5000 : 0x1000
        // Somebody who is enrolled, and bound to another pair.
        let source = faults.contains(.foreignSource) ? sites.sites[3].endpoint : sites.sites[1].endpoint
        guard case .unknown(let reason, _) = sites.route(spi, from: source) else {
          Issue.record("\(faults) passes")
          continue
        }
        #expect(faults.map(\.reason).contains(reason), "\(faults): \(reason)")
        #expect(sites.receiver(0x7000, from: 3) == 2)
      }
    }
    #expect(Self.bound().receiver(0x1000, from: 1) == 0, "and without a fault it passes")
  }

  /// A table of who is told what about an SPI that somebody else has.
  @Test func aTakenSPIIsToldToWhoClaimsIt() throws {
    let sites = Self.bound()
    guard case .drop(.spiTaken, let answer?) = sites.announce(2, 3, 0x100F) else {
      Issue.record("not told")
      return
    }
    let notice = try #require(HIPPacket(Array(answer.dropFirst(4))))
    #expect(notice.kind == .notify && notice.sender == sites.identity.tag && notice.receiver == sites.sites[2].tag)
    let content = Array(try #require(notice.content(.notification)))
    #expect(content == [0, 0, 0x2C, 0x27, 0, 0, 0x10, 0])
    let key = try #require(notice.content(.hostID).flatMap { PublicHostIdentity(hostID: $0) })
    #expect(key == sites.identity.publicIdentity && notice.hasValidSignature(by: key))
    // The side's own partner cannot have it either, and the holder may say it again.
    guard case .drop(.spiTaken, _) = sites.announce(1, 0, 0x1000, kind: .update) else {
      Issue.record("the partner has it")
      return
    }
    if case .drop = sites.announce(0, 1, 0x1000, kind: .update) { Issue.record("not its own any more") }
    // Ten a second, whoever asks for them.
    var told = 0
    for _ in 0..<100 {
      if case .drop(.spiTaken, .some) = sites.announce(2, 3, 0x1000, kind: .update) { told += 1 }
    }
    #expect(told <= 10 && sites.relay.statistics[.spiTaken] == 102)
    #expect(sites.receiver(0x1000, from: 1) == 0 && sites.receiver(0x1000, from: 3) == nil)
  }

  /// A packet with two SPIs, one of them taken: neither is bound.
  @Test func allOrNothing() {
    let sites = Self.bound()
    let both = sites.packet(.update, 2, 3, spis: [0x8000, 0x1000])
    guard case .drop(.spiTaken, _) = sites.observe(both, from: sites.sites[2].endpoint) else {
      Issue.record("it passes")
      return
    }
    #expect(sites.receiver(0x8000, from: 3) == nil)
  }

  /// Old SPIs go on while they are used, two minutes more when they are not, and no side has more than four.
  @Test func theNewestFourCount() {
    let sites = Self.bound()
    for step in 1...9 as ClosedRange<UInt32> {
      sites.wait(1)
      sites.announce(0, 1, 0x1000 + step << 4, kind: .update)
      // The very first one is used all the time: nobody's replay of old packets drives it out.
      guard case .forward(let side, let slot, _) = sites.route(0x1000, from: sites.sites[1].endpoint) else {
        Issue.record("gone at \(step)")
        return
      }
      sites.relay.forwarded(side, slot, packets: 1, bytes: 100, now: sites.clock.monotonic)
      let live = (0...9 as ClosedRange<UInt32>).filter { sites.receiver(0x1000 + $0 << 4, from: 1) == 0 }
      #expect(live.count == min(Int(step) + 1, 4) && live.contains(step) && live.contains(0))
    }
    #expect(sites.associations == 5)
    for _ in 0..<3 {
      sites.wait(50)
      for number in 0..<2 {
        _ = sites.hold(sites.sites[number].token, from: sites.sites[number].endpoint)
      }
      sites.sweep()
    }
    let live = (0...9 as ClosedRange<UInt32>).filter { sites.receiver(0x1000 + $0 << 4, from: 1) == 0 }
    #expect(live == [9] && sites.receiver(0x2000, from: 0) == 1)
  }

  /// A gateway that moves takes all that is bound to it along, in both directions.
  @Test func aMoveTakesAllBindingsAlong() {
    let sites = Self.bound()
    let before = sites.sites[0].endpoint
    let recorded = sites.enrolment(0)
    sites.sites[0].endpoint = Self.elsewhere
    sites.wait(1)
    #expect(sites.enrol(0) != nil)
    #expect(sites.address(0) == Self.elsewhere)
    #expect(sites.receiver(0x1000, from: 1) == 0 && sites.receiver(0x2000, from: 0) == 1)
    guard case .unknown(.foreignSource, _) = sites.route(0x2000, from: before) else {
      Issue.record("where it was is still good")
      return
    }
    // What it said there brings nobody back.
    _ = sites.say(recorded, from: before)
    #expect(sites.address(0) == Self.elsewhere)
  }

  /// A pair that is taken out of the policy: nothing passes from that moment on, and both are told.
  @Test func aRemovedPairIsCutAndTold() {
    let sites = Self.bound()
    sites.announce(2, 3, 0x7000)
    var policy = RelayPolicy()
    policy.allow(sites.sites[2].tag, sites.sites[3].tag)
    let said = sites.relay.set(policy, sites.clock)
    #expect(said.count == 2)
    for (place, notice) in said {
      let packet = HIPPacket(Array(notice.dropFirst(4)))
      #expect(packet?.content(.notification).map { Array($0) } == [0, 0, 0, 42])
      #expect(sites.tag(at: place) == packet?.receiver)
    }
    #expect(sites.receiver(0x1000, from: 1) == nil && sites.receiver(0x7000, from: 3) == 2)
    guard case .drop(.notAllowed, .some) = sites.announce(0, 1, 0x1000) else {
      Issue.record("it is bound again")
      return
    }
  }

  /// A rule that ends by itself does so within a second.
  @Test func aRuleEnds() {
    let sites = RelaySites(2) { options, sites in
      options.policy.allow(sites[0].tag, sites[1].tag, .init(notAfter: 1_800_000_010))
    }
    for number in 0..<2 { sites.enrol(number) }
    sites.announce(0, 1, 0x1000)
    sites.wait(10)
    sites.sweep()
    #expect(sites.receiver(0x1000, from: 1) == 0)
    sites.wait(1)
    sites.sweep()
    #expect(sites.receiver(0x1000, from: 1) == nil && sites.pairs == 0)
  }

  /// More pairs than there is room for: those are told, and the others lose nothing.
  @Test func aFullTableHarmsNobodyElse() throws {
    let sites = RelaySites(5) { options, sites in
      options.pairs = 2
      for other in 1..<5 { options.policy.allow(sites[0].tag, sites[other].tag) }
    }
    for number in 0..<5 { sites.enrol(number) }
    for other in 1...2 { sites.announce(other, 0, UInt32(other) << 12) }
    guard case .drop(.full, let answer?) = sites.announce(3, 0, 3 << 12) else {
      Issue.record("there is room")
      return
    }
    let notice = try #require(HIPPacket(Array(answer.dropFirst(4))))
    #expect(notice.content(.notification).map { Array($0) } == [0, 0, 0, 44])
    for other in 1...2 { #expect(sites.receiver(UInt32(other) << 12, from: 0) == other) }
  }

  /// The same packet again passes without another look, and one that differs in a bit does not pass.
  @Test func aRepeatIsNotLookedAtAgain() {
    let sites = Self.bound()
    let update = sites.packet(.update, 0, 1, spis: [0x1000], seq: 5)
    // All signatures that may be checked, and more.
    for _ in 0..<20_000 {
      guard case .forward = sites.observe(update, from: sites.sites[0].endpoint) else {
        // What a gateway may say in a second is limited, too.
        #expect(sites.relay.statistics[.tooManySignatures] == 1)
        break
      }
    }
    sites.wait(10)
    var altered = update
    altered[50] ^= 1
    guard case .drop = sites.observe(altered, from: sites.sites[0].endpoint) else {
      Issue.record("altered, and it passes")
      return
    }
    #expect(sites.receiver(0x1000, from: 1) == 0)
  }

  /// Any change to a signed packet: it is dropped, or nothing of what is bound changes.
  @Test func noBitCanBeChanged() {
    let sites = Self.bound()
    let packet = sites.packet(.i2, 0, 1, spis: [0x3000])
    for place in packet.indices {
      var altered = packet
      altered[place] ^= 1 << UInt8(place % 8)
      if case .forward = sites.observe(altered, from: sites.sites[0].endpoint) {
        // Paddings are not covered, and the kind may become one that binds nothing.
        #expect(sites.receiver(0x3000, from: 1) == nil || place >= packet.count - 8, "byte \(place)")
      }
      #expect(sites.associations <= 3)
    }
  }

  /// Who is asked for his name has sent at least as much, each side once a second, all together two hundred times.
  @Test func questionsAreNotAnswersToLess() {
    let sites = Self.bound()
    for length in [0, 24, 59] { #expect(sites.ask(side: nil, length: length) == nil) }
    let asked = sites.ask(side: 0, length: 60)
    #expect(asked?.count == 60)
    guard case .who(let nonce, let cookie)? = asked.flatMap({ EnrolmentMessage($0) }) else { return }
    let sender = Endpoint(address: IPAddress(v4: 1 << 30), port: 9)
    #expect(
      sites.cookies.isValid(cookie, sender, nonce: nonce, port: RelaySites.port, now: sites.clock.monotonic))
    #expect(sites.ask(side: 0, length: 60) == nil)
    #expect((0..<1000).filter { _ in sites.ask(side: nil, length: 60) != nil }.count == 199)
  }

  /// A flood of datagrams, whose senders may be made up, takes nothing from who comes by a stream.
  @Test func streamsHaveAShareOfTheirOwn() {
    let sites = RelaySites(2)
    #expect((0..<2000).count { sites.admitsStranger($0, byStream: false) } == 1000)
    #expect((0..<300).count { _ in sites.ask(side: nil, length: 60) != nil } == 200)
    #expect(sites.admitsStranger(byStream: true) && sites.ask(byStream: true, side: nil, length: 60) != nil)
  }

  /// What a pair has more than its bandwidth is dropped; another pair loses nothing.
  @Test func bandwidthIsPolicedByPairAndDirection() {
    let sites = RelaySites(4) { options, sites in
      options.policy.allow(sites[0].tag, sites[1].tag, .init(bandwidth: 8_000_000))
      options.policy.allow(sites[2].tag, sites[3].tag)
    }
    for number in 0..<4 { sites.enrol(number) }
    sites.announce(0, 1, 0x1000)
    sites.announce(1, 0, 0x2000)
    sites.announce(2, 3, 0x3000)
    func pass(_ spi: UInt32, from number: Int, seconds: Int) -> Int {
      guard case .forward(let side, _, _) = sites.route(spi, from: sites.sites[number].endpoint) else { return 0 }
      var bytes = 0
      for _ in 0..<(1000 * seconds) {
        sites.wait(0.001)
        // Ten times as much as is allowed.
        for _ in 0..<10 where sites.admits(1000, side) { bytes += 1000 }
      }
      return bytes
    }
    #expect((1_900_000...2_200_000).contains(pass(0x1000, from: 1, seconds: 2)))
    #expect((1_900_000...2_200_000).contains(pass(0x2000, from: 0, seconds: 2)), "the other direction has its own")
    #expect(pass(0x3000, from: 3, seconds: 1) == 10_000_000)
  }

  /// Packets of handshakes count against the pair's bandwidth, bound or not: an eighth of it is for them, whatever data
  /// wants, and all together are not more than is allowed. Another pair loses nothing.
  @Test(arguments: [false, true]) func handshakesAreChargedToTheirPair(isBound: Bool) {
    let sites = RelaySites(4) { options, sites in
      options.policy.allow(sites[0].tag, sites[1].tag, .init(bandwidth: 1_000_000))
      options.policy.allow(sites[2].tag, sites[3].tag)
    }
    for number in 0..<4 { sites.enrol(number) }
    if isBound {
      sites.announce(0, 1, 0x1000)
      sites.announce(1, 0, 0x2000)
    }
    let long = sites.packet(.i1, 0, 1, padding: 1200)
    let other = sites.packet(.i1, 2, 3, padding: 1200)
    var (handshakes, data, others) = (0, 0, 0)
    for _ in 0..<2000 {
      sites.wait(0.001)
      if case .forward = sites.observe(other, from: sites.sites[2].endpoint) { others += 1 }
      for _ in 0..<2 {
        if case .forward = sites.observe(long, from: sites.sites[0].endpoint) { handshakes += long.count + 4 }
      }
      if case .forward(let side, _, _) = sites.route(0x2000, from: sites.sites[0].endpoint) {
        for _ in 0..<2 where sites.admits(500, side) { data += 500 }
      }
    }
    // Two seconds of 125,000 bytes, and what may come at once.
    #expect((31_250...31_250 + 16_384 + 2000).contains(handshakes), "\(handshakes)")
    #expect(handshakes + data <= 250_000 + 16_384 + 16_384 + 2000, "\(handshakes) and \(data)")
    #expect(!isBound || data >= 200_000, "\(data)")
    #expect(others == 2000)
    #expect(sites.relay.statistics[.overBandwidth] > 3000)
  }

  /// Data has used up everything, and keys can be renewed all the same.
  @Test func dataLosesNoHandshake() {
    let sites = RelaySites(2) { options, sites in
      options.policy.allow(sites[0].tag, sites[1].tag, .init(bandwidth: 1_000_000))
    }
    for number in 0..<2 { sites.enrol(number) }
    sites.announce(0, 1, 0x1000)
    sites.announce(1, 0, 0x2000)
    for step in 1...20 as ClosedRange<UInt32> {
      sites.wait(1)
      guard case .forward(let side, _, _) = sites.route(0x2000, from: sites.sites[0].endpoint) else { return }
      while sites.admits(1400, side) {}
      let update = sites.packet(.update, 0, 1, spis: [0x1000 + step << 4], seq: step)
      guard case .forward = sites.observe(update, from: sites.sites[0].endpoint) else {
        Issue.record("lost at \(step)")
        return
      }
    }
  }

  /// Where the whole relay has a limit, the lower class gives way.
  @Test func theLowestClassLosesFirst() {
    let sites = RelaySites(4) { options, sites in
      options.bandwidth = 80_000_000
      options.policy.allow(sites[0].tag, sites[1].tag, .init(priority: 7))
      options.policy.allow(sites[2].tag, sites[3].tag, .init(priority: 0))
    }
    for number in 0..<4 { sites.enrol(number) }
    sites.announce(0, 1, 0x1000)
    sites.announce(2, 3, 0x2000)
    var passed = [0, 0]
    let sides = [(0x1000, 1), (0x2000, 3)].compactMap { spi, from -> Int? in
      guard case .forward(let side, _, _) = sites.route(UInt32(spi), from: sites.sites[from].endpoint) else {
        return nil
      }
      return side
    }
    for _ in 0..<2000 {
      sites.wait(0.001)
      // Each alone would have nine tenths of it.
      for (number, side) in sides.enumerated() {
        for _ in 0..<9 where sites.admits(1000, side) { passed[number] += 1000 }
      }
    }
    #expect(passed[0] == 18_000_000, "\(passed)")
    #expect((1_500_000...3_000_000).contains(passed[1]), "\(passed)")
  }

  /// What was copied is of its moment, whenever it is read.
  @Test func aSnapshotStaysAsItWas() {
    let sites = Self.bound()
    let before = sites.relay.snapshot(sites.clock)
    _ = sites.relay.set(RelayPolicy(), sites.clock)
    let report = before.report
    #expect(report.pairs.filter(\.isBound).count == 1 && report.counters["associations"] == 2)
    #expect(sites.relay.snapshot(sites.clock).report.pairs.isEmpty)
  }

  @Test func whatIsShownSaysWhy() {
    let sites = Self.allowed(4, [(0, 1), (0, 2), (2, 3)])
    func reasons() -> [String: String?] {
      let pairs = sites.relay.snapshot(sites.clock).report.pairs
      return Dictionary(uniqueKeysWithValues: pairs.map { ($0.gateways.joined(), $0.reason) })
    }
    func key(_ a: Int, _ b: Int) -> String {
      let pair = RelayPolicy.Pair(sites.sites[a].tag, sites.sites[b].tag)
      return "\(pair.smaller)\(pair.greater)"
    }
    sites.enrol(0)
    #expect(reasons()[key(0, 1)] == "\(sites.sites[1].tag) is not enrolled")
    #expect(reasons()[key(2, 3)] == "neither is enrolled")
    sites.enrol(1)
    #expect(reasons()[key(0, 1)] == "both are enrolled, and no handshake has come through")
    sites.announce(0, 1, 0x1000)
    #expect(reasons()[key(0, 1)] == "\(sites.sites[1].tag) has announced no SPI")
    sites.announce(1, 0, 0x2000)
    let report = sites.relay.snapshot(sites.clock).report
    #expect(report.pairs.first { $0.gateways.joined() == key(0, 1) }?.isBound == true)
    #expect(report.gateways.count == 2 && report.pairs.count == 3 && report.gid == "\(sites.identity.tag)")
  }
}
