import ArgumentParser
import Glibc
import Lab
import PacketIO
import Transports

/// `vpnbench hairpin`: one thread of the hairpin proxy against forwarders that do nothing but forward.
struct HairpinCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "hairpin", abstract: "Forwarding through one hairpin, against plain forwarders.",
    discussion: """
      Over the loopback interface of a namespace; the same generator and the same sink for all. "plain" receives and \
      sends datagrams with recvmmsg and sendmmsg, 64 at a time, and does nothing else; "splice" moves a TCP stream \
      through a pipe. What arrives a second says little where generator, forwarder and sink share two processors, \
      therefore also what arrives for a second of the forwarder's own processor time.
      """)

  @OptionGroup var output: OutputOptions

  @Option(help: "Seconds of each measurement.")
  var seconds = 1.0

  func validate() throws {
    guard (0.1...60).contains(seconds) else { throw ValidationError("--seconds is from 0.1 to 60") }
  }

  func run() async throws {
    if let obstacle = Namespace.obstacle { throw LabError(obstacle) }
    var report = Report(scenario: "hairpin")
    report.settings = ["seconds": "\(seconds)"]
    let progress = Progress(total: output.rounds * HairpinLoad.all.count * 2)
    for round in 0..<output.rounds {
      for load in HairpinLoad.all {
        for forwarder in load.forwarders {
          progress.step("round \(round + 1) of \(output.rounds): \(load.title), \(forwarder.rawValue)")
          let seconds = seconds
          let namespace = try Namespace("hairpin")
          defer { namespace.remove() }
          let (result, proxy) = try await namespace.inside {
            try HairpinRun(load, forwarder).measure(seconds: seconds)
          }
          await proxy?.stop()
          add(result, load, forwarder, to: &report)
        }
      }
    }
    progress.finish()
    try output.deliver(report)
  }

  private func add(_ result: HairpinRun.Result, _ load: HairpinLoad, _ forwarder: Forwarder, to report: inout Report) {
    let subject = Report.Subject(name: forwarder.rawValue, isBound: false, note: nil)
    let isSmall = load.size < 1000
    let amount = isSmall ? Double(result.packets) / 1e6 : Double(result.bytes) * 8 / 1e9
    let unit = isSmall ? "Mpacket" : "Gbit"
    for (id, title, divisor) in [
      ("wall", "Arrived a second", result.seconds),
      ("cpu", "Arrived for a second of the forwarder's processor time", result.processor),
    ] where divisor > 0 {
      let metric = Report.Metric(
        id: "\(load.id)-\(id)", title: "\(title), \(unit)", unit: unit, higherIsBetter: true, column: load.title)
      report.add(amount / divisor, metric, of: subject)
    }
  }
}

/// What forwards.
enum Forwarder: String, CaseIterable { case proxy, plain, splice }

/// What is sent.
struct HairpinLoad: Sendable {
  let id: String
  let title: String
  /// Bytes of a sealed packet, and packets of a train.
  let size: Int
  let train: Int
  let road: HairpinRoad

  var forwarders: [Forwarder] { road == .udp ? [.proxy, .plain] : [.proxy, .splice] }

  static let all = [
    HairpinLoad(id: "trains", title: "UDP, trains of 44 × 1440", size: 1440, train: 44, road: .udp),
    HairpinLoad(id: "small", title: "UDP, single 100", size: 100, train: 1, road: .udp),
    HairpinLoad(id: "stream", title: "TCP, 1440", size: 1440, train: 44, road: .tcp),
  ]
}
