import Lab

/// fastd with the method that its manual recommends, one process in each namespace.
final class Fastd: Subject {
  let entry: Report.Subject
  let plan: SubjectPlan
  private(set) var processes: [ProcessHandle] = []
  private let program: String
  private var directory: TemporaryDirectory?
  private static let method = "salsa2012+umac"

  init(name: String, program: String, _ plan: SubjectPlan) {
    let version = PeerProgram.version(program, "--version")
    entry = Report.Subject(
      name: name, isBound: false, note: [version, Fastd.method].compactMap(\.self).joined(separator: ", "))
    self.program = program
    self.plan = plan
  }

  func setUp(_ network: Network) throws {
    try plan.addHosts(network)
    let directory = try TemporaryDirectory()
    self.directory = directory
    let secrets = try (0...1).map { _ in try word(Tool.run(program, ["--generate-key", "--machine-readable"])) }
    let keys = try secrets.map {
      try word(
        Tool.run(program, ["--show-key", "--machine-readable", "--config", "-"], input: "secret \"\($0)\";\n"))
    }
    for side in 0...1 {
      let port = 10000 + plan.number
      let device = "fastd\(plan.number)"
      let file = try directory.write(
        "\(side).conf",
        """
        log level error;
        interface "\(device)";
        mode tun;
        mtu \(plan.mtu);
        method "\(Fastd.method)";
        bind 0.0.0.0:\(port);
        secret "\(secrets[side])";
        peer "far" { key "\(keys[1 - side])"; remote \(SubjectPlan.wire(1 - side)):\(port); }

        """)
      let process = try ProcessHandle(program, ["--config", file], in: gateway(network, side))
      processes.append(process)
      try plan.configure(network, side, device: device, of: process)
    }
    try awaitRoad(network)
  }

  private func word(_ text: String) throws -> String {
    guard let word = text.split(whereSeparator: \.isWhitespace).last else {
      throw LabError("\(entry.name): it made no key")
    }
    return String(word)
  }

  func tearDown() {
    for process in processes { process.terminate() }
    processes = []
    directory?.remove()
    directory = nil
  }
}
