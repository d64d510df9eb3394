/// A rate with a burst (RFC 2697's idea of one colour): credit in bytes grows with time up to the burst, and what
/// passes takes it. It may be overdrawn by what was received at once; the debt is paid before more passes, so over
/// time the rate is exact.
package struct TokenBucket: BitwiseCopyable {
  /// Bytes a second; 0: no limit.
  private let rate: Double
  private let burst: Double
  private var credit: Double
  private var updated: MonotonicTime

  /// - Parameters:
  ///   - bitRate: bits a second; 0: no limit.
  ///   - burst: bytes; 0: what fits in 50 ms, 16 KiB at least.
  package init(bitRate: UInt64, burst: UInt64 = 0, now: MonotonicTime) {
    rate = Double(bitRate) / 8
    self.burst = burst > 0 ? Double(burst) : max(rate * 0.05, 16_384)
    credit = self.burst
    updated = now
  }

  /// Of things that are counted, each as a byte.
  /// - Parameter burst: how many may pass at once.
  package init(perSecond: UInt64, burst: UInt64) {
    rate = Double(max(perSecond, 1))
    self.burst = Double(burst)
    credit = self.burst
    updated = MonotonicTime(nanoseconds: 0)
  }

  package var isLimited: Bool { rate > 0 }

  /// Takes one, of what is counted; false when there is none.
  package mutating func takeOne(now: MonotonicTime) -> Bool {
    refill(now)
    // What has come together of many small parts may lack a rounding error.
    guard credit >= 1 - 1e-6 else { return false }
    credit -= 1
    return true
  }

  /// Bytes that may pass now; what passes may exceed them once. Without a limit, as many as there are numbers.
  package mutating func available(now: MonotonicTime) -> Int {
    guard rate > 0 else { return Int(Int32.max) }
    refill(now)
    return credit >= 1 ? Int(min(credit, Double(Int32.max))) : 0
  }

  package mutating func take(_ bytes: Int) {
    if rate > 0 { credit -= Double(bytes) }
  }

  /// When it is worth while to ask again: the debt is paid and a thirtieth of the burst there, or a millisecond's
  /// credit if that is less.
  package func opens(now: MonotonicTime) -> MonotonicTime {
    let wanted = max(1, min(burst / 32, rate / 1000))
    guard rate > 0, credit < wanted else { return now }
    // One more nanosecond than computed, so that rounding cannot make it ask in vain.
    return updated.adding(nanoseconds: UInt64((wanted - credit) / rate * 1e9) + 1)
  }

  private mutating func refill(_ now: MonotonicTime) {
    credit = min(burst, credit + Double(now.nanoseconds(since: updated)) / 1e9 * rate)
    if now > updated { updated = now }
  }
}
