import Dataplane
import Foundation
import Gateway
import Glibc
import Lab
import Testing

extension NetworkTests {
  /// Gateways and the proxy between them as operators run them: from files, with tickets that a command issued.
  @Suite(.enabled(if: HairpinSite.isPossible, "needs nft, culvert and culvert-relay")) struct HairpinGatewayTests {
    /// A gateway behind a translator, in a folder of its own beside its partner's.
    private struct Site {
      let side: Side
      let folder: String
      let keys: GatewaySite.Keys

      var file: String { "\(folder)/\(side).yaml" }
      var control: String { "\(folder)/\(side).sock" }

      /// - Parameter paths: to the partner.
      func text(paths: String) -> String {
        """
        name: \(side)
        \(identityLine)
        listen-tcp: 4500
        reach: firewalled
        interface: {name: \(TunnelPlan.device), addresses: [\(side.inner4)/32, "\(side.inner6)/128"]}
        control: \(side).sock
        state: state-\(side)
        firewall: {rules: [{number: 10, name: everything, action: allow}]}
        peers:
          - name: \(side.other)
            paths: \(paths)
            reach: firewalled
            prefixes: [\(side.other.inner4)/32, "\(side.other.inner6)/128"]
            \(keyLines)
        """
      }

      private var identityLine: String {
        if case .identities = keys { return "identity: \(side).key" }
        return ""
      }

      private var keyLines: String {
        switch keys {
        case .secret: return "secret: shared.secret"
        case .identities(let identities): return "gid: \"\(identities[side.other]?.gid ?? "")\""
        case .manual(let secret):
          let derived = GatewaySite.associations(of: side, secret: secret)
          return """
            send: {spi: \(derived.outbound.spi), key: from-\(side).key}
                receive: {spi: \(derived.inbound.spi), key: from-\(side.other).key}
            """
        }
      }

      var paths: String { "[udp-hairpin: udp/a-b.\(side).ticket, tcp-hairpin: tcp/a-b.\(side).ticket]" }

      func write(_ text: String) throws { try Data(text.utf8).write(to: URL(filePath: file)) }

      func report() async throws -> GatewayReport {
        let shown = try await Program.run(["show", "--control", control, "--json"])
        #expect(shown.status == .exited(0), "\(shown.lines)")
        return try JSONDecoder().decode(GatewayReport.self, from: Data(shown.lines.joined(separator: "\n").utf8))
      }
    }

    private func start(_ site: Site, in namespace: Namespace) async throws -> ProcessHandle {
      try await blocking {
        let process = try ProcessHandle(Program.path, ["gateway", "--config", site.file], in: namespace)
        try process.waitUntil("it ran", timeout: 20) { $0.output.contains("gateway runs") }
        return process
      }
    }

    /// How two gateways may come by keys.
    enum Kind: CaseIterable, Sendable { case manual, secret, identities }

    /// Gives both gateways tickets, and what keys come from.
    private func equip(_ site: HairpinSite, _ kind: Kind) async throws -> [Site] {
      let folder = site.directory.path
      let secret = try await GatewaySite.makeSecret()
      let keys: GatewaySite.Keys
      switch kind {
      case .manual:
        keys = .manual(secret)
        for side in Side.allCases {
          let derived = GatewaySite.associations(of: side, secret: secret)
          try site.directory.write("from-\(side).key", derived.outbound.key.hexadecimal + "\n")
        }
      case .secret:
        keys = .secret(secret)
        try site.directory.write("shared.secret", secret)
      case .identities:
        let identities = try await GatewaySite.makeIdentities()
        keys = .identities(identities)
        for (side, identity) in identities { try site.directory.write("\(side).key", identity.pem) }
      }
      for kind in ["udp", "tcp"] {
        try FileManager.default.createDirectory(atPath: "\(folder)/\(kind)", withIntermediateDirectories: true)
        try await site.culvert([
          "ticket", "--key", "\(folder)/control.key", "--between", "a,b", "--proxy", "192.0.2.9:4501,198.51.100.9:4501",
          "--encapsulations", kind, "--valid", "10m", "--out", "\(folder)/\(kind)",
        ])
      }
      return Side.allCases.map { Site(side: $0, folder: folder, keys: keys) }
    }

    /// Gateways that cannot reach each other are given tickets while they run.
    @Test(.timeLimit(.minutes(1)), arguments: [Kind.manual, .secret])
    func theFirstHairpinComesWithAReload(kind: Kind) async throws {
      let site = try await HairpinSite()
      defer { site.network.remove() }
      let sites = try await equip(site, kind)
      // Nobody answers there.
      let alone = { (site: Site) in
        site.text(paths: "[udp: 203.0.113.9]").replacing("reach: firewalled", with: "reach: open")
      }
      for site in sites { try site.write(alone(site)) }
      let relay = try await site.startRelay()
      let gateways = [
        try await start(sites[0], in: site.network["a"]), try await start(sites[1], in: site.network["b"]),
      ]
      defer { for process in gateways + [relay] { process.terminate() } }
      for site in sites {
        try site.write(site.text(paths: site.paths))
        let reloaded = try await Program.run(["reload", "--control", site.control])
        #expect(reloaded.status == .exited(0), "\(reloaded.lines)")
      }
      var ping = Pings(from: site.network["a"], to: Side.b.inner4)
      ping.patience = 0.2
      let isReached = try await eventually(within: 30) { [ping] in try await ping.run([0]).isEmpty }
      #expect(isReached)
      let report = try await sites[0].report()
      #expect(report.statistics.transport("hairpins-open") > 0)
      // And they go and come again.
      for text in [alone(sites[0]), sites[0].text(paths: sites[0].paths)] {
        try sites[0].write(text)
        let reloaded = try await Program.run(["reload", "--control", sites[0].control])
        #expect(reloaded.status == .exited(0), "\(reloaded.lines)")
      }
      let isReachedAgain = try await eventually(within: 30) { [ping] in try await ping.run([0]).isEmpty }
      #expect(isReachedAgain)
    }

    /// One ticket for both, which is no secret: each proves itself by its identity, after a reload and a restart as before.
    @Test(.timeLimit(.minutes(1))) func byTicketsThatNameGIDs() async throws {
      let site = try await HairpinSite()
      defer { site.network.remove() }
      let folder = site.directory.path
      let sites = try await equip(site, .identities)
      guard case .identities(let identities) = sites[0].keys else { return }
      let gids = Side.allCases.compactMap { identities[$0]?.gid }.joined(separator: ",")
      for kind in ["udp", "tcp"] {
        try await site.culvert([
          "ticket", "pair", "--key", "\(folder)/control.key", "--between", gids, "--valid", "10m",
          "\(folder)/\(kind).pair",
        ])
      }
      for site in sites {
        let at = site.side == .a ? "192.0.2.9" : "198.51.100.9"
        try site.write(
          site.text(paths: "[{udp-hairpin: udp.pair, at: \(at)}, {tcp-hairpin: tcp.pair, at: \"\(at):4501\"}]"))
      }
      let relay = try await site.startRelay()
      let first = try await start(sites[0], in: site.network["a"])
      let partner = try await start(sites[1], in: site.network["b"])
      defer { for process in [first, partner, relay] { process.terminate() } }
      var ping = Pings(from: site.network["a"], to: Side.b.inner4)
      ping.patience = 0.2
      let isReached = try await eventually(within: 30) { [ping] in try await ping.run([0]).isEmpty }
      #expect(isReached, "\(first.output) \(relay.output)")
      try await Tunnel.transfer(from: site.network["a"], to: site.network["b"], Side.b.inner4, bytes: 4 << 20)
      func openings() async throws -> UInt64 { try await sites[0].report().statistics.transport("hairpins-opened") }
      #expect(try await eventually(within: 30) { try await openings() == 2 })
      let before = try await openings()
      let reloaded = try await Program.run(["reload", "--control", sites[0].control])
      #expect(reloaded.status == .exited(0), "\(reloaded.lines)")
      try await Tunnel.transfer(from: site.network["b"], to: site.network["a"], Side.a.inner6, bytes: 2 << 20)
      #expect(try await openings() == before && before > 0)
      try await blocking {
        first.signal(SIGKILL)
        _ = try first.wait(timeout: 10)
      }
      let second = try await start(sites[0], in: site.network["a"])
      defer { second.terminate() }
      let isBack = try await eventually(within: 30) { [ping] in try await ping.run([0]).isEmpty }
      #expect(isBack, "\(second.output) \(relay.output)")
    }

    @Test(.timeLimit(.minutes(1)), arguments: Kind.allCases) func fromFilesToVerifiedBytes(kind: Kind) async throws {
      let site = try await HairpinSite()
      defer { site.network.remove() }
      let folder = site.directory.path
      let sites = try await equip(site, kind)
      for site in sites {
        try site.write(site.text(paths: site.paths))
        let checked = try await Program.run(["check", site.file])
        #expect(checked.status == .exited(0), "\(checked.lines)")
      }
      let relay = try await site.startRelay()
      let gateways = [
        try await start(sites[0], in: site.network["a"]), try await start(sites[1], in: site.network["b"]),
      ]
      defer { for process in gateways + [relay] { process.terminate() } }
      var ping = Pings(from: site.network["a"], to: Side.b.inner4)
      ping.patience = 0.2
      let isReached = try await eventually(within: 30) { [ping] in try await ping.run([0]).isEmpty }
      #expect(isReached)
      try await Tunnel.transfer(from: site.network["a"], to: site.network["b"], Side.b.inner4, bytes: 8 << 20)
      try await Tunnel.transfer(from: site.network["b"], to: site.network["a"], Side.a.inner6, bytes: 4 << 20)
      for site in sites {
        // The better of two working paths, whichever answered first.
        let isBest = try await eventually(within: 30) {
          let paths = try await site.report().statistics.peers[0].paths
          return paths.map(\.name) == ["udp-hairpin", "tcp-hairpin"] && paths.allSatisfy { $0.state == .working }
            && paths[0].isUsed && paths[0].loss != nil
        }
        #expect(isBest)
        let report = try await site.report()
        try await checkBalance(site.side) { try await site.report().statistics }
        #expect(report.statistics.transport("hairpins-open") == 2)
        let path = try #require(report.statistics.peers.first?.paths.first)
        #expect(path.path.port == 4501 && path.roundTrip != nil)
        let shown = try await Program.run(["show", "--control", site.control]).lines
        let line = shown.first { $0.contains(" udp-hairpin ") && $0.contains(" µs") } ?? ""
        for word in ["working", "µs", " %", "for "] { #expect(line.contains(word), "\(line)") }
      }
      for process in gateways { #expect(!process.output.contains("error=send to 192.0.2.9:4501: Address family")) }
      // What an operator sees of a ticket that is gone, before anything is stopped.
      try FileManager.default.removeItem(atPath: "\(folder)/tcp/a-b.a.ticket")
      let refused = try await Program.run(["reload", "--control", sites[0].control])
      #expect(refused.status == .exited(1))
      #expect(refused.lines.contains { $0.contains("tcp/a-b.a.ticket cannot be read") })
      for process in gateways + [relay] {
        let status = try await blocking {
          process.signal(SIGTERM)
          return try process.wait(timeout: 10)
        }
        #expect(status == .exited(0), "\(process.output)")
      }
      #expect(site.records.count == 2, "one of each ticket: \(site.records)")
    }
  }
}
