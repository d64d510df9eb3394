/// Events in the order in which they came, of each subject the newest: what one costs does not hang on how many wait.
struct EventQueue {
  /// Nil: taken, or replaced by a newer one.
  private var events: [Event?] = []
  /// Those in front were taken.
  private var first = 0
  /// How many left the array's front for good: what a place in `places` counts from.
  private var gone = 0
  private var places: [String: Int] = [:]
  /// Those about no subject.
  private(set) var rateEvents = 0

  var count: Int { places.count + rateEvents }

  /// In place of the one about the same subject.
  mutating func append(_ event: Event) {
    if let subject = event.subject {
      if let old = places.updateValue(gone + events.count, forKey: subject) { events[old - gone] = nil }
    } else {
      rateEvents += 1
    }
    events.append(event)
    if events.count > 2 * count + 64 { close() }
  }

  mutating func popFirst() -> Event? {
    while first < events.count {
      defer { first += 1 }
      guard let event = events[first] else { continue }
      events[first] = nil
      if let subject = event.subject { places[subject] = nil } else { rateEvents -= 1 }
      return event
    }
    close()
    return nil
  }

  /// Closes the gaps.
  private mutating func close() {
    gone += events.count
    events = events.filter { $0 != nil }
    gone -= events.count
    first = 0
    for (place, event) in events.enumerated() { if let subject = event?.subject { places[subject] = gone + place } }
  }
}
