/// What two gateways have agreed about the prefixes of their LANs; each has its own view, and they match when both are
/// settled.
public struct AddressAgreement: Sendable, Equatable, Codable {
  /// A prefix, and under which one the other side knows it.
  public struct Space: Sendable, Equatable, Codable {
    /// As it is where its hosts live.
    public var prefix: Prefix
    public var state: State

    public init(prefix: Prefix, state: State) {
      self.prefix = prefix
      self.state = state
    }
  }

  /// How far the two are with a prefix.
  public enum State: Sendable, Equatable, Codable {
    /// Being talked about, or not yet.
    case pending
    /// Nothing clashes: it is known by what it is.
    case asIs
    /// Known by this intermediate prefix.
    case known(Prefix)
    /// There is no way; the prefix is not reachable from the other side.
    case refused(NegotiationFailure)
    /// Its owner has taken it back.
    case withdrawn
  }

  /// This side's prefixes, as the peer knows them.
  public var local: [Space]
  /// The peer's prefixes, as they are known here.
  public var remote: [Space]
  /// The peer does not answer, and may never: things are as configured.
  public var isUnanswered: Bool

  public init(local: [Space] = [], remote: [Space] = [], isUnanswered: Bool = false) {
    self.local = local
    self.remote = remote
    self.isUnanswered = isUnanswered
  }

  /// Nothing is being talked about any more.
  public var isSettled: Bool { !(local + remote).contains { $0.state == .pending } }

  /// Pairs that are translated.
  public var localPairs: [PrefixPair] { local.compactMap(\.pair) }
  /// Pairs that the peer translates.
  public var remotePairs: [PrefixPair] { remote.compactMap(\.pair) }
}

extension AddressAgreement.Space {
  /// Nil where nothing is translated.
  public var pair: PrefixPair? {
    guard case .known(let intermediate) = state else { return nil }
    return PrefixPair(real: prefix, intermediate: intermediate)
  }
}

/// Why two gateways found no space for a prefix.
public struct NegotiationFailure: Error, Sendable, Equatable, Hashable, Codable, CustomStringConvertible {
  /// The numbers are part of the messages between gateways.
  public enum Reason: UInt8, Sendable, Codable, CaseIterable {
    /// The knower's configuration does not have the prefix among the peer's.
    case notPermitted = 1
    /// The prefix, or the one proposed for it, is in use where it should be known.
    case occupied = 2
    /// What was proposed is not in the knower's pool.
    case outsidePool = 3
    /// One side's configuration demands a space that the other cannot accept.
    case pinned = 4
    /// The pools have no free space of that length.
    case noSpace = 5
    /// Too many proposals were turned down.
    case exhausted = 6
    /// Hosts cannot have addresses of this prefix.
    case unusable = 7
    /// A reason that this version does not know.
    case unknown = 255
  }

  public var reason: Reason
  /// What is in the way, where one thing is.
  public var conflict: Prefix?

  public init(_ reason: Reason, conflict: Prefix? = nil) {
    self.reason = reason
    self.conflict = conflict
  }

  public var description: String {
    let conflict = conflict.map(\.description)
    return switch reason {
    case .notPermitted: "it is not among the peer's prefixes; add it to them where it should be known"
    case .occupied: "\(conflict ?? "something") is in the way; free it, or choose another pool"
    case .outsidePool: "the space proposed is outside the pool; give both gateways the same pool"
    case .pinned:
      "the configured space cannot be used\(conflict.map { " because of \($0)" } ?? ""); pin the same free one at both ends"
    case .noSpace: "no space of this size is free; give both gateways a larger pool"
    case .exhausted: "the gateways have too little free space in common; give them a larger pool"
    case .unknown: "the peer gives a reason that is unknown here; compare the versions of both gateways"
    case .unusable: "hosts cannot have such addresses; choose another prefix"
    }
  }
}
