public import PacketIO
import Synchronization

/// The tunnel, as an embedder sees it: made of a configuration and transports, it carries packets until it is
/// stopped.
///
/// All methods may be called from any thread or task. The device, the sockets and the worker belong to the network
/// namespace of the thread that calls `init`.
public final class Dataplane: Sendable {
  /// How to run, beside what to carry.
  public struct Options: Sendable {
    /// Threads that carry packets, each with a TUN queue, sockets and associations of its own: 1, 2, 4, 8 or 16. One is
    /// right on two cores; more pay where a core each is free. Each has `buffers` of its own, and 4 MiB at most for
    /// what others hand to it.
    public var workers = 1
    /// Packet buffers of a worker, 96 to 65535, each `BufferPool.bufferSize` bytes of address space of which
    /// only touched pages count: the memory budget.
    public var buffers = 192
    /// Buffers the kernel may hold for reads of the TUN device; a power of two, 2 to 64.
    public var readBuffers = 32
    /// Which library seals and opens; nil: the fastest that the CPU and the build have.
    public var engine: CipherEngine?
    /// Kernel features to use; narrowed by tests to see an older kernel.
    public var ringFeatures: RingFeatures = .all
    /// Time after which a path is asked again whether it takes larger packets (RFC 8899: PMTU_RAISE_TIMER).
    public var pathMTURaiseInterval = Duration.seconds(600)
    /// Set by the benchmark only, to measure the path without its cryptography.
    package var sealingLeftOut = false

    public init() {}
  }

  private let workers: [Worker]
  private let device: TunDevice
  private let channel: EventChannel
  private let started: MonotonicTime
  private let engine: CipherEngine
  private let transportCount: Atomic<Int>
  /// Orders concurrent calls of `add`.
  private let lastAddition = Mutex<Task<UInt8, any Error>?>(nil)
  private let addresses: AddressInbox
  private let messageChannel = MessageChannel()
  /// What is in force. Also orders concurrent calls of `apply`.
  private let current: Mutex<Registry>
  private let longestTakeOver = Atomic<UInt64>(0)
  private let lastReport = Mutex<[WorkerReport]>([])

  /// Validates everything, opens the device and the transports, and starts to carry packets. Blocks for some
  /// milliseconds; on an error nothing is left behind.
  ///
  /// - Parameter transports: 1 to 16; a `Path` names one by its position. More can be added later (`add`).
  /// - Throws: `ConfigurationError`, `SystemError`.
  public init(_ configuration: Configuration, transports: [any Transport], options: Options = Options()) throws {
    guard (1...Dataplane.mostTransports).contains(transports.count) else {
      throw Dataplane.transportsError("there are \(transports.count)")
    }
    let engine = options.engine ?? CipherEngine.available[0]
    guard CipherEngine.available.contains(engine) else {
      throw ConfigurationError(
        subject: .interface, setting: "engine", problem: "\(engine.rawValue) is not available on this machine",
        remedy: "leave the choice open, or install the library and build again")
    }
    let count = options.workers
    guard [1, 2, 4, 8, 16].contains(count) else {
      throw ConfigurationError(
        subject: .interface, setting: "workers", problem: "\(count) workers are not possible",
        remedy: "choose 1, 2, 4, 8 or 16")
    }
    var registry = Registry(configuration, sealing: options.sealingLeftOut ? .leftOut : .by(engine), workers: count)
    let draft = try registry.draft(
      configuration, limits: ConfigurationLimits(transports: transports.count, workers: count, engine: engine))
    let now = MonotonicTime.current()
    _ = registry.commit(draft, now: now)
    let channel = EventChannel()
    let addresses = AddressInbox()
    let device = try TunDevice(registry.interface, queues: count)
    // Before anything else can happen that is worth an event.
    channel.send(
      .started(
        interface: device.name, engine: options.sealingLeftOut ? nil : engine, offloads: device.offloads,
        refusedOffloads: device.refusedOffloads))
    if count > 1 {
      let error = QueueSteering.attach(to: device.queues[0], workers: count)
      if error != 0 { channel.send(.queuesNotSteered(SystemError("steer the queues of \(device.name)", errno: error))) }
    }
    let workers: [Worker]
    do {
      workers = try (0..<count).map { _ in try Worker() }
    } catch {
      device.close()
      throw error
    }
    let queues = count > 1 ? HandOffQueues(workers: count) : nil
    for (number, worker) in workers.enumerated() {
      do {
        try worker.start(
          device: device, transports: transports, tables: Snapshot(registry.parts(of: number)), events: channel,
          messages: messageChannel, addresses: addresses, workers: workers, queues: queues, options: options)
      } catch {
        for earlier in workers[..<number] { _ = earlier.post(.stop(nil)) }
        device.close()
        throw error
      }
    }
    self.workers = workers
    self.device = device
    self.channel = channel
    self.engine = engine
    started = now
    transportCount = Atomic(transports.count)
    self.addresses = addresses
    current = Mutex(registry)
    let agent = AddressAgent(inbox: addresses, dataplane: self)
    addresses.agent.withLock { $0 = agent }
    Task { await agent.run() }
  }

