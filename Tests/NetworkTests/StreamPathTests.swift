import Dataplane
import Lab
import PacketIO
import Testing

extension NetworkTests {
  /// Tunnels whose path is a TCP stream (RFC 9329), which `a` opens.
  @Suite struct StreamPathTests {
    @Test(.timeLimit(.minutes(1)), arguments: [true, false])
    func everythingArrivesIntact(isV4: Bool) async throws {
      try await Tunnel.with(.overTCP(isV4: isV4), isLossless: false) { tunnel in
        let sizes = Array(stride(from: 0, through: 1500, by: 7)) + [4000, 30_000, 65_507]
        for address in [Side.b.inner4, Side.b.inner6] {
          try await Pings(from: tunnel.a.namespace, to: address).expectAnswers(sizes)
        }
        try await Pings(from: tunnel.b.namespace, to: Side.a.inner4).expectAnswers([0, 1, 1372, 1373])
        for (from, to) in [(tunnel.a, tunnel.b), (tunnel.b, tunnel.a)] {
          let sizes = [8, 9, 64, 100, 511, 1280, 1352, 1372, 1373, 1400, 3000, 20_000]
          let flood = VerifiedFlood(
            from: from.namespace, to: to.namespace, address: to.side.inner4, sizes: sizes, count: 2000)
          let result = try await flood.run()
          // The queue of a stream may fill while it gathers speed; what it drops is counted.
          let refused = await from.transport("send-queue-full")
          #expect(result.altered == 0 && result.duplicates == 0, "\(result)")
          #expect(result.isIntact || refused > 0, "\(result)")
        }
        try await Tunnel.transfer(
          from: tunnel.a.namespace, to: tunnel.b.namespace, Side.b.inner4, bytes: 20_000_003)
        try await Tunnel.transfer(
          from: tunnel.b.namespace, to: tunnel.a.namespace, Side.a.inner6, bytes: 20_000_003, streams: 3)
        let (left, right) = (await tunnel.a.settled(), await tunnel.b.settled())
        // All of it by one stream, many records a send, and many a superpacket.
        #expect(left.transport("streams-dialled") == 1 && right.transport("streams-accepted") == 1)
        #expect(left.transport("sent-trains") * 4 < left.transport("sent-datagrams"))
        #expect(right.transport("received-trains") * 4 < right.transport("received-datagrams"))
        #expect(left.allDropped == 0 && right.allDropped == 0)
        #expect(left.transport("sent-datagrams") == right.transport("received-datagrams"))
      }
    }

    /// Nobody has said who can be reached, so both open a stream: that of the higher address stays, and traffic does
    /// not notice.
    @Test(.timeLimit(.minutes(1)))
    func ofTwoStreamsOneStays() async throws {
      var plan = TunnelPlan()
      plan.usesTCP = true
      plan.keepAlive = .seconds(1)
      try await Tunnel.with(plan, isLossless: false) { tunnel in
        let start = monotonicSeconds()
        let transfer = RunningTransfer(
          from: tunnel.a.namespace, to: tunnel.b.namespace, address: Side.b.inner4, seconds: 4)
        let isOne = await eventually(within: 30) {
          let dialled = [await tunnel.a.transport("streams-opened"), await tunnel.b.transport("streams-opened")]
          let streams = [await tunnel.a.transport("streams"), await tunnel.b.transport("streams")]
          return dialled.allSatisfy { $0 >= 1 } && streams == [1, 1]
        }
        #expect(isOne)
        let result = try await transfer.finish()
        #expect(result.isIntact && transfer.longestStall(since: start) < 1)
        // 192.0.2.2 is the higher one.
        let (left, right) = (await tunnel.a.settled().peers[0], await tunnel.b.settled().peers[0])
        #expect(
          left.paths.map(\.state).contains(.yielded) && left.paths.first { $0.isUsed }?.name == PathChange.learned)
        #expect(right.paths.first { $0.isUsed }?.name != PathChange.learned)
        for gateway in [tunnel.a, tunnel.b] { #expect(await gateway.transport("streams-dialled") <= 2) }
      }
    }

    private struct Description: Encodable {
      var capture: String
      var port = 4500
      var associations: [Judges.Association]
    }

    private struct Found: Decodable {
      var prefix: String
      var records: Int
      var opened: Int
      var dummies: Int
      var inner: Int
      var failures: [String]
    }

