import PacketIO

/// Which peers are sent to and are not heard, although they were asked something.
struct SilenceWatch {
  enum Finding { case nothing, ask, tell }

  private struct Entry {
    /// It was heard, or not looked at, before.
    var since: MonotonicTime
    var asked: MonotonicTime
    var seen: MonotonicTime
  }

  private var entries: [Int: Entry] = [:]

  /// Nanoseconds of silence after which a peer is asked, each time, and is told of.
  private static let patience: UInt64 = 1_000_000_000
  private static let limit: UInt64 = 2_000_000_000

  /// Call it several times a second for whoever is sent to.
  mutating func look(_ row: Int, lastHeard: MonotonicTime?, now: MonotonicTime) -> Finding {
    guard var entry = entries[row], now.nanoseconds(since: entry.seen) < SilenceWatch.patience,
      (lastHeard ?? MonotonicTime(nanoseconds: 0)) < entry.since
    else {
      entries[row] = Entry(since: now, asked: now, seen: now)
      return .nothing
    }
    entry.seen = now
    defer { entries[row] = entry }
    if now.nanoseconds(since: entry.since) >= SilenceWatch.limit {
      entry.since = now
      return .tell
    }
    guard now.nanoseconds(since: entry.asked) >= SilenceWatch.patience else { return .nothing }
    entry.asked = now
    return .ask
  }
}
