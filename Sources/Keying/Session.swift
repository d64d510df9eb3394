import Identity
import KeyDerivation
import PacketIO

/// What two sides share once they have shaken hands: keys of their packets, keys of the traffic, and where both go from
/// there (RFC 7401 §6.5, RFC 7402 §3).
struct Session {
  /// What both sides have said of themselves.
  let terms: Terms
  /// This side has the greater tag.
  let isGreater: Bool
  let macKeys: (sent: KeyMaterial, received: KeyMaterial)
  /// Seconds that it took.
  var duration = 0.0

  private(set) var keys: TrafficKeys
  /// Of which the last four bits are zero.
  private(set) var inboundSPI: UInt32
  private(set) var outboundSPI: UInt32
  /// What the next keys build upon.
  private(set) var chain: KeyMaterial
  private(set) var isPostQuantum = false
  private(set) var rekeys = 0
  private(set) var made: MonotonicTime
  /// When keys are made anew, and when they are used no more.
  private(set) var softEnd = MonotonicTime(nanoseconds: 0)
  private(set) var hardEnd = MonotonicTime(nanoseconds: 0)
  /// The peer has shown that it has the keys; nothing is sealed before.
  var isConfirmed = false
  /// When that is not expected any more.
  private(set) var lostAt: MonotonicTime
  /// Under this side's own numbering (RFC 7401 §5.2.16).
  var nextUpdate: UInt32 = 1
  /// Numbers of the peer's.
  var updatesTaken = UpdateWindow()
  var rekey: Rekey?
  var updates: UpdateLimits

  struct Terms {
    /// The responder's: its hash and its MAC are used by both.
    var suite: HostIdentitySuite
    var espSuite: ESPSuite
    var group: DiffieHellmanGroup
    /// The mechanism that was agreed upon for rekeys.
    var kem: UInt8?
    var peer: PublicHostIdentity
    /// This side has begun.
    var isInitiator: Bool
    /// #I and #J, also of all later keys.
    var salt: [UInt8]
    var cipher: UInt16
    var workers: (local: Int, peer: Int)
    var inboundSPI: UInt32
    var outboundSPI: UInt32
    /// Where traffic keys begin: the greater of what both have said (RFC 7402 §6.10).
    var index: Int
  }

  /// - Parameter keymat: of what Diffie-Hellman came to, with what is mixed into it; from its beginning.
  init(_ terms: Terms, _ keymat: Keymat, partner: Partner, _ turn: inout KeyingTurn) {
    self.terms = terms
    isGreater = partner.local.tag > partner.remote
    updates = UpdateLimits(perSecond: turn.settings.updatesPerSecond)
    inboundSPI = terms.inboundSPI
    outboundSPI = terms.outboundSPI
    var keymat = keymat
    macKeys = Session.macKeys(&keymat, terms.suite, terms.cipher, isGreater: isGreater)
    keymat.skip(to: terms.index)
    keys = TrafficKeys(
      from: &keymat, terms.espSuite, isGreater: isGreater, inboundSPI: inboundSPI, outboundSPI: outboundSPI,
      workers: terms.workers)
    chain = keymat.chain
    made = turn.now
    lostAt = made.adding(nanoseconds: Session.patience)
    setEnds(partner, &turn)
  }

  private static let patience: UInt64 = 3_000_000_000

  /// What was asked for before these keys were made may be heard of after.
  func isFresh(_ now: MonotonicTime) -> Bool { now.nanoseconds(since: made) < Session.patience }

  mutating func postponeLoss(_ now: MonotonicTime) { lostAt = now.adding(nanoseconds: 10 * Session.patience) }

  var suite: HostIdentitySuite { terms.suite }
  var espSuite: ESPSuite { terms.espSuite }
  var group: DiffieHellmanGroup { terms.group }
  var kem: UInt8? { terms.kem }
  var peer: PublicHostIdentity { terms.peer }
  var isInitiator: Bool { terms.isInitiator }
  var salt: [UInt8] { terms.salt }
  var workers: (local: Int, peer: Int) { terms.workers }

