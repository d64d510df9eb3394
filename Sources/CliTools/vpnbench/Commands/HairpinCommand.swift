import ArgumentParser
import Glibc
import Lab
import PacketIO
import Transports

/// `vpnbench hairpin`: one thread of the hairpin proxy against forwarders that do nothing but forward.
struct HairpinCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "hairpin", abstract: "Forwarding through one hairpin, against plain forwarders.",
    discussion: """
      Over the loopback interface of a namespace; the same generator and the same sink for all. "plain" receives and \
      sends datagrams with recvmmsg and sendmmsg, 64 at a time, and does nothing else; "splice" moves a TCP stream \
      through a pipe; between a stream and datagrams "plain" reads and cuts, or lays out, records. What arrives a \
      second says little where generator, forwarder and sink share two processors, therefore also what arrives for a \
      second of the forwarder's own processor time. At last the same trains go through a proxy that holds ten idle \
      hairpins besides, and through one that holds --idle of them.
      """)

  @OptionGroup var output: OutputOptions

  @Option(help: "Seconds of each measurement.")
  var seconds = 1.0

  @Option(help: "Idle hairpins of the last comparison, 10 to 25000; 0: without it.")
  var idle = 10_000

  @Option(help: "Only this load: \(HairpinLoad.all.map(\.id).joined(separator: ", ")).")
  var load: String?

  func validate() throws {
    guard load == nil || !loads.isEmpty else { throw ValidationError("there is no load \(load ?? "")") }
    guard idle == 0 || (10...25_000).contains(idle) else { throw ValidationError("--idle is 0, or from 10 to 25000") }
    guard (0.1...60).contains(seconds) else { throw ValidationError("--seconds is from 0.1 to 60") }
  }

  private var loads: [HairpinLoad] { HairpinLoad.all.filter { load == nil || $0.id == load } }

  func run() throws {
    // The splice forwarder may write when its sink has gone already.
    signal(SIGPIPE, SIG_IGN)
    if let obstacle = Namespace.obstacle { throw LabError(obstacle) }
    var report = Report(scenario: "hairpin")
    report.settings = ["seconds": "\(seconds)"]
    let crowds = try idleCrowds()
    let progress = Progress(total: output.rounds * (loads.count * 2 + crowds.count))
    for round in 0..<output.rounds {
      for load in loads {
        for forwarder in load.forwarders {
          progress.step("round \(round + 1) of \(output.rounds): \(load.title), \(forwarder.rawValue)")
          let result = try HairpinRun(load, forwarder).measureApart(seconds: seconds)
          result.add(load, by: forwarder.rawValue, to: &report)
        }
      }
      for crowd in crowds {
        progress.step("round \(round + 1) of \(output.rounds): \(crowd) idle hairpins")
        let run = HairpinRun(HairpinLoad.all[0], .proxy, idle: crowd)
        add(try run.measureApart(seconds: seconds), crowd, to: &report)
      }
    }
    progress.finish()
    try output.deliver(report)
  }

  /// How many idle hairpins there are, few and many.
  private func idleCrowds() throws -> [Int] {
    guard idle > 0 else { return [] }
    let files = OpenFiles.raiseLimit(wanted: 2 * idle + 4096)
    let possible = (files - 200) / 2
    guard possible >= 10 else { throw LabError("\(files) files may be open; raise the hard limit (ulimit -Hn)") }
    if possible < idle {
      print("only \(possible) idle hairpins, because only \(files) files may be open (ulimit -Hn)")
    }
    return [10, min(idle, possible)]
  }

  private func add(_ result: HairpinRun.Result, _ crowd: Int, to report: inout Report) {
    let subject = Report.Entry(name: "proxy, \(crowd) idle", isBound: false, note: nil)
    let cost = Report.Metric(
      id: "idle-cpu", title: "Proxy's processor time for a packet, ns", unit: "ns", higherIsBetter: false,
      column: "beside idle ones")
    report.add(result.processor * 1e9 / Double(max(result.packets, 1)), cost, of: subject)
    // Of ten the first pages of everything would be most.
    guard crowd > 1000 else { return }
    let memory = Report.Metric(
      id: "idle-memory", title: "Memory of the process for an idle hairpin, bytes", unit: "B", higherIsBetter: false,
      column: "idle")
    report.add(result.idleBytes, memory, of: subject)
  }
}