  // MARK: Changes

  /// Puts another configuration in force, atomically, between two turns of each worker: packets before are handled
  /// by the old one, packets after by the new. Peers and associations that stay the same keep their state; keys
  /// that are gone are zeroed. Applying what is in force changes nothing. On an error nothing changes.
  ///
  /// It compares all peers with what is in force, and then costs what the differences cost.
  ///
  /// - Throws: `ConfigurationError`, `SystemError`; `StoppedError` after `stop`.
  public func apply(_ configuration: Configuration) async throws {
    let draft = try await publish(settlesDevice: true) { try $0.draft(configuration, limits: limits) }
    // Those who negotiate look at all peers only where much has changed.
    if draft.changesSettings || draft.steps.count > Dataplane.fewPeers {
      addresses.putConfiguration()
    } else {
      for step in draft.steps { addresses.putConfiguration(of: step.name) }
    }
  }

  private static let fewPeers = 64

  /// Puts changes in force, as `apply` of a configuration does: all of them or none. A change of one peer takes time
  /// that does not depend on how many there are.
  ///
  /// - Throws: `ConfigurationError`, `SystemError`; `StoppedError` after `stop`.
  public func apply(_ changes: [ConfigurationChange]) async throws {
    if changes.isEmpty { return }
    let draft = try await publish(settlesDevice: false) { try $0.draft(changes, limits: limits) }
    for name in draft.followers { addresses.putConfiguration(of: name) }
    for change in changes {
      switch change {
      case .add(let peer), .replace(let peer): addresses.putConfiguration(of: peer.name)
      case .remove(let name): addresses.putConfiguration(of: name)
      case .agree(let agreement, let name): channel.send(.addressesAgreed(peer: name, agreement))
      case .interface: addresses.putConfiguration()
      case .installInbound, .installOutbound, .retireInbound, .firewall: break
      }
    }
  }

  private var limits: ConfigurationLimits {
    ConfigurationLimits(
      transports: transportCount.load(ordering: .acquiring), workers: workers.count, engine: engine, isRunning: true)
  }

  /// Returns when all workers have taken the transition over.
  ///
  /// - Parameter settlesDevice: what somebody else took from the device is put back, also where nothing changes.
  /// - Returns: what has changed.
  private func publish(
    settlesDevice: Bool, _ next: (inout Registry) throws -> Registry.Draft
  ) async throws -> Registry.Draft {
    let adoption = Adoption(workers.count)
    // Posted under the lock, so that each worker takes transitions over in the order of their succession. Worker 0 is
    // the last, so that the others have the tables that it speaks of.
    let (transitions, draft) = try current.withLock { registry in
      let before = registry.interface
      let draft = try next(&registry)
      if settlesDevice || draft.interface != before {
        do {
          try device.apply(draft.interface)
        } catch {
          registry.revert(draft)
          throw error
        }
      }
      let transitions = registry.commit(draft, now: .current())
      for number in workers.indices.reversed() where !workers[number].post(.take(transitions[number], adoption)) {
        adoption.report(false)
      }
      return (transitions, draft)
    }
    let isDone = await adoption.isDone()
    // What was in force goes with the transitions: here, and not on a packet thread.
    for transition in transitions { longestTakeOver.max(transition.duration, ordering: .relaxed) }
    guard isDone else { throw StoppedError() }
    return draft
  }

