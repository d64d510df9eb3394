import Foundation
import Glibc
import Lab
import Testing
import TransportSupport

extension NetworkTests {
  /// Gateways of networks that let nothing out but HTTPS meet at an identity relay.
  @Suite(
    .serialized,
    .enabled(
      if: HairpinSite.isPossible && Tool.exists("curl") && Tool.exists("openssl"),
      "needs nft, curl, openssl, culvert and culvert-relay"))
  struct RelayTLSTests {
    private static let https = "tcp dport 443"

    private func site(_ paths: [String]) async throws -> IdentityRelaySite {
      try await IdentityRelaySite(
        paths: [.a: paths, .b: ["tls"]], passes: [.a: RelayTLSTests.https, .b: RelayTLSTests.https])
    }

    private func run(_ words: [String], in namespace: Namespace) async throws -> String {
      try await blocking {
        let process = try ProcessHandle(words[0], Array(words.dropFirst()), in: namespace, input: "")
        _ = try process.wait(timeout: 30)
        return process.output
      }
    }

    private func subject(_ site: IdentityRelaySite, at address: String = "192.0.2.9", from node: String = "a")
      async throws -> String
    {
      let client = ["openssl", "s_client", "-connect", "\(address):443", "-tls1_3", "-alpn", "http/1.1"]
      let text = try await run(client, in: site.network[node])
      #expect(text.contains("New, TLSv1.3") && text.contains("ALPN protocol: http/1.1"), "\(text)")
      return text.split(separator: "\n").first { $0.hasPrefix("subject=") }.map(String.init) ?? ""
    }

    /// What stands on the wire: TLS 1.3, as tshark and grep have it, and nothing else.
    private func judge(_ packets: [[UInt8]]) async throws {
      #expect(!packets.contains { $0.firstRange(of: Array("IKETCP".utf8)) != nil })
      #expect(!packets.contains { $0.firstRange(of: Array("CHP".utf8) + [1]) != nil })
      guard Judges.hasTshark else { return }
      let directory = try TemporaryDirectory()
      let file = "\(directory.path)/tls.pcap"
      try PacketFile.write(packets, link: .ethernet, to: file)
      func tshark(_ filter: String) async throws -> Int {
        try await blocking {
          try Tool.run("tshark", ["-r", file, "-Y", filter, "-T", "fields", "-e", "frame.number"])
            .split(separator: "\n").count { $0.allSatisfy(\.isNumber) }
        }
      }
      #expect(try await tshark("tls.handshake.type == 1") >= 1)
      #expect(
        try await tshark("tls.handshake.type == 2 && tls.handshake.extensions.supported_version == 0x0304") >= 1)
      #expect(try await tshark("tls.record.opaque_type == 23") >= 10)
      #expect(try await tshark("udp || esp || isakmp || hip || udpencap || _ws.malformed") == 0)
      #expect(try await tshark("tcp.port == 443 && tcp.len > 0 && !tls && !tcp.segment_data") == 0)
    }

    @Test(.timeLimit(.minutes(1))) func onlyHTTPSGetsOut() async throws {
      let site = try await site(["udp", "tcp", "tls"])
      defer { site.network.remove() }
      let wire = try await blocking { try Capture(site.network["relay"], "wire-b") }
      let relay = try await site.start(site.relays[0])
      let gateways = [try await site.start(.a), try await site.start(.b)]
      defer { for process in gateways + [relay] { process.terminate() } }
      #expect(try await site.isReached(from: .a, within: 30), "\(gateways.map(\.output)) \(relay.output)")
      try await Pings(from: site.network["b"], to: Side.a.inner6).expectAnswers([0, 56, 1300, 8000])
      try await Tunnel.transfer(from: site.network["a"], to: site.network["b"], Side.b.inner4, bytes: 2 << 20)
      try await Tunnel.transfer(from: site.network["b"], to: site.network["a"], Side.a.inner6, bytes: 2 << 20)
      let shown = try await site.show(site.relays[0])
      #expect(shown.count { $0.hasPrefix("  gateway ") && $0.contains(" over tls") } == 2, "\(shown)")
      #expect(shown.contains { $0.hasPrefix("  pair ") && $0.hasSuffix("  bound") }, "\(shown)")
      // Others find a web server there.
      let curl = ["curl", "-sk", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code} %{http_version}"]
      #expect(try await run(curl + ["https://192.0.2.9/"], in: site.network["a"]) == "404 1.1")
      #expect(try await subject(site).contains("localhost"))
      try await judge(try await wire.finish().map(\.bytes))
      let old = try await run(
        ["openssl", "s_client", "-connect", "192.0.2.9:443", "-tls1_2"], in: site.network["a"])
      #expect(old.contains("alert protocol version"), "\(old)")
    }

