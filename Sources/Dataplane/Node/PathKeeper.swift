import PacketIO

/// What worker 0 does about the paths to all peers: which one traffic takes, what it has room for, and the probes by
/// which both are found out. Nothing here is a packet's way.
struct PathKeeper: ~Copyable {
  /// A peer is active when something was sent to it within this time, in nanoseconds.
  static let activityInterval: UInt64 = 1_000_000_000
  /// Peers that are looked at in a tick, of those that traffic goes to and of the others; whoever is left over has its
  /// turn at the next one.
  private static let activePerTick = 256
  private static let idlePerTick = 64
  /// Trains that are gathered before the transports get them.
  static let trainsAtOnce = 32

  /// Of two gateways, the one with the higher number leads in the choice of paths.
  let tieBreaker: UInt64
  /// Nanoseconds after which a path is asked again whether it takes larger packets.
  let raiseInterval: UInt64
  private var numbers: ProbeNumbers
  /// Moves that nobody has asked for an answer, since the last tick.
  var moves = Shares(.pathMoves, capacity: 64, most: 1)
  /// Whose turn it is.
  private var round = RoundRobin()
  /// Idle peers that were looked at in this tick.
  private var idle = 0
  private var step = Step.done
  /// Peers that are to be told what this side takes.
  private var untold: [Int] = []
  /// Peers whose path may be another than other workers have.
  private var changed: [Int] = []
  private var quoteLimit = TokenBucket(perSecond: 200, burst: 50)
  private var silence = SilenceWatch()

  private enum Step { case active, idle, done }

  init(raiseInterval: UInt64, using random: inout some RandomNumberGenerator) {
    tieBreaker = random.next()
    numbers = ProbeNumbers(using: &random)
    self.raiseInterval = raiseInterval
  }

  /// Peers whose path may be another, since the last call.
  mutating func takeChanged() -> [Int] {
    guard !changed.isEmpty else { return [] }
    defer { changed.removeAll(keepingCapacity: true) }
    return changed
  }

  // MARK: Time

  /// Begins to look at so many active peers, and at so many idle ones whose time has come.
  mutating func beginTick() {
    step = .active
    round.begin()
    idle = 0
  }

  /// Goes on with it, until there are trains to be sent. False: nothing is left to do.
  mutating func work(_ datapath: inout Datapath, _ facts: any PathFacts) -> Bool {
    while let peer = untold.popLast() {
      announce(to: peer, &datapath)
      if isFull(datapath) { return true }
    }
    while let peer = nextDue(datapath) {
      probe(peer, &datapath)
      service(peer, &datapath, facts)
      watch(peer, &datapath)
      arm(peer, datapath)
      if isFull(datapath) { return true }
    }
    return false
  }

  private func isFull(_ datapath: borrowing Datapath) -> Bool {
    datapath.outputs.trains.count >= PathKeeper.trainsAtOnce
  }

  private mutating func nextDue(_ datapath: borrowing Datapath) -> Int? {
    let (tables, now) = (datapath.tables, datapath.now)
    if step == .active {
      let peer = round.next(in: tables.busy, limit: PathKeeper.activePerTick) { row in
        if PathKeeper.isActive(tables.peers[row].state, now: now) { return true }
        tables.busy.remove(row)
        PathKeeper.arm(row, tables, now: now)
        return false
      }
      if let peer { return peer }
      step = .idle
    }
    while step == .idle, idle < PathKeeper.idlePerTick, let due = tables.timers.value.paths.first, due.time <= now {
      tables.timers.value.paths.set(due.row, nil)
      let peer = tables.peers[due.row].state
      guard !PathKeeper.isActive(peer, now: now), now >= peer.value.nextDue else {
        PathKeeper.arm(due.row, tables, now: now)
        continue
      }
      idle += 1
      return due.row
    }
    step = .done
    return nil
  }

