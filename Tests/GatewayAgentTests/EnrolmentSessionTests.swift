import Identity
import PacketIO
import Testing

@testable import Gateway
@testable import Relay
@testable import Transports

/// A gateway's enrolment against a real relay, in memory, on a clock of the tests' own.
@Suite struct EnrolmentSessionTests {
  /// A relay and a gateway, and what lies between.
  private final class Pair {
    let gateway = HostIdentity.generate(.p256)
    let identity: HostIdentity
    var relay: IdentityRelay
    var session: EnrolmentSession
    var clock = HairpinClock(monotonic: MonotonicTime(nanoseconds: 1 << 50), wall: 1_800_000_000)
    let cookies = HairpinCookies(secret: [UInt8](repeating: 1, count: 32))
    var endpoint = Endpoint(address: IPAddress(v4: 0xC000_0201), port: 4500)
    var random = SystemRandomNumberGenerator()
    var steps: [EnrolmentSession.Step] = []
    /// Messages of the gateway.
    var sent: [[UInt8]] = []
    /// Whether a message gets through, by how many went before.
    var passes: (Int) -> Bool = { _ in true }
    /// What somebody else says to the gateway before the relay does.
    var forge: ([UInt8]) -> [[UInt8]] = { _ in [] }
    private var options: RelayOptions

    init(_ kind: HostIdentity.Kind = .p256, isNamed: Bool = true, gid: HostIdentityTag? = nil) {
      identity = .generate(kind)
      options = RelayOptions(identity: identity)
      (options.gateways, options.pairs) = (4, 4)
      if isNamed { options.policy.allow(gateway.tag, HostIdentity.generate(.ed25519).tag) }
      relay = IdentityRelay(options, cookies: cookies, now: clock.monotonic)
      let planned = PlannedRelay(
        gid: gid ?? identity.tag, endpoint: Endpoint(address: IPAddress(v4: 0xC000_0209), port: 4500))
      session = EnrolmentSession(planned, gateway, now: clock.monotonic)
    }

    /// A rule names the gateway from now on.
    func name() {
      var policy = RelayPolicy()
      policy.allow(gateway.tag, HostIdentity.generate(.ed25519).tag)
      _ = relay.set(policy, clock)
    }

    /// The relay is started anew, and knows nobody.
    func restart() { relay = IdentityRelay(options, cookies: cookies, now: clock.monotonic) }

    func run(seconds: Double, step: UInt64 = 10_000_000) {
      let end = clock.monotonic.adding(nanoseconds: UInt64(seconds * 1e9))
      while clock.monotonic < end {
        while let next = session.poll(now: clock.monotonic, using: &random) { note(next) }
        clock.monotonic = clock.monotonic.adding(nanoseconds: step)
      }
    }

    private func note(_ step: EnrolmentSession.Step) {
      steps.append(step)
      guard case .send(let bytes) = step else { return }
      sent.append(bytes)
      for forged in forge([0, 0, 0, 0] + bytes) { hear(forged) }
      guard passes(sent.count), let answer = answer([0, 0, 0, 0] + bytes) else { return }
      #expect(answer.count <= bytes.count + 4)
      hear(answer)
    }

    func hear(_ answer: [UInt8]) {
      let next = session.receive(
        Array(answer.dropFirst(4)), now: clock.monotonic, wall: clock.monotonic.nanoseconds, using: &random)
      if let next { note(next) }
    }

    private func answer(_ bytes: [UInt8]) -> [UInt8]? {
      if case .enrol(let enrol) = EnrolmentMessage(bytes) {
        return relay.answer(enrol, bytes, from: endpoint, port: (0, 4500), clock)
      }
      switch HairpinMessage(bytes) {
      case .hello(let nonce, .zero):
        return HairpinMessage.challenge(
          nonce: nonce, cookie: cookies.cookie(endpoint, nonce: nonce, port: 4500, now: clock.monotonic)
        ).encoded
      case .hold(let nonce): return relay.answerHold(nonce, from: endpoint, now: clock.monotonic)
      default: return nil
      }
    }

