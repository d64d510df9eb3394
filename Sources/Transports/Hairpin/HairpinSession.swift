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

  /// Without a word from the proxy, while there is traffic, or was a moment ago.
  private static let suspicion = AskingTimer.second
  private static let moment = 10 * AskingTimer.second

  let file: HairpinTicketFile
  let encapsulation: Encapsulation
  private var phase = Phase.waiting
  private var timer: AskingTimer
  private var message: [UInt8] = []
  private var nonce = HairpinNumber.zero
  private var token = HairpinNumber.zero
  /// Of the last proof. Each is later than the one before, also when the clock has gone back.
  private var sequence: UInt64 = 0
  /// The allocated port, while there is one.
  private(set) var port: Endpoint?
  private var holdNonce: HairpinNumber?
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
    timer = AskingTimer(now: now)
  }

  /// When `poll` has something to do.
  var deadline: MonotonicTime { timer.deadline }

  var isOpen: Bool { phase == .open }
  /// Whether it waits before it tries again.
  var isWaiting: Bool { phase == .waiting }

  /// Sealed packets went to the port.
  mutating func sent(now: MonotonicTime) {
    lastData = now
    // Nothing heard since long: look sooner than planned.
    if phase == .open, holdNonce == nil {
      timer.hasten(to: lastHeard.adding(nanoseconds: HairpinSession.suspicion))
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
    rest(AskingTimer.second / 4, now: now, using: &random)
    return .lost(ECONNRESET)
  }

  // MARK: Time

  /// What is due now; called again until it returns nil.
  mutating func poll(now: MonotonicTime, wall: UInt64, using random: inout some RandomNumberGenerator) -> Step? {
    guard now >= deadline else { return nil }
    switch phase {
    case .waiting:
      nonce = .random(using: &random)
      return begin(.greeting, HairpinMessage.hello(nonce: nonce, token: .zero).unmarked, now)
    case .greeting, .presenting, .knocking, .proving:
      guard !timer.isExhausted else {
        rest(timer.backOff, now: now, using: &random)
        return .lost(ETIMEDOUT)
      }
      return repeatMessage(now)
    case .open: return hold(now, using: &random)
    }
  }

  private mutating func begin(_ phase: Phase, _ message: [UInt8], _ now: MonotonicTime) -> Step {
    self.phase = phase
    self.message = message
    timer.begin()
    return repeatMessage(now)
  }

  private mutating func repeatMessage(_ now: MonotonicTime) -> Step {
    timer.say(now: now)
    return phase == .greeting || phase == .presenting ? .sendToProxy(message) : .sendToPort(message)
  }

  /// Waits before the next try.
  private mutating func rest(
    _ time: UInt64, now: MonotonicTime, using random: inout some RandomNumberGenerator
  ) {
    phase = .waiting
    port = nil
    holdNonce = nil
    partnerIsThere = false
    timer.rest(time, now: now, using: &random)
  }

  private mutating func hold(_ now: MonotonicTime, using random: inout some RandomNumberGenerator) -> Step? {
    if let number = holdNonce {
      // On a stream the answer may wait behind a long run: while packets come, the proxy is there.
      let isHeard = encapsulation == .tcp && now.nanoseconds(since: lastHeard) < HairpinSession.suspicion
      if timer.isUnheard, !isHeard {
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
    timer.begin()
    let number = HairpinNumber.random(using: &random)
    holdNonce = number
    return sendHold(number, now)
  }

  /// When to look again: soon while there is traffic, else when the next sign of life is due.
  private mutating func rearm(_ now: MonotonicTime) {
    let isActive = now.nanoseconds(since: lastData) < HairpinSession.moment
    let soon = now.adding(nanoseconds: HairpinSession.suspicion)
    timer.sleep(until: isActive ? min(nextHold, soon) : nextHold)
  }

  private mutating func sendHold(_ number: HairpinNumber, _ now: MonotonicTime) -> Step {
    timer.hold(now: now)
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
      timer.expect(silence: silence)
      port = Endpoint(address: file.proxy.address, port: number)
      nonce = .random(using: &random)
      return begin(.knocking, HairpinMessage.hello(nonce: nonce, token: token).unmarked, now)
    case (.refused(nonce, let code), .presenting) where !isFromPort:
      lastReason = HairpinReason(rawValue: code)
      rest(AskingTimer.refusedBackOff, now: now, using: &random)
      return .lost(ECONNREFUSED)
    case (.challenge(nonce, let cookie), .knocking) where isFromPort: return prove(cookie, now, wall)
    case (.refused(nonce, let code), .proving) where isFromPort:
      lastReason = HairpinReason(rawValue: code)
      rest(AskingTimer.refusedBackOff, now: now, using: &random)
      return .lost(ECONNREFUSED)
    case (.welcome(nonce, let partnerIsThere), .proving) where isFromPort:
      phase = .open
      self.partnerIsThere = partnerIsThere
      openings &+= 1
      timer.succeed()
      lastReason = nil
      holdNonce = nil
      nextHold = now.adding(nanoseconds: timer.holdInterval)
      rearm(now)
      return .opened
    case (.held(let number, let partnerIsThere), .open) where isFromPort && number == holdNonce:
      self.partnerIsThere = partnerIsThere
      holdNonce = nil
      nextHold = now.adding(nanoseconds: timer.holdInterval)
      rearm(now)
      return nil
    case (.end(token, let code), _) where isFromPort:
      // The token is known to the proxy and this side: nobody who only guesses ends a hairpin.
      lastReason = HairpinReason(rawValue: code)
      let isBrief = lastReason == .stopping || lastReason == .failed
      rest(isBrief ? timer.backOff : AskingTimer.refusedBackOff, now: now, using: &random)
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
