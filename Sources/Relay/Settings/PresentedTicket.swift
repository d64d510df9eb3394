import Identity
import Transports

/// A ticket of either version, as a gateway presents it.
struct PresentedTicket {
  let ticket: HairpinTicket
  /// By which its side proves itself.
  let key: HairpinPublicKey
  /// The two that a ticket of version 2 names.
  let pair: RelayPolicy.Pair?
  private let control: (HairpinPublicKey) -> Bool
  private let identity: () -> Bool

  /// Nil for what is no ticket, or one that names another gateway at that end. Signatures are not looked at.
  init?(_ bytes: [UInt8], _ end: HairpinEnd) {
    if let signed = SignedHairpinTicket(bytes), let key = signed.ticket[end].key {
      (ticket, self.key, pair) = (signed.ticket, key, nil)
      control = { signed.isSigned(by: $0) }
      identity = { true }
      return
    }
    guard let endorsed = EndorsedTicket(bytes), let signed = SignedIdentityTicket(endorsed.ticket),
      let gateway = PublicHostIdentity(
        algorithm: endorsed.identity.algorithm, hostIdentity: endorsed.identity.hostIdentity),
      gateway.tag == (end == .first ? signed.ticket.pair.smaller : signed.ticket.pair.greater)
    else { return nil }
    (ticket, key, pair) = (signed.ticket.hairpin, endorsed.key, signed.ticket.pair)
    control = { signed.isSigned(by: $0) }
    identity = {
      gateway.isValid(signature: endorsed.signature, over: EndorsedTicket.proof(endorsed.ticket, endorsed.key))
    }
  }

  /// Whether a control system signed the ticket.
  func isSigned(by key: HairpinPublicKey) -> Bool { control(key) }

  /// Whether the gateway that it names vouches for the key.
  var isEndorsed: Bool { identity() }
}

extension IdentityTicket {
  /// The same as hairpins have it: by either encapsulation, and without limits that have to be kept in books.
  fileprivate var hairpin: HairpinTicket {
    func party(_ tag: HostIdentityTag) -> HairpinTicket.Party {
      HairpinTicket.Party(name: "\(tag)", encapsulations: Set(Encapsulation.allCases), key: nil)
    }
    return HairpinTicket(
      number: number, proxy: relay, first: party(pair.smaller), second: party(pair.greater), notBefore: notBefore,
      notAfter: notAfter, bandwidth: bandwidth, priority: priority, windows: windows)
  }
}