  /// Both sides need them before they know everything: the initiator for its I2.
  static func macKeys(
    _ keymat: inout Keymat, _ suite: HostIdentitySuite, _ cipher: UInt16, isGreater: Bool
  ) -> (sent: KeyMaterial, received: KeyMaterial) {
    let unused = KeymatIndex.cipherKeyLength(cipher)
    _ = keymat.draw(unused)
    let greater = keymat.draw(suite.macLength)
    _ = keymat.draw(unused)
    let smaller = keymat.draw(suite.macLength)
    return isGreater ? (greater, smaller) : (smaller, greater)
  }

  /// New keys, from which all later ones follow. The earlier ones stay with the dataplane as long as they are good for
  /// anything.
  mutating func renew(
    secret: KeyMaterial, inboundSPI: UInt32, outboundSPI: UInt32, isPostQuantum: Bool, partner: Partner,
    _ turn: inout KeyingTurn
  ) {
    var keymat = Keymat(secret: secret, salt: salt, between: (partner.local.tag, partner.remote), suite)
    self.inboundSPI = inboundSPI
    self.outboundSPI = outboundSPI
    keys = TrafficKeys(
      from: &keymat, espSuite, isGreater: isGreater, inboundSPI: inboundSPI, outboundSPI: outboundSPI,
      workers: workers)
    chain = keymat.chain
    self.isPostQuantum = isPostQuantum
    made = turn.now
    rekeys += 1
    setEnds(partner, &turn)
  }

  /// The side with the greater tag is the first, so that both seldom begin at once.
  private mutating func setEnds(_ partner: Partner, _ turn: inout KeyingTurn) {
    let time = partner.lifetime.usableTime
    softEnd = made.adding(nanoseconds: turn.seconds(time * 5 / 6 * (isGreater ? 0.8 : 1), spread: 0.1))
    hardEnd = made.adding(nanoseconds: UInt64(time * 1e9))
  }

  /// Not before that long; after a rekey that has come to nothing.
  mutating func postpone(_ turn: inout KeyingTurn) {
    softEnd = max(softEnd, turn.now.adding(nanoseconds: turn.seconds(10, spread: 0.5)))
  }

  var inboundSPIs: [UInt32] { keys.inbound.map(\.spi) }

  var report: SessionReport {
    SessionReport(
      suite: espSuite, group: group, isPostQuantum: isPostQuantum, awaitsPostQuantum: kem != nil && !isPostQuantum,
      duration: duration, rekeys: rekeys, since: made, nextRekey: softEnd)
  }
}

/// How many UPDATEs are looked at: they are cheap to send and dear to check.
struct UpdateLimits {
  private var news: TokenBucket
  /// Whoever has seen one can send it again, which takes nothing from those that only the partner can make.
  private var repeats: TokenBucket

  /// - Parameter rate: of each kind; three times as many at once.
  init(perSecond rate: UInt64) {
    news = TokenBucket(perSecond: rate, burst: 3 * rate)
    repeats = news
  }

  /// - Parameter isNews: no repeat, or an answer that is awaited. Its MAC is right.
  mutating func takeOne(isNews: Bool, now: MonotonicTime) -> Bool {
    isNews ? news.takeOne(now: now) : repeats.takeOne(now: now)
  }
}

/// Which UPDATEs were taken: those of one rekey may come in any order.
struct UpdateWindow {
  private var last: UInt32 = 0
  /// Bit k: the one k before the last.
  private var taken: UInt32 = 1

  func isNew(_ number: UInt32) -> Bool {
    if number > last { return true }
    let age = last - number
    return age < 32 && taken & (1 << age) == 0
  }

  mutating func note(_ number: UInt32) {
    if number > last {
      let step = number - last
      taken = step < 32 ? taken << step | 1 : 1
      last = number
    } else if last - number < 32 {
      taken |= 1 << (last - number)
    }
  }
}
