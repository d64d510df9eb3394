import PacketIO

/// What workers tell each other of peers: worker 0 where their paths lead, the others when they were heard. And how
/// each finds out whether a peer has its own association. With one worker there is nothing to it.
struct PathSharing: ~Copyable {
  private let worker: Int
  private let workers: Int
  /// By peer: with worker 0 what the others were told, with them what they know.
  private var known: [PathUpdate] = []
  /// With worker 0: peers that the others are to be told of at the next tick.
  private var untold = RowSet(capacity: 0)
  /// By peer: whether it has this worker's own association.
  private var checks: [AssociationCheck] = []
  /// Peers of which worker 0 has been told since the last tick that they were heard elsewhere.
  private var reportedMoves: Set<Int> = []

  private var isShared: Bool { workers > 1 }

  init(worker: Int, of workers: Int) {
    self.worker = worker
    self.workers = workers
  }

  // MARK: Paths, as worker 0 has them

  /// Tells the others what they could not be told before.
  mutating func shareRest(_ tables: Snapshot, _ handOffs: inout HandOffs) {
    guard isShared, worker == 0 else { return }
    var next = untold.first(from: 0)
    while let peer = next {
      guard share(peer, tables, &handOffs) else { return }
      next = untold.first(from: peer + 1)
    }
  }

  /// Tells the others of a peer's path, if it is not as it was. False when there is no room for it: then it is told with
  /// the next tick.
  @discardableResult
  mutating func share(_ peer: Int, _ tables: Snapshot, _ handOffs: inout HandOffs) -> Bool {
    // A row without a peer is nobody's news.
    guard isShared, worker == 0, peer < known.count else { return true }
    guard tables.record(peer) != nil else {
      untold.remove(peer)
      return true
    }
    let state = tables.peers[peer].state
    let fresh = PathUpdate(
      peer: Int32(truncatingIfNeeded: peer), path: state.value.path, sealedLimit: state.value.largestSealed,
      trialLimit: state.value.largestTrial, takesAggregates: state.value.takesAggregates)
    if known[peer] != fresh {
      untold.insert(peer)
      for other in 1..<workers where !handOffs.post(.path(fresh, version: tables.peerListVersion), to: other) {
        return false
      }
      known[peer] = fresh
    }
    untold.remove(peer)
    return true
  }

  // MARK: Paths, as the others have them

  mutating func take(_ update: PathUpdate, _ tables: Snapshot, _ facts: any PathFacts) {
    guard known.indices.contains(Int(update.peer)) else { return }
    known[Int(update.peer)] = update
    follow(Int(update.peer), tables, facts)
  }

  /// A peer has a path here only while this worker can seal for it and send there itself.
  private func follow(_ peer: Int, _ tables: Snapshot, _ facts: any PathFacts) {
    let state = tables.peers[peer].state
    guard worker > 0 else {
      state.value.usesOwnAssociation = checks[peer].isLive
      return
    }
    state.value.takesAggregates = known[peer].takesAggregates
    let path = known[peer].path.flatMap { facts.carries($0) ? $0 : nil }
    state.value.take(
      checks[peer].isLive ? path : nil, sealedLimit: known[peer].sealedLimit, trialLimit: known[peer].trialLimit)
  }

  /// A peer was heard elsewhere than this worker sends.
  mutating func reportMove(_ peer: Int, _ turn: Turn, _ handOffs: inout HandOffs) {
    let state = turn.tables.peers[peer].state
    guard let path = state.value.takeHeardBy() else { return }
    guard path != known[peer].path else {
      state.value.lastHeardHere = turn.now
      return
    }
    // Again with the next tick, if it is so still.
    guard reportedMoves.insert(peer).inserted else { return }
    _ = handOffs.post(
      .heard(peer: Int32(truncatingIfNeeded: peer), at: path, version: turn.tables.peerListVersion), to: 0)
  }

  // MARK: Activity

