import PacketIO

/// One gateway's whole position in the negotiation of addresses, as the body of a control message of type 16.
///
/// A message replaces all earlier ones of its session, so that loss, duplication and reordering need no care but for
/// the revision number. Integers are in network order:
///
///      0  version, 1                  16  the peer's session, as far as the sender knows; 0: not at all
///      1  flags; 1: please reply      24  revision of this position, 4 bytes, from 1
///      2  zero, 6 bytes               28  the peer's last revision that was seen, 4 bytes
///      8  session, 8 random bytes     32  elements
///         that are new at each start
///
/// Each element has a byte of type and a byte of length; unknown types are skipped:
///
///     1  offer     version of IP, prefix length, kind, prefix; kind 0: as it is, 1: known by the intermediate prefix
///                  that follows, 2: abandoned, a failure follows, 3: withdrawn
///     2  verdict   number of the offer, kind; kind 0: as it is, 1: accepted, 2: another is wanted, 3: refused. With
///                  2, flags (1: a proposal follows the failure, 2: no other will do); with 2 and 3, a failure
///     3  occupied  a prefix that proposals should not overlap
///
/// A failure is a byte of reason and a prefix, a prefix is a byte of IP version (0: none, and nothing follows), a byte
/// of length and 4 or 16 bytes.
struct AddressMessage: Equatable, Sendable {
  static let type = ControlMessage.Kind.addresses
  /// Bytes of a body at most.
  static let longest = ControlMessage.bodyCapacity
  /// Prefixes that a gateway can have under negotiation with one partner: as many as fit, IPv6 and all proposed.
  static let mostOffers = 16

  private static let version: UInt8 = 1
  private static let headerLength = 32

  struct Offer: Equatable, Sendable {
    enum Kind: Equatable, Sendable {
      case asIs
      case proposed(Prefix)
      case abandoned(NegotiationFailure)
      case withdrawn
    }
    var prefix: Prefix
    var kind: Kind
  }

  struct Verdict: Equatable, Sendable {
    enum Kind: Equatable, Sendable {
      case asIs
      case accepted
      case another(NegotiationFailure, proposal: Prefix?, isOnlyOne: Bool)
      case refused(NegotiationFailure)
    }
    /// Number of the peer's offer, in its message's order.
    var offer: Int
    var kind: Kind
  }

  var wantsReply = false
  var session: UInt64
  var peerSession: UInt64 = 0
  var revision: UInt32
  var seen: UInt32 = 0
  var offers: [Offer] = []
  var verdicts: [Verdict] = []
  var occupied: [Prefix] = []

  private enum Element {
    static let offer: UInt8 = 1
    static let verdict: UInt8 = 2
    static let occupied: UInt8 = 3
  }
}

// MARK: - Encoding

extension AddressMessage {
  /// `longest` bytes or fewer: where room is short, first what is in the way is left out, then the occupied prefixes.
  func encoded() -> [UInt8] {
    var body: [UInt8] = [AddressMessage.version, wantsReply ? 1 : 0] + [UInt8](repeating: 0, count: 6)
    body.append(number: session)
    body.append(number: peerSession)
    body.append(number: revision)
    body.append(number: seen)
    // What every element takes at least; the rest is there for explanations.
    var room = AddressMessage.longest - body.count
    let offers = offers.prefix(AddressMessage.mostOffers)
    let verdicts = verdicts.prefix(AddressMessage.mostOffers)
    for offer in offers { room -= AddressMessage.element(offer, withConflict: false).count }
    for verdict in verdicts { room -= AddressMessage.element(verdict, withConflict: false).count }
    func append(_ short: [UInt8], _ long: [UInt8]) {
      let more = long.count - short.count
      body += more <= room ? long : short
      if more <= room { room -= more }
    }
    for offer in offers {
      append(AddressMessage.element(offer, withConflict: false), AddressMessage.element(offer, withConflict: true))
    }
    for verdict in verdicts {
      append(AddressMessage.element(verdict, withConflict: false), AddressMessage.element(verdict, withConflict: true))
    }
    for prefix in occupied {
      var value: [UInt8] = []
      value.append(prefix)
      append([], AddressMessage.element(Element.occupied, value))
    }
    return body
  }

  private static func element(_ type: UInt8, _ value: [UInt8]) -> [UInt8] { [type, UInt8(value.count)] + value }

  private static func element(_ offer: Offer, withConflict: Bool) -> [UInt8] {
    let prefix = offer.prefix
    var value: [UInt8] = [prefix.address.family.rawValue, UInt8(prefix.length), 0]
    value.append(prefix.address)
    switch offer.kind {
    case .asIs: break
    case .proposed(let intermediate):
      value[2] = 1
      value.append(intermediate.address)
    case .abandoned(let failure):
      value[2] = 2
      value.append(failure, withConflict: withConflict)
    case .withdrawn: value[2] = 3
    }
    return element(Element.offer, value)
  }

