import Lab

/// Two dataplanes in one process, over the loopback interface of their own namespace; their TUN devices are moved to
/// where the traffic is, so that the kernel cannot take a shorter way.
final class LoopbackGateways: Subject {
  let entry: Report.Entry
  let plan: SubjectPlan
  private(set) var processes: [ProcessHandle] = []
  let isProfiled: Bool
  private let cipher: String
  private let engine: String?
  private let isSealing: Bool
  /// Where the process runs.
  private let place: Namespace
  private let keys: Keys

  /// Where the two have their keys from.
  enum Keys {
    case fixed
    /// From a handshake, and new ones after so many seconds, again and again; nil: as usual.
    case agreed(interval: Double?)

    fileprivate var note: String? {
      switch self {
      case .fixed: nil
      case .agreed(nil): "agreed keys"
      case .agreed(let interval?): "a rekey every \(Int(interval * 1000)) ms"
      }
    }

    fileprivate var arguments: [String] {
      switch self {
      case .fixed: []
      case .agreed(let interval): ["--agree"] + (interval.map { ["--rekey-interval", "\($0)"] } ?? [])
      }
    }
  }

  /// - Parameters:
  ///   - cipher: its name; nil: sealing is left out.
  ///   - engine: "multi-buffer" or "openssl"; nil: the fastest.
  ///   - place: a namespace without traffic of its own.
  init(cipher: String?, engine: String?, keys: Keys = .fixed, place: Namespace, _ plan: SubjectPlan) {
    self.keys = keys
    isSealing = cipher != nil
    isProfiled = isSealing
    self.cipher = cipher ?? "aes-128-gcm"
    self.engine = engine
    self.place = place
    self.plan = plan
    let name = keys.note ?? [cipher, engine].compactMap(\.self).joined(separator: " ")
    entry = Report.Entry(
      name: isSealing ? name : "null cipher", isBound: !isSealing, note: isSealing ? nil : "sealing left out")
  }

  func setUp(_ network: Network) throws {
    let device = "loop\(plan.number)-"
    let process = try ProcessHandle(
      Tool.thisProgram,
      [
        "loopback-gateways", "--interface", device, "--prefix", plan.prefix(0), "--prefix", plan.prefix(1), "--port",
        "\(4600 + 2 * plan.number)", "--cipher", cipher, "--mtu", "\(plan.mtu)",
      ] + (engine.map { ["--engine", $0] } ?? []) + (isSealing ? [] : ["--sealing-left-out"]) + keys.arguments,
      in: place)
    processes = [process]
    try process.waitUntil("making its devices") { $0.output.contains("ready\n") }
    for side in 0...1 {
      try place.ip(["link set \(device)\(side) netns \(gateway(network, side).name)"])
      try plan.configure(network, side, device: "\(device)\(side)", of: process)
    }
    try awaitPath(network)
  }

  func tearDown() {
    for process in processes { process.terminate() }
    processes = []
  }
}
