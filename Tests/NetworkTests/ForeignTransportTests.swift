import Dataplane
import Glibc
import Lab
import PacketIO
import Testing

extension NetworkTests {
  /// What somebody else writes is a path like any other.
  @Suite struct ForeignTransportTests {
    @Test(.timeLimit(.minutes(1)))
    func unixDatagramsCarryATunnel() async throws {
      let directory = try TemporaryDirectory()
      var plan = TunnelPlan()
      plan.unixTransports = directory.path
      try await Tunnel.with(plan, isLossless: false) { tunnel in
        try await Pings(from: tunnel.a.namespace, to: Side.b.inner4).expectAnswers([0, 1, 100, 1372, 5000])
        try await Pings(from: tunnel.b.namespace, to: Side.a.inner6).expectAnswers([0, 1, 100, 1352])
        try await Tunnel.transfer(from: tunnel.a.namespace, to: tunnel.b.namespace, Side.b.inner4, bytes: 5_000_001)
        try await Tunnel.transfer(from: tunnel.b.namespace, to: tunnel.a.namespace, Side.a.inner6, bytes: 1_000_001)
      }
    }

    /// A transport that comes while packets flow, with one worker and with two, takes over from UDP.
    @Test(.timeLimit(.minutes(1)), arguments: [1, 2]) func oneIsAddedWhileOthersRun(workers: Int) async throws {
      let directory = try TemporaryDirectory()
      var plan = TunnelPlan()
      plan.workers = [.a: workers, .b: workers]
      plan.addedBuffers = 32
      try await Tunnel.with(plan, isLossless: false) { tunnel in
        try await Pings(from: tunnel.a.namespace, to: Side.b.inner4).expectAnswers([0, 1000])
        for gateway in [tunnel.a, tunnel.b] {
          var peer = plan.peer(gateway.side.other)
          peer.paths = [ConfiguredPath(path: UnixTransport.path(1))]
          // It is not there yet.
          await #expect(throws: ConfigurationError.self) { try await gateway.dataplane.apply([.replace(peer)]) }
          let (here, there) = (gateway.side.rawValue, gateway.side.other.rawValue)
          let own = UnixTransport(own: "\(directory.path)/\(here)", other: "\(directory.path)/\(there)")
          #expect(try await gateway.dataplane.add(own) == 1)
          try await gateway.dataplane.apply([.replace(peer)])
        }
        try await Tunnel.transfer(from: tunnel.a.namespace, to: tunnel.b.namespace, Side.b.inner4, bytes: 3_000_001)
        for gateway in [tunnel.a, tunnel.b] {
          let added = await gateway.dataplane.statistics().transports[1].counters
          #expect(try #require(added.first { $0.name == "received-datagrams" }).value > 100)
        }
      }
    }

    /// What cannot be opened leaves everything as it was, also the other workers, and its place to the next one.
    @Test(.timeLimit(.minutes(1))) func whatCannotBeOpenedIsNotThere() async throws {
      let directory = try TemporaryDirectory()
      var plan = TunnelPlan()
      plan.workers = [.a: 2]
      try await Tunnel.with(plan) { tunnel in
        let dataplane = tunnel.a.dataplane
        await #expect(throws: SystemError.self) { try await dataplane.add(RefusingTransport()) }
        #expect(await dataplane.statistics().transports.count == 1)
        await #expect(throws: SystemError.self) {
          try await dataplane.add(UnixTransport(own: directory.path + "/none/a", other: directory.path + "/b"))
        }
        for place in UInt8(1)...15 {
          #expect(try await dataplane.add(IdleTransport()) == place)
        }
        await #expect(throws: ConfigurationError.self) {
          try await dataplane.add(IdleTransport())
        }
        try await Pings(from: tunnel.a.namespace, to: Side.b.inner4).expectAnswers([0, 1000])
      }
      #expect(throws: ConfigurationError.self) {
        _ = try Dataplane(plan.configuration(of: .a), transports: [])
      }
    }
  }
}

/// Carries nothing.
private struct IdleTransport: Transport {
  private final class Link: TransportLink {
    func send(_ batch: inout PacketBatch, io: inout WorkerIO) {
      while let packet = batch.popLast() { io.pool.release(packet.buffer) }
    }
    func complete(
      _ completion: Completion, io: inout WorkerIO, received: inout PacketBatch, messages: inout PacketBatch
    ) {}
    func endTurn(io: inout WorkerIO) {}
    func overhead(_ path: Path) -> Int? { nil }
    func keepAlive(_ path: Path, io: inout WorkerIO) {}
    func counters() -> [TransportCounter] { [] }
    func close(io: inout WorkerIO) {}
  }

  func open(worker: Int, index: UInt8, io: inout WorkerIO) throws -> any TransportLink { Link() }
}

/// All workers but the first cannot open it.
private struct RefusingTransport: Transport {
  func open(worker: Int, index: UInt8, io: inout WorkerIO) throws -> any TransportLink {
    try IdleTransport().open(worker: worker, index: index, io: &io)
  }

  func open(worker: Int, of workers: Int, index: UInt8, io: inout WorkerIO) throws -> (any TransportLink)? {
    if worker > 0 { throw SystemError("open what cannot be opened", errno: ENOENT) }
    return try open(worker: worker, index: index, io: &io)
  }
}
