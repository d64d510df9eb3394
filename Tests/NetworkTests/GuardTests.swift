import Dataplane
import Foundation
import Gateway
import Glibc
import Testing

@testable import Lab

extension NetworkTests {
  /// A gateway that forwards, and a neighbour in the base network that sends it plain packets:
  /// ```
  ///                      switch ── neighbour: 192.0.2.77
  ///                     │      │
  /// host ── lan ── a ───┘      └─── b
  ///     10.1.0.0/24  192.0.2.1  192.0.2.2, and behind it 10.2.0.1
  /// ```
  /// A third peer, "c" with 10.3.0.0/16, is reached through a, and never answers: its keys are manual.
  @Suite(.enabled(if: Program.exists, "needs the program culvert")) struct GuardTests {
    private static let topology = Topology(
      nodes: ["host", "a", "b", "neighbour", "switch"],
      wires: [
        .init(.init("host", "lan", ["10.1.0.2/24", "fd01::2/64"]), .init("a", "lan", ["10.1.0.1/24", "fd01::1/64"])),
        .init(.init("a", "base", ["192.0.2.1/24", "2001:db8::1/64"]), .init("switch", "port-a", [])),
        .init(.init("b", "base", ["192.0.2.2/24", "2001:db8::2/64"]), .init("switch", "port-b", [])),
        .init(.init("neighbour", "base", ["192.0.2.77/24", "2001:db8::77/64"]), .init("switch", "port-n", [])),
      ],
      routes: [
        .init("host", "default", via: "10.1.0.1"), .init("host", "::/0", via: "fd01::1"),
        .init("neighbour", "10.0.0.0/8", via: "192.0.2.1"), .init("neighbour", "fd00::/8", via: "2001:db8::1"),
      ], routers: ["a"])

    private struct Site: Sendable {
      let network: Network
      let directory: TemporaryDirectory
      var a: Namespace { network["a"] }

      func write(_ settings: String = "lan: [10.1.0.0/16, \"fd01::/64\"]") throws {
        func common(_ name: String) -> String {
          "name: \(name)\ncontrol: \(name).sock\nstate: \(name).state\nfirewall: {rules: [{number: 1, action: allow}]}"
        }
        try directory.write(
          "a.yaml",
          """
          \(common("a"))
          \(settings)
          interface: {name: culvert0, addresses: [10.77.0.1/32]}
          peers:
            - {name: b, address: 192.0.2.2, prefixes: [10.2.0.0/16, "fd02::/64"], secret: b.secret}
            - name: c
              address: 192.0.2.3
              prefixes: [10.3.0.0/16]
              send: {spi: 0x1001, key: out.key}
              receive: {spi: 0x1002, key: in.key}
          """)
        try directory.write(
          "b.yaml",
          """
          \(common("b"))
          lan: [10.2.0.0/16, "fd02::/64"]
          interface: {name: culvert0}
          peers:
            - {name: a, address: 192.0.2.1, prefixes: [10.1.0.0/16, "fd01::/64", 10.3.0.0/16], secret: b.secret}
          """)
      }

      func start(_ name: String, through wrapper: [String] = []) async throws -> ProcessHandle {
        let words = wrapper + [Program.path, "gateway", "--config", "\(directory.path)/\(name).yaml"]
        let namespace = network[name]
        return try await blocking {
          let process = try ProcessHandle(words[0], Array(words.dropFirst()), in: namespace)
          try process.waitUntil("it ran", timeout: 20) { $0.output.contains("gateway runs") }
          return process
        }
      }

      func end(_ process: ProcessHandle, _ signal: Int32 = SIGTERM) async throws {
        _ = try await blocking {
          process.signal(signal)
          return try process.wait(timeout: 10)
        }
      }

      /// Some pings, which need no answer.
      func ping(from node: String, _ source: String, to destination: String) async throws {
        let namespace = network[node]
        _ = try await blocking {
          try? Tool.run("ping", ["-c", "2", "-i", "0.2", "-W", "1", "-I", source, destination], in: namespace)
        }
      }

      func report() async throws -> GatewayReport {
        let outcome = try await Program.run(["show", "--control", "\(directory.path)/a.sock", "--json"])
        #expect(outcome.status == .exited(0), "\(outcome.lines)")
        return try JSONDecoder().decode(GatewayReport.self, from: Data(outcome.lines.joined(separator: "\n").utf8))
      }

      func sent(to peer: String) async throws -> UInt64? {
        try await report().statistics.peers.first { $0.name == peer }?.sent.packets
      }

      func foreign() async throws -> UInt64 { try await report().statistics.dropped(.foreignSource) }

      /// Packets that the kernel has kept out; nil: there is no table.
      func unrouted() async throws -> Int? {
        let a = a
        let text = try await blocking {
          try? Tool.run("nft", ["list", "counter", "inet", "culvert-a", "unrouted"], in: a)
        }
        let words = text?.split { " \n\t".contains($0) } ?? []
        return words.firstIndex(of: "packets").flatMap { Int(words[$0 + 1]) }
      }

      func tables() async throws -> String {
        let a = a
        return try await blocking { try Tool.run("nft", ["list", "tables"], in: a) }
      }
    }

    private func with(_ body: (Site) async throws -> Void) async throws {
      let network = try await blocking {
        let network = try Network(Self.topology)
        try network["switch"].ip(
          ["link add bridge type bridge", "link set dev bridge up"]
            + ["port-a", "port-b", "port-n"].map { "link set dev \($0) master bridge" })
        try network["b"].ip(["addr add 10.2.0.1/32 dev lo", "addr add fd02::1/128 dev lo"])
        try network["neighbour"].ip(
          ["10.1.0.55/32", "198.51.100.9/32", "fd01::55/128"].map { "addr add \($0) dev lo" })
        for place in ["all", "base", "lan"] { try network["a"].set("net.ipv4.conf.\(place).rp_filter", "0") }
        return network
      }
      defer { network.remove() }
      let site = Site(network: network, directory: try TemporaryDirectory())
      for (name, kind) in [
        ("b.secret", ["--secret"]), ("out.key", ["--cipher", "aes-128-gcm"]), ("in.key", ["--cipher", "aes-128-gcm"]),
      ] {
        let made = try await Program.run(["keygen"] + kind + ["\(site.directory.path)/\(name)"])
        #expect(made.status == .exited(0))
      }
      try site.write()
      try await body(site)
    }

    /// Nothing that the neighbour sends is sealed, in whosever name; what comes from the LAN and from another peer is.
    @Test(.timeLimit(.minutes(1))) func neighboursSendNothingIntoTheTunnel() async throws {
      try await with { site in
        let b = try await site.start("b")
        let a = try await site.start("a")
        for gateway in [a, b] { try await gateway.waitForKeys() }
        for (source, destination) in [("10.1.0.55", "10.2.0.1"), ("fd01::55", "fd02::1"), ("198.51.100.9", "10.2.0.1")]
        {
          let before = try await site.unrouted() ?? 0
          try await site.ping(from: "neighbour", source, to: destination)
          #expect(try await eventually { try await site.unrouted() == before + 2 }, "\(source)")
        }
        for (source, destination) in [("192.0.2.77", "10.2.0.1"), ("2001:db8::77", "fd02::1")] {
          let before = try await site.foreign()
          try await site.ping(from: "neighbour", source, to: destination)
          #expect(try await eventually { try await site.foreign() == before + 2 }, "\(source)")
        }
        #expect(try await site.sent(to: "b") == 0)

        for destination in ["10.2.0.1", "fd02::1"] {
          try await Pings(from: site.network["host"], to: destination).expectAnswers([0, 1300])
        }
        #expect(try await site.sent(to: "b") == 4)
        // In at the device, and out there again.
        try await site.ping(from: "b", "10.2.0.1", to: "10.3.0.1")
        #expect(try await eventually { try await site.sent(to: "c") == 2 })
        #expect(try await site.unrouted() == 6)
        try await site.end(a)
        try await site.end(b)
        #expect(try await site.tables() == "")
      }
    }

    /// The rules stay after a crash, and the next start puts its own in their place. Somebody else's table is left alone.
    @Test(.timeLimit(.minutes(1))) func rulesGoWithTheGateway() async throws {
      try await with { site in
        let a = site.a
        _ = try await blocking { try Tool.run("nft", ["add", "table", "inet", "mine"], in: a) }
        let first = try await site.start("a")
        #expect(!first.output.contains("neighbours"), "\(first.output)")
        try await site.end(first, SIGKILL)
        #expect(try await site.tables() == "table inet mine\ntable inet culvert-a\n")
        try await site.ping(from: "neighbour", "10.1.0.55", to: "10.2.0.1")
        let second = try await site.start("a")
        #expect(try await site.unrouted() == 0)
        // Somebody empties the packet filter, and a reload repairs it.
        _ = try await blocking { try Tool.run("nft", ["flush", "ruleset"], in: a) }
        let outcome = try await Program.run(["reload", "--control", "\(site.directory.path)/a.sock"])
        #expect(outcome.status == .exited(0), "\(outcome.lines)")
        #expect(try await site.unrouted() == 0)
        try await site.end(second)
        #expect(try await site.tables() == "")
      }
    }

    /// Without the program there is a gateway all the same, which says what it does not do.
    @Test(.timeLimit(.minutes(1))) func withoutTheProgramTheGatewaySaysSo() async throws {
      try await with { site in
        let hidden = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft"]
          .filter { FileManager.default.isExecutableFile(atPath: $0) }
        let hide = hidden.map { "mount --bind /dev/null \($0); " }.joined()
        let a = try await site.start("a", through: ["unshare", "--mount", "sh", "-c", hide + "exec \"$@\"", "sh"])
        #expect(
          a.output.contains("neighbours on the base network can send into the tunnel")
            && a.output.contains("install the package nftables, and run 'culvert reload'"), "\(a.output)")
        #expect(try await site.unrouted() == nil)
        try await site.end(a)
      }
    }
  }
}
