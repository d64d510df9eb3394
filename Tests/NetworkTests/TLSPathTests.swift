import Dataplane
import Foundation
import Lab
import PacketIO
import Testing
import TransportSupport
import Transports

extension NetworkTests {
  /// Tunnels whose path is a stream inside TLS, on a port that is a web server's to everybody else.
  @Suite struct TLSPathTests {
    /// Both directions, both families inside, small and large.
    private func converse(_ tunnel: Tunnel, bytes: UInt64 = 10_000_003) async throws {
      try await Pings(from: tunnel.a.namespace, to: Side.b.inner4).expectAnswers([0, 1, 1000, 1372, 4000, 30_000])
      try await Pings(from: tunnel.b.namespace, to: Side.a.inner6).expectAnswers([0, 1, 1000, 1352])
      try await Tunnel.transfer(
        from: tunnel.a.namespace, to: tunnel.b.namespace, Side.b.inner4, bytes: bytes, streams: 3)
      try await Tunnel.transfer(
        from: tunnel.b.namespace, to: tunnel.a.namespace, Side.a.inner6, bytes: bytes, streams: 3)
    }

    private func run(_ words: [String], in namespace: Namespace) async throws -> (status: ProcessHandle.Status, String)
    {
      try await blocking {
        // Nothing more comes by the standard input.
        let process = try ProcessHandle(words[0], Array(words.dropFirst()), in: namespace, input: "")
        let status = try process.wait(timeout: 30)
        return (status, process.output)
      }
    }

    private func curl(_ arguments: [String], in namespace: Namespace) async throws -> String {
      let (status, output) = try await run(["curl", "-sk", "--max-time", "20"] + arguments, in: namespace)
      #expect(status == .exited(0), "\(arguments): \(status) \(output)")
      return output
    }

    @Test(.timeLimit(.minutes(1)), arguments: [(true, 1), (false, 1), (true, 2)])
    func everythingArrivesIntact(isV4: Bool, workers: Int) async throws {
      var plan = TunnelPlan.overTLS(isV4: isV4)
      plan.workers = [.a: workers, .b: workers]
      try await Tunnel.with(plan, isLossless: false) { tunnel in
        // It may have dialled before the other side listened, because a worker asks for its association.
        if workers > 1 { #expect(await eventually { await tunnel.a.transport("streams-opened") == 1 }) }
        try await converse(tunnel)
        let (left, right) = (await tunnel.a.settled(), await tunnel.b.settled())
        #expect(left.transport("streams-opened") == 1 && right.transport("streams-accepted") == 1)
        #expect(left.transport("tls-handshakes") == 1 && right.transport("tls-handshakes") == 1)
        #expect(left.transport("sent-trains") * 4 < left.transport("sent-datagrams"))
        #expect(left.allDropped == 0 && right.allDropped == 0)
        // The two are not asked at one moment, and probes go on.
        #expect(
          await eventually {
            await tunnel.a.transport("sent-datagrams") == tunnel.b.transport("received-datagrams")
          })
      }
    }

    /// With older kernels too.
    @Test(.timeLimit(.minutes(1)), arguments: [[.deferredTaskRun, .bufferRings], []] as [RingFeatures])
    func kernelsWithoutMultishotReceive(features: RingFeatures) async throws {
      var plan = TunnelPlan.overTLS()
      plan.features = features
      try await Tunnel.with(plan, isLossless: false) { try await converse($0, bytes: 2_000_003) }
    }

    // MARK: Others at the port

