import Identity
import Transports

/// Pairs that tickets allow of which nothing else is said. Tickets are shown at enrolments by one of the two, count for
/// both, and are forgotten with their end.
struct RelayTickets: Sendable {
  /// Control systems whose tickets count, and this relay's name.
  private let keys: [HairpinPublicKey]
  private let name: String
  /// Pairs that are kept.
  private let capacity: Int
  /// Genuine ones that have not ended: also those that have not begun, so that one follows the other without a gap.
  private var kept: [RelayPolicy.Pair: [IdentityTicket]] = [:]
  private var partners: [HostIdentityTag: Set<HostIdentityTag>] = [:]
  private var nextSweep: Int64 = .min

  init(keys: [HairpinPublicKey], name: String, capacity: Int) {
    self.keys = keys
    self.name = name
    self.capacity = capacity
  }

  /// Pairs that have some.
  var count: Int { kept.count }

  /// Those that could let a gateway meet somebody, as far as that is seen without a signature: they are not believed yet.
  func promising(
    _ shown: [SignedIdentityTicket], of gateway: HostIdentityTag, under policy: RelayPolicy, wall: Int64
  ) -> [SignedIdentityTicket] {
    guard !keys.isEmpty else { return [] }
    return shown.filter { signed in
      let pair = signed.ticket.pair
      return (pair.smaller == gateway || pair.greater == gateway) && signed.ticket.relay == name
        && wall <= signed.ticket.lastSecond && !policy.denies(pair)
    }
  }

  /// Takes what a gateway shows that has proved who it is: what of it is genuine is kept.
  /// - Returns: how many signatures were checked. What is known already costs none.
  mutating func take(_ promising: [SignedIdentityTicket], wall: Int64) -> Int {
    var checks = 0
    for signed in promising {
      let pair = signed.ticket.pair
      if kept[pair]?.contains(signed.ticket) == true { continue }
      guard hasRoom(for: pair, wall) else { continue }
      let isGenuine = keys.contains { key in
        checks += 1
        return signed.isSigned(by: key)
      }
      if isGenuine { keep(signed.ticket, wall) }
    }
    return checks
  }

  private mutating func keep(_ ticket: IdentityTicket, _ wall: Int64) {
    let pair = ticket.pair
    var tickets = kept[pair, default: []].filter { wall <= $0.lastSecond } + [ticket]
    if tickets.count > SignedIdentityTicket.mostShown {
      // What begins last can be shown once more until then.
      tickets.sort { $0.notBefore < $1.notBefore }
      tickets.removeLast()
    }
    kept[pair] = tickets
    partners[pair.smaller, default: []].insert(pair.greater)
    partners[pair.greater, default: []].insert(pair.smaller)
  }

  private mutating func hasRoom(for pair: RelayPolicy.Pair, _ wall: Int64) -> Bool {
    if kept.count >= capacity, wall >= nextSweep {
      // All are looked at, so not more than once a second, however many ask.
      nextSweep = wall + 1
      forget { $0.allSatisfy { $0.lastSecond < wall } }
    }
    return kept.count < capacity || kept[pair] != nil
  }

  /// What another policy denies does not come back when that one goes.
  mutating func forget(deniedBy policy: RelayPolicy) {
    let denied = Set(kept.keys.filter { policy.denies($0) })
    if !denied.isEmpty { forget { denied.contains($0[0].pair) } }
  }

  private mutating func forget(where isOver: ([IdentityTicket]) -> Bool) {
    kept = kept.filter { !isOver($0.value) }
    partners = [:]
    for pair in kept.keys {
      partners[pair.smaller, default: []].insert(pair.greater)
      partners[pair.greater, default: []].insert(pair.smaller)
    }
  }

  /// Whether a ticket that has begun names a gateway, whoever has shown it, and whatever the time of day.
  func names(_ gateway: HostIdentityTag, at wall: Int64) -> Bool {
    partners[gateway]?.contains { partner in
      kept[RelayPolicy.Pair(gateway, partner)]?.contains { $0.hasBegun(at: wall) && wall <= $0.lastSecond } == true
    } == true
  }

  /// On which terms two gateways may meet now: as the policy says, or where it says nothing, a ticket. Nil: they may not.
  func terms(_ pair: RelayPolicy.Pair, under policy: RelayPolicy, at wall: Int64) -> RelayPolicy.Terms? {
    guard pair.smaller != pair.greater else { return nil }
    if policy.covers(pair.smaller, pair.greater) { return policy.terms(pair.smaller, pair.greater, at: wall) }
    guard let tickets = kept[pair] else { return nil }
    // Of several that which holds longest.
    return tickets.filter { $0.hasBegun(at: wall) && $0.terms.holds(at: wall) }.max { $0.notAfter < $1.notAfter }?.terms
  }
}

extension IdentityTicket {
  fileprivate var lastSecond: Int64 { Int64(clamping: notAfter) }
  fileprivate func hasBegun(at wall: Int64) -> Bool { Int64(clamping: notBefore) <= wall }
}
