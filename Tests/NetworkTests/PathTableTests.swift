import Dataplane
import Gateway
import Glibc
import Lab
import PacketIO
import Testing
import Transports

extension NetworkTests {
  /// Every pair of situations that a gateway can be in, and the best path that there is between them.
  @Suite(.serialized, .enabled(if: HairpinSite.isPossible, "needs nft, culvert and culvert-relay"))
  struct PathTableTests {
    /// What lies between a gateway and the network that all share.
    enum Situation: String, CaseIterable, Sendable {
      /// A router.
      case open
      /// An address translator that lets in only answers.
      case translated
      /// The same, and it lets out nothing but TCP.
      case streamsOnly = "TCP out only"

      fileprivate var rules: String? {
        guard self != .open else { return nil }
        return """
          table inet site {
            chain out { type nat hook postrouting priority 100; oifname "wan" masquerade; }
            chain through {
              type filter hook forward priority 0; policy drop;
              \(self == .streamsOnly ? "meta l4proto != tcp drop" : "")
              iifname "lan" accept
              ct state established,related accept
            }
          }
          """
      }
    }

    /// The usual ones, or all of them where `CULVERT_ALL_PATHS` is set.
    static let pairs: [(Situation, Situation)] =
      getenv("CULVERT_ALL_PATHS") == nil
      ? [(.open, .translated), (.translated, .translated), (.streamsOnly, .translated)]
      : Situation.allCases.flatMap { a in Situation.allCases.map { (a, $0) } }

    private static func best(_ a: Situation, _ b: Situation) -> String {
      switch (a, b) {
      case (.streamsOnly, .open), (.open, .streamsOnly): "tcp"
      case (.open, _), (_, .open): "udp"
      case (.translated, .translated): "udp-hairpin"
      default: "tcp-hairpin"
      }
    }

