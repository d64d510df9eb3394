public import PacketIO
public import Transports

/// A ticket that was presented and refused.
public struct HairpinRefusal: Sendable, CustomStringConvertible {
  public let reason: HairpinReason
  /// Who presented it, by an address at which he receives.
  public let sender: Endpoint
  /// The ticket, if a control system signed it.
  public let ticket: HairpinTicket?

  /// - Parameter ticket: its bytes; nil: what was presented is no genuine ticket.
  init(reason: HairpinReason, sender: Endpoint, ticket: [UInt8]?) {
    self.reason = reason
    self.sender = sender
    self.ticket = ticket.flatMap { SignedHairpinTicket($0)?.ticket }
  }

  /// One line, for a log.
  public var description: String {
    let whose = ticket.map { "a ticket of \($0.first.name) and \($0.second.name)" } ?? "something"
    return "\(sender) presented \(whose), refused: \(reason)"
  }
}

extension HairpinReason {
  /// Whether who is refused so has a ticket that a control system signed.
  var isOfGenuineTicket: Bool { self != .malformed && self != .forged }
}
