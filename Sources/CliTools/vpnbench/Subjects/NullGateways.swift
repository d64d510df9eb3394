import Lab

/// Two ends of the real dataplane with the cryptography left out: what no cipher can beat.
final class NullGateways: Subject {
  let entry = Report.Entry(name: "null cipher", isBound: true, note: "sealing left out")
  let plan: SubjectPlan
  private(set) var processes: [ProcessHandle] = []

  init(_ plan: SubjectPlan) { self.plan = plan }

  func setUp(_ network: Network) throws {
    try plan.addHosts(network)
    for side in 0...1 {
      let arguments = [
        "null-gateway", "--interface", "null0", "--address", plan.tunnelPrefix(side), "--peer", plan.prefix(1 - side),
        "--endpoint", "\(SubjectPlan.wire(1 - side)):4490", "--send-spi", "\(4096 + side)",
        "--receive-spi", "\(4097 - side)", "--mtu", "\(plan.mtu)",
      ]
      let process = try ProcessHandle(Tool.thisProgram, arguments, in: gateway(network, side))
      processes.append(process)
      try plan.addRoute(network, side, device: "null0", of: process)
    }
    try awaitPath(network)
  }

  func tearDown() {
    for process in processes { process.terminate() }
    processes = []
  }
}