  private static func element(_ verdict: Verdict, withConflict: Bool) -> [UInt8] {
    var value: [UInt8] = [UInt8(truncatingIfNeeded: verdict.offer), 0]
    switch verdict.kind {
    case .asIs: break
    case .accepted: value[1] = 1
    case .another(let failure, let proposal, let isOnlyOne):
      value[1] = 2
      value.append((proposal != nil ? 1 : 0) | (isOnlyOne ? 2 : 0))
      value.append(failure, withConflict: withConflict)
      if let proposal { value.append(proposal) }
    case .refused(let failure):
      value[1] = 3
      value.append(failure, withConflict: withConflict)
    }
    return element(Element.verdict, value)
  }
}

extension [UInt8] {
  fileprivate mutating func append(_ address: IPAddress) {
    if address.isV4 {
      append(number: address.v4)
    } else {
      append(number: address.high)
      append(number: address.low)
    }
  }

  fileprivate mutating func append(_ prefix: Prefix) {
    append(contentsOf: [prefix.address.family.rawValue, UInt8(prefix.length)])
    append(prefix.address)
  }

  fileprivate mutating func append(_ failure: NegotiationFailure, withConflict: Bool) {
    append(failure.reason.rawValue)
    if withConflict, let conflict = failure.conflict { append(conflict) } else { append(UInt8(0)) }
  }
}

// MARK: - Decoding

extension AddressMessage {
  /// Nil for what is not such a message, or breaks its limits.
  init?(_ body: [UInt8]) {
    var reader = ByteReader(body[...])
    guard body.count <= AddressMessage.longest, reader.byte() == AddressMessage.version, let flags = reader.byte(),
      reader.skip(6), let session = reader.number(UInt64.self), let peerSession = reader.number(UInt64.self),
      let revision = reader.number(UInt32.self), let seen = reader.number(UInt32.self), session != 0, revision != 0
    else { return nil }
    self.init(
      wantsReply: flags & 1 != 0, session: session, peerSession: peerSession, revision: revision, seen: seen)
    while !reader.isAtEnd {
      guard let type = reader.byte(), let length = reader.byte(), var value = reader.reader(Int(length)) else {
        return nil
      }
      switch type {
      case Element.offer:
        guard offers.count < AddressMessage.mostOffers, let offer = AddressMessage.offer(&value), value.isAtEnd,
          !offers.contains(where: { $0.prefix == offer.prefix })
        else { return nil }
        offers.append(offer)
      case Element.verdict:
        guard verdicts.count < AddressMessage.mostOffers, let verdict = AddressMessage.verdict(&value), value.isAtEnd
        else { return nil }
        verdicts.append(verdict)
      case Element.occupied:
        guard let prefix = value.prefix(), value.isAtEnd else { return nil }
        occupied.append(prefix)
      default: break
      }
    }
  }

  private static func offer(_ value: inout ByteReader) -> Offer? {
    guard let version = value.byte(), let family = IPAddress.Family(rawValue: version), let length = value.byte(),
      let kind = value.byte(), let prefix = value.prefix(family, length)
    else { return nil }
    switch kind {
    case 0: return Offer(prefix: prefix, kind: .asIs)
    case 1: return value.prefix(family, length).map { Offer(prefix: prefix, kind: .proposed($0)) }
    case 2: return value.failure().map { Offer(prefix: prefix, kind: .abandoned($0)) }
    case 3: return Offer(prefix: prefix, kind: .withdrawn)
    default: return nil
    }
  }

  private static func verdict(_ value: inout ByteReader) -> Verdict? {
    guard let offer = value.byte(), let kind = value.byte() else { return nil }
    switch kind {
    case 0: return Verdict(offer: Int(offer), kind: .asIs)
    case 1: return Verdict(offer: Int(offer), kind: .accepted)
    case 2:
      guard let flags = value.byte(), let failure = value.failure() else { return nil }
      var proposal: Prefix?
      if flags & 1 != 0 {
        proposal = value.prefix()
        if proposal == nil { return nil }
      }
      return Verdict(offer: Int(offer), kind: .another(failure, proposal: proposal, isOnlyOne: flags & 2 != 0))
    case 3: return value.failure().map { Verdict(offer: Int(offer), kind: .refused($0)) }
    default: return nil
    }
  }
}

extension ByteReader {
  fileprivate mutating func prefix(_ family: IPAddress.Family, _ length: UInt8) -> Prefix? {
    let address: IPAddress
    if family == .v4 {
      guard let number = number(UInt32.self) else { return nil }
      address = IPAddress(v4: number)
    } else {
      guard let high = number(UInt64.self), let low = number(UInt64.self) else { return nil }
      address = IPAddress(v6High: high, low: low)
    }
    // A prefix of no length is everything, and nothing that could be agreed on.
    guard (1...address.bitWidth).contains(Int(length)) else { return nil }
    return Prefix(address, length: Int(length))
  }

  fileprivate mutating func prefix() -> Prefix? {
    guard let version = byte(), let family = IPAddress.Family(rawValue: version), let length = byte() else {
      return nil
    }
    return prefix(family, length)
  }

  fileprivate mutating func failure() -> NegotiationFailure? {
    guard let code = byte(), let version = byte() else { return nil }
    let reason = NegotiationFailure.Reason(rawValue: code) ?? .unknown
    if version == 0 { return NegotiationFailure(reason) }
    guard let family = IPAddress.Family(rawValue: version), let length = byte(), let conflict = prefix(family, length)
    else { return nil }
    return NegotiationFailure(reason, conflict: conflict)
  }
}
