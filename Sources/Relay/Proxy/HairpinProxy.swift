import CLinux
import Glibc
public import PacketIO
import Synchronization

/// A hairpin proxy: allocates a port for each of two gateways that hold a ticket, and forwards sealed packets between
/// them without examining them. It has no keys but the public ones of control systems, and links no ESP.
///
/// It runs on a thread and sockets of its own, so an embedder may run it beside a dataplane.
public final class HairpinProxy: Sendable {
  private struct Shared {
    var statistics = HairpinStatistics()
    var stops = false
    var hasEnded = false
    var waiters: [CheckedContinuation<Void, Never>] = []
  }

  private final class Start {
    let server: StateCell<HairpinServer>
    let proxy: HairpinProxy

    init(server: consuming HairpinServer, proxy: HairpinProxy) {
      self.server = StateCell(server)
      self.proxy = proxy
    }
  }

  /// What the system calls the proxy's thread.
  public static let threadName = "hairpin-proxy"

  private let shared = Mutex(Shared())
  private let waker: Waker

  /// Opens everything in the calling thread's network namespace, and starts the thread, which inherits it. The limit
  /// of open files is raised as far as the system allows; see `HairpinProxyOptions.shortage`.
  /// - Throws: `SystemError` when an address cannot be listened on.
  public init(_ options: HairpinProxyOptions) throws(SystemError) {
    waker = try Waker()
    var server = try HairpinServer(options, clock: .current())
    server.wake(by: waker.descriptor)
    let start = unsafe Unmanaged.passRetained(Start(server: server, proxy: self))
    var thread = pthread_t()
    let status = unsafe pthread_create(
      &thread, nil,
      { argument in
        let start = unsafe Unmanaged<Start>.fromOpaque(argument!).takeRetainedValue()
        start.proxy.run(&start.server.reference.value)
        return nil
      }, start.toOpaque())
    guard status == 0 else {
      unsafe start.release()
      throw SystemError("start the proxy's thread", errno: status, remedy: "raise the limit of threads (ulimit -u)")
    }
    pthread_detach(thread)
  }

  private func run(_ server: inout HairpinServer) {
    _ = unsafe culvert_set_thread_name(HairpinProxy.threadName)
    var published: UInt64 = 0
    while true {
      // Only `stop` wakes it.
      if server.turn(waiting: 1_000_000_000, read: { .current() }) { break }
      // Not each turn: the copy would have the next count copy the whole.
      guard server.looks != published else { continue }
      published = server.looks
      shared.withLock { $0.statistics = server.engine.statistics }
    }
    server.close()
    let waiters = shared.withLock { shared in
      shared.statistics = server.engine.statistics
      shared.hasEnded = true
      defer { shared.waiters.removeAll() }
      return shared.waiters
    }
    for waiter in waiters { waiter.resume() }
  }

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
