import Lab

/// Whether the machine was ours while we measured.
struct Quiet {
  /// Processor time used by anybody while nothing was measured, as a share of one core; one value a look.
  private var busy = Samples()
  private let cores: Int
  private let began = monotonicSeconds()
  private let stolenBefore = ProcFile.stolenSeconds
  /// More than what idle tunnels, the kernel's housekeeping and a look at the clock need.
  static let limit = 0.1
  /// Share of all cores that the hypervisor may give to others.
  static let stolenLimit = 0.02

  init(cores: Int) { self.cores = cores }

  /// Waits for half a second, in which we do nothing.
  mutating func look() {
    let (time, work) = (monotonicSeconds(), ProcFile.busySeconds)
    pause(seconds: 0.5)
    busy.append((ProcFile.busySeconds - work) / (monotonicSeconds() - time))
  }

  /// What makes the figures doubtful; empty when nothing does.
  func warnings() -> [String] {
    let elapsed = monotonicSeconds() - began
    let stolen = elapsed > 0 ? (ProcFile.stolenSeconds - stolenBefore) / elapsed / Double(cores) : 0
    return Quiet.warnings(busy: busy.median, most: busy.max, stolen: stolen)
  }

  /// - Parameters:
  ///   - busy: share of one core that others used, the median.
  ///   - most: the same, at worst.
  ///   - stolen: share of all cores' time.
  static func warnings(busy: Double, most: Double, stolen: Double) -> [String] {
    var words: [String] = []
    if busy > limit || most > 5 * limit {
      words.append(
        "other programs used \(fixed(busy * 100, 0)) % of a core between measurements (at most \(fixed(most * 100, 0)) "
          + "%): the machine is too busy to judge by these figures")
    }
    if stolen > stolenLimit {
      words.append(
        "the hypervisor gave \(fixed(stolen * 100, 0)) % of the processor time to others: trust ratios only")
    }
    return words
  }
}