  /// After whatever was done about a peer: when it is looked at again. The other workers may have to be told of it.
  private mutating func arm(_ peer: Int, _ turn: Turn) {
    PathKeeper.arm(peer, turn.tables, now: turn.now)
    changed.append(peer)
  }

  private mutating func arm(_ peer: Int, _ datapath: borrowing Datapath) { arm(peer, datapath.turn) }

  /// Active peers are looked at in each tick anyway. Whoever was looked at comes behind all that wait.
  private static func arm(_ peer: Int, _ tables: Snapshot, now: MonotonicTime) {
    let (entry, timers) = (tables.peers[peer], tables.timers)
    let due = isActive(entry.state, now: now) ? nil : max(entry.state.value.nextDue, now.adding(nanoseconds: 1))
    timers.value.paths.set(peer, due)
    if entry.state.value.selection.isChoice { tables.choosing.insert(peer) } else { tables.choosing.remove(peer) }
    let isKept = entry.keepAliveInterval > 0 && entry.state.value.path != nil
    if isKept != timers.value.keepAlives.contains(peer) {
      let time = entry.state.value.lastSent.adding(nanoseconds: entry.keepAliveInterval)
      timers.value.keepAlives.set(peer, isKept ? time : nil)
    }
  }

  static func isActive(_ peer: StateReference<Peer>, now: MonotonicTime) -> Bool {
    now.nanoseconds(since: peer.value.lastSent) < activityInterval
  }

  /// Looks whether the path that traffic takes has room for the packets that go there.
  private mutating func probe(_ peer: Int, _ datapath: inout Datapath) {
    let state = datapath.tables.peers[peer].state
    let now = datapath.now
    let traffic = PathSelection.Traffic(
      isActive: PathKeeper.isActive(state, now: now), lastHeard: state.value.lastHeardHere)
    var numbers = numbers
    let probes = state.value.withSelection { $0.probeSize(traffic, now: now) { numbers.next() } }
    self.numbers = numbers
    for probe in probes { _ = send(probe, to: peer, &datapath) }
  }

  /// Whether whoever is sent to is still there: keys that the peer has lost are agreed upon anew.
  private mutating func watch(_ peer: Int, _ datapath: inout Datapath) {
    let (tables, now) = (datapath.tables, datapath.now)
    let state = tables.peers[peer].state
    guard PathKeeper.isActive(state, now: now), let known = tables.record(peer)?.configuration, known.negotiatesKeys,
      tables.peers[peer].outbound != nil
    else { return }
    switch silence.look(peer, lastHeard: state.value.lastHeard, now: now) {
    case .nothing: break
    case .ask: announce(to: peer, &datapath)
    case .tell: datapath.outputs.keyNotices.append(.silent(peer: known.name))
    }
  }

  private func send(_ probe: PathSelection.Probe, to peer: Int, _ datapath: inout Datapath) -> Bool {
    var message = probe.message
    message.takesAggregates = datapath.tables.peers[peer].aggregates
    return datapath.send(ControlMessage.Kind.probe, message.body, to: peer, along: probe.path, size: probe.size)
  }

  /// Sends a peer's probes that are due, lets traffic take the path that the selection has chosen, and tells of it.
  private mutating func service(_ peer: Int, _ datapath: inout Datapath, _ facts: any PathFacts) {
    let state = datapath.tables.peers[peer].state
    guard state.value.selection.isChoice else { return }
    let now = datapath.now
    // What is learned now may make another probe due, once.
    for _ in 0..<2 {
      settle(peer, everything: false, datapath.turn, facts)
      let traffic = PathSelection.Traffic(
        isActive: PathKeeper.isActive(state, now: now), lastHeard: state.value.lastHeardHere,
        received: state.value.received.bytes)
      let before = state.value.path
      var numbers = numbers
      let probes = state.value.withSelection { $0.poll(traffic, now: now) { numbers.next() } }
      self.numbers = numbers
      for probe in probes where !send(probe, to: peer, &datapath) {
        state.value.withSelection { $0.candidates.withdraw(probe.message.number) }
      }
      tellTransports(peer, &datapath)
      tellOfChange(peer, &datapath)
      guard state.value.path != before else { break }
    }
  }

