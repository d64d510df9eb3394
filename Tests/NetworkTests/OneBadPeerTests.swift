import Dataplane
import Glibc
import PacketIO
import Synchronization
import Testing
import Transports

@testable import Lab

extension NetworkTests {
  /// One gateway, and on the network beside it a partner that works and one that takes all he can, or strangers. The one
  /// who works must not notice.
  @Suite struct OneBadPeerTests {
    /// What somebody does until he is told to stop.
    private typealias Abuse = @Sendable (Crowd) throws -> Void

    /// Who abuses the gateway, from the namespace of the partner who works.
    private final class Crowd: Sendable {
      private let isOver = Atomic(false)
      private let sequence = Atomic<UInt64>(0)
      let forger = Mutex(Forger(Crowd.inbound))
      let done = Atomic(0)

      static let prefix = "10.88.0.0/16"
      static let inbound = association(0x3003, 5)
      static let outbound = association(0x4004, 6)

      private static func association(_ spi: UInt32, _ key: UInt8) -> SecurityAssociationConfiguration {
        SecurityAssociationConfiguration(
          spi: spi, cipher: .aes128GCM, key: KeyMaterial([UInt8](repeating: key, count: 20)))
      }

      var goesOn: Bool { !isOver.load(ordering: .relaxed) }
      func stop() { isOver.store(true, ordering: .relaxed) }
      func begin() {
        isOver.store(false, ordering: .relaxed)
        done.store(0, ordering: .relaxed)
      }
      func count() { done.add(1, ordering: .relaxed) }

      func seal(_ plain: [UInt8], nextHeader: UInt8) -> [UInt8] {
        forger.withLock {
          $0.seal(
            inner: plain, nextHeader: nextHeader,
            sequence: sequence.add(1, ordering: .relaxed).newValue)
        }
      }

      /// An echo request to the gateway itself, which answers with as much.
      func ping(bytes: Int = 1200) -> [UInt8] {
        var message: [UInt8] = [8, 0, 0, 0, 7, 7, 0, 1] + [UInt8](repeating: 9, count: bytes)
        Crowd.complete(&message, at: 2)
        var header: [UInt8] = [0x45, 0, UInt8((20 + message.count) >> 8), UInt8((20 + message.count) & 255)]
        header += [0, 1, 0, 0, 64, 1, 0, 0, 10, 88, 0, 1, 10, 77, 0, 2]
        Crowd.complete(&header, at: 10)
        return seal(header + message, nextHeader: 4)
      }

      func probe() -> [UInt8] {
        let body = [UInt8](repeating: 7, count: 16) + [0, 1]
        return seal([0x43, 0x55, 0x4C, 0x56, 1, 1, 0, UInt8(body.count)] + body, nextHeader: 59)
      }

      static func completed(_ message: [UInt8]) -> [UInt8] {
        var message = message
        complete(&message, at: 2)
        return message
      }

      private static func complete(_ bytes: inout [UInt8], at place: Int) {
        var sum = stride(from: 0, to: bytes.count, by: 2).reduce(0) { $0 + (Int(bytes[$1]) << 8 | Int(bytes[$1 + 1])) }
        while sum > 0xFFFF { sum = sum >> 16 + sum & 0xFFFF }
        (bytes[place], bytes[place + 1]) = (UInt8(~sum >> 8 & 255), UInt8(~sum & 255))
      }

      static func record(_ datagram: [UInt8]) -> [UInt8] {
        [UInt8((datagram.count + 2) >> 8), UInt8((datagram.count + 2) & 255)] + datagram
      }

      /// A stream to the gateway; nil: refused.
      func stream(from address: String) -> Socket? {
        guard let socket = try? Socket(.stream, isV6: false),
          (try? socket.set(Int(SOL_SOCKET), SO_RCVBUF, 4096, "SO_RCVBUF")) != nil,
          (try? socket.setTimeout(0.2)) != nil,
          (try? socket.bind(Lab.Endpoint(address, port: 0))) != nil,
          (try? socket.connect(Lab.Endpoint(Side.b.outer4, port: 4500))) != nil
        else { return nil }
        return socket
      }

