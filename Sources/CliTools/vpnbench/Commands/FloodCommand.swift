import ArgumentParser
import Foundation
import Lab

/// `vpnbench flood`: a tunnel at work while a stranger sends to one of its gateways.
struct FloodCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "flood", abstract: "A transfer and pings through a tunnel while a stranger floods a gateway.",
    discussion: """
      The stranger has a wire of its own to the gateway, and this machine's processors in common with both gateways and \
      both hosts: so the same datagrams to a socket that nobody reads are measured too, and what a gateway does about a \
      flood is the difference. 'Answered' is what came back to the stranger.
      """)

  @OptionGroup var output: OutputOptions

  @Option(help: "Seconds of each transfer.")
  var seconds = 2.0

  @Option(help: "Pings of each measurement.")
  var pings = 200

  @Option(parsing: .upToNextOption, help: "What the stranger sends.")
  var kinds = FloodKind.allCases

  @Option(help: "Datagrams a second that the stranger sends; as many as it can by default.")
  var rate: Double?

  @Option(help: "Path of culvert; by default it is beside vpnbench.")
  var culvert: String?

  func validate() throws {
    try DeviceOptions.check(seconds: seconds, pings: pings)
    guard rate.map({ $0 >= 1000 && $0 <= 1e7 }) ?? true else {
      throw ValidationError("--rate is from 1000 to 10000000")
    }
  }

  func run() throws {
    if let obstacle = Namespace.obstacle { throw LabError("vpnbench flood: \(obstacle)") }
    try Cleanup.onSignals()
    Cleanup.reclaimAbandoned()
    var report = Report(scenario: "flood")
    report.settings = [
      "seconds": "\(seconds)", "rounds": "\(output.rounds)", "pings": "\(pings)",
      "rate": rate.map { "\(Int($0))" } ?? "full",
    ]
    let network = try Network(Layout.local.topology)
    defer { network.remove() }
    let program =
      culvert ?? URL(filePath: Tool.thisProgram).deletingLastPathComponent().appending(path: "culvert").path
    let tunnel = CulvertGateways(
      name: "culvert", program: program, cipher: "aes-128-gcm", engine: nil,
      SubjectPlan(layout: .local, family: .four, number: 20, mtu: 1400))
    defer { tunnel.tearDown() }
    try tunnel.setUp(network)
    let recorded = try record(tunnel, network)
    // So that the stranger can send in the partner's name.
    try network[Layout.proxy].ip(["addr add \(SubjectPlan.wire(0))/32 dev gateway1"])
    for interface in ["all", "proxy"] { try network["b"].set("net.ipv4.conf.\(interface).rp_filter", "0") }
    let progress = Progress(total: output.rounds * kinds.count)
    report.subjects = kinds.map { Report.Entry(name: $0.rawValue, isBound: false, note: $0.note) }
    report.metrics = Report.Metric.flood
    for round in 0..<output.rounds {
      for turn in kinds.indices {
        let place = (turn + round) % kinds.count
        progress.step("round \(round + 1) of \(output.rounds): \(kinds[place].rawValue)")
        try take(kinds[place], tunnel, network, recorded, report.subjects[place], &report)
      }
    }
    progress.finish()
    report.warnOfNoise(["flood-tcp", "flood-ping"])
    try output.deliver(report)
  }

  /// A sealed packet of the first gateway's, as UDP payload.
  private func record(_ tunnel: CulvertGateways, _ network: Network) throws -> [UInt8] {
    let tap = try WireTap(network["b"], interface: "wire", port: UInt16(clamping: tunnel.port))
    try tunnel.awaitPath(network)
    let headers = 28
    let packet = try tap.finish().example
    guard packet.count > headers else { throw LabError("no sealed packet was seen") }
    return Array(packet.dropFirst(headers))
  }

  private func take(
    _ kind: FloodKind, _ tunnel: CulvertGateways, _ network: Network, _ recorded: [UInt8], _ entry: Report.Entry,
    _ report: inout Report
  ) throws {
    let stranger = network[Layout.proxy]
    let sink = try network["b"].inside { try IdleSocket(Layout.proxyWires[1].gateway) }
    var sending: StrangerFlood.Running?
    let gateway = tunnel.processes[1]
    gateway.forgetPeak()
    let before = (memory: gateway.usage?.privateResident ?? 0, answers: try FloodCommand.received(stranger))
    if let (bytes, fresh) = try kind.datagram(tunnel.gids, recorded: recorded) {
      let port = kind == .sink ? sink.port : UInt16(clamping: tunnel.port)
      var flood = StrangerFlood(from: stranger, to: Layout.proxyWires[1].gateway, port: port, bytes)
      flood.fresh = fresh
      flood.rate = rate
      if kind == .replay { flood.source = (SubjectPlan.wire(0), UInt16(clamping: tunnel.port)) }
      sending = flood.start()
    }
    let result = try BulkTransfer(
      from: network["a"], to: network["b"], address: tunnel.address, amount: .seconds(seconds)
    ).run()
    var echo = Echo(from: network["a"], to: network["b"], address: tunnel.address)
    echo.count = pings
    let answers = try echo.run()
    let sent = try sending?.finish()
    let times = Samples(answers.times.map { $0 * 1e6 })
    report.add(result.bitsPerSecond / 1e9, .floodTCP, of: entry)
    report.add(times.percentile(0.5), .floodPing, of: entry)
    report.add(times.percentile(0.99), .floodPing99, of: entry)
    report.add(Double(answers.lost), .floodLost, of: entry)
    report.add((sent?.rate ?? 0) / 1e3, .floodRate, of: entry)
    report.add(Double(try FloodCommand.received(stranger) - before.answers), .floodAnswers, of: entry)
    report.add(Double((gateway.usage?.privateResident ?? 0) - before.memory) / 1024, .floodMemory, of: entry)
  }

  /// UDP datagrams and errors about them that have come to whoever is there.
  private static func received(_ namespace: Namespace) throws -> Int {
    try namespace.inside {
      let text = try String(contentsOfFile: "/proc/thread-self/net/dev", encoding: .utf8)
      let line = text.split(separator: "\n").first { $0.contains("gateway1:") } ?? ""
      return line.split(whereSeparator: { $0 == " " || $0 == ":" }).dropFirst(2).first.flatMap { Int($0) } ?? 0
    }
  }
}

extension Report.Metric {
  static let flood = [floodTCP, floodPing, floodPing99, floodLost, floodRate, floodAnswers, floodMemory]
  static let floodTCP = Report.Metric(
    id: "flood-tcp", title: "TCP, one stream", unit: "Gbit/s", higherIsBetter: true)
  static let floodPing = Report.Metric(
    id: "flood-ping", title: "Ping, median", unit: "µs", higherIsBetter: false)
  static let floodPing99 = Report.Metric(id: "flood-p99", title: "Ping, p99", unit: "µs", higherIsBetter: false)
  static let floodLost = Report.Metric(id: "flood-lost", title: "Pings lost", unit: "", higherIsBetter: false)
  static let floodRate = Report.Metric(
    id: "flood-rate", title: "The stranger's datagrams", unit: "kpps", higherIsBetter: true)
  static let floodAnswers = Report.Metric(
    id: "flood-answers", title: "Answered", unit: "packets", higherIsBetter: false)
  static let floodMemory = Report.Metric(
    id: "flood-memory", title: "The gateway's memory grew by", unit: "KiB", higherIsBetter: false)
}
