import Identity
import PacketIO

/// This side's end of what it has with one partner (RFC 7401 §4.4): a handshake under way, or keys, or both, where the
/// partner has begun anew.
struct HostAssociation {
  var partner: Partner
  var attempt = HandshakeAttempt.none
  var answers = R1Queue()
  var session: Session?
  /// Where packets of the handshake last came from that were authentic.
  var path: Path?
  /// What this side accepts of old keys for a while.
  var retiring = RetiringKeys()
  /// The last I2 that was accepted, and its answer: a repeat gets the same.
  var lastAnswer: (i2: [UInt8], r2: [UInt8])?
  /// What was told last, and not again.
  var toldFailure: KeyingFailure?
  /// Handshakes that came to nothing since the last one that did not.
  var failures = 0
  var mobility = Mobility()
  var notices = Notices()
  var binding = RelayBinding()

  init(_ partner: Partner) { self.partner = partner }

  var isGreater: Bool { partner.local.tag > partner.remote }
  var pair: Responder.Pair { Responder.Pair(local: partner.local.tag, remote: partner.remote) }

  /// The partner's key, as far as it has shown it.
  var peer: PublicHostIdentity? {
    if case .answered(let answered) = attempt { return answered.terms.peer }
    return session?.peer ?? partner.remoteIdentity
  }

  /// Tells why there are no keys, once.
  mutating func fail(_ why: KeyingFailure, by stranger: Stranger? = nil, _ turn: inout KeyingTurn) {
    guard toldFailure != why else { return }
    toldFailure = why
    turn.report(.failed(partner: partner.name, why, by: stranger))
  }

  // MARK: Places

  /// The configured ones, and where the partner was last.
  var allPaths: [Path] {
    guard let path, !partner.paths.contains(path) else { return partner.paths }
    return [path] + partner.paths
  }

  var place: Mobility.Place { Mobility.Place(partner: partner, usual: path, all: allPaths) }

  /// This side is elsewhere from now on.
  mutating func move(to locators: LocatorSet, _ turn: inout KeyingTurn) {
    restart(&turn)
    guard var session else { return }
    mobility.move(to: locators)
    if session.isConfirmed { mobility.announce(&session, place, &turn) }
    self.session = session
  }

  // MARK: Keys in force

  /// A handshake is through: its keys are accepted from now on, beside those before.
  mutating func adopt(_ new: Session, _ turn: inout KeyingTurn) {
    if let old = session { retiring.add(allOf: old, &turn) }
    session = new
    mobility.restart()
    binding.restart()
    if case .answered(let answered) = attempt, answered.terms.inboundSPI != new.inboundSPI {
      turn.spis.giveBack(answered.terms.inboundSPI, now: turn.now)
    }
    attempt = .none
    failures = 0
    notices.forget()
    turn.actions.append(.installInbound(new.keys.inbound, partner: partner.name))
  }

  /// The partner has shown that it has the keys.
  mutating func confirm(_ turn: inout KeyingTurn) {
    guard var session, !session.isConfirmed else { return }
    session.isConfirmed = true
    mobility.announce(&session, place, &turn)
    binding.announce(&session, partner, except: path, &turn)
    self.session = session
    toldFailure = nil
    if let path { turn.actions.append(.usePath(path, partner: partner.name)) }
    // With post-quantum keys required, traffic waits for them.
    guard partner.postQuantum != .required else { return }
    turn.actions.append(.useOutbound(session.keys.outbound, partner: partner.name))
    turn.report(.established(partner: partner.name, session.report))
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
    retiring.add(allOf: session, &turn)
    turn.actions.append(.retireInbound(retiring.takeAll(&turn), partner: partner.name))
    self.session = nil
    lastAnswer = nil
    mobility = Mobility()
    binding.restart()
  }

  // MARK: Time

  /// When there is something to do though nothing comes.
  var deadline: MonotonicTime? {
    let times = [retiring.deadline, attempt.deadline, mobility.deadline, binding.deadline, session?.deadline]
    return times.compactMap(\.self).min()
  }

  mutating func work(_ turn: inout KeyingTurn) {
    let retired = retiring.takeDue(&turn)
    if !retired.isEmpty { turn.actions.append(.retireInbound(retired, partner: partner.name)) }
    workOnAttempt(&turn)
    if !mobility.work(place, &turn) { begin(&turn) }
    binding.work(partner, &turn)
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
