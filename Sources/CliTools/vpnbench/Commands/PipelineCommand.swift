import ArgumentParser
import Dataplane
import Lab

/// `vpnbench pipeline`: packets as the TUN device hands them over, to sealed datagrams and back, without a kernel.
struct PipelineCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pipeline", abstract: "The packet path in memory: TUN bytes to sealed datagrams and back.")

  @OptionGroup var output: OutputOptions

  @Option(help: "Seconds of each measurement.")
  var seconds = 0.2

  @Option(help: "Batches of each measurement, instead of --seconds: always the same work, so that it can be counted.")
  var turns: Int?

  @Option(parsing: .upToNextOption, help: "Which packets to measure: tcp-44, tcp-1, udp-1350, udp-64; all by default.")
  var packets: [String] = []

  @Option(parsing: .upToNextOption, help: "Which subjects to measure, by their names in the results; all by default.")
  var subjects: [String] = []

  @Option(help: "Cipher of the association: aes-128-gcm, aes-256-gcm or chacha20-poly1305.")
  var cipher = "aes-128-gcm"

  func validate() throws {
    guard Cipher(rawValue: cipher) != nil else {
      throw ValidationError("--cipher is one of \(Cipher.allCases.map(\.rawValue).joined(separator: ", "))")
    }
    guard (0.001...60).contains(seconds) else { throw ValidationError("--seconds is from 0.001 to 60") }
    guard (1...1_000_000).contains(turns ?? 1) else { throw ValidationError("--turns is from 1 to 1000000") }
    let known = PacketShape.all.map(\.id)
    guard packets.allSatisfy(known.contains) else {
      throw ValidationError("--packets are of \(known.joined(separator: ", "))")
    }
  }

  func run() throws {
    guard let cipher = Cipher(rawValue: cipher) else { return }
    var report = Report(scenario: "pipeline")
    report.settings = ["seconds": "\(seconds)", "cipher": cipher.rawValue]
    var all: [(subject: Report.Entry, sealing: Sealing, manner: PacketManner)] = []
    func add(_ name: String, _ note: String, _ sealing: Sealing, _ manner: PacketManner, isBound: Bool = false) {
      all.append((Report.Entry(name: name, isBound: isBound, note: note), sealing, manner))
    }
    add("null cipher", "sealing left out", .leftOut, .plain, isBound: true)
    add("null cipher, policed", "firewall, translation", .leftOut, .policed, isBound: true)
    for engine in CipherEngine.available where engine.supports(cipher) {
      let name = engine.rawValue
      add(name, cipher.rawValue, .by(engine), .plain)
      add("\(name), policed", "\(cipher.rawValue), firewall, translation", .by(engine), .policed)
      add("\(name), aggregated", "\(cipher.rawValue), RFC 9347", .by(engine), .aggregated)
    }
    let sealings = subjects.isEmpty ? all : all.filter { subjects.contains($0.0.name) }
    let shapes = packets.isEmpty ? PacketShape.all : PacketShape.all.filter { packets.contains($0.id) }
    guard !sealings.isEmpty else {
      throw LabError("no such subject: there are \(all.map(\.0.name).joined(separator: ", "))")
    }
    report.subjects = sealings.map(\.0)
    let progress = Progress(total: output.rounds * sealings.count)
    for round in 0..<output.rounds {
      for (subject, sealing, manner) in sealings {
        progress.step("round \(round + 1) of \(output.rounds): \(subject.name)")
        for shape in shapes {
          var path = try PipelineTiming(shape, cipher, sealing, manner)
          let times = try path.run(seconds: seconds, turns: turns)
          report.add(times.out, PipelineCommand.metric("Out", shape), of: subject)
          report.add(times.back, PipelineCommand.metric("In", shape), of: subject)
        }
      }
    }
    progress.finish()
    report.warnOfNoise([PipelineCommand.metric("Out", shapes[0]).id])
    try output.deliver(report)
  }

  private static func metric(_ direction: String, _ shape: PacketShape) -> Report.Metric {
    let title = "\(direction), time of one packet"
    return Report.Metric(
      id: "\(direction.lowercased())-\(shape.id)", title: title, unit: "ns", higherIsBetter: false, column: shape.name)
  }
}
