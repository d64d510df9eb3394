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
/// When some prefixes change, the next map is a copy in which only the slots that they lie in are worked out anew
/// (`changed`). What was there before stays in the copy and is not used; when the room for that is used up, the map is
/// compiled from nothing.
///
/// Sendable because its memory is written by whoever makes it alone.
struct PrefixMap<Key: FixedWidthInteger & UnsignedInteger & BitwiseCopyable>: ~Copyable, @unchecked Sendable {
  struct Route {
    var start: Key
    var length: Int
    var value: UInt32
  }

  /// The addresses under a prefix.
  struct Block {
    var start: Key
    var length: Int

    var last: Key { start | ~ones(length) }
  }

  /// What leads where in a block: the value of the longest prefix over it, and the prefixes inside, itself among them,
  /// by start, the outer before the inner.
  struct Contents {
    var outside: UInt32?
    var routes: [Route]
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
    var builder = Builder(marks: marks(of: routes, in: Block(start: 0, length: 0), outside: noValue))
    root = builder.addNode(over: 0..<builder.marks.count, below: noValue)
    // With room for changes.
    var nodes = FixedArray<PrefixNode<Key>>(capacity: builder.nodes.count + builder.nodes.count / 2 + 64)
    for node in builder.nodes { nodes.append(node) }
    var slots = FixedArray<UInt32>(capacity: builder.slots.count + builder.slots.count / 4 + 256)
    for slot in builder.slots { slots.append(slot) }
    self.nodes = nodes
    self.slots = slots
  }

  private init(_ nodes: consuming FixedArray<PrefixNode<Key>>, _ slots: consuming FixedArray<UInt32>, root: UInt32) {
    self.nodes = nodes
    self.slots = slots
    self.root = root
  }

  /// The value of the longest prefix over `key`.
  @inline(__always) borrowing func lookup(_ key: Key) -> UInt32? {
    let result = find(key)
    return result == noValue ? nil : result
  }

  /// As `lookup`; a number that is no value where no prefix covers `key`.
  @inline(__always) borrowing func find(_ key: Key) -> UInt32 {
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
    return result
  }

  var memory: Int {
    nodes.count * MemoryLayout<PrefixNode<Key>>.stride + slots.count * MemoryLayout<UInt32>.stride
  }
}

// MARK: - Changes

/// Slots that one change may concern; wider ones are compiled anew.
private let mostSlots = 64

extension PrefixMap {
  /// The map as it is when prefixes that lie in some blocks were added, taken out, or lead elsewhere. Nil: it is to be
  /// compiled anew, because they concern too much of it, or it is full.
  borrowing func changed(_ blocks: [Block], _ contents: (Block) -> Contents) -> PrefixMap? {
    guard root & nodeFlag != 0 else { return nil }
    var nodes = FixedArray(copying: self.nodes)
    var slots = FixedArray(copying: self.slots)
    for block in blocks {
      guard var place = PrefixMap.place(of: block, from: root, nodes, slots) else { return nil }
      while place.slots.count > 0 {
        let slot = place.slots.removeFirst()
        let contents = contents(place.block(slot))
        var builder = Builder(
          marks: marks(of: contents.routes, in: place.block(slot), outside: contents.outside ?? noValue),
          firstNode: nodes.count, firstSlot: slots.count)
        let result = builder.addSlot(at: place.block(slot).start, outside: contents.outside ?? noValue)
        guard nodes.capacity - nodes.count >= builder.nodes.count, slots.capacity - slots.count >= builder.slots.count
        else { return nil }
        for node in builder.nodes { nodes.append(node) }
        for slot in builder.slots { slots.append(slot) }
        slots[Int(place.node.slots) + slot] = result
      }
    }
    return PrefixMap(nodes, slots, root: root)
  }

  /// The slots of a node that a block lies in; what is not in them knows nothing of it.
  private struct Place {
    let node: PrefixNode<Key>
    var slots: Range<Int>

    func block(_ slot: Int) -> Block {
      Block(start: node.path | Key(slot) << Key(node.shift), length: Key.bitWidth - Int(node.shift))
    }
  }

  private static func place(
    of block: Block, from root: UInt32, _ nodes: borrowing FixedArray<PrefixNode<Key>>,
    _ slots: borrowing FixedArray<UInt32>
  ) -> Place? {
    var node = nodes[Int(root & ~nodeFlag)]
    guard node.covers(block.start, length: block.length) else { return nil }
    while true {
      let (first, last) = (node.slot(of: block.start), node.slot(of: block.last))
      guard last - first < mostSlots else { return nil }
      let result = slots[Int(node.slots) + first]
      guard first == last, result & nodeFlag != 0, case let inner = nodes[Int(result & ~nodeFlag)],
        inner.covers(block.start, length: block.length)
      else { return Place(node: node, slots: first..<last + 1) }
      node = inner
    }
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

  /// Whether all addresses under a prefix are on the path.
  fileprivate func covers(_ start: Key, length: Int) -> Bool {
    (start ^ path) & mask == 0 && length >= (~mask).leadingZeroBitCount
  }

  /// Which slot an address on the path has.
  fileprivate func slot(of key: Key) -> Int {
    Int(UInt32(truncatingIfNeeded: key >> Key(shift)) & slotMask)
  }
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

/// Flattens the prefixes inside a block, which come in order, to intervals.
/// - Parameter outside: the value where there is none.
private func marks<Key>(
  of routes: some Sequence<PrefixMap<Key>.Route>, in block: PrefixMap<Key>.Block, outside: UInt32
) -> [Mark<Key>] {
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
    if ended.last < block.last { mark(ended.last + 1, open.last?.value ?? outside) }
  }
  for route in routes {
    precondition(route.value < noValue, "route to number \(route.value)")
    while let innermost = open.last, innermost.last < route.start { close() }
    open.append((last: route.start | ~ones(route.length), value: route.value))
    mark(route.start, route.value)
  }
  while !open.isEmpty { close() }

  var distinct: [Mark<Key>] = []
  for mark in marks where mark.value != distinct.last?.value ?? outside { distinct.append(mark) }
  return distinct
}

/// `count` leading ones.
private func ones<Key: FixedWidthInteger>(_ count: Int) -> Key { ~0 << (Key.bitWidth - count) }

private struct Builder<Key: FixedWidthInteger & UnsignedInteger & BitwiseCopyable> {
  let marks: [Mark<Key>]
  /// Of those that were there before.
  var firstNode = 0
  var firstSlot = 0
  var nodes: [PrefixNode<Key>] = []
  var slots: [UInt32] = []

  init(marks: [Mark<Key>], firstNode: Int = 0, firstSlot: Int = 0) {
    self.marks = marks
    self.firstNode = firstNode
    self.firstSlot = firstSlot
  }

  /// - Parameters:
  ///   - start: the first address of a slot that all marks are in.
  ///   - outside: the value in front of them.
  /// - Returns: what is to be in the slot.
  mutating func addSlot(at start: Key, outside: UInt32) -> UInt32 {
    guard let first = marks.first, first.key == start else { return addNode(over: marks.indices, below: outside) }
    return addNode(over: 1..<marks.count, below: first.value)
  }

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
    let number = firstNode + nodes.count
    precondition(firstSlot + start + count < noValue && number < noValue, "too many routes")
    nodes.append(
      PrefixNode(
        path: marks[first].key & mask, mask: mask, below: below, above: marks[last].value,
        slots: UInt32(firstSlot + start),
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
