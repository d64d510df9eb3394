import PacketIO

/// The name of a gateway: the hash of its public key, in the form of an IPv6 address that is routed nowhere.
///
/// A host identity tag (RFC 7401 §3.2) is an ORCHIDv2 (RFC 7343): the prefix 2001:20::/28, four bits that number the
/// suite of algorithms, and 96 bits of hash. Tags are ordered as 128-bit numbers.
public struct HostIdentityTag: Hashable, Comparable, Sendable, CustomStringConvertible, LosslessStringConvertible {
  /// Bytes.
  public static let length = 16

  let high: UInt64
  let low: UInt64

  /// Nil without the prefix.
  init?(high: UInt64, low: UInt64) {
    guard high >> 36 == 0x200_1002 else { return nil }
    self.high = high
    self.low = low
  }

  init(suite: HostIdentitySuite, hash: some Collection<UInt8>) {
    var hash = HostIdentityTag.words(of: hash)
    hash.high = hash.high & 0xFFFF_FFFF | UInt64(suite.rawValue & 15) << 32 | 0x200_1002 << 36
    (high, low) = hash
  }

  /// 16 bytes, the most significant first; nil for another number of them, or where they lack the prefix.
  public init?(_ bytes: some Collection<UInt8>) {
    guard bytes.count == HostIdentityTag.length else { return nil }
    let words = HostIdentityTag.words(of: bytes)
    self.init(high: words.high, low: words.low)
  }

  /// An IPv6 address in text (RFC 4291 §2.2); nil where it is none, or lacks the prefix.
  public init?(_ description: String) {
    guard let address = IPAddress(description), !address.isV4 else { return nil }
    self.init(high: address.high, low: address.low)
  }

  /// The last 16 bytes as numbers.
  private static func words(of bytes: some Collection<UInt8>) -> (high: UInt64, low: UInt64) {
    bytes.reduce(into: (high: UInt64(0), low: UInt64(0))) { words, byte in
      words.high = words.high << 8 | words.low >> 56
      words.low = words.low << 8 | UInt64(byte)
    }
  }

  /// 16, the most significant first.
  public var bytes: [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(number: high)
    bytes.append(number: low)
    return bytes
  }

  /// Nil: a number that no suite here has.
  public var suite: HostIdentitySuite? { HostIdentitySuite(rawValue: UInt8(truncatingIfNeeded: high >> 32) & 15) }

  /// The 96 bits of hash for people: 20 characters of base32 (RFC 4648 §6, lower case) in groups of five, with hyphens.
  public var short: String {
    var text: [UInt8] = []
    // 96 bits and four zero bits behind them: what is taken from the front is shifted out.
    var rest = (high: high << 32 | low >> 32, low: low << 32)
    for place in 0..<20 {
      if place > 0, place % 5 == 0 { text.append(UInt8(ascii: "-")) }
      text.append(HostIdentityTag.alphabet[Int(truncatingIfNeeded: rest.high >> 59)])
      rest = (rest.high << 5 | rest.low >> 59, rest.low << 5)
    }
    return String(decoding: text, as: UTF8.self)
  }

  private static let alphabet = Array("abcdefghijklmnopqrstuvwxyz234567".utf8)

  /// Whether a text has the shape of `short`, which names nobody: the suite is not in it.
  public static func isShort(_ text: String) -> Bool {
    let groups = text.lowercased().utf8.split(separator: UInt8(ascii: "-"), omittingEmptySubsequences: false)
    return groups.count == 4
      && groups.allSatisfy { $0.count == 5 && $0.allSatisfy(HostIdentityTag.alphabet.contains) }
  }

  public var description: String { IPAddress(v6High: high, low: low).description }

  public static func < (a: HostIdentityTag, b: HostIdentityTag) -> Bool { (a.high, a.low) < (b.high, b.low) }
}
