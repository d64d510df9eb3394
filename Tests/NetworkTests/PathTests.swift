import Dataplane
import Lab
import PacketIO
import Testing

extension NetworkTests {
  /// Peers with several paths: which one is taken, and what becomes of traffic when it breaks.
  @Suite(.enabled(if: Tool.exists("nft"), "needs nftables"))
  struct PathTests {
    /// Over IPv6, else over IPv4, else a stream.
    private static func paths(to side: Side) -> [ConfiguredPath] {
      let (six, four) = (TunnelPlan.path(side.outer6), TunnelPlan.path(side.outer4))
      return [("udp6", six, 0), ("udp4", four, 0), ("tcp", four, 1)].compactMap { name, endpoint, transport in
        endpoint.map { ConfiguredPath(name: name, path: Path(transport: transport, endpoint: $0)) }
      }
    }

    private static var plan: TunnelPlan {
      var plan = TunnelPlan()
      plan.lists = [.a: paths(to: .a), .b: paths(to: .b)]
      return plan
    }

    /// Drops in `namespace` what the rule describes, in both directions.
    private func cut(
      _ rule: String, _ name: String, verdict: String = "drop", in namespace: Namespace
    ) async throws {
      try await blocking {
        _ = try Tool.run(
          "nft", ["-f", "-"],
          input: """
            table inet \(name) {
              chain out { type filter hook output priority 0; \(rule) \(verdict); }
              chain in { type filter hook input priority 0; \(rule) \(verdict); }
            }
            """, in: namespace)
      }
    }

    private func restore(_ name: String, in namespace: Namespace) async throws {
      try await blocking { _ = try Tool.run("nft", ["delete", "table", "inet", name], in: namespace) }
    }

    private func waitFor(_ path: String, _ tunnel: Tunnel, within seconds: Double) async -> Bool {
      await eventually(within: seconds) {
        let used = [await tunnel.a.usedPath(), await tunnel.b.usedPath()]
        return used.contains(path) && used.allSatisfy { $0 == path || $0 == PathChange.learned }
      }
    }

    /// At the start, the side that leads may climb once more.
    private func staysOn(_ path: String, _ tunnel: Tunnel, within seconds: Double) async -> Bool {
      let end = monotonicSeconds() + seconds
      while monotonicSeconds() < end {
        guard await waitFor(path, tunnel, within: end - monotonicSeconds()) else { return false }
        try? await Task.sleep(for: .seconds(1))
        if await waitFor(path, tunnel, within: 0.01) { return true }
      }
      return false
    }

    /// Both UDP paths are cut one after the other, and then come back, while bytes flow.
    @Test(.timeLimit(.minutes(1)))
    func pathsAreCutAndComeBack() async throws {
      try await Tunnel.with(PathTests.plan, isLossless: false) { tunnel in
        #expect(await waitFor("udp6", tunnel, within: 30))
        let transfer = RunningTransfer(
          from: tunnel.a.namespace, to: tunnel.b.namespace, address: Side.b.inner4, seconds: 15)
        let machine = tunnel.a.namespace
        var stalls: [String] = []
        try await Task.sleep(for: .seconds(1))
        for (step, path) in [("six", "udp4"), ("four", "tcp")] {
          let cutAt = monotonicSeconds()
          let family = step == "six" ? "ip6 nexthdr udp" : "ip protocol udp"
          try await cut("\(family) udp dport 4500", step, in: machine)
          #expect(await waitFor(path, tunnel, within: 30), "\(path)")
          try await Task.sleep(for: .seconds(1.5))
          let stall = transfer.longestStall(since: cutAt)
          #expect(stall < 3)
          stalls.append("to \(path): \(Int(stall * 1000)) ms")
        }
        let restoredAt = monotonicSeconds()
        try await restore("six", in: machine)
        #expect(await waitFor("udp6", tunnel, within: 30))
        stalls.append("back to udp6: \(Int(transfer.longestStall(since: restoredAt) * 1000)) ms")
        let result = try await transfer.finish()
        print("interruption \(stalls.joined(separator: ", ")); \(result.bytes >> 20) MiB")
        #expect(result.isIntact && result.bytes > 10_000_000)
        // Both sides have told of each step.
        for gateway in [tunnel.a, tunnel.b] {
          let changes = gateway.events.compactMap { event -> PathChange? in
            if case .pathSelected(_, let change) = event { change } else { nil }
          }
          let paths = changes.map { $0.name == PathChange.learned ? "tcp" : $0.name }
          #expect(Set(paths).isSuperset(of: ["udp4", "tcp", "udp6"]), "\(paths)")
          #expect(changes.contains { $0.roundTrip != nil && $0.loss != nil && $0.previous != nil })
        }
        let peer = await tunnel.a.dataplane.statistics().peers[0]
        #expect(peer.paths.map(\.name).prefix(3) == ["udp6", "udp4", "tcp"])
        #expect(peer.paths.first?.seenAs == Endpoint("2001:db8::1", defaultPort: 4500))
      }
    }