    /// A program that shares nothing with ours reads the stream off the wire, and scapy opens what is in it.
    @Test(.timeLimit(.minutes(1)), .enabled(if: Judges.hasScapy, "needs scapy"), arguments: [true, false])
    func othersReadOurStreams(isV4: Bool) async throws {
      let plan = TunnelPlan.overTCP(isV4: isV4)
      try await Tunnel.with(plan, isLossless: false) { tunnel in
        let wire = try await blocking { try Capture(tunnel.a.namespace, "wire") }
        try await Pings(from: tunnel.a.namespace, to: Side.b.inner4).expectAnswers([0, 1, 200, 1372])
        try await Tunnel.transfer(
          from: tunnel.a.namespace, to: tunnel.b.namespace, Side.b.inner6, bytes: 200_001)
        let (left, right) = (await tunnel.a.settled(), await tunnel.b.settled())
        let directory = try TemporaryDirectory()
        let capture = "\(directory.path)/stream.pcap"
        try PacketFile.write(try await wire.finish().map(\.bytes), link: .ethernet, to: capture)
        let found = try await Judges.run(
          "tcp_records.py",
          Description(
            capture: capture, associations: Side.allCases.map { Judges.Association(plan, from: $0) }),
          answer: [String: Found].self)
        let dialler = try #require(found["dialler"])
        let listener = try #require(found["listener"])
        // "IKETCP", from the originator only.
        #expect(dialler.prefix == "494b45544350" && listener.prefix == "")
        for (found, sender) in [(dialler, left), (listener, right)] {
          #expect(found.failures == [] && found.opened == found.records)
          #expect(UInt64(found.records) == sender.transport("sent-datagrams"))
          #expect(UInt64(found.inner) == sender.sealed.bytes && UInt64(found.dummies) == sender.controlSent)
        }
      }
    }

    /// Somebody resets the stream, again and again, while bytes run in both directions.
    @Test(.timeLimit(.minutes(1)), arguments: [Side.a, .b])
    func aResetStreamIsOpenedAgainAndTheTransferFinishes(sender: Side) async throws {
      try await Tunnel.with(.overTCP(), isLossless: false) { tunnel in
        let (from, to) = (tunnel[sender], tunnel[sender.other])
        try await Pings(from: tunnel.a.namespace, to: Side.b.inner4).expectAnswers([0])
        async let transfer: Void = Tunnel.transfer(
          from: from.namespace, to: to.namespace, to.side.inner4, bytes: 250_000_003)
        for _ in 0..<3 {
          try await Task.sleep(for: .milliseconds(250))
          _ = try await blocking {
            try Tool.run(
              "ss", ["-K", "state", "established", "( sport = :4500 or dport = :4500 )"], in: tunnel.b.namespace)
          }
        }
        try await transfer
        let (left, right) = (await tunnel.a.settled(), await tunnel.b.settled())
        #expect(left.transport("streams-opened") >= 2 && right.transport("streams-accepted") >= 2)
        #expect(left.transport("streams") == 1 && right.transport("streams") == 1)
      }
    }

    /// Port scans, silence, noise, wrong records and a slow writer, while bytes run.
    @Test(.timeLimit(.minutes(1)), .enabled(if: Judges.hasScapy, "needs python"))
    func strangersDisturbNobody() async throws {
      try await Tunnel.with(.overTCP(), isLossless: false) { tunnel in
        try await Pings(from: tunnel.a.namespace, to: Side.b.inner4).expectAnswers([0])
        async let transfer: Void = Tunnel.transfer(
          from: tunnel.a.namespace, to: tunnel.b.namespace, Side.b.inner4, bytes: 200_000_003)
        let script = Judges.script("tcp_strangers.py")
        _ = try await blocking {
          try Tool.run(Judges.python, ["-B", script, Side.b.outer4, "4500"], in: tunnel.a.namespace)
        }
        try await transfer
        try await Pings(from: tunnel.b.namespace, to: Side.a.inner4).expectAnswers([0, 1000])
        let right = await tunnel.b.settled()
        #expect(right.transport("ended-bad-prefix") >= 20 && right.transport("ended-bad-length") >= 2)
        #expect(right.transport("refused-too-many-of-address") > 0 && right.transport("streams-accepted") > 50)
        #expect(right.dropped(.unknownSPI) > 0)
        #expect(right.transport("too-short") > 0 && right.transport("key-exchange-ignored") > 0)
        // The partner's one stream; the strangers are gone, with all that they left.
        #expect(await eventually { await tunnel.b.transport("streams") == 1 })
        #expect(right.transport("streams-ended") + 1 == right.transport("streams-accepted"))
      }
    }
  }
}
