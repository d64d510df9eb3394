import Lab

/// Something that carries packets between the two gateways of a `Layout`.
protocol Subject: AnyObject {
  /// How it appears in results.
  var entry: Report.Entry { get }
  var plan: SubjectPlan { get }
  /// Whom to send to, at the far end of the subject.
  var address: String { get }
  /// What that end calls its address itself.
  var addressThere: String { get }
  /// Whose processor time and memory count as the subject's.
  var processes: [ProcessHandle] { get }
  /// Whether to show in which functions it spends its time.
  var isProfiled: Bool { get }

  /// Starts it and returns when packets get through.
  func setUp(_ network: Network) throws
  /// May be called at any time, also after a failed `setUp`.
  func tearDown()
}

extension Subject {
  var address: String { plan.destination }
  var addressThere: String { address }
  var isProfiled: Bool { false }

  /// The namespace of one end.
  /// - Parameter side: 0 or 1.
  func gateway(_ network: Network, _ side: Int) -> Namespace { network[plan.layout.gateways[side]] }

  /// Waits until packets get through.
  func awaitPath(_ network: Network) throws {
    var echo = Echo(from: network[plan.layout.hosts[0]], to: network[plan.layout.hosts[1]], address: address)
    echo.count = 1
    echo.patience = 0.2
    let limit = monotonicSeconds() + 15
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
        throw LabError("\(entry.name): no packet gets through after 15 s; last it said: \(words ?? "nothing")")
      }
      pause(seconds: 0.05)
    }
  }
}

/// The virtual Ethernet that all tunnels run over, and the forwarding between their gateways and hosts.
final class BareVeth: Subject {
  let entry = Report.Entry(name: "veth", isBound: true, note: "no tunnel")
  let plan: SubjectPlan
  let processes: [ProcessHandle] = []

  init(_ plan: SubjectPlan) { self.plan = plan }

  var address: String {
    switch (plan.layout, plan.family) {
    case (.routed, _): plan.destination
    case (.local, .four): SubjectPlan.wire(1)
    case (.local, .six): "2001:db8::2"
    }
  }

  func setUp(_ network: Network) throws {
    guard plan.layout == .routed else { return }
    try plan.addHosts(network)
    for side in 0...1 {
      let next = plan.family == .four ? SubjectPlan.wire(1 - side) : "2001:db8::\(2 - side)"
      try gateway(network, side).ip([
        "route add \(plan.lan(1 - side)) via \(next)"
      ])
    }
    try awaitPath(network)
  }

  func tearDown() {}
}

/// One process that copies packets between two TUN devices, each as it comes: what any tunnel has to do at least.
/// Only where packets are small can a tunnel be faster, when it merges several of them for the second device.
final class TunSplice: Subject {
  let entry = Report.Entry(name: "TUN-TUN", isBound: true, note: "copied, no tunnel")
  let plan: SubjectPlan
  private(set) var processes: [ProcessHandle] = []

  init(_ plan: SubjectPlan) { self.plan = plan }

  func setUp(_ network: Network) throws {
    try plan.addHosts(network)
    let process = try ProcessHandle(
      Tool.thisProgram,
      [
        "splice", "--interface", "splice0", "--mtu", "\(plan.mtu)", "--here", plan.tunnelPrefix(0), "--there",
        plan.tunnelPrefix(1), "--peer-namespace", gateway(network, 1).name,
      ], in: gateway(network, 0))
    processes = [process]
    for side in 0...1 {
      try plan.addRoute(network, side, device: "splice0", of: process)
    }
    try awaitPath(network)
  }

  func tearDown() {
    for process in processes { process.terminate() }
    processes = []
  }
}
