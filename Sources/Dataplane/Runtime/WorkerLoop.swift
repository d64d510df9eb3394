import Glibc
import PacketIO

/// The shell around a node: what a worker thread does with ring, TUN queue and transports. Nobody else touches any of
/// it. What is to be done about packets, peers and paths is the node's.
///
/// A turn:
/// 1. `wait`: hand over what was submitted, wait for completions.
/// 2. `collect`: completions become batches; a batch that is full goes to the node at once.
/// 3. `takeHandOffs`: what other workers have handed over.
/// 4. `runOutbound`: what the device brought, through the node to the transports.
/// 5. `runInbound`: what the transports brought, through the node to the device.
/// 6. `endTurn`: re-arms receives, tells the node what transports report, and lets it do what is due.
///
/// After each call of the node, `drain` takes what it has made.
struct WorkerLoop: ~Copyable {
  private static let owner: UInt8 = 0
  /// Of the worker's own completions: a read of the waker, word of hand-offs, and what became of such a word.
  private enum OwnKind: UInt8 { case wake, notice, noticeSent }

  /// What a worker knows of the threads around it.
  struct Surroundings {
    let events: EventChannel
    let messages: MessageChannel
    let addresses: AddressInbox
    /// All of the gateway, by number.
    let workers: [Worker]
    let wakeDescriptor: Int32
  }

  private static let ringEntries: UInt32 = 256
  /// Bytes of a turn that others may run after, before the worker looks again: so batches are fuller.
  private static let heavyTurn = 60_000

  private var node: Node
  private var io: WorkerIO
  private let device: TunDevice
  private let queue: TunQueue
  private let links: Links
  private let surroundings: Surroundings
  private var tunBatch = PacketBatch(capacity: Node.batchCapacity)
  private var received = PacketBatch(capacity: Node.receivedCapacity)
  private var messages: MessageIntake
  private let wakeBuffer = StateCell<UInt64>(0)
  /// Completions put off by `emptyWrites`, and the first of them that was not taken yet.
  private var deferred: [Completion] = []
  private var nextDeferred = 0
  private var deviceFailed = false
  /// Bytes that came in this turn.
  private var moved = 0
  private var reportRequests: [CheckedContinuation<WorkerReport?, Never>] = []
  private var stopRequests: [CheckedContinuation<WorkerReport?, Never>?] = []

  /// Opens sockets on the calling thread, whose network namespace they belong to.
  init(
    device: TunDevice, transports: [any Transport], tables: Snapshot, surroundings: Surroundings,
    queues: HandOffQueues?, options: Dataplane.Options
  ) throws {
    // What can fail comes first: a noncopyable value is initialised whole or not at all.
    let pool = BufferPool(count: options.buffers)
    var io = WorkerIO(
      ring: try Ring(entries: WorkerLoop.ringEntries, allowed: options.ringFeatures), pool: pool, now: .current())
    let queue = TunQueue(
      device.queues[tables.worker], capacity: Node.inboundCapacity, readBuffers: options.readBuffers, io: &io)
    let links = Links(buffers: options.buffers)
    var random = SystemRandomNumberGenerator()
    var nodeOptions = Node.Options()
    nodeOptions.pathMTURaiseInterval = options.pathMTURaiseInterval.nanoseconds
    nodeOptions.offloads = device.offloads
    do {
      for transport in transports { try links.open(transport, for: tables, io: &io) }
      let node = Node(
        tables, pool: pool, facts: links, queues: queues, options: nodeOptions, now: io.now, using: &random)
      guard let node else {
        throw SystemError("take a packet buffer", errno: ENOBUFS, remedy: "give the worker more buffers")
      }
      self.node = node
    } catch {
      // The ring is torn down in the background: what it still held would outlive this.
      links.close(io: &io)
      queue.close(io: &io)
      throw error
    }
    self.device = device
    self.surroundings = surroundings
    self.links = links
    self.queue = queue
    self.io = io
    messages = MessageIntake(surroundings.messages)
    armWaker()
  }

  // MARK: The turn

  /// Until somebody asks it to stop.
  mutating func run(_ worker: Worker) {
    io.ring.activate()
    worker.ring.store(io.ring.descriptor, ordering: .sequentiallyConsistent)
    while stopRequests.isEmpty {
      wait()
      turn(worker)
      if !reportRequests.isEmpty { answerReports(worker) }
    }
    shutDown(worker)
  }

  private mutating func turn(_ worker: Worker) {
    collect(worker)
    takeHandOffs()
    runOutbound()
    runInbound()
    endTurn()
  }

