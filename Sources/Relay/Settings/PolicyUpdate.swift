public import Identity
import PacketIO
public import Transports

/// What a control system lets pass at one identity relay: pairs of gateways, all of them or what has changed since another
/// update, under a number that grows. Signed with Ed25519 (RFC 8032), as tickets are. docs/RELAY.md has the layout.
public struct PolicyUpdate: Sendable, Equatable {
  /// What it is to be applied to.
  public enum Extent: Sendable, Equatable {
    /// To nothing: there are no pairs but its own.
    case whole
    /// To what stands since the update of that number.
    case changes(since: UInt64)
  }

  /// Two gateways that may meet, and on which terms.
  public struct Rule: Sendable, Equatable {
    public var pair: RelayPolicy.Pair
    public var terms: RelayPolicy.Terms

    public init(_ pair: RelayPolicy.Pair, _ terms: RelayPolicy.Terms = RelayPolicy.Terms()) {
      self.pair = pair
      self.terms = terms
    }
  }

  /// Bytes of the longest one, signature included.
  public static let mostBytes = 16 << 20
  static let magic: [UInt8] = Array("CVRP".utf8)
  static let version: UInt8 = 1

  /// The relay that it is for; no other one takes it.
  public var relay: HostIdentityTag
  /// 1 or more; greater than that of any update before it.
  public var number: UInt64
  public var extent: Extent
  /// Pairs that may not meet, not by a ticket either; a gateway and itself: it may meet nobody. They go before others come.
  public var removed: [RelayPolicy.Pair]
  /// Pairs that may meet, or on other terms than before.
  public var allowed: [Rule]

  /// Sorts what stands in it, as it is written.
  public init(
    for relay: HostIdentityTag, number: UInt64, _ extent: Extent = .whole, removed: [RelayPolicy.Pair] = [],
    allowed: [Rule] = []
  ) {
    self.relay = relay
    self.number = number
    self.extent = extent
    self.removed = removed.sorted()
    self.allowed = allowed.sorted { $0.pair < $1.pair }
  }

  /// Why it cannot be one; nil: it can.
  public var fault: String? {
    guard number > 0 else { return "numbers begin with 1" }
    if case .changes(let since) = extent, since >= number || since == 0 { return "its number is not above that before" }
    for (pair, next) in zip(removed, removed.dropFirst()) where !(pair < next) { return "\(pair) is removed twice" }
    for (rule, next) in zip(allowed, allowed.dropFirst()) where !(rule.pair < next.pair) {
      return "\(rule.pair) is allowed twice"
    }
    for rule in allowed where !(rule.pair.smaller < rule.pair.greater) { return "a gateway meets itself" }
    for terms in allowed.map(\.terms) {
      guard HairpinTicket.priorities.contains(terms.priority) else { return "priorities are 0 to 7" }
      guard terms.notAfter >= 0 else { return "a rule ends before 1970" }
      guard terms.windows.count <= HairpinTicket.mostWindows else { return "a rule has more than 4 windows" }
      guard terms.windows.allSatisfy(\.isSound) else { return "a window is from 0 to 86399 until 1 to 86400" }
    }
    return nil
  }
}

/// An update with its signature, as it is carried and kept.
public struct SignedPolicyUpdate: Sendable, Equatable {
  /// Bytes of an Ed25519 signature.
  public static let signatureLength = 64

  public let update: PolicyUpdate
  /// The whole: update and signature.
  public let bytes: [UInt8]

  /// Nil for what cannot be one (`PolicyUpdate.fault`), or is too long.
  public init?(signing update: PolicyUpdate, with key: HairpinPrivateKey) {
    let body = update.encoded
    guard update.fault == nil, body.count + SignedPolicyUpdate.signatureLength <= PolicyUpdate.mostBytes,
      let signature = key.sign(body)
    else { return nil }
    self.update = update
    bytes = body + signature
  }

  /// Reads one; nil for anything but its one spelling. Says nothing about the signature: see `isSigned`.
  public init?(_ bytes: [UInt8]) {
    guard bytes.count > SignedPolicyUpdate.signatureLength, bytes.count <= PolicyUpdate.mostBytes,
      let update = PolicyUpdate(encoded: bytes.dropLast(SignedPolicyUpdate.signatureLength))
    else { return nil }
    self.update = update
    self.bytes = bytes
  }

