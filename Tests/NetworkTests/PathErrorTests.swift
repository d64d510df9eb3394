import Dataplane
import Glibc
import Lab
import PacketIO
import Testing

extension NetworkTests {
  /// Sockets fail in many ways. Each is counted and reported, none ends the traffic for longer than it lasts.
  @Suite struct PathErrorTests {
    /// Without probes, so that what is lost can be counted.
    private static var plan: TunnelPlan {
      var plan = TunnelPlan()
      plan.measuresPath = false
      return plan
    }

    /// Sends pings from a while something is wrong, and expects that none is answered.
    private func loseFour(_ tunnel: Tunnel) async throws {
      var pings = Pings(from: tunnel.a.namespace, to: Side.b.inner4)
      pings.patience = 0.05
      let problems: [String] = try await pings.run([56, 57, 58, 59])
      #expect(problems.count == 4)
    }

    private func expectReport(_ tunnel: Tunnel, _ code: Int32, sourceLocation: SourceLocation = #_sourceLocation) async
    {
      let reported = await tunnel.a.waitFor("a report") { event in
        if case .transportError(0, let path, let peer, let error) = event {
          error.errno == code && peer == Side.b.rawValue && path.endpoint == TunnelPlan.path(Side.b.outer4)
        } else {
          false
        }
      }
      #expect(reported, "no event with errno \(code): \(tunnel.a.events)", sourceLocation: sourceLocation)
    }

    @Test(.timeLimit(.minutes(1)))
    func aPathWithoutRoute() async throws {
      try await Tunnel.with(PathErrorTests.plan, isLossless: false) { tunnel in
        let a = tunnel.a.namespace
        try await Pings(from: a, to: Side.b.inner4).expectAnswers()
        try await blocking { try a.ip(["route del 192.0.2.0/24 dev wire"]) }
        try await loseFour(tunnel)
        #expect(await tunnel.a.transport("send-error-unreachable") == 4)
        await expectReport(tunnel, ENETUNREACH)
        try await blocking { try a.ip(["route add 192.0.2.0/24 dev wire src 192.0.2.1"]) }
        try await Pings(from: a, to: Side.b.inner4).expectAnswers([0, 1000])
        let isOver = await tunnel.a.waitFor("the end of it", within: 30) { event in
          if case .transportRecovered(0, _, Side.b.rawValue, _) = event { true } else { false }
        }
        #expect(isOver, "\(tunnel.a.events)")
        #expect(await tunnel.a.transport("send-error-unreachable") == 4)
        #expect(await tunnel.b.settled().allDropped == 0)
      }
    }

    @Test(.timeLimit(.minutes(1)))
    func aLinkThatGoesDown() async throws {
      try await Tunnel.with(PathErrorTests.plan, isLossless: false) { tunnel in
        let a = tunnel.a.namespace
        try await Pings(from: a, to: Side.b.inner4).expectAnswers()
        try await blocking { try a.ip(["link set wire down"]) }
        try await loseFour(tunnel)
        #expect(await tunnel.a.transport("send-error-unreachable") == 4)
        await expectReport(tunnel, ENETUNREACH)
        try await blocking { try a.ip(["link set wire up"]) }
        try await Pings(from: a, to: Side.b.inner4).expectAnswers([0, 1000])
        // The far end's link: the kernel drops what we hand it, and does not say so.
        try await blocking { try tunnel.b.namespace.ip(["link set wire down"]) }
        try await loseFour(tunnel)
        try await blocking { try tunnel.b.namespace.ip(["link set wire up"]) }
        try await Pings(from: a, to: Side.b.inner4).expectAnswers([0, 1000])
      }
    }

    /// A stream outlives it.
    @Test(.timeLimit(.minutes(1)))
    func aLinkThatGoesDownUnderTraffic() async throws {
      try await Tunnel.with(PathErrorTests.plan, isLossless: false) { tunnel in
        let stream = LabThread {
          var transfer = BulkTransfer(
            from: tunnel.a.namespace, to: tunnel.b.namespace, address: Side.b.inner4, amount: .seconds(2.5))
          transfer.verifies = true
          return try transfer.run()
        }
        for _ in 0..<2 {
          try? await Task.sleep(for: .milliseconds(400))
          try await blocking {
            try tunnel.a.namespace.ip(["link set wire down"])
            pause(seconds: 0.1)
            try tunnel.a.namespace.ip(["link set wire up"])
          }
        }
        let result = try await stream.value
        #expect(result.isIntact)
        await expectReport(tunnel, ENETUNREACH)
      }
    }

    /// Nobody listens at the peer: the kernel is told by ICMP, and the gateway goes on until somebody does.
    @Test(.timeLimit(.minutes(1)))
    func aPeerThatIsAway() async throws {
      let plan = PathErrorTests.plan
      try await Tunnel.with(plan, isLossless: false) { tunnel in
        try await Pings(from: tunnel.a.namespace, to: Side.b.inner4).expectAnswers()
        await tunnel.b.dataplane.stop()
        try await loseFour(tunnel)
        try await loseFour(tunnel)
        // A new one goes on where the old one stopped.
        var later = plan
        later.firstSequences[.b] = 1000
        let b = try await TestGateway(.b, in: tunnel.b.namespace, later)
        try await Pings(from: b.namespace, to: Side.a.inner4).expectAnswers([0, 1000])
        await checkBalance(.b) { await b.settled() }
        await b.dataplane.stop()
        #expect(tunnel.a.events.allSatisfy { if case .failed = $0 { false } else { true } })
      }
    }

    /// The gateway's own firewall forbids it.
    @Test(.timeLimit(.minutes(1)), .enabled(if: Tool.exists("nft"), "needs nftables"))
    func aForbiddenPath() async throws {
      try await Tunnel.with(PathErrorTests.plan, isLossless: false) { tunnel in
        let a = tunnel.a.namespace
        try await blocking {
          _ = try Tool.run(
            "nft", ["-f", "-"],
            input: """
              table inet lab {
                chain out {
                  type filter hook output priority 0
                  udp dport 4500 drop
                }
              }
              """, in: a)
        }
        try await loseFour(tunnel)
        #expect(await tunnel.a.transport("send-error-refused") == 4)
        await expectReport(tunnel, EPERM)
        try await blocking { _ = try Tool.run("nft", ["delete", "table", "inet", "lab"], in: a) }
        try await Pings(from: a, to: Side.b.inner4).expectAnswers([0, 1000])
      }
    }

    /// More is sent than the path carries: what does not fit the socket's queue waits, then fills the gateway's
    /// buffers, and what finds none is dropped before it is read, or counted. Afterwards all buffers are free again.
    @Test(.timeLimit(.minutes(1)), .enabled(if: Tool.exists("tc"), "needs tc"))
    func aPathThatIsTooSlow() async throws {
      try await Tunnel.with(PathErrorTests.plan, isLossless: false) { tunnel in
        let (a, b) = (tunnel.a.namespace, tunnel.b.namespace)
        let tbf = ["tbf", "rate", "1mbit", "burst", "3000", "limit", "500000000"]
        try await blocking { _ = try Tool.run("tc", ["qdisc", "add", "dev", "wire", "root"] + tbf, in: a) }
        try await blocking {
          let sender = try Sender(from: a, to: Side.b.inner4, port: 9)
          let datagram = [UInt8](repeating: 7, count: 1300)
          // The few that arrive meet no listener, of which the socket hears.
          for _ in 0..<12_000 { _ = try? sender.send(datagram) }
        }
        let busy = await tunnel.a.dataplane.statistics()
        #expect(busy.transport("sent-datagrams") < busy.sealed.packets || busy.freeBuffers < tunnel.a.idleBuffers)
        try await blocking { _ = try Tool.run("tc", ["qdisc", "delete", "dev", "wire", "root"], in: a) }
        try await Pings(from: a, to: Side.b.inner4).expectAnswers([0, 1000])
        try await Tunnel.transfer(from: a, to: b, Side.b.inner6, bytes: 3_000_001)
      }
    }

    /// Silence is broken by keep-alives, which are no packets; those that fail are counted apart too.
    @Test(.timeLimit(.minutes(1)))
    func keepAlives() async throws {
      var plan = PathErrorTests.plan
      plan.keepAlive = .milliseconds(300)
      try await Tunnel.with(plan) { tunnel in
        let a = tunnel.a.namespace
        let tap = try await blocking { try WireTap(a, interface: "wire") }
        #expect(await eventually { await tunnel.b.transport("keep-alives-received") >= 3 })
        #expect(await tunnel.a.transport("keep-alives-sent") >= 3)
        try await blocking { try a.ip(["route del 192.0.2.0/24 dev wire"]) }
        await expectReport(tunnel, ENETUNREACH)
        #expect(await eventually { await tunnel.a.transport("keep-alives-failed") >= 2 })
        #expect(await tunnel.a.dataplane.statistics().transportErrors("send-error") == 0)
        try await blocking { try a.ip(["route add 192.0.2.0/24 dev wire src 192.0.2.1"]) }
        let before = await tunnel.b.transport("keep-alives-received")
        #expect(await eventually { await tunnel.b.transport("keep-alives-received") > before })
        let record = try await blocking { try tap.finish() }
        #expect((record.frames[.keepAlive] ?? 0) >= 4 && record.frames[.esp] == nil)
        let statistics = await tunnel.b.dataplane.statistics()
        #expect(statistics.arrived.packets == 0 && statistics.peers.first?.lastHeard == nil)
      }
    }

    /// The path becomes too narrow for what goes along it, and wide again.
    @Test(.timeLimit(.minutes(1)))
    func aPathThatNarrows() async throws {
      var plan = TunnelPlan()
      plan.raiseInterval = .seconds(1)
      try await Tunnel.with(plan, isLossless: false) { tunnel in
        let (a, b) = (tunnel.a.namespace, tunnel.b.namespace)
        func set(mtu: Int) async throws {
          try await blocking { for end in [a, b] { try end.ip(["link set wire mtu \(mtu)"]) } }
        }
        func pathMTU() async -> Int { await tunnel.a.dataplane.statistics().peers.first?.pathMTU ?? 0 }
        try await tunnel.measurePath()
        let widest = await pathMTU()
        #expect((1451...1500).contains(widest))
        try await set(mtu: 1400)
        // A stream that begins with packets too large for the path.
        try await Tunnel.transfer(from: a, to: b, Side.b.inner4, bytes: 5_000_001)
        let statistics = await tunnel.a.dataplane.statistics()
        #expect(statistics.transport("send-error-too-big") > 0)
        // The kernel has said what fits; no path fails by it.
        #expect(await eventually { await pathMTU() == 1400 })
        #expect(tunnel.a.events.allSatisfy { if case .transportError = $0 { false } else { true } })
        // From the first the sender learns what fits, from the second who answers.
        for address in [Side.b.inner4, Side.b.inner6] {
          _ = try await Pings(from: a, to: address).run([1352, 1352]) as [String]
          try await Pings(from: a, to: address).expectAnswers([0, 1000, 1352, 3000])
        }
        try await set(mtu: 1500)
        #expect(
          try await eventually(within: 30) {
            try await Pings(from: a, to: Side.b.inner4).expectAnswers([0])
            return await pathMTU() == widest
          })
        try await Tunnel.transfer(from: a, to: b, Side.b.inner6, bytes: 5_000_001)
      }
    }

    /// A path whose device has no offloads: the kernel, or we, cut trains and complete checksums, and none is lost.
    @Test(.timeLimit(.minutes(1)), .enabled(if: Tool.exists("ethtool"), "needs ethtool"))
    func aPathWithoutOffloads() async throws {
      try await Tunnel.with { tunnel in
        let a = tunnel.a.namespace
        try await blocking {
          _ = try Tool.run("ethtool", ["-K", "wire", "tx", "off", "rx", "off", "gso", "off", "gro", "off"], in: a)
        }
        try await Tunnel.transfer(from: a, to: tunnel.b.namespace, Side.b.inner4, bytes: 3_000_001)
        let statistics = await tunnel.a.settled()
        #expect(statistics.transportErrors("send-error") == 0)
      }
    }
  }
}
