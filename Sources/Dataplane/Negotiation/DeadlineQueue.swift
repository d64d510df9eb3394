import PacketIO

/// Who of many is to be looked at next: a heap of deadlines. One that changed leaves its old place behind, which the
/// owner recognises and passes over.
struct DeadlineQueue: Sendable {
  struct Entry: Sendable, Comparable {
    let time: MonotonicTime
    let name: String

    static func < (a: Entry, b: Entry) -> Bool { (a.time, a.name) < (b.time, b.name) }
  }

  private var heap: [Entry] = []

  var count: Int { heap.count }
  var first: Entry? { heap.first }

  init() {}

  init(_ entries: [Entry]) {
    // A sorted array is a heap.
    heap = entries.sorted()
  }

  mutating func insert(_ entry: Entry) {
    heap.append(entry)
    var place = heap.count - 1
    while place > 0, heap[place] < heap[(place - 1) / 2] {
      heap.swapAt(place, (place - 1) / 2)
      place = (place - 1) / 2
    }
  }

  mutating func removeFirst() {
    guard let last = heap.popLast(), !heap.isEmpty else { return }
    heap[0] = last
    var place = 0
    while true {
      var least = place
      for child in [2 * place + 1, 2 * place + 2] where child < heap.count && heap[child] < heap[least] {
        least = child
      }
      if least == place { return }
      heap.swapAt(place, least)
      place = least
    }
  }
}
