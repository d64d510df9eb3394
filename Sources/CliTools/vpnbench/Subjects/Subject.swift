import Lab

/// Something that carries packets from node a to node b of `Topology.direct`.
protocol Subject: AnyObject {
  /// How it appears in results.
  var entry: Report.Subject { get }
  /// Node b's address, as reached through the subject from node a.
  var address: String { get }
  /// Whose processor time and memory count as the subject's.
  var processes: [ProcessHandle] { get }

  func setUp(_ network: Network) throws
  /// May be called at any time, also after a failed `setUp`.
  func tearDown()
}

extension Subject {
  /// Waits until packets get through.
  func awaitRoad(_ network: Network) throws {
    var echo = Echo(from: network["a"], to: network["b"], address: address)
    echo.count = 1
    echo.patience = 0.2
    let limit = monotonicSeconds() + 10
    while true {
      if let result = try? echo.run(), result.lost == 0 { return }
      for process in processes {
        if let status = process.status {
          throw LabError(
            "\(entry.name): \(process.program) ended (\(status)): \(process.lastLine ?? "it printed nothing")")
        }
      }
      if monotonicSeconds() > limit {
        let words = processes.lazy.compactMap(\.lastLine).first
        throw LabError("\(entry.name): no packet gets through after 10 s; last it said: \(words ?? "nothing")")
      }
      pause(seconds: 0.05)
    }
  }
}

/// The virtual Ethernet that all tunnels run over.
final class BareVeth: Subject {
  let entry = Report.Subject(name: "veth", isBound: true, note: "no tunnel")
  let address = "192.0.2.2"
  let processes: [ProcessHandle] = []
  func setUp(_ network: Network) throws {}
  func tearDown() {}
}

/// One process that copies packets between two TUN devices, each as it comes: what any tunnel has to do at least.
/// Only where packets are small can a tunnel be faster, when it merges several of them for the second device.
final class TunSplice: Subject {
  let entry = Report.Subject(name: "TUN-TUN", isBound: true, note: "copied, no tunnel")
  let address = "10.12.0.2"
  private(set) var processes: [ProcessHandle] = []
  private let mtu: Int

  init(mtu: Int) { self.mtu = mtu }

  func setUp(_ network: Network) throws {
    processes = [
      try ProcessHandle(
        Tool.thisProgram,
        [
          "splice", "--interface", "splice0", "--mtu", "\(mtu)", "--here", "10.12.0.1/24", "--there", "10.12.0.2/24",
          "--peer-namespace", network["b"].name,
        ], in: network["a"])
    ]
    try awaitRoad(network)
  }

  func tearDown() {
    for process in processes { process.terminate() }
    processes = []
  }
}
