import Identity
import Transports

/// Pairs that tickets allow of which no rule says anything. They are shown at enrolments, and forgotten with their end.
struct RelayTickets {
  /// Control systems whose tickets count, and this relay's name.
  private let keys: [HairpinPublicKey]
  private let name: String
  /// Pairs that are kept.
  private let capacity: Int
  private var terms: [RelayPolicy.Pair: RelayPolicy.Terms] = [:]
  private var nextSweep: Int64 = .min

  init(keys: [HairpinPublicKey], name: String, capacity: Int) {
    self.keys = keys
    self.name = name
    self.capacity = capacity
  }

  var count: Int { terms.count }

  /// Whether tickets could let a gateway in: they are read, and not yet believed.
  func mayName(_ gateway: HostIdentityTag, _ tickets: [SignedIdentityTicket]) -> Bool {
    !keys.isEmpty && tickets.contains { [$0.ticket.pair.smaller, $0.ticket.pair.greater].contains(gateway) }
  }

  /// Takes what a gateway shows that has proved who it is.
  /// - Returns: whether one of them is genuine, its own, and good now.
  mutating func take(_ tickets: [SignedIdentityTicket], of gateway: HostIdentityTag, wall: Int64) -> Bool {
    var isNamed = false
    for signed in tickets where [signed.ticket.pair.smaller, signed.ticket.pair.greater].contains(gateway) {
      let ticket = signed.ticket
      guard ticket.relay == name, Int64(clamping: ticket.notBefore) <= wall, wall <= Int64(clamping: ticket.notAfter),
        keys.contains(where: { signed.isSigned(by: $0) }), hasRoom(for: ticket.pair, wall)
      else { continue }
      isNamed = true
      // Of two the one that holds longer: a gateway may show an older one again.
      if let known = terms[ticket.pair], known.notAfter > ticket.terms.notAfter { continue }
      terms[ticket.pair] = ticket.terms
    }
    return isNamed
  }

  private mutating func hasRoom(for pair: RelayPolicy.Pair, _ wall: Int64) -> Bool {
    if terms.count >= capacity, wall >= nextSweep {
      // All are looked at, so not more than once a second, however many ask.
      nextSweep = wall + 1
      terms = terms.filter { $0.value.notAfter >= wall }
    }
    return terms.count < capacity || terms[pair] != nil
  }

  /// On which terms two gateways may meet; nil: no ticket lets them, or not now.
  func terms(_ pair: RelayPolicy.Pair, at wall: Int64) -> RelayPolicy.Terms? {
    guard let terms = terms[pair], terms.holds(at: wall) else { return nil }
    return terms
  }
}
