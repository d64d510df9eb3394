import Dataplane
import Lab
import PacketIO
import Testing

extension NetworkTests {
  /// A tunnel whose other end is strongSwan: it knows no probes, so what the path takes has to be learned otherwise.
  @Suite(.enabled(if: StrongSwanPeer.isInstalled, "needs strongSwan: see SKIPPED above"))
  struct StrongSwanTests {
    /// What limits the packets: nothing below 1500 bytes, the gateway's own link, or a router's next one.
    enum Narrow: Sendable { case nowhere, ownLink(Int), beyondRouter(Int) }

    private static func topology(_ narrow: Narrow) -> Topology {
      guard case .ownLink(let mtu) = narrow else {
        return Topology(
          nodes: ["a", "router", "b"],
          wires: [
            Topology.Wire(.init("a", "wire", ["192.0.2.1/24"]), .init("router", "left", ["192.0.2.254/24"])),
            Topology.Wire(.init("router", "right", ["198.51.100.254/24"]), .init("b", "wire", ["198.51.100.2/24"])),
          ],
          routes: [
            Topology.Route("a", "default", via: "192.0.2.254"), Topology.Route("b", "default", via: "198.51.100.254"),
          ], routers: ["router"])
      }
      return Topology(
        nodes: ["a", "b"],
        wires: [
          Topology.Wire(.init("a", "wire", ["192.0.2.1/24"]), .init("b", "wire", ["192.0.2.2/24"]), mtu: mtu)
        ])
    }

    /// 4 MiB in each direction arrive as they were, and `show` says on what the size rests.
    @Test(
      .timeLimit(.minutes(2)),
      arguments: [
        (Narrow.nowhere, 1464, PathMTUSource.configured), (.ownLink(1460), 1460, .link), (.ownLink(1300), 1300, .link),
        (.beyondRouter(1460), 1460, .icmp), (.beyondRouter(1300), 1300, .icmp),
      ])
    func transfersArrive(narrow: Narrow, found: Int, source: PathMTUSource) async throws {
      let network = try await blocking { try Network(Self.topology(narrow)) }
      defer { network.remove() }
      let (a, b) = (network["a"], network["b"])
      var outer = "198.51.100.2"
      switch narrow {
      case .nowhere: break
      case .ownLink: outer = "192.0.2.2"
      case .beyondRouter(let mtu):
        try await blocking {
          try network["router"].ip([
            "route replace 192.0.2.0/24 dev left mtu lock \(mtu)",
            "route replace 198.51.100.0/24 dev right mtu lock \(mtu)",
          ])
        }
      }
      let peer = try await blocking { [outer] in
        try StrongSwanPeer(in: b, other: a, outer: (outer, "192.0.2.1"), inner: (Side.b.inner4, Side.a.inner4))
      }
      defer { peer.stop() }
      var plan = TunnelPlan()
      plan.paths = [.b: TunnelPlan.path(outer)]
      var configuration = plan.configuration(of: .a)
      configuration.peers[0].outbound = peer.send
      configuration.peers[0].inbound = [peer.receive]
      let gateway = try await TestGateway(.a, in: a, plan, configuration)
      do {
        try await Tunnel.transfer(from: a, to: b, Side.b.inner4, bytes: 4 << 20)
        try await Tunnel.transfer(from: b, to: a, Side.a.inner4, bytes: 4 << 20)
        let learned = try await eventually(within: 30) {
          // Probes go where traffic goes.
          try await Pings(from: a, to: Side.b.inner4).expectAnswers([56])
          return await gateway.dataplane.statistics().peers.first?.pathMTUSource == source
        }
        let statistics = await gateway.dataplane.statistics()
        #expect(learned, "\(String(describing: statistics.peers.first))")
        #expect(statistics.peers.first?.pathMTU == found)
        // Once more, with packets as large as they may be.
        try await Tunnel.transfer(from: a, to: b, Side.b.inner4, bytes: 4 << 20)
        #expect(statistics.peers.first?.probesAnswered == 0)
      } catch {
        await gateway.dataplane.stop()
        throw error
      }
      await gateway.dataplane.stop()
    }
  }
}
