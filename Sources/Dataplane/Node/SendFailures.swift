import PacketIO

/// The paths on which sending fails: a path that fails packet after packet is news once, and once more when something
/// was sent there and has not failed.
struct SendFailures {
  /// Paths at a time. One where nothing is sent any more makes room; those beyond are counted by their transports only.
  static let capacity = 64
  /// Nanoseconds without a failure since something was sent after which a path counts as recovered, and between two
  /// pieces of news of one.
  static let quiet: UInt64 = 5_000_000_000

  private struct Row {
    let path: Path
    var error: Int32
    var told: MonotonicTime
    var last: MonotonicTime
    var untold: UInt64
    /// When something was first sent there since.
    var tried: MonotonicTime?

    func isQuiet(_ now: MonotonicTime) -> Bool { now.nanoseconds(since: last) >= SendFailures.quiet }
    func isRecovered(_ now: MonotonicTime) -> Bool {
      isQuiet(now) && tried.map { now.nanoseconds(since: $0) >= SendFailures.quiet } ?? false
    }
  }
  private var rows: [Row] = []

  var isEmpty: Bool { rows.isEmpty }

  /// Notes failures on a path. Returns whether they are news.
  ///
  /// - Parameters:
  ///   - error: a positive errno.
  ///   - count: how many there were.
  mutating func note(_ path: Path, error: Int32, count: Int, now: MonotonicTime) -> Bool {
    guard let index = rows.firstIndex(where: { $0.path == path }) else {
      if rows.count == SendFailures.capacity {
        guard let oldest = rows.indices.min(by: { rows[$0].last < rows[$1].last }), rows[oldest].isQuiet(now) else {
          return false
        }
        rows.remove(at: oldest)
      }
      rows.append(Row(path: path, error: error, told: now, last: now, untold: UInt64(clamping: count - 1)))
      return true
    }
    (rows[index].last, rows[index].tried) = (now, nil)
    let isNews = rows[index].error != error && now.nanoseconds(since: rows[index].told) >= SendFailures.quiet
    rows[index].untold &+= UInt64(clamping: isNews ? count - 1 : count)
    if isNews { (rows[index].error, rows[index].told) = (error, now) }
    return isNews
  }

  /// Something is sent along a path.
  mutating func noteTry(_ path: Path, now: MonotonicTime) {
    guard let index = rows.firstIndex(where: { $0.path == path }), rows[index].tried == nil else { return }
    rows[index].tried = now
  }

  /// Paths that have not failed for a while though something was sent there, each once, with the failures that were no
  /// news.
  mutating func takeRecovered(now: MonotonicTime) -> [(path: Path, untold: UInt64)] {
    guard !rows.isEmpty else { return [] }
    let recovered = rows.filter { $0.isRecovered(now) }
    rows.removeAll { $0.isRecovered(now) }
    return recovered.map { ($0.path, $0.untold) }
  }
}

extension Event {
  /// - Parameter error: a positive errno.
  static func failure(on path: Path, _ error: Int32, _ tables: Snapshot) -> Event {
    .transportError(
      transport: Int(path.transport), path: path, peer: tables.peer(at: path),
      error: SystemError("send to \(path.endpoint)", errno: error))
  }

  static func recovery(of path: Path, untold: UInt64, _ tables: Snapshot) -> Event {
    .transportRecovered(transport: Int(path.transport), path: path, peer: tables.peer(at: path), untold: untold)
  }
}
