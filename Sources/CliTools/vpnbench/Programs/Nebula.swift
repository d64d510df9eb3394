import Lab

/// nebula, with its own default cipher: one process in each namespace and a certificate authority of two certificates.
struct Nebula: VPNProgramSetup {
  let program: String
  let plan: SubjectPlan

  var notes: [String?] { [VPNProgram.version(program, "-version"), "AES-256-GCM"] }

  func start(_ peer: VPNProgramSubject, _ network: Network, in directory: TemporaryDirectory) throws {
    guard plan.family == .four else { throw LabError("\(peer.entry.name): it carries IPv4 only") }
    let path = directory.path
    let tool = try certificateTool()
    try Tool.run(
      tool, ["ca", "-name", "vpnbench", "-duration", "48h", "-out-crt", "\(path)/ca.crt", "-out-key", "\(path)/ca.key"])
    for side in 0...1 {
      try Tool.run(
        tool,
        [
          "sign", "-name", "\(side)", "-ip", plan.tunnelPrefix(side), "-ca-crt", "\(path)/ca.crt", "-ca-key",
          "\(path)/ca.key", "-out-crt", "\(path)/\(side).crt", "-out-key", "\(path)/\(side).key",
        ] + (plan.layout == .routed ? ["-subnets", plan.lan(side)] : []))
    }
    for side in 0...1 {
      let file = try directory.write("\(side).yaml", configuration(side, path))
      _ = try peer.run(["-config", file], network, side)
    }
  }

  /// The program that makes certificates lies beside nebula, or is installed.
  private func certificateTool() throws -> String {
    let beside = "\(program.prefix(through: program.lastIndex(of: "/") ?? program.startIndex))nebula-cert"
    guard let tool = Tool.path(beside) ?? Tool.path("nebula-cert") else {
      throw LabError("nebula-cert is missing: install the package \(VPNProgram.nebula.package)")
    }
    return tool
  }

  private func configuration(_ side: Int, _ path: String) -> String {
    let far = plan.tunnelAddress(1 - side)
    let port = 4242 + plan.number
    let routes = plan.layout == .routed ? "[{route: \(plan.lan(1 - side)), via: \(far)}]" : "[]"
    return """
      pki: {ca: \(path)/ca.crt, cert: \(path)/\(side).crt, key: \(path)/\(side).key}
      static_host_map: {"\(far)": ["\(SubjectPlan.wire(1 - side)):\(port)"]}
      lighthouse: {am_lighthouse: false, hosts: []}
      listen: {host: 0.0.0.0, port: \(port)}
      tun: {dev: nebula\(plan.number), mtu: \(plan.mtu), unsafe_routes: \(routes)}
      logging: {level: error}
      firewall:
        outbound: [{port: any, proto: any, host: any}]
        inbound: [{port: any, proto: any, host: any}]

      """
  }
}
