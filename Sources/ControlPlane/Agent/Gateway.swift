import Dataplane
import Foundation
import Glibc
public import Logging
import PacketIO
import Transports

/// A gateway that runs from one file: device, dataplane, records, control socket.
///
/// Everything that changes it goes through one queue and is done by one task, in order.
public final class Gateway: Sendable {
  public let name: String
  /// Path of the control socket.
  public let control: String
  private let commands: AsyncStream<Command>.Continuation
  private let work: Task<Void, Never>

  /// What may be asked of a running gateway.
  enum Command: Sendable {
    case tick
    case reload(CheckedContinuation<Void, any Error>)
    case report(CheckedContinuation<GatewayReport, any Error>)
    case map(IPAddress, CheckedContinuation<[AddressMeaning], any Error>)
    case capture(CaptureOptions, CheckedContinuation<Result<CaptureStream, OperatorError>, Never>)
    case keys(CheckedContinuation<[String], any Error>)
    case explain([UInt8], CheckedContinuation<Explanation?, any Error>)
    case stop(CheckedContinuation<Void, Never>)
    /// The dataplane's events have ended, though nobody asked.
    case dataplaneEnded
  }

  /// Starts a gateway. On failure nothing is left behind.
  /// - Parameter file: path of its configuration file.
  /// - Throws: `FileProblems`, `OperatorError`, `SystemError`, `ConfigurationError`.
  public convenience init(file path: String, logger: Logger) async throws {
    try await self.init(try GatewayFile(contentsOf: path), logger: logger)
  }

  init(_ file: GatewayFile, logger: Logger) async throws {
    try Preflight.check()
    let (stream, commands) = AsyncStream.makeStream(of: Command.self)
    let loop = try await GatewayLoop.start(file, logger: logger, commands: commands)
    name = file.name
    control = file.control
    self.commands = commands
    work = Task { await loop.run(stream) }
  }

  /// Reads the file again and puts it in force; on an error nothing changes.
  public func reload() async throws { try await Gateway.reload(commands) }

  public func report() async throws -> GatewayReport { try await Gateway.report(commands) }

  static func reload(_ commands: AsyncStream<Command>.Continuation) async throws {
    try await withCheckedThrowingContinuation { continuation in
      if case .terminated = commands.yield(.reload(continuation)) { continuation.resume(throwing: stopping) }
    }
  }

  static func report(_ commands: AsyncStream<Command>.Continuation) async throws -> GatewayReport {
    try await withCheckedThrowingContinuation { continuation in
      if case .terminated = commands.yield(.report(continuation)) { continuation.resume(throwing: stopping) }
    }
  }

  static func meanings(
    of address: IPAddress, _ commands: AsyncStream<Command>.Continuation
  ) async throws -> [AddressMeaning] {
    try await withCheckedThrowingContinuation { continuation in
      if case .terminated = commands.yield(.map(address, continuation)) { continuation.resume(throwing: stopping) }
    }
  }

  static func capture(
    _ options: CaptureOptions, _ commands: AsyncStream<Command>.Continuation
  ) async -> Result<CaptureStream, OperatorError> {
    await withCheckedContinuation { continuation in
      if case .terminated = commands.yield(.capture(options, continuation)) {
        continuation.resume(returning: .failure(stopping))
      }
    }
  }

  static func keys(_ commands: AsyncStream<Command>.Continuation) async throws -> [String] {
    try await withCheckedThrowingContinuation { continuation in
      if case .terminated = commands.yield(.keys(continuation)) { continuation.resume(throwing: stopping) }
    }
  }

  static func explain(
    _ packet: [UInt8], _ commands: AsyncStream<Command>.Continuation
  ) async throws -> Explanation {
    let explanation = try await withCheckedThrowingContinuation { continuation in
      if case .terminated = commands.yield(.explain(packet, continuation)) { continuation.resume(throwing: stopping) }
    }
    guard let explanation else { throw stopping }
    return explanation
  }

  /// Ends the traffic, records the exact sequence numbers, and removes device and socket.
  public func stop() async {
    await withCheckedContinuation { continuation in
      if case .terminated = commands.yield(.stop(continuation)) { continuation.resume() }
    }
    await work.value
  }

  /// Returns when the gateway has ended, asked or not.
  public func waitUntilStopped() async { await work.value }

  static let stopping = OperatorError("the gateway is stopping", remedy: "start it again")

  /// Runs a gateway until SIGTERM or SIGINT; SIGHUP reloads it.
  /// - Throws: as `init`; `OperatorError` when the dataplane ends by itself.
  public static func run(file path: String, logger: Logger) async throws {
    OpenFiles.raiseLimit()
    // Before the gateway, so that a signal during the start is not lost.
    let watch = SignalWatch([SIGHUP, SIGTERM, SIGINT])
    let gateway = try await Gateway(file: path, logger: logger)
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
