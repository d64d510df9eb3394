import PacketIO

/// Which row each prefix leads to, in order, from which the route table is made.
struct RouteIndex: Sendable {
  private struct Owner: Sendable {
    let row: Int
    let order: Int
  }

  /// Of several the last in the configuration's order counts.
  private var owners = PrefixIndex<[Owner]>()
  /// Prefixes that changed since the table was made; nil: too many to look at each.
  private var changed: [Prefix]? = []

  /// More changes at once are as much work as all prefixes.
  private static let mostChanges = 64

  /// Exchanges a peer's routes, and its place in the order, for others.
  mutating func replace(_ old: (routes: [Prefix], order: Int)?, by new: (routes: [Prefix], order: Int)?, row: Int) {
    if let old, let new, old.routes == new.routes, old.order == new.order { return }
    note(old?.routes ?? [])
    note(new?.routes ?? [])
    for prefix in old?.routes ?? [] {
      owners.update(prefix) { list in
        list?.removeAll { $0.row == row }
        if list?.isEmpty == true { list = nil }
      }
    }
    guard let new else { return }
    for prefix in new.routes {
      owners.update(prefix) { list in
        list = ((list ?? []) + [Owner(row: row, order: new.order)]).sorted { $0.order < $1.order }
      }
    }
  }

  private mutating func note(_ prefixes: [Prefix]) {
    changed?.append(contentsOf: prefixes)
    if changed?.count ?? 0 > RouteIndex.mostChanges { changed = nil }
  }

  /// The rows of all peers that have a prefix.
  func rows(_ prefix: Prefix) -> [Int] { (owners[prefix] ?? []).map(\.row) }

  /// The table that follows on the one that was made last; nil: nothing has changed.
  mutating func next(after table: RouteTable) -> RouteTable? {
    guard changed?.isEmpty != true else { return nil }
    defer { changed = [] }
    return changed.flatMap { table.changed($0, contents) } ?? compile()
  }

  func compile() -> RouteTable {
    var routes: [(Prefix, UInt32)] = []
    routes.reserveCapacity(owners.count)
    owners.visitAll { prefix, list in
      if let row = list.last?.row { routes.append((prefix, UInt32(truncatingIfNeeded: row))) }
    }
    return RouteTable(sorted: routes)
  }

  /// What lies under a prefix.
  private func contents(_ block: Prefix) -> RouteTable.Contents {
    let outside = owners.longest(over: block)?.value.last?.row
    var inside: [(Prefix, UInt32)] = []
    owners.forEach(inside: block) { prefix, list in
      if let row = list.last?.row { inside.append((prefix, UInt32(truncatingIfNeeded: row))) }
      return true
    }
    return (outside.map { UInt32(truncatingIfNeeded: $0) }, inside)
  }
}
