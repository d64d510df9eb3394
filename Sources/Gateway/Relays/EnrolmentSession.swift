import Identity
import PacketIO
import Transports

/// A gateway's side of its enrolment at one relay: says who it is, keeps the enrolment alive, and begins anew when the relay
/// is lost. Time and random numbers are arguments, messages are bytes (what follows the four zero ones).
///
/// 1. hello, to which the relay gives a cookie. 2. enrol, signed, to which it answers signed too. 3. hold, now and then, and
/// often while there is traffic; three without an answer, and it begins at 1 again.
struct EnrolmentSession {
  enum Step: Equatable {
    case send([UInt8])
    /// The relay knows this side, and not what it has bound before.
    case enrolled
    /// It does not answer, or not any more, or it refuses.
    case lost(String)
  }

  private enum Phase { case waiting, greeting, enrolling, enrolled }

  /// Between two signs of life while there is traffic; for so long there is after some was seen.
  private static let busyHold = AskingTimer.second / 2
  private static let moment = 3 * AskingTimer.second

  let relay: PlannedRelay
  let identity: HostIdentity
  /// Shown to the relay, as the message has them.
  private let tickets: [UInt8]
  /// Bytes.
  private let signatureLength: Int
  private var phase = Phase.waiting
  private var timer: AskingTimer
  private var message: [UInt8] = []
  private var nonce = HairpinNumber.zero
  private var token = HairpinNumber.zero
  private var sequence: UInt64 = 0
  private var isHolding = false
  private var lastTraffic = MonotonicTime(nanoseconds: 0)
  private var lastAsked = MonotonicTime(nanoseconds: 0)
  private(set) var isEnrolled = false
  /// Where the relay sees this side; nil: it has never said.
  private(set) var seen: Endpoint?
  /// Why it is not enrolled; nil: it is, or nothing is known.
  private(set) var problem: String?

  init(_ relay: PlannedRelay, _ identity: HostIdentity, now: MonotonicTime) {
    self.relay = relay
    self.identity = identity
    tickets = relay.tickets.reduce(into: []) { bytes, ticket in
      bytes.append(number: UInt16(clamping: ticket.count))
      bytes += ticket
    }
    signatureLength = identity.sign([]).count
    timer = AskingTimer(now: now)
  }

  /// When `poll` has something to do.
  var deadline: MonotonicTime { timer.deadline }

  /// Sealed packets go to the relay: it is looked after more closely for a while.
  mutating func busy(now: MonotonicTime) {
    lastTraffic = now
    if phase == .enrolled, !isHolding {
      timer.hasten(to: now.adding(nanoseconds: EnrolmentSession.busyHold))
    }
  }

  // MARK: Time

  /// What is due now; called again until it returns nil.
  mutating func poll(now: MonotonicTime, using random: inout some RandomNumberGenerator) -> Step? {
    guard now >= deadline else { return nil }
    switch phase {
    case .waiting:
      nonce = .random(using: &random)
      return begin(.greeting, HairpinMessage.hello(nonce: nonce, token: .zero).unmarked, now)
    case .greeting, .enrolling:
      guard !timer.isExhausted else { return lose("no answer", after: timer.backOff, now, &random) }
      return again(now)
    case .enrolled:
      if isHolding, timer.isUnheard {
        // At once: a relay that was only restarted is there again.
        return lose("it answers no more", after: 0, now, &random)
      }
      if !isHolding {
        isHolding = true
        timer.begin()
        message = HairpinMessage.hold(nonce: token).unmarked
      }
      timer.hold(onStream: relay.kind != .udp, now: now)
      return .send(message)
    }
  }

  private mutating func begin(_ phase: Phase, _ message: [UInt8], _ now: MonotonicTime) -> Step {
    self.phase = phase
    self.message = message
    timer.begin()
    return again(now)
  }

  private mutating func again(_ now: MonotonicTime) -> Step {
    timer.say(now: now)
    return .send(message)
  }

  /// Waits before the next try.
  private mutating func lose(
    _ why: String, after time: UInt64, _ now: MonotonicTime, _ random: inout some RandomNumberGenerator
  ) -> Step {
    phase = .waiting
    isHolding = false
    isEnrolled = false
    problem = why
    timer.rest(time, now: now, using: &random)
    return .lost(why)
  }

  /// The stream by which it is enrolled has ended: it begins anew, soon.
  mutating func streamEnded(now: MonotonicTime, using random: inout some RandomNumberGenerator) -> Step? {
    guard phase == .enrolled, relay.kind != .udp else { return nil }
    return lose("its stream has ended", after: AskingTimer.firstPatience, now, &random)
  }

