import PacketIO

@testable import Relay
@testable import Transports

/// A control system, two gateways and their tickets.
struct HairpinSample {
  var random = SplitMix(seed: 5)
  let authority: HairpinPrivateKey
  let keys: [HairpinPrivateKey]
  /// Seconds since 1970 of a Tuesday, 12:00:00 UTC.
  static let noon: Int64 = 1_767_700_800 / 86400 * 86400 + 43200

  init(seed: UInt64 = 5) {
    random = SplitMix(seed: seed)
    authority = HairpinPrivateKey.generate(using: &random)!
    keys = (0..<2).map { [random] number in
      var own = random
      for _ in 0...number { _ = own.next() }
      return HairpinPrivateKey.generate(using: &own)!
    }
    for _ in 0..<64 { _ = random.next() }
  }

  mutating func ticket(at now: Int64 = HairpinSample.noon, _ change: (inout HairpinTicket) -> Void = { _ in })
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

  func file(_ ticket: SignedHairpinTicket, _ end: HairpinEnd, proxy: Endpoint) -> HairpinTicketFile {
    try! HairpinTicketFile(proxy: proxy, end: end, key: keys[Int(end.rawValue)], ticket: ticket)
  }
}

/// Reproducible random numbers (Steele, Lea, Flood: SplitMix64).
struct SplitMix: RandomNumberGenerator, Sendable {
  private var state: UInt64
  init(seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
