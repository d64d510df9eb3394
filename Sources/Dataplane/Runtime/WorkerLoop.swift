import Glibc
import PacketIO

/// What a worker thread does, and all that it owns: ring and buffers, one TUN queue, one link of each transport, both
/// pipelines. Nobody else touches any of it.
///
/// Of several workers, number 0 looks after the paths to peers and talks with them, and has the transports that only
/// one can have; each seals under its own associations and remembers the flows it owns. See `WorkerHandOver.swift`.
///
/// A turn:
/// 1. `wait`: hand over what was submitted, wait for completions.
/// 2. `collect`: completions become batches; a batch that is full is run at once.
/// 3. `runOutbound`: TUN batch → trains → transports.
/// 4. `runInbound`: received batch → deliveries → TUN.
/// 5. `endTurn`: re-arm receives, timers, requests from other threads.
struct WorkerLoop: ~Copyable {
  static let owner: UInt8 = 0
  /// Of the worker's own completions: a read of the waker, word of letters, and what became of such a word.
  enum OwnKind: UInt8 { case wake, notice, noticeSent }

  /// Superpackets of a batch.
  static let batchCapacity = 64
  /// Letters of one other worker that are taken in a turn.
  static let lettersPerTurn = 512
  /// Bytes behind an opened packet that was handed over, for a name in it that becomes longer.
  static let openedTail = 32
  /// Runs of sealed packets that a received train can fall into at most.
  private static let receivedCapacity = batchCapacity + 128
  /// Packets that are opened before they are written to the TUN device.
  private static let inboundCapacity = 1024
  private static let ringEntries: UInt32 = 256
  /// Bytes of a turn that others may run after, before the worker looks again: so batches are fuller.
  private static let heavyTurn = 60_000
  /// Nanoseconds between two looks at the peers' timers.
  static let tickInterval: UInt64 = 100_000_000
  /// What a transport can send at once; whoever is left over has its turn at the next tick.
  private static let keepAlivesPerTick = 128
  /// A peer is active when something was sent to it within this time.
  static let activityInterval: UInt64 = 1_000_000_000
  /// Peers whose paths are looked at in a tick, of those that traffic goes to and of the others; whoever is left over
  /// has its turn at the next one.
  private static let activePerTick = 256
  private static let idlePerTick = 64

  let number: Int
  /// 1, 2, 4, 8 or 16.
  let workers: Int
  /// Nil where there is one worker.
  let exchange: WorkerExchange?
  let events: EventChannel
  let addresses: AddressInbox
  /// Nil while nobody captures.
  var tap: StateCell<CaptureTap>?
  var io: WorkerIO
  var tables: Snapshot
  private let device: TunDevice
  let queue: TunQueue
  var links: [any TransportLink]
  /// By owner number, whose completions they are; see `WorkerMessages.swift`.
  private let owners: LinkOwners
  var messages: MessageIntake
  var outbound: OutboundPipeline
  var inbound: InboundPipeline
  private let firewall: StateCell<Firewall>
  var tunBatch: PacketBatch
  var received: PacketBatch
  var trains: PacketBatch
  private var trainsOfOne: PacketBatch
  private let wakeDescriptor: Int32
  private let wakeBuffer = StateCell<UInt64>(0)
  private var nextTick: MonotonicTime
  let pathMTURaiseInterval: UInt64
  /// Of two gateways, the one with the higher number leads in the choice of paths.
  let tieBreaker: UInt64
  /// Whose paths the next tick looks at.
  private var activeRound = RoundRobin()
  private var idleRound = RoundRobin()
  /// Numbers probes; a number is never used again.
  var nextProbe: UInt64 = 0
  /// Completions put off by `collectWrites`, and the first of them that was not taken yet.
  private var deferred: [Completion] = []
  private var nextDeferred = 0
  private var deviceFailed = false
  /// Bytes that came in this turn.
  private var moved = 0

