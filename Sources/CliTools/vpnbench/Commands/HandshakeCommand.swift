import ArgumentParser
import Identity
import KeyDerivation
import Keying
import Lab
import PacketIO

/// `vpnbench handshake`: what agreement upon keys costs the processor, by identities and groups.
struct HandshakeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "handshake",
    abstract: "Processor time of a handshake and of a rekey, on each side, in memory, and what is kept of them.")

  @OptionGroup var output: OutputOptions

  @Option(help: "Initiators that one responder answers in each round, 1 to 10,000.")
  var initiators = 200

  func validate() throws {
    guard (1...10_000).contains(initiators) else { throw ValidationError("--initiators is from 1 to 10000") }
  }

  @Option(parsing: .upToNextOption, help: "Which identities to measure, and which group; all by default.")
  var kinds = HandshakeKind.allCases

  func run() throws {
    var report = Report(scenario: "handshake")
    report.settings = ["initiators": "\(initiators)"]
    report.subjects = kinds.map { Report.Entry(name: $0.rawValue, isBound: false, note: nil) }
    // None is given up before the end, so that each takes memory of its own.
    var crowds: [HandshakeCrowd] = []
    let progress = Progress(total: output.rounds * kinds.count)
    for round in 0..<output.rounds {
      for (place, kind) in kinds.enumerated() {
        progress.step("round \(round + 1) of \(output.rounds): \(kind.rawValue)")
        var crowd = HandshakeCrowd(kind.identity, kind.group, initiators: initiators)
        let figures = try crowd.run()
        crowds.append(crowd)
        for (figure, value) in zip(HandshakeCommand.metrics, figures) {
          report.add(value, figure, of: report.subjects[place])
        }
      }
    }
    progress.finish()
    withExtendedLifetime(crowds) {}
    report.warnOfNoise([HandshakeCommand.metrics[0].id])
    try output.deliver(report)
  }

  private static let metrics = [
    metric("initiator", "A handshake, initiator", "initiator"),
    metric("responder", "A handshake, responder", "responder"),
    metric("answer", "An R1 for a partner's I1", "R1"), metric("rekey", "A rekey, both sides", "rekey"),
    Report.Metric(
      id: "memory", title: "Kept of a partner after a rekey, by one side", unit: "KiB", higherIsBetter: false,
      column: "kept"),
  ]

  private static func metric(_ id: String, _ title: String, _ column: String) -> Report.Metric {
    Report.Metric(id: id, title: title, unit: "µs", higherIsBetter: false, column: column)
  }
}

/// With which identities, and in which group, keys are agreed upon.
enum HandshakeKind: String, CaseIterable, ExpressibleByArgument {
  case p256, p256Group = "p256-p256", ed25519, rsa

  var identity: HostIdentity.Kind {
    switch self {
    case .p256, .p256Group: .p256
    case .ed25519: .ed25519
    case .rsa: .rsa3072
    }
  }

  var group: DiffieHellmanGroup { self == .p256Group ? .p256 : .x25519 }
}

/// One responder and many who ask it.
private struct HandshakeCrowd {
  private var responder: KeyExchange
  private var initiators: [KeyExchange]
  private let now = MonotonicTime(nanoseconds: 1_000_000_000)

  init(_ kind: HostIdentity.Kind, _ group: DiffieHellmanGroup, initiators count: Int) {
    let own = HostIdentity.generate(kind)
    responder = KeyExchange(random: SystemRandomNumberGenerator())
    initiators = []
    for number in 0..<count {
      let identity = HostIdentity.generate(kind)
      var exchange = KeyExchange(random: SystemRandomNumberGenerator())
      responder.set(
        Partner(
          name: "\(number)", local: own, remote: identity.tag, suites: [ESPSuite(.aes128GCM)], groups: [group],
          postQuantum: .off), now: now)
      exchange.set(
        Partner(
          name: "responder", local: identity, remote: own.tag, paths: [HandshakeCrowd.path(0)],
          suites: [ESPSuite(.aes128GCM)], groups: [group], postQuantum: .off), now: now)
      initiators.append(exchange)
    }
  }

  private static func path(_ number: Int) -> Path {
    Path(endpoint: Endpoint(address: IPAddress(v4: 0x0A00_0000 | UInt32(truncatingIfNeeded: number)), port: 4500))
  }

  /// Microseconds of a handshake for either side, of an R1, and of a rekey; KiB that one side keeps of a partner.
  mutating func run() throws -> [Double] {
    let before = residentKiB()
    var (asking, answering, first, rekeys) = (0.0, 0.0, 0.0, 0.0)
    for number in initiators.indices {
      let path = HandshakeCrowd.path(number + 1)
      let i1 = HandshakeCrowd.packets(initiators[number].takeActions())
      let r1 = timed(&first) { receive(i1, along: path) }
      let i2 = timed(&asking) { HandshakeCrowd.receive(r1, &initiators[number], now) }
      let r2 = timed(&answering) { receive(i2, along: path) }
      _ = timed(&asking) { HandshakeCrowd.receive(r2, &initiators[number], now) }
      guard initiators[number].report(of: "responder") != nil else { throw LabError("a handshake has failed") }
      // The first packet confirms; then new keys, which the initiator asks for.
      let (_, inbound) = initiators[number].trafficKeys(of: "responder")
      guard !inbound.isEmpty else { throw LabError("there are no keys") }
      try timed(&rekeys) {
        initiators[number].rekey("responder", now: now)
        var packets = HandshakeCrowd.packets(initiators[number].takeActions())
        for _ in 0..<3 {
          let answers = receive(packets, along: path)
          packets = HandshakeCrowd.receive(answers, &initiators[number], now)
        }
        guard initiators[number].report(of: "responder")?.rekeys == 1 else { throw LabError("a rekey has failed") }
      }
    }
    let count = Double(initiators.count)
    let kept = (residentKiB() - before) / (2 * count)
    return [asking, answering + first, first, rekeys].map { $0 / count * 1e6 } + [kept]
  }

  private mutating func receive(_ packets: [[UInt8]], along path: Path) -> [[UInt8]] {
    for packet in packets { responder.receive(packet, along: path, now: now) }
    return HandshakeCrowd.packets(responder.takeActions())
  }

  private static func receive(_ packets: [[UInt8]], _ exchange: inout KeyExchange, _ now: MonotonicTime) -> [[UInt8]] {
    for packet in packets { exchange.receive(packet, along: path(0), now: now) }
    return self.packets(exchange.takeActions())
  }

  private static func packets(_ actions: [KeyingAction]) -> [[UInt8]] {
    actions.compactMap { if case .send(let bytes, _) = $0 { bytes } else { nil } }
  }
}

/// KiB of this process in memory.
private func residentKiB() -> Double { ProcFile.field("VmRSS:", of: "/proc/self/status").flatMap { Double($0) } ?? 0 }

/// Adds the processor time that something takes.
private func timed<R>(_ sum: inout Double, _ work: () throws -> R) rethrows -> R {
  let begin = threadSeconds()
  defer { sum += threadSeconds() - begin }
  return try work()
}
