import Foundation
import Gateway
import Lab
import PacketIO
import Testing

extension NetworkTests {
  /// Gateways behind address translators that meet at a relay and then find each other straight, where that is possible.
  @Suite(.enabled(if: HairpinSite.isPossible, "needs nft, culvert and culvert-relay")) struct HolePunchingTests {
    /// Where each sends to.
    private func paths(_ site: IdentityRelaySite) async throws -> [PacketIO.Endpoint?] {
      [try await site.report(.a).statistics.peers[0].path, try await site.report(.b).statistics.peers[0].path]
    }

    /// Both translators keep ports, let nothing in, and are opened from inside; a transfer goes on meanwhile.
    @Test(.timeLimit(.minutes(2))) func twoFindEachOther() async throws {
      let site = try await IdentityRelaySite(relays: 2, routes: true)
      defer { site.network.remove() }
      var relays: [ProcessHandle] = []
      for relay in site.relays { relays.append(try await site.start(relay)) }
      let gateways = [try await site.start(.a), try await site.start(.b)]
      defer { for process in gateways + relays { process.terminate() } }
      #expect(try await site.isReached(from: .a, within: 30), "\(gateways.map(\.output))")
      let transfer = RunningTransfer(
        from: site.network["a"], to: site.network["b"], address: Side.b.inner4, seconds: 8)
      let straight = [Endpoint("198.51.100.1:4500", defaultPort: 0), Endpoint("192.0.2.1:4500", defaultPort: 0)]
      let isStraight = try await eventually(within: 30) { try await self.paths(site) == straight }
      let last = try await paths(site)
      #expect(isStraight, "\(last) \(gateways.map(\.output))")
      #expect(try await transfer.finish().isIntact)
      // The relays carry nothing any more.
      let before = try await forwarded(site)
      try await Tunnel.transfer(from: site.network["b"], to: site.network["a"], Side.a.inner6, bytes: 4 << 20)
      #expect(try await forwarded(site) < before + 1 << 20)
      for side in Side.allCases {
        try await checkBalance(side) { try await site.report(side).statistics }
      }
      // And without relays it goes on.
      for process in relays { process.terminate() }
      try await Pings(from: site.network["a"], to: Side.b.inner4).expectAnswers([56, 1300])
    }

    private func forwarded(_ site: IdentityRelaySite) async throws -> Int {
      var sum = 0
      for relay in site.relays { sum += try await site.counter("forwarded-bytes", relay) }
      return sum
    }

    /// A translator that takes another port for each destination: nobody is let in, the relay goes on, and why is shown.
    @Test(.timeLimit(.minutes(2))) func aTranslatorThatMapsAnewIsNamed() async throws {
      let site = try await IdentityRelaySite(
        relays: 2, mapping: [.a: "fully-random", .b: "fully-random"], routes: true)
      defer { site.network.remove() }
      var relays: [ProcessHandle] = []
      for relay in site.relays { relays.append(try await site.start(relay)) }
      let gateways = [try await site.start(.a), try await site.start(.b)]
      defer { for process in gateways + relays { process.terminate() } }
      #expect(try await site.isReached(from: .a, within: 30), "\(gateways.map(\.output))")
      let isFound = try await eventually(within: 30) {
        try await site.report(.a).translators?.map(\.kind) == [.endpointDependent]
      }
      #expect(isFound, "\(gateways.map(\.output))")
      let text = try await Program.run(["show", "--control", "\(site.folder)/a.sock"]).lines
      #expect(text.contains { $0.contains("IPv4: behind an address translator, endpoint-dependent") }, "\(text)")
      try await Tunnel.transfer(from: site.network["a"], to: site.network["b"], Side.b.inner4, bytes: 8 << 20)
      #expect(try await forwarded(site) > 8 << 20)
    }
  }
}
