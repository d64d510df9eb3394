import Identity
import KeyDerivation
import PacketIO

/// The side that begins (RFC 7401 §6.6, §6.8, §6.10).
///
/// 1. An I1 goes along all paths, one after the other, and again until there is an R1.
/// 2. The first R1 that is the partner's decides by which path the rest goes; an I2 answers it.
/// 3. The R2 shows that the partner has the same keys.
extension HostAssociation {
  /// I2s that are sent before it is begun anew.
  private static let mostAnswers = 4

  // MARK: 1. I1

  /// Begins, unless it has begun.
  mutating func begin(_ turn: inout KeyingTurn) {
    switch attempt {
    case .asked, .solving, .answered: return
    case .none, .waiting: break
    }
    guard !allPaths.isEmpty else {
      attempt = .none
      return
    }
    answers.restart()
    attempt = .asked(
      HandshakeAttempt.Asked(
        began: turn.now,
        retry: Retry(first: turn.seconds(0.5, spread: 0.25), longest: 8_000_000_000, now: turn.now), next: (0, turn.now)
      ))
    workOnAttempt(&turn)
  }

  /// Begins anew, if it has begun: what was asked before has left from an address that may be gone, and its answer goes
  /// there.
  mutating func restart(_ turn: inout KeyingTurn) {
    switch attempt {
    case .none: return
    case .waiting: break
    case .asked, .solving, .answered: endAttempt(&turn)
    }
    begin(&turn)
  }

  mutating func workOnAttempt(_ turn: inout KeyingTurn) {
    switch attempt {
    case .none: break
    case .waiting(let until):
      if until <= turn.now { begin(&turn) }
    case .asked(var asked):
      guard asked.ask(partner, along: allPaths, &turn) else { return giveUp(.noAnswer, &turn) }
      attempt = .asked(asked)
    case .solving(let solving):
      if solving.next <= turn.now { solve(&turn) }
    case .answered(var answered):
      guard answered.retry.next <= turn.now else { return }
      if let other = answers.next() {
        endAttempt(&turn)
        attempt = .asked(HandshakeAttempt.Asked(began: answered.began, retry: answered.retry, next: nil))
        if let peer = partner.identity(in: other.packet) { begin(with: other.packet, peer, along: other.path, &turn) }
        return
      }
      guard answered.retry.tries < HostAssociation.mostAnswers else {
        // Its R1 may have been too old, or somebody else's.
        endAttempt(&turn)
        return begin(&turn)
      }
      answered.retry.again(now: turn.now)
      turn.send(answered.packet, along: answered.path)
      attempt = .answered(answered)
    }
  }

  /// Nothing comes of it.
  mutating func endAttempt(_ turn: inout KeyingTurn) {
    if case .answered(let answered) = attempt { turn.spis.giveBack(answered.terms.inboundSPI, now: turn.now) }
    attempt = .none
  }

  /// Tries again after a while.
  mutating func giveUp(_ why: KeyingFailure, _ turn: inout KeyingTurn) {
    failures += 1
    attempt = .later(&turn)
    // Who has keys misses nothing but the partner; and what somebody there has said tells more than that nobody answers.
    let hasKeys = session?.isConfirmed == true
    if why == .noAnswer, let toldFailure, toldFailure == .otherKey || !hasKeys && toldFailure.isSaid { return }
    if !hasKeys || why == .noAnswer { fail(hasKeys ? .lost : why, &turn) }
  }

  // MARK: 2. R1 and I2

  mutating func takeR1(_ packet: HIPPacket, along source: Path, _ turn: inout KeyingTurn) {
    guard attempt.began != nil, answers.isNews(packet), let path = answers.place(for: source, among: allPaths)
    else { return }
    guard let peer = partner.identity(in: packet), packet.hasValidSignature2(by: peer) else {
      return fail(.notAuthentic, by: Stranger(answering: packet, along: source), &turn)
    }
    answers.note(packet)
    if case .asked = attempt { return begin(with: packet, peer, along: path, &turn) }
    answers.add(packet, along: path)
  }

