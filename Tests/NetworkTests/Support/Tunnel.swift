import Dataplane
import Lab
import PacketIO
import Synchronization
import Testing
import Transports

/// A gateway in this process, in a namespace of its own.
final class TestGateway: Sendable {
  let side: Side
  let namespace: Namespace
  let dataplane: Dataplane
  /// Buffers that were free before any traffic.
  let idleBuffers: Int
  /// What the partner, who was there first, sent before this one had a socket.
  let early: UInt64
  private let seen = EventLog()

  /// - Parameter configuration: nil: as the plan has it.
  init(_ side: Side, in namespace: Namespace, _ plan: TunnelPlan, _ configuration: Configuration? = nil) async throws {
    var options = Dataplane.Options()
    options.engine = plan.engine
    options.workers = plan.workers[side] ?? 1
    options.ringFeatures = plan.features
    options.pathMTURaiseInterval = plan.raiseInterval
    self.side = side
    self.namespace = namespace
    (dataplane, early) = try await namespace.inside { [options] in
      let dataplane = try Dataplane(
        configuration ?? plan.configuration(of: side),
        transports: plan.transports(of: side),
        options: options)
      return (dataplane, Self.datagrams("NoPorts"))
    }
    idleBuffers = await dataplane.statistics().freeBuffers - plan.addedBuffers
    Task { [seen, dataplane] in
      for await event in dataplane.events { seen.add(event) }
    }
  }

  /// All events so far, in order.
  var events: [Event] { seen.all }

  func waitFor(_ what: String, within seconds: Double = 5, _ matches: (Event) -> Bool) async -> Bool {
    await eventually(within: seconds) { events.contains(where: matches) }
  }

  /// The figure of its one transport under that name.
  func transport(_ name: String) async -> UInt64 { await dataplane.statistics().transport(name) }

  func dropped(_ reason: DropReason) async -> UInt64 { await dataplane.statistics().dropped(reason) }

  private final class EventLog: Sendable {
    private let events = Mutex<[Event]>([])
    var all: [Event] { events.withLock { $0 } }
    func add(_ event: Event) { events.withLock { $0.append(event) } }
  }
}

/// Two gateways of this process and the path between them.
struct Tunnel: Sendable {
  let plan: TunnelPlan
  let network: Network
  let a: TestGateway
  let b: TestGateway

  subscript(_ side: Side) -> TestGateway { side == .a ? a : b }

  /// Builds both, runs `body`, checks the books of both sides, stops them, and checks that nothing is left.
  ///
  /// - Parameter isLossless: whether every sealed packet must have arrived.
  static func with(
    _ plan: TunnelPlan = TunnelPlan(), isLossless: Bool = true, _ body: (Tunnel) async throws -> Void
  ) async throws {
    let network = try await blocking { try Network(plan.topology) }
    defer { network.remove() }
    let tunnel = try await Tunnel(plan, network)
    do {
      try await body(tunnel)
      await tunnel.checkBooks(isLossless: isLossless)
    } catch {
      await tunnel.stop()
      throw error
    }
    await tunnel.stop()
    try await tunnel.checkNothingIsLeft()
  }

  init(_ plan: TunnelPlan, _ network: Network) async throws {
    self.plan = plan
    self.network = network
    a = try await TestGateway(.a, in: network[plan.nodes[.a] ?? "a"], plan)
    b = try await TestGateway(.b, in: network[plan.nodes[.b] ?? "b"], plan)
  }

  /// Sends a stream of that many bytes and expects them to arrive as they were.
  static func transfer(
    from: Namespace, to: Namespace, _ address: String, there: String? = nil, bytes: UInt64, streams: Int = 1,
    sourceLocation: SourceLocation = #_sourceLocation
  ) async throws {
    var transfer = BulkTransfer(from: from, to: to, address: address, amount: .bytes(bytes))
    transfer.addressThere = there
    transfer.verifies = true
    transfer.streams = streams
    // So that it ends at all; how fast the machine is says nothing.
    transfer.timeLimit = 60
    transfer.patience = 60
    let result = try await blocking { [transfer] in try transfer.run() }
    #expect(result.isIntact && result.bytes == bytes, sourceLocation: sourceLocation)
  }

  /// Waits until both sides know what the path takes.
  func measurePath(sourceLocation: SourceLocation = #_sourceLocation) async throws {
    let isKnown = try await eventually {
      try await Pings(from: a.namespace, to: Side.b.inner4).expectAnswers([56])
      for side in [a, b] {
        guard await side.dataplane.statistics().peers.first?.pathMTUSource == .probes else { return false }
      }
      return true
    }
    #expect(isKnown, sourceLocation: sourceLocation)
  }

  func stop() async {
    await a.dataplane.stop()
    await b.dataplane.stop()
  }

  /// The device goes with the gateway. Its routes go at once, itself when the kernel has let go of its last read.
  private func checkNothingIsLeft() async throws {
    for gateway in [a, b] {
      let name = gateway.namespace.name
      let gone = try await eventually {
        try await blocking { !(try Tool.run("ip", ["-n", name, "-o", "link"]).contains(TunnelPlan.device)) }
      }
      #expect(gone, "gateway \(gateway.side) has left its device behind")
    }
  }
}
