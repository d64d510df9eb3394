import Dataplane
import Foundation
import Gateway
import Glibc
import Lab
import PacketIO
import Testing
import Transports

extension NetworkTests {
  /// Gateways behind address translators that meet at `culvert-relay`.
  @Suite(.enabled(if: HairpinSite.isPossible, "needs nft, culvert and culvert-relay")) struct HairpinTests {
    /// What each side has to the relay.
    struct Paths: Sendable, CustomTestStringConvertible {
      var kinds: (Encapsulation, Encapsulation)
      var isV4: (Bool, Bool)
      var testDescription: String { "\(kinds) \(isV4.0 ? 4 : 6) \(isV4.1 ? 4 : 6)" }
    }

    private static func withGateways(
      _ paths: Paths, _ body: (HairpinSite, ProcessHandle, Dataplane, Dataplane) async throws -> Void
    ) async throws {
      let site = try await HairpinSite()
      defer { site.network.remove() }
      let files = try await site.issue(isV4: paths.isV4)
      let relay = try await site.startRelay()
      let a = try await site.gateway(.a, try #require(files[.a]), paths.kinds.0)
      let b = try await site.gateway(.b, try #require(files[.b]), paths.kinds.1)
      do {
        for dataplane in [a, b] {
          #expect(await eventually(within: 30) { await dataplane.statistics().transport("hairpins-open") == 1 })
        }
        try await body(site, relay, a, b)
      } catch {
        await a.stop()
        await b.stop()
        throw error
      }
      await a.stop()
      await b.stop()
    }

    @Test(
      .timeLimit(.minutes(1)),
      arguments: [
        Paths(kinds: (.udp, .udp), isV4: (true, true)), Paths(kinds: (.udp, .udp), isV4: (true, false)),
        Paths(kinds: (.udp, .tcp), isV4: (false, true)), Paths(kinds: (.tcp, .tcp), isV4: (true, true)),
      ])
    func aTunnelBetweenTranslators(paths: Paths) async throws {
      try await Self.withGateways(paths) { site, relay, a, b in
        try await Pings(from: site.network["a"], to: Side.b.inner4).expectAnswers([0, 56, 1300, 3000])
        try await Tunnel.transfer(from: site.network["a"], to: site.network["b"], Side.b.inner4, bytes: 24 << 20)
        try await Tunnel.transfer(from: site.network["b"], to: site.network["a"], Side.a.inner6, bytes: 8 << 20)
        for (side, dataplane) in [(Side.a, a), (Side.b, b)] {
          await checkBalance(side) { await dataplane.statistics() }
        }
        // A tidy end tells the gateways and leaves a record.
        let status = try await blocking {
          relay.signal(SIGTERM)
          return try relay.wait(timeout: 5)
        }
        #expect(status == .exited(0), "\(relay.output)")
        let record = try #require(site.records.first)
        #expect(site.records.count == 1 && record.contains(#""gateways":["a","b"]"#), "\(site.records)")
        #expect(record.contains(#""reason":"proxy stopped""#))
        let fields = try JSONSerialization.jsonObject(with: Data(record.utf8)) as? [String: Any]
        let bytes = try #require(fields?["bytes"] as? [Int])
        #expect(bytes[0] > 24 << 20 && bytes[1] > 8 << 20)
        #expect(await eventually(within: 30) { await a.statistics().transport("hairpins-open") == 0 })
      }
    }

    @Test(.timeLimit(.minutes(1)))
    func aKilledRelayIsFoundAgainUnderATransfer() async throws {
      try await Self.withGateways(Paths(kinds: (.udp, .udp), isV4: (true, true))) { site, relay, a, b in
        async let transfer: Void = Tunnel.transfer(
          from: site.network["a"], to: site.network["b"], Side.b.inner4, bytes: 400 << 20)
        try await Task.sleep(for: .milliseconds(300))
        kill(relay.pid, SIGKILL)
        _ = try await blocking { try relay.wait(timeout: 5) }
        let killed = MonotonicTime.current()
        let second = try await site.startRelay()
        defer { second.terminate() }
        #expect(
          await eventually(within: 30) {
            let (left, right) = (await a.statistics(), await b.statistics())
            return left.transport("hairpins-opened") == 2 && right.transport("hairpins-opened") == 2
          })
        let seconds = Double(MonotonicTime.current().nanoseconds(since: killed)) / 1e9
        print("FIGURE: hairpin open again \(seconds) s after the relay was killed")
        #expect(seconds < 8)
        try await transfer
      }
    }
  }
}
