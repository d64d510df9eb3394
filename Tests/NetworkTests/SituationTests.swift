import Foundation
import Gateway
import Glibc
import Lab
import PacketIO
import Testing

extension NetworkTests {
  /// Gateways in every pair of situations, each with all paths that there can be, and an identity relay between them.
  @Suite(.serialized, .enabled(if: HairpinSite.isPossible, "needs nft, culvert and culvert-relay"))
  struct SituationTests {
    /// A row of the table.
    private struct Finding: Sendable {
      let situations: [Situation]
      var kinds: [String?] = [nil, nil]
      /// Seconds from the start of both gateways to the first answer, and until the path was found.
      var first = 0.0
      var found = 0.0
      var bitRate = 0.0
      var isIntact = false

      var isExpected: Bool { isIntact && Situation.expect(kinds, situations) }

      /// As docs/PATHS.md has it.
      var row: String {
        let names = kinds.map { $0 ?? "none" }
        let path = names[0] == names[1] ? names[0] : "\(names[0]), from b \(names[1])"
        return "| \(situations[0].rawValue) | \(situations[1].rawValue) | \(path) | \(Int(first * 1000)) ms "
          + "| \(String(format: "%.1f", found)) s | \(Int(bitRate / 1e6)) |\(isExpected ? "" : " NOT as expected")"
      }
    }

    /// Everything, and with figures that say something.
    static let takesLong = getenv("CULVERT_ALL_PATHS") != nil
    static let pairs = Situation.allCases.enumerated().flatMap { place, a in
      Situation.allCases[place...].map { [a, $0] }
    }

    /// Several at a time, because mostly they wait.
    @Test(.timeLimit(.minutes(10))) func everyPair() async throws {
      let atOnce = Self.takesLong ? 1 : 3
      let findings = try await withThrowingTaskGroup(of: Finding.self) { group in
        var waiting = Self.pairs[...]
        var findings: [Finding] = []
        for _ in 0..<atOnce { if let pair = waiting.popFirst() { group.addTask { try await find(pair) } } }
        while let finding = try await group.next() {
          findings.append(finding)
          if let pair = waiting.popFirst() { group.addTask { try await find(pair) } }
        }
        return findings
      }
      let rows = Self.pairs.compactMap { pair in findings.first { $0.situations == pair }?.row }
      print("FIGURES:\n" + rows.joined(separator: "\n"))
      #expect(findings.count == Self.pairs.count && findings.allSatisfy(\.isExpected))
    }

    private func find(_ situations: [Situation]) async throws -> Finding {
      let site = try await IdentityRelaySite(situations: situations)
      defer { site.network.remove() }
      let relay = try await site.start(site.relays[0])
      let gateways = try await site.startBoth()
      defer { for process in gateways + [relay] { process.terminate() } }
      let start = monotonicSeconds()
      var finding = Finding(situations: situations)
      let isReached = try await site.isReached(from: .a, within: 30)
      finding.first = monotonicSeconds() - start
      #expect(isReached, "\(situations) \(gateways.map(\.output)) \(relay.output)")
      _ = try await eventually(within: 40) {
        finding.kinds = try await site.kinds()
        return Situation.expect(finding.kinds, situations)
      }
      finding.found = monotonicSeconds() - start
      for (side, situation) in zip(Side.allCases, situations) where situation != .httpsOnly {
        let seen = try await site.report(side).relays?.first { $0.transport == "udp" }?.seenAs ?? ""
        #expect(situation.explains(seen, side), "\(situation): \(seen)")
      }
      var transfer = BulkTransfer(
        from: site.network["a"], to: site.network["b"], address: Side.b.inner4, amount: .bytes(8 << 20))
      transfer.verifies = true
      (transfer.patience, transfer.timeLimit) = (60, 60)
      let result = try await blocking { [transfer] in try transfer.run() }
      (finding.isIntact, finding.bitRate) = (result.isIntact, result.bitsPerSecond)
      try await Tunnel.transfer(from: site.network["b"], to: site.network["a"], Side.a.inner6, bytes: 2 << 20)
      #expect(finding.isExpected, "\(finding.row) \(gateways.map(\.output))")
      return finding
    }

    // MARK: Under a transfer

    /// Straight through both translators; without UDP by TCP to the relay, then straight again, and without the relay.
    @Test(.timeLimit(.minutes(3))) func datagramsAreCutAndComeBack() async throws {
      try await disturb([.endpointIndependent, .endpointIndependent]) { scene in
        let cutAt = try await scene.block("meta l4proto udp")
        try await scene.expect(["relay-tcp"], "UDP was cut: to TCP through the relay", since: cutAt)
        let restoredAt = try await scene.unblock()
        try await scene.expect(["udp"], "UDP was restored: back to the straight path", since: restoredAt)
        let killedAt = try await scene.killRelay()
        try await scene.flows("the relay of a straight path was killed", since: killedAt)
      }
    }

