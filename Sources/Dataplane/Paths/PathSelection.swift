package import PacketIO

/// The paths to one peer: which there are, how each is doing, and which one carries the traffic.
///
/// Every path is asked with authenticated probes, which the peer answers along the path they came by. From `PathState`:
/// ```
/// untried ─its turn→ trying ─answer→ working ─answers overdue→ suspect ─answer→ working
///                                             └─ none of several, or the transport says so → dead ─answer→ working
/// ```
/// A stream that one of the peer's makes needless is `yielded`: see `settleTwins`.
/// - Traffic takes what works first, or the first of the list while nothing does.
/// - It climbs to a path higher on the list when that has answered nearly all of `provingProbes` over some time, which
///   doubles with each time that the path died under traffic. It leaves a dead path at once, for the best that works,
///   and a path that loses much when another one loses little.
/// - Of the two sides, the one with the higher tie-breaker leads. The other follows to the path that the leader was
///   last heard to use, unless it knows that path to be dead. So both come to the same path, whoever changed first.
/// - Only packets that were opened tell where the peer is, and only one that is newest in its association moves a path.
///   A peer that was heard on no listed path gets a learned one, which comes behind the listed one of its rank.
///
/// With one path or none there is no choice (`isChoice`): nothing is asked but what packets the path takes, and the
/// newest authentic packet says where the peer is.
///
/// Paths: as many as are listed, `ConfiguredPath.listCapacity`, and `learnedCapacity` learned ones; when these are full,
/// the one silent for longest makes room. Pure: time, numbers and bytes are the caller's.
package struct PathSelection: Sendable {
  package typealias Probe = PathProbe
  package typealias Traffic = PathTraffic

  /// Paths on no list at most.
  static let learnedCapacity = 8
  /// Between the first probes of two paths.
  static let stagger: UInt64 = 100_000_000
  /// A worker's tick: no probe is due sooner.
  static let shortest: UInt64 = 100_000_000
  /// Without a packet on a path that is sent to, before it is suspect.
  static let silence: UInt64 = 300_000_000
  /// Probes lost in a row, with nothing heard, that make a path dead: under traffic, and without.
  static let deadlyLosses = 5
  static let deadlyIdleLosses = 8
  /// Probes lost in a row that make it dead although the peer is heard: it does not hear us.
  static let deafLosses = 12
  /// A learned path that has been dead for so long is forgotten.
  static let forgetting: UInt64 = 60_000_000_000

  /// There is more than one path, or one too many: all are asked, and the best that works is taken.
  package private(set) var isChoice: Bool
  /// Of two gateways, the one with the higher number leads.
  package internal(set) var tieBreaker: UInt64
  package private(set) var partnerTieBreaker: UInt64?
  package internal(set) var candidates: [Candidate] = []
  /// The path that traffic takes, by its id.
  package internal(set) var current: Int?
  /// Since when, and why.
  package internal(set) var since: MonotonicTime
  package internal(set) var reason = PathReason.nothingAnswers
  /// The path that the peer's traffic was last heard to take.
  var partnerPath: Int?
  /// When the peer was last active.
  var lastActive = MonotonicTime(nanoseconds: 0)
  /// Before then `poll` has nothing to do while the peer is not active.
  package internal(set) var nextDue = MonotonicTime(nanoseconds: 0)
  package internal(set) var switches: UInt64 = 0
  /// Streams to be closed.
  var released: [Path] = []
  /// Where the peer was heard and has yet to answer.
  var challenge: PathChallenge?
  var namedCredit = NamedCredit()
  /// The peer has answered a probe at some time.
  package private(set) var answersProbes = false
  private var change: PathChange?
  private var nextID = 0

  package init(_ paths: [ConfiguredPath], isChoice: Bool = true, tieBreaker: UInt64 = 0, now: MonotonicTime) {
    self.isChoice = isChoice
    self.tieBreaker = tieBreaker
    since = now
    for (place, path) in paths.enumerated() { add(path, place: place, now: now) }
    current = candidates.first { $0.originates }?.id
  }

  /// This side decides, as far as is known.
  package var leads: Bool { partnerTieBreaker.map { tieBreaker > $0 } ?? true }

  func index(of id: Int?) -> Int? { id.flatMap { id in candidates.firstIndex { $0.id == id } } }
  func index(of path: Path) -> Int? { candidates.firstIndex { $0.path == path } }
  package var currentCandidate: Candidate? { index(of: current).map { candidates[$0] } }
  var currentPath: Path? { index(of: current).map { candidates[$0].path } }
  var currentMTU: PathMTU? { index(of: current).flatMap { candidates[$0].mtu } }
  var currentOverhead: Int { index(of: current).flatMap { candidates[$0].overhead } ?? 0 }

  /// What changed since the last call, as one change.
  package mutating func takeChange() -> PathChange? {
    defer { change = nil }
    return change
  }

  /// Puts another list in force; what is known of paths that stay is kept, learned paths go.
  package mutating func relist(_ paths: [ConfiguredPath], now: MonotonicTime) {
    guard isChoice else {
      self = PathSelection(paths, isChoice: paths.areChoice, tieBreaker: tieBreaker, now: now)
      return
    }
    let old = candidates
    let path = currentCandidate?.path
    candidates = []
    for (place, path) in paths.enumerated() {
      if var known = old.first(where: { $0.path == path.path }) {
        known.rank.list(path, at: place)
        candidates.append(known)
      } else {
        add(path, place: place, now: now)
      }
    }
    nextDue = now
    guard index(of: current) == nil else { return }
    current = nil
    if let best = candidates.bestUsable ?? candidates.first(where: \.originates)?.id {
      take(best, .configured, now: now, previous: path)
    }
  }

  @discardableResult
  private mutating func add(_ path: ConfiguredPath, place: Int?, now: MonotonicTime) -> Int {
    candidates.append(
      Candidate(
        id: nextID, path: path.path, rank: PathRank(path, at: place), since: now,
        nextProbe: now.adding(nanoseconds: stagger(place))))
    nextID += 1
    return candidates.count - 1
  }

  private func stagger(_ place: Int?) -> UInt64 { UInt64(place ?? 0) * PathSelection.stagger }

  // MARK: Without a choice

  /// The newest authentic packet came by another path: there the peer is. What was measured does not hold any more.
  package mutating func follow(_ path: Path, now: MonotonicTime) {
    candidates.removeAll { $0.place == nil }
    if let place = index(of: path) {
      candidates[place].isSettled = false
      candidates[place].mtu = nil
      current = candidates[place].id
    } else {
      current = candidates[add(ConfiguredPath(path: path, originates: false), place: nil, now: now)].id
    }
  }

  /// From now on there is a choice: the peer has more than one path, or two streams are one too many. The path stays.
  package mutating func beginChoice(now: MonotonicTime) {
    guard !isChoice else { return }
    isChoice = true
    since = now
    nextDue = now
    for index in candidates.indices {
      candidates[index].since = now
      candidates[index].nextProbe = now.adding(nanoseconds: stagger(candidates[index].place))
    }
    guard let place = index(of: current), candidates[place].place == nil else { return }
    hear(place, now: now)
    partnerPath = candidates[place].id
    reason = .partnerUses
  }

  // MARK: What comes in

  /// A probe was opened that came by `path`.
  ///
  /// - Parameter isNewest: no later packet of the association had come before.
  package mutating func receive(_ probe: ProbeMessage, by path: Path, isNewest: Bool, now: MonotonicTime) {
    if let theirs = probe.tieBreaker { partnerTieBreaker = theirs }
    let rank = probe.rank == ProbeMessage.unlisted ? nil : probe.rank
    // On a slow path no probe is the newest packet while traffic takes a fast one: so any may add a path, which has to
    // be answered on before it is used; but only the newest moves one.
    guard let index = index(of: path) ?? learn(path, rank: rank, mayMove: isNewest, now: now) else { return }
    if let rank { candidates[index].rank.partnerRank = rank }
    hear(index, now: now)
    if probe.isUsed, isNewest { setPartnerPath(index, now: now) }
    choose(now: now)
  }

  /// The newest packet of the peer that is no probe came by another path than traffic takes.
  package mutating func receiveTraffic(by path: Path, now: MonotonicTime) {
    guard let index = index(of: path) ?? rebind(to: path, now: now) ?? learn(path, rank: nil, mayMove: false, now: now)
    else { return }
    hear(index, now: now)
    setPartnerPath(index, now: now)
    // It left the path that we take: it may know why. What was under way when we changed tells nothing.
    if leads, let place = self.index(of: current), place != index, candidates[place].state == .working,
      now.nanoseconds(since: since) > 1_000_000_000
    {
      suspect(place, now: now)
    }
    choose(now: now)
  }

  /// The peer answered a probe; `seen` is this side's address as the peer sees it. False for an unknown number.
  @discardableResult
  package mutating func receive(_ reply: ProbeReply, now: MonotonicTime) -> Bool {
    answersProbes = true
    if let asked = challenge, asked.number == reply.number, asked.askedAt != nil, let index = index(of: asked.candidate)
    {
      challenge = nil
      _ = move(index, to: asked.path, now: now)
      hear(index, now: now)
      choose(now: now)
      return true
    }
    guard let index = candidates.indices.first(where: { candidates[$0].meter.answer(reply.number, now: now) }) else {
      for index in candidates.indices { candidates[index].mtu?.acknowledge(reply.number, now: now) }
      return false
    }
    candidates[index].mtu?.acknowledge(reply.number, now: now)
    if let seen = reply.seen { candidates[index].seen = seen }
    if candidates[index].state != .working, candidates[index].state != .yielded {
      let wasSuspect = candidates[index].state == .suspect
      candidates[index].enter(.working, now: now)
      if !wasSuspect {
        candidates[index].meter.restart()
        candidates[index].attempts = 0
        candidates[index].nextProbe = now.adding(nanoseconds: candidates[index].provingInterval)
      }
      nextDue = now
    }
    choose(now: now)
    return true
  }

  /// The peer says that it is there, which shows nothing: it is asked for a while, so that its answer makes it a path.
  package mutating func consider(_ path: Path, now: MonotonicTime) {
    guard isChoice, let index = index(of: path) ?? learn(path, rank: nil, mayMove: false, now: now) else { return }
    candidates[index].expect(now: now)
    nextDue = now
  }

  /// The transport says that the path has opened: the peer cannot know yet who is there.
  package mutating func open(_ path: Path, now: MonotonicTime) {
    guard let index = index(of: path) else { return }
    candidates[index].nextProbe = now
    nextDue = now
  }

  /// The transport says that the path fails. A stream that is gone is dead; what an error says of a path for single
  /// packets is only a reason to ask.
  package mutating func fail(_ path: Path, now: MonotonicTime) {
    guard isChoice, let index = index(of: path), candidates[index].state != .dead, candidates[index].state != .yielded
    else {
      return
    }
    if candidates[index].isSettled, candidates[index].overhead == nil {
      die(index, now: now)
      choose(now: now, previous: .previousFailed)
    } else if candidates[index].state == .working {
      suspect(index, now: now)
    }
  }

  private mutating func setPartnerPath(_ index: Int, now: MonotonicTime) {
    partnerPath = candidates[index].id
    if candidates[index].state == .yielded { candidates[index].enter(.working, now: now) }
  }

  private mutating func hear(_ index: Int, now: MonotonicTime) {
    if candidates[index].meter.sent == 0 { candidates[index].isOpenedByPeer = true }
    candidates[index].meter.hear(now: now)
    guard !candidates[index].isUsable, candidates[index].state != .yielded else { return }
    if candidates[index].state == .untried { candidates[index].enter(.trying, now: now) }
    // Ask at once whether it carries both ways.
    if !candidates[index].meter.isWaiting {
      candidates[index].nextProbe = now
      nextDue = now
    }
  }

  /// Traffic from an unknown address while we send to a learned one: the peer's address translator gave it another.
  private mutating func rebind(to path: Path, now: MonotonicTime) -> Int? {
    guard let index = index(of: current), candidates[index].place == nil,
      candidates[index].path.transport == path.transport,
      candidates[index].path.endpoint.address.family == path.endpoint.address.family
    else { return nil }
    return beginMove(index, to: path, now: now)
  }

  /// What a peer that answers probes has to do before its path moves.
  private mutating func beginMove(_ index: Int, to path: Path, now: MonotonicTime) -> Int {
    guard answersProbes, !candidates[index].isStream, candidates[index].path != path else {
      return move(index, to: path, now: now)
    }
    challenge = PathChallenge.next(after: challenge, path, candidate: candidates[index].id, now: now)
    nextDue = now
    return index
  }

  private mutating func move(_ index: Int, to path: Path, now: MonotonicTime) -> Int {
    let old = candidates[index].path
    candidates[index].path = path
    candidates[index].isSettled = false
    candidates[index].isConfirmed = false
    candidates[index].nextProbe = now
    nextDue = now
    if candidates[index].state == .yielded { candidates[index].enter(.trying, now: now) }
    if candidates[index].id == current { note(.partnerMoved, from: old) }
    return index
  }

  /// A path that is on no list.
  private mutating func learn(_ path: Path, rank: UInt8?, mayMove: Bool, now: MonotonicTime) -> Int? {
    if mayMove, let rank,
      let same = candidates.firstIndex(where: {
        $0.place == nil && $0.rank.partnerRank == rank && $0.path.transport == path.transport
      })
    {
      return beginMove(same, to: path, now: now)
    }
    let learned = candidates.indices.filter { candidates[$0].place == nil }
    if learned.count >= PathSelection.learnedCapacity {
      let never = MonotonicTime(nanoseconds: 0)
      let oldest = learned.filter { candidates[$0].id != current }
        .min { candidates[$0].meter.lastHeard ?? never < candidates[$1].meter.lastHeard ?? never }
      guard let oldest else { return nil }
      candidates.remove(at: oldest)
    }
    let index = add(ConfiguredPath(path: path, originates: false), place: nil, now: now)
    candidates[index].rank.partnerRank = rank
    candidates[index].rank.relayPlace = candidates.firstRelay
    return index
  }

  // MARK: States

  mutating func suspect(_ index: Int, now: MonotonicTime) {
    candidates[index].enter(.suspect, now: now)
    candidates[index].nextProbe = now
    nextDue = now
  }

  mutating func die(_ index: Int, now: MonotonicTime) {
    candidates[index].enter(.dead, now: now)
    candidates[index].attempts = 2
    candidates[index].nextProbe = now.adding(nanoseconds: 500_000_000)
    nextDue = now
    if candidates[index].id == current {
      candidates[index].flaps = min(candidates[index].flaps + 1, Candidate.provingDoublings)
      candidates[index].lastFlap = now
    }
  }

  // MARK: The choice

  /// Which path traffic is to take.
  /// - Parameter previous: why the path before is left, if it is because it died.
  mutating func choose(now: MonotonicTime, previous: PathReason = .previousSilent) {
    // A peer that answers probes has to have answered there.
    if !leads, let index = index(of: partnerPath),
      candidates[index].isUsable || !answersProbes || candidates[index].isStream, candidates[index].state != .dead,
      candidates[index].state != .untried
    {
      return take(candidates[index].id, .partnerUses, now: now)
    }
    guard let place = index(of: current), candidates[place].isUsable else {
      if let best = candidates.bestUsable {
        let hadDied = currentCandidate?.state == .dead
        return take(best, hadDied ? previous : .answeredFirst, now: now)
      }
      // A peer that answers no probes is where it is heard.
      if let index = index(of: partnerPath), candidates[index].state != .dead {
        return take(candidates[index].id, .partnerUses, now: now)
      }
      if current == nil, let first = candidates.first(where: \.originates) { take(first.id, .nothingAnswers, now: now) }
      return
    }
    let order = candidates[place].order
    if let better = candidates.filter({ $0.order < order && $0.isProved }).min(by: { $0.order < $1.order }) {
      return take(better.id, .provedBetter, now: now)
    }
    if candidates[place].isLossy,
      let clean = candidates.filter({ $0.isProved }).min(by: { $0.order < $1.order })
    {
      candidates[place].flaps = min(candidates[place].flaps + 1, Candidate.provingDoublings)
      candidates[place].lastFlap = now
      candidates[place].meter.restart()
      take(clean.id, .previousLossy, now: now)
    }
  }

  mutating func take(_ id: Int, _ reason: PathReason, now: MonotonicTime, previous: Path? = nil) {
    guard id != current, let index = index(of: id) else { return }
    let old = currentCandidate?.path ?? previous
    current = id
    since = now
    switches += 1
    // The other side learns of it from the next probe.
    candidates[index].nextProbe = now
    nextDue = now
    note(reason, from: old)
  }

  private mutating func note(_ reason: PathReason, from previous: Path?) {
    self.reason = reason
    guard let candidate = currentCandidate else { return }
    change = PathChange(
      name: "", path: candidate.path, reason: reason, previous: change?.previous ?? previous,
      roundTrip: candidate.meter.roundTrip > 0 ? Double(candidate.meter.roundTrip) / 1e9 : nil,
      loss: candidate.meter.loss)
  }
}
