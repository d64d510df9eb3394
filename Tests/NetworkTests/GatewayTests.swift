import Dataplane
import Foundation
import Gateway
import Glibc
import Lab
import PacketIO
import Testing

extension NetworkTests {
  /// Two gateways as an operator runs them: from files, with `culvert`.
  @Suite(.enabled(if: Program.exists, "needs the program culvert")) struct GatewayTests {
    private struct Pair {
      let network: Network
      let a: GatewaySite
      let b: GatewaySite
    }

    /// - Parameter isManual: keys are given, and not agreed upon.
    private func withSites(
      isManual: Bool = false, peerSettings: String = "", _ body: (Pair) async throws -> Void
    ) async throws {
      let network = try await blocking { try Network(.direct) }
      defer { network.remove() }
      let secret = try await GatewaySite.makeSecret()
      let sites = try Side.allCases.map {
        try GatewaySite(
          $0, in: network[$0.rawValue], keys: isManual ? .manual(secret) : .secret(secret), peerSettings: peerSettings)
      }
      try await body(Pair(network: network, a: sites[0], b: sites[1]))
    }

    /// Ends a gateway and expects that it leaves nothing.
    private func stop(_ process: ProcessHandle, _ site: GatewaySite, before: [String]) async throws {
      let status = try await blocking {
        process.signal(SIGTERM)
        return try process.wait(timeout: 10)
      }
      #expect(status == .exited(0), "\(process.output)")
      try await site.expectTraces(before)
    }

    @Test(.timeLimit(.minutes(1)))
    func startShowReloadStop() async throws {
      try await withSites { pair in
        // For a peer that comes later.
        let made = try await Program.run(["keygen", "--secret", "\(pair.a.directory.path)/other.secret"])
        #expect(made.status == .exited(0))
        let before = (try await pair.a.traces(), try await pair.b.traces())
        for site in [pair.a, pair.b] {
          let outcome = try await Program.run(["check", site.file])
          #expect(outcome.status == .exited(0), "\(outcome.lines)")
        }
        let (a, b) = try await GatewaySite.startPair(pair.a, pair.b)
        for address in [Side.b.inner4, Side.b.inner6] {
          try await Pings(from: pair.a.namespace, to: address).expectAnswers([0, 56, 1352, 3000])
        }

        let report = try await pair.a.report()
        try await checkBalance(.a) { try await pair.a.report().statistics }
        #expect(report.name == "a" && report.process == a.pid && report.listen == "4500")
        let peer = try #require(report.statistics.peers.first)
        #expect(peer.name == "b" && peer.path == Endpoint("192.0.2.2", defaultPort: 4500) && peer.received.packets >= 8)
        #expect(report.statistics.allDropped == 0)
        let shown = try await Program.run(["show", "--control", pair.a.control])
        #expect(shown.status == .exited(0))
        let words = [
          "a on \(TunnelPlan.device)", "192.0.2.2:4500", "aes-128-gcm", "to b", "from b", "KEYS WITH", "established",
        ]
        for word in words {
          #expect(shown.lines.contains { $0.contains(word) }, "show: \(word)")
        }

        try await reload(pair, a)
        try await stop(a, pair.a, before: before.0)
        try await stop(b, pair.b, before: before.1)
        // Nobody answers any more, and that is said.
        let silent = try await Program.run(["show", "--control", pair.a.control])
        #expect(silent.status == .exited(1) && silent.lines.count == 1)
        // No key, and nothing derived from one, was ever said.
        for process in [a, b] {
          let secret = try String(contentsOfFile: "\(pair.a.directory.path)/shared.secret", encoding: .utf8)
          for line in secret.split(separator: "\n") where !line.hasPrefix("#") {
            #expect(!process.output.contains(line))
          }
        }
      }
    }

    /// SIGHUP under traffic: a new file takes effect and loses nothing, one with mistakes changes nothing.
    private func reload(_ pair: Pair, _ a: ProcessHandle) async throws {
      let flood = VerifiedFlood(
        from: pair.a.namespace, to: pair.b.namespace, address: Side.b.inner4, sizes: [64, 1000], count: 8000)
      async let flooded = flood.run()
      for round in 1...3 {
        try pair.a.write(
          peerSettings: "    keep-alive: \(round)",
          more: """
              - name: c\(round)
                prefixes: [10.99.\(round).0/24]
                secret: other.secret
            """)
        a.signal(SIGHUP)
        let reloaded = await eventually {
          a.output.components(separatedBy: "configuration reloaded").count == round + 1
        }
        #expect(reloaded, "\(a.output)")
        #expect(try await pair.a.report().peers.map(\.name) == ["b", "c\(round)"])
      }
      let routes = try await pair.a.traces()
      #expect(routes.contains { $0.hasPrefix("10.99.3.0/24 dev \(TunnelPlan.device)") })
      #expect(!routes.contains { $0.hasPrefix("10.99.2.0/24") })

      try pair.a.write(settings: "misspelt: 1")
      a.signal(SIGHUP)
      #expect(await eventually { a.output.contains("the old configuration stays") })
      #expect(a.output.contains("misspelt"))
      // The same asked for by name gives the reason to who asked.
      let refused = try await Program.run(["reload", "--control", pair.a.control])
      #expect(refused.status == .exited(1))
      #expect(refused.lines.contains { $0.contains("misspelt") })
      #expect(try await pair.a.report().peers.count == 2)
      try pair.a.write()
      let accepted = try await Program.run(["reload", "--control", pair.a.control])
      #expect(accepted.status == .exited(0), "\(accepted.lines)")
      #expect(try await pair.a.report().peers.count == 1)

      let result = try await flooded
      #expect(result.isIntact, "\(result)")
      let (left, right) = (try await pair.a.report().statistics, try await pair.b.report().statistics)
      for site in [pair.a, pair.b] { try await checkBalance(site.side) { try await site.report().statistics } }
      #expect(left.allDropped == 0 && right.allDropped == 0, "\(left.outboundDrops) \(right.inboundDrops)")
    }

    /// Manual keys stay the same when a gateway is started anew, after a clean end and after none. No sequence number
    /// comes twice on the wire, each side accepts the other again, and what was sent before is a replay.
    @Test(.timeLimit(.minutes(1)), arguments: [true, false])
    func restartsRepeatNoNumber(extended: Bool) async throws {
      try await withSites(isManual: true, peerSettings: "    extended-sequence-numbers: \(extended)") { pair in
        let wire = try await blocking { try Capture(pair.a.namespace, "wire") }
        var processes = [try await pair.a.start(), try await pair.b.start()]
        let sites = [pair.a, pair.b]
        func converse() async throws {
          try await Pings(from: pair.a.namespace, to: Side.b.inner4).expectAnswers([0, 1000, 1372])
          try await Pings(from: pair.b.namespace, to: Side.a.inner6).expectAnswers([0, 1000, 1352])
          try await Tunnel.transfer(from: pair.a.namespace, to: pair.b.namespace, Side.b.inner4, bytes: 300_001)
        }
        try await converse()
        for (which, signal) in [(0, SIGTERM), (0, SIGKILL), (1, SIGKILL), (1, SIGTERM), (0, SIGKILL)] {
          // Long enough for the record of what was received, which is written once a second.
          if signal == SIGKILL { try? await Task.sleep(for: .milliseconds(1100)) }
          let process = processes[which]
          let ended = try await blocking {
            process.signal(signal)
            return try process.wait(timeout: 10)
          }
          #expect(ended == (signal == SIGTERM ? .exited(0) : .killed(signal: SIGKILL)))
          processes[which] = try await sites[which].start()
          try await converse()
        }

        let datagrams = try await wire.finish().compactMap { $0.datagram() }.filter { $0.count > 8 }
        // Trains lie in the capture as one: their first number is enough to tell.
        var seen: [[UInt8]: Int] = [:]
        for datagram in datagrams { seen[Array(datagram[..<8]), default: 0] += 1 }
        let repeated = seen.filter { $0.value > 1 }.keys.map(\.hexadecimal)
        #expect(repeated == [])
        #expect(Set(datagrams.map { Array($0[..<4]) }).count == 2)
        #expect(datagrams.count > 100)

        try await replay(datagrams, pair)
        for site in sites { try await checkBalance(site.side) { try await site.report().statistics } }
        for process in processes { process.terminate() }
      }
    }

    /// Sends b again what a had sent before b was started for the last time.
    private func replay(_ datagrams: [[UInt8]], _ pair: Pair) async throws {
      let peer = try #require(try await pair.b.report().statistics.peers.first)
      let spi = try #require(peer.associations.first { $0.direction == .inbound }).spi
      let old = datagrams.filter { $0[..<4].reduce(0) { $0 << 8 | UInt32($1) } == spi && $0.count < 1450 }.prefix(20)
      #expect(old.count == 20)
      let before = try await pair.b.report().statistics
      let sender = try Sender(from: pair.a.namespace, to: Side.b.outer4, port: 4500)
      for datagram in old { try sender.send(datagram) }
      let refused = try await eventually {
        let after = try await pair.b.report().statistics
        // Far below a window of extended numbers they count as the next 2³², and fail there.
        return after.dropped(.replayed) + after.dropped(.authenticationFailed)
          == before.dropped(.replayed) + before.dropped(.authenticationFailed) + 20
      }
      #expect(refused)
      #expect(try await pair.b.report().statistics.peers.first?.path == Endpoint("192.0.2.1", defaultPort: 4500))
    }

    /// What the issue allows: 64 MiB, whatever goes through.
    @Test(.timeLimit(.minutes(1)))
    func memoryStaysSmall() async throws {
      try await withSites { pair in
        let started = try await GatewaySite.startPair(pair.a, pair.b)
        let processes = [started.0, started.1]
        let transfers = [(pair.a, pair.b, 4), (pair.b, pair.a, 2)].map { from, to, streams in
          LabThread {
            var transfer = BulkTransfer(
              from: from.namespace, to: to.namespace, address: to.side.inner4, amount: .seconds(3))
            transfer.streams = streams
            return try transfer.run().bytes
          }
        }
        var flood = DatagramFlood(
          from: pair.a.namespace, to: pair.b.namespace, address: Side.b.inner6, size: 1200, rate: 20_000)
        flood.segmentsPerSend = 20
        flood.seconds = 2
        _ = try await blocking { [flood] in try flood.run() }
        var bytes: UInt64 = 0
        for transfer in transfers { bytes += try await transfer.value }
        #expect(bytes > 20_000_000)
        for (process, site) in zip(processes, [pair.a, pair.b]) {
          let usage = try #require(process.usage)
          let (peak, own) = (usage.peakResident, usage.privateResident)
          print(
            "gateway \(site.side): \(peak >> 20) MiB at most while \(bytes / 1_000_000) MB went through, now "
              + "\(own >> 20) MiB of its own")
          #expect(peak > 1 << 20 && peak < 64 << 20)
          // The rest are pages of files, of the program and its libraries, which others share.
          #expect(own > 1 << 20 && own < 48 << 20)
          try await checkBalance(site.side) { try await site.report().statistics }
          process.terminate()
        }
      }
    }
  }
}
