package import PacketIO

/// What gateways and identity relays say to each other when a gateway enrols. docs/RELAY.md has the layout; hello,
/// challenge, refused, hold and held are those of `HairpinMessage`, with the same frame.
package enum EnrolmentMessage: Equatable, Sendable {
  case enrol(Enrol)
  case enrolled(Enrolled)
  /// Sealed packets or a handshake came from an address that nobody has enrolled from.
  case who(nonce: HairpinNumber, cookie: [UInt8])
  /// An enrolment is older than the one that is known.
  case older(Older)

  /// A gateway says who it is.
  package struct Enrol: Equatable, Sendable {
    package var nonce: HairpinNumber
    package var cookie: [UInt8]
    /// Zero: it has none.
    package var token: HairpinNumber
    package var sequence: UInt64
    package var identity: Key
    /// Tickets of version 2, which allow what no rule of the relay says anything of; each behind its length in two bytes.
    package var tickets: [UInt8]
    package var signature: [UInt8]

    package init(
      nonce: HairpinNumber, cookie: [UInt8], token: HairpinNumber, sequence: UInt64, identity: Key,
      tickets: [UInt8] = [], signature: [UInt8] = []
    ) {
      self.nonce = nonce
      self.cookie = cookie
      self.token = token
      self.sequence = sequence
      self.identity = identity
      self.tickets = tickets
      self.signature = signature
    }
  }

  /// A relay has taken the enrolment.
  package struct Enrolled: Equatable, Sendable {
    package var nonce: HairpinNumber
    package var token: HairpinNumber
    /// Seconds without a word after which the enrolment ends.
    package var silence: UInt16
    /// 0 to 255: how busy the relay is.
    package var load: UInt8
    /// Where the gateway was seen.
    package var seen: Endpoint
    package var identity: Key
    package var signature: [UInt8]

    package init(
      nonce: HairpinNumber, token: HairpinNumber, silence: UInt16, load: UInt8, seen: Endpoint, identity: Key,
      signature: [UInt8] = []
    ) {
      self.nonce = nonce
      self.token = token
      self.silence = silence
      self.load = load
      self.seen = seen
      self.identity = identity
      self.signature = signature
    }
  }

  /// A relay knows a later enrolment, and of which number. Signed, because a gateway goes on above that.
  package struct Older: Equatable, Sendable {
    package var nonce: HairpinNumber
    package var sequence: UInt64
    package var identity: Key
    package var signature: [UInt8]

    package init(nonce: HairpinNumber, sequence: UInt64, identity: Key, signature: [UInt8] = []) {
      self.nonce = nonce
      self.sequence = sequence
      self.identity = identity
      self.signature = signature
    }
  }

  /// A public key as HOST_ID has it (RFC 7401 §5.2.9): the algorithm, and the host identity.
  package struct Key: Equatable, Sendable {
    package var algorithm: UInt16
    package var hostIdentity: [UInt8]

    package init(algorithm: UInt16, hostIdentity: [UInt8]) {
      self.algorithm = algorithm
      self.hostIdentity = hostIdentity
    }
  }

  /// Bytes of the shortest enrolment, and so of the longest answer.
  package static let leastEnrol = 224
  /// Bytes of the longest enrolment.
  package static let mostEnrol = 1280
  /// Bytes of `who`: it goes only to who has sent as many.
  package static let whoLength = HairpinMessage.headerLength + 16 + HairpinMessage.cookieLength

  private enum Kind {
    static let enrol: UInt8 = 12
    static let enrolled: UInt8 = 13
    static let who: UInt8 = 14
    static let older: UInt8 = 15
  }

  /// What a gateway signs: all of its message before the signature, for that relay alone. A relay that hands an enrolment
  /// on to another one is not believed there.
  ///
  /// - Parameters:
  ///   - message: encoded, with a signature as long as the real one.
  ///   - relay: the 16 bytes of the relay's GID.
  package static func proof(ofEnrol message: [UInt8], signature count: Int, relay: [UInt8]) -> [UInt8] {
    Array("culvert relay enrolment 1".utf8) + relay + message.dropLast(count)
  }

  /// What a relay signs, for that gateway alone.
  package static func proof(ofEnrolled message: [UInt8], signature count: Int, gateway: [UInt8]) -> [UInt8] {
    Array("culvert relay enrolled 1".utf8) + gateway + message.dropLast(count)
  }

  /// The same of `older`.
  package static func proof(ofOlder message: [UInt8], signature count: Int, gateway: [UInt8]) -> [UInt8] {
    Array("culvert relay older 1".utf8) + gateway + message.dropLast(count)
  }

  // MARK: Codec

  /// With the four zero bytes in front.
  package var encoded: [UInt8] { [0, 0, 0, 0] + unmarked }

  /// What follows the four zero bytes, which a link puts in front.
  package var unmarked: [UInt8] {
    var body: [UInt8] = []
    let kind: UInt8
    switch self {
    case .enrol(let enrol):
      kind = Kind.enrol
      body.append(enrol.nonce)
      body += enrol.cookie
      body.append(enrol.token)
      body.append(number: enrol.sequence)
      body.append(enrol.identity)
      for part in [enrol.tickets, enrol.signature] { body.append(number: UInt16(clamping: part.count)) }
      body += enrol.tickets
      let length = HairpinMessage.headerLength + body.count + enrol.signature.count
      body += [UInt8](repeating: 0, count: max(EnrolmentMessage.leastEnrol - length, 0))
      body += enrol.signature
    case .enrolled(let enrolled):
      kind = Kind.enrolled
      body.append(enrolled.nonce)
      body.append(enrolled.token)
      body.append(number: enrolled.silence)
      body += [enrolled.load, 0]
      body.append(enrolled.seen)
      body.append(enrolled.identity)
      body += enrolled.signature
    case .who(let nonce, let cookie):
      kind = Kind.who
      body.append(nonce)
      body += cookie
    case .older(let older):
      kind = Kind.older
      body.append(older.nonce)
      body.append(number: older.sequence)
      body.append(older.identity)
      body += older.signature
    }
    return HairpinMessage.head(kind, detail: 0, body: body.count) + body
  }

  /// Nil for anything but a message's one spelling.
  package init?(_ bytes: [UInt8]) {
    guard bytes.starts(with: [0, 0, 0, 0]) else { return nil }
    self.init(unmarked: bytes.dropFirst(Superpacket.markerLength))
  }

  /// The same of what follows the four zero bytes.
  package init?(unmarked bytes: ArraySlice<UInt8>) {
    guard bytes.count <= EnrolmentMessage.mostEnrol, let opened = HairpinMessage.open(bytes), opened.detail == 0 else {
      return nil
    }
    var reader = opened.fields
    guard let nonce = reader.number16() else { return nil }
    switch opened.kind {
    case Kind.enrol:
      guard let enrol = EnrolmentMessage.enrol(nonce, &reader, count: bytes.count + Superpacket.markerLength) else {
        return nil
      }
      self = .enrol(enrol)
    case Kind.enrolled:
      guard let token = reader.number16(), let silence = reader.number(UInt16.self), let load = reader.byte(),
        reader.byte() == 0, let seen = reader.endpoint(), let identity = reader.identity(), !reader.isAtEnd
      else { return nil }
      self = .enrolled(
        Enrolled(
          nonce: nonce, token: token, silence: silence, load: load, seen: seen, identity: identity,
          signature: reader.takeRest()))
    case Kind.who:
      guard let cookie = reader.take(HairpinMessage.cookieLength) else { return nil }
      self = .who(nonce: nonce, cookie: cookie)
    case Kind.older:
      guard let sequence = reader.number(UInt64.self), let identity = reader.identity(), !reader.isAtEnd else {
        return nil
      }
      self = .older(Older(nonce: nonce, sequence: sequence, identity: identity, signature: reader.takeRest()))
    default: return nil
    }
    guard reader.isAtEnd else { return nil }
  }

  private static func enrol(_ nonce: HairpinNumber, _ reader: inout ByteReader, count: Int) -> Enrol? {
    guard let cookie = reader.take(HairpinMessage.cookieLength), let token = reader.number16(),
      let sequence = reader.number(UInt64.self), let identity = reader.identity(),
      let ticketBytes = reader.number(UInt16.self), let signatureBytes = reader.number(UInt16.self),
      signatureBytes > 0, let tickets = reader.take(Int(ticketBytes))
    else { return nil }
    let fixed = HairpinMessage.headerLength + 16 + HairpinMessage.cookieLength + 16 + 8 + 4 + 4
    let used = fixed + identity.hostIdentity.count + Int(ticketBytes) + Int(signatureBytes)
    guard count == max(used, leastEnrol), let zeros = reader.take(count - used), zeros.allSatisfy({ $0 == 0 }),
      let signature = reader.take(Int(signatureBytes))
    else { return nil }
    return Enrol(
      nonce: nonce, cookie: cookie, token: token, sequence: sequence, identity: identity, tickets: tickets,
      signature: signature)
  }
}

