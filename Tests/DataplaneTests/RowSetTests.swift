import PacketIO
import Testing

@testable import Dataplane

/// Rows as bits, against a set.
@Suite struct RowSetTests {
  @Test(arguments: [1, 63, 64, 65, 200], 0..<3 as Range<UInt64>)
  func agreesWithASet(capacity: Int, seed: UInt64) {
    var numbers = SeededNumbers(seed: seed)
    let rows = RowSet(capacity: capacity)
    var oracle: Set<Int> = []
    for _ in 0..<400 {
      let row = Int.random(in: 0..<capacity, using: &numbers)
      switch Int.random(in: 0..<20, using: &numbers) {
      case 0..<9:
        rows.insert(row)
        oracle.insert(row)
      case 9..<18:
        rows.remove(row)
        oracle.remove(row)
      case 18:
        let others = RowSet(capacity: max(capacity / 2, 1))
        for _ in 0..<5 {
          let other = Int.random(in: 0..<max(capacity / 2, 1), using: &numbers)
          others.insert(other)
          oracle.insert(other)
        }
        rows.insert(others)
      default:
        rows.removeAll()
        oracle = []
      }
      let isIn = rows.contains(row)
      #expect(isIn == oracle.contains(row))
      let from = Int.random(in: 0..<capacity + 70, using: &numbers)
      let first = rows.first(from: from)
      #expect(first == oracle.filter { $0 >= from }.min())
    }
  }

  @Test func anEmptyOneHasNothing() {
    let rows = RowSet(capacity: 0)
    let (first, isIn) = (rows.first(from: 0), rows.contains(0))
    #expect(first == nil && !isIn)
  }
}

/// Deadlines of rows, against a dictionary.
@Suite struct RowDeadlinesTests {
  @Test(arguments: [1, 2, 7, 100], 0..<4 as Range<UInt64>)
  func agreesWithADictionary(capacity: Int, seed: UInt64) {
    var numbers = SeededNumbers(seed: seed)
    var deadlines = RowDeadlines(capacity: capacity)
    var oracle: [Int: UInt64] = [:]
    for step in 0..<2000 {
      let row = Int.random(in: 0..<capacity, using: &numbers)
      // Few different times, so that there are equal ones.
      let time = UInt64.random(in: 0..<40, using: &numbers)
      switch Int.random(in: 0..<6, using: &numbers) {
      case 0...2:
        deadlines.set(row, MonotonicTime(nanoseconds: time))
        oracle[row] = time
      case 3:
        // Never is no time.
        deadlines.set(row, step % 2 == 0 ? nil : MonotonicTime(nanoseconds: UInt64.max))
        oracle[row] = nil
      case 4:
        if let first = deadlines.first {
          deadlines.set(first.row, nil)
          oracle[first.row] = nil
        }
      default:
        var larger = RowDeadlines(capacity: capacity)
        larger.adopt(deadlines)
        deadlines = larger
      }
      let (count, isIn, first) = (deadlines.count, deadlines.contains(row), deadlines.first)
      #expect(count == oracle.count)
      #expect(isIn == (oracle[row] != nil))
      let expected = oracle.min { ($0.value, $0.key) < ($1.value, $1.key) }
      #expect(first?.row == expected?.key)
      #expect(first?.time.nanoseconds == expected?.value)
    }
  }
}
