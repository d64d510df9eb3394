import Lab

/// Two ends of the real dataplane with the cryptography left out: what no cipher can beat.
final class NullGateways: Subject {
  let entry = Report.Subject(name: "null cipher", isBound: true, note: "sealing left out")
  let address = "10.13.0.2"
  private(set) var processes: [ProcessHandle] = []
  private let mtu: Int

  init(mtu: Int) { self.mtu = mtu }

  func setUp(_ network: Network) throws {
    for (side, node) in ["a", "b"].enumerated() {
      let arguments = [
        "null-gateway", "--interface", "null0", "--address", "10.13.0.\(side + 1)/24", "--peer", "10.13.0.\(2 - side)",
        "--endpoint", "192.0.2.\(2 - side):4490", "--send-spi", "\(4096 + side)", "--receive-spi", "\(4097 - side)",
        "--mtu", "\(mtu)",
      ]
      processes.append(try ProcessHandle(Tool.thisProgram, arguments, in: network[node]))
    }
    try awaitRoad(network)
  }

  func tearDown() {
    for process in processes { process.terminate() }
    processes = []
  }
}
