import ArgumentParser
import Foundation
import Lab

/// `vpnbench tunnel`: real devices and real packets between two namespaces.
struct TunnelCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tunnel", abstract: "Tunnels between two network namespaces, their bounds, and other programs.",
    discussion: """
      All subjects are set up at the start over one and the same veth and then stand idle, but for the one whose \
      turn it is. Packets are ours: blocking sockets and threads in this process, TCP with cubic congestion control.
      """)

  /// What can be measured.
  enum Measure: String, CaseIterable, ExpressibleByArgument {
    case tcp1, tcp4, udpSmall = "udp-small", udpLarge = "udp-large", ping
  }

  @OptionGroup var output: OutputOptions

  @Option(help: "Seconds of each TCP measurement.")
  var seconds = 2.0

  @Option(parsing: .upToNextOption, help: "What to measure.")
  var only: [Measure] = []

  @Option(parsing: .upToNextOption, help: "Which subjects to measure, by their names in the results; all by default.")
  var subjects: [String] = []

  @Option(help: "Ciphers of the Culvert gateways, each measured: aes-128-gcm, aes-256-gcm, chacha20-poly1305.")
  var cipher: [String] = ["aes-128-gcm"]

  @Option(help: "Engine of the Culvert gateways: multi-buffer or openssl; the fastest by default.")
  var engine: String?

  @Option(help: "Path of culvert; by default it is beside vpnbench.")
  var culvert: String?

  @Option(
    name: .customLong("peer"),
    help: "Another program, NAME=PATH; a NAME begins with wireguard-go. By default those in PATH.")
  var peers: [String] = []

  @Flag(help: "Measure no other programs.")
  var noPeers = false

  @Option(help: "Bytes of the largest packet inside all tunnels.")
  var mtu = 1400

  func validate() throws {
    guard (0.2...600).contains(seconds) else { throw ValidationError("--seconds is from 0.2 to 600") }
    guard (1280...9000).contains(mtu) else { throw ValidationError("--mtu is from 1280 to 9000") }
    for peer in peers where peer.split(separator: "=").count != 2 || !peer.hasPrefix("wireguard-go") {
      throw ValidationError("--peer is NAME=PATH with a NAME that begins with wireguard-go, not '\(peer)'")
    }
  }

  func run() async throws {
    if let obstacle = Namespace.obstacle { throw LabError("vpnbench tunnel: \(obstacle)") }
    try Cleanup.onSignals()
    Cleanup.reclaimAbandoned()
    var report = Report(scenario: "tunnel")
    report.settings = [
      "seconds": "\(seconds)", "mtu": "\(mtu)", "rounds": "\(output.rounds)", "cipher": cipher.joined(separator: " "),
      "engine": engine ?? "fastest",
    ]
    let network = try Network(.direct)
    defer { network.remove() }
    let chosen = try self.chosen()
    defer { for subject in chosen { subject.tearDown() } }
    let measures = only.isEmpty ? Measure.allCases : only
    let progress = Progress(total: chosen.count * (1 + output.rounds * measures.count))
    var ready: [any Subject] = []
    for subject in chosen {
      progress.step("setting up \(subject.entry.name)")
      do {
        try subject.setUp(network)
        ready.append(subject)
      } catch {
        if Cleanup.hasBegun { throw error }
        subject.tearDown()
        report.warn("not measured: \(error)")
        progress.note("not measured: \(error)")
      }
    }
    // The order of the results is the order of the subjects, whatever the order of the turns.
    report.subjects = ready.map(\.entry)
    report.metrics = Report.Metric.tunnel
    for round in 0..<output.rounds {
      // Nobody is always the first, on a cool processor, or always behind the same neighbour.
      for turn in ready.indices {
        let subject = ready[(turn + round) % ready.count]
        for measure in measures {
          progress.step("round \(round + 1) of \(output.rounds): \(subject.entry.name), \(measure.rawValue)")
          let turn = Turn(subject: subject, others: ready, network: network, seconds: seconds, progress: progress)
          do {
            try turn.take(measure, &report)
          } catch {
            if Cleanup.hasBegun { throw error }
            report.warn("\(subject.entry.name), \(measure.rawValue): \(error)")
            progress.note("\(subject.entry.name), \(measure.rawValue): \(error)")
          }
        }
      }
    }
    for subject in ready {
      let peak = subject.processes.compactMap { $0.usage?.peakResident }.max()
      if let peak { report.add(Double(peak) / 1_048_576, .memory, of: subject.entry) }
    }
    progress.finish()
    report.warnOfNoise("tcp-1")
    try output.deliver(report)
  }

  /// Bounds first, then Culvert, then the others.
  private func chosen() throws -> [any Subject] {
    let gateway =
      culvert
      ?? URL(filePath: Tool.thisProgram).deletingLastPathComponent().appending(path: "culvert").path
    var all: [any Subject] = [BareVeth(), TunSplice(mtu: mtu), NullGateways(mtu: mtu)]
    for (number, cipher) in cipher.enumerated() {
      let name = number == 0 ? "culvert" : "culvert \(cipher)"
      all.append(
        CulvertGateways(name: name, program: gateway, cipher: cipher, engine: engine, number: number, mtu: mtu))
    }
    all.append(
      CulvertGateways(
        name: "culvert-tcp", program: gateway, cipher: cipher.first ?? "aes-128-gcm", engine: engine,
        number: cipher.count, mtu: mtu, usesTCP: true))
    if !noPeers {
      if let program = Tool.path("openvpn") { all.append(OpenVPN(program: program, mtu: mtu)) }
      for (number, peer) in others.enumerated() {
        all.append(WireGuardGo(name: peer.name, program: peer.path, number: number, mtu: mtu))
      }
    }
    if subjects.isEmpty { return all }
    let unknown = subjects.filter { name in !all.contains { $0.entry.name == name } }
    guard unknown.isEmpty else {
      throw LabError(
        "unknown subjects: \(unknown.joined(separator: ", ")); there are \(all.map(\.entry.name).joined(separator: ", "))"
      )
    }
    return all.filter { subjects.contains($0.entry.name) }
  }

  private var others: [(name: String, path: String)] {
    if peers.isEmpty { return Tool.path("wireguard-go").map { [("wireguard-go", $0)] } ?? [] }
    return peers.map { peer in
      let parts = peer.split(separator: "=")
      return (String(parts[0]), String(parts[1]))
    }
  }
}

