/// Who of many has something to be done, a bounded number at a time: whoever is left over comes first the next time.
struct RoundRobin: Sendable {
  /// Where the next round begins.
  private var first = 0
  private var place = 0
  /// Those behind `first` were looked at; now it is the turn of those before.
  private var isAtStart = false
  private var visited = 0

  /// Begins a round.
  mutating func begin() {
    place = first
    isAtStart = false
    visited = 0
  }

  /// The next who is due; nil when all were looked at, or `limit` were found in this round.
  ///
  /// - Parameter rows: whoever may be due. `isDue` may take out whom it is asked about.
  mutating func next(in rows: borrowing RowSet, limit: Int, where isDue: (Int) -> Bool) -> Int? {
    while visited < limit {
      guard let row = rows.first(from: place), !isAtStart || row < first else {
        if isAtStart { return nil }
        isAtStart = true
        place = 0
        continue
      }
      place = row + 1
      guard isDue(row) else { continue }
      visited += 1
      if visited == limit { first = row + 1 }
      return row
    }
    return nil
  }
}
