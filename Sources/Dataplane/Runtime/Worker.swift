import Glibc
import PacketIO
import Synchronization

/// A thread with its ring, and all that it owns: buffers, one TUN queue, one link of each transport, both pipelines.
///
/// A turn:
/// 1. `wait`: hand over what was submitted, wait for completions.
/// 2. `collect`: completions become batches; a batch that is full is run at once.
/// 3. `runOutbound`: TUN batch → trains → transports.
/// 4. `runInbound`: received batch → deliveries → TUN.
/// 5. `endTurn`: re-arm receives, timers, requests from other threads.
final class Worker: @unchecked Sendable {
  /// What other threads ask of a worker; answered between two turns.
  enum Request {
    /// Answered true once it is in force, false when the worker stops before.
    case adopt(Snapshot, CheckedContinuation<Bool, any Error>)
    case report(CheckedContinuation<WorkerReport?, Never>)
    /// Answered with the last figures when everything is closed.
    case stop(CheckedContinuation<WorkerReport?, Never>?)
  }

  private struct Requests {
    var waiting: [Request] = []
    /// The thread has ended: nobody will answer.
    var closed = false

    mutating func take() -> [Request] {
      defer { waiting.removeAll() }
      return waiting
    }
  }

  private enum Owner {
    static let worker: UInt8 = 0
    static let tun: UInt8 = 1
    static let firstTransport: UInt8 = 2
  }

  /// Superpackets of a batch.
  private static let batchCapacity = 64
  /// Runs of sealed packets that a received train can fall into at most.
  private static let receivedCapacity = batchCapacity + 128
  /// Packets that are opened before they are written to the TUN device.
  private static let inboundCapacity = 1024
  private static let ringEntries: UInt32 = 256
  private static let tickInterval: UInt64 = 1_000_000_000

  // Shared with other threads.
  private let requests = Mutex(Requests())
  private let waker: Waker
  private let events: EventChannel

  // The worker's own.
  private var io: WorkerIO
  private var tables: Snapshot
  private let device: TunDevice
  private let queue: TunQueue
  private var links: [any TransportLink] = []
  private var outbound: OutboundPipeline
  private var inbound: InboundPipeline
  private var tunBatch = PacketBatch(capacity: batchCapacity)
  private var received = PacketBatch(capacity: receivedCapacity)
  private var trains: PacketBatch
  private var trainsOfOne: PacketBatch
  private var wakeBuffer: StateCell<UInt64>
  private var nextTick: MonotonicTime
  /// Completions put off by `collectWrites`, and the first of them that was not taken yet.
  private var deferred: [Completion] = []
  private var nextDeferred = 0
  private var deviceFailed = false
  private var sequences = SequenceMemory()
  private var stopRequests: [CheckedContinuation<WorkerReport?, Never>?] = []

  /// Opens everything on the calling thread, whose network namespace the sockets belong to.
  init(
    device: TunDevice, transports: [any Transport], tables: Snapshot, events: EventChannel, options: Dataplane.Options
  ) throws {
    self.device = device
    self.tables = tables
    self.events = events
    waker = try Waker()
    let ring = try Ring(entries: Worker.ringEntries, allowed: options.ringFeatures)
    let pool = BufferPool(count: options.buffers)
    io = WorkerIO(ring: ring, pool: pool, now: .current())
    nextTick = io.now.adding(nanoseconds: Worker.tickInterval)
    guard let scratch = pool.take() else {
      throw SystemError("take a packet buffer", errno: ENOBUFS, remedy: "give the worker more buffers")
    }
    outbound = OutboundPipeline(scratch: pool.bytes(scratch), batchCapacity: Worker.batchCapacity)
    inbound = InboundPipeline(capacity: Worker.inboundCapacity, offloads: device.offloads)
    trains = PacketBatch(capacity: options.buffers)
    trainsOfOne = PacketBatch(capacity: options.buffers)
    wakeBuffer = StateCell(0)
    queue = TunQueue(
      device.queues[0], owner: Owner.tun, group: UInt16(Owner.tun) * 2, capacity: Worker.inboundCapacity,
      readBuffers: options.readBuffers, io: &io)
    for (index, transport) in transports.enumerated() {
      links.append(
        try transport.open(worker: 0, index: UInt8(index), owner: Owner.firstTransport + UInt8(index), io: &io))
    }
    armWaker()
  }

