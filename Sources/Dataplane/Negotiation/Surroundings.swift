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
