import Dataplane
import Foundation
import Testing

@testable import Lab

extension NetworkTests {
  /// `culvert explain` and `culvert capture` of gateways that run, judged by the traffic itself and by Wireshark's
  /// programs:
  /// ```
  /// a: 10.77.0.1, fd77::1 ── culvert0 ═══ 192.0.2.0/24 ═══ culvert0 ── b: 10.77.0.2, fd77::2
  /// ```
  @Suite(.enabled(if: Program.exists, "needs the program"))
  struct CaptureTests {
    private static func run(
      _ words: [String], sourceLocation: SourceLocation = #_sourceLocation
    ) async throws -> [String] {
      let outcome = try await Program.run(words)
      #expect(outcome.status == .exited(0), "\(outcome.lines)", sourceLocation: sourceLocation)
      return outcome.lines
    }

    @Test(.timeLimit(.minutes(2)), .enabled(if: Judges.hasTshark, "needs tshark"))
    func gatewaysTellWhatTheyDo() async throws {
      let network = try await blocking { try Network(.direct) }
      defer { network.remove() }
      let secret = try await GatewaySite.makeSecret()
      // tshark knows no implicit IV.
      let a = try GatewaySite(.a, in: network["a"], secret: secret, peerSettings: "    implicit-iv: false")
      let b = try GatewaySite(.b, in: network["b"], secret: secret)
      // The default policy.
      let text = try String(contentsOfFile: a.file, encoding: .utf8)
      try a.directory.write(
        "a.yaml", text.split(separator: "\n").filter { !$0.hasPrefix("firewall:") }.joined(separator: "\n"))
      let (left, right) = try await GatewaySite.startPair(a, b)
      defer {
        left.terminate()
        right.terminate()
      }
      try await Pings(from: network["a"], to: Side.b.inner4).expectAnswers([0, 56])
      try await Self.explain(a)
      try await Self.capture(a, b, network)
    }

    private static func explain(_ a: GatewaySite) async throws {
      let before = try await a.report().statistics
      let words = ["explain", "--control", a.control, "--from", Side.a.inner4, "--to", Side.b.inner4]
      let passes = try await run(words + ["--proto", "tcp", "--port", "443"])
      #expect(passes.last == "goes to b in one packet", "\(passes)")
      #expect(passes.contains { $0.hasPrefix("firewall") && $0.contains("default: outbound") })
      let inbound = ["explain", "--control", a.control, "--from", Side.b.inner4, "--to", Side.a.inner4]
      let refused = try await run(inbound + ["--proto", "tcp", "--port", "22"])
      #expect(refused.last == "dropped: firewall-default", "\(refused)")
      let large = try await run(words + ["--proto", "udp", "--port", "9", "--length", "1500", "--json"])
      #expect(
        large.contains { $0.contains("exceeds-path-mtu") || $0.contains("exceedsPathMTU") || $0.contains("toldMTU") })
      // The same without a gateway that runs.
      let offline = ["explain", "--config", a.file] + inbound.dropFirst(3)
      #expect(try await run(offline + ["--proto", "icmp"]).last == "arrives from b")
      let after = try await a.report().statistics
      #expect(after.outboundDrops == before.outboundDrops && after.inboundDrops == before.inboundDrops)
      #expect(after.firewall?.establishedFlows == before.firewall?.establishedFlows)
      #expect(after.peers.first?.sent == before.peers.first?.sent)
    }

    private static func capture(_ a: GatewaySite, _ b: GatewaySite, _ network: Network) async throws {
      let path = "\(a.directory.path)/a.pcapng"
      let keys = "\(a.directory.path)/esp_sa"
      let capture = try await blocking {
        try ProcessHandle(
          Program.path, ["capture", "--control", a.control, "--seconds", "3", "--keys", keys, path])
      }
      // It has begun when the file has its header.
      #expect(await eventually { ((try? Data(contentsOf: URL(filePath: path)))?.count ?? 0) > 100 })
      try await Pings(from: network["a"], to: Side.b.inner4).expectAnswers([100, 1000])
      try await Tunnel.transfer(from: network["a"], to: network["b"], Side.b.inner4, bytes: 200_000)
      let refused = try await network["b"].inside { () -> Bool in
        let socket = try Socket(.stream, isV6: false)
        try socket.setTimeout(0.3)
        return (try? socket.connect(Lab.Endpoint(Side.a.inner4, port: 22))) == nil
      }
      #expect(refused)
      #expect(try await blocking { try capture.wait(timeout: 20) } == .exited(0), "\(capture.output)")

      let facts = try await blocking { try Tool.run("capinfos", ["-M", path]) }
      #expect(facts.contains("pcapng") && facts.contains("Number of interfaces in file: 2"), "\(facts)")
      let inner = try await tshark(path, "frame.interface_name == \"inner\"", ["ip.proto", "frame.comment"])
      #expect(inner.count { $0.hasPrefix("1\t") } >= 4 && inner.count { $0.hasPrefix("6\t") } > 150)
      #expect(inner.contains { $0.contains("dropped: firewall-default") })
      // Nothing is wrong with a checksum or a length inside.
      let wrong = try await tshark(
        path,
        "frame.interface_name == \"inner\" and (ip.checksum.status == 0 or tcp.checksum.status == 0 or _ws.malformed)",
        ["frame.number"], more: ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"])
      #expect(wrong == [])

      // With the keys, and with nothing but them, the packets outside can be read.
      let lines = try String(contentsOfFile: keys, encoding: .utf8).split(separator: "\n").filter { !$0.hasPrefix("#") }
      let attributes = try FileManager.default.attributesOfItem(atPath: keys)
      #expect(attributes[.posixPermissions] as? Int == 0o600)
      // No key is in the capture, in whatever spelling.
      let captured = try Data(contentsOf: URL(filePath: path))
      let spelled = lines.flatMap { $0.matches(of: /0x([0-9a-fA-F]{32,})/).map { String($0.1) } }
      #expect(!spelled.isEmpty)
      for text in spelled {
        let bytes = stride(from: 0, to: 32, by: 2).compactMap { place in
          UInt8(text.dropFirst(place).prefix(2), radix: 16)
        }
        #expect(bytes.count == 16 && captured.firstRange(of: bytes) == nil)
        #expect(captured.firstRange(of: Data(text.lowercased().utf8)) == nil)
      }
      let options =
        ["-o", "esp.enable_encryption_decode:TRUE"]
        + lines.filter { $0.hasPrefix("\"IPv4") }.flatMap {
          ["-o", "uat:esp_sa:\($0)"]
        }
      let outer = "frame.interface_name == \"outer\" and tcp.len > 0"
      #expect(try await tshark(path, outer, ["tcp.len"]).isEmpty)
      #expect(try await tshark(path, outer, ["tcp.len"], more: options).count > 100)
    }

    private static func tshark(
      _ path: String, _ filter: String, _ fields: [String], more: [String] = []
    ) async throws -> [String] {
      let words = ["-r", path, "-Y", filter, "-T", "fields"] + fields.flatMap { ["-e", $0] } + more
      return try await blocking {
        try Tool.run("tshark", words).split(separator: "\n").map(String.init).filter { !$0.hasPrefix("Running as") }
      }
    }
  }
}