  /// Starts the thread. It keeps the worker alive until `stop`.
  func start() throws(SystemError) {
    var thread = pthread_t()
    let box = unsafe Unmanaged.passRetained(self)
    let status = unsafe pthread_create(
      &thread, nil,
      { argument in
        unsafe Unmanaged<Worker>.fromOpaque(argument!).takeRetainedValue().run()
        return nil
      }, box.toOpaque())
    guard status == 0 else {
      unsafe box.release()
      throw SystemError("start a worker thread", errno: status, remedy: "raise the limit of threads (ulimit -u)")
    }
    pthread_detach(thread)
  }

  /// False when the worker has stopped: the request will not be answered.
  func post(_ request: Request) -> Bool {
    let accepted = requests.withLock { requests in
      if !requests.closed { requests.waiting.append(request) }
      return !requests.closed
    }
    if accepted { waker.wake() }
    return accepted
  }

  // MARK: The turn

  private func run() {
    io.ring.activate()
    while stopRequests.isEmpty {
      wait()
      collect()
      runOutbound()
      runInbound()
      endTurn()
    }
    shutDown()
  }

  private func wait() {
    guard nextDeferred == deferred.count else { return io.ring.submitAndWait(nanoseconds: 0) }
    io.ring.submitAndWait(nanoseconds: max(nextTick.nanoseconds(since: io.now), 1_000))
    io.now = .current()
  }

  private func collect() {
    while let completion = nextCompletion() {
      switch completion.token.owner {
      case Owner.tun:
        queue.complete(completion, io: &io, batch: &tunBatch)
        if tunBatch.isFull { runOutbound() }
      case Owner.worker: answerRequests()
      default:
        let link = Int(completion.token.owner - Owner.firstTransport)
        guard links.indices.contains(link) else { continue }
        links[link].complete(completion, io: &io, received: &received)
        if received.count >= Worker.batchCapacity { runInbound() }
      }
    }
  }

  private func runOutbound() {
    guard !tunBatch.isEmpty else { return }
    outbound.run(&tunBatch, tables: tables, pool: io.pool, now: io.now, trains: &trains)
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
    for index in 0..<outbound.exhausted.count { reportExhaustion(Int(outbound.exhausted[index])) }
    outbound.exhausted.removeAll()
  }

  private func runInbound() {
    guard !received.isEmpty else { return }
    var next = 0
    while true {
      next = inbound.run(received, from: next, tables: tables, pool: io.pool, now: io.now)
      queue.send(&inbound.coalescer, io: &io)
      guard next < received.count else { break }
      // The gather lists are full: TUN writes complete as they are submitted, so this empties them.
      io.ring.submitAndWait(nanoseconds: 0)
      collectWrites()
    }
    received.removeAll()
    for peer in inbound.takeMoved(tables) { reportMove(peer) }
  }

  /// Takes the device's completions while a received batch is half done. All others wait until it is done.
  private func collectWrites() {
    while let completion = io.ring.nextCompletion() {
      if completion.token.owner == Owner.tun {
        queue.complete(completion, io: &io, batch: &tunBatch)
        if tunBatch.isFull { runOutbound() }
      } else {
        deferred.append(completion)
      }
    }
  }

  private func nextCompletion() -> Completion? {
    if nextDeferred < deferred.count {
      nextDeferred += 1
      return deferred[nextDeferred - 1]
    }
    deferred.removeAll(keepingCapacity: true)
    nextDeferred = 0
    return io.ring.nextCompletion()
  }

