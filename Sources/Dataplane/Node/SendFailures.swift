import PacketIO

/// The paths on which sending fails: a path that fails packet after packet is news once, and once more when it has
/// stopped to fail.
struct SendFailures {
  /// Paths at a time; those beyond are counted by their transports only.
  static let capacity = 64
  /// Nanoseconds without a failure after which a path counts as recovered, and between two pieces of news of one.
  static let quiet: UInt64 = 5_000_000_000

  private struct Row {
    let path: Path
    var error: Int32
    var told: MonotonicTime
    var last: MonotonicTime
    var untold: UInt64
  }
  private var rows: [Row] = []

  /// Notes failures on a path. Returns whether they are news.
  ///
  /// - Parameters:
  ///   - error: a positive errno.
  ///   - count: how many there were.
  mutating func note(_ path: Path, error: Int32, count: Int, now: MonotonicTime) -> Bool {
    guard let index = rows.firstIndex(where: { $0.path == path }) else {
      guard rows.count < SendFailures.capacity else { return false }
      rows.append(Row(path: path, error: error, told: now, last: now, untold: UInt64(clamping: count - 1)))
      return true
    }
    rows[index].last = now
    let isNews = rows[index].error != error && now.nanoseconds(since: rows[index].told) >= SendFailures.quiet
    rows[index].untold &+= UInt64(clamping: isNews ? count - 1 : count)
    if isNews { (rows[index].error, rows[index].told) = (error, now) }
    return isNews
  }

  /// Paths that have not failed for a while, each once, with the failures that were no news.
  mutating func takeRecovered(now: MonotonicTime) -> [(path: Path, untold: UInt64)] {
    guard !rows.isEmpty else { return [] }
    let recovered = rows.filter { now.nanoseconds(since: $0.last) >= SendFailures.quiet }
    rows.removeAll { now.nanoseconds(since: $0.last) >= SendFailures.quiet }
    return recovered.map { ($0.path, $0.untold) }
  }
}
