import ArgumentParser
import Dataplane
import Lab

/// `vpnbench scale`: how the packet rate holds when there are many peers and many flows.
struct ScaleCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "scale", abstract: "The packet path in memory, with many peers and flows against one of each.",
    discussion: """
      Packets, each of a flow taken at random, go through a gateway's pipelines and its firewall with the default \
      policy: small and large UDP packets one by one, and TCP in superpackets of 44 segments. Packets for different \
      peers cannot share a train, and those of different flows cannot be merged: that is a part of what many peers \
      and flows cost.

      With --gateways, what a real dataplane with so many peers takes: memory with a path each and without, the time to \
      apply what is in force, processor time and the longest turn of a packet thread for a change of one peer, and the \
      time to ask for one peer's statistics. That needs root, for a TUN device in a namespace.
      """)

  @OptionGroup var output: OutputOptions

  @Option(help: "Peers, 1 to 65536.")
  var peers = 10_000

  @Option(help: "Established flows over all peers, 1 to 4000000.")
  var flows = 1_000_000

  @Option(help: "Bytes behind the UDP header of small packets, 1 to 1350.")
  var size = 64

  @Option(parsing: .upToNextOption, help: "What goes through the tunnels: small, large, tcp.")
  var kinds = ["small", "large", "tcp"]

  @Option(help: "Seconds of each measurement.")
  var seconds = 0.5

  @Option(help: "Cipher of the associations: aes-128-gcm, aes-256-gcm or chacha20-poly1305.")
  var cipher = "aes-128-gcm"

  @Flag(help: "Measure real dataplanes with 100, 1000 and --peers peers, not packets.")
  var gateways = false

  func validate() throws {
    guard Cipher(rawValue: cipher) != nil else {
      throw ValidationError("--cipher is one of \(Cipher.allCases.map(\.rawValue).joined(separator: ", "))")
    }
    guard (1...65_536).contains(peers) else { throw ValidationError("--peers is from 1 to 65536") }
    guard (1...4_000_000).contains(flows), flows >= peers else {
      throw ValidationError("--flows is from the number of peers to 4000000")
    }
    guard !kinds.isEmpty, kinds.allSatisfy({ ["small", "large", "tcp"].contains($0) }) else {
      throw ValidationError("--kinds are among small, large and tcp")
    }
    guard (1...1350).contains(size) else { throw ValidationError("--size is from 1 to 1350") }
    guard (0.001...60).contains(seconds) else { throw ValidationError("--seconds is from 0.001 to 60") }
  }

  func run() throws {
    if gateways { return try output.deliver(try CrowdReport.measure([100, 1000, peers], rounds: output.rounds)) }
    guard let cipher = Cipher(rawValue: cipher),
      let engine = CipherEngine.available.first(where: { $0.supports(cipher) })
    else { throw LabError("no engine has the cipher \(cipher)") }
    var report = Report(scenario: "scale")
    report.settings = [
      "seconds": "\(seconds)", "cipher": cipher.rawValue, "size": "\(size)", "engine": engine.rawValue,
    ]
    // Each alone tells what of it costs.
    var shapes: [(peers: Int, flows: Int)] = []
    for shape in [(1, 1), (1, flows), (peers, peers), (peers, flows)] where !shapes.contains(where: { $0 == shape }) {
      shapes.append(shape)
    }
    report.subjects = shapes.enumerated().map { index, shape in
      Report.Entry(name: ScaleCommand.name(shape), isBound: index == 0, note: nil)
    }
    let progress = Progress(total: kinds.count * (output.rounds + 1) * shapes.count)
    for kind in kinds {
      try measure(kind, shapes, cipher, .by(engine), progress, into: &report)
    }
    progress.finish()
    report.warnOfNoise(kinds.flatMap { [Report.Metric.hubOut($0).id, Report.Metric.hubIn($0).id] })
    try output.deliver(report)
  }

  /// One kind after the other, so that only its own gateways take memory.
  private func measure(
    _ kind: String, _ shapes: [(peers: Int, flows: Int)], _ cipher: Cipher, _ sealing: Sealing, _ progress: Progress,
    into report: inout Report
  ) throws {
    let packets: HubTiming.Kind = kind == "tcp" ? .tcp : .udp(payload: kind == "large" ? 1350 : size)
    var gateways: [HubTiming] = []
    for shape in shapes {
      progress.step("\(kind): establishing the flows of \(ScaleCommand.name(shape))")
      gateways.append(try HubTiming(peers: shape.peers, flows: shape.flows, packets, cipher, sealing))
    }
    for round in 0..<output.rounds {
      for (timing, subject) in zip(gateways, report.subjects) {
        progress.step("\(kind), round \(round + 1) of \(output.rounds): \(subject.name)")
        let time = try timing.run(seconds: seconds)
        report.add(1e6 / time.out, .hubOut(kind), of: subject)
        report.add(1e6 / time.back, .hubIn(kind), of: subject)
        report.add(1e6 / (time.out + time.back), .hubBoth(kind), of: subject)
      }
    }
  }

  private static func name(_ shape: (peers: Int, flows: Int)) -> String {
    "\(count(shape.peers, "peer")), \(count(shape.flows, "flow"))"
  }

  private static func count(_ number: Int, _ noun: String) -> String { "\(number) \(noun)\(number == 1 ? "" : "s")" }
}
