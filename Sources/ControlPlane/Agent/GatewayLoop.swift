import Dataplane
import Foundation
import Logging
import PacketIO
import Transports

/// The one task that works for a gateway: owns its file, records and dataplane, and takes commands in order.
actor GatewayLoop {
  /// What a gateway holds while it runs.
  private struct Parts {
    var keeper: SequenceKeeper
    let dataplane: Dataplane
    let server: ControlServer
    var sharing: ConnectionSharing
    /// Nil where no peer had such a path at the start.
    let hairpins: HairpinTransport?
  }

  private var file: GatewayFile
  private var keeper: SequenceKeeper
  private let dataplane: Dataplane
  private let server: ControlServer
  private let hairpins: HairpinTransport?
  private var sharing: ConnectionSharing
  private let logger: Logger
  private let commands: AsyncStream<Gateway.Command>.Continuation
  private var isStopped = false
  private var lastReceivedRecord = MonotonicTime.current()
  private var failures = 0
  /// When somebody last asked for something, which takes much code that packets do not need; nil: it was let go since.
  private var lastAsked: MonotonicTime? = .current()
  /// By peer.
  private var findings: [String: ReachFinding] = [:]

  /// Seconds between two looks at the leases, with traffic and without.
  private static let busyInterval = 0.2
  private static let idleInterval = 1.0

  private init(
    _ file: GatewayFile, _ parts: Parts, logger: Logger, commands: AsyncStream<Gateway.Command>.Continuation
  ) {
    self.file = file
    keeper = parts.keeper
    dataplane = parts.dataplane
    server = parts.server
    sharing = parts.sharing
    hairpins = parts.hairpins
    self.logger = logger
    self.commands = commands
  }

  /// Starts everything, or nothing.
  static func start(
    _ file: GatewayFile, logger: Logger, commands: AsyncStream<Gateway.Command>.Continuation
  ) async throws -> GatewayLoop {
    var logger = logger
    logger[metadataKey: "gateway"] = "\(file.name)"
    let directory = try StateDirectory(file.state)
    do {
      let parts = try await open(file, directory, commands)
      let loop = GatewayLoop(file, parts, logger: logger, commands: commands)
      await loop.begin()
      return loop
    } catch {
      directory.removeIfUnused()
      throw error
    }
  }

  /// Keys are looked up before the control socket refuses a second gateway of this name, and the device comes last.
  /// The first sequence numbers are leased when all else has succeeded: a failed start costs none.
  private static func open(
    _ file: GatewayFile, _ directory: StateDirectory, _ commands: AsyncStream<Gateway.Command>.Continuation
  ) async throws -> Parts {
    var keeper = try SequenceKeeper(directory, looksAtSiblings: !file.stateIsExplicit)
    let configuration = try keeper.prepare(file, reserve: false)
    let server = try ControlServer(
      path: file.control, answer: { await answer($0, commands) },
      stream: { await Gateway.capture($0.capture ?? CaptureOptions(inner: true, outer: true), commands) })
    do {
      var options = Dataplane.Options()
      options.engine = file.engine
      options.workers = file.workers
      // Paths name a transport by its place in this list.
      var transports: [any Transport] = [
        UDPTransport(port: file.listen.port, address: file.listen.address),
        TCPTransport(port: file.listenTCP?.port, address: file.listenTCP?.address),
      ]
      let hairpins = file.hairpins.isEmpty ? nil : HairpinTransport(file.hairpins.map(\.entry))
      if let hairpins {
        transports.append(hairpins)
        options.buffers += 64
      }
      let dataplane = try Dataplane(configuration, transports: transports, options: options)
      var sharing = ConnectionSharing(state: file.state)
      do {
        try sharing.apply(file.sharingRuleset)
        try keeper.commit()
      } catch {
        try? sharing.remove()
        await dataplane.stop()
        throw error
      }
      return Parts(keeper: keeper, dataplane: dataplane, server: server, sharing: sharing, hairpins: hairpins)
    } catch {
      server.stop()
      throw error
    }
  }

  private func begin() {
    let log = EventLog(logger: logger)
    Task { [events = dataplane.events, commands] in
      for await event in events {
        log.write(event)
        if case .failed = event { break }
      }
      commands.yield(.dataplaneEnded)
    }
    schedule(GatewayLoop.busyInterval)
    logger.notice(
      "gateway runs",
      metadata: [
        "listen": "\(file.listen)", "listen-tcp": "\(file.listenTCP.map { "\($0)" } ?? "no")",
        "peers": "\(file.peers.count)", "control": "\(file.control)",
      ])
    if file.sharing != nil, let warning = SharingRuleset.warning { logger.warning("\(warning)") }
  }

  /// Works until the gateway has stopped and everybody who asked has an answer.
  func run(_ stream: AsyncStream<Gateway.Command>) async {
    for await command in stream {
      switch command {
      case .tick where isStopped, .dataplaneEnded where isStopped: break
      case .tick:
        schedule(await tick())
        continue
      case .dataplaneEnded:
        logger.critical("the dataplane ended unexpectedly")
        await shutDown()
      case .stop(let continuation):
        await shutDown()
        continuation.resume()
      case .report(let continuation):
        if isStopped {
          continuation.resume(throwing: Gateway.stopping)
        } else {
          continuation.resume(returning: await report())
        }
      case .map(let address, let continuation):
        if isStopped {
          continuation.resume(throwing: Gateway.stopping)
        } else {
          continuation.resume(returning: dataplane.meanings(of: address))
        }
      case .capture(let options, let continuation):
        continuation.resume(returning: isStopped ? .failure(Gateway.stopping) : await capture(options))
      case .keys(let continuation): continuation.resume(returning: TsharkKeys.lines(file))
      case .explain(let packet, let continuation):
        continuation.resume(returning: isStopped ? nil : await dataplane.explain(packet))
      case .reload(let continuation):
        do {
          try await reload()
          continuation.resume()
        } catch {
          log("the old configuration stays", error)
          continuation.resume(throwing: error)
        }
      }
      lastAsked = .current()
    }
  }

  private func schedule(_ seconds: Double) {
    Task { [commands] in
      try? await Task.sleep(for: .seconds(seconds))
      commands.yield(.tick)
    }
  }

  // MARK: Work

  private func report() async -> GatewayReport {
    var shared: SharingReport?
    if let configuration = file.sharing, let ruleset = sharing.inForce {
      shared = SharingReport(configuration, ruleset)
    }
    return GatewayReport(file, statistics: await dataplane.statistics(), sharing: shared)
  }

  /// - Returns: seconds until the next.
  private func tick() async -> Double {
    let statistics = await dataplane.statistics()
    let now = MonotonicTime.current()
    var progress = keeper.raiseLeases(statistics)
    if now.nanoseconds(since: lastReceivedRecord) >= 900_000_000 {
      lastReceivedRecord = now
      progress.merge(keeper.recordReceived(statistics))
    }
    report(progress)
    reportFindings(statistics)
    if let asked = lastAsked, now.nanoseconds(since: asked) >= 1_000_000_000 {
      LibraryPages.release()
      lastAsked = nil
    }
    return progress.isActive ? GatewayLoop.busyInterval : GatewayLoop.idleInterval
  }

  /// What the paths to a peer have shown, when it is news.
  private func reportFindings(_ statistics: Statistics) {
    for peer in statistics.peers where peer.paths.count > 1 {
      guard let finding = ReachFinding(peer), findings[peer.name] != finding else { continue }
      findings[peer.name] = finding
      logger.info("\(finding.text(peer: peer.name))", metadata: ["peer": "\(peer.name)"])
    }
    let names = Set(statistics.peers.map(\.name))
    findings = findings.filter { names.contains($0.key) }
  }

  /// Errors repeat until somebody frees the disk: one line every few seconds is enough.
  private func report(_ progress: SequenceKeeper.Progress) {
    failures = progress.errors.isEmpty ? 0 : failures + 1
    guard failures % 50 == 1 else { return }
    for error in progress.errors { log("sequence numbers cannot be recorded; traffic will stop", error) }
  }

  private func capture(_ options: CaptureOptions) async -> Result<CaptureStream, OperatorError> {
    guard options.snapLength.map((64...65_575).contains) ?? true, options.count.map({ $0 > 0 }) ?? true else {
      return .failure(OperatorError("the limits make no sense", remedy: "keep 64 to 65575 bytes of one packet or more"))
    }
    if let peer = options.peer, !file.peers.contains(where: { $0.configuration.name == peer }) {
      return .failure(OperatorError("there is no peer \(peer)", remedy: "name one that 'culvert show' lists"))
    }
    var request = PacketCapture.Request()
    request.inner = options.inner
    request.outer = options.outer
    request.count = options.count
    request.snapLength = options.snapLength ?? request.snapLength
    request.peer = options.peer
    request.localPort = file.listen.port
    request.local = file.listen.address.map { Endpoint(address: $0, port: file.listen.port) }
    let now = MonotonicTime.current()
    request.epoch = UInt64(Date().timeIntervalSince1970 * 1e9) &- now.nanoseconds
    let capture = PacketCapture(request)
    guard await dataplane.begin(capture) else {
      return .failure(OperatorError("a capture is under way already", remedy: "wait until it has ended"))
    }
    logger.notice("a capture has begun")
    return .success(
      CaptureStream(take: { capture.take() }, end: { [dataplane] in dataplane.end(capture) }))
  }

  private func reload() async throws {
    if isStopped { throw Gateway.stopping }
    let new = try GatewayFile(contentsOf: file.path)
    try checkUnchanged(new)
    // Up to this moment, so that an association that starts anew does not accept what it had before.
    report(keeper.recordReceived(await dataplane.statistics()))
    let configuration = try keeper.prepare(new, reserve: true)
    hairpins?.update(new.hairpins.map(\.entry))
    do {
      try sharing.apply(new.sharingRuleset)
      try await dataplane.apply(configuration)
    } catch {
      hairpins?.update(file.hairpins.map(\.entry))
      keeper.rollBack()
      try? sharing.apply(file.sharingRuleset)
      throw error
    }
    file = new
    try keeper.commit()
    logger.notice("configuration reloaded", metadata: ["peers": "\(new.peers.count)"])
  }

  /// Some settings belong to what was opened at the start.
  private func checkUnchanged(_ new: GatewayFile) throws {
    let fixed = [
      ("name", new.name == file.name), ("listen", new.listen == file.listen),
      ("listen-tcp", new.listenTCP == file.listenTCP),
      ("interface: name", new.interface.source == file.interface.source), ("control", new.control == file.control),
      ("state", new.state == file.state), ("engine", new.engine == file.engine),
      ("workers", new.workers == file.workers),
      ("whether there are hairpin paths", hairpins != nil || new.hairpins.isEmpty),
      ("firewall: flows", new.firewall.flowCapacity == file.firewall.flowCapacity),
      ("firewall: pending-flows", new.firewall.pendingCapacity == file.firewall.pendingCapacity),
    ]
    if let (setting, _) = fixed.first(where: { !$0.1 }) {
      throw FileProblem(
        file: file.path, problem: "\(setting) cannot change while the gateway runs",
        remedy: "restart it, or change it back")
    }
  }

  private func shutDown() async {
    if isStopped { return }
    isStopped = true
    // Commands that are under way already are still answered.
    commands.finish()
    server.stop()
    do {
      try sharing.remove()
    } catch {
      log("the rules of connection sharing cannot be removed", error)
    }
    await dataplane.stop()
    for error in keeper.finish(await dataplane.statistics()).errors {
      log("sequence numbers cannot be recorded exactly; some will be skipped", error)
    }
    logger.notice("gateway has stopped")
  }

  private func log(_ what: Logger.Message, _ error: any Error) {
    for line in "\(error)".split(separator: "\n") { logger.error(what, metadata: ["error": "\(line)"]) }
  }

  // MARK: Control socket

  private static func answer(
    _ request: ControlRequest, _ commands: AsyncStream<Gateway.Command>.Continuation
  ) async -> ControlReply {
    do {
      switch request.request {
      case .map:
        guard let address = request.address.flatMap({ IPAddress($0) }) else {
          return ControlReply(error: "the address is missing or not one; write 192.168.1.5 or fd00:1::5")
        }
        return ControlReply(meanings: try await Gateway.meanings(of: address, commands))
      case .capture: return ControlReply(error: "a capture is no answer")
      case .keys: return ControlReply(keys: try await Gateway.keys(commands))
      case .explain:
        guard let packet = request.packet.flatMap({ Data(base64Encoded: $0) }) else {
          return ControlReply(error: "the packet is missing or not in base64")
        }
        return ControlReply(explanation: try await Gateway.explain(Array(packet), commands))
      case .statistics: return ControlReply(report: try await Gateway.report(commands))
      case .reload:
        try await Gateway.reload(commands)
        return ControlReply()
      }
    } catch {
      return ControlReply(error: "\(error)")
    }
  }
}
