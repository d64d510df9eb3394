import Dataplane
import Lab
import PacketIO
import Testing

extension NetworkTests {
  /// Configurations change while traffic flows, and gateways move.
  @Suite struct ReloadTests {
    /// A stream in each direction and a flood beside them, while `body` runs; then all that was sealed has arrived.
    private func underTraffic(
      _ plan: TunnelPlan, isLossless: Bool = true, _ body: @escaping @Sendable (Tunnel) async throws -> Void
    ) async throws {
      try await Tunnel.with(plan, isLossless: isLossless) { tunnel in
        for gateway in [tunnel.a, tunnel.b] {
          // So much that the processors are busy, and not so much that the kernel's queues overflow: what is lost
          // shall be lost by a reload.
          for parameter in ["net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"] {
            try gateway.namespace.set(parameter, "4096 262144 786432")
          }
        }
        let streams = [(tunnel.a, tunnel.b, Side.b.inner4), (tunnel.b, tunnel.a, Side.a.inner6)].map {
          from, to, address in
          LabThread {
            var transfer = BulkTransfer(
              from: from.namespace, to: to.namespace, address: address, amount: .seconds(2.5))
            transfer.verifies = true
            return try transfer.run()
          }
        }
        let flood = VerifiedFlood(
          from: tunnel.a.namespace, to: tunnel.b.namespace, address: Side.b.inner6, sizes: [64, 1000], count: 2000)
        async let flooded = flood.run()
        try? await Task.sleep(for: .milliseconds(300))
        try await body(tunnel)
        let result = try await flooded
        if isLossless { #expect(result.isIntact, "\(result)") }
        for stream in streams {
          let result = try await stream.value
          #expect(result.isIntact && result.bytes > 1_000_000, "\(result.bytes) bytes")
        }
      }
    }

    @Test(.timeLimit(.minutes(1)))
    func reloadsLoseNothing() async throws {
      let plan = TunnelPlan()
      try await underTraffic(plan) { tunnel in
        for round in 0..<30 {
          for side in Side.allCases {
            var new = plan.configuration(of: side)
            // Another peer comes and goes, prefixes, routes and timers change, the order of the peers turns.
            if round % 2 == 0 {
              var third = plan
              third.keyAge = UInt64(100 + round)
              var peer = third.peer(side.other)
              peer.name = "third-\(round)"
              peer.path = nil
              peer.prefixes = [try #require(Prefix("10.99.\(round).0/24"))]
              new.peers.insert(peer, at: round % 4 == 0 ? 0 : 1)
              new.interface.routes += peer.prefixes
            }
            if round % 3 == 0 { new.peers[0].keepAliveInterval = .seconds(round + 1) }
            if round % 5 == 0 {
              new.interface.addresses.append(InterfaceAddress(try #require(IPAddress("10.98.0.1")), prefixLength: 32))
            }
            try await tunnel[side].dataplane.apply(new)
          }
          try? await Task.sleep(for: .milliseconds(30))
        }
        for side in Side.allCases {
          try await tunnel[side].dataplane.apply(plan.configuration(of: side))
          // Associations have kept their numbers: nothing was replayed, and every number was used once.
          let statistics = await tunnel[side].dataplane.statistics()
          let association = try #require(statistics.peers.first?.associations.first { $0.direction == .outbound })
          #expect(association.packets == statistics.allSealed)
          #expect(association.sequence == association.packets)
        }
      }
    }

    /// New keys by hand: the receiver knows the new one first, and forgets the old one last.
    @Test(.timeLimit(.minutes(1)))
    func newKeysLoseNothing() async throws {
      let plan = TunnelPlan()
      try await underTraffic(plan) { tunnel in
        for age in 1...4 as ClosedRange<UInt64> {
          var (old, new) = (plan, plan)
          old.keyAge = age - 1
          new.keyAge = age
          new.cipher = Cipher.allCases[Int(age) % 3]
          old.cipher = Cipher.allCases[Int(age - 1) % 3]
          if age == 1 { old.cipher = plan.cipher }
          for step in 0..<3 {
            for side in Side.allCases {
              var configuration = new.configuration(of: side)
              if step < 2 { configuration.peers[0].inbound.append(old.association(from: side.other)) }
              if step < 1 { configuration.peers[0].outbound = old.association(from: side) }
              try await tunnel[side].dataplane.apply(configuration)
            }
            // What was sealed under the old key is on its way for a moment.
            try? await Task.sleep(for: .milliseconds(60))
          }
        }
      }
    }

    /// A reload that is refused changes nothing.
    @Test(.timeLimit(.minutes(1)))
    func refusedReloadsChangeNothing() async throws {
      let plan = TunnelPlan()
      try await underTraffic(plan) { tunnel in
        for side in Side.allCases {
          var new = plan.configuration(of: side)
          new.interface.mtu = 100
          await #expect(throws: ConfigurationError.self) { try await tunnel[side].dataplane.apply(new) }
          new = plan.configuration(of: side)
          new.peers.append(new.peers[0])
          await #expect(throws: ConfigurationError.self) { try await tunnel[side].dataplane.apply(new) }
          // Known to be impossible to the kernel only: the address is the wire's.
          new = plan.configuration(of: side)
          new.peers[0].keepAliveInterval = .seconds(7)
          new.interface.addresses.append(InterfaceAddress(try #require(IPAddress(side.outer4)), prefixLength: 32))
          await #expect(throws: SystemError.self) { try await tunnel[side].dataplane.apply(new) }
        }
      }
    }

    /// b gets another real address, and says so by sending.
    @Test(.timeLimit(.minutes(1)), arguments: [false, true])
    func aPeerThatMovesIsFollowed(isV6: Bool) async throws {
      let plan = isV6 ? TunnelPlan.overIPv6 : TunnelPlan()
      try await underTraffic(plan, isLossless: false) { tunnel in
        for number in 3...5 {
          let (old, new) =
            isV6
            ? ("2001:db8::\(number == 3 ? 2 : number - 1)/64", "2001:db8::\(number)/64")
            : ("192.0.2.\(number == 3 ? 2 : number - 1)/24", "192.0.2.\(number)/24")
          try await blocking {
            try tunnel.b.namespace.ip(["addr del \(old) dev wire", "addr add \(new) dev wire" + (isV6 ? " nodad" : "")])
          }
          let path = try #require(TunnelPlan.path(String(new.prefix { $0 != "/" })))
          #expect(await tunnel.a.waitFor("the move") { $0 == .pathChanged(peer: "b", path: Path(endpoint: path)) })
          try? await Task.sleep(for: .milliseconds(200))
          let shown = await tunnel.a.dataplane.statistics().peers.first?.path
          #expect(shown == path)
        }
      }
    }

    /// b gets another real address while only a has something to say: a is told by its operator.
    @Test(.timeLimit(.minutes(1)))
    func anAppliedPathIsTaken() async throws {
      let plan = TunnelPlan()
      try await Tunnel.with(plan, isLossless: false) { tunnel in
        let b = tunnel.b.namespace
        try await Pings(from: tunnel.a.namespace, to: Side.b.inner4).expectAnswers()
        try await blocking { try b.ip(["addr del 192.0.2.2/24 dev wire", "addr add 192.0.2.9/24 dev wire"]) }
        var pings = Pings(from: tunnel.a.namespace, to: Side.b.inner4)
        pings.patience = 0.2
        let lost: [String] = try await pings.run([56])
        #expect(lost == ["56 bytes: no answer"])
        var moved = plan
        moved.paths[.b] = TunnelPlan.path("192.0.2.9")
        try await tunnel.a.dataplane.apply(moved.configuration(of: .a))
        try await Pings(from: tunnel.a.namespace, to: Side.b.inner4).expectAnswers([0, 100])
        // The same once more is no news, also after the peer has moved on by itself.
        try await blocking { try b.ip(["addr del 192.0.2.9/24 dev wire", "addr add 192.0.2.10/24 dev wire"]) }
        try await Pings(from: b, to: Side.a.inner4).expectAnswers([0])
        try await tunnel.a.dataplane.apply(moved.configuration(of: .a))
        try await Pings(from: tunnel.a.namespace, to: Side.b.inner4).expectAnswers([0, 100])
      }
    }

    /// A gateway that knows no address of its peer waits until it hears from it.
    @Test(.timeLimit(.minutes(1)))
    func aGatewayWaitsToHear() async throws {
      var plan = TunnelPlan()
      plan.measuresPath = false
      plan.paths[.b] = .some(nil)
      try await Tunnel.with(plan) { tunnel in
        var pings = Pings(from: tunnel.a.namespace, to: Side.b.inner4)
        pings.patience = 0.1
        let unheard: [String] = try await pings.run([1, 2, 3])
        #expect(unheard.count == 3)
        #expect(await tunnel.a.dropped(.noPath) == 3)
        try await Pings(from: tunnel.b.namespace, to: Side.a.inner4).expectAnswers([0, 1000])
        try await Pings(from: tunnel.a.namespace, to: Side.b.inner6).expectAnswers([0, 1000])
        #expect(await tunnel.a.dropped(.noPath) == 3)
      }
    }
  }
}
