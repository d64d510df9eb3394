import Dataplane
import Identity
import PacketIO
import Relay
import Settings
import Testing
import Transports

@testable import Gateway

/// A gateway's file with streams and hairpins: what it means, and what is said when it is wrong.
@Suite struct HairpinFileTests {
  private let workshop: Workshop
  /// By their order.
  private let tickets: [HairpinTicketFile]

  /// Three tickets of alpha's: `one.ticket`, `two.ticket` and `three.ticket`, which leads over IPv6.
  init() throws {
    workshop = try Workshop()
    try workshop.usualKeys()
    var generator = SeededGenerator(seed: 11)
    var files: [HairpinTicketFile] = []
    for name in ["one", "two", "three"] {
      let authority = try #require(HairpinPrivateKey.generate(using: &generator))
      let (own, peer) = (
        try #require(HairpinPrivateKey.generate(using: &generator)),
        try #require(HairpinPrivateKey.generate(using: &generator))
      )
      let ticket = HairpinTicket(
        number: .random(using: &generator),
        first: .init(name: "alpha", encapsulations: [.udp, .tcp], key: own.publicKey),
        second: .init(name: "beta", encapsulations: [.udp, .tcp], key: peer.publicKey), notBefore: 1, notAfter: 1 << 40)
      let proxy = try #require(Endpoint(name == "three" ? "[2001:db8::9]:4501" : "192.0.2.9:4501", defaultPort: 1))
      let file = try HairpinTicketFile(
        proxy: proxy, end: .first, key: own, ticket: SignedHairpinTicket(signing: ticket, with: authority))
      try workshop.write("\(name).ticket", file.text)
      files.append(file)
    }
    tickets = files
  }

