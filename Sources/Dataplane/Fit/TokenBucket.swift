import PacketIO

/// Limits a rate: `burst` at once, `perSecond` in the long run.
struct TokenBucket: BitwiseCopyable {
  private let interval: UInt64
  private let capacity: UInt64
  /// When the bucket would be full, in nanoseconds; tokens are counted in time.
  private var fullAt: UInt64 = 0

  init(perSecond: UInt64, burst: UInt64) {
    interval = 1_000_000_000 / max(perSecond, 1)
    capacity = interval * burst
  }

  /// Takes one token; false when there is none.
  mutating func take(now: MonotonicTime) -> Bool {
    let base = max(fullAt, now.nanoseconds)
    guard base &+ interval &- now.nanoseconds <= capacity else { return false }
    fullAt = base &+ interval
    return true
  }
}