    /// A fifth of the packets of the best path is lost: it is left for one that loses none.
    @Test(.timeLimit(.minutes(1)))
    func aLossyPathIsLeft() async throws {
      try await Tunnel.with(PathTests.plan, isLossless: false) { tunnel in
        #expect(await staysOn("udp6", tunnel, within: 30))
        let transfer = RunningTransfer(
          from: tunnel.b.namespace, to: tunnel.a.namespace, address: Side.a.inner6, seconds: 11)
        try await Task.sleep(for: .seconds(0.5))
        let start = monotonicSeconds()
        try await cut("ip6 nexthdr udp udp dport 4500 numgen random mod 100 < 20", "loss", in: tunnel.a.namespace)
        #expect(
          await eventually(within: 12) { ![await tunnel.a.usedPath(), await tunnel.b.usedPath()].contains("udp6") })
        let after = monotonicSeconds() - start
        let stall = transfer.longestStall(since: start)
        let reasons = [await tunnel.a.reason(), await tunnel.b.reason()]
        let result = try await transfer.finish()
        print("20 % loss: left after \(Int(after * 1000)) ms, interruption \(Int(stall * 1000)) ms")
        #expect(result.isIntact)
        #expect(reasons.contains(.previousLossy) || reasons.contains(.previousSilent), "\(reasons)")
      }
    }

    /// The path is a stream, which somebody resets: UDP is blocked altogether.
    @Test(.timeLimit(.minutes(1)))
    func aStreamIsReset() async throws {
      try await Tunnel.with(PathTests.plan, isLossless: false) { tunnel in
        try await cut("udp dport 4500", "block", in: tunnel.b.namespace)
        #expect(await waitFor("tcp", tunnel, within: 30))
        let transfer = RunningTransfer(
          from: tunnel.a.namespace, to: tunnel.b.namespace, address: Side.b.inner4, seconds: 5)
        try await Task.sleep(for: .seconds(1))
        let reset = monotonicSeconds()
        try await cut("tcp dport 4500", "lab", verdict: "reject with tcp reset", in: tunnel.a.namespace)
        try await Task.sleep(for: .seconds(0.3))
        try await restore("lab", in: tunnel.a.namespace)
        let result = try await transfer.finish()
        let stall = transfer.longestStall(since: reset)
        print("stream reset: interruption \(Int(stall * 1000)) ms; \(result.bytes >> 20) MiB")
        #expect(result.isIntact && stall < 3)
        let figures = await tunnel.a.dataplane.statistics().transports[1].counters
        #expect(figures.contains { $0.name == "streams-dialled" && $0.value > 1 })
      }
    }
  }
}

extension TestGateway {
  /// The name of the path that traffic to the other side takes.
  func usedPath() async -> String? {
    await dataplane.statistics().peers.first?.paths.first { $0.isUsed }?.name
  }

  func reason() async -> PathReason? { await dataplane.statistics().peers.first?.pathReason }
}
