import ArgumentParser
import Lab
import PacketIO

/// `vpnbench relay`: one thread of the identity relay against a plain forwarder and a hairpin.
struct RelayCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "relay", abstract: "Forwarding through an identity relay, against a plain forwarder and a hairpin.",
    discussion: """
      Over the loopback interface of a namespace, with the generator and the sink of 'vpnbench hairpin'. "relay" has as \
      many pairs as --pairs says, all of one sender, whose trains go round all of their SPIs; "plain" receives and sends \
      with recvmmsg and sendmmsg, 64 at a time; "hairpin" is one hairpin. What counts is what arrives for a second of the \
      forwarder's own processor time.
      """)

  @OptionGroup var output: OutputOptions

  @Option(help: "Seconds of each measurement.")
  var seconds = 1.0

  @Option(help: "Pairs: few, and many; 1 to 60000.")
  var pairs: [Int] = [10, 10_000]

  func validate() throws {
    guard (0.1...60).contains(seconds) else { throw ValidationError("--seconds is from 0.1 to 60") }
    guard pairs.allSatisfy({ (1...60_000).contains($0) }) else { throw ValidationError("--pairs are from 1 to 60000") }
  }

  private var loads: [HairpinLoad] { HairpinLoad.all.filter { $0.paths.source == .udp && $0.paths.sink == .udp } }

  func run() throws {
    if let obstacle = Namespace.obstacle { throw LabError(obstacle) }
    var report = Report(scenario: "relay")
    report.settings = ["seconds": "\(seconds)"]
    let progress = Progress(total: output.rounds * loads.count * (pairs.count + 2))
    for round in 0..<output.rounds {
      for load in loads {
        for count in pairs {
          progress.step("round \(round + 1) of \(output.rounds): \(load.title), \(count) pairs")
          let result = try HairpinRun(load, .relay, idle: count).measureApart(seconds: seconds)
          result.add(load, by: "relay, \(count) pairs", to: &report)
          if count >= 1000 { addMemory(result, count, to: &report) }
        }
        for forwarder in [Forwarder.plain, .proxy] {
          progress.step("round \(round + 1) of \(output.rounds): \(load.title), \(forwarder.rawValue)")
          let result = try HairpinRun(load, forwarder).measureApart(seconds: seconds)
          result.add(load, by: forwarder == .proxy ? "hairpin" : "plain", to: &report)
        }
      }
    }
    progress.finish()
    try output.deliver(report)
  }

  private func addMemory(_ result: HairpinRun.Result, _ pairs: Int, to report: inout Report) {
    let memory = Report.Metric(
      id: "pair-memory", title: "Memory of the process for a pair, its gateway included, bytes", unit: "B",
      higherIsBetter: false, column: "pair")
    report.add(result.idleBytes, memory, of: Report.Entry(name: "relay, \(pairs) pairs", isBound: false, note: nil))
  }
}
