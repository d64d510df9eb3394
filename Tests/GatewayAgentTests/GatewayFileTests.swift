import Dataplane
import Foundation
import PacketIO
import Settings
import Testing

@testable import Gateway

/// What a good file says, and that nothing more is needed than a name.
@Suite struct GatewayFileTests {
  @Test func readsEverySetting() throws {
    let workshop = try Workshop()
    try workshop.usualKeys()
    let file = try workshop.parse(Workshop.good)
    #expect(file.name == "alpha")
    #expect(file.listen == GatewayPlan.Listen(port: 4501, address: IPAddress("2001:db8::1")))
    #expect(file.control == workshop.file("alpha.sock"))
    #expect(file.state == "/elsewhere/state" && !file.hasSiblings)
    #expect(file.engine == .openSSL)
    #expect(file.interface.source == .name("culvert7"))
    #expect(file.interface.mtu == 1380)
    #expect(file.interface.addresses.map { "\($0.address)/\($0.prefixLength)" } == ["10.1.0.1/24", "fd00:1::1/64"])
    #expect(file.peers.map(\.configuration.name) == ["beta", "gamma", "delta"])

    let beta = try #require(file.peers.first)
    #expect(beta.configuration.path == Path(endpoint: Endpoint(address: IPAddress("2001:db8::2")!, port: 4502)))
    #expect(beta.configuration.prefixes.map(\.description) == ["10.2.0.0/24", "fd00:2::/64"])
    #expect(beta.configuration.keepAliveInterval == .milliseconds(500))
    #expect(beta.sendKeyName == workshop.file("ab.key") && beta.receiveKeyName == workshop.file("ba.key"))
    let send = try #require(beta.configuration.outbound)
    #expect(send.spi == 0x1001 && send.cipher == .aes128GCM && !send.extendedSequenceNumbers && send.implicitIV)
    #expect(send.key == KeyMaterial((0..<20).map { UInt8(31 + $0) }))
    let receive = try #require(beta.configuration.inbound.first)
    #expect(receive.spi == 4098 && receive.replayWindow == 64 && !receive.extendedSequenceNumbers && receive.implicitIV)

    let gamma = file.peers[1].configuration
    #expect(gamma.path == nil && gamma.keepAliveInterval == .seconds(20))
    #expect(gamma.outbound?.cipher == .chacha20Poly1305 && gamma.outbound?.extendedSequenceNumbers == true)
    #expect(gamma.inbound.first?.replayWindow == 2048)
  }

  /// A file with one peer and these settings of it.
  private func peer(_ settings: String, top: String = "") throws -> PeerConfiguration {
    let workshop = try Workshop()
    try workshop.usualKeys()
    let file = try workshop.parse(Workshop.onePeer(settings, top: "listen: 192.0.2.7:4500\n\(top)"))
    return try #require(file.peers.first).configuration
  }

  /// What is wrong with such a file; nil: nothing.
  private func firstProblem(_ settings: String, top: String = "") -> String? {
    do {
      _ = try peer(settings, top: top)
      return nil
    } catch {
      return (error as? FileProblems)?.problems.first?.problem ?? "\(error)"
    }
  }

  @Test func readsPaths() throws {
    let paths = try peer("paths: [udp: 192.0.2.2, tcp: 192.0.2.2:443]").paths
    #expect(paths.map(\.name) == ["udp", "tcp"] && paths.map(\.originates) == [true, true])
    #expect(paths.map(\.path.transport) == [0, 1] && paths.map(\.path.endpoint.port) == [4500, 443])
    let problems: [(String, String)] = [
      ("paths: 192.0.2.2", "peer beta: paths: '192.0.2.2' stands where a list should"),
      ("paths: [192.0.2.2]", "peer beta: paths: '192.0.2.2' is no path"),
      ("paths: [udb: 192.0.2.2]", "peer beta: paths: no path is called 'udb'"),
      ("paths: [udp: here]", "peer beta: paths: udp: 'here' is a host's name"),
      ("paths: [udp: 192.0.2.2, udp: 192.0.2.2]", "peer beta: paths: udp 192.0.2.2:4500 is listed twice"),
      ("paths: [udp: 224.0.0.1]", "peer beta: paths: 224.0.0.1 is no host's address"),
      ("paths: [\((1...9).map { "udp: 192.0.2.\($0)" }.joined(separator: ", "))]", "peer beta: paths: there are 9"),
      ("reach: no", "peer beta: reach: 'no' is unknown"),
    ]
    for (settings, problem) in problems {
      #expect(firstProblem(settings) == problem, "\(settings)")
    }
  }

