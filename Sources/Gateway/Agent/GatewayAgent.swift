import Dataplane
import Glibc
import Host
import KeyAgreement
public import Keying
public import Logging
import PacketIO
import Transports

/// A gateway that runs as its plan says: device, dataplane, records, control socket.
///
/// Everything that changes it goes through one queue and is done by one task, in order.
public final class GatewayAgent: Sendable {
  /// As the plan said at the start.
  public let name: String
  /// Path of the control socket.
  public let control: String
  private let commands: Commands
  private let work: Task<Void, Never>

  /// What may be asked of a running gateway.
  enum Command: Sendable {
    case tick
    case reload(CheckedContinuation<Void, any Error>)
    case report(CheckedContinuation<GatewayReport, any Error>)
    case map(IPAddress, CheckedContinuation<[AddressMeaning], any Error>)
    case capture(CaptureOptions, CheckedContinuation<CaptureStream, any Error>)
    case keys(CheckedContinuation<[String], any Error>)
    case explain([UInt8], CheckedContinuation<Explanation, any Error>)
    /// Answered when each packet thread has had a turn.
    case turn(CheckedContinuation<Void, any Error>)
    case stop(CheckedContinuation<Void, any Error>)
    /// What became of the agreement upon keys with a peer.
    case keyEvent(KeyAgentEvent)
    /// The dataplane's events have ended, though nobody asked.
    case dataplaneEnded
  }

  /// Where commands are put in; they are done in order.
  struct Commands: Sendable {
    let queue: AsyncStream<Command>.Continuation

    /// What the loop answers; an error when it takes no commands any more.
    func ask<Answer>(_ command: (CheckedContinuation<Answer, any Error>) -> Command) async throws -> Answer {
      try await withCheckedThrowingContinuation { continuation in
        if case .terminated = queue.yield(command(continuation)) {
          continuation.resume(throwing: GatewayAgent.stopping)
        }
      }
    }
  }

  /// Starts a gateway. On failure nothing is left behind.
  /// - Parameters:
  ///   - source: where its plan comes from, also at each reload.
  ///   - mechanisms: key encapsulations for post-quantum keys, the best first.
  /// - Throws: what the source throws; `OperatorError`, `SystemError`, `ConfigurationError`.
  public convenience init(
    _ source: any PlanSource, mechanisms: [any KeyEncapsulation] = [], logger: Logger
  ) async throws {
    try await self.init(try await source.plan(), from: source, mechanisms: mechanisms, logger: logger)
  }

  init(
    _ plan: GatewayPlan, from source: any PlanSource, mechanisms: [any KeyEncapsulation] = [], logger: Logger
  ) async throws {
    try Preflight.check()
    let (stream, queue) = AsyncStream.makeStream(of: Command.self)
    commands = Commands(queue: queue)
    let loop = try await GatewayLoop.start(plan, from: source, mechanisms, logger: logger, commands: commands)
    name = plan.name
    control = plan.control
    work = Task { await loop.run(stream) }
  }

  /// Asks the source again and puts its plan in force; on an error nothing changes.
  public func reload() async throws { try await commands.ask { .reload($0) } }

  /// The gateway, its counters and peers, as of now.
  public func report() async throws -> GatewayReport { try await commands.ask { .report($0) } }

  /// Ends the traffic, records the exact sequence numbers, and removes device and socket.
  public func stop() async {
    // One that has stopped already is what was asked for.
    try? await commands.ask { .stop($0) }
    await work.value
  }

  /// Returns when the gateway has ended, asked or not.
  public func waitUntilStopped() async { await work.value }

  static let stopping = OperatorError("the gateway is stopping", remedy: "start it again")

  /// Runs a gateway until SIGTERM or SIGINT; SIGHUP reloads it.
  ///
  /// The process gives up, for good, what rights it does not need: it is for programs, not for embedders.
  /// - Throws: as `init`; `OperatorError` when the dataplane ends by itself.
  public static func run(
    _ source: any PlanSource, mechanisms: [any KeyEncapsulation] = [], logger: Logger
  ) async throws {
    OpenSSLMemory.protect()
    OpenFiles.raiseLimit()
    try Privileges.begin(keeping: [.network, .lowPorts, .frames, .programs, .lockedMemory])
    // Before the gateway, so that a signal during the start is not lost.
    let watch = SignalWatch([SIGHUP, SIGTERM, SIGINT])
    let gateway = try await GatewayAgent(source, mechanisms: mechanisms, logger: logger)
    do {
      // For sharing it starts nft, which has no more rights than this.
      try Privileges.settle(keeping: .network, startsPrograms: true)
    } catch {
      await gateway.stop()
      throw error
    }
    let service = ServiceManager.own
    service.tell(.ready)
    let watchdog = service.watchdogInterval.map { interval in
      Task {
        while !Task.isCancelled, (try? await gateway.commands.ask { .turn($0) }) != nil {
          service.tell(.alive)
          try? await Task.sleep(for: .seconds(interval))
        }
      }
    }
    defer { watchdog?.cancel() }
    let end = Task { [continuation = watch.continuation] in
      await gateway.waitUntilStopped()
      continuation.finish()
    }
    for await signal in watch.signals {
      if signal == SIGHUP {
        // The loop logs how it went.
        try? await gateway.reload()
      } else {
        await gateway.stop()
        return
      }
    }
    await end.value
    throw OperatorError("the dataplane ended unexpectedly", remedy: "see the log above")
  }
}
