import PacketIO
import Transports

/// Hairpins without gateways, for tests and measurements of what many idle ones cost.
extension HairpinEngine {
  /// Opens datagram hairpins of as many tickets, both sides as if their gateways had proved themselves.
  /// - Returns: how many are open: fewer than asked for when files or ports run out.
  mutating func rehearse(_ count: Int, key: HairpinPublicKey) -> Int {
    for opened in 0..<count {
      let side = HairpinTicket.Party(name: "idle", encapsulations: [.udp], key: key)
      let ticket = HairpinTicket(
        number: .random(using: &random), first: side, second: side, notBefore: 0, notAfter: .max)
      guard let index = begin(ticket) else { return opened }
      for end in HairpinEnd.allCases {
        let side = 2 * index + Int(end.rawValue)
        guard allocate(side, encapsulation: .udp, listen: 0, ticket) == nil else { return opened }
        sides[side].isProven = true
        // An address that nobody has.
        sides[side].name = SocketName(Endpoint(address: options.listen[0].address, port: 1))
        hairpins[index]?.life.proved(end, now: clock.monotonic)
      }
    }
    return count
  }
}
