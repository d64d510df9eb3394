import PacketIO

/// The encapsulation from a gateway to the proxy.
public enum Encapsulation: UInt8, Sendable, CaseIterable, BitwiseCopyable {
  case udp = 1
  case tcp = 2
}

/// One of the two gateways of a hairpin, by its place in the ticket.
public enum HairpinEnd: UInt8, Sendable, CaseIterable, BitwiseCopyable {
  case first = 0
  case second = 1

  /// The partner's.
  public var other: HairpinEnd { self == .first ? .second : .first }
}

/// What a control system allows two gateways at a proxy. Signed with Ed25519 (RFC 8032), so that the proxy needs
/// nothing but the public key.
///
/// A ticket is no secret: whoever presents it must also prove to hold the private half of the key it names for that
/// side. Times are seconds since 1970 UTC. docs/HAIRPIN.md has the layout.
public struct HairpinTicket: Hashable, Sendable {
  /// A gateway, as a ticket names it.
  public struct Party: Hashable, Sendable {
    /// 1 to 64 bytes of printable ASCII without spaces.
    public var name: String
    /// How it may reach the proxy; never empty.
    public var encapsulations: Set<Encapsulation>
    /// The public half of its proof key; nil: it is named by GID, and makes one that its identity vouches for.
    public var key: HairpinPublicKey?

    public init(name: String, encapsulations: Set<Encapsulation>, key: HairpinPublicKey?) {
      self.name = name
      self.encapsulations = encapsulations
      self.key = key
    }
  }

  /// A time of every day at which a hairpin may run, in seconds since midnight UTC: from `start` until before `end`.
  /// When `end` is not after `start`, it is that of the next day.
  public struct Window: Hashable, Sendable {
    /// 0 to 86399.
    public var start: UInt32
    /// 1 to 86400.
    public var end: UInt32

    public init(start: UInt32, end: UInt32) {
      self.start = start
      self.end = end
    }

    /// Whether it is open then.
    public func contains(_ time: Int64) -> Bool {
      let second = UInt32(((time % 86400) + 86400) % 86400)
      return start < end ? start <= second && second < end : start <= second || second < end
    }
  }

  /// Windows of one ticket.
  public static let mostWindows = 4
  /// From the least to the most important.
  public static let priorities: ClosedRange<UInt8> = 0...7
  /// Bytes of the longest ticket, signature included.
  public static let mostBytes = 512
  static let magic: [UInt8] = [0x43, 0x56, 0x48, 0x54]
  static let version: UInt8 = 1

  /// Unique; a proxy serves it once for each side.
  public var number: HairpinNumber
  /// The proxy it is for, as that one's configuration names it; empty: any that has no name and knows the public key.
  public var proxy: String
  public var first: Party
  public var second: Party
  /// First and last second at which it may be used.
  public var notBefore: UInt64
  public var notAfter: UInt64
  /// Seconds from its first use; 0: no limit but `notAfter`.
  public var lifetime: UInt32
  /// Seconds without a sealed packet in either direction after which it ends; 0: never.
  public var idle: UInt32
  /// Bits of sealed packets a second, for each direction; 0: no limit.
  public var bandwidth: UInt64
  /// Bytes that may pass at once after a pause; 0: what fits in 50 ms, 16 KiB at least.
  public var burst: UInt32
  /// Bytes of sealed packets, both directions together; 0: no limit.
  public var byteLimit: UInt64
  /// 0 to 7; at a proxy that is busy the higher ones go first.
  public var priority: UInt8
  /// When it may run; empty: always.
  public var windows: [Window]

  public init(
    number: HairpinNumber, proxy: String = "", first: Party, second: Party, notBefore: UInt64, notAfter: UInt64,
    lifetime: UInt32 = 0, idle: UInt32 = 0, bandwidth: UInt64 = 0, burst: UInt32 = 0, byteLimit: UInt64 = 0,
    priority: UInt8 = 3, windows: [Window] = []
  ) {
    self.number = number
    self.proxy = proxy
    self.first = first
    self.second = second
    self.notBefore = notBefore
    self.notAfter = notAfter
    self.lifetime = lifetime
    self.idle = idle
    self.bandwidth = bandwidth
    self.burst = burst
    self.byteLimit = byteLimit
    self.priority = priority
    self.windows = windows
  }

  /// The gateway at that place.
  public subscript(_ end: HairpinEnd) -> Party { end == .first ? first : second }

  /// Whether the times of day allow it to run.
  public func isOpen(at time: Int64) -> Bool { windows.isEmpty || windows.contains { $0.contains(time) } }

  /// Why its values cannot stand in a ticket; nil: they can.
  public var fault: String? {
    for party in [first, second] {
      guard HairpinTicket.isName(party.name) else { return "a gateway's name is 1 to 64 printable characters" }
      guard !party.encapsulations.isEmpty else { return "\(party.name) may use neither udp nor tcp" }
      guard party.key != nil else { return "\(party.name) has no key" }
    }
    guard first.name != second.name else { return "both gateways are called \(first.name)" }
    guard first.key != second.key else { return "both gateways have the same key" }
    guard proxy.isEmpty || HairpinTicket.isName(proxy) else { return "a proxy's name is 1 to 64 printable characters" }
    guard notBefore <= notAfter, notAfter <= UInt64(Int64.max) else { return "it ends before it begins" }
    guard HairpinTicket.priorities.contains(priority) else { return "priorities are 0 to 7" }
    guard windows.count <= HairpinTicket.mostWindows else { return "it has more than 4 windows" }
    for window in windows where window.start >= 86400 || !(1...86400).contains(window.end) || window.start == window.end
    {
      return "a window is from 0 to 86399 until 1 to 86400"
    }
    return nil
  }

