import Lab

/// nebula, with its own default cipher: one process in each namespace and a certificate authority of two certificates.
final class Nebula: Subject {
  let entry: Report.Subject
  let plan: SubjectPlan
  private(set) var processes: [ProcessHandle] = []
  private let program: String
  private var directory: TemporaryDirectory?

  init(name: String, program: String, _ plan: SubjectPlan) {
    let version = PeerProgram.version(program, "-version")
    entry = Report.Subject(
      name: name, isBound: false, note: [version, "AES-256-GCM"].compactMap(\.self).joined(separator: ", "))
    self.program = program
    self.plan = plan
  }

  func setUp(_ network: Network) throws {
    guard plan.family == .four else { throw LabError("\(entry.name): it carries IPv4 only") }
    try plan.addHosts(network)
    let directory = try TemporaryDirectory()
    self.directory = directory
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
      processes.append(try ProcessHandle(program, ["-config", file], in: gateway(network, side)))
    }
    try awaitRoad(network)
  }

  /// The program that makes certificates lies beside nebula, or is installed.
  private func certificateTool() throws -> String {
    let beside = "\(program.prefix(through: program.lastIndex(of: "/") ?? program.startIndex))nebula-cert"
    guard let tool = Tool.path(beside) ?? Tool.path("nebula-cert") else {
      throw LabError("\(entry.name): nebula-cert is missing: install the package \(PeerProgram.nebula.package)")
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

  func tearDown() {
    for process in processes { process.terminate() }
    processes = []
    directory?.remove()
    directory = nil
  }
}
