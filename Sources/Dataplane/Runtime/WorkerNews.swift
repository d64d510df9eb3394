import PacketIO

/// What workers tell each other of peers: worker 0 where their paths lead, the others when they were heard. And how
/// each finds out whether a peer has its own association.
extension WorkerLoop {
  // MARK: Paths, as worker 0 has them

  /// Tells the others of all paths that are not as they were.
  mutating func sharePaths() {
    guard exchange != nil, number == 0 else { return }
    var list: [PathUpdate] = []
    for peer in 0..<tables.peers.count {
      if let fresh = freshNews(peer) { list.append(fresh) }
    }
    tell(list)
  }

  mutating func sharePath(_ peer: Int) {
    guard exchange != nil, number == 0, let fresh = freshNews(peer) else { return }
    tell([fresh])
  }

  private mutating func freshNews(_ peer: Int) -> PathUpdate? {
    let state = tables.peers[peer].state
    let limit = state.value.mtu.map { $0.current - state.value.overhead } ?? OutboundPipeline.trainBytes
    let fresh = PathUpdate(
      peer: peer, path: state.value.path, sealedLimit: limit, takesAggregates: state.value.takesAggregates)
    guard news[peer] != fresh else { return nil }
    news[peer] = fresh
    return fresh
  }

  private func tell(_ list: [PathUpdate]) {
    guard !list.isEmpty, let exchange else { return }
    for worker in 1..<workers { _ = exchange.workers[worker].post(.paths(list, tables.peerListVersion)) }
  }

  // MARK: Paths, as the others have them

  mutating func takeNews(_ list: [PathUpdate]) {
    for fresh in list where news.indices.contains(fresh.peer) {
      news[fresh.peer] = fresh
      followNews(fresh.peer)
    }
  }

  /// A peer has a path here only while this worker can seal for it and send there itself.
  private func followNews(_ peer: Int) {
    let state = tables.peers[peer].state
    guard number > 0 else {
      state.value.usesOwnAssociation = checks[peer].isLive
      return
    }
    state.value.sealedLimit = news[peer].sealedLimit
    state.value.takesAggregates = news[peer].takesAggregates
    let path = news[peer].path.flatMap { links[Int($0.transport)] is AbsentLink ? nil : $0 }
    state.value.path = checks[peer].isLive ? path : nil
  }

  /// A peer was heard elsewhere than this worker sends.
  mutating func reportMove(_ peer: Int) {
    let state = tables.peers[peer].state
    guard let path = state.value.heardBy else { return }
    state.value.heardBy = nil
    guard path != news[peer].path else {
      state.value.lastHeardHere = io.now
      return
    }
    // Again with the next tick, if it is so still.
    guard reportedMoves.insert(peer).inserted else { return }
    _ = exchange?.workers[0].post(.heard(peer, path, tables.peerListVersion))
  }

  /// With worker 0: another one has heard a peer, authentically, at another place than it knows.
  mutating func takeMove(_ peer: Int, _ path: Path) {
    guard peer < tables.peers.count else { return }
    let state = tables.peers[peer].state
    guard state.value.path != path else { return }
    if state.value.selection == nil { state.value.path = path } else { state.value.heardBy = path }
    followMove(peer)
  }

  // MARK: Activity

  /// Tells worker 0 which peers were sent to, or heard, since the last tick.
  mutating func reportActivity() {
    reportedMoves.removeAll(keepingCapacity: true)
    let interval = WorkerLoop.tickInterval * 2
    var list: [PeerActivity] = []
    for peer in 0..<tables.peers.count {
      let state = tables.peers[peer].state
      let isFresh =
        io.now.nanoseconds(since: state.value.lastSent) < interval
        || state.value.lastHeard.map { io.now.nanoseconds(since: $0) < interval } ?? false
      guard isFresh else { continue }
      list.append(
        PeerActivity(
          peer: peer, lastSent: state.value.lastSent, lastHeard: state.value.lastHeard,
          lastHeardHere: state.value.lastHeardHere, path: news[peer].path))
    }
    if !list.isEmpty { _ = exchange?.workers[0].post(.activity(list, tables.peerListVersion)) }
  }

  func takeActivity(_ list: [PeerActivity]) {
    for activity in list where activity.peer < tables.peers.count {
      let state = tables.peers[activity.peer].state
      state.value.lastSent = max(state.value.lastSent, activity.lastSent)
      if let heard = activity.lastHeard { state.value.lastHeard = max(state.value.lastHeard ?? heard, heard) }
      if activity.path == state.value.path {
        state.value.lastHeardHere = max(state.value.lastHeardHere, activity.lastHeardHere)
      }
    }
  }

