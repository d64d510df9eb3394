import Lab

/// Two Culvert gateways, as an operator runs them.
final class CulvertGateways: Subject {
  let entry: Report.Subject
  let address: String
  private(set) var processes: [ProcessHandle] = []
  private let program: String
  private let cipher: String
  private let engine: String?
  private let number: Int
  private let mtu: Int
  private let usesTCP: Bool
  private var directory: TemporaryDirectory?

  /// - Parameters:
  ///   - program: path of `culvert`.
  ///   - cipher: as in its configuration.
  ///   - engine: "multi-buffer" or "openssl"; nil: its own choice.
  ///   - number: tells several of them apart, 0 to 15.
  ///   - usesTCP: whether the road is a stream (RFC 9329), which a opens.
  init(
    name: String, program: String, cipher: String, engine: String?, number: Int, mtu: Int, usesTCP: Bool = false
  ) {
    self.usesTCP = usesTCP
    entry = Report.Subject(
      name: name, isBound: false,
      note: [cipher, engine, usesTCP ? "over TCP" : nil].compactMap { $0 }.joined(separator: ", "))
    self.program = program
    self.cipher = cipher
    self.engine = engine
    self.number = number
    self.mtu = mtu
    address = "10.\(110 + number).0.2"
  }

  func setUp(_ network: Network) throws {
    let directory = try TemporaryDirectory()
    self.directory = directory
    try Tool.run(program, ["keygen", "--secret", "\(directory.path)/shared.secret"])
    for (side, node) in ["a", "b"].enumerated() {
      let file = try directory.write("\(node).yaml", configuration(side, node, directory.path))
      processes.append(try ProcessHandle(program, ["gateway", "--config", file], in: network[node]))
    }
    try awaitRoad(network)
  }

  private func configuration(_ side: Int, _ node: String, _ directory: String) -> String {
    let net = "10.\(110 + number).0"
    let port = 4500 + number
    let address = usesTCP ? (side == 0 ? "address: tcp:192.0.2.2:\(port)" : "") : "address: 192.0.2.\(2 - side):\(port)"
    return """
      name: \(node)
      listen: \(port)
      \(usesTCP && side == 1 ? "listen-tcp: \(port)" : "")
      \(engine.map { "engine: \($0)\n" } ?? "")interface: {name: culvert\(number), addresses: [\(net).\(side + 1)/24], mtu: \(mtu)}
      control: \(directory)/\(node).sock
      state: \(directory)/state-\(node)
      firewall: {rules: [{number: 10, name: everything, action: allow}]}
      peers:
        - name: \(node == "a" ? "b" : "a")
          \(address)
          prefixes: [\(net).\(2 - side)/32]
          cipher: \(cipher)
          secret: shared.secret

      """
  }

  func tearDown() {
    for process in processes { process.terminate() }
    processes = []
    directory?.remove()
    directory = nil
  }
}
