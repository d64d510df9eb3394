package import PacketIO

/// The roads to one peer: which there are, how each is doing, and which one carries the traffic.
///
/// Every road is asked with authenticated probes, which the peer answers along the road they came by. From `RoadState`:
/// ```
/// untried ─its turn→ trying ─answer→ working ─answers overdue→ suspect ─answer→ working
///                                             └─ none of several, or the transport says so → dead ─answer→ working
/// ```
/// A stream that one of the peer's makes needless is `yielded`: see `settleTwins`.
/// - Traffic takes what works first, or the first of the list while nothing does.
/// - It climbs to a road higher on the list when that has answered nearly all of `provingProbes` over some time, which
///   doubles with each time that the road died under traffic. It leaves a dead road at once, for the best that works,
///   and a road that loses much when another one loses little.
/// - Of the two sides, the one with the higher tie-breaker leads. The other follows to the road that the leader was
///   last heard to use, unless it knows that road to be dead. So both come to the same road, whoever changed first.
/// - Only packets that were opened tell where the peer is, and only one that is newest in its association moves a road.
///   A peer that was heard on no listed road gets a learned one, which comes behind the listed one of its rank.
///
/// Roads: as many as are listed, `Road.listCapacity`, and `learnedCapacity` learned ones; when these are full, the one
/// silent for longest makes room. Pure: time, numbers and bytes are the caller's.
package struct Ladder: Sendable {
  /// One road and what is known of it.
  package struct Rung: Sendable {
    /// Never given twice.
    package let id: Int
    package internal(set) var path: Path
    /// Its place in the list; nil: learned.
    package internal(set) var place: Int?
    var originates: Bool
    /// Its place in the peer's list, as the peer says.
    var partnerRank: UInt8?
    package internal(set) var state = RoadState.untried
    package internal(set) var since: MonotonicTime
    package internal(set) var meter = RoadMeter()
    var nextProbe: MonotonicTime
    /// Probes since it stopped working, for the back-off.
    var attempts = 0
    /// How often it died while traffic took it, not long ago, and when it did last.
    var flaps = 0
    var lastFlap = MonotonicTime(nanoseconds: 0)
    /// Nil where packets of any size get through, and while the peer's traffic takes this road: then the peer has it.
    package var mtu: PathMTU?
    /// Bytes that the road adds to a sealed packet; nil: any size gets through.
    package var overhead: Int?
    /// The embedder's transport has said what it takes.
    package var isSettled = false
    /// The transport knows that packets of the peer came by this path.
    package var isConfirmed = false
    /// This side's address, as the peer sees it by this road.
    package internal(set) var seen: Endpoint?
    /// The peer was heard here before anything was sent: it could open the road from outside.
    package internal(set) var isOpenedByPeer = false
    /// There is another stream for the same two addresses that is to be kept.
    var isNeedless = false
    /// Since when it has been needless and unused.
    var needlessSince: MonotonicTime?

    var isUsable: Bool { state == .working || state == .suspect }
    /// Lower is better: the list's order, and of equal ones the listed before the learned.
    var order: Int { place.map { $0 * 2 } ?? Int(partnerRank ?? ProbeMessage.unlisted) * 2 + 1 }
  }

  /// A probe to be sent. `size` is that of the sealed packet; 0: as small as can be.
  package struct Probe: Sendable, Equatable {
    package var path: Path
    package var size: Int
    package var message: ProbeMessage
  }

  /// What the worker knows of the peer's packets.
  package struct Traffic: Sendable {
    /// Something was sent to the peer within the last second.
    package var isActive: Bool
    /// When a packet last came by the path that traffic takes.
    package var lastHeard: MonotonicTime

    package init(isActive: Bool, lastHeard: MonotonicTime) {
      self.isActive = isActive
      self.lastHeard = lastHeard
    }
  }

  /// Roads on no list at most.
  static let learnedCapacity = 8
  /// Between the first probes of two roads.
  static let stagger: UInt64 = 100_000_000
  /// A worker's tick: no probe is due sooner.
  static let shortest: UInt64 = 100_000_000
  /// Without a packet on a road that is sent to, before it is suspect.
  static let silence: UInt64 = 300_000_000
  /// Probes lost in a row, with nothing heard, that make a road dead: under traffic, and without.
  static let deadlyLosses = 5
  static let deadlyIdleLosses = 8
  /// Probes lost in a row that make it dead although the peer is heard: it does not hear us.
  static let deafLosses = 12
  /// Probes that prove a road, and how many of them may be lost.
  static let provingProbes = 20
  static let provingLosses = 1
  /// Between them.
  static let provingInterval: UInt64 = 200_000_000
  /// Doublings of that interval at most, one for each flap; a flap is forgotten after so long.
  static let provingDoublings = 4
  static let flapMemory: UInt64 = 120_000_000_000
  /// A road is lossy when so many of so many probes were lost; another that is proved is better then.
  static let lossyWindow = 16
  static let lossyLosses = 5
  /// How long a road that loses packets is looked at closely after the last traffic.
  static let attention: UInt64 = 30_000_000_000
  /// After so long without traffic there is none: a connection that loses much waits for seconds between packets.
  static let pause: UInt64 = 10_000_000_000
  /// A learned road that has been dead for so long is forgotten.
  static let forgetting: UInt64 = 60_000_000_000

  package let tieBreaker: UInt64
  package private(set) var partnerTieBreaker: UInt64?
  package internal(set) var rungs: [Rung] = []
  /// The road that traffic takes, by its id.
  package internal(set) var current: Int?
  /// Since when, and why.
  package internal(set) var since: MonotonicTime
  package internal(set) var reason = RoadReason.nothingAnswers
  /// The road that the peer's traffic was last heard to take.
  var partnerRoad: Int?
  /// When the peer was last active.
  var lastActive = MonotonicTime(nanoseconds: 0)
  /// Before then `poll` has nothing to do while the peer is not active.
  package internal(set) var nextDue = MonotonicTime(nanoseconds: 0)
  package internal(set) var switches: UInt64 = 0
  /// Streams to be closed.
  var released: [Path] = []
  private var change: RoadChange?
  private var nextID = 0

  /// - Parameter path: the one that traffic takes already, listed or not; nil: the first of those that this side opens.
  package init(_ roads: [Road], path: Path? = nil, tieBreaker: UInt64, now: MonotonicTime) {
    self.tieBreaker = tieBreaker
    since = now
    for (place, road) in roads.enumerated() { add(road, place: place, now: now) }
    if let path {
      let index = index(of: path) ?? add(Road(path: path, originates: false), place: nil, now: now)
      if rungs[index].place == nil {
        hear(index, now: now)
        partnerRoad = rungs[index].id
        reason = .partnerUses
      }
      current = rungs[index].id
    } else {
      current = rungs.first { $0.originates }?.id
    }
  }

  /// This side decides, as far as is known.
  package var leads: Bool { partnerTieBreaker.map { tieBreaker > $0 } ?? true }

  func index(of id: Int?) -> Int? { id.flatMap { id in rungs.firstIndex { $0.id == id } } }
  func index(of path: Path) -> Int? { rungs.firstIndex { $0.path == path } }
  package var currentRung: Rung? { index(of: current).map { rungs[$0] } }

  /// What changed since the last call, as one change.
  package mutating func takeChange() -> RoadChange? {
    defer { change = nil }
    return change
  }

  /// Puts another list in force; what is known of roads that stay is kept, learned roads go.
  package mutating func relist(_ roads: [Road], now: MonotonicTime) {
    let old = rungs
    let path = currentRung?.path
    rungs = []
    for (place, road) in roads.enumerated() {
      if var known = old.first(where: { $0.path == road.path }) {
        known.place = place
        known.originates = road.originates
        rungs.append(known)
      } else {
        add(road, place: place, now: now)
      }
    }
    nextDue = now
    guard index(of: current) == nil else { return }
    current = nil
    if let best = bestUsable ?? rungs.first(where: \.originates)?.id {
      take(best, .configured, now: now, previous: path)
    }
  }

  @discardableResult
  private mutating func add(_ road: Road, place: Int?, now: MonotonicTime) -> Int {
    let wait = UInt64(place ?? 0) * Ladder.stagger
    rungs.append(
      Rung(
        id: nextID, path: road.path, place: place, originates: road.originates, since: now,
        nextProbe: now.adding(nanoseconds: wait)))
    nextID += 1
    return rungs.count - 1
  }

  // MARK: What comes in

  /// A probe was opened that came by `path`.
  ///
  /// - Parameter isNewest: no later packet of the association had come before.
  package mutating func receive(_ probe: ProbeMessage, by path: Path, isNewest: Bool, now: MonotonicTime) {
    if let theirs = probe.tieBreaker { partnerTieBreaker = theirs }
    let rank = probe.rank == ProbeMessage.unlisted ? nil : probe.rank
    // On a slow road no probe is the newest packet while traffic takes a fast one: so any may add a road, which has to
    // be answered on before it is used; but only the newest moves one.
    guard let index = index(of: path) ?? learn(path, rank: rank, mayMove: isNewest, now: now) else { return }
    if let rank { rungs[index].partnerRank = rank }
    hear(index, now: now)
    if probe.isUsed, isNewest { setPartnerRoad(index, now: now) }
    choose(now: now)
  }

  /// The newest packet of the peer that is no probe came by another path than traffic takes.
  package mutating func receiveTraffic(by path: Path, now: MonotonicTime) {
    guard let index = index(of: path) ?? rebind(to: path, now: now) ?? learn(path, rank: nil, mayMove: false, now: now)
    else { return }
    hear(index, now: now)
    setPartnerRoad(index, now: now)
    // It left the road that we take: it may know why. What was under way when we changed tells nothing.
    if leads, let place = self.index(of: current), place != index, rungs[place].state == .working,
      now.nanoseconds(since: since) > 1_000_000_000
    {
      suspect(place, now: now)
    }
    choose(now: now)
  }

  /// The peer answered a probe; `seen` is this side's address as the peer sees it. False for an unknown number.
  @discardableResult
  package mutating func receive(_ reply: ProbeReply, now: MonotonicTime) -> Bool {
    guard let index = rungs.indices.first(where: { rungs[$0].meter.answer(reply.number, now: now) }) else {
      for index in rungs.indices { rungs[index].mtu?.acknowledge(reply.number, now: now) }
      return false
    }
    rungs[index].mtu?.acknowledge(reply.number, now: now)
    if let seen = reply.seen { rungs[index].seen = seen }
    if rungs[index].state != .working, rungs[index].state != .yielded {
      let wasSuspect = rungs[index].state == .suspect
      enter(.working, index, now: now)
      if !wasSuspect {
        rungs[index].meter.restart()
        rungs[index].attempts = 0
        rungs[index].nextProbe = now.adding(nanoseconds: provingInterval(rungs[index]))
      }
      nextDue = now
    }
    choose(now: now)
    return true
  }

  /// The transport says that the road has opened: the peer cannot know yet who is there.
  package mutating func open(_ path: Path, now: MonotonicTime) {
    guard let index = index(of: path) else { return }
    rungs[index].nextProbe = now
    nextDue = now
  }

  /// The transport says that the road fails. A stream that is gone is dead; what an error says of a road for single
  /// packets is only a reason to ask.
  package mutating func fail(_ path: Path, now: MonotonicTime) {
    guard let index = index(of: path), rungs[index].state != .dead, rungs[index].state != .yielded else { return }
    if rungs[index].isSettled, rungs[index].overhead == nil {
      die(index, now: now)
      choose(now: now, previous: .previousFailed)
    } else if rungs[index].state == .working {
      suspect(index, now: now)
    }
  }

  private mutating func setPartnerRoad(_ index: Int, now: MonotonicTime) {
    partnerRoad = rungs[index].id
    if rungs[index].state == .yielded { enter(.working, index, now: now) }
  }

  private mutating func hear(_ index: Int, now: MonotonicTime) {
    if rungs[index].meter.sent == 0 { rungs[index].isOpenedByPeer = true }
    rungs[index].meter.hear(now: now)
    guard !rungs[index].isUsable, rungs[index].state != .yielded else { return }
    if rungs[index].state == .untried { enter(.trying, index, now: now) }
    // Ask at once whether it carries both ways.
    if !rungs[index].meter.isWaiting {
      rungs[index].nextProbe = now
      nextDue = now
    }
  }

  /// Traffic from an unknown address while we send to a learned one: the peer's address translator gave it another.
  private mutating func rebind(to path: Path, now: MonotonicTime) -> Int? {
    guard let index = index(of: current), rungs[index].place == nil, rungs[index].path.transport == path.transport,
      rungs[index].path.endpoint.address.family == path.endpoint.address.family
    else { return nil }
    return move(index, to: path, now: now)
  }

  private mutating func move(_ index: Int, to path: Path, now: MonotonicTime) -> Int {
    let old = rungs[index].path
    rungs[index].path = path
    rungs[index].isSettled = false
    rungs[index].isConfirmed = false
    rungs[index].nextProbe = now
    nextDue = now
    if rungs[index].state == .yielded { enter(.trying, index, now: now) }
    if rungs[index].id == current { note(.partnerMoved, from: old) }
    return index
  }

  /// A road that is on no list.
  private mutating func learn(_ path: Path, rank: UInt8?, mayMove: Bool, now: MonotonicTime) -> Int? {
    if mayMove, let rank,
      let same = rungs.firstIndex(where: {
        $0.place == nil && $0.partnerRank == rank && $0.path.transport == path.transport
      })
    {
      return move(same, to: path, now: now)
    }
    let learned = rungs.indices.filter { rungs[$0].place == nil }
    if learned.count >= Ladder.learnedCapacity {
      let never = MonotonicTime(nanoseconds: 0)
      let oldest = learned.filter { rungs[$0].id != current }
        .min { rungs[$0].meter.lastHeard ?? never < rungs[$1].meter.lastHeard ?? never }
      guard let oldest else { return nil }
      rungs.remove(at: oldest)
    }
    let index = add(Road(path: path, originates: false), place: nil, now: now)
    rungs[index].partnerRank = rank
    return index
  }

  /// Paths by which the peer was heard and that were not returned before.
  package mutating func takeUnconfirmed() -> [Path] {
    var paths: [Path] = []
    for index in rungs.indices where !rungs[index].isConfirmed && rungs[index].meter.lastHeard != nil {
      rungs[index].isConfirmed = true
      paths.append(rungs[index].path)
    }
    return paths
  }

  // MARK: States

  mutating func enter(_ state: RoadState, _ index: Int, now: MonotonicTime) {
    rungs[index].state = state
    rungs[index].since = now
  }

  mutating func suspect(_ index: Int, now: MonotonicTime) {
    enter(.suspect, index, now: now)
    rungs[index].nextProbe = now
    nextDue = now
  }

  mutating func die(_ index: Int, now: MonotonicTime) {
    enter(.dead, index, now: now)
    rungs[index].attempts = 2
    rungs[index].nextProbe = now.adding(nanoseconds: 500_000_000)
    nextDue = now
    if rungs[index].id == current {
      rungs[index].flaps = min(rungs[index].flaps + 1, Ladder.provingDoublings)
      rungs[index].lastFlap = now
    }
  }

  // MARK: The choice

  /// The best road that works; one that is suspect only where none does.
  private var bestUsable: Int? {
    func best(_ state: RoadState) -> Int? {
      rungs.filter { $0.state == state }.min { ($0.isNeedless ? 1 : 0, $0.order) < ($1.isNeedless ? 1 : 0, $1.order) }?
        .id
    }
    return best(.working) ?? best(.suspect)
  }

  /// Which road traffic is to take.
  /// - Parameter previous: why the road before is left, if it is because it died.
  mutating func choose(now: MonotonicTime, previous: RoadReason = .previousSilent) {
    if !leads, let index = index(of: partnerRoad), rungs[index].state != .dead, rungs[index].state != .untried {
      return take(rungs[index].id, .partnerUses, now: now)
    }
    guard let place = index(of: current), rungs[place].isUsable else {
      if let best = bestUsable {
        let hadDied = currentRung?.state == .dead
        return take(best, hadDied ? previous : .answeredFirst, now: now)
      }
      // A peer that answers no probes is where it is heard.
      if let index = index(of: partnerRoad), rungs[index].state != .dead {
        return take(rungs[index].id, .partnerUses, now: now)
      }
      if current == nil, let first = rungs.first(where: \.originates) { take(first.id, .nothingAnswers, now: now) }
      return
    }
    let order = rungs[place].order
    if let better = rungs.filter({ $0.order < order && isProved($0) }).min(by: { $0.order < $1.order }) {
      return take(better.id, .provedBetter, now: now)
    }
    if isLossy(rungs[place]),
      let clean = rungs.filter({ isProved($0) }).min(by: { $0.order < $1.order })
    {
      rungs[place].flaps = min(rungs[place].flaps + 1, Ladder.provingDoublings)
      rungs[place].lastFlap = now
      rungs[place].meter.restart()
      take(clean.id, .previousLossy, now: now)
    }
  }

  private func isProved(_ rung: Rung) -> Bool {
    rung.state == .working && !rung.isNeedless && rung.meter.judged >= Ladder.provingProbes
      && rung.meter.lost(ofLast: Ladder.provingProbes) <= Ladder.provingLosses
  }

  func isLossy(_ rung: Rung) -> Bool {
    rung.meter.judged >= Ladder.lossyWindow && rung.meter.lost(ofLast: Ladder.lossyWindow) >= Ladder.lossyLosses
  }

  /// Between two probes of a road that is to prove itself.
  func provingInterval(_ rung: Rung) -> UInt64 { Ladder.provingInterval << UInt64(rung.flaps) }

  mutating func take(_ id: Int, _ reason: RoadReason, now: MonotonicTime, previous: Path? = nil) {
    guard id != current, let index = index(of: id) else { return }
    let old = currentRung?.path ?? previous
    current = id
    since = now
    switches += 1
    // The other side learns of it from the next probe.
    rungs[index].nextProbe = now
    nextDue = now
    note(reason, from: old)
  }

  private mutating func note(_ reason: RoadReason, from previous: Path?) {
    self.reason = reason
    guard let rung = currentRung else { return }
    change = RoadChange(
      road: "", path: rung.path, reason: reason, previous: change?.previous ?? previous,
      roundTrip: rung.meter.roundTrip > 0 ? Double(rung.meter.roundTrip) / 1e9 : nil, loss: rung.meter.loss)
  }
}