  // With several workers; see `WorkerHandOver.swift` and `WorkerNews.swift`.
  /// Nil while nothing depends on who has a flow's packets.
  var steering: FlowSteering?
  private let fragmentOwners = StateCell(FragmentOwners())
  /// What is left of `received` when others have got theirs.
  var mine: PacketBatch
  /// Packets that others handed to this worker.
  var handed: PacketBatch
  var lastLetterKind = WorkerExchange.Kind.outbound
  var hasMoreLetters = false
  /// Where opened packets that others handed over are collected, and how full it is.
  var openedBuffer: BufferID?
  var openedEnd = 0
  /// Workers, by bits, that do not know of their letters yet.
  var unannounced = 0
  /// Letters that were posted.
  var handedOver: UInt64 = 0
  /// By peer: whether it has this worker's own association.
  var checks: [AssociationCheck] = []
  /// By peer: with worker 0 what the others were told, with them what they know.
  var news: [PathUpdate] = []
  /// Peers of which worker 0 has been told since the last tick that they were heard elsewhere.
  var reportedMoves: Set<Int> = []
  private var sequences = SequenceMemory()
  private var reportRequests: [CheckedContinuation<WorkerReport?, Never>] = []
  private var stopRequests: [CheckedContinuation<WorkerReport?, Never>?] = []

  /// Opens sockets on the calling thread, whose network namespace they belong to.
  init(
    device: TunDevice, transports: [any Transport], tables: Snapshot, events: EventChannel, messages: MessageChannel,
    addresses: AddressInbox, wakeDescriptor: Int32, exchange: WorkerExchange?, options: Dataplane.Options
  ) throws {
    let number = tables.worker
    // What can fail comes first: a noncopyable value is initialised whole or not at all.
    let pool = BufferPool(count: options.buffers)
    var io = WorkerIO(
      ring: try Ring(entries: WorkerLoop.ringEntries, allowed: options.ringFeatures), pool: pool, now: .current())
    guard let scratch = pool.take() else {
      throw SystemError("take a packet buffer", errno: ENOBUFS, remedy: "give the worker more buffers")
    }
    let queue = TunQueue(
      device.queues[number], capacity: WorkerLoop.inboundCapacity, readBuffers: options.readBuffers, io: &io)
    var links: [any TransportLink] = []
    var owners = LinkOwners()
    do {
      for (index, transport) in transports.enumerated() {
        let first = io.nextOwner
        let link =
          exchange == nil
          ? try transport.open(worker: 0, index: UInt8(index), io: &io)
          : try transport.open(worker: number, of: tables.workers, index: UInt8(index), io: &io)
        links.append(link ?? AbsentLink())
        owners.append(link: index, from: first, to: io.nextOwner)
      }
    } catch {
      // The ring is torn down in the background: what it still held would outlive this.
      for link in links { link.close(io: &io) }
      queue.close(io: &io)
      throw error
    }

    outbound = OutboundPipeline(scratch: pool.bytes(scratch), batchCapacity: WorkerLoop.batchCapacity)
    inbound = InboundPipeline(capacity: WorkerLoop.inboundCapacity, offloads: device.offloads)
    var random = SystemRandomNumberGenerator()
    firewall = StateCell(Firewall(using: &random, workers: tables.workers))
    tieBreaker = random.next()
    tunBatch = PacketBatch(capacity: WorkerLoop.batchCapacity)
    received = PacketBatch(capacity: WorkerLoop.receivedCapacity)
    trains = PacketBatch(capacity: options.buffers)
    trainsOfOne = PacketBatch(capacity: options.buffers)
    nextTick = io.now.adding(nanoseconds: WorkerLoop.tickInterval)
    pathMTURaiseInterval = UInt64(options.pathMTURaiseInterval * 1e9)
    self.number = number
    workers = tables.workers
    self.exchange = exchange
    mine = PacketBatch(capacity: WorkerLoop.receivedCapacity)
    handed = PacketBatch(capacity: WorkerLoop.batchCapacity)
    inbound.reportsPaths = number > 0
    self.device = device
    self.tables = tables
    self.events = events
    self.addresses = addresses
    self.wakeDescriptor = wakeDescriptor
    self.links = links
    self.owners = owners
    self.messages = MessageIntake(messages)
    self.queue = queue
    self.io = io
    if number == 0 { for peer in tables.unsettledPeers { settlePaths(peer, everything: true) } }
    adoptFirewall()
    forgetNews()
    armWaker()
  }