  /// Nanoseconds that a change has taken of a packet thread's time at most, since the last call.
  package func takeLongestTakeOver() -> UInt64 { longestTakeOver.exchange(0, ordering: .relaxed) }

  // MARK: Transports

  private static let mostTransports = 16

  private static func transportsError(_ problem: String) -> ConfigurationError {
    ConfigurationError(
      subject: .interface, setting: "transports", problem: problem,
      remedy: "hand over 1 to \(mostTransports), those added later included")
  }

  /// Opens one more transport with all workers while packets flow; paths may name it when this returns. Its sockets
  /// belong to the network namespace of the thread that has called `init`.
  ///
  /// - Returns: its position, as a `Path` names it.
  /// - Throws: what the transport's `open` throws, and then no worker has it: of several, those that had opened it
  ///   already close it, but keep the buffers that it has lent to the kernel until they stop. `ConfigurationError`
  ///   when there are 16; `StoppedError` after `stop`.
  public func add(_ transport: any Transport) async throws -> UInt8 {
    let addition = lastAddition.withLock { last in
      let addition = Task { [last] in
        _ = await last?.result
        return try await open(transport)
      }
      last = addition
      return addition
    }
    return try await addition.value
  }

  private func open(_ transport: any Transport) async throws -> UInt8 {
    let index = transportCount.load(ordering: .acquiring)
    guard index < Dataplane.mostTransports else { throw Dataplane.transportsError("there are \(index) already") }
    for (number, worker) in workers.enumerated() {
      let result: Result<Void, any Error> = await withCheckedContinuation { continuation in
        if !worker.post(.open(transport, continuation)) { continuation.resume(returning: .failure(StoppedError())) }
      }
      if case .failure(let error) = result {
        for earlier in workers[..<number] { _ = earlier.post(.closeLast) }
        throw error
      }
    }
    transportCount.store(index + 1, ordering: .releasing)
    return UInt8(truncatingIfNeeded: index)
  }

  // MARK: For those who negotiate addresses

  /// What is in force.
  var configuration: Configuration { current.withLock { $0.configuration } }

  /// What is in force of a peer, and what has to be known to negotiate with it.
  func negotiationTerms(_ peer: String) -> (prefixes: [Prefix], terms: AddressNegotiation.Terms?) {
    current.withLock { ($0.find(peer)?.record.configuration.prefixes ?? [], $0.terms(peer)) }
  }

  /// Peers that are still there.
  func apply(agreements: [(peer: String, agreement: AddressAgreement)]) async throws {
    // One of them may go meanwhile.
    for _ in 0..<3 {
      let known = current.withLock { registry in agreements.filter { registry.find($0.peer) != nil } }
      do {
        return try await apply(known.map { .agree($0.agreement, peer: $0.peer) })
      } catch is ConfigurationError {
        continue
      }
    }
  }

  /// May be lost, like any packet.
  func send(_ message: AddressCoordination.Outgoing) {
    guard let (row, record) = current.withLock({ $0.find(message.peer) }) else { return }
    _ = workers[0].post(.send(message, row: row, serial: record.serial))
  }

  func report(_ event: Event) { channel.send(event) }

  /// What an address is called on either side of each peer's tunnel.
  public func meanings(of address: IPAddress) -> [AddressMeaning] {
    current.withLock { $0.plan.meanings(of: address, $0.configuration) }
  }

  /// State changes and errors, for one reader at a time; ends after `stop`.
  public var events: EventStream { EventStream(channel: channel) }