    @Test(.timeLimit(.minutes(1)), .enabled(if: Tool.exists("curl"), "needs curl"))
    func othersFindAWebServer() async throws {
      try await Tunnel.with(.overTLS(), isLossless: false) { tunnel in
        try await Pings(from: tunnel.a.namespace, to: Side.b.inner4).expectAnswers([0])
        let transfer = RunningTransfer(
          from: tunnel.a.namespace, to: tunnel.b.namespace, address: Side.b.inner4, seconds: 3)
        let url = "https://\(Side.b.outer4)"
        let directory = try TemporaryDirectory()
        try directory.write("form", String(repeating: "x", count: 300_000))
        for (arguments, answer) in [
          (["-w", "%{http_code} %{http_version}", "-o", "/dev/null", "\(url)/"], "404 1.1"),
          (["-w", "%{http_code}", "-I", "-o", "/dev/null", "\(url)/x"], "404"),
          (["-w", "%{http_code}", "-d", "@\(directory.path)/form", "-o", "/dev/null", url], "404"),
          (["-w", "%{http_code}", "-H", "X: " + String(repeating: "y", count: 9000), "-o", "/dev/null", url], "431"),
        ] {
          #expect(try await curl(arguments, in: tunnel.a.namespace) == answer)
        }
        let page = try await curl(["-i", url], in: tunnel.a.namespace)
        #expect(page.contains("404 Not Found</h1>") && page.lowercased().contains("content-length"))
        #expect(page.lowercased().contains("connection: close") && !page.lowercased().contains("server:"))
        #expect(try await transfer.finish().isIntact)
        #expect(await tunnel.b.transport("http-answered") == 5)
        #expect(await eventually { await tunnel.b.transport("streams") == 1 })
      }
    }

    @Test(.timeLimit(.minutes(1)), .enabled(if: Tool.exists("openssl"), "needs openssl"))
    func itIsOrdinaryTLS13() async throws {
      try await Tunnel.with(.overTLS(), isLossless: false) { tunnel in
        let client = ["openssl", "s_client", "-connect", "\(Side.b.outer4):443", "-servername", "www.example.org"]
        let (status, text) = try await run(client + ["-tls1_3", "-alpn", "h2,http/1.1"], in: tunnel.a.namespace)
        #expect(status == .exited(0) && text.contains("New, TLSv1.3") && text.contains("ALPN protocol: http/1.1"))
        #expect(text.contains("subject=CN = localhost") && !text.contains("New Session Ticket"), "\(text)")
        // Whoever asks for HTTP/2 alone is served without a protocol.
        let (_, other) = try await run(client + ["-tls1_3", "-alpn", "h2"], in: tunnel.a.namespace)
        #expect(other.contains("New, TLSv1.3") && other.contains("No ALPN negotiated"))
        // An alert, and not an end without a word.
        let (refusal, reason) = try await run(client + ["-tls1_2"], in: tunnel.a.namespace)
        #expect(refusal == .exited(1) && reason.contains("alert protocol version"), "\(reason)")
        #expect(await tunnel.b.transport("tls-failed") == 1)
        try await Pings(from: tunnel.a.namespace, to: Side.b.inner4).expectAnswers([0, 1000])
      }
    }

    /// What listens on the wire sees TLS and nothing else.
    @Test(.timeLimit(.minutes(1)), .enabled(if: Judges.hasTshark, "needs tshark"))
    func nothingElseIsSeen() async throws {
      try await Tunnel.with(.overTLS(), isLossless: false) { tunnel in
        let wire = try await blocking { try Capture(tunnel.a.namespace, "wire") }
        try await Pings(from: tunnel.a.namespace, to: Side.b.inner4).expectAnswers([0, 1000])
        try await Tunnel.transfer(
          from: tunnel.a.namespace, to: tunnel.b.namespace, Side.b.inner4, bytes: 300_000)
        let packets = try await wire.finish()
        #expect(packets.allSatisfy { $0.datagram() == nil })
        let directory = try TemporaryDirectory()
        let file = "\(directory.path)/tls.pcap"
        try PacketFile.write(packets.map(\.bytes), link: .ethernet, to: file)
        func tshark(_ filter: String) async throws -> Int {
          try await blocking {
            try Tool.run("tshark", ["-r", file, "-Y", filter, "-T", "fields", "-e", "frame.number"])
              .split(separator: "\n").count { $0.allSatisfy(\.isNumber) }
          }
        }
        #expect(try await tshark("tls.handshake.type == 1 && tls.handshake.extensions_alpn_str == \"h2\"") == 1)
        #expect(
          try await tshark("tls.handshake.type == 2 && tls.handshake.extensions.supported_version == 0x0304") == 1)
        let records = try await tshark("tls.record.opaque_type == 23")
        #expect(records >= 10, "\(records)")
        #expect(try await tshark("esp || isakmp || hip || udpencap || _ws.malformed || tls.alert_message") == 0)
        // All of the stream is records.
        #expect(try await tshark("tcp.port == 443 && tcp.len > 0 && !tls && !tcp.segment_data") == 0)
        let bytes = packets.map(\.bytes)
        #expect(!bytes.contains { $0.firstRange(of: Array("IKETCP".utf8)) != nil })
      }
    }

