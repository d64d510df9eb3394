import Glibc
import PacketIO

/// A gateway's side of one hairpin: presents the ticket, proves itself on its port, holds the port open, and begins
/// again when the proxy is lost. Time and random numbers are arguments, messages are bytes (what follows the four zero
/// ones), so tests need no network.
struct HairpinSession {
  /// What the link is to do.
  enum Step: Equatable {
    case sendToProxy([UInt8])
    /// To the allocated port.
    case sendToPort([UInt8])
    /// The hairpin is open: sealed packets may go to the port.
    case opened
    /// It is not, or no longer. A positive errno.
    case lost(Int32)
  }

  private enum Phase: Equatable {
    case waiting
    case greeting
    case presenting
    case knocking
    case proving
    case open
  }

  private static let second: UInt64 = 1_000_000_000
  /// After the first try of a message; it doubles with each.
  private static let firstPatience = second / 4
  private static let tries = 5
  private static let firstBackOff = second / 2
  private static let longestBackOff = 30 * second
  /// A refusal does not change by asking often.
  private static let refusedBackOff = 15 * second
  /// Between two signs of life when nothing is wrong; less than any translator's patience (RFC 4787 §4.3).
  private static let longestHold = 15 * second
  /// Without a word from the proxy, while there is traffic, or was a moment ago.
  private static let suspicion = second
  private static let moment = 10 * second
  private static let holdPatience = second / 2
  private static let holdTries = 3

  let file: HairpinTicketFile
  let encapsulation: Encapsulation
  private var phase = Phase.waiting
  /// When `poll` has something to do.
  private(set) var deadline: MonotonicTime
  private var backOff = HairpinSession.firstBackOff
  private var attempt = 0
  private var message: [UInt8] = []
  private var nonce = HairpinNumber.zero
  private var token = HairpinNumber.zero
  /// Of the last proof. Each is later than the one before, also when the clock has gone back.
  private var sequence: UInt64 = 0
  /// The allocated port, while there is one.
  private(set) var port: Endpoint?
  private var holdInterval = HairpinSession.longestHold
  private var holdNonce: HairpinNumber?
  private var holdAttempt = 0
  private var nextHold = MonotonicTime(nanoseconds: 0)
  private var lastHeard = MonotonicTime(nanoseconds: 0)
  /// When a sealed packet went or came last.
  private var lastData = MonotonicTime(nanoseconds: 0)
  /// What the proxy said last, for operators.
  private(set) var lastReason: HairpinReason?
  private(set) var partnerIsThere = false
  private(set) var openings: UInt64 = 0

  init(_ file: HairpinTicketFile, encapsulation: Encapsulation, now: MonotonicTime) {
    self.file = file
    self.encapsulation = encapsulation
    deadline = now
  }

  var isOpen: Bool { phase == .open }
  /// Whether it waits before it tries again.
  var isWaiting: Bool { phase == .waiting }

  /// Sealed packets went to the port.
  mutating func sent(now: MonotonicTime) {
    lastData = now
    // Nothing heard since long: look sooner than planned.
    if phase == .open, holdNonce == nil {
      deadline = min(deadline, lastHeard.adding(nanoseconds: HairpinSession.suspicion))
    }
  }

  /// Sealed packets came from the port.
  mutating func heard(now: MonotonicTime) {
    lastHeard = now
    lastData = now
  }

  /// The port's stream has ended. The proxy says why, when the ticket is presented again.
  mutating func streamEnded(now: MonotonicTime, using random: inout some RandomNumberGenerator) -> Step? {
    guard phase == .open else { return nil }
    rest(HairpinSession.firstBackOff / 2, now: now, using: &random)
    return .lost(ECONNRESET)
  }

  // MARK: Time

  /// What is due now; called again until it returns nil.
  mutating func poll(now: MonotonicTime, wall: UInt64, using random: inout some RandomNumberGenerator) -> Step? {
    guard now >= deadline else { return nil }
    switch phase {
    case .waiting:
      attempt = 0
      nonce = .random(using: &random)
      return begin(.greeting, HairpinMessage.hello(nonce: nonce, token: .zero).unmarked, now)
    case .greeting, .presenting, .knocking, .proving:
      guard attempt < HairpinSession.tries else {
        rest(backOff, now: now, using: &random)
        return .lost(ETIMEDOUT)
      }
      return repeatMessage(now)
    case .open: return hold(now, using: &random)
    }
  }

  private mutating func begin(_ phase: Phase, _ message: [UInt8], _ now: MonotonicTime) -> Step {
    self.phase = phase
    self.message = message
    attempt = 0
    return repeatMessage(now)
  }

  private mutating func repeatMessage(_ now: MonotonicTime) -> Step {
    deadline = now.adding(nanoseconds: HairpinSession.firstPatience << UInt64(attempt))
    attempt += 1
    return phase == .greeting || phase == .presenting ? .sendToProxy(message) : .sendToPort(message)
  }

  /// Waits before the next try, up to a quarter more or less so that gateways do not come in step.
  private mutating func rest(
    _ time: UInt64, now: MonotonicTime, using random: inout some RandomNumberGenerator
  ) {
    phase = .waiting
    port = nil
    holdNonce = nil
    partnerIsThere = false
    let quarter = time / 4
    deadline = now.adding(nanoseconds: time - quarter + UInt64.random(in: 0...(2 * quarter), using: &random))
    backOff = min(2 * backOff, HairpinSession.longestBackOff)
  }