    var enrolled: Int { steps.count { $0 == .enrolled } }
    var known: Int { relay.places.enrolled }
  }

  @Test(arguments: [HostIdentity.Kind.p256, .ed25519]) func enrolsAndStays(kind: HostIdentity.Kind) {
    let pair = Pair(kind)
    pair.run(seconds: 300)
    #expect(pair.enrolled == 1 && pair.session.isEnrolled && pair.known == 1 && pair.session.seen == pair.endpoint)
    // hello, enrol, and a hold each quarter of a minute.
    #expect((20...23).contains(pair.sent.count), "\(pair.sent.count)")
  }

  /// Of every three messages two are lost, and then all of them for a while.
  @Test func losesMessagesAndComesThrough() {
    let pair = Pair()
    pair.passes = { $0 % 3 == 0 }
    pair.run(seconds: 60)
    #expect(pair.session.isEnrolled)
    pair.passes = { _ in false }
    pair.run(seconds: 30)
    #expect(!pair.session.isEnrolled && pair.session.problem != nil)
    pair.passes = { _ in true }
    pair.run(seconds: 40)
    #expect(pair.session.isEnrolled && pair.enrolled == 2 && pair.session.problem == nil)
  }

  /// Under traffic a relay that is gone is noticed within two seconds, and one that is there again knows the gateway.
  @Test func noticesARestartUnderTraffic() {
    let pair = Pair()
    pair.run(seconds: 20)
    pair.restart()
    for _ in 0..<5 {
      pair.session.busy(now: pair.clock.monotonic)
      pair.run(seconds: 0.5)
    }
    #expect(pair.known == 1 && pair.enrolled == 2 && pair.session.isEnrolled)
  }

  /// However long nobody has answered, or the relay has refused: once that is over, 20 s are enough.
  @Test func whatIsOverIsNoticedSoon() {
    for time in 0..<10 {
      let refused = Pair(isNamed: false)
      refused.run(seconds: 150 + 3 * Double(time), step: 50_000_000)
      refused.name()
      refused.run(seconds: 20)
      #expect(refused.session.isEnrolled, "refusals for \(time)")
    }
    let cut = Pair()
    for outage in 0..<10 {
      cut.passes = { _ in false }
      cut.run(seconds: 150 + 7 * Double(outage), step: 50_000_000)
      cut.passes = { _ in true }
      cut.run(seconds: 20)
      #expect(cut.session.isEnrolled, "outage \(outage)")
    }
  }

  /// A stream that has ended is noticed without a hold, and only where it is one.
  @Test(arguments: [PlannedRelay.PathKind.udp, .tcp, .tls]) func aStreamEnds(kind: PlannedRelay.PathKind) {
    let pair = Pair()
    var planned = pair.session.relay
    planned.kind = kind
    pair.session = EnrolmentSession(planned, pair.gateway, now: pair.clock.monotonic)
    pair.run(seconds: 2)
    #expect(pair.session.isEnrolled)
    let step = pair.session.streamEnded(now: pair.clock.monotonic, using: &pair.random)
    #expect((step != nil) == (kind != .udp) && pair.session.isEnrolled == (kind == .udp))
    pair.run(seconds: 1)
    #expect(pair.session.isEnrolled && pair.enrolled == (kind == .udp ? 1 : 2))
  }

  /// A question is answered at once, and ends nothing by itself: anybody can ask.
  @Test func answersQuestions() {
    let pair = Pair()
    pair.run(seconds: 2)
    let forged = EnrolmentMessage.who(nonce: .init(high: 5, low: 6), cookie: [UInt8](repeating: 0, count: 32)).encoded
    let before = pair.sent.count
    for _ in 0..<50 { pair.hear(forged) }
    #expect(pair.sent.count == before + 2 && pair.session.isEnrolled)
    pair.run(seconds: 5)
    #expect(pair.session.isEnrolled)
    // A translator has given it another port: the relay asks there, and knows it from then on.
    pair.endpoint.port = 9999
    let asked = pair.relay.who(pair.endpoint, port: 4500, side: nil, length: 100, now: pair.clock.monotonic)
    if let asked { pair.hear(asked) }
    pair.run(seconds: 1)
    #expect(pair.session.seen?.port == 9999 && pair.session.isEnrolled)
  }

