import Identity
import PacketIO
public import Transports

/// A ticket of version 2: what a control system allows two gateways that it names by GID. Shown at an enrolment, it lets the
/// two meet at a relay of which no rule says whether they may; or it opens a hairpin. docs/RELAY.md has the layout.
public struct IdentityTicket: Sendable, Equatable {
  /// Bytes of the longest ticket, signature included.
  public static let mostBytes = 256
  static let magic: [UInt8] = Array("CVHT".utf8)
  static let version: UInt8 = 2

  /// Unique.
  public var number: HairpinNumber
  public var pair: RelayPolicy.Pair
  /// The relay it is for, as that one's file names it; empty: any that has no name and knows the public key.
  public var relay: String
  /// First and last second at which it may be used, since 1970 UTC.
  public var notBefore: UInt64
  public var notAfter: UInt64
  /// Bits of sealed packets a second, for each direction; 0: no limit.
  public var bandwidth: UInt64
  /// 0 to 7.
  public var priority: UInt8
  /// Times of day at which it holds; none: always.
  public var windows: [HairpinTicket.Window]

  public init(
    number: HairpinNumber, _ pair: RelayPolicy.Pair, relay: String = "", notBefore: UInt64, notAfter: UInt64,
    bandwidth: UInt64 = 0, priority: UInt8 = 3, windows: [HairpinTicket.Window] = []
  ) {
    self.number = number
    self.pair = pair
    self.relay = relay
    self.notBefore = notBefore
    self.notAfter = notAfter
    self.bandwidth = bandwidth
    self.priority = priority
    self.windows = windows
  }

  /// What it lets pass.
  var terms: RelayPolicy.Terms {
    RelayPolicy.Terms(
      bandwidth: bandwidth, priority: priority, notAfter: Int64(clamping: notAfter), windows: windows)
  }

  /// Why its values cannot stand in a ticket; nil: they can.
  public var fault: String? {
    guard pair.smaller != pair.greater else { return "it names one gateway twice" }
    guard relay.utf8.count <= 64, relay.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
      return "a relay's name is 1 to 64 printable characters"
    }
    guard notBefore <= notAfter, notAfter <= UInt64(Int64.max) else { return "it ends before it begins" }
    guard HairpinTicket.priorities.contains(priority) else { return "priorities are 0 to 7" }
    guard windows.count <= HairpinTicket.mostWindows else { return "it has more than 4 windows" }
    guard windows.allSatisfy(\.isSound) else { return "a window is from 0 to 86399 until 1 to 86400" }
    return nil
  }
}

/// A ticket of version 2 with its signature, as it is carried.
public struct SignedIdentityTicket: Sendable, Equatable {
  /// Bytes of an Ed25519 signature.
  public static let signatureLength = 64

  public let ticket: IdentityTicket
  /// The whole: ticket and signature.
  public let bytes: [UInt8]

  /// Nil for what cannot be one (`IdentityTicket.fault`).
  public init?(signing ticket: IdentityTicket, with key: HairpinPrivateKey) {
    guard ticket.fault == nil, let signature = key.sign(ticket.encoded) else { return nil }
    self.ticket = ticket
    bytes = ticket.encoded + signature
  }

  /// Reads one; nil for anything but its one spelling. Says nothing about the signature: see `isSigned`.
  public init?(_ bytes: [UInt8]) {
    guard bytes.count > SignedIdentityTicket.signatureLength, bytes.count <= IdentityTicket.mostBytes,
      let ticket = IdentityTicket(encoded: bytes.dropLast(SignedIdentityTicket.signatureLength))
    else { return nil }
    self.ticket = ticket
    self.bytes = bytes
  }

  /// Whether the owner of the private half signed it.
  public func isSigned(by key: HairpinPublicKey) -> Bool { key.hasSigned(bytes) }

  /// Those that an enrolment shows: each behind its length in two bytes. Nil for anything else, or more than four.
  static func list(_ bytes: [UInt8]) -> [SignedIdentityTicket]? {
    var reader = ByteReader(bytes[...])
    var tickets: [SignedIdentityTicket] = []
    while !reader.isAtEnd {
      guard tickets.count < mostShown, let count = reader.number(UInt16.self),
        let body = reader.take(Int(clamping: count)),
        let ticket = SignedIdentityTicket(body)
      else { return nil }
      tickets.append(ticket)
    }
    return tickets
  }

  /// Tickets of one enrolment.
  public static let mostShown = 4
}

extension IdentityTicket {
  /// Without the signature.
  var encoded: [UInt8] {
    var bytes = IdentityTicket.magic + [IdentityTicket.version, priority, UInt8(clamping: windows.count), 0]
    bytes.append(number)
    bytes.append(number: notBefore)
    bytes.append(number: notAfter)
    bytes.append(number: bandwidth)
    for window in windows {
      bytes.append(number: window.start)
      bytes.append(number: window.end)
    }
    bytes += pair.smaller.bytes + pair.greater.bytes
    bytes.append(UInt8(clamping: relay.utf8.count))
    return bytes + relay.utf8
  }

  init?(encoded: ArraySlice<UInt8>) {
    var reader = ByteReader(encoded)
    guard reader.take(4) == IdentityTicket.magic, reader.byte() == IdentityTicket.version, let priority = reader.byte(),
      let count = reader.byte(), count <= HairpinTicket.mostWindows, reader.byte() == 0,
      let number = reader.number16(), let notBefore = reader.number(UInt64.self),
      let notAfter = reader.number(UInt64.self), let bandwidth = reader.number(UInt64.self)
    else { return nil }
    var windows: [HairpinTicket.Window] = []
    for _ in 0..<count {
      guard let start = reader.number(UInt32.self), let end = reader.number(UInt32.self) else { return nil }
      windows.append(HairpinTicket.Window(start: start, end: end))
    }
    guard let smaller = reader.take(16).flatMap({ HostIdentityTag($0) }),
      let greater = reader.take(16).flatMap({ HostIdentityTag($0) }), smaller < greater,
      let length = reader.byte(), let name = reader.take(Int(clamping: length)), reader.isAtEnd
    else { return nil }
    self.init(
      number: number, RelayPolicy.Pair(smaller, greater), relay: String(decoding: name, as: UTF8.self),
      notBefore: notBefore, notAfter: notAfter, bandwidth: bandwidth, priority: priority, windows: windows)
    guard fault == nil else { return nil }
  }
}
