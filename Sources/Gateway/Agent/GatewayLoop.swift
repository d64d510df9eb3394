import Dataplane
import Foundation
import Host
import KeyAgreement
import Keying
import Logging
import PacketIO
import Transports

/// The one task that works for a gateway: owns its plan, records and dataplane, and takes commands in order.
actor GatewayLoop {
  /// What a gateway holds while it runs.
  private struct Parts {
    /// Nil without manual keys.
    var keeper: SequenceKeeper?
    let dataplane: Dataplane
    let keys: KeyAgent
    let server: ControlServer
    var filter: KernelFilter
    let transports: GatewayTransports
    let relayFilter: RelayFilter
  }

  private var plan: GatewayPlan
  private let source: any PlanSource
  private var keeper: SequenceKeeper?
  private let dataplane: Dataplane
  private let addresses = AddressWatch()
  /// What peers were told last of where this gateway is.
  private var locators: [Endpoint] = []
  private let keys: KeyAgent
  private let relays: RelayAgent
  private let server: ControlServer
  private var transports: GatewayTransports
  private var filter: KernelFilter
  private let logger: Logger
  private var eventLog: EventLog
  private let commands: GatewayAgent.Commands
  private var isStopped = false
  private var lastReceivedRecord = MonotonicTime.current()
  private var failures = 0
  private var hasToldOfSwap = false
  /// By peer.
  private var findings: [String: ReachFinding] = [:]
  /// The first peer to be asked about the next time.
  private var nextFinding = (place: 0, after: MonotonicTime.current())
  private static let findingsAtOnce = 16

  /// Seconds between two looks at the leases, with traffic and without.
  private static let busyInterval = 0.2
  private static let idleInterval = 1.0

  private init(
    _ plan: GatewayPlan, from source: any PlanSource, _ parts: Parts, logger: Logger, commands: GatewayAgent.Commands
  ) {
    self.plan = plan
    self.source = source
    keeper = parts.keeper
    dataplane = parts.dataplane
    keys = parts.keys
    server = parts.server
    filter = parts.filter
    transports = parts.transports
    relays = RelayAgent(parts.dataplane, parts.keys, parts.relayFilter, logger)
    self.logger = logger
    eventLog = EventLog(logger, now: .current())
    self.commands = commands
  }

  /// Starts everything, or nothing.
  static func start(
    _ plan: GatewayPlan, from source: any PlanSource, _ mechanisms: [any KeyEncapsulation], logger: Logger,
    commands: GatewayAgent.Commands
  ) async throws -> GatewayLoop {
    var logger = logger
    logger[metadataKey: "gateway"] = "\(plan.name)"
    var keeper = try SequenceKeeper(of: plan, logger)
    do {
      let parts = try await open(plan, &keeper, mechanisms, commands)
      let loop = GatewayLoop(plan, from: source, parts, logger: logger, commands: commands)
      await loop.begin()
      await loop.set(plan.peers)
      await loop.relays.set(plan)
      return loop
    } catch {
      keeper?.abandon()
      throw error
    }
  }

  /// Keys are looked up before the control socket refuses a second gateway of this name, and the device comes last.
  /// The first sequence numbers are leased before there is anything to be sealed; a failed start gives them back.
  private static func open(
    _ plan: GatewayPlan, _ keeper: inout SequenceKeeper?, _ mechanisms: [any KeyEncapsulation],
    _ commands: GatewayAgent.Commands
  ) async throws -> Parts {
    let configuration = try keeper?.prepare(plan, reserve: true) ?? plan.configuration
    var server: ControlServer?
    do {
      let control = try ControlServer(
        path: plan.control, answer: { await answer($0, commands) },
        stream: { request in
          try await commands.ask { .capture(request.capture ?? CaptureOptions(inner: true, outer: true), $0) }
        })
      server = control
      var options = Dataplane.Options()
      options.engine = plan.engine
      options.workers = plan.workers
      let transports = GatewayTransports(plan)
      // Hairpins may come with a reload.
      options.buffers += 64
      let dataplane = try Dataplane(configuration, transports: transports.list, options: options)
      var filter = KernelFilter(record: "\(plan.control).nft")
      do {
        try filter.apply(plan.filterRuleset)
        try keeper?.commit()
      } catch {
        try? filter.remove()
        await dataplane.stop()
        throw error
      }
      let relayFilter = RelayFilter()
      let keys = KeyAgent(dataplane, KeyExchange.Settings(workers: plan.workers, mechanisms: mechanisms)) {
        relayFilter.admits($0, from: $1, now: .current())
      }
      return Parts(
        keeper: keeper, dataplane: dataplane, keys: keys, server: control, filter: filter,
        transports: transports, relayFilter: relayFilter)
    } catch {
      server?.stop()
      throw error
    }
  }

  private func begin() {
    Task { [events = dataplane.events, commands] in
      for await event in events {
        log(event)
        if case .transportError(_, let path, _, _) = event { await relays.failed(path) }
        if case .failed = event { break }
      }
      commands.queue.yield(.dataplaneEnded)
    }
    Task { [events = keys.events, commands] in
      for await event in events { commands.queue.yield(.keyEvent(event)) }
    }
    if let addresses {
      locators = plan.locators()
      Task { [weak self, changes = addresses.changes] in for await _ in changes { await self?.followAddresses() } }
    }
    schedule(GatewayLoop.busyInterval)
    logger.notice(
      "gateway runs",
      metadata: [
        "listen": "\(plan.listen)", "listen-tcp": "\(plan.listenTCP.map { "\($0)" } ?? "no")",
        "listen-tls": "\(plan.listenTLS.map { "\($0)" } ?? "no")",
        "peers": "\(plan.peers.count)", "control": "\(plan.control)",
      ])
    if plan.sharing != nil, let warning = FilterRuleset.warning { logger.warning("\(warning)") }
    logProblems()
  }

  /// Addresses of this machine have changed, which may be those by which peers find it.
  private func followAddresses() async {
    dataplane.announce()
    let now = plan.locators()
    guard !now.isEmpty, now != locators else { return }
    locators = now
    await keys.move(to: now)
    await relays.follow(own: now)
  }

  /// Keys are agreed upon with those peers of a plan that it is to be done with.
  private func set(_ peers: [PlannedPeer]) async {
    await keys.reserve(peers.flatMap(\.configuration.inbound).map(\.spi))
    for peer in peers { if let planned = peer.keys { await keys.set(planned.partner, planned.terms) } }
    await keys.start()
  }

  /// Works until the gateway has stopped and everybody who asked has an answer.
  func run(_ stream: AsyncStream<GatewayAgent.Command>) async {
    for await command in stream {
      switch command {
      case .tick where isStopped, .dataplaneEnded where isStopped, .keyEvent where isStopped: break
      case .keyEvent(let event): eventLog.log(event, now: .current())
      case .tick: schedule(await tick())
      case .dataplaneEnded:
        logger.critical("the dataplane ended unexpectedly")
        await shutDown()
      case .stop(let continuation):
        await shutDown()
        continuation.resume()
      case .report(let continuation): await answer(continuation) { await self.report() }
      case .map(let address, let continuation):
        await answer(continuation) { [dataplane] in dataplane.meanings(of: address) }
      case .capture(let options, let continuation):
        await answer(continuation) { try await self.capture(options) }
      case .keys(let continuation):
        await answer(continuation) { [plan, keys] in
          TsharkKeys.lines(plan, agreed: await keys.associations())
        }
      case .turn(let continuation):
        await answer(continuation) { [plan, dataplane] in
          // Of any peer, since each thread is asked for its part.
          if let peer = plan.peers.first?.configuration.name {
            _ = await dataplane.statistics(of: peer)
          } else {
            _ = await dataplane.statistics()
          }
        }
      case .explain(let packet, let continuation):
        await answer(continuation) { [dataplane] in
          guard let explanation = await dataplane.explain(packet) else { throw GatewayAgent.stopping }
          return explanation
        }
      case .reload(let continuation): await answer(continuation) { try await self.reload() }
      }
    }
  }

  private func answer<Answer: Sendable>(
    _ continuation: CheckedContinuation<Answer, any Error>, _ work: () async throws -> Answer
  ) async {
    do {
      if isStopped { throw GatewayAgent.stopping }
      continuation.resume(returning: try await work())
    } catch {
      continuation.resume(throwing: error)
    }
  }

  private func schedule(_ seconds: Double) {
    Task { [commands] in
      try? await Task.sleep(for: .seconds(seconds))
      commands.queue.yield(.tick)
    }
  }

  // MARK: Work

  private func report() async -> GatewayReport {
    var shared: SharingReport?
    if let configuration = plan.sharing, let ruleset = filter.inForce {
      shared = SharingReport(configuration, ruleset)
    }
    var statistics = await dataplane.statistics()
    statistics.shares.append(await keys.share())
    return GatewayReport(
      plan, from: source.origin, statistics: statistics, sharing: shared,
      refusals: keeper?.refusals ?? [], hairpins: transports.hairpins, keys: await keys.statuses(),
      relays: await relays.reports(), translators: await relays.translators())
  }

  /// - Returns: seconds until the next.
  private func tick() async -> Double {
    let now = MonotonicTime.current()
    var progress = keeper?.raiseLeases() ?? SequenceKeeper.Progress()
    if now.nanoseconds(since: lastReceivedRecord) >= 900_000_000 {
      lastReceivedRecord = now
      if let received = keeper?.recordReceived() { progress.merge(received) }
    }
    report(progress)
    eventLog.flush(now: now)
    await reportFindings(now: now)
    return progress.isActive ? GatewayLoop.busyInterval : GatewayLoop.idleInterval
  }

  /// What the paths to a peer have shown, when it is news.
  ///
  /// Only those with a choice of paths are asked about, some at a time.
  private func reportFindings(now: MonotonicTime) async {
    guard now.nanoseconds(since: nextFinding.after) >= 900_000_000 else { return }
    nextFinding.after = now
    let names = plan.peers.map(\.configuration).filter { $0.paths.count > 1 }.map(\.name)
    for place in 0..<min(names.count, GatewayLoop.findingsAtOnce) {
      let name = names[(nextFinding.place + place) % names.count]
      guard let peer = await dataplane.statistics(of: name), peer.paths.count > 1, let finding = ReachFinding(peer),
        findings[name] != finding
      else { continue }
      findings[name] = finding
      eventLog.log(finding, of: name, now: now)
    }
    nextFinding.place = names.isEmpty ? 0 : (nextFinding.place + GatewayLoop.findingsAtOnce) % names.count
    let known = Set(names)
    findings = findings.filter { known.contains($0.key) }
  }

  /// Errors repeat until somebody frees the disk: one line every few seconds is enough.
  private func report(_ progress: SequenceKeeper.Progress) {
    failures = progress.errors.isEmpty ? 0 : failures + 1
    guard failures % 50 == 1 else { return }
    for error in progress.errors { log("sequence numbers cannot be recorded; traffic will stop", error) }
  }

  private func capture(_ options: CaptureOptions) async throws -> CaptureStream {
    guard options.snapLength.map((64...65_575).contains) ?? true, options.count.map({ $0 > 0 }) ?? true else {
      throw OperatorError("the limits make no sense", remedy: "keep 64 to 65575 bytes of one packet or more")
    }
    if let peer = options.peer, !plan.peers.contains(where: { $0.configuration.name == peer }) {
      throw OperatorError("there is no peer \(peer)", remedy: "name one that 'culvert show' lists")
    }
    var request = PacketCapture.Request()
    request.inner = options.inner
    request.outer = options.outer
    request.count = options.count
    request.snapLength = options.snapLength ?? request.snapLength
    request.peer = options.peer
    request.localPort = plan.listen.port
    request.local = plan.listen.address.map { Endpoint(address: $0, port: plan.listen.port) }
    let now = MonotonicTime.current()
    request.epoch = UInt64(max(Date().timeIntervalSince1970, 0) * 1e9) &- now.nanoseconds
    let capture = PacketCapture(request)
    guard await dataplane.begin(capture) else {
      throw OperatorError("a capture is under way already", remedy: "wait until it has ended")
    }
    logger.notice("a capture has begun")
    return CaptureStream(take: { capture.take() }, end: { [dataplane] in dataplane.end(capture) })
  }

  private func reload() async throws {
    ServiceManager.own.tell(.reloading)
    defer { ServiceManager.own.tell(.ready) }
    do {
      let new = try await source.plan()
      try PlanChange.check(from: plan, to: new, source: source.name)
      try await putInForce(new)
    } catch {
      log("the old configuration stays", error)
      throw error
    }
    logger.notice("configuration reloaded", metadata: ["peers": "\(plan.peers.count)"])
    logProblems()
  }

  private func log(_ event: Event) { eventLog.log(event, now: .current()) }

  /// What a gateway runs without, but should not.
  private func logProblems() {
    if let problem = filter.problem {
      log("neighbours on the base network can send into the tunnel in the name of hosts of the LAN", problem)
    }
    for key in keeper?.takeOutdated() ?? [] {
      logger.warning(
        "records of used numbers are older than what this machine used; numbers go on above that",
        metadata: ["key": "\(key)", "state": "\(plan.state)"])
    }
    if let reason = keySwapReason, !hasToldOfSwap {
      hasToldOfSwap = true
      logger.warning("keys may be swapped to disk", metadata: ["error": "\(reason)"])
    }
    for refusal in keeper?.refusals ?? [] {
      logger.error(
        "a key of this peer is not used", metadata: ["peer": "\(refusal.peer)", "error": "\(refusal.reason)"])
    }
  }

  /// On an error what was in force before still is.
  private func putInForce(_ new: GatewayPlan) async throws {
    // Up to this moment, so that an association that starts anew does not accept what it had before.
    if let received = keeper?.recordReceived() { report(received) }
    if keeper == nil { keeper = try SequenceKeeper(of: new, logger) }
    let configuration = try keeper?.prepare(new, reserve: true) ?? new.configuration
    let before = Dictionary(plan.peers.map { ($0.configuration.name, $0.keys) }) { $1 }
    let after = Dictionary(new.peers.map { ($0.configuration.name, $0.keys) }) { $1 }
    // Before, so that it takes back keys of its own, and none that the new plan has; and so that nobody has the prefixes
    // of whoever comes under its name.
    let leaving = plan.peers.filter { peer in
      guard let keys = peer.keys else { return false }
      guard let next = after[peer.configuration.name] ?? nil else { return true }
      return next.partner.remote != keys.partner.remote || next.partner.local != keys.partner.local
    }
    for peer in leaving { await keys.remove(peer.configuration.name) }
    await keys.settle()
    do {
      var changed = transports
      try await changed.update(new, dataplane)
      transports = changed
      try filter.apply(new.filterRuleset)
      try await dataplane.apply(configuration)
    } catch {
      transports.restore(plan)
      keeper?.rollBack()
      try? filter.apply(plan.filterRuleset)
      await set(leaving)
      throw error
    }
    await set(new.peers.filter { before[$0.configuration.name] ?? nil != $0.keys })
    plan = new
    await relays.set(new)
    try keeper?.commit()
  }

  private func shutDown() async {
    if isStopped { return }
    isStopped = true
    ServiceManager.own.tell(.stopping)
    // Commands that are under way already are still answered.
    commands.queue.finish()
    do {
      try filter.remove()
    } catch {
      log("the rules of the kernel's packet filter cannot be removed", error)
    }
    // Its directory goes as well, when nothing else is left there.
    server.stop()
    await relays.stop()
    await keys.stop()
    await dataplane.stop()
    for error in keeper?.finish().errors ?? [] {
      log("sequence numbers cannot be recorded exactly; some will be skipped", error)
    }
    logger.notice("gateway has stopped")
  }

  private func log(_ what: Logger.Message, _ error: any Error) {
    for line in "\(error)".split(separator: "\n") { logger.error(what, metadata: ["error": "\(line)"]) }
  }

  // MARK: Control socket

  private static func answer(
    _ request: ControlRequest, _ commands: GatewayAgent.Commands
  ) async -> ControlReply {
    do {
      switch request.request {
      case .map:
        guard let address = request.address.flatMap({ IPAddress($0) }) else {
          return ControlReply(error: "the address is missing or not one; write 192.168.1.5 or fd00:1::5")
        }
        return ControlReply(meanings: try await commands.ask { .map(address, $0) })
      case .capture: return ControlReply(error: "a capture is no answer")
      case .keys: return ControlReply(keys: try await commands.ask { .keys($0) })
      case .explain:
        guard let packet = request.packet.flatMap({ Data(base64Encoded: $0) }) else {
          return ControlReply(error: "the packet is missing or not in base64")
        }
        return ControlReply(explanation: try await commands.ask { .explain(Array(packet), $0) })
      case .statistics: return ControlReply(report: try await commands.ask { .report($0) })
      case .reload:
        try await commands.ask { .reload($0) }
        return ControlReply()
      }
    } catch {
      return ControlReply(error: "\(error)")
    }
  }
}
