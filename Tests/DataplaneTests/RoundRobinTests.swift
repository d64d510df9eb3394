import Testing

@testable import Dataplane

/// Bounded rounds over many, against a list of who waits.
@Suite struct RoundRobinTests {
  private func round(_ robin: inout RoundRobin, of count: Int, limit: Int, _ isDue: (Int) -> Bool) -> [Int] {
    robin.begin()
    var found: [Int] = []
    while let place = robin.next(of: count, limit: limit, where: isDue) { found.append(place) }
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
      for _ in 0..<30 {
        let found = round(&robin, of: count, limit: limit) { due.contains($0) }
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
    #expect(round(&robin, of: 10, limit: 7) { _ in true } == Array(0..<7))
    #expect(round(&robin, of: 3, limit: 7) { _ in true } == [1, 2, 0])
    #expect(round(&robin, of: 0, limit: 7) { _ in true } == [])
    #expect(round(&robin, of: 4, limit: 2) { _ in true } == [3, 0])
  }
}
