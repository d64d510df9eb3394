import PacketIO

@testable import Relay
@testable import Transports

/// Tickets, from whoever presents one to a proxy: what is read has one spelling, and is fit to be acted upon.
let hairpinTicket = FuzzTarget(name: "HairpinTicket") { input in
  if let endorsed = EndorsedTicket(input) { require(endorsed.bytes == input, "two spellings of what is presented") }
  for end in HairpinEnd.allCases { _ = PresentedTicket(input, end)?.isEndorsed }
  guard let signed = SignedHairpinTicket(input) else { return }
  let ticket = signed.ticket
  require(ticket.fault == nil, "read, though \(ticket.fault ?? "")")
  require(ticket.encoded == input.dropLast(SignedHairpinTicket.signatureLength), "two spellings of one ticket")
  let life = HairpinLife(ticket, started: 0, silence: 10, now: MonotonicTime(nanoseconds: 0))
  let clock = HairpinClock(monotonic: MonotonicTime(nanoseconds: 1), wall: 0)
  _ = life.verdict(clock, bytes: 0, lastData: clock.monotonic) { _ in clock.monotonic }
}

/// Messages between gateways and proxies: what is read has one spelling.
let hairpinMessage = FuzzTarget(name: "HairpinMessage") { input in
  guard let message = HairpinMessage(input) else { return }
  require(message.encoded == input, "two spellings of \(message)")
}

/// A gateway's ticket file, as text.
let hairpinTicketFile = FuzzTarget(name: "HairpinTicketFile") { input in
  guard let file = try? HairpinTicketFile(text: text(input)) else { return }
  guard let again = try? HairpinTicketFile(text: file.text) else { return require(false, "does not read back") }
  require(again.text == file.text && again.proxy == file.proxy && again.end == file.end, "reads back otherwise")
}
