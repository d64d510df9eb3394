public import Identity
public import Transports

/// Who may meet whom at an identity relay: pairs of GIDs, and groups of them. Without a rule nothing passes.
///
/// A look-up takes the same time however many rules there are: first the pair itself, then what is denied, then sets of
/// groups.
public struct RelayPolicy: Sendable, Equatable {
  /// What a rule lets pass.
  public struct Terms: Sendable, Equatable {
    /// Bits a second of sealed packets in each direction; what is above is dropped. 0: no limit.
    public var bandwidth: UInt64
    /// 0 to 7: where the whole relay has a limit, the lowest loses first.
    public var priority: UInt8
    /// The last second at which it holds, since 1970 UTC.
    public var notAfter: Int64
    /// Times of day at which it holds; none: always.
    public var windows: [HairpinTicket.Window]

    public init(
      bandwidth: UInt64 = 0, priority: UInt8 = 3, notAfter: Int64 = .max, windows: [HairpinTicket.Window] = []
    ) {
      self.bandwidth = bandwidth
      self.priority = priority
      self.notAfter = notAfter
      self.windows = windows
    }

    func holds(at wall: Int64) -> Bool {
      wall <= notAfter && (windows.isEmpty || windows.contains { $0.contains(wall) })
    }
  }

  /// Two gateways, whichever is named first.
  public struct Pair: Hashable, Sendable, CustomStringConvertible {
    /// The one with the smaller tag.
    public let smaller: HostIdentityTag
    public let greater: HostIdentityTag

    public init(_ a: HostIdentityTag, _ b: HostIdentityTag) {
      (smaller, greater) = a < b ? (a, b) : (b, a)
    }

    public var description: String { "\(smaller) and \(greater)" }
  }

  /// Members of two groups, or of one among each other.
  private struct Rule: Sendable, Equatable {
    let first: Int
    let second: Int
    let terms: Terms
  }

  /// Groups: one bit each in a word.
  public static let mostGroups = 64
  /// Rules between groups.
  public static let mostRules = 4096

  private var pairs: [Pair: Terms] = [:]
  /// The groups of each gateway, a bit each.
  private var memberships: [HostIdentityTag: UInt64] = [:]
  private var groups: [String: Int] = [:]
  /// Whom the members of each group may meet: groups, a bit each.
  private var reach = [UInt64](repeating: 0, count: RelayPolicy.mostGroups)
  private var rules: [Rule] = []
  /// Gateways that pairs name, and how many do.
  private var paired: [HostIdentityTag: Int] = [:]
  /// Whom neither a group nor a ticket lets meet. A gateway and itself: it meets nobody.
  private var denied: Set<Pair> = []

  /// Nothing passes.
  public init() {}

  // MARK: What it says

  /// Lets two gateways meet; other terms than before replace them.
  /// - Returns: false for a gateway and itself.
  @discardableResult
  public mutating func allow(_ a: HostIdentityTag, _ b: HostIdentityTag, _ terms: Terms = Terms()) -> Bool {
    guard a != b else { return false }
    denied.remove(Pair(a, b))
    if pairs.updateValue(terms, forKey: Pair(a, b)) == nil {
      for gateway in [a, b] { paired[gateway, default: 0] += 1 }
    }
    return true
  }

  /// Pairs may not meet, whatever groups and tickets say, until they are allowed as pairs again. A gateway and itself: it
  /// meets nobody but those with whom it is allowed as a pair from now on.
  public mutating func deny(_ denials: some Sequence<Pair>) {
    var gateways: Set<HostIdentityTag> = []
    for pair in denials {
      denied.insert(pair)
      if pair.smaller == pair.greater { gateways.insert(pair.smaller) } else { remove(pair) }
    }
    guard !gateways.isEmpty else { return }
    for pair in pairs.keys where gateways.contains(pair.smaller) || gateways.contains(pair.greater) { remove(pair) }
  }