    /// A relay whose port is a web site's: browsers and others find that, with its certificate, while two gateways meet
    /// there, and on the wire all of it is TLS 1.3.
    @Test(.timeLimit(.minutes(2)), .enabled(if: Judges.hasScapy, "needs python"))
    func othersFindAnOrdinarySite() async throws {
      let site = try await site(["tls"])
      defer { site.network.remove() }
      let certificate = try await blocking { try TestCertificate(name: "relay.example.org") }
      try site.site.directory.write("chain.pem", String(decoding: certificate.chain, as: UTF8.self))
      try site.site.directory.write("tls.key", String(decoding: certificate.key, as: UTF8.self))
      let pair = (site.identities[.a]?.gid ?? "", site.identities[.b]?.gid ?? "")
      try site.write(
        site.relays[0], pairs: [pair], more: "tls: {certificate: chain.pem, key: tls.key, web-server: web.sock}")
      let (folder, machine) = (site.folder, site.network["relay"])
      let server = try await blocking {
        let words = ["-B", Judges.script("unix_web_server.py"), "\(folder)/web.sock"]
        let process = try ProcessHandle(Judges.python, words, in: machine)
        try process.waitUntil("it listened", timeout: 10) { $0.output.contains("listens") }
        return process
      }
      let wire = try await blocking { try Capture(site.network["relay"], "wire-a") }
      let relay = try await site.start(site.relays[0])
      let gateways = [try await site.start(.a), try await site.start(.b)]
      defer { for process in gateways + [relay, server] { process.terminate() } }
      #expect(try await site.isReached(from: .a, within: 30), "\(gateways.map(\.output)) \(relay.output)")
      let transfer = RunningTransfer(
        from: site.network["a"], to: site.network["b"], address: Side.b.inner4, seconds: 600)
      let url = "https://relay.example.org/"
      let curl = ["curl", "-s", "--max-time", "20", "--resolve", "relay.example.org:443:192.0.2.9"]
      let page = try await run(curl + ["--cacert", "\(folder)/chain.pem", url], in: site.network["a"])
      #expect(page.contains("An ordinary site"), "\(page)")
      #expect(try await subject(site).contains("relay.example.org"))
      if let browser = Judges.browser {
        let seen = try await run(
          [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir=\(folder)/browser",
            "--ignore-certificate-errors", "--host-resolver-rules=MAP relay.example.org 192.0.2.9", "--dump-dom", url,
          ], in: site.network["a"])
        #expect(seen.contains("<title>A site</title>") && seen.contains("An ordinary site"), "\(seen)")
      }
      let carried = transfer.bytes
      #expect(await eventually { transfer.bytes > carried + 100_000 })
      #expect(try await transfer.stop().isIntact)
      #expect(try await site.counter("enrolled", site.relays[0]) == 2)
      try await judge(try await wire.finish().map(\.bytes))
    }

    /// A certificate that was renewed is shown from then on, by a relay and by a gateway, and streams that were there go on.
    @Test(.timeLimit(.minutes(1))) func aRenewedCertificateIsShown() async throws {
      let site = try await site(["tls"])
      defer { site.network.remove() }
      func write(_ name: String) async throws {
        let certificate = try await blocking { try TestCertificate(name: name) }
        try site.site.directory.write("chain.pem", String(decoding: certificate.chain, as: UTF8.self))
        try site.site.directory.write("tls.key", String(decoding: certificate.key, as: UTF8.self))
      }
      try await write("old.example.org")
      let pair = (site.identities[.a]?.gid ?? "", site.identities[.b]?.gid ?? "")
      try site.write(site.relays[0], pairs: [pair], more: "tls: {certificate: chain.pem, key: tls.key}")
      try site.site.directory.write(
        "b.yaml",
        "listen-tls: 443\ntls: {certificate: chain.pem, key: tls.key}\n" + site.gateway(.b, isV4: true))
      let relay = try await site.start(site.relays[0])
      let gateways = [try await site.start(.a), try await site.start(.b)]
      defer { for process in gateways + [relay] { process.terminate() } }
      #expect(try await site.isReached(from: .a, within: 30), "\(gateways.map(\.output)) \(relay.output)")
      #expect(try await subject(site).contains("old.example.org"))
      #expect(try await subject(site, at: "10.2.0.2", from: "b").contains("old.example.org"))
      let before = try await site.counter("enrolments", site.relays[0])
      let transfer = RunningTransfer(
        from: site.network["a"], to: site.network["b"], address: Side.b.inner4, seconds: 2)
      try await write("new.example.org")
      relay.signal(SIGHUP)
      #expect(await eventually(within: 30) { relay.output.contains("the certificate is in force") }, "\(relay.output)")
      #expect(try await subject(site).contains("new.example.org"))
      gateways[1].signal(SIGHUP)
      #expect(await eventually(within: 30) { gateways[1].output.contains("configuration reloaded") })
      #expect(try await subject(site, at: "10.2.0.2", from: "b").contains("new.example.org"))
      #expect(try await transfer.finish().isIntact)
      #expect(try await site.counter("enrolments", site.relays[0]) == before)
      // A key that is another's changes nothing.
      try site.site.directory.write("tls.key", "nothing")
      relay.signal(SIGHUP)
      #expect(await eventually(within: 30) { relay.output.contains("has no private key") }, "\(relay.output)")
      #expect(try await subject(site).contains("new.example.org"))
    }

    /// Where libssl may not speak TLS 1.3, that is one line with its remedy, of the gateway and of the relay.
    @Test(.timeLimit(.minutes(1))) func withoutTLS13() async throws {
      let site = try await site(["tls"])
      defer { site.network.remove() }
      try site.site.directory.write(
        "openssl.cnf",
        """
        openssl_conf = a
        [a]
        ssl_conf = b
        [b]
        system_default = c
        [c]
        Protocol = -TLSv1.3
        """)
      for (program, words) in [
        (Program.relay, ["--config", "\(site.folder)/relay-0.yaml"]),
        (Program.path, ["gateway", "--config", "\(site.folder)/a.yaml"]),
      ] {
        let (folder, namespace) = (site.folder, site.network["relay"])
        let (status, output) = try await blocking {
          let process = try ProcessHandle(
            "env", ["OPENSSL_CONF=\(folder)/openssl.cnf", program] + words, in: namespace)
          return (try process.wait(timeout: 20), process.output)
        }
        #expect(status == .exited(1), "\(status) \(output)")
        let lines = output.split(separator: "\n").filter { $0.contains("TLS 1.3") }
        #expect(lines.count == 1 && lines[0].contains("install OpenSSL 3"), "\(output)")
      }
    }
  }
}
