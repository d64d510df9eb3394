import Lab

/// What many peers cost a dataplane, each number of them in processes of their own: see `CrowdGatewayCommand`.
enum CrowdReport {
  /// By the names under which such a process prints them.
  private static let metrics: [(figure: String, metric: Report.Metric)] = [
    ("resident", metric("resident", "Resident memory", "MiB")),
    ("growth", metric("growth", "Growth over 100 times the same configuration", "MiB")),
    ("apply", metric("apply", "Time to apply what is in force", "ms")),
    ("idle", metric("idle", "Processor time of a second without traffic", "ms")),
    ("rekey-cpu", metric("rekey-cpu", "One peer's new associations, processor time", "ms")),
    ("rekey-turn", metric("rekey-turn", "One peer's new associations, longest turn", "µs")),
    ("add-cpu", metric("add-cpu", "A peer more, processor time", "ms")),
    ("add-turn", metric("add-turn", "A peer more, longest turn", "µs")),
    ("remove-cpu", metric("remove-cpu", "A peer less, processor time", "ms")),
    ("remove-turn", metric("remove-turn", "A peer less, longest turn", "µs")),
    ("agree-cpu", metric("agree-cpu", "An agreement on addresses, processor time", "ms")),
    ("agree-turn", metric("agree-turn", "An agreement on addresses, longest turn", "µs")),
    ("statistics", metric("statistics", "Statistics of one peer", "µs")),
  ]

  private static func metric(_ id: String, _ title: String, _ unit: String) -> Report.Metric {
    Report.Metric(id: "crowd-\(id)", title: title, unit: unit, higherIsBetter: false)
  }

  static func measure(_ sizes: [Int], rounds: Int) throws -> Report {
    var report = Report(scenario: "scale-gateways")
    var kinds: [(peers: Int, paths: Int)] = []
    for size in sizes where !kinds.contains(where: { $0.peers == size }) { kinds += [(size, 1), (size, 0)] }
    report.subjects = kinds.map { kind in
      Report.Entry(
        name: "\(kind.peers) peers, \(kind.paths == 0 ? "no paths" : "a path each")", isBound: false, note: nil)
    }
    let progress = Progress(total: rounds * kinds.count)
    for round in 0..<rounds {
      for (kind, subject) in zip(kinds, report.subjects) {
        progress.step("round \(round + 1) of \(rounds): \(subject.name)")
        let figures = try run(kind)
        for (figure, metric) in metrics { if let value = figures[figure] { report.add(value, metric, of: subject) } }
      }
    }
    progress.finish()
    return report
  }

  private static func run(_ kind: (peers: Int, paths: Int)) throws -> [String: Double] {
    let namespace = try Namespace("crowd")
    defer { namespace.remove() }
    let text = try Tool.run(
      Tool.thisProgram, ["crowd-gateway", "--peers", "\(kind.peers)", "--paths", "\(kind.paths)"], in: namespace)
    var figures: [String: Double] = [:]
    for line in text.split(separator: "\n") {
      let parts = line.split(separator: "=")
      if parts.count == 2 { figures[String(parts[0])] = Double(parts[1]) }
    }
    return figures
  }
}