extension ByteReader {
  mutating func identity() -> EnrolmentMessage.Key? {
    guard let algorithm = number(UInt16.self), let count = number(UInt16.self), count > 0, let key = take(Int(count))
    else { return nil }
    return EnrolmentMessage.Key(algorithm: algorithm, hostIdentity: key)
  }

  /// A port, and an IPv6 address or an IPv4 address mapped into one (RFC 4291 §2.5.5.2).
  fileprivate mutating func endpoint() -> Endpoint? {
    guard let port = number(UInt16.self), let high = number(UInt64.self), let low = number(UInt64.self) else {
      return nil
    }
    let isV4 = high == 0 && low >> 32 == 0xFFFF
    return Endpoint(
      address: isV4 ? IPAddress(v4: UInt32(truncatingIfNeeded: low)) : IPAddress(v6High: high, low: low), port: port)
  }
}

extension [UInt8] {
  mutating func append(_ identity: EnrolmentMessage.Key) {
    append(number: identity.algorithm)
    append(number: UInt16(clamping: identity.hostIdentity.count))
    self += identity.hostIdentity
  }

  fileprivate mutating func append(_ endpoint: Endpoint) {
    append(number: endpoint.port)
    append(number: endpoint.address.isV4 ? 0 : endpoint.address.high)
    append(
      number: endpoint.address.isV4
        ? 0xFFFF_0000_0000 | UInt64(truncatingIfNeeded: endpoint.address.v4) : endpoint.address.low)
  }
}
