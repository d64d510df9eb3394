import PacketIO

/// Prefixes, each as often as it was put in, which can be asked who of them overlaps another.
package struct PrefixBag: Sendable, Equatable {
  private var counts = PrefixIndex<Int>()

  package init() {}

  package init(_ prefixes: some Sequence<Prefix>) {
    var entries: [PrefixIndex<Int>.Entry] = []
    for prefix in prefixes.sorted(by: PrefixIndex<Int>.precedes) {
      if entries.last?.prefix == prefix {
        entries[entries.count - 1].value += 1
      } else {
        entries.append(PrefixIndex<Int>.Entry(prefix: prefix, value: 1))
      }
    }
    counts = PrefixIndex(sorted: entries)
  }

  /// Distinct ones.
  package var count: Int { counts.count }

  package mutating func insert(_ prefix: Prefix) { counts.update(prefix) { $0 = ($0 ?? 0) + 1 } }

  /// Takes it out once; nothing when it is not there.
  package mutating func remove(_ prefix: Prefix) { counts.update(prefix) { $0 = $0.flatMap { $0 > 1 ? $0 - 1 : nil } } }

  package mutating func replace(_ old: [Prefix], by new: [Prefix]) {
    guard old != new else { return }
    for prefix in old { remove(prefix) }
    for prefix in new { insert(prefix) }
  }

  /// One that overlaps `prefix`.
  ///
  /// - Parameter own: what the asker itself has put in, each as often as here: it does not count.
  package func first(overlapping prefix: Prefix, without own: [Prefix] = []) -> Prefix? {
    all(overlapping: prefix, without: own, limit: 1).first
  }

  /// Some that overlap `prefix`, each once.
  package func all(overlapping prefix: Prefix, without own: [Prefix] = [], limit: Int = .max) -> [Prefix] {
    var found: [Prefix] = []
    counts.forEach(overlapping: prefix) { other, count in
      if count > own.count(where: { $0 == other }) { found.append(other) }
      return found.count < limit
    }
    return found
  }

  package static func == (a: PrefixBag, b: PrefixBag) -> Bool { a.entries == b.entries }

  private var entries: [Prefix: Int] {
    var entries: [Prefix: Int] = [:]
    counts.visitAll { entries[$0] = $1 }
    return entries
  }
}
