import Dataplane
import Glibc
import PacketIO
import Testing
import Transports

@testable import Lab

extension NetworkTests {
  /// One gateway, and on the network beside it a partner that works and one that takes all he can, or strangers. The one
  /// who works must not notice.
  @Suite struct OneBadPeerTests {
    /// What somebody does until he is told to stop.
    private typealias Abuse = @Sendable (Crowd) throws -> Void

    /// Bytes a second of a stream, and seconds of the slowest of many pings; nil: one was lost.
    private struct Measure {
      var rate: Double
      var slowest: Double?
    }

    private func measure(_ carol: TestGateway, _ hub: TestGateway, pings: Int) async throws -> Measure {
      let transfer = BulkTransfer(
        from: carol.namespace, to: hub.namespace, address: hub.side.inner4, amount: .seconds(0.8))
      let rate = try await blocking { try transfer.run() }.bitsPerSecond
      let times = try await blocking { () -> [Double]? in
        var times: [Double] = []
        for _ in 0..<60 {
          let begin = monotonicSeconds()
          guard try Pings(from: carol.namespace, to: hub.side.inner4).run([pings]).isEmpty else { return nil }
          times.append(monotonicSeconds() - begin)
        }
        return times.sorted()
      }
      return Measure(rate: rate, slowest: times.map { $0[$0.count * 99 / 100 - 1] })
    }

