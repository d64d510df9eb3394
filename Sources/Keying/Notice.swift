import Identity
import PacketIO

/// What one side tells the other in a NOTIFY (RFC 7401 §5.2.19, RFC 7402 §5.1.3). It says why something was refused, to
/// those who look after it, and changes nothing.
public struct Notice: Sendable, Equatable, CustomStringConvertible {
  /// Notify Message Type: below 16384 errors.
  public let number: UInt16

  public init(_ number: UInt16) { self.number = number }

  static let unsupportedCriticalParameter = Notice(1)
  static let invalidCipher = Notice(17)
  static let invalidESPTransform = Notice(19)
  static let blockedByPolicy = Notice(42)
  static let spiTaken = Notice(11303)
  /// Private, in a CLOSE: there was no traffic, and traffic begins a handshake.
  static let idle = Notice(40960)

  /// As the RFCs have them.
  private static let names: [UInt16: String] = [
    1: "unsupported critical parameter", 7: "invalid syntax", 14: "no Diffie-Hellman group chosen",
    15: "invalid Diffie-Hellman group", 16: "no HIP proposal chosen", 17: "invalid HIP cipher",
    18: "no ESP proposal chosen", 19: "invalid ESP suite", 20: "unsupported HIT suite", 24: "authentication failed",
    26: "checksum failed", 28: "MAC failed", 32: "encryption failed", 40: "invalid HIT", 42: "blocked by policy",
    44: "busy", 11303: "SPI taken", 16384: "I2 received", 40960: "no traffic",
  ]

  public var description: String {
    Notice.names[number].map { "\($0) (NOTIFY \(number))" } ?? "NOTIFY \(number)"
  }
}

/// A notice as it is in a packet.
struct NotificationParameter: Equatable {
  var notice: Notice
  var data: [UInt8]

  init(_ notice: Notice, _ data: [UInt8] = []) { (self.notice, self.data) = (notice, data) }

  init?(_ content: ArraySlice<UInt8>?) {
    guard var reader = content.map({ ByteReader($0) }), reader.skip(2), let number = reader.number(UInt16.self)
    else { return nil }
    notice = Notice(number)
    data = Array(content?.dropFirst(4) ?? [])
  }

  var content: [UInt8] {
    var bytes: [UInt8] = [0, 0]
    bytes.append(number: notice.number)
    return bytes + data
  }
}

/// Notices from and to one partner: few, because each costs a signature.
struct Notices {
  private var sending = TokenBucket(perSecond: 1, burst: 1)
  private var reading = TokenBucket(perSecond: 1, burst: 4)
  /// What the partner said last, which is not told again.
  private var told: Notice?

  /// Tells a partner that has shown who it is.
  mutating func send(
    _ notice: Notice, data: [UInt8] = [], to partner: Partner, along path: Path, _ turn: inout KeyingTurn
  ) {
    guard sending.takeOne(now: turn.now) else { return }
    var builder = HIPBuilder(.notify, from: partner.local.tag, to: partner.remote)
    builder.append(.notification, NotificationParameter(notice, data).content)
    builder.appendSignature(by: partner.local)
    turn.send(builder.finish(), along: path)
  }

  /// A packet of a partner that wants something which is not known here (RFC 7401 §5.2.1). It is told, if it has shown
  /// who it is.
  mutating func refuse(
    _ packet: HIPPacket, _ type: UInt16, in session: inout Session, of partner: Partner, along path: Path,
    _ turn: inout KeyingTurn
  ) {
    // As a repeat of an UPDATE: whoever has seen it can send it again.
    guard packet.hasValidMAC(key: session.macKeys.received, suite: session.suite),
      session.updates.takeOne(isNews: false, now: turn.now),
      packet.hasValidSignature(by: session.peer)
    else { return }
    var data: [UInt8] = []
    data.append(number: type)
    send(.unsupportedCriticalParameter, data: data, to: partner, along: path, &turn)
  }

  /// - Parameter peer: whose signature it has to have; nil: not known yet.
  mutating func take(_ packet: HIPPacket, by peer: PublicHostIdentity?, of partner: Partner, _ turn: inout KeyingTurn) {
    guard let said = NotificationParameter(packet.content(.notification)), said.notice != told,
      let peer, reading.takeOne(now: turn.now),
      packet.hasValidSignature(by: peer)
    else { return }
    told = said.notice
    turn.report(.notified(partner: partner.name, said.notice))
  }

  /// Things are well: what is said from now on is news.
  mutating func forget() { told = nil }
}
