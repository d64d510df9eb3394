import Lab

/// Two Culvert gateways, as an operator runs them, and the proxy between them where there is one.
final class CulvertGateways: Subject {
  /// What carries the packets between them.
  enum Carrier: Equatable {
    case udp
    /// A stream (RFC 9329), which the first end opens.
    case tcp
    /// The same inside TLS.
    case tls
    /// Through `culvert-relay`, on a machine between them.
    case hairpin
    /// The same as an identity relay, by that path: "udp", "tcp", "tls".
    case relay(String)

    fileprivate var note: String? {
      switch self {
      case .udp: nil
      case .tcp: "over TCP"
      case .tls: "inside TLS"
      case .hairpin: "through a hairpin proxy"
      case .relay(let path): "through an identity relay over \(path.uppercased())"
      }
    }
  }

  let entry: Report.Entry
  let plan: SubjectPlan
  private(set) var processes: [ProcessHandle] = []
  let isProfiled = true
  private let program: String
  private let cipher: String
  private let engine: String?
  private let carrier: Carrier
  private let aggregates: Bool
  private let translates: Bool
  private var directory: TemporaryDirectory?

  /// - Parameters:
  ///   - program: path of `culvert`.
  ///   - cipher: as in its configuration.
  ///   - engine: "multi-buffer" or "openssl"; nil: its own choice.
  ///   - aggregates: whether small packets share ESP packets (RFC 9347).
  ///   - translates: whether each end's addresses are others for the other end.
  init(
    name: String, program: String, cipher: String, engine: String?, carrier: Carrier = .udp,
    aggregates: Bool = false,
    translates: Bool = false, _ plan: SubjectPlan
  ) {
    entry = Report.Entry(
      name: name, isBound: false,
      note: [
        cipher, engine, carrier.note, aggregates ? "RFC 9347" : nil,
        translates ? "both ends' addresses translated" : nil,
      ].compactMap { $0 }.joined(separator: ", "))
    self.carrier = carrier
    self.aggregates = aggregates
    self.translates = translates
    self.program = program
    self.cipher = cipher
    self.engine = engine
    self.plan = plan
  }

  var address: String { translates ? plan.knownDestination : plan.destination }
  var addressThere: String { plan.destination }

  func setUp(_ network: Network) throws {
    try plan.addHosts(network, isTranslated: translates)
    let directory = try TemporaryDirectory()
    self.directory = directory
    gids = try identities(in: directory)
    if carrier == .hairpin { try startProxy(network, directory) }
    if case .relay = carrier { try startRelay(network, directory) }
    for side in 0...1 {
      let file = try directory.write("\(names[side]).yaml", configuration(side, directory.path))
      processes.append(try ProcessHandle(program, ["gateway", "--config", file], in: gateway(network, side)))
    }
    try awaitPath(network)
  }

  /// GIDs of both sides; none where the program is from before there were any: then they share a secret.
  private func identities(in directory: TemporaryDirectory) throws -> [String] {
    do {
      return try names.map { try identity($0, in: directory) }
    } catch {
      try Tool.run(program, ["keygen", "--secret", "\(directory.path)/shared.secret"])
      return []
    }
  }

  private func identity(_ name: String, in directory: TemporaryDirectory) throws -> String {
    let text = try Tool.run(program, ["keygen", "--identity", "\(directory.path)/\(name).key"])
    guard let gid = text.split(whereSeparator: { " \n".contains($0) }).first(where: { $0.hasPrefix("2001:2") }) else {
      throw LabError("\(program) keygen printed no GID")
    }
    return String(gid)
  }