  /// Messages of key exchanges and the like, from now on, for one reader at a time: a second call ends the stream of the
  /// first. They are nobody's yet: anybody can send one, and its path may be forged. While nobody reads they are counted
  /// (`key-exchange-ignored`) and dropped; 256 wait at most, later ones are counted (`Statistics.lostMessages`) and
  /// dropped.
  ///
  /// - Parameter isWanted: asked on a packet thread, with where it came from, before anything is copied; others are counted
  ///   (`Statistics.unwantedMessages`) and forgotten.
  public func messages(
    where isWanted: @escaping @Sendable (PacketBytes, Path) -> Bool = { _, _ in true }
  ) -> AsyncStream<PathMessage> {
    messageChannel.open(isWanted)
  }

  /// What the peers that agree upon keys need, from now on, for one reader at a time.
  public func keyNotices() -> AsyncStream<KeyNotice> { messageChannel.notices.open() }

  /// Sends a message along a path, which need be no peer's: behind four zero bytes, as RFC 3948 §2.2 and RFC 9329 §3 have
  /// it. It may be lost, like any packet.
  ///
  /// - Parameters:
  ///   - message: 1 to `PathMessage.longest` bytes, without the four.
  ///   - path: a path of one of the transports; that of a message that came answers it.
  /// - Returns: false when it has another length, there is no such transport, or the dataplane has stopped.
  @discardableResult
  public func send(message: [UInt8], along path: Path) -> Bool {
    let count = transportCount.load(ordering: .acquiring)
    guard (1...PathMessage.longest).contains(message.count), Int(path.transport) < count else { return false }
    return workers[0].post(.message(PathMessage(path: path, bytes: message)))
  }

  /// Traffic to a peer goes along a path from now on, because somebody has seen it answer there: for one that has been
  /// heard elsewhere meanwhile. Where there is a choice of paths, it is measured instead.
  public func follow(_ path: Path, of peer: String) {
    guard let (row, record) = current.withLock({ $0.find(peer) }),
      Int(path.transport) < transportCount.load(ordering: .acquiring)
    else { return }
    _ = workers[0].post(.follow(path, row: row, serial: record.serial))
  }

  /// A peer says that it can be found at a path. Where there is a choice of paths, that is asked like the others for some
  /// seconds, and is one of them when it answers; where there is none, this does nothing: see `follow(_:of:)`.
  ///
  /// - Parameter credit: bytes that came with this. Until the peer is heard there, no more go there than these and those
  ///   that came otherwise (RFC 8046 §5.6).
  public func consider(_ path: Path, of peer: String, credit: Int) {
    guard let (row, record) = current.withLock({ $0.find(peer) }),
      Int(path.transport) < transportCount.load(ordering: .acquiring)
    else { return }
    _ = workers[0].post(.consider(path, credit: credit, row: row, serial: record.serial))
  }

  /// Tells all peers that keys are agreed upon with where this side is, because its addresses may have changed. They
  /// follow as they would a packet.
  public func announce() { _ = workers[0].post(.announce) }

  // MARK: Statistics

  /// All counters as of one moment between two turns; after `stop` the last ones. It costs what all peers cost, a part
  /// of it on the packet threads: whoever wants to know of one peer asks for that.
  public func statistics() async -> Statistics {
    let reports = await askAll { .report($0) } ?? lastReport.withLock { $0 }
    var statistics = Statistics(
      reports, records: current.withLock { $0.records }, uptime: uptime, interface: device.name,
      offloads: device.offloads.names, engine: engine.rawValue, lostEvents: channel.lost,
      lostMessages: messageChannel.lost, unwantedMessages: messageChannel.unwanted)
    statistics.shares += await addresses.agent.withLock({ $0 })?.shares() ?? []
    return statistics
  }

  /// One peer's figures, in a time that does not depend on how many peers there are.
  /// - Returns: nil when there is no such peer, or after `stop`.
  public func statistics(of peer: String) async -> Statistics.Peer? {
    guard let (row, record) = current.withLock({ $0.find(peer) }) else { return nil }
    var reports: [PeerReport] = []
    for worker in workers {
      let report: PeerReport? = await withCheckedContinuation { continuation in
        if !worker.post(.peerReport(row, continuation)) { continuation.resume(returning: nil) }
      }
      if let report, report.serial == record.serial { reports.append(report) }
    }
    return Statistics.Peer(reports, record)
  }