  /// Who opens a path follows from who can be reached.
  @Test func readsWhoOpensAPath() throws {
    for (own, theirs, address, originates) in [
      ("auto", "auto", "192.0.2.2", true), ("firewalled", "auto", "192.0.2.2", true),
      ("firewalled", "open", "192.0.2.2", true), ("open", "firewalled", "192.0.2.2", false),
      ("auto", "firewalled", "192.0.2.2", false), ("open", "open", "192.0.2.2", true),
      ("open", "open", "192.0.2.9", false), ("open", "auto", "192.0.2.9", true),
    ] {
      for setting in ["address: \(address)", "paths: [tcp: \(address)]"] {
        let beta = try peer("\(setting)\n    reach: \(theirs)", top: "reach: \(own)")
        #expect(beta.paths.map(\.originates) == [originates], "\(own) \(theirs) \(setting)")
      }
    }
    let problem = firstProblem("address: 192.0.2.2\n    reach: firewalled", top: "reach: firewalled")
    #expect(problem?.hasSuffix("both are behind firewalls") == true)
  }

  @Test func takesDefaultsForAllButTheName() throws {
    let file = try GatewayFile.plan(text: "name: alpha", path: "alpha.yaml")
    #expect(file.listen == GatewayPlan.Listen(port: 4500, address: nil))
    #expect(file.interface == InterfaceConfiguration(source: .name("culvert0")))
    #expect(file.control == "/run/culvert/alpha.sock")
    #expect(file.state == "/var/lib/culvert/alpha" && file.hasSiblings)
    #expect(file.engine == nil && file.peers.isEmpty)
  }

  @Test(arguments: [
    ("4501", "4501"), ("192.0.2.1:4501", "192.0.2.1:4501"), ("192.0.2.1", "192.0.2.1:4500"),
    ("\"[2001:db8::1]:1\"", "[2001:db8::1]:1"), ("\"2001:db8::1\"", "[2001:db8::1]:4500"),
  ])
  func listensWhereItIsTold(_ text: String, _ shown: String) throws {
    let file = try GatewayFile.plan(text: "name: a\nlisten: \(text)", path: "a.yaml")
    #expect("\(file.listen)" == shown)
  }

  /// The traffic class tells the path something of what is inside, so it stays inside unless it is asked for.
  @Test func copiesTrafficClassesWhereItIsTold() throws {
    let workshop = try Workshop()
    try workshop.usualKeys()
    let told = Workshop.good.replacing("replay-window: 64", with: "replay-window: 64\n    copy-dscp: true")
    let file = try workshop.parse(told)
    #expect(file.peers.map { $0.configuration.outbound?.copiesDSCP } == [true, false, nil])
    #expect(try workshop.parse(Workshop.good).peers.allSatisfy { $0.configuration.outbound?.copiesDSCP != true })
  }

  /// Small packets go together only with a peer for which that is told.
  @Test func aggregatesWhereItIsTold() throws {
    let workshop = try Workshop()
    try workshop.usualKeys()
    let told = Workshop.good.replacing("replay-window: 64", with: "replay-window: 64\n    aggregation: true")
    #expect(try workshop.parse(told).peers.map(\.configuration.aggregates) == [true, false, false])
    #expect(try workshop.parse(Workshop.good).peers.allSatisfy { !$0.configuration.aggregates })
  }

