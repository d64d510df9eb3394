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
    /// Packet buffers of a worker, 96 to 65535, each `BufferPool.bufferSize` bytes of address space of which
    /// only touched pages count: the memory budget.
    public var buffers = 192
    /// Buffers the kernel may hold for reads of the TUN device; a power of two, 2 to 64.
    public var readBuffers = 32
    /// Which library seals and opens; nil: the fastest that the CPU and the build have.
    public var engine: CipherEngine?
    /// Kernel features to use; narrowed by tests to see an older kernel.
    public var ringFeatures: RingFeatures = .all
    /// Seconds after which a path is asked again whether it takes larger packets (RFC 8899: PMTU_RAISE_TIMER).
    public var pathMTURaiseInterval = 600.0
    /// Set by the benchmark only, to measure the path without its cryptography.
    package var sealingLeftOut = false

    public init() {}
  }

  private let worker: Worker
  private let device: TunDevice
  private let channel: EventChannel
  private let started: MonotonicTime
  private let engine: CipherEngine
  private let transportCount: Int
  private let addresses: AddressInbox
  /// What is in force. Also orders concurrent calls of `apply`.
  private let current: Mutex<Snapshot>
  private let lastReport = Mutex<WorkerReport?>(nil)

  /// Validates everything, opens the device and the transports, and starts to carry packets. Blocks for some
  /// milliseconds; on an error nothing is left behind.
  ///
  /// - Parameter transports: 1 to 16; a `Path` names one by its position.
  /// - Throws: `ConfigurationError`, `SystemError`.
  public init(_ configuration: Configuration, transports: [any Transport], options: Options = Options()) throws {
    precondition((1...16).contains(transports.count), "hand over 1 to 16 transports")
    let engine = options.engine ?? CipherEngine.available[0]
    guard CipherEngine.available.contains(engine) else {
      throw ConfigurationError(
        subject: .interface, setting: "engine", problem: "\(engine.rawValue) is not available on this machine",
        remedy: "leave the choice open, or install the library and build again")
    }
    try configuration.validate(transports: transports.count, engine: engine)
    let now = MonotonicTime.current()
    let tables = Snapshot(
      configuration, previous: nil, sealing: options.sealingLeftOut ? .leftOut : .by(engine), now: now)
    let channel = EventChannel()
    let addresses = AddressInbox()
    let device = try TunDevice(tables.plan.interface)
    // Before anything else can happen that is worth an event.
    channel.send(
      .started(
        interface: device.name, engine: options.sealingLeftOut ? nil : engine, offloads: device.offloads,
        refusedOffloads: device.refusedOffloads))
    do {
      worker = try Worker(
        device: device, transports: transports, tables: tables, events: channel, addresses: addresses,
        options: options)
    } catch {
      device.close()
      throw error
    }
    self.device = device
    self.channel = channel
    self.engine = engine
    started = now
    transportCount = transports.count
    self.addresses = addresses
    current = Mutex(tables)
    let agent = AddressAgent(inbox: addresses, worker: worker, dataplane: self)
    Task { await agent.run() }
  }

  /// Puts another configuration in force, atomically, between two turns of the worker: packets before are handled
  /// by the old one, packets after by the new. Peers and associations that stay the same keep their state; keys
  /// that are gone are zeroed. Applying what is in force changes nothing. On an error nothing changes.
  ///
  /// - Throws: `ConfigurationError`, `SystemError`; `StoppedError` after `stop`.
  public func apply(_ configuration: Configuration) async throws {
    try await publish { current in
      try configuration.validate(transports: transportCount, engine: engine, running: current.configuration)
      return Snapshot(configuration, previous: current, sealing: current.sealing, now: .current())
    }
    addresses.putConfiguration()
  }

  /// What is in force.
  var configuration: Configuration { current.withLock(\.configuration) }

  /// Puts in force what was negotiated with peers, by name, in place of all that was before. The configuration stays.
  /// - Throws: `SystemError` when the device's routes cannot follow; `StoppedError` after `stop`.
  package func apply(agreements: [String: AddressAgreement]) async throws {
    let before = current.withLock(\.agreements)
    try await publish { current in
      Snapshot(
        current.configuration, agreements: agreements, previous: current, sealing: current.sealing, now: .current())
    }
    for (peer, agreement) in agreements where agreement != before[peer] {
      channel.send(.addressesAgreed(peer: peer, agreement))
    }
  }

  func report(_ event: Event) { channel.send(event) }

  /// What an address is called on either side of each peer's tunnel.
  public func meanings(of address: IPAddress) -> [AddressMeaning] {
    current.withLock { $0.plan.meanings(of: address, $0.configuration) }
  }

  /// Returns when the worker has taken the next snapshot over.
  private func publish(_ next: (Snapshot) throws -> Snapshot) async throws {
    let adopted: Bool = try await withCheckedThrowingContinuation { continuation in
      do {
        // Posted under the lock, so that the worker takes snapshots over in the order of their succession.
        try current.withLock { current in
          let tables = try next(current)
          try device.apply(tables.plan.interface)
          current = tables
          if !worker.post(.adopt(current, continuation)) { continuation.resume(returning: false) }
        }
      } catch {
        continuation.resume(throwing: error)
      }
    }
    guard adopted else { throw StoppedError() }
  }

  /// State changes and errors, for one reader at a time; ends after `stop`.
  public var events: EventStream { EventStream(channel: channel) }

  /// All counters as of one moment between two turns; after `stop` the last ones.
  public func statistics() async -> Statistics {
    let answer: WorkerReport? = await withCheckedContinuation { continuation in
      if !worker.post(.report(continuation)) { continuation.resume(returning: nil) }
    }
    let report = answer ?? lastReport.withLock { $0 }
    return Statistics(
      report, uptime: Double(MonotonicTime.current().nanoseconds(since: started)) / 1e9, interface: device.name,
      offloads: device.offloads.names, engine: engine.rawValue, lostEvents: channel.lost)
  }

  /// Begins to capture packets, one capture at a time. Its bytes are to be taken from it until it ends.
  /// - Returns: whether it has begun.
  public func begin(_ capture: PacketCapture) async -> Bool {
    await withCheckedContinuation { continuation in
      if !worker.post(.capture(capture, continuation)) { continuation.resume(returning: false) }
    }
  }

  /// Ends a capture; what it has can still be taken.
  public func end(_ capture: PacketCapture) { _ = worker.post(.endCapture(capture)) }

  /// What would become of a packet: which peer, rule, translation, association, path and size apply, or why it would be
  /// dropped. Nothing is sent, counted or remembered.
  ///
  /// - Parameter packet: an IP packet inside the tunnel, whole: to a peer as this side's hosts send it, or from a peer as
  ///   they would get it.
  /// - Returns: nil after `stop`.
  public func explain(_ packet: [UInt8]) async -> Explanation? {
    await withCheckedContinuation { continuation in
      if !worker.post(.explain(packet, continuation)) { continuation.resume(returning: nil) }
    }
  }

  /// Ends the traffic, closes device and transports. Keys are zeroed when this object goes.
  public func stop() async {
    addresses.close()
    let report: WorkerReport? = await withCheckedContinuation { continuation in
      if !worker.post(.stop(continuation)) { continuation.resume(returning: nil) }
    }
    if let report { lastReport.withLock { $0 = report } }
    current.withLock { _ in device.close() }
  }

  deinit {
    // Without a `stop` the worker still has to end; the device closes with its last owner.
    addresses.close()
    _ = worker.post(.stop(nil))
  }
}

/// The dataplane was stopped before.
public struct StoppedError: Error, CustomStringConvertible {
  public var description: String { "the dataplane has stopped; make a new one" }
}