  /// Takes an R1 whose signature is good. One that has nothing in common with this side may be an old one, or was made for
  /// somebody else: the real one may be on its way.
  private mutating func begin(
    with packet: HIPPacket, _ peer: PublicHostIdentity, along path: Path, _ turn: inout KeyingTurn
  ) {
    guard let began = attempt.began else { return }
    let choice = Choice(packet, partner, turn.settings)
    guard let choice, partner.postQuantum != .required || choice.kem != nil else {
      if session?.isConfirmed != true { fail(choice == nil ? .nothingInCommon : .notPostQuantum, &turn) }
      return
    }
    if let solving = HandshakeAttempt.Solving(packet, along: path, began: began, choice, peer, partner, &turn) {
      attempt = .solving(solving)
      solve(&turn)
    }
  }

  /// Works on a puzzle for a while, and answers when that is solved.
  private mutating func solve(_ turn: inout KeyingTurn) {
    guard case .solving(var solving) = attempt else { return }
    guard answers.mayWork(turn.now) else { return giveUp(.noAnswer, &turn) }
    let isOver = solving.work(partner, now: turn.now)
    attempt = isOver ? .none : .solving(solving)
    guard isOver else { return }
    guard !solving.puzzle.j.isEmpty else { return begin(&turn) }
    guard let answered = HandshakeAttempt.Answered(solving, partner, &turn) else { return giveUp(.notAuthentic, &turn) }
    attempt = .answered(answered)
    turn.send(answered.packet, along: answered.path)
  }

  // MARK: 3. R2

  mutating func takeR2(_ packet: HIPPacket, along path: Path, _ turn: inout KeyingTurn) {
    guard case .answered(let answered) = attempt, var terms = Optional(answered.terms),
      packet.hasValidMAC2(key: answered.macKeys.received, suite: terms.suite, hostID: answered.hostID),
      packet.hasValidSignature(by: terms.peer), let info = ESPInfo(packet.content(.espInfo)), info.new >= 256
    else { return }
    terms.outboundSPI = info.new & ~15
    if partner.isForeign { terms.outboundSPI = info.new }
    terms.index = max(terms.index, Int(info.index))
    guard Session.isRoom(from: terms.index, for: terms) else { return }
    terms.workers.peer = WorkerCount.value(packet.content(.workers))
    // Where the I2 went: somebody may have held the answer back, and sent it from elsewhere.
    self.path = answered.path
    var session = Session(terms, answered.keymat, partner: partner, &turn)
    session.duration = Double(turn.now.nanoseconds(since: answered.began)) / 1e9
    adopt(session, &turn)
    confirm(&turn)
    if session.kem != nil { beginRekey(&turn) }
  }
}

/// What the initiator takes of what an R1 offers.
struct Choice {
  let group: DiffieHellmanGroup
  let publicValue: [UInt8]
  let cipher: UInt16
  let espSuite: ESPSuite
  let kem: UInt8?

  init?(_ packet: HIPPacket, _ partner: Partner, _ settings: KeyExchange.Settings) {
    // The responder was to take the first of its list that this side has: it has signed the list, so nobody has taken
    // something better out of what was asked (RFC 7401 §5.2.6).
    let groups = partner.offeredGroups
    guard let value = DiffieHellmanParameter(packet.content(.diffieHellman)),
      let best = (packet.content(.dhGroupList) ?? []).lazy.compactMap({ DiffieHellmanGroup(rawValue: $0) })
        .first(where: groups.contains), best.rawValue == value.group,
      let cipher = NumberList.numbers(packet.content(.hipCipher)).first(where: { $0 == 4 || $0 == 2 }),
      NumberList.numbers(packet.content(.transportFormatList)).contains(HIPParameter.espTransform.rawValue)
    else { return nil }
    let offered = NumberList.numbers(packet.content(.espTransform), reserved: 2).compactMap { ESPSuite(number: $0) }
    guard let espSuite = partner.offeredSuites.first(where: offered.contains) else { return nil }
    group = best
    publicValue = value.value
    self.cipher = cipher
    self.espSuite = espSuite
    kem = settings.mechanisms(for: partner).first { (packet.content(.kemList) ?? []).contains($0) }
  }
}
