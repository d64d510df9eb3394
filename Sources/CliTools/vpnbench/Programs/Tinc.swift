import Glibc
import Lab

/// tinc 1.0 with its own default ciphers, one process in each namespace.
struct Tinc: VPNProgramSetup {
  let program: String
  let plan: SubjectPlan

  var notes: [String?] { [VPNProgram.version(program, "--version"), "its default cipher"] }

  func start(_ peer: VPNProgramSubject, _ network: Network, in directory: TemporaryDirectory) throws {
    for side in 0...1 { try prepare(side, directory) }
    let hosts = try (0...1).map { try Tool.run("cat", ["\(directory.path)/\($0)/hosts/end\($0)"]) }
    for side in 0...1 {
      try directory.write("\(side)/hosts/end\(1 - side)", hosts[1 - side])
      let device = "tinc\(plan.number)"
      let process = try peer.run(
        ["-D", "-d0", "-c", "\(directory.path)/\(side)", "--pidfile=\(directory.path)/\(side).pid"], network, side)
      try plan.configure(network, side, device: device, of: process)
    }
    // Without traffic it does not look.
    try peer.awaitPath(network)
    try awaitDatagrams(peer)
  }

  /// Writes one end's configuration and makes its key.
  private func prepare(_ side: Int, _ directory: TemporaryDirectory) throws {
    let port = 655 + plan.number
    try Tool.run("mkdir", ["-p", "\(directory.path)/\(side)/hosts"])
    try directory.write(
      "\(side)/tinc.conf",
      """
      Name = end\(side)
      Interface = tinc\(plan.number)
      DeviceType = tun
      AddressFamily = ipv4
      BindToAddress = \(SubjectPlan.wire(side)) \(port)
      ConnectTo = end\(1 - side)

      """)
    try directory.write(
      "\(side)/hosts/end\(side)", "Address = \(SubjectPlan.wire(side)) \(port)\nSubnet = \(plan.prefix(side))\n")
    try Tool.run(program, ["-c", "\(directory.path)/\(side)", "-K", "2048"], input: "\n\n")
  }

  /// Until it has found out how large a datagram may be, tinc sends packets through its TCP connection. It tells what
  /// it has found when it is sent SIGUSR2.
  private func awaitDatagrams(_ peer: VPNProgramSubject) throws {
    for side in 0...1 {
      try peer.processes[side].waitUntil("sending datagrams of \(plan.mtu) bytes", timeout: 20) { process in
        process.signal(SIGUSR2)
        pause(seconds: 0.2)
        return Tinc.datagramSize(process.output, to: "end\(1 - side)") ?? 0 >= plan.mtu
      }
    }
  }

  /// The size that surely passes, of the last line "end1 at … pmtu 1459 (min 1459 max 1459)".
  static func datagramSize(_ output: String, to name: String) -> Int? {
    let lines = output.split(separator: "\n").filter { $0.contains("\(name) at ") && $0.contains("(min ") }
    guard let line = lines.last, let range = line.firstRange(of: "(min ") else { return nil }
    return Int(line[range.upperBound...].prefix(while: \.isNumber))
  }
}
