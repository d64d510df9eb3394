import PacketIO

/// A value for each of many prefixes, in order. What overlaps a prefix is found without looking at the others: the
/// shorter ones over it by the lengths that there are, the longer ones inside because they lie side by side. A change
/// moves some hundred neighbours at most.
package struct PrefixIndex<Value: Sendable>: Sendable {
  package struct Entry: Sendable {
    package let prefix: Prefix
    package var value: Value
  }

  private struct Place {
    var chunk: Int
    var offset: Int
  }

  /// Entries of a chunk at most; it is cut in two then.
  private static var chunkCapacity: Int { 256 }

  /// By family, then address, and of one address the shorter before the longer. No chunk is empty.
  private var chunks: [[Entry]] = []
  /// How many prefixes there are of each length: those of IPv4, and behind them those of IPv6.
  private var lengths = [Int](repeating: 0, count: 33 + 129)
  package private(set) var count = 0

  package init() {}

  /// - Parameter sorted: by `precedes`, each prefix once.
  package init(sorted: [Entry]) {
    count = sorted.count
    let size = PrefixIndex.chunkCapacity / 2
    chunks = stride(from: 0, to: sorted.count, by: size).map { Array(sorted[$0..<min($0 + size, sorted.count)]) }
    for entry in sorted { lengths[PrefixIndex.slot(entry.prefix)] += 1 }
  }

  package subscript(_ prefix: Prefix) -> Value? {
    get { find(prefix).map { chunks[$0.chunk][$0.offset].value } }
    set { update(prefix) { $0 = newValue } }
  }

  /// Has the value of a prefix changed; nil is none, before as after.
  package mutating func update(_ prefix: Prefix, _ change: (inout Value?) -> Void) {
    let place = firstPlace(from: prefix)
    if let place, chunks[place.chunk][place.offset].prefix == prefix {
      var value: Value? = chunks[place.chunk][place.offset].value
      change(&value)
      if let value { chunks[place.chunk][place.offset].value = value } else { remove(at: place) }
    } else {
      var value: Value?
      change(&value)
      if let value { insert(Entry(prefix: prefix, value: value), at: place) }
    }
  }

  /// All of them, in order.
  package func visitAll(_ body: (Prefix, Value) -> Void) {
    for chunk in chunks { for entry in chunk { body(entry.prefix, entry.value) } }
  }

  /// Those that overlap `prefix`: first those over it, the shortest first, then itself and those inside.
  /// - Parameter body: false to end.
  package func forEach(overlapping prefix: Prefix, _ body: (Prefix, Value) -> Bool) {
    guard forEach(over: prefix, body) else { return }
    forEach(inside: prefix, body)
  }

  /// The prefix itself, if it is there, and those inside.
  package func forEach(inside prefix: Prefix, _ body: (Prefix, Value) -> Bool) {
    guard let place = firstPlace(from: prefix) else { return }
    var offset = place.offset
    for chunk in place.chunk..<chunks.count {
      while offset < chunks[chunk].count {
        let entry = chunks[chunk][offset]
        guard prefix.covers(entry.prefix), body(entry.prefix, entry.value) else { return }
        offset += 1
      }
      offset = 0
    }
  }

  /// The longest that `prefix` lies inside, without itself.
  package func longest(over prefix: Prefix) -> (prefix: Prefix, value: Value)? {
    for length in (0..<prefix.length).reversed() where has(length, of: prefix) {
      let outer = Prefix(prefix.address, length: length)
      if let value = self[outer] { return (outer, value) }
    }
    return nil
  }

  private func forEach(over prefix: Prefix, _ body: (Prefix, Value) -> Bool) -> Bool {
    for length in 0..<prefix.length where has(length, of: prefix) {
      let outer = Prefix(prefix.address, length: length)
      if let value = self[outer], !body(outer, value) { return false }
    }
    return true
  }

  // MARK: Places

  private func has(_ length: Int, of prefix: Prefix) -> Bool {
    lengths[PrefixIndex.slot(prefix.address.family, length)] > 0
  }

  private func find(_ prefix: Prefix) -> Place? {
    guard let place = firstPlace(from: prefix), chunks[place.chunk][place.offset].prefix == prefix else { return nil }
    return place
  }

  /// The place of the first entry that does not precede `prefix`; nil: all do.
  private func firstPlace(from prefix: Prefix) -> Place? {
    // The first chunk that ends with such an entry.
    var (low, high) = (0, chunks.count)
    while low < high {
      let middle = (low + high) / 2
      if PrefixIndex.precedes(chunks[middle][chunks[middle].count - 1].prefix, prefix) {
        low = middle + 1
      } else {
        high = middle
      }
    }
    guard low < chunks.count else { return nil }
    let chunk = low
    (low, high) = (0, chunks[chunk].count)
    while low < high {
      let middle = (low + high) / 2
      if PrefixIndex.precedes(chunks[chunk][middle].prefix, prefix) { low = middle + 1 } else { high = middle }
    }
    return Place(chunk: chunk, offset: low)
  }

  /// - Parameter place: nil: behind all.
  private mutating func insert(_ entry: Entry, at place: Place?) {
    count += 1
    lengths[PrefixIndex.slot(entry.prefix)] += 1
    guard !chunks.isEmpty else {
      chunks = [[entry]]
      return
    }
    let chunk = place?.chunk ?? chunks.count - 1
    chunks[chunk].insert(entry, at: place?.offset ?? chunks[chunk].count)
    guard chunks[chunk].count > PrefixIndex.chunkCapacity else { return }
    let half = chunks[chunk].count / 2
    chunks.insert(Array(chunks[chunk][half...]), at: chunk + 1)
    chunks[chunk].removeSubrange(half...)
  }

  private mutating func remove(at place: Place) {
    count -= 1
    lengths[PrefixIndex.slot(chunks[place.chunk][place.offset].prefix)] -= 1
    chunks[place.chunk].remove(at: place.offset)
    if chunks[place.chunk].isEmpty { chunks.remove(at: place.chunk) }
  }

  private static func slot(_ prefix: Prefix) -> Int { slot(prefix.address.family, prefix.length) }
  private static func slot(_ family: IPAddress.Family, _ length: Int) -> Int { family == .v4 ? length : 33 + length }

  package static func precedes(_ a: Prefix, _ b: Prefix) -> Bool {
    (a.address.family.rawValue, a.address.high, a.address.low, a.length)
      < (b.address.family.rawValue, b.address.high, b.address.low, b.length)
  }
}
