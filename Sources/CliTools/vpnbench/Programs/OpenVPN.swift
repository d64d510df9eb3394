import Lab

/// OpenVPN in user space, over UDP or TCP, one process in each namespace, with TLS between two certificates.
struct OpenVPN: VPNProgramSetup {
  let program: String
  let usesTCP: Bool
  let plan: SubjectPlan

  var notes: [String?] {
    // Its version ends with status 1 in some releases.
    let words = try? Tool.run("sh", ["-c", "\"$0\" --version | head -n 1", program]).split(separator: " ")
    return [words?.dropFirst().first.map(String.init), "aes-128-gcm"]
  }

  func start(_ peer: VPNProgramSubject, _ network: Network, in directory: TemporaryDirectory) throws {
    for side in 0...1 {
      try Tool.run(
        "openssl",
        [
          "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
          "-subj", "/CN=end\(side)", "-keyout", "\(directory.path)/\(side).key", "-out",
          "\(directory.path)/\(side).crt",
        ])
    }
    // The one that listens first.
    for side in [1, 0] {
      let device = "openvpn\(plan.number)"
      let process = try peer.run(
        path(side) + [
          "--dev", device, "--dev-type", "tun", "--ca", "\(directory.path)/\(1 - side).crt", "--cert",
          "\(directory.path)/\(side).crt", "--key", "\(directory.path)/\(side).key", "--data-ciphers", "AES-128-GCM",
          "--cipher", "AES-128-GCM", "--tun-mtu", "\(plan.mtu)", "--mssfix", "0", "--sndbuf", "0", "--rcvbuf", "0",
          "--txqueuelen", "1000", "--disable-dco", "--verb", "1",
        ], network, side)
      try plan.configure(network, side, device: device, of: process)
    }
  }

  private func path(_ side: Int) -> [String] {
    let port = "\(1194 + plan.number)"
    let far = SubjectPlan.wire(1 - side)
    let role = side == 1 ? ["--tls-server", "--dh", "none"] : ["--tls-client"]
    if !usesTCP { return ["--proto", "udp4", "--lport", port, "--remote", far, port] + role }
    return role + ["--socket-flags", "TCP_NODELAY"]
      + (side == 1
        ? ["--proto", "tcp4-server", "--lport", port]
        : ["--proto", "tcp4-client", "--remote", far, port, "--nobind", "--connect-retry", "1"])
  }
}
