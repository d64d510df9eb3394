import ArgumentParser
import Dataplane
import Foundation
import Lab

/// `vpnbench loopback`: the dataplane between kernel and kernel, with every cipher and engine, in one process.
struct LoopbackCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "loopback", abstract: "Two dataplanes in one process over loopback, for each cipher and engine.",
    discussion: """
      Between the ends there is nothing but the loopback interface: what differs between subjects is the cipher. The \
      traffic comes from one network namespace and goes to another, through one TUN device in each.
      """)

  @OptionGroup var output: OutputOptions

  @Option(help: "Seconds of each TCP measurement.")
  var seconds = 1.0

  @Option(help: "Pings of each measurement of idle round trips.")
  var pings = 200

  @Option(parsing: .upToNextOption, help: "What to measure.")
  var only: [Measure] = [.tcp1, .udpSmall, .ping]

  @OptionGroup var devices: DeviceOptions

  func validate() throws { try DeviceOptions.check(seconds: seconds, pings: pings) }

  func run() throws {
    if let obstacle = Namespace.obstacle { throw LabError("vpnbench loopback: \(obstacle)") }
    try Cleanup.onSignals()
    Cleanup.reclaimAbandoned()
    var report = Report(scenario: "loopback" + (devices.ip == .four ? "" : " IPv6"))
    report.settings = [
      "seconds": "\(seconds)", "mtu": "\(devices.mtu)", "rounds": "\(output.rounds)", "pings": "\(pings)",
    ]
    let network = try Network(.direct)
    defer { network.remove() }
    let place = try Namespace("loopback")
    defer { place.remove() }
    var number = 19
    func plan() -> SubjectPlan {
      number += 1
      return SubjectPlan(layout: .local, family: devices.ip, number: number, mtu: devices.mtu)
    }
    var chosen: [any Subject] = [
      TunSplice(plan()), LoopbackGateways(cipher: nil, engine: nil, place: place, plan()),
    ]
    for cipher in Cipher.allCases {
      for engine in CipherEngine.available where engine.supports(cipher) {
        chosen.append(LoopbackGateways(cipher: cipher.rawValue, engine: engine.rawValue, place: place, plan()))
      }
    }
    defer { for subject in chosen { subject.tearDown() } }
    let run = TunnelRun(
      network: network, measures: only, rounds: output.rounds, seconds: seconds, pings: pings,
      profile: devices.profile)
    try run.run(chosen, &report)
    try output.deliver(report)
  }
}