  // MARK: The turn

  /// Until somebody asks it to stop.
  mutating func run(_ worker: Worker) {
    io.ring.activate()
    exchange?.enlist(number, ring: io.ring.descriptor)
    sharePaths()
    while stopRequests.isEmpty {
      wait()
      collect(worker)
      if exchange != nil { takeLetters() }
      runOutbound()
      runInbound()
      endTurn()
      if !reportRequests.isEmpty { answerReports(worker) }
    }
    shutDown(worker)
  }

  private mutating func wait() {
    guard nextDeferred == deferred.count, !hasMoreLetters else {
      hasMoreLetters = false
      return io.ring.submitAndWait(nanoseconds: 0)
    }
    if moved >= WorkerLoop.heavyTurn { io.ring.submitAndYield() }
    moved = 0
    io.ring.submitAndWait(nanoseconds: max(nextTick.nanoseconds(since: io.now), 1_000))
    io.now = .current()
  }

  private mutating func collect(_ worker: Worker) {
    messages.prepare()
    while let completion = nextCompletion() {
      switch completion.token.owner {
      case queue.owner:
        queue.complete(completion, io: &io, batch: &tunBatch)
        if tunBatch.isFull { runOutbound() }
      case WorkerLoop.owner: complete(completion, worker)
      default:
        guard let link = owners[completion.token.owner] else { continue }
        links[link].complete(completion, io: &io, received: &received, messages: &messages.batch)
        messages.pass(pool: io.pool)
        if received.count >= WorkerLoop.batchCapacity { runInbound() }
      }
    }
  }

  private mutating func complete(_ completion: Completion, _ worker: Worker) {
    switch OwnKind(rawValue: completion.token.kind) {
    case .wake: answerRequests(worker)
    case .noticeSent: if completion.result < 0 { exchange?.workers[completion.token.value].wake() }
    case .notice, nil: break
    }
  }

  private mutating func runOutbound() {
    guard !tunBatch.isEmpty else { return }
    moved += tunBatch.bytes
    steerRead()
    if let tap { tap.reference.value.addRead(tunBatch, tables: tables, pool: io.pool) }
    outbound.run(&tunBatch, tables: tables, pool: io.pool, now: io.now, trains: &trains)
    finishOutbound()
  }

  /// Sends what the pipeline has made of a batch.
  mutating func finishOutbound() {
    if !outbound.elsewhere.isEmpty { handJudged() }
    if let tap { tap.reference.value.addReplies(outbound.replies, pool: io.pool) }
    sendTrains()
    queue.send(&outbound.replies, io: &io)
  }

  /// Gives each transport the trains on its paths, and tells of peers that ran out of numbers for them.
  mutating func sendTrains() {
    for index in 0..<outbound.exhausted.count { reportExhaustion(Int(outbound.exhausted[index])) }
    outbound.exhausted.removeAll()
    if let tap { captureTrains(tap) }
    guard !trains.isEmpty else { return }
    if links.count == 1 {
      links[0].send(&trains, io: &io)
    } else {
      for (index, link) in links.enumerated() {
        for train in 0..<trains.count where Int(trains[train].path.transport) == index {
          trainsOfOne.append(trains[train])
        }
        link.send(&trainsOfOne, io: &io)
      }
      trains.removeAll()
    }
  }

  // MARK: Capture

  /// - Returns: false when one is under way, or no buffer is free.
  private mutating func begin(_ capture: PacketCapture) -> Bool {
    if tap?.reference.value.capture.isOver == true { endCapture() }
    guard tap == nil, let scratch = io.pool.take() else { return false }
    let cell = StateCell(CaptureTap(capture, scratch: scratch, pool: io.pool))
    cell.reference.value.adopt(tables)
    tap = cell
    (outbound.tap, inbound.tap) = (cell.reference, cell.reference)
    return true
  }

