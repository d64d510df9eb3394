import Lab

/// OpenVPN in its TCP mode, one process in each namespace, with TLS, AES-128-GCM and the kernel's own buffer sizes.
final class OpenVPN: Subject {
  let entry: Report.Subject
  let address = "10.14.0.2"
  private(set) var processes: [ProcessHandle] = []
  private let program: String
  private let mtu: Int
  private var directory: TemporaryDirectory?
  private static let port = 1194

  init(program: String, mtu: Int) {
    let words = try? Tool.run("sh", ["-c", "\(program) --version | head -n 1"]).split(whereSeparator: \.isWhitespace)
    entry = Report.Subject(
      name: "openvpn-tcp", isBound: false, note: "aes-128-gcm, \(words?.dropFirst().first.map(String.init) ?? "")")
    self.program = program
    self.mtu = mtu
  }

  func setUp(_ network: Network) throws {
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
        : ["--proto", "tcp-client", "--remote", "192.0.2.2", "\(OpenVPN.port)", "--nobind", "--tls-client"]
      let arguments =
        road + [
          "--dev", "ovpn0", "--dev-type", "tun", "--ifconfig", "10.14.0.\(side + 1)", "10.14.0.\(2 - side)",
          "--ca", "\(directory.path)/\(other).crt", "--cert", "\(directory.path)/\(node).crt",
          "--key", "\(directory.path)/\(node).key", "--data-ciphers", "AES-128-GCM", "--cipher", "AES-128-GCM",
          "--tun-mtu", "\(mtu)", "--sndbuf", "0", "--rcvbuf", "0", "--txqueuelen", "1000",
          "--socket-flags", "TCP_NODELAY", "--disable-dco", "--connect-retry", "1", "--verb", "1",
        ]
      processes.append(try ProcessHandle(program, arguments, in: network[node]))
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
