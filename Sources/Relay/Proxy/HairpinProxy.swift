import Glibc
public import PacketIO
import Synchronization
public import Transports

/// A hairpin proxy: allocates a port for each of two gateways that hold a ticket, and forwards sealed packets between
/// them without examining them. It has no keys but the public ones of control systems, and links no ESP.
///
/// It runs on a thread and sockets of its own, so an embedder may run it beside a dataplane.
public final class HairpinProxy: Sendable {
  private struct Shared {
    var statistics = HairpinStatistics()
    var relay: RelayStatistics?
    /// To be put in force.
    var policy: RelayPolicy?
    /// Who wants to see what the identity relay has.
    var readers: [@Sendable (RelaySnapshot?) -> Void] = []
    /// The same of who holds what.
    var shareReaders: [@Sendable (RelayShares?) -> Void] = []
    /// Who waits for a turn of the thread.
    var turns: [CheckedContinuation<Void, Never>] = []
    var stops = false
    var hasEnded = false
    var waiters: [CheckedContinuation<Void, Never>] = []
  }

  /// What the system calls the proxy's thread.
  public static let threadName = "hairpin-proxy"

  private let shared = Mutex(Shared())
  private let waker: Waker
  private let certificate: TLSContext?

  /// Opens everything in the calling thread's network namespace, and starts the thread, which inherits it. The limit
  /// of open files is raised as far as the system allows; see `HairpinProxyOptions.shortage`.
  /// - Throws: `SystemError` when an address cannot be listened on.
  public init(_ options: HairpinProxyOptions) throws(SystemError) {
    waker = try Waker()
    var server = try HairpinServer(options, clock: .current())
    server.wake(by: waker.descriptor)
    certificate = server.certificate
    let cell = StateCell(server)
    let status = startThread { self.run(&cell.reference.value) }
    guard status == 0 else {
      throw SystemError("start the proxy's thread", errno: status, remedy: "raise the limit of threads (ulimit -u)")
    }
  }

  private func run(_ server: inout HairpinServer) {
    nameThread(HairpinProxy.threadName)
    var published: UInt64 = 0
    while true {
      if server.turn(waiting: 1_000_000_000, read: { .current() }) {
        if obey(&server) { break }
        server.pollWaker()
      }
      // Not each turn: the copy would have the next count copy the whole.
      guard server.looks != published else { continue }
      published = server.looks
      publish(&server)
    }
    server.close()
    publish(&server)
    let waiters = shared.withLock { shared in
      shared.hasEnded = true
      defer { shared.waiters.removeAll() }
      return shared.waiters
    }
    for waiter in waiters { waiter.resume() }
  }

  private func publish(_ server: inout HairpinServer) {
    let (figures, relay) = (server.engine.statistics, server.identities?.statistics)
    shared.withLock { shared in
      shared.statistics = figures
      shared.relay = relay
    }
  }

  /// Does what was asked for.
  /// - Returns: whether that is to stop.
  private func obey(_ server: inout HairpinServer) -> Bool {
    waker.clear()
    let (policy, readers, shareReaders, turns, stops) = shared.withLock { shared in
      defer {
        shared.policy = nil
        (shared.readers, shared.shareReaders, shared.turns) = ([], [], [])
      }
      return (shared.policy, shared.readers, shared.shareReaders, shared.turns, shared.stops)
    }
    for waiting in turns { waiting.resume() }
    if let policy { SharedPorts.set(policy, &server) }
    if !readers.isEmpty {
      let snapshot = server.identities?.snapshot(server.engine.clock)
      for reader in readers { reader(snapshot) }
    }
    if !shareReaders.isEmpty {
      let shares = server.shares()
      for reader in shareReaders { reader(shares) }
    }
    return stops
  }

  /// Puts another policy of the identity relay in force; what it does not allow any more stops at once.
  public func update(_ policy: RelayPolicy) {
    shared.withLock { $0.policy = policy }
    waker.wake()
  }

  /// Shows another certificate at ports for encrypted streams from now on; those that are there go on.
  /// - Parameter certificate: nil: one is made.
  /// - Throws: `TLSCertificate.Problem`.
  public func update(certificate: TLSCertificate?) throws { try self.certificate?.show(certificate) }

  /// What the identity relay has; nil: it is none, or has stopped.
  public func relayReport() async -> RelayReport? {
    await withCheckedContinuation { continuation in relaySnapshot { continuation.resume(returning: $0) } }?.report
  }

  /// The same for who waits on a thread of its own, and has it put into words there.
  /// - Parameter take: called once, on the proxy's thread or on this one; it must not wait.
  public func relaySnapshot(_ take: @escaping @Sendable (RelaySnapshot?) -> Void) {
    let hasEnded = shared.withLock { shared in
      if !shared.hasEnded, !shared.stops { shared.readers.append(take) }
      return shared.hasEnded || shared.stops
    }
    if hasEnded { take(nil) } else { waker.wake() }
  }

  /// Who holds how much of what all share, for who waits on a thread of its own; nil: it has stopped.
  /// - Parameter take: called once, on the proxy's thread or on this one; it must not wait.
  public func shares(_ take: @escaping @Sendable (RelayShares?) -> Void) {
    let hasEnded = shared.withLock { shared in
      if !shared.hasEnded, !shared.stops { shared.shareReaders.append(take) }
      return shared.hasEnded || shared.stops
    }
    if hasEnded { take(nil) } else { waker.wake() }
  }

  /// Returns when the proxy's thread has had a turn, or has ended: so it is seen to work.
  public func turn() async {
    await withCheckedContinuation { continuation in
      let hasEnded = shared.withLock { shared in
        if !shared.hasEnded, !shared.stops { shared.turns.append(continuation) }
        return shared.hasEnded || shared.stops
      }
      if hasEnded { continuation.resume() } else { waker.wake() }
    }
  }

  /// The identity relay's figures, not older than a fifth of a second; nil: it is none.
  public var relayStatistics: RelayStatistics? { shared.withLock { $0.relay } }

  /// Figures, not older than a fifth of a second.
  public var statistics: HairpinStatistics { shared.withLock { $0.statistics } }

  /// Ends all hairpins, tells their gateways, leaves the records, and closes. Returns when that is done.
  public func stop() async {
    await withCheckedContinuation { continuation in
      let hasEnded = shared.withLock { shared in
        shared.stops = true
        if !shared.hasEnded { shared.waiters.append(continuation) }
        return shared.hasEnded
      }
      if hasEnded { continuation.resume() } else { waker.wake() }
    }
  }
}

extension HairpinClock {
  /// What the kernel's clocks say.
  public static func current() -> HairpinClock {
    HairpinClock(monotonic: .current(), wall: Int64(time(nil)))
  }
}