/// One subject's turn at one measurement.
private struct Turn {
  let subject: any Subject
  /// All that are set up, `subject` among them.
  let others: [any Subject]
  let network: Network
  let seconds: Double
  let progress: Progress

  func take(_ measure: TunnelCommand.Measure, _ report: inout Report) throws {
    let idleBefore = idleSeconds
    let began = monotonicSeconds()
    switch measure {
    case .tcp1: try tcp(streams: 1, .tcp1, &report)
    case .tcp4: try tcp(streams: 4, .tcp4, &report)
    case .udpSmall: try udp(size: 64, .smallBounded, .smallLossless, &report)
    case .udpLarge: try udp(size: 1350, .largeBounded, .largeLossless, &report)
    case .ping: try ping(&report)
    }
    let disturbance = (idleSeconds - idleBefore) / (monotonicSeconds() - began)
    if disturbance > 0.02 {
      report.warn("subjects that should be idle used \(fixed(disturbance * 100, 0)) % of a core meanwhile")
    }
  }

  private var idleSeconds: Double {
    others.filter { $0 !== subject }.flatMap(\.processes).reduce(0) { $0 + ($1.usage?.cpuSeconds ?? 0) }
  }

  private func tcp(streams: Int, _ metric: Report.Metric, _ report: inout Report) throws {
    var transfer = BulkTransfer(
      from: network["a"], to: network["b"], address: subject.address, amount: .seconds(seconds))
    transfer.streams = streams
    var programs = 0.0
    var machine = 0.0
    let result = try transfer.run { isOpen in
      let sign = isOpen ? -1.0 : 1.0
      programs += sign * subject.processes.reduce(0) { $0 + ($1.usage?.cpuSeconds ?? 0) }
      machine += sign * ProcFile.busySeconds
    } progress: { now in
      progress.detail("\(subject.entry.name), \(metric.title): \(figure(now.rate / 1e9)) Gbit/s")
    }
    report.add(result.bitsPerSecond / 1e9, metric, of: subject.entry)
    guard streams == 1, result.bytes > 0 else { return }
    let gigabytes = Double(result.bytes) / 1e9
    if !subject.processes.isEmpty { report.add(programs / gigabytes, .cpu, of: subject.entry) }
    report.add(machine / gigabytes, .system, of: subject.entry)
  }

  private func udp(
    size: Int, _ bounded: Report.Metric, _ lossless: Report.Metric, _ report: inout Report
  ) throws {
    var flood = DatagramFlood(from: network["a"], to: network["b"], address: subject.address, size: size)
    flood.seconds = 0.3
    let found = try RateSearch().run { rate in
      flood.rate = rate
      let result = try flood.run()
      progress.detail(
        "\(subject.entry.name), \(size) bytes: \(figure(result.sentRate / 1e3)) kpps sent, "
          + "\(fixed(result.loss * 100, 1)) % lost")
      return RateSearch.Probe(loss: result.loss, received: result.receivedRate, sent: result.sentRate)
    }
    report.add(found.bounded / 1e3, bounded, of: subject.entry)
    report.add(found.lossless / 1e3, lossless, of: subject.entry)
  }

  private func ping(_ report: inout Report) throws {
    var echo = Echo(from: network["a"], to: network["b"], address: subject.address)
    echo.count = 300
    let result = try echo.run()
    if result.lost > 0 { report.warn("\(subject.entry.name): \(result.lost) of \(result.sent) idle pings were lost") }
    let times = Samples(result.times.map { $0 * 1e6 })
    report.add(times.percentile(0.5), .ping50, of: subject.entry)
    report.add(times.percentile(0.9), .ping90, of: subject.entry)
    report.add(times.percentile(0.99), .ping99, of: subject.entry)
    report.add(times.max, .pingMax, of: subject.entry)
  }
}
