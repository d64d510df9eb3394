import Testing

@testable import Dataplane

/// Bounded rounds over many, against a list of who waits.
@Suite struct RoundRobinTests {
  private func round(_ robin: inout RoundRobin, of rows: Set<Int>, limit: Int, _ isDue: (Int) -> Bool) -> [Int] {
    let set = RowSet(capacity: 200)
    for row in rows { set.insert(row) }
    robin.begin()
    var found: [Int] = []
    while let place = robin.next(in: set, limit: limit, where: isDue) { found.append(place) }
    return found
  }

  /// Whoever is due, and stays so until visited, has its turn before anybody has a second one.
  @Test func allGetTheirTurn() {
    var numbers = SeededNumbers(seed: 5)
    for _ in 0..<200 {
      let (count, limit) = (Int.random(in: 1...40, using: &numbers), Int.random(in: 1...12, using: &numbers))
      var robin = RoundRobin()
      var waits = (0..<count).map { _ in 0 }
      var due = Set((0..<count).filter { _ in numbers.next() & 1 == 0 })
      for step in 0..<30 {
        // Whoever is not among the rows is not looked at, and of those who are, some are not due.
        let rows = step % 2 == 0 ? due : Set(0..<count)
        let found = round(&robin, of: rows, limit: limit) { due.contains($0) }
        #expect(found.count == min(limit, due.count) && Set(found).count == found.count)
        #expect(Set(found).isSubset(of: due))
        for place in 0..<count { waits[place] = due.contains(place) && !found.contains(place) ? waits[place] + 1 : 0 }
        // All who are there cannot be ahead of one for longer than it takes to visit them all.
        #expect(waits.max() ?? 0 <= (count + limit - 1) / limit)
        for place in 0..<count where numbers.next() & 3 == 0 { due.insert(place) }
        for place in found where numbers.next() & 1 == 0 { due.remove(place) }
      }
    }
  }

  @Test func thereMayBeFewerThanBefore() {
    var robin = RoundRobin()
    #expect(round(&robin, of: Set(0..<10), limit: 7) { _ in true } == Array(0..<7))
    #expect(round(&robin, of: Set(0..<10), limit: 2) { _ in true } == [7, 8])
    #expect(round(&robin, of: [0, 1, 2], limit: 7) { _ in true } == [0, 1, 2])
    #expect(round(&robin, of: [], limit: 7) { _ in true } == [])
    #expect(round(&robin, of: Set(0..<4), limit: 2) { _ in true } == [0, 1])
    #expect(round(&robin, of: Set(0..<4), limit: 2) { _ in true } == [2, 3])
  }

  /// Whoever is asked about may leave.
  @Test func whoIsAskedMayLeave() {
    var robin = RoundRobin()
    let rows = RowSet(capacity: 100)
    for row in [3, 64, 70, 99] { rows.insert(row) }
    robin.begin()
    var found: [Int] = []
    func isDue(_ row: Int) -> Bool {
      if row == 64 { rows.remove(row) }
      return row != 64
    }
    while let row = robin.next(in: rows, limit: 9, where: isDue) { found.append(row) }
    #expect(found == [3, 70, 99])
    let isIn = rows.contains(64)
    #expect(!isIn)
  }
}