  /// Whether the owner of the private half signed it.
  public func isSigned(by key: HairpinPublicKey) -> Bool { key.hasSigned(bytes) }
}

extension RelayPolicy.Pair: Comparable {
  public static func < (a: Self, b: Self) -> Bool { (a.smaller, a.greater) < (b.smaller, b.greater) }
}

extension HairpinTicket.Window {
  /// Within a day, and not empty.
  var isSound: Bool { start < 86_400 && (1...86_400).contains(end) && start != end }
}

// MARK: - On the wire

extension PolicyUpdate {
  /// Without the signature.
  var encoded: [UInt8] {
    var (kind, since): (UInt8, UInt64) = (1, 0)
    if case .changes(let number) = extent { (kind, since) = (2, number) }
    var bytes = PolicyUpdate.magic + [PolicyUpdate.version, kind, 0, 0] + relay.bytes
    bytes.append(number: number)
    bytes.append(number: since)
    bytes.append(number: UInt32(clamping: removed.count))
    bytes.append(number: UInt32(clamping: allowed.count))
    for pair in removed { bytes += pair.smaller.bytes + pair.greater.bytes }
    for rule in allowed {
      bytes += rule.pair.smaller.bytes + rule.pair.greater.bytes
      bytes.append(number: rule.terms.bandwidth)
      bytes.append(number: UInt64(clamping: rule.terms.notAfter))
      bytes += [rule.terms.priority, UInt8(clamping: rule.terms.windows.count), 0, 0]
      for window in rule.terms.windows {
        bytes.append(number: window.start)
        bytes.append(number: window.end)
      }
    }
    return bytes
  }

  init?(encoded: ArraySlice<UInt8>) {
    var reader = ByteReader(encoded)
    guard reader.take(4) == PolicyUpdate.magic, reader.byte() == PolicyUpdate.version, let kind = reader.byte(),
      reader.number(UInt16.self) == 0, let relay = PolicyUpdate.tag(&reader), let number = reader.number(UInt64.self),
      let since = reader.number(UInt64.self), let removals = reader.number(UInt32.self),
      let additions = reader.number(UInt32.self)
    else { return nil }
    self.relay = relay
    self.number = number
    (removed, allowed) = ([], [])
    switch (kind, since) {
    case (1, 0): extent = .whole
    case (2, _): extent = .changes(since: since)
    default: return nil
    }
    // Nothing is made room for that is not there.
    for _ in 0..<removals {
      guard let pair = PolicyUpdate.pair(&reader) else { return nil }
      removed.append(pair)
    }
    for _ in 0..<additions {
      guard let pair = PolicyUpdate.pair(&reader), let terms = PolicyUpdate.terms(&reader) else { return nil }
      allowed.append(Rule(pair, terms))
    }
    guard reader.isAtEnd, fault == nil else { return nil }
  }

  private static func tag(_ reader: inout ByteReader) -> HostIdentityTag? {
    reader.take(16).flatMap { HostIdentityTag($0) }
  }

  private static func pair(_ reader: inout ByteReader) -> RelayPolicy.Pair? {
    guard let smaller = tag(&reader), let greater = tag(&reader), !(greater < smaller) else { return nil }
    return RelayPolicy.Pair(smaller, greater)
  }

  private static func terms(_ reader: inout ByteReader) -> RelayPolicy.Terms? {
    guard let bandwidth = reader.number(UInt64.self), let notAfter = reader.number(UInt64.self),
      let end = Int64(exactly: notAfter), let priority = reader.byte(), let windows = reader.byte(),
      windows <= HairpinTicket.mostWindows, reader.number(UInt16.self) == 0
    else { return nil }
    var terms = RelayPolicy.Terms(bandwidth: bandwidth, priority: priority, notAfter: end)
    for _ in 0..<windows {
      guard let start = reader.number(UInt32.self), let end = reader.number(UInt32.self) else { return nil }
      terms.windows.append(HairpinTicket.Window(start: start, end: end))
    }
    return terms
  }
}
