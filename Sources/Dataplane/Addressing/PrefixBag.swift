import PacketIO

/// Prefixes, each as often as it was put in, which can be asked who of them overlaps another: the shorter ones over
/// it are found by their lengths, the longer ones inside lie side by side. So an answer costs some binary searches,
/// however many prefixes there are; putting in and taking out moves what lies behind.
package struct PrefixBag: Sendable, Equatable {
  private struct Entry: Sendable, Equatable {
    let prefix: Prefix
    var count: Int
  }

  /// By family, then address, and of one address the shorter before the longer.
  private var entries: [Entry] = []
  /// How many distinct prefixes there are of each length: those of IPv4, and behind them those of IPv6.
  private var lengths = [Int](repeating: 0, count: 33 + 129)

  package init() {}

  package init(_ prefixes: some Sequence<Prefix>) {
    for prefix in prefixes.sorted(by: PrefixBag.precedes) {
      if entries.last?.prefix == prefix {
        entries[entries.count - 1].count += 1
      } else {
        entries.append(Entry(prefix: prefix, count: 1))
        lengths[PrefixBag.place(prefix)] += 1
      }
    }
  }

  /// Distinct ones.
  package var count: Int { entries.count }

  package mutating func insert(_ prefix: Prefix) {
    let place = firstPlace(from: prefix)
    if place < entries.count, entries[place].prefix == prefix {
      entries[place].count += 1
    } else {
      entries.insert(Entry(prefix: prefix, count: 1), at: place)
      lengths[PrefixBag.place(prefix)] += 1
    }
  }

  /// Takes it out once; nothing when it is not there.
  package mutating func remove(_ prefix: Prefix) {
    let place = firstPlace(from: prefix)
    guard place < entries.count, entries[place].prefix == prefix else { return }
    entries[place].count -= 1
    guard entries[place].count == 0 else { return }
    entries.remove(at: place)
    lengths[PrefixBag.place(prefix)] -= 1
  }

  package mutating func replace(_ old: [Prefix], by new: [Prefix]) {
    guard old != new else { return }
    for prefix in old { remove(prefix) }
    for prefix in new { insert(prefix) }
  }

  /// One that overlaps `prefix`, the shortest if it is not inside.
  ///
  /// - Parameter own: what the asker itself has put in, each as often as here: it does not count.
  package func first(overlapping prefix: Prefix, without own: [Prefix] = []) -> Prefix? {
    var found: Prefix?
    forEach(overlapping: prefix) { other, count in
      guard count > own.count(where: { $0 == other }) else { return true }
      found = other
      return false
    }
    return found
  }

  /// Some that overlap `prefix`, in order, each once.
  package func all(overlapping prefix: Prefix, without own: [Prefix] = [], limit: Int = .max) -> [Prefix] {
    var found: [Prefix] = []
    forEach(overlapping: prefix) { other, count in
      if count > own.count(where: { $0 == other }) { found.append(other) }
      return found.count < limit
    }
    return found
  }

  /// - Parameter body: false to end.
  private func forEach(overlapping prefix: Prefix, _ body: (Prefix, Int) -> Bool) {
    for length in 0..<prefix.length where lengths[PrefixBag.place(prefix.address.family, length)] > 0 {
      let outer = Prefix(prefix.address, length: length)
      let place = firstPlace(from: outer)
      guard place < entries.count, entries[place].prefix == outer else { continue }
      guard body(outer, entries[place].count) else { return }
    }
    var place = firstPlace(from: prefix)
    while place < entries.count, prefix.covers(entries[place].prefix) {
      guard body(entries[place].prefix, entries[place].count) else { return }
      place += 1
    }
  }

  /// The place of the first entry that does not precede `prefix`.
  private func firstPlace(from prefix: Prefix) -> Int {
    var (low, high) = (0, entries.count)
    while low < high {
      let middle = (low + high) / 2
      if PrefixBag.precedes(entries[middle].prefix, prefix) { low = middle + 1 } else { high = middle }
    }
    return low
  }

  private static func place(_ prefix: Prefix) -> Int { place(prefix.address.family, prefix.length) }
  private static func place(_ family: IPAddress.Family, _ length: Int) -> Int { family == .v4 ? length : 33 + length }

  private static func precedes(_ a: Prefix, _ b: Prefix) -> Bool {
    (a.address.family.rawValue, a.address.high, a.address.low, a.length)
      < (b.address.family.rawValue, b.address.high, b.address.low, b.length)
  }
}
