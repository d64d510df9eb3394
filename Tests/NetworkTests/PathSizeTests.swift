import Dataplane
import Lab
import PacketIO
import Testing

extension NetworkTests {
  /// Links that take less than is usual, or than they did.
  @Suite struct PathSizeTests {
    private static func size(_ gateway: TestGateway) async -> Int {
      await gateway.dataplane.statistics().peers.first?.pathMTU ?? 0
    }

    /// The machines' own link takes less than the base: the kernel says so, and traffic flows at once.
    @Test(.timeLimit(.minutes(1)), arguments: [1000, 1100])
    func aLinkBelowTheBase(mtu: Int) async throws {
      var plan = TunnelPlan()
      plan.topology.wires = [
        Topology.Wire(.init("a", "wire", ["192.0.2.1/24"]), .init("b", "wire", ["192.0.2.2/24"]), mtu: mtu)
      ]
      try await Tunnel.with(plan, isLossless: false) { tunnel in
        let (a, b) = (tunnel.a.namespace, tunnel.b.namespace)
        try await Tunnel.transfer(from: a, to: b, Side.b.inner4, bytes: 1_000_001)
        try await Tunnel.transfer(from: b, to: a, Side.a.inner4, bytes: 1_000_001)
        for gateway in [tunnel.a, tunnel.b] {
          let isKnown = try await eventually {
            try await Pings(from: a, to: Side.b.inner4).expectAnswers([56])
            let peer = await gateway.dataplane.statistics().peers.first
            return peer?.pathMTU == mtu && peer?.pathMTUSource == .probes
          }
          #expect(isKnown)
        }
      }
    }

    /// Something between the machines takes less than the base, and says nothing.
    @Test(.timeLimit(.minutes(2))) func aPathBelowTheBase() async throws {
      var plan = TunnelPlan()
      plan.topology = Topology(
        nodes: ["a", "router", "b"],
        wires: [
          Topology.Wire(.init("a", "wire", ["192.0.2.1/24"]), .init("router", "left", ["192.0.2.254/24"])),
          Topology.Wire(.init("router", "right", ["198.51.100.254/24"]), .init("b", "wire", ["198.51.100.2/24"])),
        ],
        routes: [
          Topology.Route("a", "default", via: "192.0.2.254"), Topology.Route("b", "default", via: "198.51.100.254"),
        ], routers: ["router"])
      plan.paths = [.a: TunnelPlan.path("192.0.2.1"), .b: TunnelPlan.path("198.51.100.2")]
      try await Tunnel.with(plan, isLossless: false) { tunnel in
        let (a, b) = (tunnel.a.namespace, tunnel.b.namespace)
        try await blocking {
          try tunnel.network["router"].ip([
            "route replace 192.0.2.0/24 dev left mtu lock 1000",
            "route replace 198.51.100.0/24 dev right mtu lock 1000",
          ])
        }
        try await Tunnel.transfer(from: a, to: b, Side.b.inner4, bytes: 1_000_001)
        try await Tunnel.transfer(from: b, to: a, Side.a.inner4, bytes: 1_000_001)
        for gateway in [tunnel.a, tunnel.b] {
          let isKnown = try await eventually(within: 40) {
            try await Pings(from: a, to: Side.b.inner4).expectAnswers([56])
            return (984...1000).contains(await Self.size(gateway))
          }
          let size = await Self.size(gateway)
          #expect(isKnown, "\(size)")
        }
      }
    }

    /// A gateway's own link takes less from one moment to the next: its kernel refuses what is too large, and says how much
    /// is not. A stream goes on.
    @Test(.timeLimit(.minutes(1)), arguments: [1, 2])
    func aLinkThatShrinks(workers: Int) async throws {
      var plan = TunnelPlan()
      plan.workers = [.a: workers, .b: workers]
      try await Tunnel.with(plan, isLossless: false) { tunnel in
        let (a, b) = (tunnel.a.namespace, tunnel.b.namespace)
        let stream = LabThread {
          var transfer = BulkTransfer(from: a, to: b, address: Side.b.inner4, amount: .seconds(3))
          transfer.verifies = true
          return try transfer.run()
        }
        #expect(await eventually { await Self.size(tunnel.a) == 1464 })
        try await blocking { try a.ip(["link set wire mtu 1400"]) }
        #expect(await eventually(within: 2) { await Self.size(tunnel.a) == 1400 })
        let result = try await stream.value
        #expect(result.isIntact)
        #expect(await tunnel.a.dropped(.exceedsPathMTU) == 0)
        // It is no failure of the path.
        #expect(
          tunnel.a.events.allSatisfy { if case .transportError = $0 { false } else { true } }, "\(tunnel.a.events)")
      }
    }
  }
}
