import PacketIO

/// Which row each prefix leads to, in order, from which the route table is compiled.
struct RouteIndex: Sendable {
  private struct Owner: Sendable {
    let row: Int
    let order: Int
  }

  /// Of several the last in the configuration's order counts.
  private var owners = PrefixIndex<[Owner]>()
  private var isChanged = true

  /// Exchanges a peer's routes, and its place in the order, for others.
  mutating func replace(_ old: (routes: [Prefix], order: Int)?, by new: (routes: [Prefix], order: Int)?, row: Int) {
    if let old, let new, old.routes == new.routes, old.order == new.order { return }
    isChanged = true
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

  /// Whether there was a change since the last call.
  mutating func takeChange() -> Bool {
    defer { isChanged = false }
    return isChanged
  }

  func compile() -> RouteTable {
    var routes: [(Prefix, UInt32)] = []
    routes.reserveCapacity(owners.count)
    owners.visitAll { prefix, list in
      if let row = list.last?.row { routes.append((prefix, UInt32(truncatingIfNeeded: row))) }
    }
    return RouteTable(sorted: routes)
  }
}
