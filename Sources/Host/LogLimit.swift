package import PacketIO

/// Keeps a log from growing without bound, whatever peers and strangers do: each subject may have a few lines at once
/// and one every ten seconds after that, and all of them together a hundred at once and one every five seconds. The
/// newest event of a subject that was put off is logged later, with the number of those left out.
///
/// At that rate, and 200 bytes a line, a year makes 1.3 GB.
package struct LogLimit<Event> {
  /// Tokens that come back with time.
  private struct Allowance {
    let burst: Double
    let perSecond: Double
    var tokens: Double
    var counted: MonotonicTime

    init(burst: Double, perSecond: Double, now: MonotonicTime) {
      (self.burst, self.perSecond, tokens, counted) = (burst, perSecond, burst, now)
    }

    mutating func refill(now: MonotonicTime) {
      tokens = min(burst, tokens + Double(now.nanoseconds(since: counted)) / 1e9 * perSecond)
      counted = now
    }
  }

  private struct Subject {
    var allowance: Allowance
    var newest: Event?
    var leftOut: UInt64 = 0
  }

  /// Subjects that are remembered. Beyond these, events are only counted.
  private let capacity: Int
  private var all: Allowance
  private var subjects: [String: Subject] = [:]
  private var lastSweep = MonotonicTime(nanoseconds: 0)
  /// Events of which nothing but their number is left.
  private var forgotten: UInt64 = 0

  package init(capacity: Int = 1024, now: MonotonicTime) {
    self.capacity = capacity
    all = Allowance(burst: 100, perSecond: 0.2, now: now)
  }

  /// Whether an event is to be logged now; otherwise it is put off.
  package mutating func admit(_ event: Event, about name: String, now: MonotonicTime) -> Bool {
    all.refill(now: now)
    guard subjects[name] != nil || makeRoom(now: now) else {
      forgotten += 1
      return false
    }
    var subject = subjects[name] ?? Subject(allowance: Allowance(burst: 5, perSecond: 0.1, now: now))
    defer { subjects[name] = subject }
    subject.allowance.refill(now: now)
    // What was put off comes first, with `due`.
    if subject.newest == nil, subject.allowance.tokens >= 1, all.tokens >= 1 {
      subject.allowance.tokens -= 1
      all.tokens -= 1
      return true
    }
    if subject.newest != nil { subject.leftOut += 1 }
    subject.newest = event
    return false
  }

  private mutating func makeRoom(now: MonotonicTime) -> Bool {
    if subjects.count < capacity { return true }
    guard now.nanoseconds(since: lastSweep) >= 1_000_000_000 else { return false }
    lastSweep = now
    for (name, var subject) in subjects where subject.newest == nil {
      subject.allowance.refill(now: now)
      if subject.allowance.tokens >= subject.allowance.burst { subjects[name] = nil }
    }
    return subjects.count < capacity
  }

  /// Events that were put off and may be logged now, each with the number of those about its subject that never will be.
  package mutating func due(now: MonotonicTime) -> [(event: Event, leftOut: UInt64)] {
    all.refill(now: now)
    var due: [(event: Event, leftOut: UInt64)] = []
    for (name, var subject) in subjects where all.tokens >= 1 {
      guard let event = subject.newest else { continue }
      subject.allowance.refill(now: now)
      guard subject.allowance.tokens >= 1 else { continue }
      subject.allowance.tokens -= 1
      all.tokens -= 1
      due.append((event, subject.leftOut))
      (subject.newest, subject.leftOut) = (nil, 0)
      subjects[name] = subject
    }
    return due
  }

  /// How many events were only counted, since the last call.
  package mutating func takeForgotten() -> UInt64 {
    defer { forgotten = 0 }
    return forgotten
  }
}