  private mutating func endCapture() {
    guard let tap else { return }
    (outbound.tap, inbound.tap) = (nil, nil)
    _ = tap.reference.value.flush(now: io.now)
    tap.reference.value.capture.end(at: io.now.nanoseconds)
    io.pool.release(tap.reference.value.scratchBuffer)
    self.tap = nil
  }

  /// The sealed packets of a batch, and with them all that is known of it.
  @inline(never)
  private mutating func captureTrains(_ tap: StateCell<CaptureTap>) {
    tap.reference.value.addTrains(trains, isOutgoing: true, tables: tables, pool: io.pool)
    if !tap.reference.value.flush(now: io.now) { endCapture() }
  }

  mutating func runInbound() {
    guard !received.isEmpty else { return }
    moved += received.bytes
    if exchange != nil { sortReceived() }
    openReceived()
  }

  mutating func openReceived() {
    var next = 0
    if let tap { tap.reference.value.addTrains(received, isOutgoing: false, tables: tables, pool: io.pool) }
    while true {
      next = inbound.run(received, from: next, tables: tables, pool: io.pool, now: io.now)
      if let tap { tap.reference.value.addDeliveries(inbound.coalescer, pool: io.pool) }
      queue.send(&inbound.coalescer, io: &io)
      if !inbound.foreign.isEmpty { handOpened() }
      guard next < received.count else { break }
      emptyWrites()
    }
    received.removeAll()
    for peer in inbound.takeMoved(tables) { followMove(peer) }
    answerControls()
  }

  /// The gather lists are full: TUN writes complete as they are submitted, so this empties them.
  mutating func emptyWrites() {
    io.ring.submitAndWait(nanoseconds: 0)
    collectWrites()
  }

  // MARK: Control messages

  private mutating func answerControls() {
    for index in 0..<inbound.controls.count {
      let arrival = inbound.controls[index]
      let body = io.pool.bytes(arrival.buffer).slice(Int(arrival.offset), Int(arrival.length))
      if number == 0 {
        takeControl(arrival.type, body, from: Int(arrival.peer), path: arrival.path, isNewest: arrival.isNewest)
      } else {
        // May be lost, like any packet.
        _ = post(
          WorkerExchange.Kind.control,
          Superpacket(
            buffer: arrival.buffer, offset: Int(arrival.offset), length: Int(arrival.length), segmentSize: 1,
            path: arrival.path), to: 0, peer: arrival.peer, detail: arrival.type, isMarked: arrival.isNewest)
      }
      io.pool.release(arrival.buffer)
    }
    inbound.controls.removeAll()
    sendTrains()
  }

  mutating func takeControl(_ type: UInt8, _ body: PacketBytes, from peer: Int, path: Path, isNewest: Bool) {
    switch type {
    case ControlMessage.Kind.probe:
      if let probe = ProbeMessage(body) { takeProbe(probe, from: peer, path: path, isNewest: isNewest) }
    case ControlMessage.Kind.probeReply:
      if let reply = ProbeReply(body) { takeReply(reply, from: peer, isNewest: isNewest) }
    case ControlMessage.Kind.association:
      if body.count == 1 { _ = send(ControlMessage.Kind.associationReply, body.array(), to: peer, along: path) }
    case ControlMessage.Kind.associationReply:
      if body.count == 1 { passAnswer(to: Int(body[0]), from: peer) }
    case ControlMessage.Kind.addresses:
      addresses.put(.message(peer: tables.configuration.peers[peer].name, type: type, body: body.array()))
    default: break
    }
  }

  /// Takes the device's completions while a received batch is half done. All others wait until it is done.
  private mutating func collectWrites() {
    while let completion = io.ring.nextCompletion() {
      if completion.token.owner == queue.owner {
        queue.complete(completion, io: &io, batch: &tunBatch)
        if tunBatch.isFull { runOutbound() }
      } else {
        deferred.append(completion)
      }
    }
  }

