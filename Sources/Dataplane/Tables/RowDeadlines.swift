import PacketIO

/// When rows of the tables are to be looked at: a heap, in which each row has one place at most. Of equal times the
/// first row comes first.
struct RowDeadlines: ~Copyable {
  struct Entry: BitwiseCopyable {
    var time: UInt64
    var row: Int32

    static func < (a: Entry, b: Entry) -> Bool { (a.time, a.row) < (b.time, b.row) }
  }

  private var heap: FixedArray<Entry>
  /// By row; -1: it has none.
  private let places: FixedArray<Int32>

  /// - Parameter capacity: rows that there may be.
  init(capacity: Int) {
    heap = FixedArray(capacity: capacity)
    places = FixedArray(repeating: -1, count: capacity)
  }

  var count: Int { heap.count }

  /// The earliest.
  var first: (row: Int, time: MonotonicTime)? {
    heap.isEmpty ? nil : (Int(heap[0].row), MonotonicTime(nanoseconds: heap[0].time))
  }

  borrowing func contains(_ row: Int) -> Bool { row < places.count && places[row] >= 0 }

  /// - Parameter time: nil: the row is not to be looked at.
  mutating func set(_ row: Int, _ time: MonotonicTime?) {
    guard let time, time.nanoseconds < UInt64.max else { return remove(row) }
    let entry = Entry(time: time.nanoseconds, row: Int32(truncatingIfNeeded: row))
    var place = Int(places[row])
    if place < 0 {
      place = heap.count
      heap.append(entry)
    }
    settle(entry, at: place)
  }

  private mutating func remove(_ row: Int) {
    let place = Int(places[row])
    guard place >= 0 else { return }
    places.reference(row).value = -1
    guard let last = heap.popLast(), place < heap.count else { return }
    settle(last, at: place)
  }

  /// Takes over what another one has, which has room for as many at most; there is nothing in this one.
  mutating func adopt(_ other: borrowing RowDeadlines) {
    for place in 0..<other.heap.count { heap.append(other.heap[place]) }
    for row in 0..<other.places.count { places.reference(row).value = other.places[row] }
  }

  /// Puts an entry where it belongs; what is at `place` counts as gone.
  private mutating func settle(_ entry: Entry, at start: Int) {
    var place = start
    while place > 0, entry < heap[(place - 1) / 2] {
      put(heap[(place - 1) / 2], at: place)
      place = (place - 1) / 2
    }
    while case let child = 2 * place + 1, child < heap.count {
      let least = child + 1 < heap.count && heap[child + 1] < heap[child] ? child + 1 : child
      guard heap[least] < entry else { break }
      put(heap[least], at: place)
      place = least
    }
    put(entry, at: place)
  }

  private mutating func put(_ entry: Entry, at place: Int) {
    heap[place] = entry
    places.reference(Int(entry.row)).value = Int32(truncatingIfNeeded: place)
  }
}
