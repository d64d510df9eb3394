import Dataplane
import Foundation
import Gateway
import Glibc
import PacketIO
import Testing

@testable import Lab

extension NetworkTests {
  /// Gateways that know each other by identities, run from files, and judged by their logs and by what is on the wire:
  /// ```
  /// a: 10.77.0.1, fd77::1 ── culvert0 ═══ 192.0.2.0/24 ═══ culvert0 ── b: 10.77.0.2, fd77::2
  /// ```
  @Suite(.enabled(if: Program.exists, "needs the program culvert")) struct IdentityTests {
    private struct Pair {
      let network: Network
      let identities: [Side: GatewaySite.Identity]
      let a: GatewaySite
      let b: GatewaySite

      subscript(_ side: Side) -> GatewaySite { side == .a ? a : b }
    }

    private func withPair(
      _ kind: [String] = [], settings: String = "", peerSettings: String = "", paths: String? = nil,
      _ body: (Pair) async throws -> Void
    ) async throws {
      let network = try await blocking { try Network(.direct) }
      defer { network.remove() }
      let identities = try await GatewaySite.makeIdentities(kind)
      let sites = try Side.allCases.map {
        try GatewaySite(
          $0, in: network[$0.rawValue], keys: .identities(identities), settings: settings, peerSettings: peerSettings)
      }
      if let paths {
        for site in sites {
          let paths = paths.replacing("PEER", with: site.side.other.outer4)
          try site.write(settings: settings, peerSettings: peerSettings, paths: paths)
        }
      }
      try await body(Pair(network: network, identities: identities, a: sites[0], b: sites[1]))
    }

    private func stop(_ process: ProcessHandle, _ signal: Int32 = SIGTERM) async throws {
      let status = try await blocking {
        process.signal(signal)
        return try process.wait(timeout: 10)
      }
      #expect(status == (signal == SIGKILL ? .killed(signal: SIGKILL) : .exited(0)), "\(process.output)")
    }

    /// Bytes in both directions and both families arrive as they were.
    private func converse(_ pair: Pair, streams: Int = 1) async throws {
      let (a, b) = (pair.a.namespace, pair.b.namespace)
      try await Pings(from: a, to: Side.b.inner4).expectAnswers([0, 1000, 1372])
      try await Pings(from: b, to: Side.a.inner6).expectAnswers([0, 1000, 1352])
      try await Tunnel.transfer(from: a, to: b, Side.b.inner4, bytes: 1_000_003, streams: streams)
      try await Tunnel.transfer(from: b, to: a, Side.a.inner6, bytes: 1_000_003, streams: streams)
    }

    /// Keys of the one peer, as `culvert show` tells programs.
    private func keys(_ site: GatewaySite) async throws -> KeyReport? { try await site.report().peers.first?.keys }

    private func waitForState(
      _ state: KeyReport.State, at site: GatewaySite, within seconds: Double = 20,
      sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
      let isReached = try await eventually(within: seconds) { try await keys(site)?.state == state }
      #expect(isReached, "\(site.side): no \(state)", sourceLocation: sourceLocation)
    }

    /// When a log said so first, in seconds of the day; it has no more than those.
    private func time(of words: String, in log: String) throws -> Int {
      let line = try #require(log.split(separator: "\n").first { $0.contains(words) }, "\(words): \(log)")
      let clock = try #require(line.firstMatch(of: /T(\d\d):(\d\d):(\d\d)/))
      return try [clock.1, clock.2, clock.3].reduce(0) { 60 * $0 + (try #require(Int($1))) }
    }

    // MARK: On the wire

    /// Frames on this port that hold a packet of the handshake.
    private func handshakes(_ packets: [Capture.Packet]) -> [[UInt8]] {
      packets.filter { packet in
        guard let datagram = packet.datagram(), datagram.count > 44 else { return false }
        return datagram[0..<4].elementsEqual([0, 0, 0, 0]) && datagram[4] == 59 && datagram[7] >> 4 == 2
      }.map(\.bytes)
    }

    /// What is sealed, as SPI and sequence number.
    private func numbers(_ packets: [Capture.Packet]) -> [[UInt8]] {
      packets.compactMap { $0.datagram() }.filter { $0.count > 8 && !$0[0..<4].elementsEqual([0, 0, 0, 0]) }
        .map { Array($0.prefix(8)) }
    }

    /// Types of the packets in these frames, which tshark finds well-formed.
    private func judged(_ frames: [[UInt8]]) async throws -> Set<Int> {
      guard Judges.hasTshark else { return Set(frames.map { Int($0[14 + 20 + 8 + 4 + 2]) }) }
      let directory = try TemporaryDirectory()
      let file = "\(directory.path)/handshakes.pcap"
      try PacketFile.write(frames, link: .ethernet, to: file)
      let words =
        ["-r", file, "-d", "udp.port==4500,hip", "-T", "fields", "-E", "separator=;"]
        + ["hip.packet_type", "_ws.malformed", "_ws.expert.message"].flatMap { ["-e", $0] }
      let text = try await blocking { try Tool.run("tshark", words) }
      let lines = text.split(separator: "\n").filter { !$0.hasPrefix("Running as") }
        .map { $0.split(separator: ";", omittingEmptySubsequences: false).map(String.init) }
      #expect(lines.count == frames.count)
      for line in lines {
        // Its HOST_ID is that of the first version of HIP.
        #expect(line.count == 3 && line[1].isEmpty && ["", "Unknown algorithm type"].contains(line[2]), "\(line)")
      }
      return Set(lines.compactMap { $0.first.flatMap { Int($0) } })
    }

    // MARK: Keys

    /// Of every kind, and with several workers on both sides, or on one.
    @Test(
      .timeLimit(.minutes(1)),
      arguments: [
        ([], 1, 1), (["--ed25519"], 1, 1), (["--rsa"], 1, 1), ([], 2, 2), ([], 4, 2), (["--ed25519"], 1, 4),
      ] as [([String], Int, Int)])
    func twoGatewaysAgreeAndTalk(kind: [String], workersOfA: Int, workersOfB: Int) async throws {
      try await withPair(kind) { pair in
        try pair.a.write(settings: "workers: \(workersOfA)")
        try pair.b.write(settings: "workers: \(workersOfB)")
        for site in [pair.a, pair.b] {
          let checked = try await Program.run(["check", site.file])
          #expect(checked.status == .exited(0), "\(checked.lines)")
        }
        let wire = try await blocking { try Capture(pair.a.namespace, "wire") }
        let (a, b) = try await GatewaySite.startPair(pair.a, pair.b)
        try await converse(pair, streams: 4)
        for site in [pair.a, pair.b] {
          let report = try await site.report()
          try await checkBalance(site.side) { try await site.report().statistics }
          // Nothing has to outlive the process.
          #expect(!FileManager.default.fileExists(atPath: "\(site.directory.path)/state"))
          #expect(report.identity == pair.identities[site.side]?.gid)
          #expect(report.peers.first?.pathKind == "udp")
          let keys = try #require(report.peers.first?.keys)
          #expect(keys.gid == pair.identities[site.side.other]?.gid && keys.state == .established)
          #expect(keys.problem == nil && keys.suite == "aes-128-gcm" && keys.implicitIV == true)
          #expect(keys.group == "x25519" && keys.rekeys != nil && keys.age ?? 60 < 60 && keys.nextRekey ?? 0 > 60)
          let workers = site.side == .a ? workersOfA : workersOfB
          #expect(report.statistics.workers.count == (workers > 1 ? workers : 0))
          let isPostQuantum = try await eventually {
            try await site.report().peers.first?.keys?.isPostQuantum == true
          }
          #expect(isPostQuantum, "\(site.side)")
          let isVerified = try await eventually {
            try await site.report().statistics.peers.first?.isPathVerified == true
          }
          #expect(isVerified, "\(site.side)")
          let text = try await Program.run(["show", "--control", site.control]).lines
          #expect(text.contains { $0.contains("established") && $0.contains(keys.gid) }, "\(text)")
        }
        for process in [a, b] {
          let pem = pair.identities.values.flatMap { $0.pem.split(separator: "\n") }
          #expect(!pem.contains { process.output.contains($0) })
        }
        try await stop(a)
        let isTold = await eventually { b.output.contains("the peer has closed") }
        #expect(isTold, "\(a.output)\(b.output)")
        try await stop(b)
        let packets = try await wire.finish()
        let sealed = numbers(packets)
        #expect(Set(sealed).count == sealed.count && sealed.count > 50)
        // I1, R1, I2, R2, and CLOSE with its answer.
        let kinds = try await judged(handshakes(packets))
        #expect(kinds.isSuperset(of: [1, 2, 3, 4, 18, 19]), "\(kinds)")
      }
    }

    /// One path, over TCP: both sides take and open streams.
    @Test(.timeLimit(.minutes(1)), arguments: [1, 2]) func overTCPOnly(workers: Int) async throws {
      let settings = "listen-tcp: 4500\nworkers: \(workers)"
      try await withPair(settings: settings, paths: "paths: [tcp: PEER]") { pair in
        let wire = try await blocking { try Capture(pair.a.namespace, "wire") }
        let (a, b) = try await GatewaySite.startPair(pair.a, pair.b)
        try await converse(pair)
        // Nobody has sent by UDP.
        #expect(try await wire.finish().allSatisfy { $0.datagram() == nil })
        for process in [a, b] { try await stop(process) }
      }
    }

    /// Without traffic keys go, on both sides, whether both say so or one; a packet brings them back.
    @Test(.timeLimit(.minutes(1)), arguments: [true, false]) func withoutTrafficKeysGo(onBoth: Bool) async throws {
      try await withPair(peerSettings: "    idle-close: 10") { pair in
        if !onBoth { try pair.b.write() }
        let (a, b) = try await GatewaySite.startPair(pair.a, pair.b)
        try await converse(pair)
        let isClosed = await eventually(within: 40) {
          [a, b].contains { $0.output.contains("closed for want of traffic") }
        }
        #expect(isClosed, "\(a.output)\(b.output)")
        for site in [pair.a, pair.b] { try await waitForState(.idle, at: site) }
        try await converse(pair)
        for site in [pair.a, pair.b] { try await waitForState(.established, at: site) }
        for process in [a, b] { try await stop(process) }
      }
    }

    /// One path, inside TLS, at whose end a certificate is looked for too: the handshake goes along it, and who is there
    /// is known by that.
    @Test(.timeLimit(.minutes(1)), arguments: [1, 2]) func overTLSOnly(workers: Int) async throws {
      let settings = "listen-tls: 443\nworkers: \(workers)"
      try await withPair(settings: settings, paths: "paths: [tls: PEER]") { pair in
        let wire = try await blocking { try Capture(pair.a.namespace, "wire") }
        let (a, b) = try await GatewaySite.startPair(pair.a, pair.b)
        try await converse(pair)
        let report = try await pair.a.report()
        #expect(report.listenTLS == "443" && report.peers.first?.keys?.state == .established)
        #expect(report.peers.first?.pathKind == "tls")
        let isVerified = try await eventually {
          try await pair.a.report().statistics.peers.first?.isPathVerified == true
        }
        #expect(isVerified)
        let text = try await Program.run(["show", "--control", pair.a.control]).lines
        #expect(text.contains { $0.contains("TLS 443") } && text.contains { $0.contains("tls-handshakes") }, "\(text)")
        // Nobody has sent by UDP.
        #expect(try await wire.finish().allSatisfy { $0.datagram() == nil })
        for process in [a, b] { try await stop(process) }
      }
    }

    // MARK: Restarts

    /// Either side starts anew without any record, after a farewell and after none; the other one is not told anything.
    @Test(.timeLimit(.minutes(1)), arguments: Side.allCases, [SIGTERM, SIGKILL])
    func aRestartIsBackSoon(side: Side, signal: Int32) async throws {
      try await withPair { pair in
        let wire = try await blocking { try Capture(pair.a.namespace, "wire") }
        let (a, b) = try await GatewaySite.startPair(pair.a, pair.b)
        try await converse(pair)
        let (leaving, staying) = side == .a ? (a, b) : (b, a)
        try await stop(leaving, signal)
        if signal == SIGTERM {
          #expect(await eventually { staying.output.contains("the peer has closed") })
          try await waitForState(.connecting, at: pair[side.other])
        }
        let again = try await pair[side].start()
        defer { again.terminate() }
        try await again.waitForKeys()
        try await staying.waitForKeys(2)
        try await converse(pair)
        let took = try time(of: "keys are agreed upon", in: again.output) - time(of: "gateway runs", in: again.output)
        // A second for what the log leaves out.
        #expect((0...4).contains(took), "\(took) s: \(again.output)")
        for site in [pair.a, pair.b] { try await checkBalance(site.side) { try await site.report().statistics } }
        try await stop(again)
        try await stop(staying)
        let sealed = numbers(try await wire.finish())
        #expect(Set(sealed).count == sealed.count && sealed.count > 100)
      }
    }

    /// A gateway gets another address. It tells its peer, which asks there, and traffic goes on there.
    @Test(.timeLimit(.minutes(1)), arguments: Side.allCases) func aMoveIsTold(side: Side) async throws {
      try await withPair { pair in
        let wire = try await blocking { try Capture(pair[side.other].namespace, "wire") }
        let (a, b) = try await GatewaySite.startPair(pair.a, pair.b)
        try await converse(pair)
        try await blocking {
          try pair[side].namespace.ip(["addr del \(side.outer4)/24 dev wire", "addr add 192.0.2.9/24 dev wire"])
        }
        let isFound = try await eventually(within: 30) {
          try await pair[side.other].report().statistics.peers.first?.path == Endpoint("192.0.2.9", defaultPort: 4500)
        }
        #expect(isFound, "\(a.output)\(b.output)")
        try await converse(pair)
        try await stop(a)
        try await stop(b)
        let frames = handshakes(try await wire.finish())
        #expect(try await judged(frames).contains(16))
        // Behind the headers and ESP_INFO.
        let parameters = frames.filter { $0[48] == 16 && $0.count > 104 }.map { Array($0[86...]) }
        #expect(parameters.contains { $0[1] == 65 && $0[17] == 193 }, "nobody is told")
        #expect(parameters.contains { $0[0..<2] == [1, 193] && $0[8..<10] == [3, 193] }, "nobody has answered")
      }
    }

    /// Both are killed and start anew.
    @Test(.timeLimit(.minutes(1))) func bothStartAnew() async throws {
      try await withPair { pair in
        for _ in 0..<3 {
          let (a, b) = try await GatewaySite.startPair(pair.a, pair.b)
          try await converse(pair)
          try await stop(a, SIGKILL)
          try await stop(b, SIGKILL)
        }
      }
    }

    // MARK: Two with one identity

    /// ```
    ///   a: 192.0.2.1 ── port-a ┐
    ///                          switch ── b: 192.0.2.2
    ///   clone: 192.0.2.3 ──────┘
    /// ```
    private static let cloned = Topology(
      nodes: ["a", "b", "clone", "switch"],
      wires: [
        .init(.init("a", "wire", ["192.0.2.1/24"]), .init("switch", "port-a", [])),
        .init(.init("b", "wire", ["192.0.2.2/24"]), .init("switch", "port-b", [])),
        .init(.init("clone", "wire", ["192.0.2.3/24"]), .init("switch", "port-c", [])),
      ])

    /// A copy of a machine runs beside it. The two drive each other out, and no nonce comes twice.
    @Test(.timeLimit(.minutes(1))) func aClonedMachineRepeatsNoNumber() async throws {
      let network = try await blocking {
        let network = try Network(Self.cloned)
        try network["switch"].ip(
          ["link add bridge type bridge", "link set dev bridge up"]
            + ["port-a", "port-b", "port-c"].map { "link set dev \($0) master bridge" })
        return network
      }
      defer { network.remove() }
      let identities = try await GatewaySite.makeIdentities()
      let a = try GatewaySite(.a, in: network["a"], keys: .identities(identities))
      let b = try GatewaySite(.b, in: network["b"], keys: .identities(identities))
      let clone = try GatewaySite(.a, in: network["clone"], keys: .identities(identities))
      let wire = try await blocking { try Capture(network["b"], "wire") }
      let (first, partner) = try await GatewaySite.startPair(a, b)
      try await Pings(from: network["a"], to: Side.b.inner4).expectAnswers([56, 1000])
      let second = try await clone.start()
      try await second.waitForKeys()
      try await partner.waitForKeys(2)
      // The first notices that nobody answers it any more, and is back; then the second.
      for namespace in ["a", "clone", "a", "clone"] {
        var pings = Pings(from: network[namespace], to: Side.b.inner4)
        pings.patience = 0.2
        let isBack = try await eventually(within: 30) { [pings] in try await pings.run([56]).isEmpty }
        #expect(isBack, "\(namespace)")
      }
      #expect(partner.count("keys are agreed upon") >= 4)
      for process in [first, second, partner] { process.terminate() }
      let sealed = numbers(try await wire.finish())
      #expect(Set(sealed).count == sealed.count && sealed.count > 20)
      #expect(Set(sealed.map { Array($0.prefix(4)) }).count >= 8)
    }

    // MARK: Ends

    /// Who is taken out of a file is told so, has no keys any more, and is welcome again when it is back.
    @Test(.timeLimit(.minutes(1))) func aPeerThatIsRemovedIsTold() async throws {
      try await withPair { pair in
        let (a, b) = try await GatewaySite.startPair(pair.a, pair.b)
        defer { for process in [a, b] { process.terminate() } }
        try await converse(pair)
        let text = try String(contentsOfFile: pair.a.file, encoding: .utf8)
        let end = try #require(text.firstRange(of: "peers:")).lowerBound
        try pair.a.directory.write("a.yaml", String(text[..<end]))
        for _ in 0..<2 {
          let reloaded = try await Program.run(["reload", "--control", pair.a.control])
          #expect(reloaded.status == .exited(0), "\(reloaded.lines)")
        }
        #expect(await eventually { b.output.contains("the peer has closed") })
        try await waitForState(.connecting, at: pair.b)
        #expect(try await pair.b.report().statistics.peers.first?.associations.isEmpty == true)
        #expect(try await pair.a.report().peers.isEmpty)
        let silence: [String] = try await Pings(from: pair.b.namespace, to: Side.a.inner4).run([56])
        #expect(silence.count == 1)
        try pair.a.directory.write("a.yaml", text)
        let reloaded = try await Program.run(["reload", "--control", pair.a.control])
        #expect(reloaded.status == .exited(0), "\(reloaded.lines)")
        try await a.waitForKeys(2)
        try await b.waitForKeys(2)
        try await converse(pair)
      }
    }

    /// A reload that leaves a peer who it is leaves its keys; what is said of them anew holds for the next ones.
    @Test(.timeLimit(.minutes(1))) func aReloadKeepsKeys() async throws {
      try await withPair { pair in
        let wire = try await blocking { try Capture(pair.a.namespace, "wire") }
        let (a, b) = try await GatewaySite.startPair(pair.a, pair.b)
        defer { for process in [a, b] { process.terminate() } }
        async let flooded = VerifiedFlood(
          from: pair.a.namespace, to: pair.b.namespace, address: Side.b.inner4, sizes: [64, 1000], count: 6000
        ).run()
        for round in 1...4 {
          try pair.a.write(peerSettings: "    keep-alive: \(round)\n    rekey: {time: \(round)h}")
          let reloaded = try await Program.run(["reload", "--control", pair.a.control])
          #expect(reloaded.status == .exited(0), "\(reloaded.lines)")
        }
        let result = try await flooded
        #expect(result.isIntact, "\(result)")
        #expect(a.count("keys are agreed upon") == 1 && b.count("keys are agreed upon") == 1)
        for site in [pair.a, pair.b] { #expect(try await site.report().statistics.allDropped == 0) }
        // Four packets, and their repetitions where the machine is slow; nothing since.
        #expect(try await judged(handshakes(try await wire.finish())).isSubset(of: [1, 2, 3, 4, 16]))
      }
    }

    // MARK: Somebody else

    /// At the peer's place there is somebody with another key, who lists this gateway: nothing is agreed upon, and both
    /// logs say what to look at.
    @Test(.timeLimit(.minutes(1))) func aPeerWithAnotherKeyIsNotTaken() async throws {
      try await withPair { pair in
        let other = try #require(try await GatewaySite.makeIdentities()[.b])
        try pair.b.directory.write("gateway.key", other.pem)
        let (a, b) = (try await pair.a.start(), try await pair.b.start())
        defer { for process in [a, b] { process.terminate() } }
        // The one is asked by somebody else from where the peer should be; the other asks somebody who is not there.
        for (process, site, line, problem) in [
          (a, pair.a, "no keys: somebody with another key is there", "another key"),
          (b, pair.b, "no keys: nobody answers who has the peer's key", "no answer"),
        ] {
          let isTold = await eventually(within: 40) { process.output.contains(line) }
          #expect(isTold, "\(process.output)")
          let found = try await keys(site)
          #expect(found?.state == .failed && found?.problem == problem)
          let shown = try await Program.run(["show", "--control", site.control]).lines
          #expect(shown.contains { $0.contains("failed: \(problem)") }, "\(shown)")
          #expect(process.count("keys are agreed upon") == 0)
        }
        #expect(a.output.contains("says-it-is=\(other.gid)") && a.output.contains("address=192.0.2.2:4500"))
        // Each of the one's questions is for somebody else, which is told of once.
        let said = "the peer, or somebody in its name, asks for another gateway here"
        let isNamed = await eventually { b.output.contains(said) }
        #expect(isNamed && b.count(said) == 1, "\(b.output)")
        #expect(b.output.contains("asks-for=\(try #require(pair.identities[.b]).gid)"))
        let silence: [String] = try await Pings(from: pair.a.namespace, to: Side.b.inner4).run([56])
        #expect(silence.count == 1)
        // With the right key it is the peer.
        try pair.b.directory.write("gateway.key", try #require(pair.identities[.b]).pem)
        let reloaded = try await Program.run(["reload", "--control", pair.b.control])
        #expect(reloaded.status == .exited(0), "\(reloaded.lines)")
        try await a.waitForKeys()
        try await b.waitForKeys()
        try await converse(pair)
      }
    }

    /// Where both have no cipher in common, both are told.
    @Test(.timeLimit(.minutes(1))) func whoHasNothingInCommonIsTold() async throws {
      try await withPair { pair in
        try pair.a.write(peerSettings: "    cipher: aes-256-gcm")
        try pair.b.write(peerSettings: "    cipher: chacha20-poly1305")
        let (a, b) = (try await pair.a.start(), try await pair.b.start())
        defer { for process in [a, b] { process.terminate() } }
        let isTold = await eventually(within: 30) {
          [a, b].contains { $0.output.contains("no keys: no suite or group in common: compare 'cipher'") }
        }
        #expect(isTold, "\(a.output) \(b.output)")
        try pair.b.write(peerSettings: "    cipher: aes-256-gcm")
        let reloaded = try await Program.run(["reload", "--control", pair.b.control])
        #expect(reloaded.status == .exited(0), "\(reloaded.lines)")
        try await a.waitForKeys()
        try await b.waitForKeys()
        try await converse(pair)
        #expect(try await keys(pair.a)?.suite == "aes-256-gcm")
      }
    }
  }
}