  private mutating func hold(_ now: MonotonicTime, using random: inout some RandomNumberGenerator) -> Step? {
    if let number = holdNonce {
      // On a stream the answer may wait behind a long run: while packets come, the proxy is there.
      let isHeard = encapsulation == .tcp && now.nanoseconds(since: lastHeard) < HairpinSession.suspicion
      if holdAttempt >= HairpinSession.holdTries, !isHeard {
        // At once: a proxy that was only restarted is there again.
        rest(0, now: now, using: &random)
        return .lost(ETIMEDOUT)
      }
      return sendHold(number, now)
    }
    let isSuspicious =
      now.nanoseconds(since: lastHeard) >= HairpinSession.suspicion
      && now.nanoseconds(since: lastData) < HairpinSession.moment
    guard now >= nextHold || isSuspicious else {
      rearm(now)
      return nil
    }
    holdAttempt = 0
    let number = HairpinNumber.random(using: &random)
    holdNonce = number
    return sendHold(number, now)
  }

  /// When to look again: soon while there is traffic, else when the next sign of life is due.
  private mutating func rearm(_ now: MonotonicTime) {
    let isActive = now.nanoseconds(since: lastData) < HairpinSession.moment
    let soon = now.adding(nanoseconds: HairpinSession.suspicion)
    deadline = isActive ? min(nextHold, soon) : nextHold
  }

  private mutating func sendHold(_ number: HairpinNumber, _ now: MonotonicTime) -> Step {
    holdAttempt += 1
    deadline = now.adding(nanoseconds: HairpinSession.holdPatience)
    return .sendToPort(HairpinMessage.hold(nonce: number).unmarked)
  }

  // MARK: Messages

  /// A message from the proxy; what does not belong to what was asked is left alone.
  /// - Parameters:
  ///   - isFromPort: from the allocated port; else from the control port.
  ///   - wall: nanoseconds since 1970, for the order of proofs.
  mutating func receive(
    _ bytes: [UInt8], isFromPort: Bool, now: MonotonicTime, wall: UInt64,
    using random: inout some RandomNumberGenerator
  ) -> Step? {
    guard let message = HairpinMessage(unmarked: bytes[...]) else { return nil }
    if isFromPort { lastHeard = now }
    switch (message, phase) {
    case (.challenge(nonce, let cookie), .greeting) where !isFromPort: return present(cookie, now, wall)
    case (.accepted(nonce, let token, let number, let silence, _), .presenting) where !isFromPort:
      self.token = token
      holdInterval = min(HairpinSession.longestHold, max(UInt64(silence), 4) * HairpinSession.second / 4)
      port = Endpoint(address: file.proxy.address, port: number)
      nonce = .random(using: &random)
      return begin(.knocking, HairpinMessage.hello(nonce: nonce, token: token).unmarked, now)
    case (.refused(nonce, let code), .presenting) where !isFromPort:
      lastReason = HairpinReason(rawValue: code)
      rest(max(backOff, HairpinSession.refusedBackOff), now: now, using: &random)
      return .lost(ECONNREFUSED)
    case (.challenge(nonce, let cookie), .knocking) where isFromPort: return prove(cookie, now, wall)
    case (.refused(nonce, let code), .proving) where isFromPort:
      lastReason = HairpinReason(rawValue: code)
      rest(max(backOff, HairpinSession.refusedBackOff), now: now, using: &random)
      return .lost(ECONNREFUSED)
    case (.welcome(nonce, let partnerIsThere), .proving) where isFromPort:
      phase = .open
      self.partnerIsThere = partnerIsThere
      openings &+= 1
      backOff = HairpinSession.firstBackOff
      lastReason = nil
      holdNonce = nil
      nextHold = now.adding(nanoseconds: holdInterval)
      rearm(now)
      return .opened
    case (.held(let number, let partnerIsThere), .open) where isFromPort && number == holdNonce:
      self.partnerIsThere = partnerIsThere
      holdNonce = nil
      nextHold = now.adding(nanoseconds: holdInterval)
      rearm(now)
      return nil
    case (.end(token, let code), _) where isFromPort:
      // The token is known to the proxy and this side: nobody who only guesses ends a hairpin.
      lastReason = HairpinReason(rawValue: code)
      let isBrief = lastReason == .stopping || lastReason == .failed
      rest(isBrief ? backOff : HairpinSession.refusedBackOff, now: now, using: &random)
      return .lost(ECONNRESET)
    default: return nil
    }
  }

  private mutating func nextSequence(_ wall: UInt64) -> UInt64 {
    sequence = max(wall, sequence &+ 1)
    return sequence
  }

  private mutating func present(_ cookie: [UInt8], _ now: MonotonicTime, _ wall: UInt64) -> Step? {
    var present = HairpinMessage.Present(
      end: file.end, encapsulation: encapsulation, nonce: nonce, cookie: cookie, sequence: nextSequence(wall),
      signature: [], ticket: file.ticket.bytes)
    guard let signature = file.key.sign(HairpinMessage.proof(of: present, ticket: file.ticket.ticket.number)) else {
      return nil
    }
    present.signature = signature
    return begin(.presenting, HairpinMessage.present(present).unmarked, now)
  }

  private mutating func prove(_ cookie: [UInt8], _ now: MonotonicTime, _ wall: UInt64) -> Step? {
    var prove = HairpinMessage.Prove(
      nonce: nonce, cookie: cookie, token: token, sequence: nextSequence(wall), signature: [])
    let proof = HairpinMessage.proof(
      of: prove, end: file.end, encapsulation: encapsulation, ticket: file.ticket.ticket.number)
    guard let signature = file.key.sign(proof) else { return nil }
    prove.signature = signature
    return begin(.proving, HairpinMessage.prove(prove).unmarked, now)
  }
}
