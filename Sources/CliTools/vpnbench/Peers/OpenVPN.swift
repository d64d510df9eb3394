import Lab

/// OpenVPN in its TCP mode, one process in each namespace, with TLS, AES-128-GCM and the kernel's own buffer sizes.
final class OpenVPN: Subject {
  let entry: Report.Subject
  let plan: SubjectPlan
  private(set) var processes: [ProcessHandle] = []
  private let program: String
  private var directory: TemporaryDirectory?
  private static let port = 1194

  init(name: String, program: String, _ plan: SubjectPlan) {
    // It ends with status 1 when asked for its version.
    let version = PeerProgram.version("sh", "-c", "\(program) --version || true")
    entry = Report.Subject(name: name, isBound: false, note: "aes-128-gcm, \(version ?? "")")
    self.program = program
    self.plan = plan
  }

  func setUp(_ network: Network) throws {
    try plan.addHosts(network)
    let directory = try TemporaryDirectory()
    self.directory = directory
    for node in ["a", "b"] {
      try Tool.run(
        "openssl",
        [
          "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
          "-subj", "/CN=\(node)", "-keyout", "\(directory.path)/\(node).key", "-out", "\(directory.path)/\(node).crt",
        ])
    }
    // The one that listens first.
    for (node, other, side) in [("b", "a", 1), ("a", "b", 0)] {
      let road =
        side == 1
        ? ["--proto", "tcp-server", "--lport", "\(OpenVPN.port)", "--tls-server", "--dh", "none"]
        : ["--proto", "tcp-client", "--remote", SubjectPlan.wire(1), "\(OpenVPN.port)", "--nobind", "--tls-client"]
      let arguments =
        road + [
          "--dev", "ovpn0", "--dev-type", "tun",
          "--ca", "\(directory.path)/\(other).crt", "--cert", "\(directory.path)/\(node).crt",
          "--key", "\(directory.path)/\(node).key", "--data-ciphers", "AES-128-GCM", "--cipher", "AES-128-GCM",
          "--tun-mtu", "\(plan.mtu)", "--sndbuf", "0", "--rcvbuf", "0", "--txqueuelen", "1000",
          "--socket-flags", "TCP_NODELAY", "--disable-dco", "--connect-retry", "1", "--verb", "1",
        ]
      let process = try ProcessHandle(program, arguments, in: gateway(network, side))
      processes.append(process)
      try plan.configure(network, side, device: "ovpn0", of: process)
    }
    try awaitRoad(network)
  }

  func tearDown() {
    for process in processes { process.terminate() }
    processes = []
    directory?.remove()
    directory = nil
  }
}
