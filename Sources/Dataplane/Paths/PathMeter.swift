import PacketIO

/// What is known of one path to a peer: whether probes come back, how fast, how many get lost.
///
/// A probe is lost when its answer has not come within the retransmission timeout of RFC 6298 §2. An answer that comes
/// later still proves that the path lives.
package struct PathMeter: Sendable {
  struct Outstanding: BitwiseCopyable {
    var number: UInt64 = 0
    var sentAt = MonotonicTime(nanoseconds: 0)
    var isJudged = true
  }

  /// Probes that an answer is still accepted for; older ones are forgotten.
  private static let capacity = 16
  static let shortestTimeout: UInt64 = 150_000_000
  static let longestTimeout: UInt64 = 3_000_000_000
  /// Until the first answer (RFC 6298 §2.1).
  static let firstTimeout: UInt64 = 1_000_000_000

  private(set) var outstanding = InlineArray<16, Outstanding>(repeating: Outstanding())
  private var next = 0
  /// Answered ones of the newest 64 judged probes, the newest in the lowest bit.
  private var history: UInt64 = 0
  private(set) var judged = 0
  /// Nanoseconds; 0: not measured.
  package private(set) var roundTrip: UInt64 = 0
  private var variation: UInt64 = 0
  package private(set) var sent: UInt64 = 0
  package private(set) var answered: UInt64 = 0
  /// Probes lost since the last answer, and of those the ones sent since anything was heard.
  private(set) var losses = 0
  private(set) var silentLosses = 0
  private(set) var lastAnswer: MonotonicTime?
  private(set) var lastHeard: MonotonicTime?
  private var lastExpected: MonotonicTime?

  package init() {}

  /// The peer says that it is at the other end.
  mutating func expect(now: MonotonicTime) { lastExpected = now }

  /// When the peer was last heard, or said to be there.
  var lastSign: MonotonicTime? {
    guard let lastExpected else { return lastHeard }
    return max(lastHeard ?? lastExpected, lastExpected)
  }

  /// Begins to count anew; what is known of times stays.
  mutating func restart() {
    history = 0
    judged = 0
    losses = 0
    silentLosses = 0
  }

  var timeout: UInt64 {
    guard roundTrip > 0 else { return PathMeter.firstTimeout }
    return min(max(roundTrip &+ 4 &* variation, PathMeter.shortestTimeout), PathMeter.longestTimeout)
  }

  /// Whether a probe waits for its answer or its end.
  var isWaiting: Bool {
    for index in outstanding.indices where !outstanding[index].isJudged { return true }
    return false
  }

  /// Of the newest `count` judged probes, how many were lost; of all judged ones when there are fewer.
  func lost(ofLast count: Int) -> Int {
    let window = min(count, judged, 64)
    guard window > 0 else { return 0 }
    let mask = window == 64 ? UInt64.max : (1 << UInt64(window)) - 1
    return window - (history & mask).nonzeroBitCount
  }

  /// Share of the newest 32 probes that came to nothing, 0 to 1; nil before the first was judged.
  package var loss: Double? {
    judged > 0 ? Double(lost(ofLast: 32)) / Double(min(judged, 32)) : nil
  }

  mutating func send(_ number: UInt64, now: MonotonicTime) {
    if !outstanding[next].isJudged { lose(outstanding[next]) }
    outstanding[next] = Outstanding(number: number, sentAt: now, isJudged: false)
    next = (next + 1) % PathMeter.capacity
    sent &+= 1
  }

  /// The probe did not leave after all.
  mutating func withdraw(_ number: UInt64) {
    guard let index = place(number), !outstanding[index].isJudged else { return }
    outstanding[index] = Outstanding()
    sent &-= 1
  }

  /// False for a number that no probe of this path has.
  mutating func answer(_ number: UInt64, now: MonotonicTime) -> Bool {
    guard let index = place(number) else { return false }
    let probe = outstanding[index]
    if !probe.isJudged { record(true) }
    outstanding[index] = Outstanding()
    measure(now.nanoseconds(since: probe.sentAt))
    answered &+= 1
    losses = 0
    silentLosses = 0
    lastAnswer = now
    lastHeard = now
    return true
  }

  /// An authentic packet came by this path.
  mutating func hear(now: MonotonicTime) { hear(until: now) }

  /// The last packet by this path came then, if that is news.
  mutating func hear(until time: MonotonicTime) {
    guard time > lastHeard ?? MonotonicTime(nanoseconds: 0) else { return }
    lastHeard = time
    silentLosses = 0
  }

  /// Probes whose time is over are lost.
  mutating func judge(now: MonotonicTime) {
    let timeout = timeout
    for index in outstanding.indices where !outstanding[index].isJudged {
      guard now.nanoseconds(since: outstanding[index].sentAt) >= timeout else { continue }
      outstanding[index].isJudged = true
      lose(outstanding[index])
    }
  }

  private mutating func lose(_ probe: Outstanding) {
    record(false)
    losses += 1
    if probe.sentAt >= lastHeard ?? probe.sentAt { silentLosses += 1 }
  }

  private mutating func record(_ isAnswered: Bool) {
    history = history << 1 | (isAnswered ? 1 : 0)
    judged = min(judged + 1, 64)
  }

  private func place(_ number: UInt64) -> Int? {
    guard number != 0 else { return nil }
    for index in outstanding.indices where outstanding[index].number == number { return index }
    return nil
  }

  /// RFC 6298 §2.2 and §2.3.
  private mutating func measure(_ sample: UInt64) {
    let sample = max(sample, 1)
    if roundTrip == 0 {
      roundTrip = sample
      variation = sample / 2
    } else {
      let difference = roundTrip > sample ? roundTrip - sample : sample - roundTrip
      variation = (variation &* 3 &+ difference) / 4
      roundTrip = max((roundTrip &* 7 &+ sample) / 8, 1)
    }
  }
}
