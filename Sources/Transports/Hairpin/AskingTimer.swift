package import PacketIO

/// When a gateway says something once more to a proxy or a relay that has not answered, how long it waits before it begins
/// anew, and how often it shows that it is there: the same for hairpins and for enrolments.
package struct AskingTimer: Sendable {
  package static let second: UInt64 = 1_000_000_000
  /// After the first try of a message; it doubles with each.
  package static let firstPatience = second / 4
  private static let tries = 5
  private static let firstBackOff = second / 2
  /// With what a last try waits for, less than 20 s, a quarter more included: so soon whoever is there again is found.
  private static let longestBackOff = 10 * second
  /// A refusal does not change by asking often; what has changed is to be noticed as soon.
  package static let refusedBackOff = 15 * second
  /// Between two signs of life when nothing is wrong; less than any translator's patience (RFC 4787 §4.3).
  private static let longestHold = 15 * second
  private static let holdPatience = second / 2
  /// On a stream an answer may wait behind packets, and that the stream has ended is known without one.
  private static let holdPatienceOnStreams = 4 * second
  private static let holdTries = 3

  /// When there is something to do.
  package private(set) var deadline: MonotonicTime
  /// Nanoseconds that it waits after nobody has answered.
  package private(set) var backOff = firstBackOff
  /// Nanoseconds between two signs of life.
  package private(set) var holdInterval = longestHold
  /// How often the message that is under way was said.
  private var attempt = 0

  package init(now: MonotonicTime) { deadline = now }

  // MARK: Questions

  /// Whether a message was said so often that nobody will answer.
  package var isExhausted: Bool { attempt >= AskingTimer.tries }

  /// Another message is said from now on.
  package mutating func begin() { attempt = 0 }

  /// A message is said now.
  package mutating func say(now: MonotonicTime) {
    deadline = now.adding(nanoseconds: AskingTimer.firstPatience << UInt64(truncatingIfNeeded: attempt))
    attempt += 1
  }

  /// Waits so long before the next try, up to a quarter more or less so that gateways do not come in step, and longer the
  /// next time.
  package mutating func rest(_ time: UInt64, now: MonotonicTime, using random: inout some RandomNumberGenerator) {
    let quarter = time / 4
    deadline = now.adding(nanoseconds: time - quarter + UInt64.random(in: 0...(2 * quarter), using: &random))
    backOff = min(2 * backOff, AskingTimer.longestBackOff)
  }

  /// It was let in.
  package mutating func succeed() { backOff = AskingTimer.firstBackOff }

  // MARK: Signs of life

  /// - Parameter silence: seconds without a word after which the other side forgets this one.
  package mutating func expect(silence: UInt16) {
    holdInterval = min(AskingTimer.longestHold, max(UInt64(silence), 4) * AskingTimer.second / 4)
  }

  /// Whether so many signs of life have no answer that the other side is gone.
  package var isUnheard: Bool { attempt >= AskingTimer.holdTries }

  /// A sign of life is given now.
  package mutating func hold(onStream: Bool = false, now: MonotonicTime) {
    attempt += 1
    deadline = now.adding(nanoseconds: onStream ? AskingTimer.holdPatienceOnStreams : AskingTimer.holdPatience)
  }

  /// There is nothing to do before then.
  package mutating func sleep(until time: MonotonicTime) { deadline = time }

  /// There may be something to do sooner than planned.
  package mutating func hasten(to time: MonotonicTime) { deadline = min(deadline, time) }
}