  /// Traffic takes another path.
  private mutating func tellOfChange(_ peer: Int, _ datapath: inout Datapath) {
    guard var change = datapath.tables.peers[peer].state.value.withSelection({ $0.takeChange() }) else { return }
    let configuration = datapath.tables.configuration.peers[peer]
    change.name = configuration.paths.first { $0.path == change.path }?.name ?? PathChange.learned
    datapath.outputs.events.append(.pathSelected(peer: configuration.name, change))
    datapath.outputs.notices.append(.heard(peer: configuration.name))
  }

  /// By which paths the peer was heard, and which are not needed any more.
  private func tellTransports(_ peer: Int, _ datapath: inout Datapath) {
    let state = datapath.tables.peers[peer].state
    let (confirmed, released) = state.value.withSelection { ($0.candidates.takeUnconfirmed(), $0.takeReleased()) }
    for path in confirmed { confirm(path, of: peer, &datapath) }
    for path in released { datapath.outputs.commands.append(.release(path)) }
  }

  private func confirm(_ path: Path, of peer: Int, _ datapath: inout Datapath) {
    datapath.outputs.commands.append(.confirm(path, Holder(row: Int32(truncatingIfNeeded: peer))))
  }

  // MARK: What comes in

  /// A peer was heard elsewhere than it was thought to be.
  mutating func followMove(_ peer: Int, _ datapath: inout Datapath, _ facts: any PathFacts) {
    guard let path = datapath.tables.peers[peer].state.value.takeHeardBy() else { return }
    followMove(peer, to: path, &datapath, facts)
  }

  /// - Parameter path: where this worker or another one has heard the peer, authentically.
  mutating func followMove(_ peer: Int, to path: Path, _ datapath: inout Datapath, _ facts: any PathFacts) {
    let state = datapath.tables.peers[peer].state
    let now = datapath.now
    // The selection may have come to the same path since.
    guard path != state.value.path else { return }
    defer { arm(peer, datapath) }
    guard !state.value.selection.isChoice else {
      state.value.withSelection { $0.receiveTraffic(by: path, now: now) }
      return service(peer, &datapath, facts)
    }
    var numbers = numbers
    let move = state.value.withSelection {
      $0.move(to: path, isStream: facts.overhead(path) == nil, now: now) { numbers.next() }
    }
    self.numbers = numbers
    switch move {
    case .follow: break
    case .followUnasked:
      guard moves.take(for: Holder(row: Int32(truncatingIfNeeded: peer))) else { return }
    case .ask(let probe):
      _ = send(probe, to: peer, &datapath)
      return
    case .wait: return
    }
    follow(peer, to: path, &datapath, facts)
  }

  /// A peer was found at a path by others than probes. Where there is a choice, it is measured instead.
  mutating func find(_ peer: Int, at path: Path, _ datapath: inout Datapath, _ facts: any PathFacts) {
    let state = datapath.tables.peers[peer].state
    guard !state.value.selection.isChoice, state.value.path != path else { return }
    follow(peer, to: path, &datapath, facts)
    arm(peer, datapath)
  }

  /// A peer says that it is at a path. It has to answer there like anywhere else.
  mutating func consider(
    _ peer: Int, at path: Path, credit: Int, _ datapath: inout Datapath, _ facts: any PathFacts
  ) {
    let state = datapath.tables.peers[peer].state
    guard state.value.selection.isChoice else { return }
    let now = datapath.now
    state.value.withSelection {
      $0.namedCredit.earn(credit)
      $0.consider(path, now: now)
    }
    service(peer, &datapath, facts)
    arm(peer, datapath)
  }