  /// Routes as written, then the peers' prefixes, each once, without those the kernel makes from the addresses.
  @Test func routesEveryPrefixOfAPeer() throws {
    let workshop = try Workshop()
    try workshop.usualKeys()
    let text = Workshop.good.replacing("10.3.0.0/24", with: "10.1.0.0/24")
    let routes = try workshop.parse(text).configuration.interface.routes
    #expect(routes.map(\.description) == ["10.99.0.0/16", "10.2.0.0/24", "fd00:2::/64", "10.4.0.0/24"])
  }

  @Test func bothEndsOfManualKeysMatch() throws {
    let workshop = try Workshop()
    try workshop.usualKeys()
    func end(_ name: String, _ peer: String, send: String, receive: String) throws -> PeerConfiguration {
      let text = """
        name: \(name)
        peers:
          - name: \(peer)
            prefixes: [10.2.0.0/24]
            send: \(send)
            receive: \(receive)
        """
      return try #require(try workshop.parse(text).configuration.peers.first)
    }
    let there = "{ spi: 0x1001, key: ab.key }"
    let back = "{ spi: 0x1002, key: ba.key }"
    let a = try end("alpha", "beta", send: there, receive: back)
    let b = try end("beta", "alpha", send: back, receive: there)
    #expect(b.inbound[0].isSameAssociation(as: try #require(a.outbound)))
    #expect(a.inbound[0].isSameAssociation(as: try #require(b.outbound)))
  }

  @Test func namesTheFileThatCannotBeRead() throws {
    let workshop = try Workshop()
    let missing = workshop.file("none.yaml")
    let error = #expect(throws: FileProblems.self) { try GatewayFile(missing).plan() }
    #expect(
      error?.description
        == "\(missing): cannot be read: No such file or directory; give the path of a gateway's file")
    #expect(throws: FileProblems.self) { try GatewayFile(workshop.path).plan() }
  }

  /// What had another name in older versions is refused with the new one, once.
  @Test func namesOfOlderVersionsAreRefusedWithTheNewOnes() throws {
    let workshop = try Workshop()
    try workshop.usualKeys()
    let error = #expect(throws: FileProblems.self) {
      try workshop.parse(Workshop.onePeer("roads: [udp: 192.0.2.2]"))
    }
    #expect(error?.problems.map(\.line) == [8])
    #expect(error?.problems.first?.problem == "peer beta: 'roads' has another name now")
    #expect(error?.problems.first?.remedy == "write 'paths' instead")
  }

  /// A secret where the name of its file should stand is not shown to whoever reads the log.
  @Test(arguments: [
    String(repeating: "0f", count: 32), "0x" + String(repeating: "AB", count: 16),
    "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=",
  ])
  func aSecretInPlaceOfAFileIsNotEchoed(_ secret: String) throws {
    let workshop = try Workshop()
    let text = "name: alpha\npeers: [{name: beta, prefixes: [10.2.0.0/24], secret: \"\(secret)\"}]"
    let error = #expect(throws: FileProblems.self) { try workshop.parse(text) }
    #expect(error?.description.contains(secret.prefix(16)) == false)
    #expect(error?.problems.map(\.problem) == ["peer beta: secret: a secret stands where the name of its file should"])
  }

  /// A file may be what another program writes.
  @Test func readsAPipe() async throws {
    let workshop = try Workshop()
    let pipe = workshop.file("pipe")
    try #require(mkfifo(pipe, 0o600) == 0)
    async let plan = blocking { try GatewayFile(pipe).plan() }
    // More than a pipe holds, so that it takes several reads.
    let text = "name: alpha\n" + String(repeating: "# nothing\n", count: 20_000) + "workers: 2\n"
    try await blocking { try text.write(toFile: pipe, atomically: false, encoding: .utf8) }
    #expect(try await plan.workers == 2)
  }
}
