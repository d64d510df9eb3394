import ArgumentParser
import Lab

/// What can be measured of a tunnel.
enum Measure: String, CaseIterable, ExpressibleByArgument {
  case tcp1, tcp4, udpSmall = "udp-small", udpLarge = "udp-large", ping
}

/// One subject's turn at one measurement.
struct SubjectTurn {
  let subject: any Subject
  /// All that are set up, `subject` among them.
  let others: [any Subject]
  let network: Network
  let seconds: Double
  /// Of one measurement of round trips.
  let pings: Int
  let progress: Progress

  func take(_ measure: Measure, _ report: inout Report) throws {
    let idleBefore = idleSeconds
    let began = monotonicSeconds()
    switch measure {
    case .tcp1: try tcp(streams: 1, .tcp1, &report)
    case .tcp4: try tcp(streams: 4, .tcp4, &report)
    case .udpSmall: try udp(size: 64, .smallBounded, .smallLossless, &report)
    case .udpLarge: try udp(size: 1350, .largeBounded, .largeLossless, &report)
    case .ping: try ping(&report)
    }
    let disturbance = (idleSeconds - idleBefore) / (monotonicSeconds() - began)
    if disturbance > 0.02 {
      report.warn("subjects that should be idle used \(fixed(disturbance * 100, 0)) % of a core meanwhile")
    }
  }

  private var source: Namespace { network[subject.plan.layout.hosts[0]] }
  private var sink: Namespace { network[subject.plan.layout.hosts[1]] }

  private var idleSeconds: Double {
    others.filter { $0 !== subject }.flatMap(\.processes).reduce(0) { $0 + ($1.usage?.cpuSeconds ?? 0) }
  }

  private func tcp(streams: Int, _ metric: Report.Metric, _ report: inout Report) throws {
    var transfer = BulkTransfer(
      from: source, to: sink, address: subject.address, amount: .seconds(seconds))
    transfer.addressThere = subject.addressThere
    transfer.streams = streams
    var programs = 0.0
    var machine = 0.0
    let result = try transfer.run { isOpen in
      let sign = isOpen ? -1.0 : 1.0
      programs += sign * subject.processes.reduce(0) { $0 + ($1.usage?.cpuSeconds ?? 0) }
      machine += sign * ProcFile.busySeconds
    } progress: { now in
      progress.detail("\(subject.entry.name), \(metric.title): \(figure(now.rate / 1e9)) Gbit/s")
    }
    report.add(result.bitsPerSecond / 1e9, metric, of: subject.entry)
    guard streams == 1, result.bytes > 0 else { return }
    let gigabytes = Double(result.bytes) / 1e9
    if !subject.processes.isEmpty { report.add(programs / gigabytes, .cpu, of: subject.entry) }
    report.add(machine / gigabytes, .system, of: subject.entry)
  }

  private func udp(
    size: Int, _ bounded: Report.Metric, _ lossless: Report.Metric, _ report: inout Report
  ) throws {
    var flood = DatagramFlood(from: source, to: sink, address: subject.address, size: size)
    flood.addressThere = subject.addressThere
    flood.seconds = 0.3
    let found = try RateSearch().run { rate in
      flood.rate = rate
      let result = try flood.run()
      progress.detail(
        "\(subject.entry.name), \(size) bytes: \(figure(result.sentRate / 1e3)) kpps sent, "
          + "\(fixed(result.loss * 100, 1)) % lost")
      return RateSearch.Probe(loss: result.loss, received: result.receivedRate, sent: result.sentRate)
    }
    report.add(found.bounded / 1e3, bounded, of: subject.entry)
    report.add(found.lossless / 1e3, lossless, of: subject.entry)
  }

  private func ping(_ report: inout Report) throws {
    var echo = Echo(from: source, to: sink, address: subject.address)
    // What stood idle finds its way into the caches first.
    echo.count = 20
    _ = try echo.run()
    echo.count = pings
    let result = try echo.run()
    if result.lost > 0 { report.warn("\(subject.entry.name): \(result.lost) of \(result.sent) idle pings were lost") }
    let times = Samples(result.times.map { $0 * 1e6 })
    report.add(times.percentile(0.5), .ping50, of: subject.entry)
    report.add(times.percentile(0.9), .ping90, of: subject.entry)
    report.add(times.percentile(0.99), .ping99, of: subject.entry)
    report.add(times.max, .pingMax, of: subject.entry)
  }

  /// Runs one TCP stream while the subject's processes are sampled.
  func profile() throws -> Profile {
    let directory = try TemporaryDirectory()
    defer { directory.remove() }
    var transfer = BulkTransfer(from: source, to: sink, address: subject.address, amount: .seconds(seconds + 1))
    transfer.addressThere = subject.addressThere
    transfer.warmUp = 0.5
    let perf = try Profile.record(subject.processes, seconds: seconds, in: directory)
    _ = try transfer.run()
    guard try perf.wait(timeout: 30) == .exited(0) else {
      throw LabError("no profile of \(subject.entry.name): perf says: \(perf.lastLine ?? "nothing")")
    }
    return try Profile(of: subject.entry.name, in: directory)
  }
}
