import Dataplane
import Lab
import PacketIO
import Synchronization
import Testing

/// A path that leads nowhere, and notes when something was to go where.
private final class SilentTransport: Transport {
  struct Sending: Sendable {
    var time: UInt64
    var path: Path
    var packets: Int
  }

  let sendings = Mutex<[Sending]>([])

  func open(worker: Int, index: UInt8, io: inout WorkerIO) throws -> any TransportLink { Link(self) }

  private final class Link: TransportLink {
    private let path: SilentTransport
    private var sent: UInt64 = 0
    init(_ path: SilentTransport) { self.path = path }

    func send(_ batch: inout PacketBatch, io: inout WorkerIO) {
      path.sendings.withLock { list in
        for index in 0..<batch.count {
          list.append(Sending(time: io.now.nanoseconds, path: batch[index].path, packets: batch[index].datagrams))
        }
      }
      for index in 0..<batch.count {
        sent += UInt64(batch[index].datagrams)
        io.pool.release(batch[index].buffer)
      }
      batch.removeAll()
    }

    func complete(
      _ completion: Completion, io: inout WorkerIO, received: inout PacketBatch, messages: inout PacketBatch
    ) {}
    func endTurn(io: inout WorkerIO) {}
    /// As on a stream: so sizes are not probed.
    func overhead(_ path: Path) -> Int? { nil }
    func keepAlive(_ path: Path, io: inout WorkerIO) {}
    func counters() -> [TransportCounter] { [TransportCounter(name: "sent-datagrams", value: sent)] }
    func close(io: inout WorkerIO) {}
  }
}

extension NetworkTests {
  /// Thousands of peers with several paths each, of whom none answers.
  @Suite struct CrowdTests {
    private static let peers = 2000
    private static let paths = 3

    private static func path(_ peer: Int, _ path: Int) -> Path {
      let address = IPAddress(v4: 0xC612_0000 | UInt32(peer))
      return Path(endpoint: PacketIO.Endpoint(address: address, port: UInt16(4500 + path)))
    }

    private static var configuration: Configuration {
      var configuration = TunnelPlan().configuration(of: .a)
      configuration.interface.routes = []
      configuration.peers = (0..<peers).map { peer in
        let key = KeyMaterial((0..<20).map { $0 < 2 ? UInt8(truncatingIfNeeded: peer >> (8 * $0)) : 7 })
        let spi = UInt32(0x1000 + peer)
        return PeerConfiguration(
          name: "peer\(peer)", prefixes: [Prefix(IPAddress(v4: 0x0A80_0000 | UInt32(peer)), length: 32)],
          paths: (0..<paths).map { ConfiguredPath(name: "\($0)", path: path(peer, $0)) },
          outbound: SecurityAssociationConfiguration(spi: spi, cipher: .aes128GCM, key: key), keepAliveInterval: .zero)
      }
      return configuration
    }

    /// No turn of the worker does more than a bounded part of what is due, and each path has its turn.
    @Test(.timeLimit(.minutes(1)))
    func eachPathHasItsTurnAndNoTickIsLong() async throws {
      let network = try await blocking { try Network(.direct) }
      defer { network.remove() }
      let path = SilentTransport()
      let dataplane = try await network["a"].inside {
        try Dataplane(Self.configuration, transports: [path], options: Dataplane.Options())
      }
      let start = monotonicSeconds()
      let all = Self.peers * Self.paths
      let isDone = await eventually(within: 30) {
        path.sendings.withLock { Set($0.map(\.path)).count } == all
      }
      let seconds = monotonicSeconds() - start
      let statistics = await dataplane.statistics()
      await dataplane.stop()
      let sendings = path.sendings.withLock { $0 }
      #expect(isDone, "\(Set(sendings.map(\.path)).count) of \(all) paths were asked")
      // All packets of one turn have its time.
      var turns: [UInt64: Int] = [:]
      for sending in sendings { turns[sending.time, default: 0] += sending.packets }
      let most = turns.values.max() ?? 0
      // 256 active and 64 idle peers, each with all of its paths.
      #expect(most <= (256 + 64) * Self.paths)
      let busiest = Dictionary(grouping: sendings, by: \.path).values.map(\.count).max() ?? 0
      #expect(busiest <= 12, "none was asked all the time while others waited")
      #expect(statistics.controlSent == statistics.transport("sent-datagrams") && statistics.controlSent >= all)
      #expect(statistics.allDropped == 0)
      print(
        "\(all) paths of \(Self.peers) peers asked within \(Int(seconds * 1000)) ms, in \(turns.count) turns, "
          + "\(most) probes in the longest")
    }
  }
}
