public import PacketIO

/// A prefix and the intermediate prefix of the same length by which the other side of a tunnel knows it. Hosts keep
/// their place: address 5 of the one is address 5 of the other, or, in IPv6, its checksum-neutral counterpart.
public struct PrefixPair: Hashable, Sendable {
  /// As it is where its hosts live.
  public var real: Prefix
  /// As it is on the tunnel, and at the other end.
  public var intermediate: Prefix

  public init(real: Prefix, intermediate: Prefix) {
    self.real = real
    self.intermediate = intermediate
  }

  /// Both of one IP version and one length; any other pair translates nothing.
  public var isUsable: Bool {
    real.address.family == intermediate.address.family && real.length == intermediate.length
  }

  /// The intermediate address of a host; nil for one that is not in the real prefix.
  public func intermediate(of host: IPAddress) -> IPAddress? {
    TranslationRule(from: real, to: intermediate)?.apply(to: host)?.address
  }

  /// The host that an intermediate address stands for; nil for one that is not in the intermediate prefix.
  public func real(of address: IPAddress) -> IPAddress? {
    TranslationRule(from: intermediate, to: real)?.apply(to: address)?.address
  }
}

extension PrefixPair: CustomStringConvertible {
  public var description: String { "\(real) as \(intermediate)" }
}

/// One direction of a `PrefixPair`, compiled: which addresses it is for, and what becomes of them.
///
/// IPv4 addresses change their prefix, and checksums over them change by the same amount for all. IPv6 addresses of
/// prefixes up to /64 are translated as in RFC 6296: the change of the prefix is made up for in another word of the
/// address, so that no checksum over it changes. That word is the subnet number, bits 48 to 63, where the prefix
/// leaves it free (section 3.4), else the first word of the interface identifier that is not 0xFFFF (section 3.5).
///
/// Where all these words are 0xFFFF the RFC discards the packet. Here only the prefix changes then, which is 1:1 still:
/// no other address is translated to one with 0xFFFF in these words. The checksum has to follow, as it has for
/// prefixes longer than /64, of which the RFC does not speak.
struct TranslationRule: BitwiseCopyable, Sendable {
  private let maskHigh: UInt64
  private let maskLow: UInt64
  private let fromHigh: UInt64
  private let fromLow: UInt64
  private let toHigh: UInt64
  private let toLow: UInt64
  /// What the change of the prefix adds to a sum over the address.
  private let delta: ChecksumDelta
  /// Words of the address that may take it up, 0 to 8.
  private let firstNeutralWord: Int8
  private let lastNeutralWord: Int8
  let family: IPAddress.Family
  let length: Int8

  /// Nil when the prefixes are of different families or lengths.
  init?(from: Prefix, to: Prefix) {
    guard from.address.family == to.address.family, from.length == to.length else { return nil }
    family = from.address.family
    length = Int8(truncatingIfNeeded: from.length)
    let ones = Prefix(
      family == .v4 ? IPAddress(v4: .max) : IPAddress(v6High: .max, low: .max), length: from.length
    ).address
    maskHigh = ones.high
    maskLow = ones.low
    fromHigh = from.address.high
    fromLow = from.address.low
    toHigh = to.address.high
    toLow = to.address.low
    delta = ChecksumDelta(TranslationRule.sum(to.address), replacing: TranslationRule.sum(from.address))
    if family == .v4 || from.length > 64 {
      firstNeutralWord = 8
      lastNeutralWord = 8
    } else {
      firstNeutralWord = from.length <= 48 ? 3 : 4
      lastNeutralWord = from.length <= 48 ? 4 : 8
    }
  }

  /// An address and what its change adds to checksums that cover it.
  struct Translated {
    let address: IPAddress
    let delta: ChecksumDelta
  }

  /// Nil for an address that the rule is not for. The address must be of the rule's family.
  @inline(__always)
  func translate(_ address: IPAddress) -> Translated? {
    guard address.high & maskHigh == fromHigh, address.low & maskLow == fromLow else { return nil }
    var result = address
    result.high = toHigh | (address.high & ~maskHigh)
    result.low = toLow | (address.low & ~maskLow)
    if firstNeutralWord < lastNeutralWord, !delta.isNone {
      for index in firstNeutralWord..<lastNeutralWord {
        let word = TranslationRule.word(result, index)
        guard word != 0xFFFF else { continue }
        // One's complement has two zeros; 0xFFFF is never the result, so that the way back finds the same word.
        let sum = (-delta).applied(toSum: word)
        TranslationRule.setWord(&result, index, sum == 0xFFFF ? 0 : sum)
        return Translated(address: result, delta: .none)
      }
    }
    return Translated(address: result, delta: delta)
  }

  func apply(to address: IPAddress) -> Translated? { address.family == family ? translate(address) : nil }

  @inline(__always)
  private static func word(_ address: IPAddress, _ index: Int8) -> UInt16 {
    let half = index < 4 ? address.high : address.low
    return UInt16(truncatingIfNeeded: half &>> UInt64((3 &- (index & 3)) &* 16))
  }

  @inline(__always)
  private static func setWord(_ address: inout IPAddress, _ index: Int8, _ word: UInt16) {
    let shift = UInt64((3 &- (index & 3)) &* 16)
    if index < 4 {
      address.high = address.high & ~(0xFFFF &<< shift) | UInt64(word) &<< shift
    } else {
      address.low = address.low & ~(0xFFFF &<< shift) | UInt64(word) &<< shift
    }
  }

  private static func sum(_ address: IPAddress) -> UInt16 {
    (0..<8).reduce(0) { ChecksumDelta.add($0, word(address, $1)) }
  }
}
