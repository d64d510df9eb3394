import PacketIO

/// Which side of a hairpin is read next: the highest priority class first, within a class in turns. A side whose
/// bandwidth is used up is parked until its bucket has filled; what it has to say waits in the kernel's socket.
///
/// Sides are known by number. Every operation takes constant time, those on parked ones logarithmic.
struct Schedule: ~Copyable {
  enum Place: UInt8 { case out, ready, parked }

  struct Node: BitwiseCopyable {
    var next: Int32 = -1
    var previous: Int32 = -1
    var heapIndex: Int32 = -1
    var priority: UInt8 = 0
    var place = Place.out
    var wake = MonotonicTime(nanoseconds: 0)
  }

  private var nodes: FixedArray<Node>
  private var heads = FixedArray<Int32>(repeating: -1, count: 8)
  private var tails = FixedArray<Int32>(repeating: -1, count: 8)
  /// Sides by wake time, a binary heap.
  private var heap: FixedArray<Int32>
  private(set) var readyCount = 0

  init(capacity: Int) {
    nodes = FixedArray(repeating: Node(), count: capacity)
    heap = FixedArray(capacity: capacity)
  }

  /// The side has something to read. Nothing changes for one that is ready or parked.
  mutating func markReady(_ side: Int, priority: UInt8) {
    guard nodes[side].place == .out else { return }
    nodes[side].priority = priority & 7
    append(side)
  }

  /// Takes the next side out; nil when none is ready.
  mutating func next() -> Int? {
    guard readyCount > 0 else { return nil }
    for priority in stride(from: 7, through: 0, by: -1) where heads[priority] >= 0 {
      let side = Int(heads[priority])
      unlink(side)
      return side
    }
    return nil
  }

  /// The side is left alone until then, and is then ready.
  mutating func park(_ side: Int, until wake: MonotonicTime, priority: UInt8) {
    remove(side)
    nodes[side].priority = priority & 7
    nodes[side].place = .parked
    nodes[side].wake = wake
    nodes[side].heapIndex = Int32(heap.count)
    heap.append(Int32(side))
    siftUp(heap.count - 1)
  }

  /// Makes ready whose time has come.
  mutating func wake(now: MonotonicTime) {
    while heap.count > 0 {
      let side = Int(heap[0])
      guard nodes[side].wake <= now else { return }
      removeFromHeap(0)
      nodes[side].place = .out
      append(side)
    }
  }

  /// When the next parked side will be ready.
  var nextWake: MonotonicTime? { heap.count > 0 ? nodes[Int(heap[0])].wake : nil }

  /// Forgets a side, wherever it is.
  mutating func remove(_ side: Int) {
    switch nodes[side].place {
    case .out: return
    case .ready: unlink(side)
    case .parked:
      removeFromHeap(Int(nodes[side].heapIndex))
      nodes[side].place = .out
    }
  }

  // MARK: Ready

  private mutating func append(_ side: Int) {
    let priority = Int(nodes[side].priority)
    nodes[side].place = .ready
    nodes[side].next = -1
    nodes[side].previous = tails[priority]
    if tails[priority] >= 0 { nodes[Int(tails[priority])].next = Int32(side) } else { heads[priority] = Int32(side) }
    tails[priority] = Int32(side)
    readyCount += 1
  }

  private mutating func unlink(_ side: Int) {
    let node = nodes[side]
    let priority = Int(node.priority)
    if node.previous >= 0 { nodes[Int(node.previous)].next = node.next } else { heads[priority] = node.next }
    if node.next >= 0 { nodes[Int(node.next)].previous = node.previous } else { tails[priority] = node.previous }
    nodes[side].place = .out
    readyCount -= 1
  }

  // MARK: Parked

  private func isEarlier(_ a: Int, _ b: Int) -> Bool { nodes[Int(heap[a])].wake < nodes[Int(heap[b])].wake }

  private mutating func exchange(_ a: Int, _ b: Int) {
    (heap[a], heap[b]) = (heap[b], heap[a])
    nodes[Int(heap[a])].heapIndex = Int32(a)
    nodes[Int(heap[b])].heapIndex = Int32(b)
  }

  private mutating func siftUp(_ start: Int) {
    var index = start
    while index > 0, isEarlier(index, (index - 1) / 2) {
      exchange(index, (index - 1) / 2)
      index = (index - 1) / 2
    }
  }

  private mutating func siftDown(_ start: Int) {
    var index = start
    while true {
      var least = index
      for child in [2 * index + 1, 2 * index + 2] where child < heap.count && isEarlier(child, least) { least = child }
      guard least != index else { return }
      exchange(index, least)
      index = least
    }
  }

  private mutating func removeFromHeap(_ index: Int) {
    let last = heap.count - 1
    if index != last { exchange(index, last) }
    if let side = heap.popLast() { nodes[Int(side)].heapIndex = -1 }
    guard index != last else { return }
    siftUp(index)
    siftDown(index)
  }
}
