public import Transports

/// What a proxy remembers of a ticket after its hairpin ended.
public struct HairpinUse: Hashable, Sendable {
  public var number: HairpinNumber
  /// The ticket's own end, seconds since 1970: until then it is remembered.
  public var notAfter: UInt64
  /// Whether it is used up. Not so after a time window closed or the proxy stopped: then it goes on with what is left.
  public var isSpent: Bool
  /// Bytes that count against its limit.
  public var bytes: UInt64
  /// Its first use, seconds since 1970.
  public var started: Int64

  public init(number: HairpinNumber, notAfter: UInt64, isSpent: Bool, bytes: UInt64, started: Int64) {
    self.number = number
    self.notAfter = notAfter
    self.isSpent = isSpent
    self.bytes = bytes
    self.started = started
  }

  /// One line of a file of used tickets.
  public var line: String { "\(number) \(notAfter) \(isSpent ? "spent" : "open") \(bytes) \(started)" }

  /// Reads what `line` writes.
  public init?(line: String) {
    let words = line.split(separator: " ", omittingEmptySubsequences: false).map(String.init)
    guard words.count == 5, let number = HairpinNumber(words[0]), let notAfter = UInt64(digits: words[1]),
      ["spent", "open"].contains(words[2]), let bytes = UInt64(digits: words[3]), let started = Int64(digits: words[4])
    else { return nil }
    self.init(number: number, notAfter: notAfter, isSpent: words[2] == "spent", bytes: bytes, started: started)
  }
}

/// Tickets that were used, until they expire by themselves. Never forgets one before: when it is full, no new ticket
/// is taken.
struct TicketMemory {
  let capacity: Int
  private var uses: [HairpinNumber: HairpinUse] = [:]
  private var nextSweep: Int64 = .min

  init(capacity: Int, _ earlier: [HairpinUse] = []) {
    self.capacity = capacity
    for use in earlier { uses[use.number] = use }
  }

  var count: Int { uses.count }

  subscript(number: HairpinNumber) -> HairpinUse? { uses[number] }

  /// Whether one more would be remembered, beside `reserved` that are under way.
  mutating func hasRoom(reserved: Int, now: Int64) -> Bool {
    if uses.count + reserved >= capacity, now >= nextSweep {
      // All are looked at, so not more than once a second, however many ask.
      nextSweep = now + 1
      uses = uses.filter { Int64(clamping: $0.value.notAfter) >= now }
    }
    return uses.count + reserved < capacity
  }

  mutating func remember(_ use: HairpinUse) { uses[use.number] = use }
}

/// Whether a ticket opens a hairpin.
struct HairpinAdmission {
  /// Control systems whose tickets count.
  let keys: [HairpinPublicKey]
  /// This proxy's name.
  let name: String
  var memory: TicketMemory

  /// Why the ticket is refused; nil: it is genuine and may be used now.
  /// - Parameter reserved: hairpins that are under way.
  mutating func judge(
    _ signed: SignedHairpinTicket, encapsulation: Encapsulation, end: HairpinEnd, now: Int64, isLive: Bool,
    reserved: Int
  ) -> HairpinReason? {
    let ticket = signed.ticket
    // The signature first: who has no genuine ticket learns nothing else.
    guard keys.contains(where: { signed.isSigned(by: $0) }) else { return .forged }
    if !ticket.proxy.isEmpty, ticket.proxy != name { return .otherProxy }
    if now < Int64(clamping: ticket.notBefore) { return .notYetValid }
    if now > Int64(clamping: ticket.notAfter) { return .expired }
    if !ticket[end].encapsulations.contains(encapsulation) { return .encapsulationNotAllowed }
    if isLive { return nil }
    if let use = memory[ticket.number] {
      if use.isSpent { return .used }
      if ticket.lifetime > 0, now >= use.started + Int64(ticket.lifetime) { return .used }
    }
    if !ticket.isOpen(at: now) { return .closedNow }
    if !memory.hasRoom(reserved: reserved, now: now), memory[ticket.number] == nil { return .full }
    return nil
  }
}
