import ArgumentParser
import Dataplane
import Lab

/// `vpnbench scale`: how the packet rate holds when there are many peers and many flows.
struct ScaleCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "scale", abstract: "The packet path in memory, with many peers and flows against one of each.",
    discussion: """
      UDP packets go one by one, each of a flow taken at random, through a gateway's pipelines and its firewall with \
      the default policy. Packets for different peers cannot share a train, and nothing is merged.
      """)

  @OptionGroup var output: OutputOptions

  @Option(help: "Peers, 1 to 65536.")
  var peers = 10_000

  @Option(help: "Established flows over all peers, 1 to 4000000.")
  var flows = 1_000_000

  @Option(help: "Bytes behind the UDP header of every packet, 1 to 1350.")
  var size = 64

  @Option(help: "Seconds of each measurement.")
  var seconds = 0.5

  @Option(help: "Cipher of the associations: aes-128-gcm, aes-256-gcm or chacha20-poly1305.")
  var cipher = "aes-128-gcm"

  func validate() throws {
    guard Cipher(rawValue: cipher) != nil else {
      throw ValidationError("--cipher is one of \(Cipher.allCases.map(\.rawValue).joined(separator: ", "))")
    }
    guard (1...65_536).contains(peers) else { throw ValidationError("--peers is from 1 to 65536") }
    guard (1...4_000_000).contains(flows), flows >= peers else {
      throw ValidationError("--flows is from the number of peers to 4000000")
    }
    guard (1...1350).contains(size) else { throw ValidationError("--size is from 1 to 1350") }
    guard (0.001...60).contains(seconds) else { throw ValidationError("--seconds is from 0.001 to 60") }
  }

  func run() throws {
    guard let cipher = Cipher(rawValue: cipher),
      let engine = CipherEngine.available.first(where: { $0.supports(cipher) })
    else { throw LabError("no engine has the cipher \(cipher)") }
    var report = Report(scenario: "scale")
    report.settings = [
      "seconds": "\(seconds)", "cipher": cipher.rawValue, "size": "\(size)", "engine": engine.rawValue,
    ]
    // Each alone tells what of it costs.
    let shapes = [(1, 1), (1, flows), (peers, peers), (peers, flows)]
    let progress = Progress(total: (output.rounds + 1) * shapes.count)
    var gateways: [(subject: Report.Subject, timing: HubTiming)] = []
    for (index, shape) in shapes.enumerated() {
      let name = "\(ScaleCommand.count(shape.0, "peer")), \(ScaleCommand.count(shape.1, "flow"))"
      if gateways.contains(where: { $0.subject.name == name }) { continue }
      progress.step("establishing the flows of \(name)")
      gateways.append(
        (
          Report.Subject(name: name, isBound: index == 0, note: nil),
          try HubTiming(peers: shape.0, flows: shape.1, size: size, cipher, .by(engine))
        ))
    }
    report.subjects = gateways.map(\.subject)
    for round in 0..<output.rounds {
      for (subject, timing) in gateways {
        progress.step("round \(round + 1) of \(output.rounds): \(subject.name)")
        let time = try timing.run(seconds: seconds)
        report.add(1e6 / time.out, .hubOut, of: subject)
        report.add(1e6 / time.back, .hubIn, of: subject)
        report.add(1e6 / (time.out + time.back), .hubBoth, of: subject)
      }
    }
    progress.finish()
    report.warnOfNoise([Report.Metric.hubOut.id, Report.Metric.hubIn.id])
    try output.deliver(report)
  }

  private static func count(_ number: Int, _ noun: String) -> String { "\(number) \(noun)\(number == 1 ? "" : "s")" }
}
