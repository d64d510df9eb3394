import Lab

/// Two Culvert gateways, as an operator runs them.
final class CulvertGateways: Subject {
  let entry: Report.Subject
  let plan: SubjectPlan
  private(set) var processes: [ProcessHandle] = []
  let isProfiled = true
  private let program: String
  private let cipher: String
  private let engine: String?
  private let usesTCP: Bool
  private let aggregates: Bool
  private var directory: TemporaryDirectory?

  /// - Parameters:
  ///   - program: path of `culvert`.
  ///   - cipher: as in its configuration.
  ///   - engine: "multi-buffer" or "openssl"; nil: its own choice.
  ///   - usesTCP: whether the road is a stream (RFC 9329), which the first end opens.
  ///   - aggregates: whether small packets share ESP packets (RFC 9347).
  init(
    name: String, program: String, cipher: String, engine: String?, usesTCP: Bool = false, aggregates: Bool = false,
    _ plan: SubjectPlan
  ) {
    entry = Report.Subject(
      name: name, isBound: false,
      note: [cipher, engine, usesTCP ? "over TCP" : nil, aggregates ? "RFC 9347" : nil].compactMap { $0 }
        .joined(separator: ", "))
    self.usesTCP = usesTCP
    self.aggregates = aggregates
    self.program = program
    self.cipher = cipher
    self.engine = engine
    self.plan = plan
  }

  func setUp(_ network: Network) throws {
    try plan.addHosts(network)
    let directory = try TemporaryDirectory()
    self.directory = directory
    try Tool.run(program, ["keygen", "--secret", "\(directory.path)/shared.secret"])
    for side in 0...1 {
      let file = try directory.write("\(names[side]).yaml", configuration(side, directory.path))
      processes.append(try ProcessHandle(program, ["gateway", "--config", file], in: gateway(network, side)))
    }
    try awaitRoad(network)
  }

  private let names = ["a", "b"]

  private func configuration(_ side: Int, _ directory: String) -> String {
    let port = 4500 + plan.number
    let engine = engine.map { "engine: \($0)\n" } ?? ""
    let device = "culvert\(plan.number)"
    let far = "\(SubjectPlan.wire(1 - side)):\(port)"
    let address = usesTCP ? (side == 0 ? "address: tcp:\(far)" : "") : "address: \(far)"
    return """
      name: \(names[side])
      listen: \(port)
      \(usesTCP && side == 1 ? "listen-tcp: \(port)" : "")
      \(engine)interface: {name: \(device), addresses: ["\(plan.tunnelPrefix(side))"], mtu: \(plan.mtu)}
      control: \(directory)/\(names[side]).sock
      state: \(directory)/state-\(names[side])
      firewall: {rules: [{number: 10, name: everything, action: allow}]}
      peers:
        - name: \(names[1 - side])
          \(address)
          prefixes: ["\(plan.prefix(1 - side))"]
          cipher: \(cipher)
          secret: shared.secret
          aggregation: \(aggregates)

      """
  }

  func tearDown() {
    for process in processes { process.terminate() }
    processes = []
    directory?.remove()
    directory = nil
  }
}
