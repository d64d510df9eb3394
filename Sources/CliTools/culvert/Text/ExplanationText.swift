import Dataplane

extension Explanation {
  /// What `culvert explain` prints: what each step found, and what it comes to.
  var text: String {
    let width = Step.Name.allCases.map(\.rawValue.count).max() ?? 0
    let lines = steps.map { step in
      step.name.rawValue + String(repeating: " ", count: width - step.name.rawValue.count + 2) + step.finding
    }
    return (lines + [outcome]).joined(separator: "\n")
  }

  private var outcome: String {
    if let drop { return "dropped: \(drop.name)" }
    if direction == .inbound { return "arrives from \(peer ?? "its peer")" }
    return "goes to \(peer ?? "its peer") in \(packets == 1 ? "one packet" : "\(packets) packets")"
  }
}