      func datagrams(from address: String) throws -> Socket {
        let socket = try Socket(.datagram, isV6: false)
        try socket.bind(Lab.Endpoint(address, port: 0))
        try socket.connect(Lab.Endpoint(Side.b.outer4, port: 4500))
        return socket
      }

      /// False: the gateway takes no more.
      @discardableResult
      func send(_ bytes: [UInt8], by socket: Socket) -> Bool {
        let buffer = LabBuffer(count: bytes.count)
        buffer.store(bytes)
        return socket.send(buffer, 0, bytes.count) == bytes.count
      }
    }

    /// Bytes a second of a stream, and seconds of the slowest of many pings; nil: one was lost.
    private struct Measure {
      var rate: Double
      var slowest: Double?
    }

    private static let addresses = (3..<20).map { "192.0.2.\($0)" }

    private func measure(_ carol: TestGateway, _ hub: TestGateway) async throws -> Measure {
      let transfer = BulkTransfer(
        from: carol.namespace, to: hub.namespace, address: hub.side.inner4, amount: .seconds(0.8))
      let rate = try await blocking { try transfer.run() }.bitsPerSecond
      let times = try await blocking { () -> [Double]? in
        var times: [Double] = []
        for _ in 0..<60 {
          let begin = monotonicSeconds()
          guard try Pings(from: carol.namespace, to: hub.side.inner4).run([56]).isEmpty else { return nil }
          times.append(monotonicSeconds() - begin)
        }
        return times.sorted()
      }
      return Measure(rate: rate, slowest: times.map { $0[$0.count * 99 / 100 - 1] })
    }

