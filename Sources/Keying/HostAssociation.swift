import Identity
import PacketIO

/// This side's end of what it has with one partner (RFC 7401 §4.4): a handshake under way, or keys, or both, where the
/// partner has begun anew.
struct HostAssociation {
  var partner: Partner
  var attempt = HandshakeAttempt.none
  var session: Session?
  /// Where packets of the handshake last came from that were authentic.
  var path: Path?
  /// What this side accepts of old keys for a while.
  var retiring: [(at: MonotonicTime, spis: [UInt32], base: UInt32)] = []
  /// The last I2 that was accepted, and its answer: a repeat gets the same.
  var lastAnswer: (i2: [UInt8], r2: [UInt8])?
  /// What was told last, and not again.
  var toldFailure: KeyingFailure?
  /// CLOSE is said twice.
  var closing: (packet: [UInt8], path: Path, at: MonotonicTime)?
  /// Handshakes that came to nothing since the last one that did not.
  var failures = 0

  /// Nanoseconds for which old keys are accepted.
  static let overlap: UInt64 = 60_000_000_000

  init(_ partner: Partner) { self.partner = partner }

  var isGreater: Bool { partner.local.tag > partner.remote }
  var pair: Responder.Pair { Responder.Pair(local: partner.local.tag, remote: partner.remote) }

  /// Tells why there are no keys, once.
  mutating func fail(_ why: KeyingFailure, _ turn: inout KeyingTurn) {
    guard toldFailure != why else { return }
    toldFailure = why
    turn.report(.failed(partner: partner.name, why))
  }

  // MARK: Keys in force

  /// A handshake is through: its keys are accepted from now on, beside those before.
  mutating func adopt(_ new: Session, _ turn: inout KeyingTurn) {
    if let old = session { retire(old.inboundSPIs, base: old.inboundSPI, &turn) }
    session = new
    if case .answered(let answered) = attempt, answered.terms.inboundSPI != new.inboundSPI {
      turn.spis.giveBack(answered.terms.inboundSPI, now: turn.now)
    }
    attempt = .none
    failures = 0
    turn.actions.append(.installInbound(new.keys.inbound, partner: partner.name))
  }

  /// The partner has shown that it has the keys.
  mutating func confirm(_ turn: inout KeyingTurn) {
    guard var session, !session.isConfirmed else { return }
    session.isConfirmed = true
    self.session = session
    toldFailure = nil
    if let path { turn.actions.append(.usePath(path, partner: partner.name)) }
    // With post-quantum keys required, traffic waits for them.
    guard partner.postQuantum != .required else { return }
    turn.actions.append(.useOutbound(session.keys.outbound, partner: partner.name))
    turn.report(.established(partner: partner.name, session.report))
  }

  /// Old keys are accepted a little longer: packets may be under way.
  mutating func retire(_ spis: [UInt32], base: UInt32, _ turn: inout KeyingTurn) {
    retiring.append((turn.now.adding(nanoseconds: HostAssociation.overlap), spis, base))
  }

  /// A packet was opened under an association; of each it is enough to say so once.
  mutating func opened(_ spi: UInt32, _ turn: inout KeyingTurn) {
    guard let session, session.inboundSPI == spi & ~15 else { return }
    confirm(&turn)
    if session.rekey != nil { useNewKeys(&turn) }
  }

  /// All keys go, at once.
  mutating func forget(_ turn: inout KeyingTurn) {
    guard let session else { return }
    turn.actions.append(.stopSending(partner: partner.name))
    var spis = session.inboundSPIs
    turn.spis.giveBack(session.inboundSPI, now: turn.now)
    if let rekey = session.rekey, !rekey.isInstalled { turn.spis.giveBack(rekey.own.spi, now: turn.now) }
    for old in retiring {
      spis += old.spis
      turn.spis.giveBack(old.base, now: turn.now)
    }
    retiring = []
    turn.actions.append(.retireInbound(spis, partner: partner.name))
    self.session = nil
    lastAnswer = nil
  }

  // MARK: Time

  /// When there is something to do though nothing comes.
  var deadline: MonotonicTime? {
    var times = retiring.map(\.at) + [attempt.deadline].compactMap(\.self)
    if let session {
      times.append(session.hardEnd)
      if let rekey = session.rekey {
        if !rekey.isAcknowledged { times.append(rekey.retry.next) }
      } else {
        times.append(session.isConfirmed ? session.softEnd : session.lostAt)
      }
    }
    if let closing { times.append(closing.at) }
    return times.min()
  }

  mutating func work(_ turn: inout KeyingTurn) {
    while let first = retiring.first, first.at <= turn.now {
      turn.actions.append(.retireInbound(first.spis, partner: partner.name))
      turn.spis.giveBack(first.base, now: turn.now)
      retiring.removeFirst()
    }
    if let closing, closing.at <= turn.now {
      turn.send(closing.packet, along: closing.path)
      self.closing = nil
    }
    workOnAttempt(&turn)
    guard let session else { return }
    if session.hardEnd <= turn.now {
      forget(&turn)
      fail(.expired, &turn)
      begin(&turn)
    } else if let rekey = session.rekey {
      if !rekey.isAcknowledged, rekey.retry.next <= turn.now { repeatRekey(&turn) }
    } else if session.isConfirmed {
      if session.softEnd <= turn.now { beginRekey(&turn) }
    } else if session.lostAt <= turn.now {
      // The answer was lost, or the question was an old one that somebody has sent again.
      self.session?.postponeLoss(turn.now)
      begin(&turn)
    }
  }
}
