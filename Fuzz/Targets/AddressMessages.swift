import PacketIO

@testable import Dataplane

/// Messages of the negotiation of addresses: what is read is written the same, and a gateway that is told anything at
/// all stays within its limits and goes on talking.
let addressMessages = FuzzTarget(name: "AddressMessages") { input in
  if let message = AddressMessage(input) {
    let again = AddressMessage(message.encoded())
    require(again != nil, "\(message) cannot be read back")
    require(again?.offers == message.offers, "\(message) has other offers as \(String(describing: again))")
    require(again?.session == message.session && again?.seen == message.seen, "\(message) is another session's")
  }
  var numbers = SystemRandomNumberGenerator()
  var now = MonotonicTime(nanoseconds: 1)
  var terms = AddressNegotiation.Terms()
  var surroundings = Surroundings()
  surroundings.name = "a"
  terms.peer = "b"
  surroundings.local = ["10.0.0.0/24", "fd00:1::/64"].compactMap { Prefix($0) }
  terms.permitted = ["10.0.0.0/8", "fd00::/8"].compactMap { Prefix($0) }
  var negotiation = AddressNegotiation(terms, surroundings, now: now, random: &numbers)
  let session = negotiation.poll(surroundings, use: .init(), now: now).map { Array($0[8..<16]) } ?? []
  var rest = FuzzInput(input)
  for _ in 0..<32 where !rest.isEmpty {
    var body = rest.bytes(rest.number() & 1023)
    // Half of the messages know whom they talk to.
    if body.count >= 24, body[1] & 2 != 0 { body.replaceSubrange(16..<24, with: session) }
    negotiation.receive(body, type: 16, surroundings, use: .init(), now: now)
    now = now.adding(nanoseconds: 150_000_000)
    if let answer = negotiation.poll(surroundings, use: .init(), now: now) {
      require(AddressMessage(answer) != nil, "an answer of \(answer.count) bytes cannot be read")
    }
    require(negotiation.agreement.remote.count <= 16, "\(negotiation.agreement.remote.count) prefixes")
    for space in negotiation.agreement.remotePairs {
      require(surroundings.pool.contains { $0.covers(space.intermediate) }, "\(space) is outside the pool")
      require(terms.permitted.contains { $0.covers(space.real) }, "\(space) is not the peer's")
      require(!surroundings.local.contains { $0.overlaps(space.intermediate) }, "\(space) is our own")
    }
  }
}
