import Lab

/// All subjects of one scenario side by side in one network, measured in turns.
struct TunnelRun {
  let network: Network
  let measures: [Measure]
  let rounds: Int
  /// Of each TCP measurement.
  let seconds: Double
  /// Of each measurement of round trips.
  let pings: Int
  /// Whether to sample, afterwards, what the Culvert gateways do.
  let profile: Bool
  /// Seconds from the last start to the first measurement.
  private static let settling = 3.0

  /// Measures every subject that comes up; why another did not is among the warnings.
  func run(_ chosen: [any Subject], _ report: inout Report) throws {
    let progress = Progress(total: chosen.count * (1 + rounds * measures.count))
    for warning in report.warnings { progress.note(warning) }
    let ready = try setUp(chosen, progress, &report)
    // The order of the results is the order of the subjects, whatever the order of the turns.
    report.subjects = ready.map(\.entry)
    report.metrics = Report.Metric.tunnel
    // What a start takes is not what carrying packets takes.
    pause(seconds: TunnelRun.settling)
    for process in ready.flatMap(\.processes) { process.forgetPeak() }
    var quiet = Quiet(cores: report.machine.cores)
    var firstPeaks: [String: Int] = [:]
    for round in 0..<rounds {
      quiet.look()
      // Nobody is always the first, on a cool processor, or always behind the same neighbour.
      for turn in ready.indices {
        let subject = ready[(turn + round) % ready.count]
        for measure in measures {
          progress.step("round \(round + 1) of \(rounds): \(subject.entry.name), \(measure.rawValue)")
          do {
            try self.turn(of: subject, ready, progress).take(measure, &report)
          } catch {
            if Cleanup.hasBegun { throw error }
            report.warn("\(subject.entry.name), \(measure.rawValue): \(error)")
            progress.note("\(subject.entry.name), \(measure.rawValue): \(error)")
          }
        }
        if round == 0 { firstPeaks[subject.entry.name] = peak(subject) }
      }
    }
    for subject in ready {
      guard let peak = peak(subject) else { continue }
      report.add(Double(peak) / 1_048_576, .memory, of: subject.entry)
      if rounds > 1, let first = firstPeaks[subject.entry.name] {
        report.add(Double(peak - first) / 1_048_576, .memoryGrowth, of: subject.entry)
      }
    }
    for warning in quiet.warnings() { report.warn(warning) }
    if profile { takeProfiles(ready, progress, &report) }
    progress.finish()
    report.warnOfNoise(["tcp-1", "udp-64", "udp-1350", "ping-p50"])
  }

  /// Those that came up.
  private func setUp(
    _ chosen: [any Subject], _ progress: Progress, _ report: inout Report
  ) throws -> [any Subject] {
    var ready: [any Subject] = []
    for subject in chosen {
      progress.step("setting up \(subject.entry.name)")
      do {
        try subject.setUp(network)
        ready.append(subject)
      } catch {
        if Cleanup.hasBegun { throw error }
        subject.tearDown()
        report.warn("not measured: \(error)")
        progress.note("not measured: \(error)")
      }
    }
    return ready
  }

  private func turn(of subject: any Subject, _ ready: [any Subject], _ progress: Progress) -> SubjectTurn {
    SubjectTurn(subject: subject, others: ready, network: network, seconds: seconds, pings: pings, progress: progress)
  }

  /// The most that one of a subject's processes held since all were up, bytes.
  private func peak(_ subject: any Subject) -> Int? { subject.processes.compactMap { $0.usage?.peakResident }.max() }

  private func takeProfiles(_ ready: [any Subject], _ progress: Progress, _ report: inout Report) {
    if let obstacle = Profile.obstacle { return report.warn(obstacle) }
    for subject in ready where subject.isProfiled {
      progress.note("profile of \(subject.entry.name)")
      do {
        report.profiles = (report.profiles ?? []) + [try turn(of: subject, ready, progress).profile()]
      } catch {
        report.warn("\(error)")
      }
    }
  }
}
