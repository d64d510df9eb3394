import Dataplane
import Foundation
import Gateway
import Glibc
import PacketIO
import Testing

@testable import Lab

extension NetworkTests {
  /// A gateway, run from its file, that shares the base network and forwards a service.
  @Suite(.enabled(if: Program.exists, "needs the program culvert")) struct SharingTests {
    private static let table = "table inet culvert-gate"
    private static let outside = Place(SharedLAN.outside, 8080)

    /// The gateway's file and its program.
    private struct Site: Sendable {
      let lan: SharedLAN
      let directory: TemporaryDirectory
      var file: String { "\(directory.path)/gate.yaml" }
      var control: String { "\(directory.path)/gate.sock" }

      static let services = """
          services:
            - { name: web, protocol: tcp, port: 8080, to: 192.168.1.11:80 }
            - { name: ask, protocol: udp, port: 8080, to: 192.168.1.11:53 }
            - { name: web6, protocol: tcp, port: 8081, to: "[fd00:1::11]:80" }
        """

      func write(services: String = Site.services, sharing: Bool = true) throws {
        try directory.write(
          "gate.yaml",
          """
          name: gate
          interface: {name: culvert0, addresses: [10.77.0.1/32], mtu: 1400}
          control: gate.sock
          state: state
          peers:
            - name: far
              prefixes: [10.99.0.0/16]
              secret: far.secret
          \(sharing ? "sharing:\n  interface: base\n  lan: [192.168.0.0/16, \"fd00::/16\"]\n\(services)" : "")
          """)
      }

      func start() async throws -> ProcessHandle {
        let site = self
        return try await blocking {
          let process = try ProcessHandle(Program.path, ["gateway", "--config", site.file], in: site.lan.gateway)
          try process.waitUntil("it ran", timeout: 20) { $0.output.contains("gateway runs") }
          return process
        }
      }

      func end(_ process: ProcessHandle, _ signal: Int32) async throws -> ProcessHandle.Status {
        try await blocking {
          process.signal(signal)
          return try process.wait(timeout: 10)
        }
      }

      func tables() async throws -> [String] { try await lan.tables() }

      /// The names of our table's chains.
      func chains() async throws -> [String] {
        let gateway = lan.gateway
        return try await blocking {
          try Tool.run("nft", ["list", "table", "inet", "culvert-gate"], in: gateway).split(separator: "\n")
            .compactMap { line in
              let words = line.split(whereSeparator: \.isWhitespace)
              return words.first == "chain" ? String(words[1]) : nil
            }
        }
      }

      func report() async throws -> SharingReport? {
        let outcome = try await Program.run(["show", "--control", control, "--json"])
        #expect(outcome.status == .exited(0), "\(outcome.lines)")
        return try JSONDecoder().decode(GatewayReport.self, from: Data(outcome.lines.joined(separator: "\n").utf8))
          .sharing
      }
    }

    private func with(_ body: (Site) async throws -> Void) async throws {
      try await SharedLAN.with(nil) { lan in
        let site = Site(lan: lan, directory: try TemporaryDirectory())
        let made = try await Program.run(["keygen", "--secret", "\(site.directory.path)/far.secret"])
        #expect(made.status == .exited(0))
        try site.write()
        try await body(site)
      }
    }

    /// A connection to a place; who the listener saw.
    private func reach(_ place: Place, from: Namespace, _ listener: Talker) async throws -> Place? {
      let client = try await Talker(.tcp, in: from, patience: 0.5)
      guard try await client.connect(place) == 0, let (server, seen) = try await listener.accept() else { return nil }
      client.send("hello")
      guard try await server.receive()?.bytes == Array("hello".utf8) else { return nil }
      server.send("answer")
      return try await client.receive()?.bytes == Array("answer".utf8) ? seen : nil
    }

    private func listener(_ namespace: Namespace, _ place: Place) async throws -> Talker {
      let listener = try await Talker(.tcp, in: namespace, at: place, patience: 0.5)
      listener.listen()
      return listener
    }

    /// Out by TCP, UDP and ping; in to a service from outside and from the LAN itself; what `show` says; a reload; the
    /// end, after which nothing is left.
    @Test(.timeLimit(.minutes(1))) func aGatewayShares() async throws {
      try await with { site in
        let lan = site.lan
        let check = try await Program.run(["check", site.file])
        #expect(check.lines.contains { $0.contains("sharing base with 192.168.0.0/16 fd00::/16, address-and-port") })
        let process = try await site.start()
        #expect(process.output.contains("RFC 5508"), "the kernel's default timeout of pings is to be named")
        for host in [lan.one, lan.two] {
          try await Pings(from: host, to: SharedLAN.servers[0]).expectAnswers([0, 56, 3000])
          try await Tunnel.transfer(from: host, to: lan.server, SharedLAN.servers[0], bytes: 1_000_003)
        }
        try await Pings(from: lan.one, to: "2001:db8:1::2").expectAnswers([0, 56])

        let web = try await listener(lan.one, Place(SharedLAN.hosts[0], 80))
        #expect(try await reach(Self.outside, from: lan.server, web)?.address == SharedLAN.servers[0])
        #expect(try await reach(Self.outside, from: lan.two, web)?.address == SharedLAN.outside)
        #expect(try await reach(Self.outside, from: lan.one, web)?.address == SharedLAN.outside)
        let asked = try await Talker(.udp, in: lan.one, at: Place(SharedLAN.hosts[0], 53))
        let asking = try await Talker(.udp, in: lan.server, at: Place(SharedLAN.servers[1], 7000))
        let seen = try await lan.ask(asking, asked, at: Self.outside)
        #expect(seen == Place(SharedLAN.servers[1], 7000))

        // What is for a peer goes nowhere else, even where the tunnel cannot take it.
        let probe = try await Talker(.icmp, in: lan.server, patience: 0.3)
        let stray = try await Talker(.udp, in: lan.one)
        stray.send("for a peer", to: Place("10.99.0.1", 7))
        #expect(try await probe.receive() == nil)

        let report = try #require(try await site.report())
        #expect(report.problem == nil && report.interfaces == ["base"] && report.table == "culvert-gate")
        #expect(report.connections >= 5)
        #expect(report.services.map(\.connections) == [3, 1, 0], "\(report.services)")
        let shown = try await Program.run(["show", "--control", site.control])
        #expect(shown.lines.contains { $0.contains("sharing base with 192.168.0.0/16") })
        #expect(shown.lines.contains { $0.contains("web") && $0.contains("192.168.1.11:80") })

        try await reloads(site, web)
        #expect(try await site.end(process, SIGTERM) == .exited(0))
        #expect(try await site.tables() == [])
        #expect(!FileManager.default.fileExists(atPath: "\(site.control).nft"))
      }
    }

    /// A service less, and what is open stays open; a mistake changes nothing; no sharing at all, and again.
    private func reloads(_ site: Site, _ web: Talker) async throws {
      let lan = site.lan
      func reload() async throws -> Program.Outcome { try await Program.run(["reload", "--control", site.control]) }
      let server = try await Talker(.udp, in: lan.server, at: Place(SharedLAN.servers[0], 7000), patience: 0.5)
      let host = try await Talker(.udp, in: lan.one, at: Place(SharedLAN.hosts[0], 5000), patience: 0.5)
      let other = try await Talker(.udp, in: lan.two, at: Place(SharedLAN.hosts[1], 5000), patience: 0.5)
      let place = Place(SharedLAN.servers[0], 7000)
      #expect(try await lan.ask(host, server, at: place)?.port == 5000)
      let taken = try #require(try await lan.ask(other, server, at: place))

      try site.write(services: "")
      #expect(try await reload().status == .exited(0))
      #expect(try await reach(Self.outside, from: lan.server, web) == nil)
      // Whose port is whose is still known.
      #expect(try await lan.ask(other, server, at: place) == taken)

      try site.write(services: "  services: [{name: x}]")
      #expect(try await reload().status == .exited(1))
      #expect(try await lan.ask(host, server, at: place)?.port == 5000)
      try lan.gateway.set("net.ipv4.ip_forward", "0")
      try site.write()
      let refused = try await reload()
      #expect(refused.status == .exited(1))
      #expect(refused.lines.contains { $0.contains("sysctl -w net.ipv4.ip_forward=1") }, "\(refused.lines)")
      #expect(try await site.report()?.problem?.contains("does not forward IPv4") == true)
      try lan.gateway.set("net.ipv4.ip_forward", "1")

      try site.write(sharing: false)
      #expect(try await reload().status == .exited(0))
      #expect(try await site.chains() == ["tunnel"])
      #expect(try await site.report() == nil)
      try site.write()
      #expect(try await reload().status == .exited(0))
      #expect(try await reach(Self.outside, from: lan.server, web) != nil)
      // Somebody empties the packet filter: that is told, and a reload repairs it.
      try await lan.nft("flush ruleset")
      #expect(try await site.report()?.problem?.contains("culvert reload") == true)
      #expect(try await reload().status == .exited(0))
      #expect(try await reach(Self.outside, from: lan.server, web) != nil)
    }

    /// A crash leaves the table; the next start replaces it, by what only guards the tunnel where the file no longer asks
    /// for more.
    @Test(.timeLimit(.minutes(1))) func aCrashLeavesNothingForLong() async throws {
      try await with { site in
        let lan = site.lan
        let first = try await site.start()
        let server = try await listener(lan.server, Place(SharedLAN.servers[0], 80))
        let client = try await Talker(.tcp, in: lan.one)
        #expect(try await client.connect(Place(SharedLAN.servers[0], 80)) == 0)
        let (accepted, _) = try #require(try await server.accept())
        #expect(try await site.end(first, SIGKILL) == .killed(signal: SIGKILL))
        #expect(try await site.tables() == [Self.table])

        let second = try await site.start()
        #expect(try await site.tables() == [Self.table])
        // What went on before goes on.
        client.send("still here")
        #expect(try await accepted.receive()?.bytes == Array("still here".utf8))
        #expect(try await reach(Place(SharedLAN.servers[0], 80), from: lan.two, server)?.address == SharedLAN.outside)
        #expect(try await site.end(second, SIGKILL) == .killed(signal: SIGKILL))

        try site.write(sharing: false)
        let third = try await site.start()
        #expect(try await site.chains() == ["tunnel"])
        #expect(try await site.end(third, SIGTERM) == .exited(0))
        #expect(try await site.tables() == [])
      }
    }

    /// No start without what sharing needs: one line, and nothing is left.
    @Test(.timeLimit(.minutes(1))) func aMissingConditionIsNamed() async throws {
      try await with { site in
        try site.lan.gateway.set("net.ipv6.conf.all.forwarding", "0")
        let outcome = try await Program.run(["gateway", "--config", site.file], in: site.lan.gateway)
        #expect(outcome.status == .exited(1))
        #expect(
          outcome.lines.contains {
            $0.contains("does not forward IPv6; run 'sysctl -w net.ipv6.conf.all.forwarding=1'")
          })
        #expect(try await site.tables() == [])
        let links = try await blocking { try Tool.run("ip", ["-n", site.lan.gateway.name, "-o", "link"]) }
        #expect(!links.contains("culvert0"))
      }
    }
  }
}
