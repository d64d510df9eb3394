import ArgumentParser
import Dataplane
import Lab
import PacketIO

/// `vpnbench workers`: the packet path in memory in one thread and in several at once.
struct WorkersCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "workers", abstract: "The packet path in memory, by one worker and by several at once.",
    discussion: """
      Each worker seals and opens packets of its own flows, with buffers, associations and a firewall of its own, as \
      in a gateway where every packet comes to the worker that owns it. The ratio is that of one round's rates. Where \
      other programs take the processors, see the other ratio: what the workers do with the processor time they got, \
      as if each had a processor to itself. The bound is arithmetic that needs no memory, by as many threads: what the \
      machine's processors give together.
      """)

  @OptionGroup var output: OutputOptions

  @Option(help: "Seconds of each measurement.")
  var seconds = 0.3

  @Option(help: "How many workers to compare with one.")
  var workers = 2

  @Option(parsing: .upToNextOption, help: "Which packets to measure: tcp-44, tcp-1, udp-1350, udp-64.")
  var packets = ["tcp-44", "udp-64"]

  func validate() throws {
    guard (0.01...60).contains(seconds) else { throw ValidationError("--seconds is from 0.01 to 60") }
    guard (2...16).contains(workers) else { throw ValidationError("--workers is from 2 to 16") }
    let known = PacketShape.all.map(\.id)
    guard packets.allSatisfy(known.contains) else {
      throw ValidationError("--packets are of \(known.joined(separator: ", "))")
    }
  }

  func run() throws {
    var report = Report(scenario: "workers")
    report.settings = ["seconds": "\(seconds)", "workers": "\(workers)"]
    let shapes = PacketShape.all.filter { packets.contains($0.id) }
    let several = Report.Entry(name: "\(workers) workers", isBound: false, note: "aes-128-gcm, firewall, translation")
    let one = Report.Entry(name: "1 worker", isBound: false, note: several.note)
    let bound = Report.Entry(name: "arithmetic", isBound: true, note: "\(workers) threads, no memory")
    let progress = Progress(total: output.rounds * shapes.count)
    for round in 0..<output.rounds {
      for shape in shapes {
        progress.step("round \(round + 1) of \(output.rounds): \(shape.name)")
        // In turns, so that whatever else the machine does meets both.
        let order = round % 2 == 0 ? [1, workers] : [workers, 1]
        var figures: [Int: Figure] = [:]
        var arithmetic: [Int: Figure] = [:]
        for count in order {
          arithmetic[count] = try measure(nil, workers: count)
          figures[count] = try measure(shape, workers: count)
        }
        guard let single = figures[1], let together = figures[workers], single.rate > 0 else { continue }
        report.add(single.rate / 1e6, WorkersCommand.rate(shape), of: one)
        report.add(together.rate / 1e6, WorkersCommand.rate(shape), of: several)
        add(single, together, shape, of: several, to: &report)
        if let single = arithmetic[1], let together = arithmetic[workers] {
          add(single, together, shape, of: bound, to: &report)
        }
      }
    }
    progress.finish()
    report.warnOfNoise([WorkersCommand.ratio(shapes[0]).id])
    try output.deliver(report)
  }

  private struct Figure {
    /// Packets a second of all workers together.
    var rate: Double
    /// Packets a second of processor time; 0: the kernel does not tell.
    var work: Double
  }

  /// Both ratios.
  private func add(
    _ single: Figure, _ together: Figure, _ shape: PacketShape, of subject: Report.Entry, to report: inout Report
  ) {
    guard single.rate > 0 else { return }
    report.add(together.rate / single.rate, WorkersCommand.ratio(shape), of: subject)
    guard single.work > 0, together.work > 0 else { return }
    report.add(Double(workers) * together.work / single.work, WorkersCommand.workRatio(shape), of: subject)
  }

  /// Packets that went both ways, or with no shape, steps of arithmetic.
  private func measure(_ shape: PacketShape?, workers: Int) throws -> Figure {
    // Late enough for every thread to be there.
    let begin = MonotonicTime.current().adding(nanoseconds: 20_000_000)
    let end = begin.adding(nanoseconds: UInt64(seconds * 1e9))
    let threads = (0..<workers).map { number in
      LabThread(name: "worker \(number)") {
        var before: UInt64 = 0
        let count: UInt64
        if let shape {
          var path = try PipelineTiming(shape, .aes128GCM, .by(CipherEngine.available[0]), .policed)
          count = try path.count(from: begin, to: end) { before = WorkersCommand.processorNanoseconds }
        } else {
          count = WorkersCommand.countSteps(from: begin, to: end) { before = WorkersCommand.processorNanoseconds }
        }
        return (count, WorkersCommand.processorNanoseconds - before)
      }
    }
    let results = try threads.map { try $0.join() }
    let count = Double(results.reduce(0) { $0 + $1.0 })
    let time = Double(results.reduce(0) { $0 + $1.1 }) / 1e9
    return Figure(rate: count / seconds, work: time > 0 ? count / time : 0)
  }

  /// Steps of eight independent generators of random numbers: much to do at once, so that two processors that are one
  /// core's threads would show.
  /// - Parameter atBegin: called at `begin`.
  private static func countSteps(from begin: MonotonicTime, to end: MonotonicTime, atBegin: () -> Void) -> UInt64 {
    let factor = SIMD8<UInt64>(repeating: 0x9E37_79B9_7F4A_7C15)
    var state = SIMD8<UInt64>(1, 2, 3, 4, 5, 6, 7, 8)
    var count: UInt64 = 0
    while MonotonicTime.current() < begin {}
    atBegin()
    while MonotonicTime.current() < end {
      for _ in 0..<10_000 { for lane in 0..<8 { state[lane] = (state[lane] ^ state[lane] &>> 29) &* factor[lane] } }
      count += 10_000
    }
    // The sum decides over something, so that it is worked out.
    return count + (state.wrappedSum() == 0 ? 1 : 0)
  }

  /// What this thread has had so far.
  private static var processorNanoseconds: UInt64 {
    ProcFile.read("/proc/thread-self/schedstat")?.split(separator: " ").first.flatMap { UInt64($0) } ?? 0
  }

  private static func workRatio(_ shape: PacketShape) -> Report.Metric {
    Report.Metric(
      id: "work-\(shape.id)", title: "Rate by that of one worker, by processor time", unit: "×", higherIsBetter: true,
      column: shape.name)
  }

  private static func rate(_ shape: PacketShape) -> Report.Metric {
    Report.Metric(
      id: "rate-\(shape.id)", title: "Packets a second, sealed and opened, million", unit: "M/s", higherIsBetter: true,
      column: shape.name)
  }

  private static func ratio(_ shape: PacketShape) -> Report.Metric {
    Report.Metric(
      id: "ratio-\(shape.id)", title: "Rate by that of one worker", unit: "×", higherIsBetter: true, column: shape.name)
  }
}
