import PacketIO

/// A longest-prefix match over one kind of address, in flat memory.
///
/// The prefixes are first flattened: sorted by where they start, they cut the address space into intervals, each
/// with the value of the longest prefix over it ("marks": an interval's first address and its value). A trie
/// over the marks then finds an address's interval. Each node skips the bits that all its marks have in common
/// and branches on as many of the next bits as its number of marks deserves, 16 at most (a level-compressed
/// trie: Nilsson and Karlsson, "IP-address lookup using LC-tries"). So a look-up takes one or two steps in
/// tables as they are, memory is linear in the number of prefixes, and neither a table of host routes nor one of
/// deeply nested prefixes is a bad case: a step always takes at least one bit.
///
/// Sendable because its memory is written by the initialiser alone.
struct PrefixMap<Key: FixedWidthInteger & UnsignedInteger & BitwiseCopyable>: ~Copyable, @unchecked Sendable {
  struct Route {
    var start: Key
    var length: Int
    var value: UInt32
  }

  private let nodes: FixedArray<PrefixNode<Key>>
  private let slots: FixedArray<UInt32>
  private let root: UInt32

  init(_ routes: some Sequence<Route>) {
    let routes = Array(routes)
    // By start, the outer before the inner, and equal ones as they came.
    let order = routes.indices.sorted { a, b in
      (routes[a].start, routes[a].length, a) < (routes[b].start, routes[b].length, b)
    }
    self.init(sorted: order.map { routes[$0] })
  }

  /// - Parameter routes: by start, the outer before the inner; of equal ones the last counts.
  init(sorted routes: some Sequence<Route>) {
    var builder = Builder(marks: marks(of: routes))
    root = builder.addNode(over: 0..<builder.marks.count, below: noValue)
    var nodes = FixedArray<PrefixNode<Key>>(capacity: builder.nodes.count)
    for node in builder.nodes { nodes.append(node) }
    var slots = FixedArray<UInt32>(capacity: builder.slots.count)
    for slot in builder.slots { slots.append(slot) }
    self.nodes = nodes
    self.slots = slots
  }

  /// The value of the longest prefix over `key`.
  @inline(__always) borrowing func lookup(_ key: Key) -> UInt32? {
    var result = root
    while result & nodeFlag != 0 {
      let node = nodes[Int(result & ~nodeFlag)]
      if (key ^ node.path) & node.mask != 0 {
        result = key < node.path ? node.below : node.above
        break
      }
      let following = UInt32(truncatingIfNeeded: key &>> Key(truncatingIfNeeded: node.shift))
      result = slots[Int(node.slots &+ following & node.slotMask)]
    }
    return result == noValue ? nil : result
  }

  var memory: Int {
    nodes.count * MemoryLayout<PrefixNode<Key>>.stride + slots.count * MemoryLayout<UInt32>.stride
  }
}

/// A branching point of the trie.
struct PrefixNode<Key: FixedWidthInteger & UnsignedInteger & BitwiseCopyable>: BitwiseCopyable {
  /// The bits that all marks in this node have in common, as far as `mask` has ones.
  var path: Key
  var mask: Key
  /// Results of addresses that leave the path, before and behind all marks of the node.
  var below: UInt32
  var above: UInt32
  /// The first of the `slotMask + 1` results that the following bits choose from.
  var slots: UInt32
  var slotMask: UInt32
  /// Bits behind those that choose.
  var shift: UInt32
}

/// A result with this bit is the number of a node; without it, a value.
private let nodeFlag: UInt32 = 1 << 31
private let noValue: UInt32 = nodeFlag - 1

// MARK: - Compilation

/// From its key to the next mark's, addresses have this value.
private struct Mark<Key> {
  var key: Key
  var value: UInt32
}

/// Flattens prefixes, which come in order, to intervals.
private func marks<Key>(of routes: some Sequence<PrefixMap<Key>.Route>) -> [Mark<Key>] {
  var marks: [Mark<Key>] = []
  func mark(_ key: Key, _ value: UInt32) {
    if marks.last?.key == key { marks.removeLast() }
    marks.append(Mark(key: key, value: value))
  }
  // The prefixes over the current position, outermost first, each with its last address.
  var open: [(last: Key, value: UInt32)] = []
  func close() {
    let ended = open.removeLast()
    // The highest address has nothing behind it.
    if ended.last < Key.max { mark(ended.last + 1, open.last?.value ?? noValue) }
  }
  for route in routes {
    precondition(route.value < noValue, "route to number \(route.value)")
    while let innermost = open.last, innermost.last < route.start { close() }
    open.append((last: route.start | ~ones(route.length), value: route.value))
    mark(route.start, route.value)
  }
  while !open.isEmpty { close() }

  var distinct: [Mark<Key>] = []
  for mark in marks where mark.value != distinct.last?.value ?? noValue { distinct.append(mark) }
  return distinct
}

/// `count` leading ones.
private func ones<Key: FixedWidthInteger>(_ count: Int) -> Key { ~0 << (Key.bitWidth - count) }

private struct Builder<Key: FixedWidthInteger & UnsignedInteger & BitwiseCopyable> {
  let marks: [Mark<Key>]
  var nodes: [PrefixNode<Key>] = []
  var slots: [UInt32] = []

  /// - Parameters:
  ///   - range: the marks of the node.
  ///   - below: the value in front of them.
  /// - Returns: the node's number with its flag, or a value where no node is needed.
  mutating func addNode(over range: Range<Int>, below: UInt32) -> UInt32 {
    guard let first = range.first, let last = range.last else { return below }
    // Marks are in order, so what the first and the last have in common they all have.
    let common = (marks[first].key ^ marks[last].key).leadingZeroBitCount
    let deserved = range.count.bitWidth - (range.count - 1).leadingZeroBitCount + 1
    let bits = min(Key.bitWidth - common, deserved, 16)
    let shift = Key.bitWidth - common - bits
    let mask: Key = ones(common)
    let count = 1 << bits
    let start = slots.count
    let number = nodes.count
    precondition(start + count < noValue && number < noValue, "too many routes")
    nodes.append(
      PrefixNode(
        path: marks[first].key & mask, mask: mask, below: below, above: marks[last].value, slots: UInt32(start),
        slotMask: UInt32(count - 1), shift: UInt32(shift)))
    slots.append(contentsOf: repeatElement(noValue, count: count))

    // Each slot is an interval of its own: settled when no mark lies inside it, else a node of those that do.
    var value = below
    var next = first
    for slot in 0..<count {
      let slotStart = marks[first].key & mask | Key(slot) << shift
      if next <= last, marks[next].key == slotStart {
        value = marks[next].value
        next += 1
      }
      let inside = next
      while next <= last, marks[next].key & ones(common + bits) == slotStart { next += 1 }
      slots[start + slot] = addNode(over: inside..<next, below: value)
      if next > inside { value = marks[next - 1].value }
    }
    return nodeFlag | UInt32(number)
  }
}