  /// Tells worker 0 which peers were sent to, or heard, within `interval` nanoseconds.
  mutating func reportActivity(within interval: UInt64, _ turn: Turn, _ handOffs: inout HandOffs) {
    reportedMoves.removeAll(keepingCapacity: true)
    let (tables, now) = (turn.tables, turn.now)
    var next = tables.busy.first(from: 0)
    while let peer = next {
      next = tables.busy.first(from: peer + 1)
      let state = tables.peers[peer].state
      let isFresh =
        now.nanoseconds(since: state.value.lastSent) < interval
        || state.value.lastHeard.map { now.nanoseconds(since: $0) < interval } ?? false
      guard isFresh else {
        if !PathKeeper.isActive(state, now: now) { tables.busy.remove(peer) }
        continue
      }
      let activity = PeerActivity(
        peer: Int32(truncatingIfNeeded: peer), lastSent: state.value.lastSent, lastHeard: state.value.lastHeard,
        lastHeardHere: state.value.lastHeardHere, path: known[peer].path)
      guard handOffs.post(.activity(activity, version: tables.peerListVersion), to: 0) else { return }
    }
  }

  func take(_ activity: PeerActivity, _ tables: Snapshot) {
    guard activity.peer < tables.peers.count else { return }
    let state = tables.peers[Int(activity.peer)].state
    state.value.lastSent = max(state.value.lastSent, activity.lastSent)
    tables.busy.insert(Int(activity.peer))
    if let heard = activity.lastHeard { state.value.lastHeard = max(state.value.lastHeard ?? heard, heard) }
    if activity.path == state.value.path {
      state.value.lastHeardHere = max(state.value.lastHeardHere, activity.lastHeardHere)
    }
  }

  // MARK: Associations

  /// Asks active peers whether they have this worker's own association, some of them with each tick.
  mutating func checkAssociations(_ datapath: inout Datapath, _ facts: any PathFacts) {
    guard isShared else { return }
    var questions = 0
    var next = datapath.tables.busy.first(from: 0)
    while let peer = next, questions < PathKeeper.trainsAtOnce {
      next = datapath.tables.busy.first(from: peer + 1)
      let entry = datapath.tables.peers[peer]
      guard (worker == 0 ? entry.own : entry.outbound) != nil,
        PathKeeper.isActive(entry.state, now: datapath.now)
      else { continue }
      let path = worker == 0 ? entry.state.value.path : known[peer].path
      guard let path, facts.carries(path), checks[peer].poll(isActive: true, now: datapath.now) else { continue }
      datapath.send(
        ControlMessage.Kind.association, [UInt8(truncatingIfNeeded: worker)], to: peer, along: path, underOwn: true)
      questions += 1
      follow(peer, datapath.tables, facts)
    }
  }

  /// The peer has answered under this worker's own association.
  mutating func takeAnswer(from peer: Int, _ tables: Snapshot, _ facts: any PathFacts) {
    guard checks.indices.contains(peer) else { return }
    checks[peer].answer()
    follow(peer, tables, facts)
  }

  // MARK: Another configuration

  /// Begins with nothing known.
  mutating func forget(_ tables: Snapshot, _ facts: any PathFacts) {
    guard isShared else { return }
    checks = Array(repeating: AssociationCheck(), count: tables.peers.count)
    known = (0..<tables.peers.count).map { unknown($0) }
    tellAll(tables)
    for peer in 0..<tables.peers.count { follow(peer, tables, facts) }
  }

  /// Of another peer in a row nothing is known; under another association, a peer has to answer anew.
  mutating func take(_ change: Transition, _ tables: Snapshot, _ facts: any PathFacts) {
    guard isShared else { return }
    while checks.count < tables.peers.count {
      known.append(unknown(checks.count))
      checks.append(AssociationCheck())
    }
    for row in change.rows {
      if row.isOtherPeer { known[row.row] = unknown(row.row) }
      if row.isOtherPeer || row.hasOtherOwn { checks[row.row] = AssociationCheck() }
      follow(row.row, tables, facts)
    }
    // With another list of peers, what is under way may be lost: worker 0 tells the others everything again.
    if worker == 0, change.rows.contains(where: \.isOtherPeer) {
      for peer in known.indices { known[peer] = unknown(peer) }
      tellAll(tables)
    }
  }

  private mutating func tellAll(_ tables: Snapshot) {
    untold = RowSet(capacity: tables.peers.count)
    for peer in 0..<tables.peers.count { untold.insert(peer) }
  }

  private func unknown(_ peer: Int) -> PathUpdate {
    PathUpdate(
      peer: Int32(truncatingIfNeeded: peer), path: nil,
      sealedLimit: worker == 0 ? -1 : Int32(SealedTrain.bytes), trialLimit: Int32(clamping: SealedTrain.bytes))
  }
}
