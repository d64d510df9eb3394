/// Who of many has something to be done, a bounded number at a time: whoever is left over comes first the next time.
package struct RoundRobin: Sendable {
  /// Where the next round begins.
  private var first = 0
  private var step = 0
  private var visited = 0

  package init() {}

  /// Begins a round.
  package mutating func begin() {
    step = 0
    visited = 0
  }

  /// The next who is due; nil when all were looked at, or `limit` were found in this round.
  ///
  /// - Parameter count: how many there are; the same in all of a round.
  package mutating func next(of count: Int, limit: Int, where isDue: (Int) -> Bool) -> Int? {
    while step < count, visited < limit {
      let place = (first + step) % count
      step += 1
      guard isDue(place) else { continue }
      visited += 1
      if visited == limit { first = (place + 1) % count }
      return place
    }
    return nil
  }
}