  // MARK: Associations

  /// Asks active peers whether they have this worker's own association, some of them with each tick.
  mutating func checkAssociations() {
    var questions = 0
    for peer in checks.indices where questions < WorkerLoop.batchCapacity / 2 {
      let entry = tables.peers[peer]
      guard (number == 0 ? entry.own : entry.outbound) != nil, isActive(peer) else { continue }
      let path = number == 0 ? entry.state.value.path : news[peer].path
      guard let path, !(links[Int(path.transport)] is AbsentLink),
        checks[peer].poll(isActive: true, now: io.now)
      else { continue }
      _ = send(ControlMessage.Kind.association, [UInt8(number)], to: peer, along: path, underOwn: true)
      questions += 1
      followNews(peer)
    }
    sendTrains()
  }

  /// With worker 0: gives a peer's answer to the worker that has asked.
  mutating func passAnswer(to worker: Int, from peer: Int) {
    guard exchange != nil, worker < workers else { return }
    guard worker != 0 else { return takeAnswer(from: peer) }
    let nothing = Superpacket(buffer: 0, offset: 0, length: 0, segmentSize: 1)
    _ = post(WorkerExchange.Kind.answer, nothing, to: worker, peer: Int32(peer))
  }

  mutating func takeAnswer(from peer: Int) {
    guard checks.indices.contains(peer) else { return }
    checks[peer].answer()
    followNews(peer)
  }

  // MARK: Another configuration

  /// Begins with nothing known.
  mutating func forgetNews() {
    guard exchange != nil else { return }
    checks = Array(repeating: AssociationCheck(), count: tables.peers.count)
    news = (0..<tables.peers.count).map {
      PathUpdate(peer: $0, path: nil, sealedLimit: number == 0 ? -1 : OutboundPipeline.trainBytes)
    }
    for peer in 0..<tables.peers.count { followNews(peer) }
  }

  /// What is known of a peer goes with it to its new row; under another association, it has to answer anew.
  mutating func keepNews(_ before: Snapshot) {
    var known: [String: Int] = [:]
    for (row, peer) in before.configuration.peers.enumerated() { known[peer.name] = row }
    let (oldChecks, oldNews) = (checks, news)
    forgetNews()
    for (row, peer) in tables.configuration.peers.enumerated() {
      guard let old = known[peer.name] else { continue }
      if number > 0 {
        news[row] = oldNews[old]
        news[row].peer = row
      }
      let ours = (before.configuration.peers[old].workerOutbound, peer.workerOutbound)
      let isSame = ours.0.count == ours.1.count && zip(ours.0, ours.1).allSatisfy { $0.isSameAssociation(as: $1) }
      if isSame { checks[row] = oldChecks[old] }
      followNews(row)
    }
  }

  // MARK: Explanations

  /// The worker that owns the flow of a packet which somebody wants to have explained; nil: this one.
  func ownerElsewhere(_ packet: [UInt8]) -> Worker? {
    guard let steering, packet.count <= 0xFFFF, let buffer = io.pool.take() else { return nil }
    defer { io.pool.release(buffer) }
    let bytes = io.pool.bytes(buffer).slice(BufferPool.headroom, packet.count)
    bytes.copy(packet, to: 0)
    guard let parsed = InnerPacket(bytes), !parsed.isFragment else { return nil }
    let owner = steering.owner(parsed, bytes)
    return owner == number ? nil : exchange?.workers[owner]
  }
}

/// Stands for a transport that worker 0 alone has.
final class AbsentLink: TransportLink {
  func send(_ batch: inout PacketBatch, io: inout WorkerIO) {
    // No path leads here: see `followNews`.
    for index in 0..<batch.count { io.pool.release(batch[index].buffer) }
    batch.removeAll()
  }
  func complete(
    _ completion: Completion, io: inout WorkerIO, received: inout PacketBatch, messages: inout PacketBatch
  ) {}
  func endTurn(io: inout WorkerIO) {}
  func overhead(_ path: Path) -> Int? { nil }
  func keepAlive(_ path: Path, io: inout WorkerIO) {}
  func counters() -> [TransportCounter] { [] }
  func close(io: inout WorkerIO) {}
}