  private var uptime: Double { Double(MonotonicTime.current().nanoseconds(since: started)) / 1e9 }

  /// Begins to capture packets, one capture at a time. Its bytes are to be taken from it until it ends.
  /// - Returns: whether it has begun.
  public func begin(_ capture: PacketCapture) async -> Bool {
    for (number, worker) in workers.enumerated() {
      let hasBegun: Bool = await withCheckedContinuation { continuation in
        if !worker.post(.capture(capture, continuation)) { continuation.resume(returning: false) }
      }
      guard hasBegun else {
        for earlier in workers[..<number] { _ = earlier.post(.endCapture(capture)) }
        return false
      }
    }
    return true
  }

  /// What all workers answer; nil when one has stopped.
  private func askAll(
    _ request: (CheckedContinuation<WorkerReport?, Never>) -> Worker.Request
  ) async -> [WorkerReport]? {
    var reports: [WorkerReport] = []
    // Worker 0 last: it has what the others hand to it, and it ends the events.
    for worker in workers.reversed() {
      let report: WorkerReport? = await withCheckedContinuation { continuation in
        if !worker.post(request(continuation)) { continuation.resume(returning: nil) }
      }
      guard let report else { return nil }
      reports.insert(report, at: 0)
    }
    return reports
  }

  /// Ends a capture; what it has can still be taken.
  public func end(_ capture: PacketCapture) {
    for worker in workers { _ = worker.post(.endCapture(capture)) }
  }

  /// What would become of a packet: which peer, rule, translation, association, path and size apply, or why it would be
  /// dropped. Nothing is sent, counted or remembered.
  ///
  /// - Parameter packet: an IP packet inside the tunnel, whole: to a peer as this side's hosts send it, or from a peer
  ///   as they would get it.
  /// - Returns: nil after `stop`.
  public func explain(_ packet: [UInt8]) async -> Explanation? {
    await withCheckedContinuation { continuation in
      if !workers[0].post(.explain(packet, continuation)) { continuation.resume(returning: nil) }
    }
  }

  /// Ends the traffic, closes device and transports. Keys are zeroed when this object goes.
  public func stop() async {
    addresses.close()
    messageChannel.close()
    if let reports = await askAll({ .stop($0) }) { lastReport.withLock { $0 = reports } }
    current.withLock { _ in device.close() }
  }

  deinit {
    // Without a `stop` the worker still has to end; the device closes with its last owner.
    addresses.close()
    messageChannel.close()
    for worker in workers.reversed() { _ = worker.post(.stop(nil)) }
  }
}

/// Waits until all workers have said whether they have taken a transition over.
final class Adoption: Sendable {
  private struct State {
    var awaited: Int
    var isComplete = true
    var waiter: CheckedContinuation<Bool, Never>?
  }
  private let state: Mutex<State>

  init(_ workers: Int) { state = Mutex(State(awaited: workers)) }

  /// - Parameter adopted: false when the worker has stopped.
  func report(_ adopted: Bool) {
    let waiter = state.withLock { state -> (CheckedContinuation<Bool, Never>, Bool)? in
      state.awaited -= 1
      state.isComplete = state.isComplete && adopted
      guard state.awaited == 0, let waiter = state.waiter else { return nil }
      return (waiter, state.isComplete)
    }
    waiter?.0.resume(returning: waiter?.1 ?? false)
  }

  func isDone() async -> Bool {
    await withCheckedContinuation { continuation in
      let result = state.withLock { state -> Bool? in
        if state.awaited == 0 { return state.isComplete }
        state.waiter = continuation
        return nil
      }
      if let result { continuation.resume(returning: result) }
    }
  }
}

/// The dataplane was stopped before.
public struct StoppedError: Error, CustomStringConvertible {
  public var description: String { "the dataplane has stopped; make a new one" }
}