  /// Who forges questions, and what may follow them, cannot make a gateway count on where nobody believes it any more.
  @Test func aForgedOrderIsNotBelieved() {
    let pair = Pair()
    pair.run(seconds: 2)
    let nonce = HairpinNumber(high: 5, low: 6)
    for _ in 0..<5 {
      pair.hear(EnrolmentMessage.who(nonce: nonce, cookie: [UInt8](repeating: 0, count: 32)).encoded)
      pair.hear(Self.older(nonce, by: HostIdentity.generate(.p256), to: pair).encoded)
      pair.run(seconds: 2)
      #expect(pair.session.isEnrolled)
    }
    pair.restart()
    pair.run(seconds: 60)
    #expect(pair.session.isEnrolled && pair.session.problem == nil)
  }

  /// An answer to a gateway's enrolment, with a number far ahead.
  private static func older(_ nonce: HairpinNumber, by relay: HostIdentity, to pair: Pair) -> EnrolmentMessage {
    let key = relay.publicIdentity
    var older = EnrolmentMessage.Older(
      nonce: nonce, sequence: UInt64.max - 1,
      identity: .init(algorithm: key.algorithm, hostIdentity: key.hostIdentity),
      signature: [UInt8](repeating: 0, count: 64))
    let proof = EnrolmentMessage.proof(
      ofOlder: EnrolmentMessage.older(older).encoded, signature: 64, gateway: pair.gateway.tag.bytes)
    older.signature = relay.sign(proof)
    return .older(older)
  }

  /// Who is on the path sees each enrolment, and answers it before the relay does: with a number that is far ahead, signed
  /// by somebody else, or for another gateway. None is believed.
  @Test func onlyTheRelayTellsOfALaterEnrolment() {
    let pair = Pair()
    let others = [HostIdentity.generate(.p256), HostIdentity.generate(.ed25519)]
    let stranger = Pair()
    var forged = 0
    pair.forge = { message in
      guard case .enrol(let enrol) = EnrolmentMessage(message) else { return [] }
      forged += 1
      return others.map { Self.older(enrol.nonce, by: $0, to: pair).encoded }
        + [Self.older(enrol.nonce, by: pair.identity, to: stranger).encoded]
    }
    pair.run(seconds: 5)
    #expect(pair.session.isEnrolled && forged == 1)
    guard case .enrol(let enrol) = EnrolmentMessage([0, 0, 0, 0] + pair.sent[1]) else {
      Issue.record("no enrolment")
      return
    }
    #expect(enrol.sequence < UInt64.max / 2)
  }

  /// Its clock has gone back by an hour.
  @Test func aClockThatWentBackIsNoObstacle() {
    let pair = Pair()
    pair.run(seconds: 2)
    let planned = pair.session.relay
    pair.session = EnrolmentSession(planned, pair.gateway, now: pair.clock.monotonic)
    pair.clock.monotonic = MonotonicTime(nanoseconds: pair.clock.monotonic.nanoseconds - 3_600_000_000_000)
    pair.session = EnrolmentSession(planned, pair.gateway, now: pair.clock.monotonic)
    pair.run(seconds: 3)
    #expect(pair.session.isEnrolled)
  }

  /// Who is at the relay's address, and is another one; and a relay that does not want this gateway.
  @Test func whatIsWrongIsSaid() {
    let other = Pair(gid: HostIdentity.generate(.p256).tag)
    other.run(seconds: 30)
    #expect(other.enrolled == 0 && !other.session.isEnrolled && other.session.problem != nil)
    #expect(other.known == 0, "and the other one cannot use what was meant for the right one")
    let unnamed = Pair(isNamed: false)
    unnamed.run(seconds: 60)
    #expect(unnamed.enrolled == 0 && unnamed.session.problem == "no rule of the relay allows this gateway")
    #expect(unnamed.sent.count < 20)
  }
}
