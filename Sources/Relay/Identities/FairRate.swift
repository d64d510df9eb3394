import PacketIO

/// A rate that many share: what each of them may have when all others get what they want, or as much (max-min fairness;
/// D. Bertsekas, R. Gallager, "Data Networks", 1992, §6.5.2). It is found anew ten times a second, from what each has
/// offered; as long as there is enough for all, nobody is above his share.
struct FairRate: ~Copyable {
  struct Row: BitwiseCopyable {
    /// Bytes since the last look.
    var offered = 0
    /// When all that has passed would have left at the share.
    var due = MonotonicTime(nanoseconds: 0)
  }

  private static let interval: UInt64 = 100_000_000
  /// Rounds of a look. Each leaves those who want more than an equal part, so few do.
  private static let rounds = 16
  /// Seconds.
  private static let longestDebt = 10.0

  private let bytesPerSecond: Double
  private let burst: Double
  private var rows: FixedArray<Row>
  /// Who has offered something since the last look.
  private var active: [Int] = []
  private var lastLook: MonotonicTime
  /// Bytes a second of each; nil: there is enough for all.
  private var share: Double?

  /// - Parameters:
  ///   - burst: bytes that each may have at once.
  ///   - holders: as many as there may be; without a rate there is nothing to share.
  init(bytesPerSecond: Double, burst: Double, holders: Int, now: MonotonicTime) {
    self.bytesPerSecond = bytesPerSecond
    self.burst = burst
    rows = FixedArray(repeating: Row(), count: bytesPerSecond > 0 ? holders : 0)
    lastLook = now
  }

  /// Whether so much is within a holder's share.
  @inline(__always) mutating func offer(_ bytes: Int, by holder: Int, now: MonotonicTime) -> Bool {
    if now.nanoseconds(since: lastLook) >= FairRate.interval { look(now) }
    if rows[holder].offered == 0 { active.append(holder) }
    rows[holder].offered &+= bytes
    guard let share else { return true }
    return Double(rows[holder].due.nanoseconds(since: now)) / 1e9 * share <= burst
  }

  /// What has passed.
  @inline(__always) mutating func take(_ bytes: Int, by holder: Int, now: MonotonicTime) {
    guard let share else { return }
    let begin = max(rows[holder].due, now)
    // Who is above his share got what others have left: that is no debt.
    guard Double(begin.nanoseconds(since: now)) / 1e9 * share <= burst else { return }
    rows[holder].due = begin.adding(seconds: min(Double(bytes) / share, FairRate.longestDebt))
  }

  private mutating func look(_ now: MonotonicTime) {
    let seconds = Double(now.nanoseconds(since: lastLook)) / 1e9
    lastLook = now
    var wanted = active.map { Double(rows[$0].offered) }
    for holder in active { rows[holder].offered = 0 }
    active.removeAll(keepingCapacity: true)
    var left = bytesPerSecond * seconds
    for _ in 0..<FairRate.rounds where !wanted.isEmpty {
      let part = left / Double(wanted.count)
      let more = wanted.filter { $0 > part }
      if more.count == wanted.count { break }
      left -= wanted.reduce(0) { $0 + ($1 > part ? 0 : $1) }
      wanted = more
    }
    share = wanted.isEmpty ? nil : left / Double(wanted.count) / seconds
  }
}
