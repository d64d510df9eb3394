import PacketIO

/// When a stream that could not be opened, or was lost, is opened again: after a delay that doubles with each failure
/// and is never quite the same, so that many gateways do not come back at one moment.
struct Redial: BitwiseCopyable, Equatable {
  /// Nanoseconds before the first and the longest wait, of which a random part of up to one half is left out.
  static let shortest: UInt64 = 250_000_000
  static let longest: UInt64 = 30_000_000_000

  /// Failures in a row.
  private(set) var failures = 0
  /// Not before then.
  private(set) var notBefore = MonotonicTime(nanoseconds: 0)

  func isDue(_ now: MonotonicTime) -> Bool { now >= notBefore }

  /// The stream could not be opened, or is gone.
  ///
  /// - Parameter random: any number.
  mutating func failed(_ now: MonotonicTime, random: UInt64) {
    // The shift must not lose bits; the longest wait is reached long before.
    let delay = min(Redial.shortest << UInt64(min(failures, 16)), Redial.longest)
    notBefore = now.adding(nanoseconds: delay - random % (delay / 2 + 1))
    failures += 1
  }

  /// The stream has proved to lead to a partner. That it could be opened proves nothing.
  mutating func succeeded() { failures = 0 }
}