    /// Half a handshake, silence, noise, crowds, while bytes run: each has its time, and nobody notices.
    @Test(.timeLimit(.minutes(1)), .enabled(if: Judges.hasScapy, "needs python"))
    func strangersDisturbNobody() async throws {
      var tls = TLSPlan()
      tls.identificationTime = .seconds(1)
      try await Tunnel.with(.overTLS(tls), isLossless: false) { tunnel in
        try await Pings(from: tunnel.a.namespace, to: Side.b.inner4).expectAnswers([0])
        async let transfer: Void = Tunnel.transfer(
          from: tunnel.a.namespace, to: tunnel.b.namespace, Side.b.inner4, bytes: 100_000_003)
        let script = Judges.script("tls_strangers.py")
        let text = try await blocking {
          try Tool.run(Judges.python, ["-B", script, Side.b.outer4, "443"], in: tunnel.a.namespace)
        }
        try await transfer
        let found = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
        // The script waits thirty seconds: each ended because its time was over.
        let silent = try #require(found["silent"] as? [Double])
        #expect(silent.count == 4 && silent.allSatisfy { $0 < 20 }, "\(silent)")
        #expect(found["crowd"] as? Double ?? 30 < 20, "\(text)")
        let right = await tunnel.b.settled()
        #expect(right.transport("ended-unidentified") >= 4 && right.transport("refused-too-many-of-address") >= 10)
        for (figure, least) in [("tls-failed", 20), ("ended-bad-length", 10)] as [(String, UInt64)] {
          #expect(right.transport(figure) >= least, "\(figure): \(right.transport(figure)) \(text)")
        }
        // Fifty of one origin in a second; the machine may need several for all.
        let refused = try #require(found["refused"] as? Int)
        #expect(right.transport("tls-too-many-handshakes") == refused)
        #expect(await eventually { await tunnel.b.transport("streams") == 1 })
        try await Pings(from: tunnel.b.namespace, to: Side.a.inner4).expectAnswers([0, 1000])
      }
    }

    /// Who is in the middle alters bytes: the stream ends, and another is dialled.
    @Test(.timeLimit(.minutes(1)), .enabled(if: Judges.hasScapy, "needs python"))
    func alteredBytesEndTheirStreamOnly() async throws {
      var plan = TunnelPlan.overTLS()
      plan.paths = [.b: TunnelPlan.path("127.0.0.1", port: 8443)]
      plan.keepAlive = .seconds(1)
      try await Tunnel.with(plan, isLossless: false) { tunnel in
        let script = Judges.script("tls_flipper.py")
        let flipper = try await blocking {
          let words = ["-B", script, "8443", Side.b.outer4, "443"]
          let process = try ProcessHandle(Judges.python, words, in: tunnel.a.namespace)
          try process.waitUntil("it listened", timeout: 10) { $0.output.contains("listens") }
          return process
        }
        defer { flipper.terminate() }
        for _ in 0..<40 where await tunnel.a.transport("streams-dialled") < 7 {
          try await Tunnel.transfer(
            from: tunnel.a.namespace, to: tunnel.b.namespace, Side.b.inner4, bytes: 300_003)
        }
        try await Tunnel.transfer(
          from: tunnel.b.namespace, to: tunnel.a.namespace, Side.a.inner4, bytes: 3_000_003)
        let (left, right) = (await tunnel.a.settled(), await tunnel.b.settled())
        // Each altered stream was found out on the side that the bytes went to.
        let found = (left.transport("tls-failed"), right.transport("tls-failed"))
        #expect(found.0 + found.1 >= 6, "\(found) \(left.transport("streams-dialled"))")
        #expect(left.transport("streams-dialled") >= 7 && left.transport("streams") == 1)
        #expect(left.dropped(.authenticationFailed) == 0 && right.dropped(.authenticationFailed) == 0)
      }
    }