    @Test(.timeLimit(.minutes(1)), arguments: pairs)
    func theBestPathIsFound(pair: (Situation, Situation)) async throws {
      let site = try await HairpinSite(routes: true, rules: ["nat-a": pair.0.rules, "nat-b": pair.1.rules])
      defer { site.network.remove() }
      let relay = try await site.startRelay()
      defer { relay.terminate() }
      let udp = try await site.issue(isV4: (true, true))
      let tcp = try await site.issue(isV4: (true, true))
      let start = monotonicSeconds()
      var gateways: [Dataplane] = []
      for side in Side.allCases {
        gateways.append(
          try await site.gateway(side, udp: try #require(udp[side]), tcp: try #require(tcp[side])))
      }
      var pings = Pings(from: site.network["a"], to: Side.b.inner4)
      pings.patience = 0.1
      var first = 0.0
      let isReached = try await eventually(within: 30) {
        let isAnswered = try await pings.run([0]).isEmpty
        first = monotonicSeconds() - start
        return isAnswered
      }
      let best = Self.best(pair.0, pair.1)
      let isFound = await eventually(within: 30) {
        var used: [String?] = []
        for gateway in gateways { used.append(await gateway.statistics().peers[0].paths.first { $0.isUsed }?.name) }
        return used.contains(best) && used.allSatisfy { $0 == best || $0 == PathChange.learned }
      }
      let found = monotonicSeconds() - start
      var transfer = BulkTransfer(
        from: site.network["a"], to: site.network["b"], address: Side.b.inner4, amount: .bytes(16 << 20))
      transfer.verifies = true
      transfer.timeLimit = 20
      let result = try await blocking { [transfer] in try transfer.run() }
      #expect(isReached && isFound && result.isIntact, "\(pair)")
      let paths = await gateways[0].statistics().peers[0].paths
      print(
        "\(pair.0.rawValue) – \(pair.1.rawValue): \(best)\(isFound ? "" : " NOT found"), first answer after "
          + "\(Int(first * 1000)) ms, there after \(Int(found * 1000)) ms, \(Int(result.bitsPerSecond / 1e6)) Mbit/s, "
          + "16 MiB \(result.isIntact ? "intact" : "BROKEN"); "
          + paths.map { "\($0.name) \($0.state.rawValue)" }.joined(separator: ", "))
      for gateway in gateways { await gateway.stop() }
    }

    /// Runs a transfer between two gateways, one behind a translator, the other as it is said, and `body` meanwhile.
    private func transfer(
      to b: Situation, seconds: Double, best: String,
      _ body: (HairpinSite, inout ProcessHandle, RunningTransfer) async throws -> Void
    ) async throws {
      let site = try await HairpinSite(routes: true, rules: ["nat-a": Situation.translated.rules, "nat-b": b.rules])
      defer { site.network.remove() }
      var relay = try await site.startRelay()
      defer { relay.terminate() }
      let udp = try await site.issue(isV4: (true, true))
      let tcp = try await site.issue(isV4: (true, true))
      let a = try await site.gateway(.a, udp: try #require(udp[.a]), tcp: try #require(tcp[.a]))
      let b = try await site.gateway(.b, udp: try #require(udp[.b]), tcp: try #require(tcp[.b]))
      #expect(await eventually(within: 30) { await a.path == best })
      let transfer = RunningTransfer(
        from: site.network["a"], to: site.network["b"], address: Side.b.inner4, seconds: seconds)
      try await Task.sleep(for: .seconds(1))
      try await body(site, &relay, transfer)
      let result = try await transfer.finish()
      #expect(result.isIntact && result.bytes > 10_000_000)
      #expect(await eventually(within: 30) { await a.path == best }, "back where it was")
      await a.stop()
      await b.stop()
    }

    /// The translator gets another address, and forgets all that it has translated.
    @Test(.timeLimit(.minutes(1)))
    func theTranslatorsAddressIsSwapped() async throws {
      try await transfer(to: .open, seconds: 5, best: "udp") { site, _, transfer in
        let swapped = monotonicSeconds()
        let translator = site.network["nat-a"]
        try await blocking {
          try translator.ip([
            "addr del 192.0.2.1/24 dev wan", "addr add 192.0.2.3/24 dev wan", "route add default via 192.0.2.9",
          ])
        }
        try await Task.sleep(for: .seconds(3))
        let stall = transfer.longestStall(since: swapped)
        print("translator's address swapped: interruption \(Int(stall * 1000)) ms")
        #expect(stall < 2.5)
      }
    }

    /// The proxy dies under the transfer and comes back.
    @Test(.timeLimit(.minutes(1)))
    func theProxyIsKilledAndRestarted() async throws {
      try await transfer(to: .translated, seconds: 9, best: "udp-hairpin") { site, relay, transfer in
        let killed = monotonicSeconds()
        relay.signal(SIGKILL)
        let old = relay
        _ = try await blocking { try old.wait(timeout: 5) }
        relay = try await site.startRelay()
        try await Task.sleep(for: .seconds(6))
        let stall = transfer.longestStall(since: killed)
        print("proxy killed and restarted: interruption \(Int(stall * 1000)) ms")
        #expect(stall < 6)
      }
    }
  }
}

extension Dataplane {
  /// The name of the path that traffic to the only peer takes.
  fileprivate var path: String? {
    get async { await statistics().peers[0].paths.first { $0.isUsed }?.name }
  }
}

extension HairpinSite {
  /// A gateway with every path that there can be.
  fileprivate func gateway(_ side: Side, udp: HairpinTicketFile, tcp: HairpinTicketFile) async throws -> Dataplane {
    var configuration = TunnelPlan().configuration(of: side)
    let there = PacketIO.Endpoint(side == .a ? "10.2.0.2" : "10.1.0.2", defaultPort: 4500)
    configuration.peers[0].paths =
      (there.map {
        [
          ConfiguredPath(name: "udp", path: Path(endpoint: $0)),
          ConfiguredPath(name: "tcp", path: Path(transport: 1, endpoint: $0)),
        ]
      } ?? []) + [
        ConfiguredPath(name: "udp-hairpin", path: udp.path(.udp, transport: 2)),
        ConfiguredPath(name: "tcp-hairpin", path: tcp.path(.tcp, transport: 2)),
      ]
    return try await network[side.rawValue].inside { [configuration] in
      var options = Dataplane.Options()
      options.buffers = 256
      return try Dataplane(
        configuration,
        transports: [UDPTransport(), TCPTransport(), HairpinTransport([.init(udp, .udp), .init(tcp, .tcp)])],
        options: options)
    }
  }
}