  private static func isName(_ name: String) -> Bool {
    (1...64).contains(name.utf8.count) && name.utf8.allSatisfy { (0x21...0x7E).contains($0) }
  }
}

// MARK: - On the wire

/// A ticket with its signature, as it is carried.
public struct SignedHairpinTicket: Hashable, Sendable {
  /// Bytes of an Ed25519 signature.
  public static let signatureLength = 64

  public let ticket: HairpinTicket
  /// The whole: ticket and signature.
  public let bytes: [UInt8]

  /// - Throws: `HairpinTicketError.unfit` for values that no ticket can have.
  public init(signing ticket: HairpinTicket, with key: HairpinPrivateKey) throws(HairpinTicketError) {
    if let fault = ticket.fault { throw .unfit(fault) }
    let body = ticket.encoded
    guard let signature = key.sign(body) else { throw .unfit("the signing key cannot sign") }
    self.ticket = ticket
    bytes = body + signature
  }

  /// Reads a ticket; nil for anything but its one spelling. Says nothing about the signature: see `isSigned`.
  public init?(_ bytes: [UInt8]) {
    guard bytes.count > SignedHairpinTicket.signatureLength, bytes.count <= HairpinTicket.mostBytes,
      let ticket = HairpinTicket(encoded: bytes.dropLast(SignedHairpinTicket.signatureLength))
    else { return nil }
    self.ticket = ticket
    self.bytes = bytes
  }

  /// What a gateway presents of a ticket of version 2.
  package init(_ ticket: HairpinTicket, presented bytes: [UInt8]) {
    self.ticket = ticket
    self.bytes = bytes
  }

  /// Whether the owner of the private half signed it.
  public func isSigned(by key: HairpinPublicKey) -> Bool { key.hasSigned(bytes) }
}

/// Why a ticket cannot be made.
public enum HairpinTicketError: Error, Sendable, Equatable, CustomStringConvertible {
  case unfit(String)
  public var description: String {
    switch self {
    case .unfit(let why): "this cannot be a ticket: \(why)"
    }
  }
}

extension HairpinTicket {
  /// Without the signature.
  var encoded: [UInt8] {
    var bytes = HairpinTicket.magic + [HairpinTicket.version, priority, UInt8(windows.count), 0]
    bytes.append(number)
    bytes.append(number: notBefore)
    bytes.append(number: notAfter)
    bytes.append(number: lifetime)
    bytes.append(number: idle)
    bytes.append(number: bandwidth)
    bytes.append(number: burst)
    bytes.append(number: byteLimit)
    for window in windows {
      bytes.append(number: window.start)
      bytes.append(number: window.end)
    }
    for party in [first, second] {
      bytes.append(UInt8(party.name.utf8.count))
      bytes += party.name.utf8
      bytes.append(party.encapsulations.reduce(0) { $0 | $1.rawValue })
      bytes += party.key?.bytes ?? []
    }
    bytes.append(UInt8(proxy.utf8.count))
    return bytes + proxy.utf8
  }

  init?(encoded: ArraySlice<UInt8>) {
    var reader = ByteReader(encoded)
    guard reader.take(4) == HairpinTicket.magic, reader.number(UInt8.self) == HairpinTicket.version,
      let priority = reader.number(UInt8.self), let windowCount = reader.number(UInt8.self),
      Int(windowCount) <= HairpinTicket.mostWindows, reader.number(UInt8.self) == 0, let number = reader.number16(),
      let notBefore = reader.number(UInt64.self), let notAfter = reader.number(UInt64.self),
      let lifetime = reader.number(UInt32.self), let idle = reader.number(UInt32.self),
      let bandwidth = reader.number(UInt64.self), let burst = reader.number(UInt32.self),
      let byteLimit = reader.number(UInt64.self)
    else { return nil }
    var windows: [Window] = []
    for _ in 0..<windowCount {
      guard let start = reader.number(UInt32.self), let end = reader.number(UInt32.self) else { return nil }
      windows.append(Window(start: start, end: end))
    }
    guard let first = HairpinTicket.party(&reader), let second = HairpinTicket.party(&reader),
      let proxyLength = reader.number(UInt8.self), let proxy = reader.take(Int(proxyLength)), reader.isAtEnd
    else { return nil }
    self.init(
      number: number, proxy: String(decoding: proxy, as: UTF8.self), first: first, second: second,
      notBefore: notBefore, notAfter: notAfter, lifetime: lifetime, idle: idle, bandwidth: bandwidth, burst: burst,
      byteLimit: byteLimit, priority: priority, windows: windows)
    guard fault == nil else { return nil }
  }

  private static func party(_ reader: inout ByteReader) -> Party? {
    guard let length = reader.number(UInt8.self), let name = reader.take(Int(length)),
      let encapsulations = reader.number(UInt8.self), encapsulations & ~3 == 0,
      let key = reader.take(HairpinPublicKey.length).flatMap(HairpinPublicKey.init)
    else { return nil }
    return Party(
      name: String(decoding: name, as: UTF8.self),
      encapsulations: Set(Encapsulation.allCases.filter { encapsulations & $0.rawValue != 0 }),
      key: key)
  }
}
