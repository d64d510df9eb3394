package import PacketIO

/// The body of a worker: tables, both pipelines, the paths to peers, what workers hand to each other, and the timers of
/// all that. It knows no kernel, no thread, no clock and no descriptor: who drives it gives it packets, facts and the
/// time, and takes from it what it has made.
///
/// - In: `read` what came from the device, `receive` what transports received, `takeHandOffs` what other workers have
///   handed over, `opened` and `failed` what transports say of a path, `take` a change of the tables, `send` a message, `work`
///   when time has passed.
/// - Out, after each of these: `deliveries` and `replies` for the device, `outputs` for transports and embedder,
///   `takeWorkersToWake`, and `deadline`. Calls that return true have more to do as soon as that was taken.
///
/// Of several workers, number 0 looks after the paths to peers and talks with them; each seals under its own
/// associations and remembers the flows it owns.
package struct Node: ~Copyable {
  /// How a node is made.
  package struct Options {
    /// Nanoseconds after which a path is asked again whether it takes larger packets.
    package var pathMTURaiseInterval = PathMTU.raiseInterval
    package var offloads: TunOffloads = []

    package init() {}
  }

  /// Superpackets of a batch.
  package static let batchCapacity = 64
  /// Runs of sealed packets that a received train can fall into at most.
  package static let receivedCapacity = batchCapacity + 128
  /// Packets that are opened before they are written to the device.
  package static let inboundCapacity = 1024
  /// Nanoseconds between two looks at the timers.
  package static let tickInterval: UInt64 = 100_000_000

  package internal(set) var datapath: Datapath
  let facts: any PathFacts
  var handOffs: HandOffs
  var intake = HandOffIntake(capacity: batchCapacity)
  var sharing: PathSharing
  var paths: PathKeeper
  /// Messages of address negotiation since the last tick, by peer.
  private(set) var negotiation = Shares(.negotiation, capacity: 64, most: 2)
  /// What was told of peers' numbers since the last tick.
  private(set) var refusals = Shares(.refusals, capacity: 64, most: 1)
  /// What was received and is this worker's to open.
  private var mine = PacketBatch(capacity: receivedCapacity)
  /// Where in a received train the search for whose it is goes on.
  private var sorted = 0
  private var nextTick: MonotonicTime
  /// A look at the timers is under way.
  private var isTicking = false

  /// - Parameters:
  ///   - pool: where all packets lie; a buffer of it is the node's from now on. Nil: it has none.
  ///   - queues: to and from the other workers, of which there are `tables.workers`; nil: there is one.
  package init?(
    _ tables: Snapshot, pool: BufferPool, facts: any PathFacts, queues: HandOffQueues? = nil,
    options: Options = Options(), now: MonotonicTime, using random: inout some RandomNumberGenerator
  ) {
    guard let scratch = pool.take() else { return nil }
    datapath = Datapath(
      Turn(tables: tables, pool: pool, now: now), capacity: Node.inboundCapacity, batch: Node.batchCapacity,
      offloads: options.offloads, scratch: scratch, random: &random)
    self.facts = facts
    let worker = tables.worker
    handOffs = HandOffs(worker: worker, of: tables.workers, queues: queues)
    sharing = PathSharing(worker: worker, of: tables.workers)
    paths = PathKeeper(raiseInterval: options.pathMTURaiseInterval, using: &random)
    nextTick = now.adding(nanoseconds: Node.tickInterval)
    for row in 0..<tables.peers.count where tables.record(row) != nil { tables.busy.insert(row) }
    adoptFirewall()
    sharing.forget(tables, facts)
    if worker == 0 { paths.begin(datapath.turn, facts) }
  }

  package var tables: Snapshot { datapath.tables }
  package var worker: Int { datapath.worker }
  package var pool: BufferPool { datapath.pool }

  /// The time; set it before a call when it has passed.
  package var now: MonotonicTime {
    get { datapath.now }
    set { datapath.now = newValue }
  }

  /// When `work` has something to do though nothing comes.
  package var deadline: MonotonicTime { nextTick }

  // MARK: What was made

  /// For the device: packets that came from peers. A slice's reference passes to whoever takes it.
  package var deliveries: Coalescer {
    _read { yield datapath.inbound.coalescer }
    _modify { yield &datapath.inbound.coalescer }
  }

  /// For the device: what senders inside have to be told.
  package var replies: PacketBatch {
    _read { yield datapath.outputs.packets.replies }
    _modify { yield &datapath.outputs.packets.replies }
  }

  /// For transports and embedder.
  package var outputs: NodeOutputs {
    _read { yield datapath.outputs }
    _modify { yield &datapath.outputs }
  }

  /// Workers that have to be woken, because something waits for them in a queue.
  package mutating func takeWorkersToWake() -> [Int] { handOffs.takeUntold() }

  /// Hand-offs wait that were not taken yet.
  package var hasMoreHandOffs: Bool { intake.hasMore }

  /// Who holds how much of what peers share here.
  package var shares: [ShareReport] {
    datapath.shares + [negotiation.report(), refusals.report(), paths.moves.report()] + handOffs.shares()
  }

  /// Packets and control messages that were given to other workers.
  package var handedOver: UInt64 { handOffs.posted }

  /// At the end of each call.
  mutating func finish() {
    for peer in paths.takeChanged() { sharing.share(peer, tables, &handOffs) }
    datapath.finish()
  }

  // MARK: From the device

  /// Takes a batch from the device, and empties it.
  package mutating func read(_ batch: inout PacketBatch) {
    guard !batch.isEmpty else { return }
    if handOffs.steering != nil { steer(&batch) }
    datapath.seal(&batch)
    handJudged()
    finish()
  }

  /// Takes packets of flows that other workers own out of what was read.
  private mutating func steer(_ batch: inout PacketBatch) {
    guard let steering = handOffs.steering else { return }
    var kept = 0
    for index in 0..<batch.count {
      let superpacket = batch[index]
      let bytes = superpacket.bytes(in: pool)
      if let packet = InnerPacket(bytes), case let owner = steering.owner(packet, bytes), owner != worker {
        if !handOffs.post(.outbound(superpacket), bytes, of: tables.receiver(of: bytes), to: owner) {
          datapath.outbound.refuse(superpacket, bytes, .handOverFull)
        }
        pool.release(superpacket.buffer)
      } else {
        batch[kept] = superpacket
        kept += 1
      }
    }
    while batch.count > kept { _ = batch.popLast() }
  }

  /// Gives worker 0 what it is to seal.
  mutating func handJudged() {
    for index in 0..<datapath.outputs.packets.judged.count {
      let superpacket = datapath.outputs.packets.judged[index]
      let bytes = superpacket.bytes(in: pool)
      if !handOffs.post(.judged(superpacket), bytes, of: tables.receiver(of: bytes), to: 0) {
        datapath.outbound.refuse(superpacket, bytes, .handOverFull)
      }
      pool.release(superpacket.buffer)
    }
    datapath.outputs.packets.judged.removeAll()
  }

  // MARK: From transports

  /// Takes trains that were received. True: there is more in the batch, or of it, when the deliveries were taken.
  package mutating func receive(_ batch: inout PacketBatch) -> Bool {
    guard !batch.isEmpty || !mine.isEmpty else { return false }
    defer { finish() }
    guard handOffs.workers > 1 else {
      datapath.open(&batch)
      followOpening()
      return !batch.isEmpty
    }
    if mine.isEmpty { sort(&batch) }
    if !mine.isEmpty {
      datapath.open(&mine)
      followOpening()
    }
    return !batch.isEmpty || !mine.isEmpty
  }

  /// Sorts sealed packets: runs of those whose association is here go to `mine`, until that is full. Receive offload
  /// may have made one train of several workers' packets, and a stream carries them all.
  private mutating func sort(_ batch: inout PacketBatch) {
    var index = 0
    while index < batch.count, !mine.isFull {
      let train = batch[index]
      let bytes = train.bytes(in: pool)
      var segments = train.segments(from: sorted)
      var segment = segments.next()
      while let first = segment, !mine.isFull {
        let holder = handOffs.holder(of: bytes, at: first.start)
        var last = first
        segment = segments.next()
        while let next = segment, handOffs.holder(of: bytes, at: next.start) == holder {
          last = next
          segment = segments.next()
        }
        hand(train, from: first, to: last, bytes, holder)
      }
      sorted = segment?.start ?? bytes.count
      guard sorted >= bytes.count else { break }
      sorted = 0
      pool.release(train.buffer)
      index += 1
    }
    // What is left comes first the next time.
    for place in index..<batch.count { batch[place - index] = batch[place] }
    for _ in 0..<index { _ = batch.popLast() }
  }

  /// Keeps a run of datagrams of a train, or hands it off.
  private mutating func hand(
    _ train: Superpacket, from first: Segment, to last: Segment, _ bytes: PacketBytes, _ holder: Int
  ) {
    var run = train
    run.offset += Int32(truncatingIfNeeded: first.start)
    run.length = Int32(truncatingIfNeeded: last.start + last.length - first.start)
    if holder == worker {
      pool.retain(train.buffer)
      mine.append(run)
    } else if !handOffs.post(.sealed(run), run.bytes(in: pool), of: run.sender, to: holder) {
      datapath.inbound.refuse(packets: run.datagrams, bytes: Int(run.length), .handOverFull)
    }
  }

  /// Does what the packets ask for that were opened.
  mutating func followOpening() {
    handOpened()
    for peer in datapath.inbound.takeMoved(tables) {
      if worker == 0 {
        paths.followMove(peer, &datapath, facts)
      } else {
        sharing.reportMove(peer, datapath.turn, &handOffs)
      }
    }
    if !datapath.inbound.numbers.findings.isEmpty { reportDisagreements() }
    takeControls()
  }

  /// Numbers of peers went back, or were found again: the embedder is told, and the peer, who can go on above.
  private mutating func reportDisagreements() {
    for index in 0..<datapath.inbound.numbers.findings.count {
      let found = datapath.inbound.numbers.findings[index]
      let row = Int(found.row)
      // Whoever sends old packets again makes nobody talk more.
      guard refusals.take(for: Holder(row: found.row)) else { continue }
      if found.isNews {
        datapath.outputs.events.append(
          .sequenceNumbersDisagree(peer: tables.configuration.peers[row].name, spi: found.spi, found.what))
      }
      let highest = tables.association(found.spi)?.state.value.window.highest
      guard found.what == .peerWentBack, let highest else { continue }
      datapath.send(
        ControlMessage.Kind.refusal, RefusalMessage(spi: found.spi, highest: highest).bytes, to: row,
        underOwn: worker > 0)
    }
    datapath.inbound.numbers.findings.removeAll()
  }

  /// A peer says that it refuses what this side sends under one of its associations.
  private mutating func take(_ refusal: RefusalMessage, _ message: ControlArrival, _ body: PacketBytes) {
    let peer = Int(message.peer)
    let associations = [tables.peers[peer].outbound, tables.peers[peer].own].compactMap(\.self)
    guard let association = associations.first(where: { $0.value.spi == refusal.spi }) else {
      guard worker == 0 else { return }
      for other in 1..<max(handOffs.workers, 1) {
        _ = handOffs.post(.control(message, version: tables.peerListVersion), body, to: other)
      }
      return
    }
    guard association.value.skip(to: refusal.highest) else { return }
    let name = tables.configuration.peers[peer].name
    datapath.outputs.events.append(.sequenceNumbersDisagree(peer: name, spi: refusal.spi, .peerRefusesOurs))
  }

  /// Gives opened packets to the owners of their flows.
  private mutating func handOpened() {
    for index in 0..<datapath.inbound.foreign.count {
      let packet = datapath.inbound.foreign[index]
      let bytes = pool.bytes(packet.buffer).slice(Int(packet.offset), Int(packet.length))
      let handOff = HandOff.opened(peer: packet.peer, version: tables.peerListVersion)
      let (holder, owner) = (Holder(row: packet.peer), Int(packet.owner))
      if !handOffs.post(handOff, bytes, of: holder, to: owner) { datapath.inbound.counters.drop(.handOverFull) }
      pool.release(packet.buffer)
    }
    datapath.inbound.foreign.removeAll()
  }

  /// A transport says that a path has opened, and the other side cannot know yet who is there.
  package mutating func opened(_ path: Path) {
    // Of several workers, the one that looks after the paths has the transports to which this happens.
    guard worker == 0 else { return }
    paths.introduce(at: path, &datapath, facts)
    finish()
  }

  /// A transport says that a path fails; `error` is a positive errno.
  ///
  /// - Parameter count: how often since it last said so.
  package mutating func failed(_ path: Path, error: Int32, count: Int = 1) {
    if datapath.outputs.failures.note(path, error: error, count: count, now: now) {
      datapath.outputs.events.append(.failure(on: path, error, tables))
    }
    if worker == 0 { paths.fail(path, datapath.turn) } else { _ = handOffs.post(.failed(path), to: 0) }
  }

  /// A transport says that packets of more than `size` bytes, outer headers included, are refused on a path: by this
  /// machine's own link, or by a router that has quoted a packet.
  package mutating func refused(_ path: Path, over size: Int, quote: QuotedPacket?) {
    if worker == 0 {
      paths.refuse(over: size, at: path, quote, datapath.turn)
    } else {
      _ = handOffs.post(.refused(path, over: Int32(clamping: size), quote: quote), to: 0)
    }
    finish()
  }

  // MARK: Control messages

  private mutating func takeControls() {
    for index in 0..<datapath.inbound.controls.count {
      let arrival = datapath.inbound.controls[index]
      let body = pool.bytes(arrival.buffer).slice(Int(arrival.offset), Int(arrival.length))
      if worker == 0 {
        take(arrival, body)
      } else {
        // May be lost, like any packet.
        _ = handOffs.post(.control(arrival, version: tables.peerListVersion), body, to: 0)
      }
      pool.release(arrival.buffer)
    }
    datapath.inbound.controls.removeAll()
  }

  mutating func take(_ message: ControlArrival, _ body: PacketBytes) {
    let peer = Int(message.peer)
    switch message.type {
    case ControlMessage.Kind.probe:
      guard let probe = ProbeMessage(body) else { return }
      paths.take(probe, from: peer, path: message.path, isNewest: message.isNewest, &datapath, facts)
    case ControlMessage.Kind.probeReply:
      guard let reply = ProbeReply(body) else { return }
      paths.take(reply, from: peer, isNewest: message.isNewest, &datapath, facts)
    case ControlMessage.Kind.association where body.count == 1:
      datapath.send(ControlMessage.Kind.associationReply, body.array(), to: peer, along: message.path)
    case ControlMessage.Kind.associationReply where body.count == 1:
      passAnswer(to: Int(body[0]), from: peer)
    case ControlMessage.Kind.refusal:
      guard let refusal = RefusalMessage(body) else { return }
      take(refusal, message, body)
    case ControlMessage.Kind.addresses:
      // The newest says all that those before it did; who sends too many is heard less often.
      guard negotiation.take(for: Holder(row: message.peer)) else { return }
      let name = tables.configuration.peers[peer].name
      datapath.outputs.notices.append(.message(peer: name, type: message.type, body: body.array()))
    default:
      // Of a version to come.
      break
    }
  }

  /// Gives a peer's answer to the worker that has asked.
  private mutating func passAnswer(to asker: Int, from peer: Int) {
    guard handOffs.workers > 1, asker < handOffs.workers else { return }
    guard asker != 0 else { return sharing.takeAnswer(from: peer, tables, facts) }
    let row = Int32(truncatingIfNeeded: peer)
    _ = handOffs.post(.answered(peer: row, version: tables.peerListVersion), to: asker)
  }

  /// Sends the peer of a row a message that those who negotiate have written; with worker 0. May be lost, like any
  /// packet.
  package mutating func send(_ type: UInt8, _ body: [UInt8], to peer: Int) {
    datapath.send(type, body, to: peer)
    finish()
  }

  /// Whoever agrees upon keys with the peer of a row has found it there; with worker 0.
  package mutating func follow(_ path: Path, _ row: Int) {
    paths.find(row, at: path, &datapath, facts)
    finish()
  }

  /// The peer of a row says that it is at a path; with worker 0.
  package mutating func consider(_ path: Path, credit: Int, _ row: Int) {
    paths.consider(row, at: path, credit: credit, &datapath, facts)
    finish()
  }

  /// Shows all peers that keys are agreed upon with where this side is, a few at a time; with worker 0.
  package mutating func announce() { paths.announceAll(tables) }

  // MARK: Time

  /// Does what is due. True: there is more, when the outputs were taken.
  package mutating func work() -> Bool {
    if !isTicking, now >= nextTick { beginTick() }
    defer { finish() }
    if worker == 0, paths.work(&datapath, facts) { return true }
    if isTicking { endTick() }
    datapath.reportFirewall()
    return false
  }

  private mutating func beginTick() {
    nextTick = now.adding(nanoseconds: Node.tickInterval)
    datapath.sweep()
    negotiation.removeAll()
    refusals.removeAll()
    paths.moves.removeAll()
    for (path, untold) in datapath.outputs.failures.takeRecovered(now: now) {
      datapath.outputs.events.append(.recovery(of: path, untold: untold, tables))
    }
    sharing.checkAssociations(&datapath, facts)
    if worker == 0 {
      paths.beginTick()
    } else {
      sharing.reportActivity(within: 2 * Node.tickInterval, datapath.turn, &handOffs)
    }
    isTicking = true
  }

  private mutating func endTick() {
    isTicking = false
    guard worker == 0 else { return }
    sharing.shareRest(tables, &handOffs)
    datapath.keepAlive()
  }

  // MARK: Tables

  /// Puts a change of the tables in force. What was handed over before is to have been taken.
  package mutating func take(_ change: Transition) {
    datapath.take(change)
    handJudged()
    adoptFirewall()
    sharing.take(change, tables, facts)
    if worker == 0 {
      paths.take(change, datapath.turn, facts)
      for row in change.rows { sharing.share(row.row, tables, &handOffs) }
      if !change.isAgreement { datapath.outputs.events.append(.configurationApplied(peers: tables.peerCount)) }
    }
    finish()
  }

  private mutating func adoptFirewall() {
    datapath.adoptFirewall()
    // Without a firewall there is nothing that a flow's packets would have to meet in one place.
    handOffs.steer(tables.firewall.isActive)
    datapath.inbound.steering = handOffs.steering
  }

  // MARK: Questions

  /// Begins to capture. False when a capture is under way, or no buffer is free.
  package mutating func begin(_ capture: PacketCapture) -> Bool { datapath.begin(capture) }

  /// Ends a capture, if it is the one under way; nil: whichever is.
  package mutating func end(_ capture: PacketCapture?) { datapath.endCapture(capture) }

  /// What would become of a packet.
  package mutating func explain(_ packet: [UInt8]) -> Explanation { datapath.explain(packet) }

  /// The worker that owns the flow of a packet which somebody wants to have explained; nil: this one.
  package func owner(of packet: [UInt8]) -> Int? {
    guard let steering = handOffs.steering, packet.count <= 0xFFFF, let buffer = pool.take() else { return nil }
    defer { pool.release(buffer) }
    let bytes = pool.bytes(buffer).slice(BufferPool.headroom, packet.count)
    bytes.copy(packet, to: 0)
    guard let parsed = InnerPacket(bytes), !parsed.isFragment else { return nil }
    let owner = steering.owner(parsed, bytes)
    return owner == worker ? nil : owner
  }
}
