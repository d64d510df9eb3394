import ArgumentParser
import Foundation
import Lab

/// `vpnbench tunnel`: real devices and real packets between network namespaces.
struct TunnelCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tunnel", abstract: "Tunnels between network namespaces, their bounds, and other VPN programs.",
    discussion: """
      All subjects are set up at the start over one and the same veth (culvert-hairpin and culvert-relay over two, with the \
      relay between) and then stand idle, but for the one whose turn it is. Packets are ours: blocking sockets and threads \
      in this process, TCP with cubic congestion control. Other VPN programs are measured where they are installed; \
      vpnbench configures them itself.
      """)

  @OptionGroup var output: OutputOptions

  @Option(help: "Seconds of each TCP measurement.")
  var seconds = 2.0

  @Option(help: "Pings of each measurement of idle round trips.")
  var pings = 500

  @Option(help: "local: between the tunnel's two ends. routed: between hosts behind them, in four namespaces.")
  var topology = Layout.local

  @Option(parsing: .upToNextOption, help: "What to measure.")
  var only: [Measure] = []

  @Option(parsing: .upToNextOption, help: "Which subjects to measure, by their names in the results; all by default.")
  var subjects: [String] = []

  @Option(help: "Ciphers of the Culvert gateways, each measured: aes-128-gcm, aes-256-gcm, chacha20-poly1305.")
  var cipher: [String] = ["aes-128-gcm"]

  @Option(help: "Engines of the Culvert gateways, each measured: multi-buffer, openssl; the fastest by default.")
  var engine: [String] = []

  @Option(help: "Path of culvert, with culvert-relay beside it; by default it is beside vpnbench.")
  var culvert: String?

  @Option(
    help: "Path of another build of culvert, with its culvert-relay beside it: measured beside this one, in turns.")
  var baseline: String?

  @Flag(inversion: .prefixedNo, help: "Measure other VPN programs too, those that are installed.")
  var peers = true

  @Option(
    name: .customLong("peer"),
    help: ArgumentHelp(
      "A program beside those installed, or in the place of one: NAME=PATH, where NAME begins with one of "
        + VPNProgram.allCases.map(\.rawValue).joined(separator: ", ") + ".", valueName: "name=path"))
  var given: [String] = []

  @OptionGroup var devices: DeviceOptions

  func validate() throws {
    try DeviceOptions.check(seconds: seconds, pings: pings)
    for text in given where VPNProgramChoice(text) == nil {
      let names = VPNProgram.allCases.map(\.rawValue).joined(separator: ", ")
      throw ValidationError("--peer is NAME=PATH with a NAME that begins with one of \(names), not '\(text)'")
    }
  }

  func run() throws {
    if let obstacle = Namespace.obstacle { throw LabError("vpnbench tunnel: \(obstacle)") }
    try Cleanup.onSignals()
    Cleanup.reclaimAbandoned()
    var report = Report(scenario: scenario)
    report.settings = [
      "seconds": "\(seconds)", "mtu": "\(devices.mtu)", "rounds": "\(output.rounds)",
      "cipher": cipher.joined(separator: " "),
      "engine": engine.isEmpty ? "fastest" : engine.joined(separator: " "), "pings": "\(pings)",
    ]
    let network = try Network(topology.topology)
    defer { network.remove() }
    let chosen = try self.chosen(&report)
    defer { for subject in chosen { subject.tearDown() } }
    let run = TunnelRun(
      network: network, measures: only.isEmpty ? Measure.allCases : only, rounds: output.rounds, seconds: seconds,
      pings: pings, profile: devices.profile)
    try run.run(chosen, &report)
    try output.deliver(report)
  }

  /// Runs that were not alike have different names, so that nobody compares them.
  private var scenario: String {
    "tunnel" + (topology == .local ? "" : " \(topology.rawValue)") + (devices.ip == .four ? "" : " IPv6")
  }

  /// Bounds first, then Culvert, then the others.
  private func chosen(_ report: inout Report) throws -> [any Subject] {
    let gateway =
      culvert
      ?? URL(filePath: Tool.thisProgram).deletingLastPathComponent().appending(path: "culvert").path
    var number = 19
    func plan() -> SubjectPlan {
      number += 1
      return SubjectPlan(layout: topology, family: devices.ip, number: number, mtu: devices.mtu)
    }
    var all: [any Subject] = [BareVeth(plan()), TunSplice(plan()), NullGateways(plan())]
    for cipher in cipher {
      for engine in engine.isEmpty ? [nil] : engine.map({ $0 }) {
        // The first is simply called by its name; the others have what sets them apart behind it.
        let parts = ["culvert", cipher == self.cipher.first ? nil : cipher, engine == self.engine.first ? nil : engine]
        all.append(
          CulvertGateways(
            name: parts.compactMap(\.self).joined(separator: " "), program: gateway, cipher: cipher, engine: engine,
            plan()))
      }
    }
    func variant(
      _ name: String, of program: String, by carrier: CulvertGateways.Carrier = .udp, aggregates: Bool = false,
      translates: Bool = false
    ) -> CulvertGateways {
      CulvertGateways(
        name: name, program: program, cipher: cipher.first ?? "aes-128-gcm", engine: engine.first, carrier: carrier,
        aggregates: aggregates, translates: translates, plan())
    }
    /// This build's, and beside it the same of the other build.
    func add(
      _ name: String, by carrier: CulvertGateways.Carrier = .udp, aggregates: Bool = false, translates: Bool = false
    ) {
      for (suffix, program) in [("", gateway), (" baseline", baseline)] {
        guard let program else { continue }
        all.append(
          variant(name + suffix, of: program, by: carrier, aggregates: aggregates, translates: translates))
      }
    }
    if let baseline { all.append(variant("culvert baseline", of: baseline)) }
    add("culvert-tcp", by: .tcp)
    add("culvert-tls", by: .tls)
    add("culvert-hairpin", by: .hairpin)
    for path in ["udp", "tcp", "tls"] { add("culvert-relay" + (path == "udp" ? "" : "-\(path)"), by: .relay(path)) }
    add("culvert-aggregated", aggregates: true)
    add("culvert-translated", translates: true)
    let (found, missing) = peers ? VPNProgram.find(given: given.compactMap { VPNProgramChoice($0) }) : ([], [])
    for peer in found { all.append(peer.program.subject(name: peer.name, path: peer.path, plan())) }
    for program in missing where subjects.isEmpty || subjects.contains(program.rawValue) {
      report.warn(
        "left out: \(program.rawValue), because \(program.executable) is not installed (Debian: \(program.package))")
    }
    if subjects.isEmpty { return all }
    let known = all.map(\.entry.name) + missing.map(\.rawValue)
    let unknown = subjects.filter { !known.contains($0) }
    guard unknown.isEmpty else {
      throw LabError(
        "unknown subjects: \(unknown.joined(separator: ", ")); there are \(known.joined(separator: ", "))")
    }
    return all.filter { subjects.contains($0.entry.name) }
  }
}
