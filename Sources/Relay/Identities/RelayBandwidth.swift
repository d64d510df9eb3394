import Identity
import PacketIO

/// How much may pass of all pairs together, and how much of each pair's bandwidth its handshakes may take.
///
/// A pair's data waits for no handshake, and a new handshake is not to be lost because the data of before has used up
/// everything. So an eighth of what a pair has in each direction is for its handshakes, and what they take is missing for
/// data. Where nothing is bound yet there is no row that could keep count, so this does.
struct RelayBandwidth: ~Copyable {
  /// Which part of a pair's bandwidth its handshakes may take.
  private static let part: UInt64 = 8
  /// Bytes of them that may come at once: those of a few handshakes.
  private static let burst: UInt64 = 16_384

  private var total: TokenBucket
  private let totalBurst: Int
  /// When all handshake packets so far would have left at their rate, for each pair and direction. Two that share a place
  /// share what they may send; there are four times as many as pairs that fit, and which it is nobody can foresee.
  private var due: FixedArray<MonotonicTime>

  /// - Parameters:
  ///   - bitRate: of the whole relay; 0: no limit.
  ///   - pairs: as many as may be bound.
  init(bitRate: UInt64, pairs: Int, now: MonotonicTime) {
    totalBurst = max(Int(clamping: bitRate / 160), 65_536)
    total = TokenBucket(bitRate: bitRate, burst: UInt64(clamping: totalBurst), now: now)
    var places = 64
    while places < 4 * pairs { places *= 2 }
    due = FixedArray(repeating: MonotonicTime(nanoseconds: 0), count: places)
  }

  var isLimited: Bool { total.isLimited }

  /// Whether a class may send. The lowest loses first: each next one may use an eighth more of what can come at once.
  @inline(__always) mutating func admits(priority: UInt8, now: MonotonicTime) -> Bool {
    guard total.isLimited else { return true }
    return total.available(now: now) > totalBurst / 8 * (7 - Int(truncatingIfNeeded: min(priority, 7)))
  }

  /// Takes what passes from what all have.
  @inline(__always) mutating func take(_ bytes: Int) { total.take(bytes) }

  /// Whether a handshake packet passes; what it has is taken then.
  /// - Parameter bitRate: of the pair, in each direction; 0: no limit.
  mutating func admitsHandshake(
    _ bytes: Int, from sender: HostIdentityTag, to receiver: HostIdentityTag, bitRate: UInt64, now: MonotonicTime
  ) -> Bool {
    guard admits(priority: 7, now: now) else { return false }
    if bitRate > 0 {
      var hasher = Hasher()
      hasher.combine(sender)
      hasher.combine(receiver)
      let place = hasher.finalize() & (due.count - 1)
      let nanosecondsPerByte = Double(8 * RelayBandwidth.part) * 1e9 / Double(bitRate)
      let begin = max(due[place], now)
      guard Double(begin.nanoseconds(since: now)) <= nanosecondsPerByte * Double(RelayBandwidth.burst) else {
        return false
      }
      due[place] = begin.adding(seconds: nanosecondsPerByte * Double(bytes) / 1e9)
    }
    take(bytes)
    return true
  }
}