    /// Who is no partner is handed on to a web server, while a tunnel runs beside.
    @Test(.timeLimit(.minutes(1)), .enabled(if: Judges.hasScapy && Tool.exists("curl"), "needs python and curl"))
    func othersAreHandedOn() async throws {
      let directory = try TemporaryDirectory()
      var tls = TLSPlan()
      tls.webServer = "\(directory.path)/web.sock"
      tls.identificationTime = .seconds(1)
      let url = "https://\(Side.b.outer4)"
      try await Tunnel.with(.overTLS(tls), isLossless: false) { tunnel in
        let code = ["-o", "/dev/null", "-w", "%{http_code}", "\(url)/1000"]
        // Nobody is there yet.
        #expect(try await curl(code, in: tunnel.a.namespace) == "502")
        let server = try await blocking {
          let words = ["-B", Judges.script("unix_web_server.py"), "\(directory.path)/web.sock"]
          let process = try ProcessHandle(Judges.python, words, in: tunnel.b.namespace)
          try process.waitUntil("it listened", timeout: 10) { $0.output.contains("listens") }
          return process
        }
        defer { server.terminate() }
        let transfer = RunningTransfer(
          from: tunnel.a.namespace, to: tunnel.b.namespace, address: Side.b.inner4, seconds: 3)
        #expect(try await curl(code, in: tunnel.a.namespace) == "200")
        // Large both ways, and several requests on one stream, slower than a stranger has time.
        let file = "\(directory.path)/file"
        _ = try await curl(["-o", file, "\(url)/7000000"], in: tunnel.a.namespace)
        let pattern = (0..<1000).map { UInt8(truncatingIfNeeded: $0 * 7) }
        #expect(try Data(contentsOf: URL(filePath: file)) == Data((0..<7000).flatMap { _ in pattern }))
        let digest = try await blocking { try Tool.run("sha256sum", [file]) }.prefix(64)
        #expect(
          try await curl(["-H", "Expect:", "--data-binary", "@\(file)", url], in: tunnel.a.namespace) == digest)
        let slow = ["--limit-rate", "1000000", "-o", "/dev/null", "-o", "/dev/null", "-w", "%{num_connects} "]
        #expect(
          try await curl(slow + ["\(url)/2000000", "\(url)/1000"], in: tunnel.a.namespace) == "1 0 ")
        #expect(try await transfer.finish().isIntact)
        #expect(await tunnel.b.transport("http-handed-on") == 4)
        #expect(await tunnel.b.transport("http-hand-on-failed") == 1)
        #expect(await eventually { await tunnel.b.transport("streams") == 1 })
        try await Pings(from: tunnel.a.namespace, to: Side.b.inner4).expectAnswers([0, 1000])
      }
    }

    // MARK: The certificate

    @Test(.timeLimit(.minutes(1)), .enabled(if: Tool.exists("openssl"), "needs openssl"), arguments: [true, false])
    func aNameIsChecked(isRight: Bool) async throws {
      let certificate = try await blocking { try TestCertificate(name: "relay.example.org") }
      var tls = TLSPlan()
      tls.certificate = try certificate.server
      tls.authorities = certificate.chain
      let endpoint = try #require(TunnelPlan.path(Side.b.outer4, port: 443))
      tls.names = [endpoint: isRight ? "relay.example.org" : "other.example.org"]
      try await Tunnel.with(.overTLS(tls), isLossless: false) { tunnel in
        if isRight {
          try await Pings(from: tunnel.a.namespace, to: Side.b.inner4).expectAnswers([0, 1000])
        } else {
          let ping = try await run(["ping", "-c", "2", "-W", "1", Side.b.inner4], in: tunnel.a.namespace)
          #expect(ping.status == .exited(1))
          #expect(await tunnel.a.transport("tls-certificate-refused") > 0)
          #expect(await tunnel.a.transport("streams-opened") == 0)
        }
      }
    }
  }
}
