import Glibc
import Lab

/// wireguard-go, the userspace WireGuard, one process in each namespace, set up over its own control sockets.
struct WireGuardGo: VPNProgramSetup {
  let program: String
  let plan: SubjectPlan
  private static let port = 51820
  private static let controlDirectory = "/var/run/wireguard"

  /// One side's keys, as hexadecimal digits.
  private struct Pair {
    var secret: String
    var known: String
  }

  /// Fixed, so that nothing here needs to compute with them; what they protect never leaves two namespaces.
  private static let pairs = [
    Pair(
      secret: String(repeating: "01", count: 32),
      known: "a4e09292b651c278b9772c569f5fa9bb13d906b46ab68c9df9dc2b4409f8a209"),
    Pair(
      secret: String(repeating: "02", count: 32),
      known: "ce8d3ad1ccb633ec7b70c17814a5c76ecd029685050d344745ba05870e587d59"),
  ]

  var notes: [String?] { [VPNProgram.version(program, "--version")] }

  func start(_ peer: VPNProgramSubject, _ network: Network, in directory: TemporaryDirectory) throws {
    for side in 0...1 {
      // Control sockets have the interfaces' names and know no namespaces.
      let interface = "wg\(getpid())-\(plan.number)\(side)"
      let process = try peer.run(
        ["-f", interface], environment: [("LOG_LEVEL", "error"), ("WG_PROCESS_FOREGROUND", "1")], network, side)
      let control = "\(WireGuardGo.controlDirectory)/\(interface).sock"
      let port = WireGuardGo.port + plan.number
      let request = """
        set=1
        private_key=\(WireGuardGo.pairs[side].secret)
        listen_port=\(port)
        public_key=\(WireGuardGo.pairs[1 - side].known)
        endpoint=\(SubjectPlan.wire(1 - side)):\(port)
        allowed_ip=\(plan.prefix(1 - side))


        """
      var answer = ""
      try process.waitUntil("listening on \(control)") { _ in
        guard let text = try? UnixSocket.ask(control, request, until: "\n\n") else { return false }
        answer = text
        return true
      }
      guard answer.contains("errno=0\n") else {
        throw LabError(
          "\(peer.entry.name) refused its configuration: \(answer.split(separator: "\n").joined(separator: " "))")
      }
      try plan.configure(network, side, device: interface, of: process)
    }
  }
}