    /// A fifth of what goes straight is lost: the relay is better, until that is over.
    @Test(.timeLimit(.minutes(3))) func aStraightPathThatLosesIsLeft() async throws {
      try await disturb([.endpointIndependent, .endpointIndependent]) { scene in
        let between = "ip saddr . ip daddr { 10.1.0.2 . 198.51.100.1, 198.51.100.1 . 10.1.0.2 }"
        let lossy = try await scene.block("\(between) numgen random mod 100 < 20")
        try await scene.expect(["relay"], "20 % loss on the straight path: to the relay", since: lossy)
        let over = try await scene.unblock()
        try await scene.expect(["udp"], "loss is over: back to the straight path", since: over)
      }
    }

    /// There is no way but the relay's, which is away until both have given up all paths.
    @Test(.timeLimit(.minutes(3))) func theOnlyRelayIsAway() async throws {
      try await disturb([.symmetric, .addressDependent]) { scene in
        let killedAt = try await scene.killRelay()
        let haveNoticed = try await eventually(within: 60) {
          for side in Side.allCases {
            let paths = try await scene.site.report(side).statistics.peers.first?.paths ?? []
            if paths.isEmpty || paths.contains(where: { $0.state == .working || $0.state == .suspect }) { return false }
          }
          return true
        }
        #expect(haveNoticed, "\(scene.gateways.map(\.output))")
        let backAt = monotonicSeconds()
        try await scene.startRelay()
        try await scene.flows("the only relay was away for \(Scene.text(backAt - killedAt))", since: killedAt)
        print("FIGURE: and was used again \(Scene.text(monotonicSeconds() - backAt)) after it was back")
      }
    }

    /// A translator gets another address: what goes by the relay goes on, and what went straight does so again.
    @Test(.timeLimit(.minutes(3)), arguments: takesLong ? [Situation.symmetric, .endpointIndependent] : [.symmetric])
    func theTranslatorsAddressIsSwapped(situation: Situation) async throws {
      try await disturb([situation, situation]) { scene in
        let translator = scene.site.network["nat-a"]
        let swappedAt = monotonicSeconds()
        try await blocking {
          try translator.ip([
            "addr del 192.0.2.1/24 dev wan", "addr add 192.0.2.3/24 dev wan", "route add default via 192.0.2.9",
          ])
        }
        let isKnown = try await eventually(within: 60) {
          guard situation == .symmetric else {
            return try await scene.site.report(.b).statistics.peers.first?.path
              == PacketIO.Endpoint("192.0.2.3", defaultPort: 4500)
          }
          return try await scene.site.show(scene.site.relays[0]).contains { $0.contains(" 192.0.2.3:") }
        }
        #expect(isKnown, "\(scene.gateways.map(\.output))")
        try await scene.flows("the address of a translator was swapped (\(situation.rawValue))", since: swappedAt)
        try await scene.expect(nil, "and the path was as before", since: swappedAt)
      }
    }

    /// A gateway loses IPv4, and has IPv6 left: to its partner, or to a relay. Then it has IPv4 again.
    @Test(.timeLimit(.minutes(3)), arguments: takesLong ? [Situation.symmetric, .open] : [.symmetric])
    func fromIPv4ToIPv6(partner: Situation) async throws {
      try await disturb([.open, partner], relays: 2) { scene in
        let a = scene.site.network["a"]
        func isV4() async throws -> Bool? {
          try await scene.site.report(.a).statistics.peers.first?.path?.address.isV4
        }
        #expect(try await eventually(within: 60) { try await isV4() == true })
        let lostAt = monotonicSeconds()
        try await blocking { try a.ip(["addr del 10.1.0.2/24 dev wire"]) }
        let isElsewhere = try await eventually(within: 60) { try await isV4() == false }
        #expect(isElsewhere, "\(scene.gateways.map(\.output))")
        try await scene.flows("from IPv4 to IPv6 (the partner: \(partner.rawValue))", since: lostAt)
        let backAt = monotonicSeconds()
        try await blocking {
          try a.ip(["addr add 10.1.0.2/24 dev wire", "route add default via 10.1.0.1"])
        }
        let isBack = try await eventually(within: 60) { try await isV4() == true }
        #expect(isBack, "\(scene.gateways.map(\.output))")
        try await scene.flows("back to IPv4 after \(Scene.text(monotonicSeconds() - backAt))", since: backAt)
      }
    }

    /// Runs a transfer between two gateways once their paths are what they should be, and `body` meanwhile.
    private func disturb(
      _ situations: [Situation], relays: Int = 1, _ body: (Scene) async throws -> Void
    ) async throws {
      let scene = try await Scene(situations, relays: relays)
      defer { scene.end() }
      try await body(scene)
      let result = try await scene.transfer.stop()
      #expect(result.isIntact && result.bytes > 1 << 20, "\(result.bytes)")
    }
  }
}
