package import PacketIO

/// Why a proxy refuses or ends a hairpin. The numbers are those on the wire.
public enum HairpinReason: UInt8, Error, Sendable, CaseIterable, CustomStringConvertible {
  // Refusals
  case malformed = 1
  case forged = 2
  case notYetValid = 3
  case expired = 4
  case closedNow = 5
  case used = 6
  case otherProxy = 7
  case encapsulationNotAllowed = 8
  case full = 9
  case busy = 10
  case noPort = 11
  case outdated = 12
  case notAllowed = 13
  // Ends
  case lifetime = 32
  case window = 33
  case idle = 34
  case bytes = 35
  case partnerGone = 36
  case stopping = 37
  case failed = 38

  /// For operators and records.
  public var description: String {
    switch self {
    case .malformed: "the ticket is malformed"
    case .forged: "the ticket or the proof is forged"
    case .notYetValid: "the ticket is not valid yet"
    case .expired: "the ticket has expired"
    case .closedNow: "the ticket does not allow this time of day"
    case .used: "the ticket was used before"
    case .otherProxy: "the ticket is for another proxy"
    case .encapsulationNotAllowed: "the ticket does not allow this encapsulation"
    case .full: "the proxy is full"
    case .busy: "the proxy is busy"
    case .noPort: "the proxy has no port left"
    case .outdated: "a later proof of the same gateway is known: its clock went back, or another one has its ticket"
    case .notAllowed: "no rule of the relay allows this gateway"
    case .lifetime: "lifetime over"
    case .window: "time window closed"
    case .idle: "idle"
    case .bytes: "byte limit reached"
    case .partnerGone: "partner gone"
    case .stopping: "proxy stopped"
    case .failed: "failed"
    }
  }

  /// Whether the same ticket may be used again after a hairpin ended so. An outage of one side's network must not cost
  /// both the rest of what they were allowed, and a denial may be lifted.
  package var leavesTicketUsable: Bool { [.window, .stopping, .failed, .partnerGone, .notAllowed].contains(self) }
}