  private mutating func nextCompletion() -> Completion? {
    if nextDeferred < deferred.count {
      nextDeferred += 1
      return deferred[nextDeferred - 1]
    }
    deferred.removeAll(keepingCapacity: true)
    nextDeferred = 0
    return io.ring.nextCompletion()
  }

  private mutating func endTurn() {
    queue.endTurn(io: &io)
    if let error = queue.failure, !deviceFailed {
      deviceFailed = true
      events.send(.failed(SystemError("read the TUN device \(device.name)", errno: error, remedy: "start anew")))
    }
    for link in links { link.endTurn(io: &io) }
    announce()
    takeTransportEvents()
    reportFirewall()
    if io.now >= nextTick { tick() }
  }

  private mutating func tick() {
    nextTick = io.now.adding(nanoseconds: WorkerLoop.tickInterval)
    defer { announce() }
    if tables.firewall.isActive { firewall.reference.value.sweep(now: io.now) }
    if exchange != nil { checkAssociations() }
    guard number == 0 else { return reportActivity() }
    tickPaths()
    sharePaths()
    var keepAlives = 0
    for index in 0..<tables.peers.count {
      let entry = tables.peers[index]
      guard keepAlives < WorkerLoop.keepAlivesPerTick, entry.keepAliveInterval > 0, let path = entry.state.value.path,
        io.now.nanoseconds(since: entry.state.value.lastSent) >= entry.keepAliveInterval
      else { continue }
      entry.state.value.lastSent = io.now
      links[Int(path.transport)].keepAlive(path, io: &io)
      keepAlives += 1
    }
    sendTrains()
  }

  /// Looks at the paths of so many active peers, and of so many idle ones whose time has come.
  private mutating func tickPaths() {
    let count = tables.peers.count
    var round = activeRound
    round.begin()
    while let peer = round.next(of: count, limit: WorkerLoop.activePerTick, where: { isActive($0) }) {
      lookAtPaths(of: peer)
    }
    activeRound = round
    round = idleRound
    round.begin()
    while let peer = round.next(of: count, limit: WorkerLoop.idlePerTick, where: { !isActive($0) && isDue($0) }) {
      lookAtPaths(of: peer)
    }
    idleRound = round
  }

  private mutating func lookAtPaths(of peer: Int) {
    probe(peer)
    servicePaths(peer)
    if trains.count >= WorkerLoop.idlePerTick / 2 { sendTrains() }
  }

  // MARK: Firewall

  private mutating func adoptFirewall() {
    firewall.reference.value.adopt(tables.firewall)
    outbound.firewall = tables.firewall.isActive ? firewall.reference : nil
    inbound.firewall = outbound.firewall
    // Without a firewall there is nothing that a flow's packets would have to meet in one place.
    let steers = exchange != nil && tables.firewall.isActive
    steering =
      steers
      ? FlowSteering(worker: number, mask: UInt32(workers - 1), fragments: fragmentOwners.reference) : nil
    inbound.steering = steering
  }

  private func reportFirewall() {
    guard !firewall.reference.value.log.records.isEmpty else { return }
    for entry in firewall.reference.value.takeLog() { events.send(.firewallLog(entry)) }
  }

  // MARK: Requests and reports

  private mutating func armWaker() {
    let buffer = wakeBuffer.reference
    unsafe withUnsafeMutablePointer(to: &buffer.value) {
      unsafe io.ring.read(
        RingFile(wakeDescriptor), into: $0, count: 8, token: Token(owner: WorkerLoop.owner, kind: OwnKind.wake))
    }
  }

