import Dataplane
import Glibc
import Lab
import PacketIO
import Testing

extension NetworkTests {
  /// Sites with one and the same network, and what their operators see of it.
  @Suite(.enabled(if: Program.exists, "needs the program culvert")) struct AlikeGatewayTests {
    private func stop(_ process: ProcessHandle) async throws {
      let status = try await blocking {
        process.signal(SIGTERM)
        return try process.wait(timeout: 10)
      }
      #expect(status == .exited(0), "\(process.output)")
    }

    /// A clash that a reload brings while traffic flows; spaces as they are shown, mapped and logged; the same ones
    /// after each gateway, and both, were started anew; and others that are demanded.
    @Test(.timeLimit(.minutes(2))) func aPairFromFilesAgreesAndFindsItsSpacesAgain() async throws {
      let pair = try await AlikeGateways(2)
      defer { pair.network.remove() }
      let six = [AlikeSites.lan[1]]
      for site in [1, 2] { try pair.write(site, lan: six, theirs: six) }
      var processes = [try await pair.start(1), try await pair.start(2)]
      defer { for process in processes { process.terminate() } }
      let space6 = try #require(try await pair.waitForSpaces(1, 2, six).first)

      // The other network of both is announced while a transfer goes on in the first.
      let address6 = try AlikeGateways.address(of: AlikeSites.host6, in: space6, of: six[0])
      var transfer = BulkTransfer(from: pair.host(1), to: pair.host(2), address: address6, amount: .seconds(2))
      transfer.addressThere = AlikeSites.host6
      transfer.verifies = true
      async let transferred = blocking { [transfer] in try transfer.run() }
      try await Task.sleep(for: .milliseconds(300))
      for site in [1, 2] {
        try pair.write(site)
        try await pair.reload(site)
      }
      let spaces = try await pair.waitForSpaces(1, 2)
      #expect(spaces[1] == space6)
      let address4 = try AlikeGateways.address(of: AlikeSites.host4, in: spaces[0], of: AlikeSites.lan[0])
      try await Pings(from: pair.host(1), to: address4).expectAnswers([0, 1300, 3000])
      try await Tunnel.transfer(
        from: pair.host(1), to: pair.host(2), address4, there: AlikeSites.host4, bytes: 1_000_003)
      let result = try await transferred
      #expect(result.isIntact && result.bytes > 100_000)

      let shown = try await pair.ask(1, ["show"])
      #expect(shown.contains("network 192.168.1.0/24 fd01::/64"))
      for words in ["site-2's here   192.168.1.0/24  \(spaces[0])", "ours at site-2  192.168.1.0/24"] {
        #expect(shown.contains(words), "\(words) in \(shown)")
      }
      let here = try #require(try await pair.translation(2, with: 1)?.theirs.first { $0.real.address.isV4 })
      let host = try AlikeGateways.address(
        of: AlikeSites.host4, in: "\(here.intermediate)", of: AlikeSites.lan[0])
      let map = try await pair.ask(1, ["map", AlikeSites.host4])
      #expect(
        map == """
          site-2 knows 192.168.1.2 as \(host)
          192.168.1.2 of site-2 is known here as \(address4)
          """)
      #expect(try await pair.ask(1, ["map", address4]) == "\(address4) is site-2's host 192.168.1.2")
      #expect(processes[0].output.contains("their prefix has an intermediate address space"))

      for (which, restarted) in [[1], [2], [1, 2]].enumerated() {
        for site in restarted { try await stop(processes[site - 1]) }
        for site in restarted { processes[site - 1] = try await pair.start(site) }
        #expect(try await pair.waitForSpaces(1, 2) == spaces, "restart \(which)")
        try await Pings(from: pair.host(1), to: address4).expectAnswers()
      }

      try pair.write(1, peerSettings: "    translation: {theirs: {192.168.1.0/24: 10.200.7.0/24}}")
      try await pair.reload(1)
      let isPinned = try await eventually { try await pair.waitForSpaces(1, 2)[0] == "10.200.7.0/24" }
      #expect(isPinned)
      try await Pings(from: pair.host(1), to: "10.200.7.2").expectAnswers()
      let before = try AlikeGateways.address(of: AlikeSites.host4, in: spaces[0], of: AlikeSites.lan[0])
      let problems: [String] = try await Pings(from: pair.host(1), to: before).run([56])
      #expect(!problems.isEmpty)
    }

    /// Where the gateways find no space, or the partner is not there, both are told why.
    @Test(.timeLimit(.minutes(1))) func whatCannotBeAgreedIsExplained() async throws {
      let pair = try await AlikeGateways(2)
      defer { pair.network.remove() }
      let first = try await pair.start(1)
      defer { first.terminate() }
      let alone = try await pair.ask(1, ["show"])
      #expect(alone.contains("site-2: 192.168.1.0/24 (theirs): it clashes, and nothing was heard from the peer yet"))
      let map = try await pair.ask(1, ["map", AlikeSites.host4])
      #expect(map.contains("192.168.1.2 of site-2 cannot be reached: its prefix clashes, and has no space yet"))

      // The second does not know that the first has the IPv4 network, and gives its own away as something else.
      try pair.write(
        2, theirs: [AlikeSites.lan[1]], peerSettings: "    translation: {known-as: {\"fd01::/64\": \"fd99::/64\"}}")
      try pair.write(
        1, peerSettings: "    translation: {theirs: {\"fd01::/64\": \"fd98::/64\"}}")
      try await pair.reload(1)
      let second = try await pair.start(2)
      defer { second.terminate() }
      for site in [1, 2] {
        let (ours, theirs) = site == 1 ? ("ours", "theirs") : ("theirs", "ours")
        var shown = ""
        let isExplained = try await eventually(within: 30) {
          shown = try await pair.ask(site, ["show"])
          return shown.contains("192.168.1.0/24 (\(ours)): it is not among the peer's prefixes")
            && shown.contains("fd01::/64 (\(theirs)): the configured space cannot be used")
        }
        #expect(isExplained, "\(shown)")
      }
      #expect(second.output.contains("has no address space and is not reachable"))
      // What could be agreed upon works.
      let known = try #require(try await pair.translation(1, with: 2)?.theirs.first { $0.real.address.isV4 })
      let address = try AlikeGateways.address(
        of: AlikeSites.host4, in: "\(known.intermediate)", of: AlikeSites.lan[0])
      #expect(address.hasPrefix("100.1"))
    }
  }
}