  private mutating func rest(_ now: MonotonicTime) {
    isHolding = false
    let isBusy = now.nanoseconds(since: lastTraffic) < EnrolmentSession.moment
    timer.sleep(until: now.adding(nanoseconds: isBusy ? EnrolmentSession.busyHold : timer.holdInterval))
  }

  // MARK: Messages

  /// A message from the relay's address; what does not belong to what was asked is left alone.
  /// - Parameter wall: nanoseconds since 1970, for the order of enrolments.
  mutating func receive(
    _ bytes: [UInt8], now: MonotonicTime, wall: UInt64, using random: inout some RandomNumberGenerator
  ) -> Step? {
    switch HairpinMessage(unmarked: bytes[...]) {
    case .challenge(nonce, let cookie)? where phase == .greeting: return enrol(cookie, now, wall)
    case .refused(nonce, let code)? where phase == .enrolling:
      let why = HairpinReason(rawValue: code).map { "\($0)" } ?? "it refuses (\(code))"
      return lose(why, after: AskingTimer.refusedBackOff, now, &random)
    case .held(token, _)? where phase == .enrolled:
      rest(now)
      return nil
    default: break
    }
    switch EnrolmentMessage(unmarked: bytes[...]) {
    case .enrolled(let enrolled)? where phase == .enrolling && enrolled.nonce == nonce:
      let proof = EnrolmentMessage.proof(
        ofEnrolled: [0, 0, 0, 0] + bytes, signature: enrolled.signature.count, gateway: identity.tag.bytes)
      return isRelays(enrolled.identity, enrolled.signature, over: proof) ? take(enrolled, now) : nil
    case .older(let older)?
    where phase == .enrolling && older.nonce == nonce && older.sequence >= sequence && older.sequence < UInt64.max:
      let proof = EnrolmentMessage.proof(
        ofOlder: [0, 0, 0, 0] + bytes, signature: older.signature.count, gateway: identity.tag.bytes)
      guard isRelays(older.identity, older.signature, over: proof) else { return nil }
      // This clock has gone back, or another gateway has the same key.
      sequence = older.sequence
      nonce = .random(using: &random)
      return begin(.greeting, HairpinMessage.hello(nonce: nonce, token: .zero).unmarked, now)
    case .who?:
      // Anybody can say that, so nothing in it is believed: the relay itself is greeted, once a second at most.
      guard phase == .enrolled, now.nanoseconds(since: lastAsked) >= AskingTimer.second else { return nil }
      lastAsked = now
      isHolding = false
      nonce = .random(using: &random)
      return begin(.greeting, HairpinMessage.hello(nonce: nonce, token: .zero).unmarked, now)
    default: return nil
    }
  }

  private mutating func enrol(_ cookie: [UInt8], _ now: MonotonicTime, _ wall: UInt64) -> Step {
    sequence = max(wall, sequence &+ 1)
    let key = identity.publicIdentity
    var enrol = EnrolmentMessage.Enrol(
      nonce: nonce, cookie: cookie, token: token, sequence: sequence,
      identity: EnrolmentMessage.Key(algorithm: key.algorithm, hostIdentity: key.hostIdentity), tickets: tickets)
    // What is signed tells how long the signature is.
    enrol.signature = [UInt8](repeating: 0, count: signatureLength)
    let proof = EnrolmentMessage.proof(
      ofEnrol: EnrolmentMessage.enrol(enrol).encoded, signature: signatureLength, relay: relay.gid.bytes)
    enrol.signature = identity.sign(proof)
    return begin(.enrolling, EnrolmentMessage.enrol(enrol).unmarked, now)
  }

  /// Whether the relay has signed something: it is known by its GID.
  private func isRelays(_ key: EnrolmentMessage.Key, _ signature: [UInt8], over proof: [UInt8]) -> Bool {
    let key = PublicHostIdentity(algorithm: key.algorithm, hostIdentity: key.hostIdentity)
    guard let key, key.tag == relay.gid else { return false }
    return key.isValid(signature: signature, over: proof)
  }

  private mutating func take(_ enrolled: EnrolmentMessage.Enrolled, _ now: MonotonicTime) -> Step? {
    // It has kept what is bound to this side where it has kept the token.
    let isKnown = isEnrolled && enrolled.token == token
    phase = .enrolled
    token = enrolled.token
    isEnrolled = true
    seen = enrolled.seen
    problem = nil
    timer.succeed()
    timer.expect(silence: enrolled.silence)
    rest(now)
    return isKnown ? nil : .enrolled
  }
}
