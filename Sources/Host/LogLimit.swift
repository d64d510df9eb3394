package import PacketIO

/// Keeps a log from growing without bound, whatever peers and strangers do: each subject may have a few lines at once
/// and one every ten seconds after that, and all of them together a hundred at once and one every five seconds. The
/// newest event of a subject that was put off is logged later, with the number of those left out.
///
/// Of those that wait, the holder has the next line who has had none for longest: however much a peer gives cause for,
/// the others are heard of.
///
/// At that rate, and 200 bytes a line, a year makes 1.3 GB (`linesOfAYear`).
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
    let holder: String
    var allowance: Allowance
    var newest: Event?
    var leftOut: UInt64 = 0
    /// Since when it waits, as `served` counts.
    var since: UInt64 = 0
  }

  private static var burst: Double { 100 }
  private static var perSecond: Double { 0.2 }
  /// At most.
  package static var linesOfAYear: Double { burst + perSecond * 365 * 86_400 }

  /// Subjects that are remembered. Beyond these, events are only counted.
  private let capacity: Int
  private var all: Allowance
  private var subjects: [String: Subject] = [:]
  /// Subjects of which something was put off.
  private var waiting = 0
  /// When each holder had its last line, in lines and events put off.
  private var served: [String: UInt64] = [:]
  private var clock: UInt64 = 0
  private var lastSweep = MonotonicTime(nanoseconds: 0)
  /// Events of which nothing but their number is left.
  private var forgotten: UInt64 = 0

  package init(capacity: Int = 1024, now: MonotonicTime) {
    self.capacity = capacity
    all = Allowance(burst: LogLimit.burst, perSecond: LogLimit.perSecond, now: now)
  }

  /// Whether an event is to be logged now; otherwise it is put off.
  /// - Parameter holder: who gives cause for it; nil: the subject is somebody of its own.
  package mutating func admit(
    _ event: Event, about name: String, of holder: String? = nil, now: MonotonicTime
  ) -> Bool {
    all.refill(now: now)
    guard subjects[name] != nil || makeRoom(now: now) else {
      forgotten += 1
      return false
    }
    var subject =
      subjects[name]
      ?? Subject(holder: holder ?? name, allowance: Allowance(burst: 5, perSecond: 0.1, now: now))
    defer { subjects[name] = subject }
    subject.allowance.refill(now: now)
    clock += 1
    // What was put off comes first, with `due`.
    if subject.newest == nil, subject.allowance.tokens >= 1, all.tokens >= 1 + Double(waiting) {
      subject.allowance.tokens -= 1
      all.tokens -= 1
      served[subject.holder] = clock
      return true
    }
    if subject.newest != nil {
      subject.leftOut += 1
    } else {
      waiting += 1
      subject.since = clock
    }
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
    let holders = Set(subjects.values.map(\.holder))
    served = served.filter { holders.contains($0.key) }
    return subjects.count < capacity
  }

  /// Events that were put off and may be logged now, each with the number of those about its subject that never will be.
  package mutating func due(now: MonotonicTime) -> [(event: Event, leftOut: UInt64)] {
    all.refill(now: now)
    var due: [(event: Event, leftOut: UInt64)] = []
    for name in inTurn(now: now) where all.tokens >= 1 {
      guard var subject = subjects[name], let event = subject.newest else { continue }
      subject.allowance.tokens -= 1
      all.tokens -= 1
      clock += 1
      served[subject.holder] = clock
      due.append((event, subject.leftOut))
      (subject.newest, subject.leftOut) = (nil, 0)
      waiting -= 1
      subjects[name] = subject
    }
    return due
  }

  /// Subjects that may have a line now: the first of each holder, then the second of each; among these, who has had none
  /// for longest.
  private mutating func inTurn(now: MonotonicTime) -> [String] {
    guard all.tokens >= 1, waiting > 0 else { return [] }
    var ready: [(name: String, holder: String, since: UInt64)] = []
    for (name, var subject) in subjects where subject.newest != nil {
      subject.allowance.refill(now: now)
      guard subject.allowance.tokens >= 1 else { continue }
      subjects[name] = subject
      ready.append((name, subject.holder, subject.since))
    }
    var counts: [String: UInt64] = [:]
    let turns = ready.sorted { $0.since < $1.since }.map { entry in
      defer { counts[entry.holder, default: 0] += 1 }
      return (name: entry.name, turn: (counts[entry.holder] ?? 0, served[entry.holder] ?? 0, entry.since))
    }
    return turns.sorted { $0.turn < $1.turn }.map(\.name)
  }

  /// How many events were only counted, since the last call.
  package mutating func takeForgotten() -> UInt64 {
    defer { forgotten = 0 }
    return forgotten
  }
}
