import Dataplane
import Gateway
import Lab
import PacketIO
import Testing

@testable import culvert

extension NetworkTests {
  /// Gateways with several workers, each with firewalls that remember flows:
  /// ```
  /// a: 10.77.0.1, fd77::1 ── culvert0 (2 queues) ═══ 192.0.2.0/24 ═══ culvert0 ── b: 10.77.0.2, fd77::2
  /// ```
  @Suite struct WorkerTests {
    private static func plan(a: Int, b: Int, _ plan: TunnelPlan = TunnelPlan()) -> TunnelPlan {
      var plan = plan
      plan.workers = [.a: a, .b: b]
      let rule = FirewallRule(number: 10, name: "from a", direction: .inbound, action: .allow)
      plan.firewalls = [
        .a: FirewallConfiguration(mode: .on), .b: FirewallConfiguration(mode: .on, rules: [rule]),
      ]
      return plan
    }

    /// All workers of both sides seal under their own associations.
    private static func allSeal(_ tunnel: Tunnel, own: [Side]) async -> Bool {
      for side in own {
        let peer = await tunnel[side].dataplane.statistics().peers[0]
        let used = peer.associations.filter { $0.direction == .outbound && $0.packets > 0 }
        if used.count < (tunnel.plan.workers[side] ?? 1) { return false }
      }
      return true
    }

    /// Streams and datagrams of many flows, fragments and pings, answers to what only one side may begin: everything
    /// arrives as it was sent, and nothing meets a firewall that does not know its flow.
    @Test(.timeLimit(.minutes(1)), arguments: [(2, 2), (2, 1), (1, 4)])
    func everythingArrivesIntact(workers: (a: Int, b: Int)) async throws {
      try await Tunnel.with(Self.plan(a: workers.a, b: workers.b), isLossless: false) { tunnel in
        let sizes = [0, 1, 56, 1372, 1373, 4000, 20_000]
        try await Pings(from: tunnel.a.namespace, to: Side.b.inner4).expectAnswers(sizes)
        try await Pings(from: tunnel.a.namespace, to: Side.b.inner6).expectAnswers([0, 1352, 1353, 9000])
        for (address, streams) in [(Side.b.inner4, 8), (Side.b.inner6, 3)] {
          try await Tunnel.transfer(
            from: tunnel.a.namespace, to: tunnel.b.namespace, address, bytes: 4_000_003, streams: streams)
        }
        for address in [Side.b.inner4, Side.b.inner6] {
          for _ in 0..<3 {
            let flood = VerifiedFlood(
              from: tunnel.a.namespace, to: tunnel.b.namespace, address: address, sizes: [8, 64, 1280, 1373, 3000],
              count: 300)
            let result = try await flood.run()
            #expect(result.isIntact, "\(result)")
          }
        }
        // Each worker has asked whether its association is there, and uses it.
        let isShared = await Self.allSeal(tunnel, own: Side.allCases.filter { (tunnel.plan.workers[$0] ?? 1) > 1 })
        #expect(isShared)
        for gateway in [tunnel.a, tunnel.b] {
          let statistics = await gateway.settled()
          // What did not fit the way between two workers, their senders send again.
          #expect(
            statistics.allDropped == statistics.dropped(.handOverFull),
            "\(statistics.outboundDrops) \(statistics.inboundDrops)")
          let count = tunnel.plan.workers[gateway.side] ?? 1
          #expect(statistics.workers.count == (count > 1 ? count : 0))
          // Ports are the kernel's choice: now and then a worker of four has none of the flows.
          let busy = statistics.workers.count { $0.delivered.packets > 0 }
          #expect(count == 1 || busy > 1, "\(statistics.workers)")
        }
      }
    }

    /// The order of a flow's packets is kept, whichever worker gets them first.
    @Test(.timeLimit(.minutes(1))) func datagramsStayInOrder() async throws {
      try await Tunnel.with(Self.plan(a: 2, b: 2), isLossless: false) { tunnel in
        try await Pings(from: tunnel.a.namespace, to: Side.b.inner4).expectAnswers([0])
        // Long enough for every worker to have its association.
        _ = await eventually(within: 2) { await Self.allSeal(tunnel, own: [.a, .b]) }
        for _ in 0..<4 {
          var flood = DatagramFlood(
            from: tunnel.a.namespace, to: tunnel.b.namespace, address: Side.b.inner4, size: 200, rate: 20_000)
          flood.seconds = 0.3
          let result = try await blocking { [flood] in try flood.run() }
          #expect(result.received > 1000 && result.late == 0 && result.duplicates == 0, "\(result)")
        }
      }
    }

    /// Worker 0 is told that the partner takes several packets in one; whoever owns a flow, its small packets go so.
    @Test(.timeLimit(.minutes(1))) func allWorkersShareSmallPackets() async throws {
      var plan = Self.plan(a: 2, b: 2)
      plan.aggregates = [.a, .b]
      try await Tunnel.with(plan, isLossless: false) { tunnel in
        let from = try #require(IPAddress(Side.a.inner4))
        let to = try #require(IPAddress(Side.b.inner4))
        let flows = try (1...8).map {
          try TestPacket(from: from, to: to, transport: .udp, sourcePort: $0, destinationPort: 7).bytes
        }
        let isKnown = try await eventually(within: 30) {
          try await Tunnel.transfer(
            from: tunnel.a.namespace, to: tunnel.b.namespace, Side.b.inner4, bytes: 200_001, streams: 4)
          for flow in flows {
            let steps = await tunnel.a.dataplane.explain(flow)?.steps ?? []
            guard steps.contains(where: { $0.name == .aggregation && $0.finding.hasPrefix("shares") }) else {
              return false
            }
          }
          return true
        }
        #expect(isKnown)
      }
    }

