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

  @Option(help: "IP version inside the tunnels, 4 or 6.")
  var ip = Family.four

  @Option(parsing: .upToNextOption, help: "What to measure.")
  var only: [Measure] = [.tcp1, .udpSmall, .ping]

  @Flag(help: "Afterwards, show in which functions the process spends its time; needs perf.")
  var profile = false

  @Option(help: "Bytes of the largest packet inside all tunnels.")
  var mtu = 1400

  func validate() throws {
    guard (0.2...600).contains(seconds) else { throw ValidationError("--seconds is from 0.2 to 600") }
    guard (20...100_000).contains(pings) else { throw ValidationError("--pings is from 20 to 100000") }
    guard (1280...9000).contains(mtu) else { throw ValidationError("--mtu is from 1280 to 9000") }
  }

  func run() throws {
    if let obstacle = Namespace.obstacle { throw LabError("vpnbench loopback: \(obstacle)") }
    try Cleanup.onSignals()
    Cleanup.reclaimAbandoned()
    var report = Report(scenario: "loopback" + (ip == .four ? "" : " IPv6"))
    report.settings = ["seconds": "\(seconds)", "mtu": "\(mtu)", "rounds": "\(output.rounds)", "pings": "\(pings)"]
    let network = try Network(.direct)
    defer { network.remove() }
    let place = try Namespace("loopback")
    defer { place.remove() }
    var number = 19
    func plan() -> SubjectPlan {
      number += 1
      return SubjectPlan(layout: .local, family: ip, number: number, mtu: mtu)
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
      network: network, measures: only, rounds: output.rounds, seconds: seconds, pings: pings, profile: profile)
    try run.run(chosen, &report)
    try output.deliver(report)
  }
}