  private func endTurn() {
    queue.endTurn(io: &io)
    if let error = queue.failure, !deviceFailed {
      deviceFailed = true
      events.send(.failed(SystemError("read the TUN device \(device.name)", errno: error, remedy: "start anew")))
    }
    for link in links { link.endTurn(io: &io) }
    for report in io.takeReports() {
      events.send(
        .transportError(
          transport: Int(report.path.transport), path: report.path,
          error: SystemError("send to \(report.path.endpoint)", errno: report.error)))
    }
    if io.now >= nextTick { tick() }
  }

  private func tick() {
    nextTick = io.now.adding(nanoseconds: Worker.tickInterval)
    for index in 0..<tables.peers.count {
      let entry = tables.peers[index]
      guard entry.keepAliveInterval > 0, let path = entry.state.value.path,
        io.now.nanoseconds(since: entry.state.value.lastSent) >= entry.keepAliveInterval
      else { continue }
      entry.state.value.lastSent = io.now
      links[Int(path.transport)].keepAlive(path, io: &io)
    }
  }

  // MARK: Requests and reports

  private func armWaker() {
    let buffer = wakeBuffer.reference
    unsafe withUnsafeMutablePointer(to: &buffer.value) {
      unsafe io.ring.read(waker.descriptor, into: $0, count: 8, token: Token(owner: Owner.worker, kind: 0))
    }
  }

  private func answerRequests() {
    armWaker()
    for request in requests.withLock({ $0.take() }) {
      switch request {
      case .adopt(let snapshot, let continuation):
        runOutbound()
        runInbound()
        adopt(snapshot)
        continuation.resume(returning: true)
      case .report(let continuation): continuation.resume(returning: report())
      case .stop(let continuation): stopRequests.append(continuation)
      }
    }
  }

  private func adopt(_ snapshot: Snapshot) {
    snapshot.takeOver(from: tables, memory: &sequences)
    tables = snapshot
    events.send(.configurationApplied(peers: snapshot.peers.count))
  }

  private func reportExhaustion(_ peer: Int) {
    guard let association = tables.peers[peer].outbound else { return }
    events.send(
      .sequenceNumbersRunningOut(
        peer: tables.configuration.peers[peer].name, spi: association.value.spi, remaining: association.value.remaining))
  }

  private func reportMove(_ peer: Int) {
    guard let path = tables.peers[peer].state.value.path else { return }
    events.send(.pathChanged(peer: tables.configuration.peers[peer].name, path: path))
  }

  private func report() -> WorkerReport {
    // Writes to the device complete as they are submitted: now none is underway, and in is out plus drops.
    io.ring.submitAndWait(nanoseconds: 0)
    collectWrites()
    return WorkerReport(
      tables: tables, outbound: outbound.counters, inbound: inbound.counters, queue: queue, links: links, io: io)
  }

  // MARK: The end

  /// Cancels what is in flight and waits for it, so that descriptors are free when the stop returns.
  private func shutDown() {
    for link in links { link.close(io: &io) }
    queue.close(io: &io)
    for _ in 0..<50 {
      io.ring.submitAndWait(nanoseconds: 2_000_000)
      guard io.ring.hasCompletions else { break }
      while let completion = io.ring.nextCompletion() {
        if completion.token.owner == Owner.tun { queue.complete(completion, io: &io, batch: &tunBatch) }
      }
    }
    events.send(.stopped)
    events.end()
    let last = report()
    let late = requests.withLock { requests in
      requests.closed = true
      return requests.take()
    }
    for request in late {
      switch request {
      case .adopt(_, let continuation): continuation.resume(returning: false)
      case .report(let continuation): continuation.resume(returning: last)
      case .stop(let continuation): continuation?.resume(returning: last)
      }
    }
    for continuation in stopRequests { continuation?.resume(returning: last) }
  }
}