  private mutating func answerRequests(_ worker: Worker) {
    armWaker()
    for request in worker.takeRequests() {
      switch request {
      case .adopt(let snapshot, let adoption):
        runOutbound()
        runInbound()
        adopt(snapshot)
        adoption.report(true)
      case .report(let continuation): reportRequests.append(continuation)
      case .capture(let capture, let continuation): continuation.resume(returning: begin(capture))
      case .endCapture(let capture):
        if tap?.reference.value.capture === capture { endCapture() }
      case .explain(let packet, let continuation):
        if let other = ownerElsewhere(packet) {
          if !other.post(request) { continuation.resume(returning: nil) }
          continue
        }
        let examination = Examination(now: io.now)
        continuation.resume(
          returning: examination.explain(
            packet, &outbound, &inbound, tables: tables, pool: io.pool, now: io.now))
      case .send(let message):
        guard let peer = tables.configuration.peers.firstIndex(where: { $0.name == message.peer }) else { continue }
        _ = send(message.type, message.body, to: peer)
        sendTrains()
      case .paths(let list, let version): if version == tables.peerListVersion { takeNews(list) }
      case .activity(let list, let version): if version == tables.peerListVersion { takeActivity(list) }
      case .heard(let peer, let path, let version):
        if version == tables.peerListVersion { takeMove(peer, path) }
      case .failed(let path): failPath(path)
      case .message(let message): send(message)
      case .stop(let continuation): stopRequests.append(continuation)
      }
    }
  }

  /// Sends and writes complete as they are submitted, so after a turn or two more nothing of this turn is underway:
  /// in is out plus drops, and buffers are where they belong.
  private mutating func answerReports(_ worker: Worker) {
    for _ in 0..<3 {
      io.ring.submitAndWait(nanoseconds: 0)
      collect(worker)
      if exchange != nil { takeLetters() }
      runOutbound()
      runInbound()
      endTurn()
    }
    let report = report()
    for continuation in reportRequests { continuation.resume(returning: report) }
    reportRequests.removeAll()
  }

  private mutating func adopt(_ snapshot: Snapshot) {
    if exchange != nil { takeLetters() }
    let before = tables
    snapshot.takeOver(from: tables, memory: &sequences)
    tables = snapshot
    tap?.reference.value.adopt(snapshot)
    adoptFirewall()
    if exchange != nil { keepNews(before) }
    guard number == 0 else { return }
    settle(snapshot.unsettledPeers)
    sharePaths()
    (activeRound, idleRound) = (RoundRobin(), RoundRobin())
    if !snapshot.isAgreement { events.send(.configurationApplied(peers: snapshot.peers.count)) }
  }

  private func reportExhaustion(_ peer: Int) {
    let associations = [tables.peers[peer].outbound, tables.peers[peer].own].compactMap(\.self)
    guard let association = associations.min(by: { $0.value.remaining < $1.value.remaining }) else { return }
    events.send(
      .sequenceNumbersRunningOut(
        peer: tables.configuration.peers[peer].name, spi: association.value.spi, remaining: association.value.remaining)
    )
  }

  private func report() -> WorkerReport {
    WorkerReport(
      tables: tables, outbound: outbound, inbound: inbound, firewall: firewall.reference.value.report(), queue: queue,
      links: links, io: io, handedOver: handedOver)
  }

  // MARK: The end

  /// Cancels what is in flight and waits for it, so that descriptors are free when the stop returns.
  private mutating func shutDown(_ worker: Worker) {
    exchange?.enlist(number, ring: -1)
    endCapture()
    for link in links { link.close(io: &io) }
    queue.close(io: &io)
    for _ in 0..<50 {
      io.ring.submitAndWait(nanoseconds: 2_000_000)
      guard io.ring.hasCompletions else { break }
      while let completion = io.ring.nextCompletion() {
        if completion.token.owner == queue.owner { queue.complete(completion, io: &io, batch: &tunBatch) }
      }
    }
    if number == 0 {
      events.send(.stopped)
      events.end()
    }
    let last = report()
    for request in worker.takeRequests(closing: true) {
      switch request {
      case .adopt(_, let adoption): adoption.report(false)
      case .report(let continuation): continuation.resume(returning: last)
      case .explain(_, let continuation): continuation.resume(returning: nil)
      case .capture(_, let continuation): continuation.resume(returning: false)
      case .endCapture, .send, .paths, .activity, .heard, .failed, .message: break
      case .stop(let continuation): continuation?.resume(returning: last)
      }
    }
    for continuation in reportRequests { continuation.resume(returning: last) }
    for continuation in stopRequests { continuation?.resume(returning: last) }
  }
}
