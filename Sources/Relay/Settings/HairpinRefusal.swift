public import PacketIO
public import Transports

/// A ticket that was presented and refused.
public struct HairpinRefusal: Sendable, CustomStringConvertible {
  public let reason: HairpinReason
  /// Who presented it, by an address at which he receives.
  public let sender: Endpoint
  /// The ticket, if a control system signed it.
  public let ticket: HairpinTicket?

  init(reason: HairpinReason, sender: Endpoint, _ present: HairpinMessage.Present) {
    self.reason = reason
    self.sender = sender
    ticket = reason.isOfGenuineTicket ? PresentedTicket(present.ticket, present.end)?.ticket : nil
  }

  /// One line, for a log.
  public var description: String {
    let whose = ticket.map { "a ticket of \($0.first.name) and \($0.second.name)" } ?? "something"
    return "\(sender) presented \(whose), refused: \(reason)"
  }
}

extension HairpinReason {
  /// Whether who is refused so has a ticket that a control system signed.
  fileprivate var isOfGenuineTicket: Bool { self != .malformed && self != .forged }
}
