import PacketIO

/// Whose each prefix is, in order, from which the route table is made.
struct RouteIndex: Sendable {
  private struct Owner: Sendable, Equatable {
    /// A number of the route table: a peer's row, or one that stands for this side or for nobody.
    let row: Int
    let order: Int

    var isPeer: Bool { row < Int(RouteTable.own) }

    /// This side has it, whoever else names it.
    static let own = Owner(row: Int(RouteTable.own), order: .max)
    /// This side's, where no peer names the same.
    static let onLink = Owner(row: Int(RouteTable.own), order: -1)
    /// Nobody's, where no peer names the same.
    static let nobody = Owner(row: Int(RouteTable.nobody), order: -2)
  }

  /// Of several the last in the configuration's order counts.
  private var owners = PrefixIndex<[Owner]>()
  /// Prefixes that changed since the table was made; nil: too many to look at each.
  private var changed: [Prefix]? = []

  /// More changes at once are as much work as all prefixes.
  private static let mostChanges = 64

  /// What is this side's own.
  var own = OwnPrefixes() {
    didSet {
      for (owner, before, after) in [(Owner.own, oldValue.always, own.always), (.onLink, oldValue.onLink, own.onLink)] {
        for prefix in before.subtracting(after) { remove(owner, from: prefix) }
        for prefix in after.subtracting(before) { insert(owner, prefix) }
      }
    }
  }

  init() { for prefix in Prefix.linkLocals { owners[prefix] = [.nobody] } }

  /// Exchanges a peer's routes, and its place in the order, for others.
  mutating func replace(_ old: (routes: [Prefix], order: Int)?, by new: (routes: [Prefix], order: Int)?, row: Int) {
    if let old, let new, old.routes == new.routes, old.order == new.order { return }
    if let old { for prefix in old.routes { remove(Owner(row: row, order: old.order), from: prefix) } }
    if let new { for prefix in new.routes { insert(Owner(row: row, order: new.order), prefix) } }
  }

  private mutating func insert(_ owner: Owner, _ prefix: Prefix) {
    note(prefix)
    owners.update(prefix) { list in list = ((list ?? []) + [owner]).sorted { $0.order < $1.order } }
  }

  private mutating func remove(_ owner: Owner, from prefix: Prefix) {
    note(prefix)
    owners.update(prefix) { list in
      list?.removeAll { $0 == owner }
      if list?.isEmpty == true { list = nil }
    }
  }

  private mutating func note(_ prefix: Prefix) {
    changed?.append(prefix)
    if changed?.count ?? 0 > RouteIndex.mostChanges { changed = nil }
  }

  /// The rows of all peers that have a prefix.
  func rows(_ prefix: Prefix) -> [Int] { (owners[prefix] ?? []).filter(\.isPeer).map(\.row) }

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
