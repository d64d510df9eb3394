import Foundation
import Gateway
import Glibc
import Lab
import Testing

extension NetworkTests {
  /// Gateways behind translators that meet at `culvert-relay` by their identities: no ticket, one port.
  @Suite(.enabled(if: HairpinSite.isPossible, "needs nft, culvert and culvert-relay")) struct IdentityRelayTests {
    private func converse(_ site: IdentityRelaySite, bytes: UInt64 = 8 << 20) async throws {
      let (a, b) = (site.network["a"], site.network["b"])
      try await Pings(from: a, to: Side.b.inner4).expectAnswers([0, 56, 1300])
      try await Tunnel.transfer(from: a, to: b, Side.b.inner4, bytes: bytes)
      try await Tunnel.transfer(from: b, to: a, Side.a.inner6, bytes: bytes / 2)
    }

    /// Types of the HIP packets in these frames, in which tshark finds nothing malformed.
    private func judged(_ frames: [[UInt8]], port: Int) async throws -> Set<Int> {
      guard Judges.hasTshark else { return [] }
      let directory = try TemporaryDirectory()
      let file = "\(directory.path)/handshakes.pcap"
      try PacketFile.write(frames, link: .ethernet, to: file)
      let words =
        ["-r", file, "-d", "udp.port==\(port),hip", "-T", "fields", "-E", "separator=;"]
        + ["hip.packet_type", "_ws.malformed"].flatMap { ["-e", $0] }
      let text = try await blocking { try Tool.run("tshark", words) }
      let lines = text.split(separator: "\n").filter { !$0.hasPrefix("Running as") }
        .map { $0.split(separator: ";", omittingEmptySubsequences: false).map(String.init) }
      #expect(lines.count == frames.count)
      for line in lines { #expect(line.count == 2 && line[1].isEmpty, "\(line)") }
      return Set(lines.compactMap { $0.first.flatMap { Int($0) } })
    }

    /// By either family on either side; what the relay shows is what happened.
    @Test(.timeLimit(.minutes(1)), arguments: [(true, true), (true, false)])
    func twoGatewaysMeet(isV4: (Bool, Bool)) async throws {
      let site = try await IdentityRelaySite(isV4: isV4)
      defer { site.network.remove() }
      let wires = try await blocking {
        try ["wire-a", "wire-b"].map { try Capture(site.network["relay"], $0) }
      }
      let relay = try await site.start(site.relays[0])
      let unbound = try await site.show(site.relays[0])
      #expect(unbound.contains { $0.contains("neither is enrolled") }, "\(unbound)")
      let gateways = [try await site.start(.a), try await site.start(.b)]
      defer { for process in gateways + [relay] { process.terminate() } }
      #expect(try await site.isReached(from: .a, within: 30), "\(gateways.map(\.output)) \(relay.output)")
      try await converse(site)
      let shown = try await site.show(site.relays[0])
      #expect(shown.contains { $0.hasPrefix("  pair ") && $0.hasSuffix("  bound") }, "\(shown)")
      #expect(shown.filter { $0.hasPrefix("  gateway ") }.count == 2, "\(shown)")
      #expect(try await site.counter("forwarded-bytes", site.relays[0]) > 12 << 20)
      let shares = try await site.show(site.relays[0], shares: true)
      let pairs = shares.drop { !$0.hasPrefix("relay-pairs  2 of ") }.prefix(3)
      #expect(pairs.count == 3 && pairs.dropFirst().allSatisfy { $0.hasPrefix("  gateway 2001:") }, "\(shares)")
      let json = try await site.show(site.relays[0], json: true, shares: true).joined()
      #expect(json.hasPrefix("{\"shares\":[") && json.contains("\"resource\":\"relay-notices\""), "\(json)")
      for side in Side.allCases {
        let report = try await site.report(side)
        #expect(report.relays?.map(\.isEnrolled) == [true])
        #expect(report.relays?.first?.seenAs?.contains(":") == true)
        let text = try await Program.run(["show", "--control", "\(site.folder)/\(side).sock"]).lines
        #expect(text.contains { $0.contains(site.relays[0].gid) && $0.contains(" enrolled ") }, "\(text)")
        try await checkBalance(side) { try await site.report(side).statistics }
      }
      for process in gateways + [relay] {
        let status = try await blocking {
          process.signal(SIGTERM)
          return try process.wait(timeout: 10)
        }
        #expect(status == .exited(0), "\(process.output)")
      }
      let port = site.relays[0].port
      var kinds: Set<Int> = []
      for wire in wires {
        let frames = try await wire.finish().filter { packet in
          guard let datagram = packet.datagram(port: UInt16(port)), datagram.count > 44 else { return false }
          return datagram[0..<4].elementsEqual([0, 0, 0, 0]) && datagram[4] == 59 && datagram[7] >> 4 == 2
        }.map(\.bytes)
        kinds.formUnion(try await judged(frames, port: port))
      }
      // I1, R1, I2, R2, UPDATE and CLOSE have passed.
      if Judges.hasTshark { #expect(kinds.isSuperset(of: [1, 2, 3, 4, 16, 18]), "\(kinds)") }
    }

    /// The relay is killed in a transfer and started anew: it knows nobody, and is told, without a handshake between the two.
    @Test(.timeLimit(.minutes(1))) func aRestartedRelayIsToldAgain() async throws {
      let site = try await IdentityRelaySite()
      defer { site.network.remove() }
      let first = try await site.start(site.relays[0])
      let gateways = [try await site.start(.a), try await site.start(.b)]
      defer { for process in gateways { process.terminate() } }
      #expect(try await site.isReached(from: .a, within: 30))
      let transfer = RunningTransfer(
        from: site.network["a"], to: site.network["b"], address: Side.b.inner4, seconds: 8)
      try await Task.sleep(for: .seconds(2))
      let before = gateways.map { $0.count("keys are agreed upon") }
      let killed = monotonicSeconds()
      kill(first.pid, SIGKILL)
      _ = try await blocking { try first.wait(timeout: 5) }
      let second = try await site.start(site.relays[0])
      defer { second.terminate() }
      let result = try await transfer.finish()
      #expect(result.isIntact)
      let stall = transfer.longestStall(since: killed - 0.5)
      print("FIGURE: traffic stood for \(stall) s after the relay was killed and started anew")
      #expect(stall < 8)
      #expect(try await site.counter("bound", site.relays[0]) >= 2)
      for (gateway, before) in zip(gateways, before) {
        // Whoever hears nothing for two seconds shakes hands, and a slow machine may take so long.
        if stall < 1.5 { #expect(gateway.count("keys are agreed upon") == before, "\(gateway.output)") }
        #expect(gateway.count("enrolled at the relay") >= 2, "\(gateway.output)")
      }
    }

    /// One relay of two is killed: the other one has been told already, and nobody shakes hands.
    @Test(.timeLimit(.minutes(1))) func anotherRelayStandsBy() async throws {
      let site = try await IdentityRelaySite(relays: 2)
      defer { site.network.remove() }
      var relays: [ProcessHandle] = []
      for relay in site.relays { relays.append(try await site.start(relay)) }
      let gateways = [try await site.start(.a), try await site.start(.b)]
      defer { for process in gateways + relays { process.terminate() } }
      #expect(try await site.isReached(from: .a, within: 30))
      let areBound = try await eventually(within: 30) {
        for relay in site.relays where try await !site.show(relay).contains(where: { $0.hasSuffix("  bound") }) {
          return false
        }
        return true
      }
      #expect(areBound)
      let transfer = RunningTransfer(
        from: site.network["a"], to: site.network["b"], address: Side.b.inner4, seconds: 8)
      try await Task.sleep(for: .seconds(2))
      var used = 0
      for place in site.relays.indices {
        if try await site.counter("forwarded-bytes", site.relays[place]) > 1 << 20 { used = place }
      }
      let before = gateways.map { $0.count("keys are agreed upon") }
      let killed = monotonicSeconds()
      kill(relays[used].pid, SIGKILL)
      let result = try await transfer.finish()
      #expect(result.isIntact)
      let stall = transfer.longestStall(since: killed - 0.5)
      print("FIGURE: traffic stood for \(stall) s after one relay of two was killed")
      #expect(stall < 8)
      for (gateway, before) in zip(gateways, before) where stall < 1.5 {
        #expect(gateway.count("keys are agreed upon") == before, "\(gateway.output)")
      }
    }

    /// A gateway that no rule names gets nowhere, and both sides are told why; so do two that a rule has been taken from.
    @Test(.timeLimit(.minutes(1))) func foreignersGetNowhere() async throws {
      let site = try await IdentityRelaySite()
      defer { site.network.remove() }
      _ = try await IdentityRelaySite.makeIdentity("\(site.folder)/foreign.key")
      try site.site.directory.write("a.yaml", site.gateway(.a, isV4: true, key: "foreign.key"))
      let relay = try await site.start(site.relays[0])
      let foreign = try await site.start(.a)
      let partner = try await site.start(.b)
      defer { for process in [foreign, partner, relay] { process.terminate() } }
      let isRefused = await eventually(within: 30) {
        foreign.output.contains("no rule of the relay allows this gateway")
      }
      #expect(isRefused, "\(foreign.output)")
      #expect(try await site.counter("dropped-enrolment-not-allowed", site.relays[0]) > 0)
      #expect(try await site.counter("enrolled", site.relays[0]) == 1)
      #expect(try await !site.isReached(from: .a, within: 1))
      // The right one comes, and goes with its rule.
      _ = try await blocking {
        foreign.signal(SIGTERM)
        return try foreign.wait(timeout: 10)
      }
      try site.site.directory.write("a.yaml", site.gateway(.a, isV4: true))
      let right = try await site.start(.a)
      defer { right.terminate() }
      #expect(try await site.isReached(from: .a, within: 30), "\(right.output)")
      let stranger = try await IdentityRelaySite.makeIdentity("\(site.folder)/stranger.key")
      try site.write(site.relays[0], pairs: [(site.identities[.a]?.gid ?? "", stranger)])
      relay.signal(SIGHUP)
      #expect(await eventually(within: 30) { relay.output.contains("the policy is in force") }, "\(relay.output)")
      try await Task.sleep(for: .seconds(1))
      #expect(try await !site.isReached(from: .a, within: 1))
      #expect(try await site.counter("associations", site.relays[0]) == 0)
      // A file with a mistake changes nothing.
      try site.site.directory.write("relay-0.yaml", "identity: relay-0.key\npairs: [{between: [\"1\"]}]\n")
      relay.signal(SIGHUP)
      #expect(
        await eventually(within: 30) { relay.output.contains("the policy of before stays in force") }, "\(relay.output)"
      )
      #expect(relay.output.contains("'1' is not a GID"), "\(relay.output)")
    }
  }
}
