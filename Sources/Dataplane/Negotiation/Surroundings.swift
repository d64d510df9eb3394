import PacketIO

/// What a gateway's negotiations have in common, kept once for all of them: what the configuration gives, and what each
/// of them uses.
package struct Surroundings: Sendable {
  /// What one negotiation uses, or talks about: not for others.
  package struct Use: Sendable, Equatable {
    /// Intermediate prefixes, for whichever purpose.
    package var spaces: [Prefix] = []
    /// The peer's prefixes that are known as they are: another peer's may not overlap them.
    package var asTheyAre: [Prefix] = []
    /// Of the spaces, what the peer has got of the pool for its own prefixes.
    package var ofPool: [Prefix] = []

    package init() {}
  }

  /// This gateway's name, from which proposals are derived.
  package var name = ""
  /// This side's prefixes.
  package var local: [Prefix] = []
  /// Where intermediate prefixes come from.
  package var pool: [Prefix] = IntermediateSpace.defaultPool
  /// What intermediate prefixes must not overlap: all that the configuration has a use for.
  package var occupied = PrefixBag()
  /// What all negotiations use.
  package private(set) var spaces = PrefixBag()
  package private(set) var asTheyAre = PrefixBag()
  /// Addresses of the pool that all peers have, by family, and how many peers there are that have or want some.
  private var taken = PoolUse()
  package var members = 0

  package init() {}

  /// Another configuration's, with what is in use as before.
  package mutating func follow(_ other: Surroundings) {
    name = other.name
    local = other.local
    pool = other.pool
    occupied = other.occupied
  }

  /// A negotiation uses something else.
  package mutating func replace(_ old: Use, by new: Use) {
    spaces.replace(old.spaces, by: new.spaces)
    asTheyAre.replace(old.asTheyAre, by: new.asTheyAre)
    taken.remove(old.ofPool)
    taken.add(new.ofPool)
  }

  /// Whether a peer may have one more space of the pool: half of what is left, or what comes to each (`Shares`), so that
  /// one that offers whole networks leaves room for the others.
  ///
  /// - Parameter use: what it has.
  func mayTake(_ space: Prefix, beside use: Use) -> Bool {
    let family = space.address.family
    var (own, all) = (PoolUse(), PoolUse())
    own.add(use.ofPool)
    all.add(pool)
    return Shares.mayHave(
      PoolUse.size(space), beside: own[family], left: all[family] - taken[family],
      least: all[family] / max(members, 1))
  }
}

extension Surroundings {
  /// How much of a family's addresses prefixes have, in the unit of the pool.
  static func size(_ prefixes: [Prefix], _ family: IPAddress.Family) -> Int {
    prefixes.reduce(0) { $0 + ($1.address.family == family ? PoolUse.size($1) : 0) }
  }
}

/// Addresses, by family: of IPv4 one by one, of IPv6 in /96s, of which a pool has no more than fit in a number.
private struct PoolUse: Sendable {
  private var v4 = 0
  private var v6 = 0

  subscript(family: IPAddress.Family) -> Int { family == .v4 ? v4 : v6 }

  static func size(_ prefix: Prefix) -> Int {
    let bits = (prefix.address.isV4 ? 32 : 96) - prefix.length
    return 1 << min(max(bits, 0), 56)
  }

  mutating func add(_ prefixes: [Prefix]) {
    for prefix in prefixes { change(prefix, by: PoolUse.size(prefix)) }
  }

  mutating func remove(_ prefixes: [Prefix]) {
    for prefix in prefixes { change(prefix, by: -PoolUse.size(prefix)) }
  }

  private mutating func change(_ prefix: Prefix, by size: Int) {
    if prefix.address.isV4 { v4 += size } else { v6 += size }
  }
}

/// Prefixes that an intermediate one must not overlap: what others use, and some of the negotiation's own.
struct Blockers {
  let surroundings: Surroundings
  /// What the negotiation itself has among them.
  let use: Surroundings.Use
  var own: [Prefix]

  /// One that is in the way of `prefix`.
  func first(overlapping prefix: Prefix) -> Prefix? {
    own.first(where: prefix.overlaps) ?? surroundings.occupied.first(overlapping: prefix)
      ?? surroundings.spaces.first(overlapping: prefix, without: use.spaces)
  }
}
