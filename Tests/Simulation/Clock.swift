import PacketIO

@testable import Dataplane

/// What can happen at a moment. What concerns a gateway that was started anew since is forgotten: `life` tells.
enum Occurrence {
  /// A datagram gets to the end of a link.
  case arrival(Flight)
  /// The hosts behind a gateway send.
  case traffic(gateway: Int)
  /// A worker's timers.
  case timers(gateway: Int, worker: Int, life: Int)
  /// A worker is told that others have handed it something.
  case wake(gateway: Int, worker: Int, life: Int)
  /// The time of whoever negotiates addresses.
  case negotiation(gateway: Int, life: Int)
  /// A worker takes other tables over.
  case adoption(gateway: Int, worker: Int, life: Int, Transition, Configuration)
  /// A worker's transport hears that packets of more than so many bytes are refused.
  case refusal(gateway: Int, worker: Int, life: Int, Path, size: Int, QuotedPacket)
  /// The time of the relay, or of a gateway's sessions with it.
  case hairpins(place: Int)
  /// Something that a scenario or the weather has planned.
  case step((Network) -> Void)
}

/// The only time there is, and what is to happen. What happens at one moment does so in the order in which it was planned.
struct Clock {
  private struct Entry {
    let time: UInt64
    let order: UInt64
    let occurrence: Occurrence

    func isBefore(_ other: Entry) -> Bool { time != other.time ? time < other.time : order < other.order }
  }

  private(set) var now = MonotonicTime(nanoseconds: 100_000_000_000)
  /// A heap: each entry is before the two at twice its place.
  private var entries: [Entry] = []
  private var planned: UInt64 = 0

  mutating func plan(_ occurrence: Occurrence, after nanoseconds: UInt64) {
    plan(occurrence, at: now.adding(nanoseconds: nanoseconds))
  }

  mutating func plan(_ occurrence: Occurrence, at time: MonotonicTime) {
    planned += 1
    entries.append(Entry(time: max(time, now).nanoseconds, order: planned, occurrence: occurrence))
    var child = entries.count - 1
    while child > 0, case let parent = (child - 1) / 2, entries[child].isBefore(entries[parent]) {
      entries.swapAt(child, parent)
      child = parent
    }
  }

  /// Goes to what happens next and takes it out; nil, and at `end`, when nothing does until then.
  mutating func next(until end: MonotonicTime) -> Occurrence? {
    guard let first = entries.first, first.time <= end.nanoseconds else {
      now = max(now, end)
      return nil
    }
    now = MonotonicTime(nanoseconds: first.time)
    removeFirst()
    return first.occurrence
  }

  /// Takes out an arrival that happens now and next, if it is at that gateway.
  mutating func nextArrival(at gateway: Int) -> Flight? {
    guard let first = entries.first, first.time == now.nanoseconds, case .arrival(let flight) = first.occurrence,
      flight.to.gateway == gateway
    else { return nil }
    removeFirst()
    return flight
  }

  /// How many things are planned that `matches` says true of.
  func count(where matches: (Occurrence) -> Bool) -> Int {
    entries.reduce(0) { $0 + (matches($1.occurrence) ? 1 : 0) }
  }

  private mutating func removeFirst() {
    let last = entries.removeLast()
    guard !entries.isEmpty else { return }
    entries[0] = last
    var parent = 0
    while true {
      var least = parent
      for child in [2 * parent + 1, 2 * parent + 2] where child < entries.count {
        if entries[child].isBefore(entries[least]) { least = child }
      }
      guard least != parent else { return }
      entries.swapAt(parent, least)
      parent = least
    }
  }
}