/// What gateways and proxies say to each other beside sealed packets. docs/HAIRPIN.md has the layout.
///
/// Four zero bytes come first, where a sealed packet has its SPI (as in RFC 3948 §2.2), so the two are never confused.
package enum HairpinMessage: Equatable, Sendable {
  /// The first word, to the control port, or with a port's token to that port.
  case hello(nonce: HairpinNumber, token: HairpinNumber)
  case challenge(nonce: HairpinNumber, cookie: [UInt8])
  case present(Present)
  case accepted(nonce: HairpinNumber, token: HairpinNumber, port: UInt16, silence: UInt16, secondsLeft: UInt32)
  case refused(nonce: HairpinNumber, reason: UInt8)
  case prove(Prove)
  case welcome(nonce: HairpinNumber, partnerIsThere: Bool)
  case hold(nonce: HairpinNumber)
  case held(nonce: HairpinNumber, partnerIsThere: Bool)
  case end(token: HairpinNumber, reason: UInt8)
  /// On a stream: the records that follow are `packets` sealed packets and have `bytes` bytes, lengths included. A proxy
  /// may move them to a partner's stream without looking.
  case run(bytes: UInt64, packets: UInt64)

  /// A ticket, and the proof to be the gateway at one of its ends.
  package struct Present: Equatable, Sendable {
    package var end: HairpinEnd
    package var encapsulation: Encapsulation
    package var nonce: HairpinNumber
    package var cookie: [UInt8]
    package var sequence: UInt64
    package var signature: [UInt8]
    package var ticket: [UInt8]

    package init(
      end: HairpinEnd, encapsulation: Encapsulation, nonce: HairpinNumber, cookie: [UInt8], sequence: UInt64,
      signature: [UInt8], ticket: [UInt8]
    ) {
      self.end = end
      self.encapsulation = encapsulation
      self.nonce = nonce
      self.cookie = cookie
      self.sequence = sequence
      self.signature = signature
      self.ticket = ticket
    }
  }

  /// The proof to be the gateway for whom a port was allocated.
  package struct Prove: Equatable, Sendable {
    package var nonce: HairpinNumber
    package var cookie: [UInt8]
    package var token: HairpinNumber
    package var sequence: UInt64
    package var signature: [UInt8]

    package init(
      nonce: HairpinNumber, cookie: [UInt8], token: HairpinNumber, sequence: UInt64, signature: [UInt8]
    ) {
      self.nonce = nonce
      self.cookie = cookie
      self.token = token
      self.sequence = sequence
      self.signature = signature
    }
  }

  package static let cookieLength = MessageCode.length
  package static let headerLength = 12
  /// Bytes of a run's message, and of the longest run: more than one send of a gateway has.
  package static let runLength = headerLength + 16
  package static let longestRun: UInt64 = 16 << 20
  /// A hello is padded, so that no answer is longer.
  package static let helloLength = 80
  /// Bytes of the longest message.
  package static let mostBytes =
    headerLength + 16 + cookieLength + 8 + 64 + max(HairpinTicket.mostBytes, EndorsedTicket.mostBytes)
  private static let magic: [UInt8] = [0x43, 0x48, 0x50, 1]

  private enum Kind {
    static let hello: UInt8 = 1
    static let challenge: UInt8 = 2
    static let present: UInt8 = 3
    static let accepted: UInt8 = 4
    static let refused: UInt8 = 5
    static let prove: UInt8 = 6
    static let welcome: UInt8 = 7
    static let hold: UInt8 = 8
    static let held: UInt8 = 9
    static let end: UInt8 = 10
    static let run: UInt8 = 11
  }

  /// What a proof signs: bound to this proxy's cookie, and with it to the sender's address, and to the ticket.
  static func proof(
    _ kind: UInt8, end: HairpinEnd, encapsulation: Encapsulation, nonce: HairpinNumber, cookie: [UInt8],
    token: HairpinNumber,
    sequence: UInt64, ticket: HairpinNumber
  ) -> [UInt8] {
    var bytes = Array("culvert hairpin proof 1".utf8) + [kind, end.rawValue, encapsulation.rawValue]
    bytes.append(nonce)
    bytes += cookie
    bytes.append(token)
    bytes.append(number: sequence)
    bytes.append(ticket)
    return bytes
  }

  /// What the holder signs to present a ticket.
  package static func proof(of present: Present, ticket: HairpinNumber) -> [UInt8] {
    proof(
      Kind.present, end: present.end, encapsulation: present.encapsulation, nonce: present.nonce,
      cookie: present.cookie, token: .zero,
      sequence: present.sequence, ticket: ticket)
  }

  /// What the holder signs to be let in on a port.
  package static func proof(of prove: Prove, end: HairpinEnd, encapsulation: Encapsulation, ticket: HairpinNumber)
    -> [UInt8]
  {
    proof(
      Kind.prove, end: end, encapsulation: encapsulation, nonce: prove.nonce, cookie: prove.cookie, token: prove.token,
      sequence: prove.sequence, ticket: ticket)
  }

  // MARK: Codec

  /// With the four zero bytes in front.
  package var encoded: [UInt8] { [0, 0, 0, 0] + unmarked }

  /// What follows the four zero bytes, which a link puts in front.
  package var unmarked: [UInt8] {
    var body: [UInt8] = []
    var kind: UInt8
    var detail: UInt8 = 0
    switch self {
    case .hello(let nonce, let token):
      kind = Kind.hello
      body.append(nonce)
      body.append(token)
      body += [UInt8](repeating: 0, count: HairpinMessage.helloLength - HairpinMessage.headerLength - body.count)
    case .challenge(let nonce, let cookie):
      kind = Kind.challenge
      body.append(nonce)
      body += cookie
    case .present(let present):
      kind = Kind.present
      detail = present.end.rawValue | present.encapsulation.rawValue << 4
      body.append(present.nonce)
      body += present.cookie
      body.append(number: present.sequence)
      body += present.signature
      body += present.ticket
    case .accepted(let nonce, let token, let port, let silence, let secondsLeft):
      kind = Kind.accepted
      body.append(nonce)
      body.append(token)
      body.append(number: port)
      body.append(number: silence)
      body.append(number: secondsLeft)
    case .refused(let nonce, let reason):
      kind = Kind.refused
      detail = reason
      body.append(nonce)
    case .prove(let prove):
      kind = Kind.prove
      body.append(prove.nonce)
      body += prove.cookie
      body.append(prove.token)
      body.append(number: prove.sequence)
      body += prove.signature
    case .welcome(let nonce, let partnerIsThere):
      kind = Kind.welcome
      detail = partnerIsThere ? 1 : 0
      body.append(nonce)
    case .hold(let nonce):
      kind = Kind.hold
      body.append(nonce)
    case .held(let nonce, let partnerIsThere):
      kind = Kind.held
      detail = partnerIsThere ? 1 : 0
      body.append(nonce)
    case .end(let token, let reason):
      kind = Kind.end
      detail = reason
      body.append(token)
    case .run(let bytes, let packets):
      kind = Kind.run
      body.append(number: bytes)
      body.append(number: packets)
    }
    return HairpinMessage.head(kind, detail: detail, body: body.count) + body
  }

  /// What stands before every message's fields, behind the four zero bytes.
  static func head(_ kind: UInt8, detail: UInt8, body count: Int) -> [UInt8] {
    var bytes: [UInt8] = magic + [kind, detail]
    bytes.append(number: UInt16(clamping: headerLength + count))
    return bytes
  }

  /// Takes that off again; nil where it is another's, or tells of another length.
  static func open(_ unmarked: ArraySlice<UInt8>) -> (kind: UInt8, detail: UInt8, fields: ByteReader)? {
    var reader = ByteReader(unmarked)
    guard reader.take(4) == magic, let kind = reader.byte(), let detail = reader.byte(),
      let length = reader.number(UInt16.self), Int(length) == unmarked.count + Superpacket.markerLength
    else { return nil }
    return (kind, detail, reader)
  }

  /// Whether what follows four zero bytes is of this protocol, and not of gateways among each other, which a relay forwards.
  package static func isOwn(_ unmarked: PacketBytes) -> Bool {
    unmarked.count >= 3 && unmarked[0] == magic[0] && unmarked[1] == magic[1] && unmarked[2] == magic[2]
  }

  /// Whether it has the length and the type of a run's announcement: most messages are told from one without reading them.
  package static func mayBeRun(_ message: PacketBytes) -> Bool {
    message.count == runLength && message[Superpacket.markerLength + magic.count] == Kind.run
  }

  /// Whether it is a hello or a proof with that token, as far as its first bytes tell.
  package static func names(_ token: HairpinNumber, _ message: PacketBytes) -> Bool {
    let kind = Superpacket.markerLength + magic.count
    guard message.count >= helloLength, message.loadNative(0, as: UInt32.self) == 0 else { return false }
    // The token's place, behind the nonce, and the cookie where there is one.
    let place: Int
    switch message[kind] {
    case Kind.hello: place = headerLength + 16
    case Kind.prove: place = headerLength + 16 + cookieLength
    default: return false
    }
    return message.load64(place) == token.high && message.load64(place + 8) == token.low
  }

  /// Nil for anything but a message's one spelling.
  package init?(_ bytes: [UInt8]) {
    guard bytes.starts(with: [0, 0, 0, 0]) else { return nil }
    self.init(unmarked: bytes.dropFirst(Superpacket.markerLength))
  }

  /// The same of what follows the four zero bytes.
  package init?(unmarked bytes: ArraySlice<UInt8>) {
    let count = bytes.count + Superpacket.markerLength
    guard count >= HairpinMessage.headerLength, count <= HairpinMessage.mostBytes else { return nil }
    guard let opened = HairpinMessage.open(bytes) else { return nil }
    var reader = opened.fields
    guard let first = reader.number16() else { return nil }
    guard let message = HairpinMessage.read(opened.kind, opened.detail, first, &reader), reader.isAtEnd else {
      return nil
    }
    self = message
  }

  private static func read(
    _ kind: UInt8, _ detail: UInt8, _ first: HairpinNumber, _ reader: inout ByteReader
  ) -> HairpinMessage? {
    let isPlain = detail == 0
    let flag: Bool? = detail <= 1 ? detail == 1 : nil
    switch kind {
    case Kind.hello:
      guard isPlain, let token = reader.number16(),
        let rest = reader.take(helloLength - headerLength - 32), rest.allSatisfy({ $0 == 0 })
      else { return nil }
      return .hello(nonce: first, token: token)
    case Kind.challenge:
      guard isPlain, let cookie = reader.take(cookieLength) else { return nil }
      return .challenge(nonce: first, cookie: cookie)
    case Kind.present:
      guard let end = HairpinEnd(rawValue: detail & 15), let encapsulation = Encapsulation(rawValue: detail >> 4),
        let cookie = reader.take(cookieLength), let sequence = reader.number(UInt64.self),
        let signature = reader.take(64), !reader.isAtEnd
      else { return nil }
      return .present(
        Present(
          end: end, encapsulation: encapsulation, nonce: first, cookie: cookie, sequence: sequence,
          signature: signature, ticket: reader.takeRest()))
    case Kind.accepted:
      guard isPlain, let token = reader.number16(), let port = reader.number(UInt16.self), port > 0,
        let silence = reader.number(UInt16.self), let seconds = reader.number(UInt32.self)
      else { return nil }
      return .accepted(nonce: first, token: token, port: port, silence: silence, secondsLeft: seconds)
    case Kind.refused: return .refused(nonce: first, reason: detail)
    case Kind.prove:
      guard isPlain, let cookie = reader.take(cookieLength), let token = reader.number16(),
        let sequence = reader.number(UInt64.self), let signature = reader.take(64)
      else { return nil }
      return .prove(Prove(nonce: first, cookie: cookie, token: token, sequence: sequence, signature: signature))
    case Kind.welcome: return flag.map { .welcome(nonce: first, partnerIsThere: $0) }
    case Kind.hold: return isPlain ? .hold(nonce: first) : nil
    case Kind.held: return flag.map { .held(nonce: first, partnerIsThere: $0) }
    case Kind.end: return .end(token: first, reason: detail)
    case Kind.run: return isPlain ? readRun(bytes: first.high, packets: first.low) : nil
    default: return nil
    }
  }
}

extension HairpinMessage {
  /// Nil where so many sealed packets cannot have so many bytes.
  private static func readRun(bytes: UInt64, packets: UInt64) -> HairpinMessage? {
    let shortest = UInt64(RecordFramer.lengthBytes + 4)
    guard (shortest...longestRun).contains(bytes), packets > 0, packets <= bytes / shortest,
      bytes <= packets * UInt64(RecordFramer.longestRecord)
    else { return nil }
    return .run(bytes: bytes, packets: packets)
  }
}

extension RunAnnouncement {
  /// To a proxy.
  static let hairpin = RunAnnouncement(
    length: HairpinMessage.runLength, longestRun: Int(HairpinMessage.longestRun)
  ) { HairpinMessage.run(bytes: UInt64(clamping: $0), packets: UInt64(clamping: $1)).encoded }
}