  /// So does the relay's.
  private func startRelay(_ network: Network, _ directory: TemporaryDirectory) throws {
    guard gids.count == 2 else { throw LabError("\(program) has no identities") }
    relayGID = try identity("relay", in: directory)
    func list(_ port: Int) -> String {
      Layout.proxyWires.map { "\"\($0.proxy):\(port)\"" }.joined(separator: ", ")
    }
    let file = try directory.write(
      "relay.yaml",
      """
      listen: [\(list(port))]
      listen-tls: [\(list(tlsPort))]
      identity: relay.key
      pairs: [{between: ["\(gids[0])", "\(gids[1])"]}]

      """)
    processes = [try ProcessHandle(program + "-relay", ["--config", file], in: network[Layout.proxy])]
  }

  /// The proxy's processor time counts as the tunnel's.
  private func startProxy(_ network: Network, _ directory: TemporaryDirectory) throws {
    let key = "\(directory.path)/control.key"
    let ends = Layout.proxyWires.map { "\($0.proxy):\(port)" }
    try Tool.run(program, ["ticket", "keygen", key])
    try Tool.run(
      program,
      [
        "ticket", "--key", key, "--between", names.joined(separator: ","), "--proxy", ends.joined(separator: ","),
        "--valid", "1d", "--out", directory.path,
      ])
    let listen = ends.map { "\"\($0)\"" }.joined(separator: ", ")
    let file = try directory.write("relay.yaml", "listen: [\(listen)]\npublic-key: control.key.pub\n")
    processes = [try ProcessHandle(program + "-relay", ["--config", file], in: network[Layout.proxy])]
  }

  private let names = ["a", "b"]
  /// Both ends'; none where the program is from before there were any.
  private(set) var gids: [String] = []
  /// On which both listen.
  var port: Int { 4500 + plan.number }
  private var relayGID = ""
  private var tlsPort: Int { port + 2000 }

  /// Where the second end takes streams.
  private var listening: String {
    switch carrier {
    case .udp, .hairpin, .relay: ""
    case .tcp: "listen-tcp: \(port)"
    case .tls: "listen-tls: \(port)"
    }
  }

  private func configuration(_ side: Int, _ directory: String) -> String {
    let engine = engine.map { "engine: \($0)\n" } ?? ""
    let device = "culvert\(plan.number)"
    let far = "\(SubjectPlan.wire(1 - side)):\(port)"
    let address =
      switch carrier {
      case .udp: "address: \(far)"
      case .tcp: side == 0 ? "address: tcp:\(far)" : ""
      case .tls: side == 0 ? "address: tls:\(far)" : ""
      case .hairpin: "paths: [udp-hairpin: a-b.\(names[side]).ticket]"
      case .relay: "paths: [relay]"
      }
    var relays = ""
    if case .relay(let path) = carrier {
      let port = path == "tls" ? tlsPort : port
      relays = "relays: [{gid: \"\(relayGID)\", \(path): \"\(Layout.proxyWires[side].proxy):\(port)\"}]"
    }
    let known = "{\"\(plan.prefix(side))\": \"\(plan.knownPrefix(side))\"}"
    let theirs = "{\"\(plan.prefix(1 - side))\": \"\(plan.knownPrefix(1 - side))\"}"
    return """
      name: \(names[side])
      listen: \(port)
      \(side == 1 ? listening : "")
      \(gids.isEmpty ? "" : "identity: \(names[side]).key\n")\(engine)interface: {name: \(device), addresses: ["\(plan.tunnelPrefix(side))"], mtu: \(plan.mtu)}
      control: \(directory)/\(names[side]).sock
      state: \(directory)/state-\(names[side])
      firewall: {rules: [{number: 10, name: everything, action: allow}]}
      \(relays)
      peers:
        - name: \(names[1 - side])
          \(address)
          prefixes: ["\(plan.prefix(1 - side))"]
          cipher: \(cipher)
          \(gids.isEmpty ? "secret: shared.secret" : "gid: \"\(gids[1 - side])\"")
          aggregation: \(aggregates)
          \(translates ? "translation: {mode: fixed, known-as: \(known), theirs: \(theirs)}" : "")

      """
  }

  func tearDown() {
    for process in processes { process.terminate() }
    processes = []
    directory?.remove()
    directory = nil
  }
}