  private mutating func wait() {
    guard nextDeferred == deferred.count, !node.hasMoreHandOffs else { return io.ring.submitAndWait(nanoseconds: 0) }
    if moved >= WorkerLoop.heavyTurn { io.ring.submitAndYield() }
    moved = 0
    io.ring.submitAndWait(nanoseconds: max(node.deadline.nanoseconds(since: io.now), 1_000))
    io.now = .current()
    node.now = io.now
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
        guard let link = links.owner(completion.token.owner) else { continue }
        link.complete(completion, io: &io, received: &received, messages: &messages.batch)
        messages.pass(pool: io.pool)
        if received.count >= Node.batchCapacity { runInbound() }
      }
    }
  }

  private mutating func complete(_ completion: Completion, _ worker: Worker) {
    switch OwnKind(rawValue: completion.token.kind) {
    case .wake: answerRequests(worker)
    case .noticeSent: if completion.result < 0 { surroundings.workers[completion.token.value].wake() }
    case .notice, nil: break
    }
  }

  private mutating func nextCompletion() -> Completion? {
    if nextDeferred < deferred.count {
      nextDeferred += 1
      return deferred[nextDeferred - 1]
    }
    if nextDeferred > 0 {
      deferred.removeAll(keepingCapacity: true)
      nextDeferred = 0
    }
    return io.ring.nextCompletion()
  }

  private mutating func takeHandOffs() {
    while node.takeHandOffs() {
      drain()
      // Each hand-off has a buffer of its own; without this, a full queue would take them all.
      if queue.isWriting { emptyWrites() }
    }
    drain()
  }

  private mutating func runOutbound() {
    guard !tunBatch.isEmpty else { return }
    moved += tunBatch.bytes
    node.read(&tunBatch)
    drain()
  }

  private mutating func runInbound() {
    guard !received.isEmpty else { return }
    moved += received.bytes
    while node.receive(&received) { drain() }
    drain()
  }

  private mutating func endTurn() {
    queue.endTurn(io: &io)
    if let error = queue.failure, !deviceFailed {
      deviceFailed = true
      surroundings.events.send(
        .failed(SystemError("read the TUN device \(device.name)", errno: error, remedy: "start anew")))
    }
    links.endTurn(io: &io)
    for event in io.takeEvents() {
      switch event.kind {
      case .opened: node.opened(event.path)
      case .failed(let error), .ended(let error): node.failed(event.path, error: error, count: event.count)
      case .refused(let size, let quote): node.refused(event.path, over: size, quote: quote)
      }
      drain()
    }
    work()
    wakeOthers()
  }

  private mutating func work() {
    while node.work() { drain() }
    drain()
  }

  // MARK: What the node has made

  private mutating func drain() {
    node.outputs.noteSending(now: io.now)
    if !node.outputs.trains.isEmpty { links.send(&node.outputs.trains, io: &io) }
    let pieces = node.deliveries.slices.count + node.replies.count
    if pieces > 0 {
      if queue.room < pieces { emptyWrites() }
      queue.send(&node.deliveries, io: &io)
      queue.send(&node.replies, io: &io)
    }
    guard node.outputs.hasWords else { return }
    links.follow(node.outputs.takeCommands(), io: &io)
    for event in node.outputs.takeEvents() { surroundings.events.send(event) }
    for notice in node.outputs.takeNotices() { surroundings.addresses.put(AddressInbox.Input(notice)) }
    for notice in node.outputs.takeKeyNotices() { surroundings.messages.notices.put(notice) }
  }

  /// The gather lists are full: TUN writes complete as they are submitted, so this empties them. All other completions
  /// wait.
  private mutating func emptyWrites() {
    io.ring.submitAndWait(nanoseconds: 0)
    while let completion = io.ring.nextCompletion() {
      if completion.token.owner == queue.owner, queue.isWrite(completion) {
        queue.complete(completion, io: &io, batch: &tunBatch)
      } else {
        deferred.append(completion)
      }
    }
  }

  /// Wakes the workers that were handed something: by a message of the ring, else by their descriptor.
  private mutating func wakeOthers() {
    for number in node.takeWorkersToWake() {
      let ring = surroundings.workers[number].ring.load(ordering: .sequentiallyConsistent)
      if ring >= 0, io.ring.features.contains(.messages) {
        io.ring.send(
          Token(owner: WorkerLoop.owner, kind: OwnKind.notice), to: ring,
          token: Token(owner: WorkerLoop.owner, kind: OwnKind.noticeSent, value: number))
      } else {
        surroundings.workers[number].wake()
      }
    }
  }

  // MARK: Requests and reports

  private mutating func armWaker() {
    io.ring.readCounter(
      RingFile(surroundings.wakeDescriptor), into: wakeBuffer.reference,
      token: Token(owner: WorkerLoop.owner, kind: OwnKind.wake))
  }

  private mutating func answerRequests(_ worker: Worker) {
    armWaker()
    for request in worker.takeRequests() {
      switch request {
      case .take(let change, let adoption):
        runOutbound()
        runInbound()
        takeHandOffs()
        let begin = MonotonicTime.current()
        node.take(change)
        change.duration = MonotonicTime.current().nanoseconds(since: begin)
        work()
        // What spoke of these tables has waited for them.
        takeHandOffs()
        adoption.report(true)
      case .report(let continuation): reportRequests.append(continuation)
      case .capture(let capture, let continuation): continuation.resume(returning: node.begin(capture))
      case .endCapture(let capture): node.end(capture)
      case .explain(let packet, let continuation):
        if let owner = node.owner(of: packet) {
          if !surroundings.workers[owner].post(request) { continuation.resume(returning: nil) }
        } else {
          continuation.resume(returning: node.explain(packet))
        }
      case .peerReport(let row, let continuation):
        continuation.resume(returning: PeerReport(node.tables, row: row, now: io.now))
      case .send(let message, let row, let serial):
        guard node.tables.record(row)?.serial == serial else { continue }
        node.send(message.type, message.body, to: row)
        drain()
      case .follow(let path, let row, let serial):
        guard node.tables.record(row)?.serial == serial else { continue }
        node.follow(path, row)
        drain()
      case .consider(let path, let credit, let row, let serial):
        guard node.tables.record(row)?.serial == serial else { continue }
        node.consider(path, credit: credit, row)
        drain()
      case .announce: node.announce()
      case .message(let message):
        node.outputs.noteSending(along: message.path, now: io.now)
        links.send(message, io: &io)
      case .open(let transport, let continuation):
        continuation.resume(returning: Result { try links.open(transport, for: node.tables, io: &io) })
      case .closeLast: links.closeLast(io: &io)
      case .stop(let continuation): stopRequests.append(continuation)
      }
    }
  }

  /// Sends and writes complete as they are submitted, so after a turn or two more nothing of this turn is underway:
  /// in is out plus drops, and buffers are where they belong.
  private mutating func answerReports(_ worker: Worker) {
    for _ in 0..<3 {
      io.ring.submitAndWait(nanoseconds: 0)
      turn(worker)
    }
    let report = report()
    for continuation in reportRequests { continuation.resume(returning: report) }
    reportRequests.removeAll()
  }

  private func report() -> WorkerReport {
    WorkerReport(
      tables: node.tables, outbound: node.datapath.outbound, inbound: node.datapath.inbound,
      firewall: node.datapath.firewall.reference.value.report(), queue: queue, links: links.all, io: io,
      handedOver: node.handedOver, shares: node.shares)
  }

  // MARK: The end

  /// Cancels what is in flight and waits for it, so that descriptors are free when the stop returns.
  private mutating func shutDown(_ worker: Worker) {
    worker.ring.store(-1, ordering: .sequentiallyConsistent)
    node.end(nil)
    links.close(io: &io)
    queue.close(io: &io)
    for _ in 0..<50 {
      io.ring.submitAndWait(nanoseconds: 2_000_000)
      guard io.ring.hasCompletions else { break }
      while let completion = io.ring.nextCompletion() {
        if completion.token.owner == queue.owner { queue.complete(completion, io: &io, batch: &tunBatch) }
      }
    }
    if node.worker == 0 {
      surroundings.events.send(.stopped)
      surroundings.events.end()
    }
    let last = report()
    node.tables.noteSequences()
    for request in worker.takeRequests(closing: true) {
      switch request {
      case .take(_, let adoption): adoption.report(false)
      case .peerReport(_, let continuation): continuation.resume(returning: nil)
      case .report(let continuation): continuation.resume(returning: last)
      case .explain(_, let continuation): continuation.resume(returning: nil)
      case .capture(_, let continuation): continuation.resume(returning: false)
      case .open(_, let continuation): continuation.resume(returning: .failure(StoppedError()))
      case .endCapture, .send, .follow, .consider, .announce, .message, .closeLast: break
      case .stop(let continuation): continuation?.resume(returning: last)
      }
    }
    for continuation in reportRequests { continuation.resume(returning: last) }
    for continuation in stopRequests { continuation?.resume(returning: last) }
  }
}