    /// Measures with and without the abuse in turns. What somebody else on this machine does may spoil a turn: one in
    /// which the abuse made no difference shows that it need not.
    private func expectNoHarm(
      _ what: String, counted: String?, over plan: TunnelPlan = .overTCP(), pings: Int = 56, _ abuse: @escaping Abuse,
      _ loss: (Statistics) -> UInt64, sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
      let network = try await blocking { try Network(.direct) }
      defer { network.remove() }
      for address in Crowd.addresses {
        _ = try await blocking {
          try Tool.run("ip", ["addr", "add", "\(address)/24", "dev", "wire"], in: network["a"])
        }
      }
      var configuration = plan.configuration(of: .b)
      configuration.interface.routes += [Prefix(Crowd.prefix)!]
      configuration.peers.append(
        PeerConfiguration(
          name: "bob", prefixes: [Prefix(Crowd.prefix)!], path: nil, inbound: [Crowd.inbound],
          outbound: Crowd.outbound, aggregates: plan.aggregates.contains(.b)))
      let hub = try await TestGateway(.b, in: network["b"], plan, configuration)
      let carol = try await TestGateway(.a, in: network["a"], plan)
      try await Pings(from: carol.namespace, to: hub.side.inner4).expectAnswers([0])
      // Of one turn both: the share of the rate, and by how much the slowest ping is slower.
      var turns: [(rate: Double, delay: Double)] = []
      var isGood: Bool { turns.contains { $0.rate >= 0.9 && $0.delay <= 2 } }
      var lostPings = 0
      let crowd = Crowd()
      let socket = try await network["b"].inside {
        let socket = try Socket(.datagram, isV6: false)
        try socket.bind(Lab.Endpoint(hub.side.inner4, port: Crowd.echoPort))
        try socket.setTimeout(0.2)
        return socket
      }
      let echo = LabThread(name: "echo") {
        let buffer = LabBuffer(count: 2048)
        while crowd.mayComeAgain { socket.returnDatagram(buffer) }
      }
      defer { crowd.leave() }
      for _ in 0..<10 {
        let quiet = try await measure(carol, hub, pings: pings)
        crowd.begin()
        let thread = LabThread { try network["a"].inside { try abuse(crowd) } }
        let isUnderWay = await eventually(within: 30) { crowd.done.load(ordering: .relaxed) > 0 }
        #expect(isUnderWay, sourceLocation: sourceLocation)
        let loud = try await measure(carol, hub, pings: pings)
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
      #expect(
        Set(statistics.shares.map(\.resource)).isSuperset(of: Self.ofEveryDataplane), sourceLocation: sourceLocation)
      crowd.leave()
      _ = try await echo.value
      await carol.dataplane.stop()
      await hub.dataplane.stop()
      #expect(lostPings == 0, "a ping was lost", sourceLocation: sourceLocation)
      #expect(isGood, "\(turns)", sourceLocation: sourceLocation)
      if counted != nil { #expect(lost > 0, "nothing was counted", sourceLocation: sourceLocation) }
      let best = turns.filter { $0.delay <= 2 }.max { $0.rate < $1.rate }
      let percent = Int(((best?.rate ?? 0) * 100).rounded())
      print(
        "| \(what) | \(percent) % of the rate | slowest ping × \(best?.delay ?? 0) | \(counted ?? "nothing") \(lost) |")
    }

    /// What any gateway shows, whatever its transports and however many its workers.
    private static let ofEveryDataplane: [SharedResource] = [
      .pendingFlowsOutbound, .pendingFlowsInbound, .flows, .fragments, .aggregationFragments, .controlMessages,
      .negotiation, .refusals, .pathMoves, .sizeMessages, .firewallLog, .addressPoolV4, .addressPoolV6,
    ]

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
            guard let stream = crowd.stream(from: Crowd.addresses[number % 10]) else { continue }
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
            guard let stream = crowd.stream(from: Crowd.addresses[0]) else { continue }
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
              guard crowd.goesOn, let stream = crowd.stream(from: Crowd.addresses[number % 10]) else { continue }
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
          let socket = try crowd.datagrams(from: Crowd.addresses[0])
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
          let sockets = try Crowd.addresses.map { try crowd.datagrams(from: $0) }
          while crowd.goesOn {
            for socket in sockets { crowd.send(crowd.ping(bytes: 8), by: socket) }
            crowd.count()
            usleep(2000)
          }
        }, Self.refused(.pathMoves, "bob"))
    }

    /// Records that he begins and does not end, by more streams than a peer has elsewhere: first they lie in buffers, then
    /// in memory beside.
    @Test(.timeLimit(.minutes(2)), arguments: [SharedResource.heldBuffers, .pendingRecords])
    func recordsThatHeDoesNotFinish(resource: SharedResource) async throws {
      var plan = TunnelPlan.overTCP()
      plan.streamLimits.streamsPerPeer = 110
      try await expectNoHarm(
        "records that one peer does not end", counted: resource.rawValue, over: plan,
        { crowd in
          var streams: [Socket] = []
          for number in 0..<100 {
            guard crowd.goesOn, let stream = crowd.stream(from: Crowd.addresses[number % 10]) else { continue }
            crowd.send(Array("IKETCP".utf8) + Crowd.record(crowd.ping(bytes: 8)), by: stream)
            streams.append(stream)
            // So that it is known to be his.
            usleep(5000)
          }
          for stream in streams { crowd.send([0xFF, 0xFF] + [UInt8](repeating: 1, count: 60_000), by: stream) }
          while crowd.goesOn {
            for stream in streams { crowd.send([1], by: stream) }
            crowd.count()
            usleep(50_000)
          }
        }, Self.refused(resource, "bob"))
    }

    /// What he wants of the pool for intermediate prefixes, and how often he says so.
    @Test(.timeLimit(.minutes(2)), arguments: [SharedResource.negotiation, .addressPoolV4])
    func addressesWithoutEnd(resource: SharedResource) async throws {
      try await expectNoHarm(
        "the whole pool of addresses, again and again", counted: resource.rawValue,
        { crowd in
          let socket = try crowd.datagrams(from: Crowd.addresses[0])
          var revision = 0
          while crowd.goesOn {
            for _ in 0..<20 {
              crowd.send(crowd.offers(revision), by: socket)
              revision += 1
            }
            crowd.count()
            usleep(20_000)
          }
        }, Self.refused(resource, "bob"))
    }

    /// A firewall with little room, which everybody may come through.
    private static var guarded: TunnelPlan {
      var plan = TunnelPlan.overTCP()
      plan.firewalls[.b] = FirewallConfiguration(
        mode: .on, rules: [FirewallRule(number: 10, direction: .inbound, action: .allow)], flowCapacity: 256,
        pendingCapacity: 64)
      return plan
    }

    /// Questions that are over with their answer, or go on after it, without end.
    @Test(.timeLimit(.minutes(2)), arguments: [SharedResource.pendingFlowsInbound, .flows])
    func flowsWithoutEnd(resource: SharedResource) async throws {
      let isAnswered = resource == .flows
      try await expectNoHarm(
        "flows of one peer", counted: resource.rawValue, over: Self.guarded,
        { crowd in
          let socket = try crowd.datagrams(from: Crowd.addresses[0])
          var number = 0
          while crowd.goesOn {
            let numbers = number..<number + 40
            number += 40
            for number in numbers {
              crowd.send(isAnswered ? crowd.question(number) : crowd.ping(bytes: 8, identifier: number), by: socket)
            }
            if isAnswered {
              usleep(5000)
              for number in numbers { crowd.send(crowd.question(number), by: socket) }
            }
            crowd.count()
            usleep(10_000)
          }
        }, Self.refused(resource, "bob"))
    }

    /// Hers come in fragments, too.
    @Test(.timeLimit(.minutes(2))) func fragmentsWithoutTheRest() async throws {
      try await expectNoHarm(
        "first fragments of one peer", counted: "fragments", over: Self.guarded, pings: 3000,
        { crowd in
          let socket = try crowd.datagrams(from: Crowd.addresses[0])
          var number = 0
          while crowd.goesOn {
            for _ in 0..<50 {
              crowd.send(crowd.fragment(number), by: socket)
              number += 1
            }
            crowd.count()
            usleep(10_000)
          }
        }, Self.refused(.fragments, "bob"))
    }

    @Test(.timeLimit(.minutes(2))) func halvesOfSharedPackets() async throws {
      var plan = TunnelPlan.overTCP()
      plan.aggregates = [.a, .b]
      try await expectNoHarm(
        "halves of packets that share", counted: "aggregation-fragments", over: plan,
        { crowd in
          let socket = try crowd.datagrams(from: Crowd.addresses[0])
          while crowd.goesOn {
            for _ in 0..<50 { crowd.send(crowd.half(), by: socket) }
            crowd.count()
            usleep(10_000)
          }
        }, Self.refused(.aggregationFragments, "bob"))
    }

    /// All answers go by one socket and its queue, from buffers that all share.
    @Test(.timeLimit(.minutes(2))) func questionsWithoutEnd() async throws {
      try await expectNoHarm(
        "questions of one peer by datagrams", counted: nil, over: TunnelPlan(),
        { crowd in
          let socket = try crowd.datagrams(from: Crowd.addresses[0])
          while crowd.goesOn {
            for _ in 0..<40 { crowd.send(crowd.ping(), by: socket) }
            crowd.count()
            usleep(10_000)
          }
        }, { $0.transport("send-queue-full") })
    }

    /// His flows are the other worker's than his packets come to: each goes from one to the other.
    @Test(.timeLimit(.minutes(2))) func packetsForTheOtherWorker() async throws {
      var plan = TunnelPlan()
      plan.firewalls[.b] = FirewallConfiguration(
        mode: .on, rules: [FirewallRule(number: 10, direction: .inbound, action: .allow)])
      plan.workers = [.b: 2]
      try await expectNoHarm(
        "packets of one peer for the other worker", counted: nil, over: plan,
        { crowd in
          let socket = try crowd.datagrams(from: Crowd.addresses[0])
          var number = 0
          while crowd.goesOn {
            for _ in 0..<40 {
              number += 1
              crowd.send(crowd.ping(identifier: number % 64), by: socket)
            }
            crowd.count()
            usleep(10_000)
          }
        }, { $0.workers.reduce(0) { $0 + $1.handedOver } })
    }

    // Strangers. What a flood takes of a processor it takes: as many packets come as leave the gateway some.

    @Test(.timeLimit(.minutes(2))) func garbage() async throws {
      try await expectNoHarm(
        "garbage of strangers, 10,000 datagrams a second", counted: "unknown-spi",
        { crowd in
          let sockets = try Crowd.addresses.map { try crowd.datagrams(from: $0) }
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
          let sockets = try Crowd.addresses.map { try crowd.datagrams(from: $0) }
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
            if let stream = crowd.stream(from: Crowd.addresses[number % origins]) { streams.append(stream) }
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
