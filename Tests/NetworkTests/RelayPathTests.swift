import Foundation
import Gateway
import Glibc
import Lab
import Testing

extension NetworkTests {
  /// Gateways that reach an identity relay by several paths, or by one that little is left of.
  @Suite(.enabled(if: HairpinSite.isPossible, "needs nft, culvert and culvert-relay")) struct RelayPathTests {
    private func usedPath(_ site: IdentityRelaySite, _ side: Side) async throws -> String? {
      try await site.report(side).statistics.peers.first?.paths.first { $0.isUsed }?.name
    }

    private func waitsFor(_ path: String, _ site: IdentityRelaySite) async throws -> Bool {
      try await eventually(within: 30) {
        for side in Side.allCases where try await usedPath(site, side) != path { return false }
        return true
      }
    }

    /// One gateway comes by UDP and the other by TCP, because nothing else gets out.
    @Test(.timeLimit(.minutes(1))) func datagramsMeetAStream() async throws {
      let site = try await IdentityRelaySite(
        isV4: (true, false), paths: [.b: ["udp", "tcp"]], passes: [.b: "meta l4proto tcp"])
      defer { site.network.remove() }
      let relay = try await site.start(site.relays[0])
      let gateways = [try await site.start(.a), try await site.start(.b)]
      defer { for process in gateways + [relay] { process.terminate() } }
      #expect(try await site.isReached(from: .a, within: 30), "\(gateways.map(\.output)) \(relay.output)")
      try await Pings(from: site.network["b"], to: Side.a.inner4).expectAnswers([0, 56, 1300, 8000])
      try await Tunnel.transfer(from: site.network["a"], to: site.network["b"], Side.b.inner4, bytes: 8 << 20)
      try await Tunnel.transfer(from: site.network["b"], to: site.network["a"], Side.a.inner6, bytes: 8 << 20)
      let shown = try await site.show(site.relays[0])
      #expect(shown.count { $0.hasPrefix("  gateway ") && $0.contains(" over tcp") } == 1, "\(shown)")
      #expect(try await site.counter("enrolled", site.relays[0]) == 2)
    }

    /// A relay that is reached by streams only is killed and started anew: both gateways enrol again, and traffic goes on.
    @Test(.timeLimit(.minutes(1))) func aRestartedRelayIsFoundByStreams() async throws {
      let site = try await IdentityRelaySite(paths: [.a: ["tcp"], .b: ["tls"]])
      defer { site.network.remove() }
      let first = try await site.start(site.relays[0])
      let gateways = [try await site.start(.a), try await site.start(.b)]
      defer { for process in gateways { process.terminate() } }
      #expect(try await site.isReached(from: .a, within: 30), "\(gateways.map(\.output)) \(first.output)")
      kill(first.pid, SIGKILL)
      _ = try await blocking { try first.wait(timeout: 5) }
      let second = try await site.start(site.relays[0])
      defer { second.terminate() }
      #expect(try await site.isReached(from: .a, within: 40), "\(gateways.map(\.output)) \(second.output)")
      try await Tunnel.transfer(from: site.network["a"], to: site.network["b"], Side.b.inner4, bytes: 2 << 20)
      try await Tunnel.transfer(from: site.network["b"], to: site.network["a"], Side.a.inner6, bytes: 2 << 20)
      let shown = try await site.show(site.relays[0])
      for path in ["tcp", "tls"] {
        #expect(shown.count { $0.hasPrefix("  gateway ") && $0.contains(" over \(path)") } == 1, "\(shown)")
      }
      for gateway in gateways { #expect(gateway.count("enrolled at the relay") >= 2, "\(gateway.output)") }
    }

    /// UDP to the relay is cut under a transfer: traffic goes by TCP from then on, and nobody shakes hands.
    @Test(.timeLimit(.minutes(1))) func trafficTakesTheOtherPath() async throws {
      let paths = ["udp", "tcp"]
      let site = try await IdentityRelaySite(paths: [.a: paths, .b: paths])
      defer { site.network.remove() }
      let relay = try await site.start(site.relays[0])
      let gateways = [try await site.start(.a), try await site.start(.b)]
      defer { for process in gateways + [relay] { process.terminate() } }
      #expect(try await site.isReached(from: .a, within: 30), "\(gateways.map(\.output)) \(relay.output)")
      #expect(try await waitsFor("relay", site))
      let transfer = RunningTransfer(
        from: site.network["a"], to: site.network["b"], address: Side.b.inner4, seconds: 5)
      try await Task.sleep(for: .seconds(1))
      let before = gateways.map { $0.count("keys are agreed upon") }
      let cutAt = monotonicSeconds()
      let table = "table inet cut { chain c { type filter hook forward priority -10; meta l4proto udp drop; }; }"
      let translator = site.network["nat-a"]
      try await blocking { _ = try Tool.run("nft", ["-f", "-"], input: table, in: translator) }
      #expect(try await waitsFor("relay-tcp", site))
      let stall = transfer.longestStall(since: cutAt)
      let result = try await transfer.finish()
      print("FIGURE: traffic stood for \(stall) s when UDP to the relay was cut, and TCP was left")
      #expect(result.isIntact && stall < 5)
      for (gateway, before) in zip(gateways, before) where stall < 1.5 {
        #expect(gateway.count("keys are agreed upon") == before, "\(gateway.output)")
      }
    }
  }
}