  private mutating func remove(_ pair: Pair) {
    guard pairs.removeValue(forKey: pair) != nil else { return }
    for gateway in [pair.smaller, pair.greater] {
      let left = (paired[gateway] ?? 1) - 1
      paired[gateway] = left > 0 ? left : nil
    }
  }

  /// - Returns: false when there are too many groups, or one of that name.
  @discardableResult
  public mutating func add(group name: String, _ members: [HostIdentityTag]) -> Bool {
    guard groups.count < RelayPolicy.mostGroups, groups[name] == nil else { return false }
    let number = groups.count
    groups[name] = number
    for member in members { memberships[member, default: 0] |= 1 << UInt64(truncatingIfNeeded: number) }
    return true
  }

  /// Lets every member of one group meet every member of another one, or of the same.
  /// - Returns: false when there is no such group, or there are too many rules.
  @discardableResult
  public mutating func allow(groups first: String, _ second: String, _ terms: Terms = Terms()) -> Bool {
    guard rules.count < RelayPolicy.mostRules, let a = groups[first], let b = groups[second] else { return false }
    rules.append(Rule(first: a, second: b, terms: terms))
    reach[a] |= 1 << UInt64(truncatingIfNeeded: b)
    reach[b] |= 1 << UInt64(truncatingIfNeeded: a)
    return true
  }

  /// Pairs that are named one by one, in the order of their tags.
  public var namedPairs: [Pair] { pairs.keys.sorted { ($0.smaller, $0.greater) < ($1.smaller, $1.greater) } }

  // MARK: What is asked

  /// Whether any rule names a gateway, whatever the time of day.
  public func names(_ gateway: HostIdentityTag) -> Bool {
    if paired[gateway] != nil { return true }
    if denied.contains(Pair(gateway, gateway)) { return false }
    return bits(memberships[gateway] ?? 0).contains { reach[$0] != 0 }
  }

  /// Whether two gateways, or one of them, are denied, and no rule of the pair itself lets them meet all the same.
  func denies(_ pair: Pair) -> Bool {
    guard !denied.isEmpty, pairs[pair] == nil else { return false }
    return [pair, Pair(pair.smaller, pair.smaller), Pair(pair.greater, pair.greater)].contains { denied.contains($0) }
  }

  /// Whether anything is said of two gateways, whatever the time: then no ticket counts.
  func covers(_ a: HostIdentityTag, _ b: HostIdentityTag) -> Bool {
    if pairs[Pair(a, b)] != nil || denies(Pair(a, b)) { return true }
    guard let ofA = memberships[a], let ofB = memberships[b] else { return false }
    return bits(ofA).contains { reach[$0] & ofB != 0 }
  }

  /// On which terms two gateways may meet: those of the pair, if it is named, else, unless it is denied, of the first rule of
  /// their groups that holds. Nil: they may not.
  /// - Parameter wall: seconds since 1970 UTC.
  public func terms(_ a: HostIdentityTag, _ b: HostIdentityTag, at wall: Int64) -> Terms? {
    guard a != b else { return nil }
    if let terms = pairs[Pair(a, b)] { return terms.holds(at: wall) ? terms : nil }
    guard !denies(Pair(a, b)), let ofA = memberships[a], let ofB = memberships[b],
      bits(ofA).contains(where: { reach[$0] & ofB != 0 })
    else { return nil }
    return rules.first { rule in
      (has(ofA, rule.first) && has(ofB, rule.second) || has(ofB, rule.first) && has(ofA, rule.second))
        && rule.terms.holds(at: wall)
    }?.terms
  }

  private func has(_ set: UInt64, _ group: Int) -> Bool { set >> UInt64(truncatingIfNeeded: group) & 1 == 1 }

  private func bits(_ set: UInt64) -> some Sequence<Int> {
    sequence(state: set) { rest -> Int? in
      guard rest != 0 else { return nil }
      defer { rest &= rest - 1 }
      return rest.trailingZeroBitCount
    }
  }
}
