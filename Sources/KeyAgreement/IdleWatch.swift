import PacketIO

/// Since when there was no traffic with whom: what decides whether keys are to go for want of it.
struct IdleWatch {
  private var seen: [String: (packets: UInt64, at: MonotonicTime)] = [:]

  /// - Parameter packets: users' packets so far, both ways; fewer than before: the counting has begun anew.
  /// - Returns: time without one, as far as was watched.
  mutating func note(_ name: String, packets: UInt64, now: MonotonicTime) -> Duration {
    if let last = seen[name], last.packets == packets { return .nanoseconds(now.nanoseconds(since: last.at)) }
    seen[name] = (packets, now)
    return .zero
  }

  mutating func forget(_ name: String) { seen[name] = nil }

  /// Time after which it is looked again, for one that is closed after so long without traffic.
  static func interval(_ idleClose: Duration) -> Duration { min(max(idleClose / 10, .seconds(1)), .seconds(60)) }
}