  @Test func readsAllKindsOfPaths() throws {
    let file = try workshop.parse(
      Workshop.onePeer(
        """
        paths:
              - udp: 192.0.2.2
              - udp-hairpin: one.ticket
              - tcp: "[2001:db8::2]:443"
              - tcp-hairpin: three.ticket
              - udp-hairpin: \(workshop.file("two.ticket"))
        """, top: "listen-tcp: 192.0.2.1:443"))
    #expect(file.listenTCP == GatewayPlan.Listen(port: 443, address: IPAddress("192.0.2.1")))
    let paths = try #require(file.peers.first).configuration.paths
    #expect(paths.map(\.name) == ["udp", "udp-hairpin", "tcp", "tcp-hairpin", "udp-hairpin"])
    #expect(paths.map(\.path.transport) == [0, 3, 1, 3, 3] && paths.allSatisfy(\.originates))
    #expect(
      paths[1].path == tickets[0].path(.udp, transport: 3) && paths[3].path == tickets[2].path(.tcp, transport: 3))
    #expect(paths[4].path == tickets[1].path(.udp, transport: 3))
    #expect(paths[2].path.endpoint == Endpoint("[2001:db8::2]:443", defaultPort: 1))
    #expect(file.hairpins.map(\.path) == [.udp, .tcp, .udp])
    #expect(file.hairpins.map(\.file.text) == [tickets[0], tickets[2], tickets[1]].map(\.text))
    // Written to be the same, read to be the same.
    #expect(
      try workshop.parse(Workshop.onePeer("paths: [udp-hairpin: one.ticket]")).hairpins
        == [PlannedHairpin(file: tickets[0], path: .udp)])
  }

  @Test(
    arguments: [
      ("tcp:192.0.2.2", 1, "192.0.2.2:4500"), ("tcp:192.0.2.2:443", 1, "192.0.2.2:443"),
      ("\"tcp:[2001:db8::2]:443\"", 1, "[2001:db8::2]:443"), ("192.0.2.2:443", 0, "192.0.2.2:443"),
    ] as [(String, UInt8, String)])
  func readsAddressesOfStreams(address: String, transport: UInt8, endpoint: String) throws {
    let path = try workshop.parse(Workshop.onePeer("address: \(address)")).peers.first?.configuration.path
    #expect(path == Path(transport: transport, endpoint: try #require(Endpoint(endpoint, defaultPort: 1))))
  }

  @Test(arguments: [("443", "443"), ("192.0.2.1", "192.0.2.1:4500"), ("\"[::1]:443\"", "[::1]:443")])
  func listensForStreamsWhereItIsTold(_ text: String, _ shown: String) throws {
    let listen = try workshop.parse("name: alpha\nlisten-tcp: \(text)").listenTCP
    #expect(listen.map { "\($0)" } == shown)
    #expect(try workshop.parse("name: alpha").listenTCP == nil)
  }

  @Test func readsHairpinsInsideTLS() throws {
    let file = try workshop.parse(
      Workshop.onePeer(
        """
        paths:
              - tls-hairpin: one.ticket
              - {tls-hairpin: two.ticket, at: "198.51.100.9:8443", name: relay.example.org}
        """))
    let paths = try #require(file.peers.first).configuration.paths
    #expect(paths.map(\.name) == ["tls-hairpin", "tls-hairpin"] && paths.map(\.path.transport) == [3, 3])
    #expect(paths.map { "\($0.path.endpoint)" } == ["192.0.2.9:443", "198.51.100.9:8443"])
    #expect(paths[0].path.tag != tickets[0].path(.tcp, transport: 3).tag)
    #expect(file.hairpins.map(\.certificateName) == [nil, "relay.example.org"])
    #expect(paths.map(\.path) == file.hairpins.map { $0.entry.path(transport: 3) })
  }

  /// A ticket that names two gateways by GID, of which this one is one.
  @Test func readsTicketsThatNameGIDs() throws {
    let own = try IdentityFile.create(.p256, at: workshop.file("alpha.key"))
    let (peer, other) = (HostIdentity.generate(.ed25519).tag, HostIdentity.generate(.ed25519).tag)
    for (name, pair) in [("own.pair", (own.tag, peer)), ("foreign.pair", (peer, other))] {
      var generator = SeededGenerator(seed: 3)
      let authority = try #require(HairpinPrivateKey.generate(using: &generator))
      let ticket = IdentityTicket(
        number: .random(using: &generator), RelayPolicy.Pair(pair.0, pair.1), notBefore: 1, notAfter: 1 << 40)
      let signed = try #require(SignedIdentityTicket(signing: ticket, with: authority))
      try workshop.write(name, Base64.encode(signed.bytes) + "\n", mode: 0o644)
    }
    func parse(_ paths: String, top: String = "identity: alpha.key") throws -> GatewayPlan {
      try workshop.parse(Workshop.onePeer("paths: \(paths)", top: top))
    }
    let text = "[{udp-hairpin: own.pair, at: 192.0.2.9}]"
    let plan = try parse(text)
    let hairpin = try #require(plan.hairpins.first)
    #expect("\(hairpin.file.proxy)" == "192.0.2.9:4501" && hairpin.path == .udp && hairpin.tls == nil)
    #expect(hairpin.file.end == (own.tag < peer ? .first : .second))
    // Read once more it has another proof key, and is the same hairpin.
    #expect(try parse(text).hairpins == plan.hairpins)
    let tls = try #require(try parse("[{tls-hairpin: own.pair, at: 192.0.2.9}]").hairpins.first)
    #expect(tls.tls.map { "\($0)" } == "192.0.2.9:443")
    for (paths, top, problem) in [
      ("[udp-hairpin: own.pair]", "identity: alpha.key", "a ticket that names GIDs does not say where the proxy is"),
      ("[{udp-hairpin: own.pair, at: 192.0.2.9}]", "", "/own.pair names gateways by GID, and this one has no identity"),
      (
        "[{udp-hairpin: foreign.pair, at: 192.0.2.9}]", "identity: alpha.key", "/foreign.pair is for two other gateways"
      ),
      ("[{udp-hairpin: one.ticket, at: 192.0.2.9}]", "", "the ticket's file says where the proxy is"),
    ] {
      let error = #expect(throws: FileProblems.self) { try parse(paths, top: top) }
      let found = error?.problems.map { $0.problem.replacing(workshop.path, with: "") }
      #expect(found == ["peer beta: paths: udp-hairpin: \(problem)"])
    }
  }

  /// Neither side can be reached: only paths that meet at a proxy remain.
  @Test func behindTwoFirewalls() throws {
    let file = try workshop.parse(
      Workshop.onePeer(
        "reach: firewalled\n    paths: [udp-hairpin: one.ticket, tcp-hairpin: two.ticket]", top: "reach: firewalled")
    )
    #expect(file.peers.first?.configuration.paths.map(\.originates) == [true, true])
  }

  typealias Mistake = FileMistake

  static let mistakes: [Mistake] = [
    Mistake(
      peer: "paths: [udp-hairpin: none.ticket]",
      problem: "peer beta: paths: udp-hairpin: ticket /none.ticket cannot be read: No such file or directory",
      remedy: "have one issued with 'culvert ticket'"),
    Mistake(
      peer: "paths: [{tls-hairpin: one.ticket, at: here}]",
      problem: "peer beta: paths: tls-hairpin: 'here' is no address with a port", remedy: "remove 'at'"),
    Mistake(
      peer: "paths: [udp-hairpin: open.ticket]",
      problem: "peer beta: paths: udp-hairpin: ticket /open.ticket can be used by others",
      remedy: "chmod 600 /open.ticket"),
    Mistake(
      peer: "paths: [tcp-hairpin: ab.key]", problem: "peer beta: paths: tcp-hairpin: /ab.key is no ticket file",
      remedy: "have the ticket issued anew with 'culvert ticket'"),
    Mistake(
      peer: "paths: [tcp-hairpin: foreign.ticket]",
      problem: "peer beta: paths: tcp-hairpin: /foreign.ticket is no ticket file",
      remedy: "the key is not the ticket's; have the ticket issued anew with 'culvert ticket'"),
    Mistake(
      peer: "paths: [udp-hairpin: [one.ticket]]",
      problem: "peer beta: paths: udp-hairpin: a list is no file's name",
      remedy: "name the file that 'culvert ticket' wrote for this gateway"),
    Mistake(
      peer: "paths: [udp-hairpin: one.ticket, tcp-hairpin: one.ticket]",
      problem: "peer beta: paths: tcp-hairpin: the ticket is used twice", remedy: "get one for each path"),
    Mistake(
      peer: "paths: [udp-hairpim: one.ticket]", problem: "peer beta: paths: no path is called 'udp-hairpim'",
      remedy: "did you mean 'udp-hairpin'?"),
    Mistake(
      peer: "address: 192.0.2.2\n    paths: [udp-hairpin: one.ticket]",
      problem: "peer beta: address: stands beside 'paths' on line 9", remedy: "make it one of the paths"),
    Mistake(
      peer: "address: tcp:192.0.2.2:0x1",
      problem: "peer beta: address: 'tcp:192.0.2.2:0x1' is not an address with a port",
      remedy: "with \"tcp:\" or \"tls:\" in front for a stream"),
    Mistake(
      peer: "address: udp:192.0.2.2", problem: "peer beta: address: 'udp:192.0.2.2' is not an address with a port",
      remedy: "with \"tcp:\" or \"tls:\" in front for a stream"),
    Mistake(
      peer: "address: tcp:224.0.0.1", problem: "peer beta: address: 224.0.0.1 is no host's address",
      remedy: "write 192.0.2.2:4500"),
    Mistake(
      top: "listen-tcp: here", problem: "listen-tcp: 'here' is not a port or address", remedy: "write a port"),
    Mistake(top: "listen-tcp: 0", problem: "listen-tcp: '0' is not a port or address", remedy: "write a port"),
    Mistake(
      peer: "reach: firewalled\n    paths: [tcp: 192.0.2.2, tcp-hairpin: one.ticket]", top: "reach: firewalled",
      problem: "peer beta: paths: neither side can open a path to 192.0.2.2:4500: both are behind firewalls",
      remedy: "use a hairpin proxy"),
  ]

  @Test(arguments: mistakes) func eachMistakeIsOneErrorWithARemedy(mistake: Mistake) throws {
    try workshop.write("open.ticket", tickets[0].text, mode: 0o644)
    let key = tickets[1].text.split(separator: "\n").first { $0.hasPrefix("key:") } ?? ""
    try workshop.write(
      "foreign.ticket",
      tickets[0].text.split(separator: "\n").map { $0.hasPrefix("key:") ? key : $0 }.joined(separator: "\n"))
    mistake.expect(in: workshop)
  }
}