  /// The only path of a peer is another from now on.
  private mutating func follow(_ peer: Int, to path: Path, _ datapath: inout Datapath, _ facts: any PathFacts) {
    let state = datapath.tables.peers[peer].state
    let now = datapath.now
    state.value.withSelection { $0.follow(path, now: now) }
    confirm(path, of: peer, &datapath)
    if hasOpenedOwnStream(to: peer, beside: path, datapath.tables, facts) {
      state.value.withSelection { $0.beginChoice(now: now) }
    }
    settle(peer, everything: true, datapath.turn, facts)
    let name = datapath.tables.configuration.peers[peer].name
    datapath.outputs.events.append(.pathChanged(peer: name, path: path))
    datapath.outputs.notices.append(.heard(peer: name))
  }

  /// The peer was heard on a stream that it opened, where this side opens one too.
  private func hasOpenedOwnStream(
    to peer: Int, beside path: Path, _ tables: Snapshot, _ facts: any PathFacts
  ) -> Bool {
    facts.overhead(path) == nil
      && tables.configuration.peers[peer].paths.contains {
        $0.originates && $0.path != path && $0.path.transport == path.transport
          && $0.path.endpoint.address == path.endpoint.address
      }
  }

  mutating func take(
    _ probe: ProbeMessage, from peer: Int, path: Path, isNewest: Bool, _ datapath: inout Datapath,
    _ facts: any PathFacts
  ) {
    let reply = ProbeReply(
      number: probe.number, seen: path.endpoint, takesAggregates: datapath.tables.peers[peer].aggregates)
    datapath.send(ControlMessage.Kind.probeReply, reply.body, to: peer, along: path)
    let state = datapath.tables.peers[peer].state
    let now = datapath.now
    defer { arm(peer, datapath) }
    // The answer goes there, whatever becomes of the path: the transport has to know whose it is.
    if path.tag != 0 { confirm(path, of: peer, &datapath) }
    if isNewest { state.value.takesAggregates = probe.takesAggregates }
    if !state.value.selection.isChoice {
      guard state.value.path != path else { return }
      guard !probe.isUsed || hasOpenedOwnStream(to: peer, beside: path, datapath.tables, facts) else {
        if isNewest { followMove(peer, to: path, &datapath, facts) }
        return
      }
      state.value.withSelection { $0.beginChoice(now: now) }
    }
    state.value.withSelection {
      $0.namedCredit.noteProbe()
      $0.receive(probe, by: path, isNewest: isNewest, now: now)
    }
    service(peer, &datapath, facts)
  }

  mutating func take(
    _ reply: ProbeReply, from peer: Int, isNewest: Bool, _ datapath: inout Datapath, _ facts: any PathFacts
  ) {
    let state = datapath.tables.peers[peer].state
    let now = datapath.now
    if isNewest { state.value.takesAggregates = reply.takesAggregates }
    if let path = state.value.withSelection({ $0.takeChallenge(answeredBy: reply.number) }) {
      follow(peer, to: path, &datapath, facts)
    }
    state.value.withSelection {
      $0.namedCredit.noteProbe()
      return $0.receive(reply, now: now)
    }
    service(peer, &datapath, facts)
    arm(peer, datapath)
  }

  /// Says something authentic along a path that has just opened, so that the peer learns whose it is, also where only
  /// it has something to send.
  mutating func introduce(at path: Path, _ datapath: inout Datapath, _ facts: any PathFacts) {
    let now = datapath.now
    for peer in 0..<datapath.tables.peers.count {
      let state = datapath.tables.peers[peer].state
      if state.value.selection.isChoice {
        state.value.withSelection { $0.open(path, now: now) }
        if state.value.selection.nextDue <= now { service(peer, &datapath, facts) }
        arm(peer, datapath)
      } else if state.value.path == path {
        announce(to: peer, &datapath)
      }
    }
  }

  /// Has all peers that have agreed keys told something, at the next ticks.
  mutating func announceAll(_ tables: Snapshot) {
    untold = (0..<tables.peers.count).filter { row in
      tables.peers[row].outbound != nil && tables.record(row)?.configuration.negotiatesKeys == true
    }
  }

