import Identity
import PacketIO
import Transports

/// Who may enrol, and what it is told (docs/RELAY.md).
///
/// 1. The cookie shows that the gateway is where the message came from. 2. A rule names it, or a ticket that it or its partner
/// shows. 3. The signature shows that it is who it says, and that it speaks to this relay. Until then nothing is kept, and
/// no answer is longer than what it answers. 4. The number shows that nobody repeats an older one; whoever keeps it looks at it.
struct RelayEnrolment: ~Copyable {
  enum Decision {
    /// Tickets that could count: whether they are genuine is for whoever keeps them to see.
    case genuine(PublicHostIdentity, tickets: [SignedIdentityTicket])
    case refused(RelayDrop, answer: [UInt8]?)
  }

  /// Messages of one origin that are looked at in a second, as long as nobody knows whose they are.
  private static let messagesPerOrigin: UInt64 = 200

  private let identity: HostIdentity
  private let silence: UInt16
  private let cookies: HairpinCookies
  private var origins: OriginShares
  private var all: TokenBucket

  init(_ options: RelayOptions, cookies: HairpinCookies) {
    identity = options.identity
    silence = options.silence
    self.cookies = cookies
    origins = OriginShares(
      messages: max(RelayEnrolment.messagesPerOrigin, options.enrolmentsPerOrigin),
      signatures: options.enrolmentsPerOrigin)
    all = TokenBucket(perSecond: options.enrolments, burst: options.enrolments)
  }

  /// - Parameters:
  ///   - message: as it came.
  ///   - port: that it came to.
  mutating func judge(
    _ enrol: EnrolmentMessage.Enrol, _ message: [UInt8], from sender: Endpoint, port: UInt16,
    policy: RelayPolicy, tickets: RelayTickets, _ clock: HairpinClock
  ) -> Decision {
    let now = clock.monotonic
    guard cookies.isValid(enrol.cookie, sender, nonce: enrol.nonce, port: port, now: now) else {
      return .refused(.badCookie, answer: nil)
    }
    guard
      let claimed = PublicHostIdentity(
        algorithm: enrol.identity.algorithm, hostIdentity: enrol.identity.hostIdentity),
      let shown = SignedIdentityTicket.list(enrol.tickets)
    else { return .refused(.malformed, answer: refusal(enrol, .malformed)) }
    let promising = tickets.promising(shown, of: claimed.tag, under: policy, wall: clock.wall)
    guard policy.names(claimed.tag) || !promising.isEmpty || tickets.names(claimed.tag, at: clock.wall) else {
      return .refused(.enrolmentNotAllowed, answer: refusal(enrol, .notAllowed))
    }
    guard origins.admitSignature(of: sender.address, now: now), all.takeOne(now: now) else {
      return .refused(.enrolmentBusy, answer: nil)
    }
    let proof = EnrolmentMessage.proof(
      ofEnrol: message, signature: enrol.signature.count, relay: identity.tag.bytes)
    guard claimed.isValid(signature: enrol.signature, over: proof) else {
      return .refused(.enrolmentForged, answer: refusal(enrol, .forged))
    }
    return .genuine(claimed, tickets: promising)
  }

  /// Whether a message of somebody who may not have enrolled is looked at.
  mutating func admitsMessage(of address: IPAddress, byStream: Bool, now: MonotonicTime) -> Bool {
    origins.admitMessage(of: address, byStream: byStream, now: now)
  }

  /// Signatures were checked besides that of an enrolment: what is too much is missing next time.
  mutating func charge(signatures count: Int, to address: IPAddress) {
    guard count > 0 else { return }
    origins.charge(signatures: count, to: address)
    all.take(count)
  }

  func refusal(_ enrol: EnrolmentMessage.Enrol, _ reason: HairpinReason) -> [UInt8] {
    HairpinMessage.refused(nonce: enrol.nonce, reason: reason.rawValue).encoded
  }

  /// What a gateway that is enrolled is told.
  /// - Parameter load: as `EnrolmentMessage.Enrolled` has it.
  func welcome(
    _ enrol: EnrolmentMessage.Enrol, _ gateway: HostIdentityTag, token: HairpinNumber, seen: Endpoint, load: UInt8
  ) -> [UInt8] {
    var enrolled = EnrolmentMessage.Enrolled(
      nonce: enrol.nonce, token: token, silence: silence, load: load, seen: seen, identity: key)
    // The length in the head counts it.
    enrolled.signature = [UInt8](repeating: 0, count: RelayOptions.signatureLength)
    let proof = EnrolmentMessage.proof(
      ofEnrolled: EnrolmentMessage.enrolled(enrolled).encoded, signature: RelayOptions.signatureLength,
      gateway: gateway.bytes)
    enrolled.signature = identity.sign(proof)
    return EnrolmentMessage.enrolled(enrolled).encoded
  }

  /// What a gateway is told of which a later enrolment is known, with that number.
  func older(_ enrol: EnrolmentMessage.Enrol, _ gateway: HostIdentityTag, than sequence: UInt64) -> [UInt8] {
    var older = EnrolmentMessage.Older(nonce: enrol.nonce, sequence: sequence, identity: key)
    older.signature = [UInt8](repeating: 0, count: RelayOptions.signatureLength)
    let proof = EnrolmentMessage.proof(
      ofOlder: EnrolmentMessage.older(older).encoded, signature: RelayOptions.signatureLength,
      gateway: gateway.bytes)
    older.signature = identity.sign(proof)
    return EnrolmentMessage.older(older).encoded
  }

  private var key: EnrolmentMessage.Key {
    let key = identity.publicIdentity
    return EnrolmentMessage.Key(algorithm: key.algorithm, hostIdentity: key.hostIdentity)
  }

  /// Asks somebody who seems not to know that he is not enrolled; see `EnrolmentMessage.whoLength`.
  func who(_ sender: Endpoint, port: UInt16, now: MonotonicTime, using random: inout some RandomNumberGenerator)
    -> [UInt8]
  {
    let nonce = HairpinNumber.random(using: &random)
    return EnrolmentMessage.who(nonce: nonce, cookie: cookies.cookie(sender, nonce: nonce, port: port, now: now))
      .encoded
  }
}
