import Dataplane
import Identity
import KeyAgreement
import Keying
import PacketIO
import Testing

@testable import Lab

extension NetworkTests {
  /// Keys that change while packets flow, between two real dataplanes.
  @Suite struct RekeyTests {
    /// Two gateways that agree upon keys.
    private struct Pair {
      let tunnel: Tunnel
      let agents: [Side: KeyAgent]

      init(_ tunnel: Tunnel, updatesPerSecond: UInt64) async {
        self.tunnel = tunnel
        let identities = [Side.a: HostIdentity.generate(.p256), .b: HostIdentity.generate(.p256)]
        var agents: [Side: KeyAgent] = [:]
        for side in Side.allCases {
          let agent = KeyAgent(
            tunnel[side].dataplane,
            KeyExchange.Settings(workers: tunnel.plan.workers[side] ?? 1, updatesPerSecond: updatesPerSecond))
          agents[side] = agent
          guard let own = identities[side], let other = identities[side.other] else { continue }
          await agent.set(
            Partner(
              name: side.other.rawValue, local: own, remote: other.tag,
              paths: tunnel.plan.peer(side.other).paths.map(\.path)))
          await agent.start()
        }
        self.agents = agents
      }

      func isEstablished() async -> Bool {
        for (side, agent) in agents where await agent.status(of: side.other.rawValue)?.session == nil { return false }
        return true
      }

      func rekeys(_ side: Side) async -> Int {
        await agents[side]?.status(of: side.other.rawValue)?.session?.rekeys ?? 0
      }

      func rekey(_ side: Side) async { await agents[side]?.rekey(side.other.rawValue) }

      func stop() async { for agent in agents.values { await agent.stop() } }
    }

    private static func plan(workers: Int = 1) -> TunnelPlan {
      var plan = TunnelPlan()
      plan.agreesUponKeys = true
      plan.workers = [.a: workers, .b: workers]
      return plan
    }

    /// Both sides at will, with a transfer and pings all the time: every sealed packet is opened.
    ///
    /// `REKEYS` sets how many. Then partners may ask for more a second than they may elsewhere, so that 10,000 take minutes.
    @Test(.timeLimit(.minutes(System.variable("REKEYS") == nil ? 5 : 240)), arguments: [1, 2])
    func atWillUnderLoad(workers: Int) async throws {
      let given = System.variable("REKEYS").flatMap(Int.init)
      let wanted = given ?? 25
      try await Tunnel.with(Self.plan(workers: workers)) { tunnel in
        let pair = await Pair(tunnel, updatesPerSecond: given == nil ? 4 : 50)
        #expect(await eventually { await pair.isEstablished() })
        try await Pings(from: tunnel.a.namespace, to: Side.b.inner4).expectAnswers([56])
        let transfer = RunningTransfer(
          from: tunnel.a.namespace, to: tunnel.b.namespace, address: Side.b.inner4,
          seconds: Double(wanted) / (given == nil ? 2 : 20))
        let began = MonotonicTime.current()
        var numbers = SplitMix64(seed: UInt64(workers))
        while await pair.rekeys(.a) < wanted {
          let who = numbers.next() % 3
          if who != 1 { await pair.rekey(.a) }
          if who != 0 { await pair.rekey(.b) }
          try await Task.sleep(for: .milliseconds(Int(numbers.next() % 12)))
        }
        let took = Double(MonotonicTime.current().nanoseconds(since: began)) / 1e9
        let result = try await transfer.finish()
        #expect(result.isIntact)
        print("FIGURE: \(wanted) rekeys in \(Int(took)) s, with \(workers) workers")
        try await Pings(from: tunnel.b.namespace, to: Side.a.inner4).expectAnswers([56, 1000])
        // All that was ever sealed was opened; `Tunnel.with` compares the books once more.
        let (left, right) = (await tunnel.a.settled(), await tunnel.b.settled())
        for drops in [left.outboundDrops, left.inboundDrops, right.outboundDrops, right.inboundDrops] {
          // What did not fit the way between two workers, as when the machine is busy, says nothing of keys.
          #expect(drops.filter { $0.reason != .handOverFull } == [])
        }
        #expect(await abs(pair.rekeys(.a) - pair.rekeys(.b)) <= 1)
        await pair.stop()
      }
    }
  }
}
