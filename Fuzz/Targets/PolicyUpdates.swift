@testable import Relay
@testable import Transports

/// Tickets that name GIDs, from whoever shows one: what is read has one spelling, and no hairpin's ticket is one.
let identityTicket = FuzzTarget(name: "IdentityTicket") { input in
  if let ticket = IdentityTicket(encoded: input[...]) {
    require(ticket.encoded == input, "two spellings of \(ticket)")
    require(ticket.fault == nil, "read, though \(ticket.fault ?? "")")
  }
  if SignedIdentityTicket(input) != nil { require(SignedHairpinTicket(input) == nil, "two tickets") }
  _ = SignedIdentityTicket.list(input)
}

/// Policy updates, from whoever can hand one to a relay: what is read has one spelling and can be in force, and nothing is in
/// force that nobody has signed.
let policyUpdate = FuzzTarget(name: "PolicyUpdate") { input in
  if let update = PolicyUpdate(encoded: input[...]) {
    require(update.encoded == input, "two spellings of \(update)")
    require(update.fault == nil, "read, though \(update.fault ?? "")")
  }
  guard let key = HairpinPublicKey([UInt8](repeating: 3, count: 32)),
    let signed = SignedPolicyUpdate(input)
  else { return }
  require(signed.update.encoded == input.dropLast(SignedPolicyUpdate.signatureLength), "two spellings when signed")
  var book = PolicyBook(for: signed.update.relay, keys: [key])
  _ = try? book.take(input)
  require(book.number == 0 && book.policy.namedPairs.isEmpty, "in force, though nobody has signed it")
}
