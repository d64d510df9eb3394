import Transports

/// Whether a ticket opens a hairpin.
struct TicketJudge {
  /// Control systems whose tickets count.
  let keys: [HairpinPublicKey]
  /// This proxy's name.
  let name: String
  var memory: TicketMemory

  /// Why the ticket is refused; nil: it is genuine and may be used now.
  /// - Parameter reserved: hairpins that are under way.
  mutating func judge(
    _ signed: PresentedTicket, encapsulation: Encapsulation, end: HairpinEnd, now: Int64, isLive: Bool,
    reserved: Int
  ) -> HairpinReason? {
    let ticket = signed.ticket
    // The signature first: who has no genuine ticket learns nothing else.
    guard keys.contains(where: { signed.isSigned(by: $0) }) else { return .forged }
    // Of several relays with one key each would serve a ticket without a name, and its limits would count anew.
    if ticket.proxy != name { return .otherProxy }
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