  /// Sends a probe that says what this side takes, and whose answer says what the peer does.
  private mutating func announce(to peer: Int, _ datapath: inout Datapath) {
    guard peer < datapath.tables.peers.count else { return }
    let number = numbers.next()
    guard let probe = datapath.tables.peers[peer].state.value.selection.announcement(number) else { return }
    _ = send(probe, to: peer, &datapath)
  }

  /// A transport reports an error. It means nothing where there is no choice.
  mutating func fail(_ path: Path, _ turn: Turn) {
    let now = turn.now
    var next = turn.tables.choosing.first(from: 0)
    while let peer = next {
      next = turn.tables.choosing.first(from: peer + 1)
      turn.tables.peers[peer].state.value.withSelection { $0.fail(path, now: now) }
      arm(peer, turn)
    }
  }

  /// A transport reports that packets of more than `size` bytes are refused. What its own machine says is true for all
  /// peers at that address; what a router says counts for the peer one of whose last packets it quotes (RFC 4301
  /// §8.2.1). Anybody can send such messages, so only so many are looked into.
  mutating func refuse(over size: Int, at path: Path, _ quote: QuotedPacket?, _ turn: Turn) {
    guard quote == nil || quoteLimit.takeOne(now: turn.now) else { return }
    // Only to these is anything sent.
    var next = (busy: turn.tables.busy.first(from: 0), choosing: turn.tables.choosing.first(from: 0))
    while let peer = [next.busy, next.choosing].compactMap(\.self).min() {
      next = (turn.tables.busy.first(from: peer + 1), turn.tables.choosing.first(from: peer + 1))
      let entry = turn.tables.peers[peer]
      if let quote, entry.outbound?.value.isRecent(quote) != true { continue }
      entry.state.value.withSelection {
        $0.candidates.refuse(over: size, at: path, by: quote == nil ? .link : .icmp, now: turn.now)
      }
      arm(peer, turn)
    }
  }

  // MARK: Tables

  /// The first tables are in force. Nothing is sent yet: a transport would open paths for it.
  mutating func begin(_ turn: Turn, _ facts: any PathFacts) {
    for peer in 0..<turn.tables.peers.count {
      settle(peer, everything: true, turn, facts)
      arm(peer, turn)
    }
  }

  /// A change is in force. Rows that are being looked at stay what they are, or have another peer, or none. Peers are told
  /// what this side takes now; paths that are measured are asked anyway.
  mutating func take(_ change: Transition, _ turn: Turn, _ facts: any PathFacts) {
    for peer in change.unsettled {
      settle(peer, everything: true, turn, facts)
      let state = turn.tables.peers[peer].state
      if !state.value.selection.isChoice, state.value.mtu == nil, state.value.path != nil,
        turn.tables.peers[peer].aggregates || state.value.takesAggregates
      {
        untold.append(peer)
      }
    }
    // Whoever has agreed upon keys may wait for a packet under them.
    untold += change.rekeyed
    for row in change.rows {
      // The interval may be another one.
      turn.tables.timers.value.keepAlives.set(row.row, nil)
      arm(row.row, turn)
    }
    // What packets become has another size.
    for peer in change.unsettled where peer < turn.tables.peers.count { arm(peer, turn) }
  }

  /// Asks the transports what a peer's paths take.
  private func settle(_ peer: Int, everything: Bool, _ turn: Turn, _ facts: any PathFacts) {
    let implicitIV = turn.tables.peers[peer].outbound?.value.implicitIV ?? false
    let largest = ESPPacket.sealedLength(turn.tables.configuration.interface.mtu, implicitIV: implicitIV)
    let outer = turn.tables.record(peer)?.configuration.mtu ?? PathMTU.largest
    turn.tables.peers[peer].state.value.withSelection {
      $0.tieBreaker = tieBreaker
      $0.candidates.settle(
        everything: everything, largestSealed: largest, largestOuter: outer, raiseInterval: raiseInterval
      ) {
        facts.overhead($0)
      }
    }
  }
}
