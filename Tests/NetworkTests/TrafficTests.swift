import Dataplane
import Lab
import PacketIO
import Testing

extension NetworkTests {
  /// Everything that travels arrives as it was sent:
  /// ```
  /// a: 10.77.0.1, fd77::1 ── culvert0 ═══ 192.0.2.0/24 or 2001:db8::/64 ═══ culvert0 ── b: 10.77.0.2, fd77::2
  /// ```
  @Suite struct TrafficTests {
    /// Both families inside, over each of both outside.
    static let plans: [(name: String, plan: TunnelPlan)] = [
      ("over IPv4", TunnelPlan()), ("over IPv6", .overIPv6),
    ]

    @Test(.timeLimit(.minutes(1)), arguments: [0, 1])
    func pingsOfEverySize(outer: Int) async throws {
      try await Tunnel.with(TrafficTests.plans[outer].plan) { tunnel in
        // IPv4 has 28 bytes of headers, IPv6 48; beyond the MTU the kernel fragments inside the tunnel.
        let sizes = Array(0...1500) + [2744, 2745, 4000, 9000, 30_000, 65_000, 65_507]
        for address in [Side.b.inner4, Side.b.inner6] {
          try await Pings(from: tunnel.a.namespace, to: address).expectAnswers(sizes)
        }
        try await Pings(from: tunnel.b.namespace, to: Side.a.inner4).expectAnswers([0, 1, 1372, 1373])
        try await Pings(from: tunnel.b.namespace, to: Side.a.inner6).expectAnswers([0, 1, 1352, 1353])
        // Each echo and each fragment of one is a packet of its own; none of them can be part of a superpacket.
        #expect(await tunnel.a.dataplane.statistics().sealed.packets > 3000)
      }
    }

    @Test(.timeLimit(.minutes(1)), arguments: [0, 1])
    func streamsArriveIntact(outer: Int) async throws {
      try await Tunnel.with(TrafficTests.plans[outer].plan, isLossless: false) { tunnel in
        for (address, streams) in [(Side.b.inner4, 1), (Side.b.inner6, 3)] {
          try await Tunnel.transfer(
            from: tunnel.a.namespace, to: tunnel.b.namespace, address, bytes: 20_000_003, streams: streams)
        }
        let (left, right) = (await tunnel.a.settled(), await tunnel.b.settled())
        // Superpackets leave as trains and arrive as trains.
        #expect(left.transport("sent-trains") * 4 < left.transport("sent-datagrams"))
        #expect(right.transport("received-trains") * 4 < right.transport("received-datagrams"))
        #expect(right.allDropped == 0)
      }
    }

    @Test(.timeLimit(.minutes(1)), arguments: [0, 1])
    func floodsArriveIntact(outer: Int) async throws {
      try await Tunnel.with(TrafficTests.plans[outer].plan) { tunnel in
        for (from, to) in [(tunnel.a, tunnel.b), (tunnel.b, tunnel.a)] {
          for address in [to.side.inner4, to.side.inner6] {
            // Whole, just too large for one packet, and in many fragments.
            let sizes = [8, 9, 64, 100, 511, 1280, 1352, 1372, 1373, 1400, 3000, 20_000]
            let flood = VerifiedFlood(
              from: from.namespace, to: to.namespace, address: address, sizes: sizes, count: 2000)
            let result = try await flood.run()
            #expect(result.isIntact, "\(result)")
          }
        }
      }
    }

    /// Senders that hand the kernel trains of their own (UDP_SEGMENT), as QUIC does.
    @Test(.timeLimit(.minutes(1)), arguments: [0, 1])
    func segmentedFloodsArrive(outer: Int) async throws {
      try await Tunnel.with(TrafficTests.plans[outer].plan) { tunnel in
        for address in [Side.b.inner4, Side.b.inner6] {
          var flood = DatagramFlood(
            from: tunnel.a.namespace, to: tunnel.b.namespace, address: address, size: 1200, rate: 6000)
          flood.segmentsPerSend = 20
          let result = try await blocking { [flood] in try flood.run() }
          #expect(result.sent > 1000 && result.loss == 0 && result.duplicates == 0, "\(result)")
        }
      }
    }

    /// What gateways are for: hosts behind them, that know nothing of tunnels.
    @Test(.timeLimit(.minutes(1)))
    func hostsBehindGatewaysReachEachOther() async throws {
      var plan = TunnelPlan()
      plan.topology = .routed
      plan.nodes = [.a: "gateway-a", .b: "gateway-b"]
      plan.networks = [.a: ["10.1.0.0/24", "fd01::/64"], .b: ["10.2.0.0/24", "fd02::/64"]]
      try await Tunnel.with(plan, isLossless: false) { tunnel in
        let (left, right) = (tunnel.network["host-a"], tunnel.network["host-b"])
        for address in ["10.2.0.2", "fd02::2"] {
          try await Pings(from: left, to: address).expectAnswers([0, 56, 1300, 1352])
          // Routers do not fragment IPv6: from the first one host-a learns the tunnel's MTU, from the second host-b.
          if address.contains(":") { _ = try await Pings(from: left, to: address).run([5000, 5000]) as [String] }
          try await Pings(from: left, to: address).expectAnswers([5000])
          // A host's MTU is 1500, the tunnel's 1400: the kernel tells it, and then it fits.
          try await Tunnel.transfer(from: left, to: right, address, bytes: 10_000_019)
          let flood = VerifiedFlood(from: left, to: right, address: address, sizes: [8, 700, 1352], count: 1000)
          let arrived = try await flood.run()
          #expect(arrived.isIntact, "\(arrived)")
        }
        let statistics = await tunnel.b.settled()
        #expect(statistics.inboundDrops == [])
        // A router that joins its multicast group reports so on every device (RFC 3810): to nobody's address.
        #expect(statistics.outboundDrops.allSatisfy { $0.reason == .noRoute && $0.packets < 10 })
      }
    }

    /// Older kernels, seen by not using what newer ones have; and a device without offloads.
    @Test(
      .timeLimit(.minutes(1)),
      arguments: [[], .deferredTaskRun, .bufferRings, [.bufferRings, .multishotReceive]] as [RingFeatures])
    func plainerKernelsCarryTheSame(features: RingFeatures) async throws {
      var plan = TunnelPlan()
      plan.features = features
      try await FallbackTraffic.run(plan)
    }

    @Test(.timeLimit(.minutes(1)), arguments: [[], .checksum, [.checksum, .tcp4, .tcp6]] as [TunOffloads])
    func plainerDevicesCarryTheSame(offloads: TunOffloads) async throws {
      var plan = TunnelPlan()
      plan.offloads = offloads
      try await FallbackTraffic.run(plan)
    }
  }
}

private enum FallbackTraffic {
  static func run(_ plan: TunnelPlan) async throws {
    try await Tunnel.with(plan, isLossless: false) { tunnel in
      for address in [Side.b.inner4, Side.b.inner6] {
        try await Pings(from: tunnel.a.namespace, to: address).expectAnswers([0, 1, 56, 1352, 1400, 8000])
        try await Tunnel.transfer(from: tunnel.a.namespace, to: tunnel.b.namespace, address, bytes: 5_000_011)
      }
    }
  }
}
