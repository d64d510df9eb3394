import ArgumentParser
import Dataplane
import Lab

/// `vpnbench rekey`: what new keys cost while packets flow.
struct RekeyCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rekey", abstract: "Two dataplanes in one process: fixed keys, agreed ones, and rekeys without end.",
    discussion: """
      One side, the other or both make new keys, at will; afterwards it is said how often that was, and how many packets \
      were not taken.
      """)

  @OptionGroup var output: OutputOptions

  @Option(help: "Seconds of each TCP measurement.")
  var seconds = 2.0

  @Option(help: "Pings of each measurement of idle round trips.")
  var pings = 200

  @Option(parsing: .upToNextOption, help: "What to measure.")
  var only: [Measure] = [.tcp1, .udpSmall, .ping]

  @Option(parsing: .upToNextOption, help: "Milliseconds between rekeys, each measured; 1 to 60,000.")
  var intervals = [100, 10]

  @OptionGroup var devices: DeviceOptions

  func validate() throws {
    try DeviceOptions.check(seconds: seconds, pings: pings)
    guard intervals.allSatisfy({ (1...60_000).contains($0) }) else {
      throw ValidationError("--intervals are from 1 to 60000")
    }
  }

  func run() throws {
    if let obstacle = Namespace.obstacle { throw LabError("vpnbench rekey: \(obstacle)") }
    try Cleanup.onSignals()
    Cleanup.reclaimAbandoned()
    var report = Report(scenario: "rekey")
    report.settings = [
      "seconds": "\(seconds)", "mtu": "\(devices.mtu)", "rounds": "\(output.rounds)", "pings": "\(pings)",
    ]
    let network = try Network(.direct)
    defer { network.remove() }
    let place = try Namespace("loopback")
    defer { place.remove() }
    let keys: [LoopbackGateways.Keys] =
      [.fixed, .agreed(interval: nil)] + intervals.map { .agreed(interval: Double($0) / 1000) }
    let chosen = keys.enumerated().map { number, keys in
      LoopbackGateways(
        cipher: "aes-128-gcm", engine: nil, keys: keys, place: place,
        SubjectPlan(layout: .local, family: devices.ip, number: 20 + number, mtu: devices.mtu))
    }
    defer { for subject in chosen { subject.tearDown() } }
    let run = TunnelRun(
      network: network, measures: only, rounds: output.rounds, seconds: seconds, pings: pings,
      profile: devices.profile)
    try run.run(chosen, &report)
    let words = chosen.compactMap { subject in
      subject.processes.first?.lastLine.map { "\(subject.entry.name): \($0)" }
    }
    try output.deliver(report)
    for line in words where !line.hasSuffix("ready") { print(line) }
  }
}
