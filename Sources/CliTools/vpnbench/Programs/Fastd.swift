import Lab

/// fastd with the method that its manual recommends, one process in each namespace.
struct Fastd: VPNProgramSetup {
  let program: String
  let plan: SubjectPlan
  private static let method = "salsa2012+umac"

  var notes: [String?] { [VPNProgram.version(program, "--version"), Fastd.method] }

  func start(_ peer: VPNProgramSubject, _ network: Network, in directory: TemporaryDirectory) throws {
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
      let process = try peer.run(["--config", file], network, side)
      try plan.configure(network, side, device: device, of: process)
    }
  }

  private func word(_ text: String) throws -> String {
    guard let word = text.split(whereSeparator: \.isWhitespace).last else {
      throw LabError("fastd made no key")
    }
    return String(word)
  }
}