    /// Measures with and without the abuse in turns. What somebody else on this machine does may spoil a turn: one in
    /// which the abuse made no difference shows that it need not.
    private func expectNoHarm(
      _ what: String, counted: String?, over plan: TunnelPlan = .overTCP(), _ abuse: @escaping Abuse,
      _ loss: (Statistics) -> UInt64, sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
      let network = try await blocking { try Network(.direct) }
      defer { network.remove() }
      for address in Self.addresses {
        _ = try await blocking {
          try Tool.run("ip", ["addr", "add", "\(address)/24", "dev", "wire"], in: network["a"])
        }
      }
      var configuration = plan.configuration(of: .b)
      configuration.interface.routes += [Prefix(Crowd.prefix)!]
      configuration.peers.append(
        PeerConfiguration(
          name: "bob", prefixes: [Prefix(Crowd.prefix)!], path: nil, inbound: [Crowd.inbound],
          outbound: Crowd.outbound))
      let hub = try await TestGateway(.b, in: network["b"], plan, configuration)
      let carol = try await TestGateway(.a, in: network["a"], plan)
      try await Pings(from: carol.namespace, to: hub.side.inner4).expectAnswers([0])
      // Of one turn both: the share of the rate, and by how much the slowest ping is slower.
      var turns: [(rate: Double, delay: Double)] = []
      var isGood: Bool { turns.contains { $0.rate >= 0.9 && $0.delay <= 2 } }
      var lostPings = 0
      let crowd = Crowd()
      for _ in 0..<10 {
        let quiet = try await measure(carol, hub)
        crowd.begin()
        let thread = LabThread { try network["a"].inside { try abuse(crowd) } }
        let isUnderWay = await eventually(within: 30) { crowd.done.load(ordering: .relaxed) > 0 }
        #expect(isUnderWay, sourceLocation: sourceLocation)
        let loud = try await measure(carol, hub)
        crowd.stop()
        try await thread.value
        if loud.slowest == nil { lostPings += 1 }
        if let slow = loud.slowest, let before = quiet.slowest {
          turns.append((loud.rate / max(quiet.rate, 1), slow / before))
        }
        if isGood, turns.count >= 2 { break }
      }
      let statistics = await hub.dataplane.statistics()
      let lost = loss(statistics)
      await carol.dataplane.stop()
      await hub.dataplane.stop()
      #expect(lostPings == 0, "a ping was lost", sourceLocation: sourceLocation)
      #expect(isGood, "\(turns)", sourceLocation: sourceLocation)
      if counted != nil { #expect(lost > 0, "nothing was counted", sourceLocation: sourceLocation) }
      let best = turns.filter { $0.delay <= 2 }.max { $0.rate < $1.rate }
      let percent = Int(((best?.rate ?? 0) * 100).rounded())
      print(
        "\(what): \(percent) % of the rate, slowest ping times \(best?.delay ?? 0), \(counted ?? "errors of sockets") \(lost)"
      )
    }

    /// What one holder was refused of a resource; strangers by their addresses.
    private static func refused(_ resource: SharedResource, _ holder: String? = nil) -> (Statistics) -> UInt64 {
      { statistics in
        let shares = statistics.shares.filter { $0.resource == resource }
        guard let holder else { return shares.reduce(0) { $0 + $1.refused } }
        return shares.flatMap(\.holders).filter { $0.holder == holder }.reduce(0) { $0 + $1.refused }
      }
    }

    @Test(.timeLimit(.minutes(2))) func answersThatHeDoesNotRead() async throws {
      try await expectNoHarm(
        "110 streams of one peer that reads none", counted: "send-queues",
        { crowd in
          var streams: [Socket] = []
          for number in 0..<110 {
            guard let stream = crowd.stream(from: Self.addresses[number % 10]) else { continue }
            crowd.send(Array("IKETCP".utf8), by: stream)
            for _ in 0..<260 where !crowd.send(Crowd.record(crowd.ping()), by: stream) { break }
            streams.append(stream)
          }
          // From now on he keeps the queues full; what it costs to seal his answers is not what is measured.
          crowd.count()
          while crowd.goesOn {
            for stream in streams.suffix(8) { crowd.send(Crowd.record(crowd.ping()), by: stream) }
            usleep(50_000)
          }
        }, Self.refused(.sendQueues, "bob"))
    }

    @Test(.timeLimit(.minutes(2))) func streamAfterStream() async throws {
      try await expectNoHarm(
        "stream after stream of one peer", counted: "streams",
        { crowd in
          var streams: [Socket] = []
          while crowd.goesOn {
            guard let stream = crowd.stream(from: Self.addresses[0]) else { continue }
            crowd.send(Array("IKETCP".utf8) + Crowd.record(crowd.ping(bytes: 8)), by: stream)
            streams.append(stream)
            if streams.count > 500 { streams.removeFirst(100) }
            crowd.count()
            usleep(3000)
          }
        }, Self.refused(.streams, "bob"))
    }

    @Test(.timeLimit(.minutes(2))) func recordsThatStrangersDoNotFinish() async throws {
      try await expectNoHarm(
        "half-records of strangers", counted: "pending-records-of-strangers",
        { crowd in
          let half = Array("IKETCP".utf8) + [0xFF, 0xFF] + [UInt8](repeating: 1, count: 60_000)
          while crowd.goesOn {
            var streams: [Socket] = []
            for number in 0..<95 {
              guard crowd.goesOn, let stream = crowd.stream(from: Self.addresses[number % 10]) else { continue }
              crowd.send(half, by: stream)
              streams.append(stream)
              crowd.count()
            }
            usleep(500_000)
          }
        }, Self.refused(.pendingRecordsOfStrangers))
    }

    @Test(.timeLimit(.minutes(2))) func probesWithoutEnd() async throws {
      try await expectNoHarm(
        "probes of one peer", counted: "control-messages",
        { crowd in
          let socket = try crowd.datagrams(from: Self.addresses[0])
          while crowd.goesOn {
            // As fast as one core seals, in bursts, so that the other core is left to the gateways.
            for _ in 0..<50 { crowd.send(crowd.probe(), by: socket) }
            crowd.count()
            usleep(10_000)
          }
        }, Self.refused(.controlMessages, "bob"))
    }

    @Test(.timeLimit(.minutes(2))) func addressAfterAddress() async throws {
      try await expectNoHarm(
        "packets of one peer from many addresses", counted: "path-moves",
        { crowd in
          let sockets = try Self.addresses.map { try crowd.datagrams(from: $0) }
          while crowd.goesOn {
            for socket in sockets { crowd.send(crowd.ping(bytes: 8), by: socket) }
            crowd.count()
            usleep(2000)
          }
        }, Self.refused(.pathMoves, "bob"))
    }

    // Strangers. What a flood takes of a processor it takes: as many packets come as leave the gateway some.

    @Test(.timeLimit(.minutes(2))) func garbage() async throws {
      try await expectNoHarm(
        "garbage of strangers, 10,000 datagrams a second", counted: "unknown-spi",
        { crowd in
          let sockets = try Self.addresses.map { try crowd.datagrams(from: $0) }
          var number: UInt8 = 0
          while crowd.goesOn {
            for socket in sockets {
              number &+= 1
              crowd.send([number | 1, 2, 3] + [UInt8](repeating: number, count: 60), by: socket)
            }
            crowd.count()
            usleep(1500)
          }
        }, { $0.inboundDrops.reduce(0) { $0 + ($1.reason == .unknownSPI ? $1.packets : 0) } })
    }

    @Test(.timeLimit(.minutes(2))) func replays() async throws {
      try await expectNoHarm(
        "replays of strangers, from many addresses", counted: "replayed",
        { crowd in
          let sockets = try Self.addresses.map { try crowd.datagrams(from: $0) }
          let copied = (0..<50).map { _ in crowd.ping(bytes: 8) }
          while crowd.goesOn {
            for (socket, packet) in zip(sockets, copied.shuffled()) { crowd.send(packet, by: socket) }
            crowd.count()
            usleep(1500)
          }
        }, { $0.inboundDrops.reduce(0) { $0 + ($1.reason == .replayed ? $1.packets : 0) } })
    }

    /// - Parameter origins: addresses that connect.
    @Test(.timeLimit(.minutes(2)), arguments: [1, 16]) func connections(origins: Int) async throws {
      try await expectNoHarm(
        "connections from \(origins) addresses", counted: "refused or evicted streams",
        { crowd in
          var streams: [Socket] = []
          var number = 0
          while crowd.goesOn {
            number += 1
            if let stream = crowd.stream(from: Self.addresses[number % origins]) { streams.append(stream) }
            if streams.count > 400 { streams.removeFirst(50) }
            crowd.count()
            usleep(1000)
          }
        },
        { statistics in
          statistics.transports.flatMap(\.counters).filter {
            ["refused-too-many-of-address", "ended-evicted", "ended-unidentified"].contains($0.name)
          }.reduce(0) { $0 + $1.value }
        })
    }

    /// Errors about packets that were never sent, of the kinds that the kernel tells a socket of, where it believes them.
    @Test(.timeLimit(.minutes(2)), arguments: [(type: UInt8(3), code: UInt8(1)), (3, 3)])
    func errorsAboutNothing(_ kind: (type: UInt8, code: UInt8)) async throws {
      try await expectNoHarm(
        "ICMP \(kind.type)/\(kind.code) about packets that nobody sent", counted: nil, over: TunnelPlan(),
        { crowd in
          let socket = try Socket(sendingICMP: ())
          try socket.connect(Lab.Endpoint(Side.b.outer4, port: 0))
          let quoted: [UInt8] =
            [0x45, 0, 0, 100, 0, 1, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1] + [
              0x11, 0x94, 0x11, 0x94, 0, 80, 0, 0,
            ]
          let message = Crowd.completed(
            [kind.type, kind.code, 0, 0, 0, 0, 0, 0] + quoted + [0, 0, 0x20, 2, 0, 0, 0, 9])
          while crowd.goesOn {
            for _ in 0..<40 { crowd.send(message, by: socket) }
            crowd.count()
            usleep(4000)
          }
        }, { $0.transportErrors("receive-error") + $0.transportErrors("send-error") })
    }
  }
}
