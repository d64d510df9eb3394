import PacketIO
import TestSupport
import Transports

/// A control system, two gateways and their tickets.
package struct HairpinSample {
  package var random = SeededNumbers(seed: 5)
  package let authority: HairpinPrivateKey
  package let keys: [HairpinPrivateKey]
  /// Seconds since 1970 of a Tuesday, 12:00:00 UTC.
  package static let noon: Int64 = 1_767_700_800 / 86400 * 86400 + 43200

  package init(seed: UInt64 = 5) {
    random = SeededNumbers(seed: seed)
    authority = HairpinPrivateKey.generate(using: &random)!
    keys = (0..<2).map { [random] number in
      var own = random
      for _ in 0...number { _ = own.next() }
      return HairpinPrivateKey.generate(using: &own)!
    }
    for _ in 0..<64 { _ = random.next() }
  }

  package mutating func ticket(at now: Int64 = HairpinSample.noon, _ change: (inout HairpinTicket) -> Void = { _ in })
    -> SignedHairpinTicket
  {
    var ticket = HairpinTicket(
      number: .random(using: &random),
      first: .init(name: "oslo", encapsulations: [.udp, .tcp], key: keys[0].publicKey),
      second: .init(name: "bergen", encapsulations: [.udp, .tcp], key: keys[1].publicKey), notBefore: UInt64(now) - 60,
      notAfter: UInt64(now) + 3600)
    change(&ticket)
    return try! SignedHairpinTicket(signing: ticket, with: authority)
  }

  package func file(_ ticket: SignedHairpinTicket, _ end: HairpinEnd, proxy: Endpoint) -> HairpinTicketFile {
    try! HairpinTicketFile(proxy: proxy, end: end, key: keys[Int(end.rawValue)], ticket: ticket)
  }
}