    /// A partner that was not told of this side's workers has none of their associations: worker 0 seals everything.
    @Test(.timeLimit(.minutes(1))) func aPartnerThatDoesNotKnowGetsEverythingFromWorker0() async throws {
      let plan = Self.plan(a: 2, b: 1)
      let network = try await blocking { try Network(plan.topology) }
      defer { network.remove() }
      var ignorant = plan.configuration(of: .b)
      ignorant.peers[0].inbound.removeLast(2)
      let a = try await TestGateway(.a, in: network["a"], plan)
      let b = try await TestGateway(.b, in: network["b"], plan, ignorant)
      try await Tunnel.transfer(from: a.namespace, to: b.namespace, Side.b.inner4, bytes: 3_000_003, streams: 6)
      let statistics = await a.dataplane.statistics()
      #expect(statistics.workers.map(\.sealed.packets)[1] == 0 && statistics.workers[1].handedOver > 0)
      #expect(await b.dropped(.unknownSPI) > 0)
      await a.dataplane.stop()
      await b.dataplane.stop()
    }

    /// Applied again and again, with another key or the same, under streams of which each belongs to a worker.
    @Test(.timeLimit(.minutes(1))) func reloadsUnderTraffic() async throws {
      let plan = Self.plan(a: 2, b: 2)
      try await Tunnel.with(plan, isLossless: false) { tunnel in
        var transfer = BulkTransfer(
          from: tunnel.a.namespace, to: tunnel.b.namespace, address: Side.b.inner4, amount: .seconds(1.5))
        transfer.streams = 4
        transfer.verifies = true
        let running = LabThread(name: "transfer") { [transfer] in try transfer.run() }
        for age in 0..<4 {
          var next = plan
          next.keyAge = UInt64(age)
          // What is received under first, then what is sent under: nobody misses a packet.
          for isLast in [false, true] {
            for gateway in [tunnel.a, tunnel.b] {
              var configuration = next.configuration(of: gateway.side)
              if age > 0 {
                var before = plan
                before.keyAge = UInt64(age - 1)
                let old = before.configuration(of: gateway.side).peers[0]
                configuration.peers[0].inbound += old.inbound
                if !isLast {
                  configuration.peers[0].outbound = old.outbound
                  configuration.peers[0].workerOutbound = old.workerOutbound
                }
              }
              try await gateway.dataplane.apply(configuration)
            }
          }
          try? await Task.sleep(for: .milliseconds(250))
        }
        let result = try await running.value
        #expect(result.isIntact && result.bytes > 1_000_000, "\(result)")
        #expect(await tunnel.b.dropped(.authenticationFailed) == 0)
        #expect(await tunnel.b.dropped(.replayed) == 0)
      }
    }

    /// Where the path is a stream, worker 0 seals and sends for all; flows stay where they are.
    @Test(.timeLimit(.minutes(1)), .enabled(if: Tool.exists("nft"), "needs nftables"))
    func udpIsCutAndTheStreamCarriesOn() async throws {
      var plan = Self.plan(a: 2, b: 2)
      func paths(_ side: Side) -> [ConfiguredPath] {
        let endpoint = TunnelPlan.path(side.outer4)
        return [("udp", 0), ("tcp", 1)].compactMap { name, transport in
          endpoint.map { ConfiguredPath(name: name, path: Path(transport: transport, endpoint: $0)) }
        }
      }
      plan.lists = [.a: paths(.a), .b: paths(.b)]
      try await Tunnel.with(plan, isLossless: false) { tunnel in
        try await Tunnel.transfer(
          from: tunnel.a.namespace, to: tunnel.b.namespace, Side.b.inner4, bytes: 1_000_003, streams: 4)
        let running = RunningTransfer(
          from: tunnel.a.namespace, to: tunnel.b.namespace, address: Side.b.inner4, seconds: 4)
        try? await Task.sleep(for: .milliseconds(300))
        try await blocking {
          _ = try Tool.run(
            "nft", ["-f", "-"],
            input: """
              table inet cut {
                chain out { type filter hook output priority 0; meta l4proto udp udp dport 4500 drop; }
                chain in { type filter hook input priority 0; meta l4proto udp udp dport 4500 drop; }
              }
              """, in: tunnel.a.namespace)
        }
        // Of two streams one stays, and it may be the other side's.
        let isMoved = await eventually(within: 30) {
          await ["tcp", PathChange.learned].contains(tunnel.a.usedPath())
        }
        #expect(isMoved)
        try await Tunnel.transfer(
          from: tunnel.a.namespace, to: tunnel.b.namespace, Side.b.inner4, bytes: 1_000_003, streams: 4)
        let result = try await running.finish()
        #expect(result.isIntact, "\(result)")
        #expect(await tunnel.b.dropped(.invalidConnectionState) == 0)
      }
    }
  }
}
