import PacketIO

/// Where intermediate prefixes are taken from, and which of them a pair of gateways gets.
///
/// The choice is a function of the two names and the prefix, so that the same pair gets the same space again after a
/// restart, on either side, as long as it is free.
public enum IntermediateSpace {
  /// A sixteenth of the shared address space (RFC 6598), above the parts of it that large providers and other
  /// overlay networks are known to use, and unique local prefixes (RFC 4193), whose global IDs begin with bits drawn at
  /// random and continue with such of the pair, so that even a /48 can be known by another.
  public static let defaultPool: [Prefix] = [
    Prefix(IPAddress(v4: 0x6470_0000), length: 12),
    Prefix(IPAddress(v6High: 0xFD08_5BF2_0000_0000, low: 0), length: 32),
  ]

  /// A prefix from the pool by which `knower` may know the owner's `prefix`.
  ///
  /// - Parameters:
  ///   - owner: the gateway whose LAN it is.
  ///   - knower: its partner.
  ///   - pool: of which the first prefix with something free counts; those of the other IP version, and those too
  ///     small for `prefix`, are passed over.
  ///   - avoiding: prefixes that the result must not overlap.
  /// - Returns: nil when nothing is free. Beside sorting what to avoid, it takes time linear in what is passed over.
  public static func candidate(
    for prefix: Prefix, owner: String, knower: String, pool: [Prefix], avoiding: [Prefix]
  ) -> Prefix? {
    let avoided = PrefixBag(avoiding)
    return candidate(for: prefix, owner: owner, knower: knower, pool: pool) { avoided.first(overlapping: $0) }
  }

  /// - Parameter obstacle: one that is in the way of a prefix, if one is.
  static func candidate(
    for prefix: Prefix, owner: String, knower: String, pool: [Prefix], obstacle: (Prefix) -> Prefix?
  ) -> Prefix? {
    for part in pool where part.address.family == prefix.address.family && part.length <= prefix.length {
      let space = Space(part, length: prefix.length)
      let start = space.start(hash: hash(owner, knower, prefix), isFirst: owner < knower)
      if let slot = space.free(from: start, obstacle: obstacle) { return space.prefix(slot) }
    }
    return nil
  }

  /// Whether hosts can have addresses of this prefix at all: neither this network, loopback, link-local, multicast
  /// nor reserved (RFC 6890).
  static func isUsable(_ prefix: Prefix) -> Bool {
    let unusable =
      prefix.address.isV4
      ? ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"]
      : ["::/8", "fe80::/10", "ff00::/8"]
    return prefix.length > 0 && !unusable.contains { Prefix($0)?.overlaps(prefix) ?? true }
  }

  /// FNV-1a, and the last step of SplitMix64 to spread it. The same on every machine and in every version.
  private static func hash(_ owner: String, _ knower: String, _ prefix: Prefix) -> UInt64 {
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for byte in Array(owner.utf8) + [0] + Array(knower.utf8) + [0] + Array(prefix.description.utf8) {
      hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3
    }
    hash = (hash ^ hash >> 30) &* 0xBF58_476D_1CE4_E5B9
    hash = (hash ^ hash >> 27) &* 0x94D0_49BB_1331_11EB
    return hash ^ hash >> 31
  }
}

/// The prefixes of one length in a pool, numbered from 0.
private struct Space {
  let pool: Prefix
  let length: Int
  private let bits: Int
  private let shift: UInt128

  init(_ pool: Prefix, length: Int) {
    self.pool = pool
    self.length = length
    bits = length - pool.length
    shift = UInt128(128 - length)
  }

  private var last: UInt128 { bits == 128 ? .max : UInt128(1) << UInt128(bits) - 1 }

  /// Where the search begins. The two directions of a pair begin at numbers of different parity, lest they ever meet
  /// at their first choice.
  func start(hash: UInt64, isFirst: Bool) -> UInt128 {
    let slot = UInt128(hash) << 64 | UInt128(hash)
    return bits == 0 ? 0 : slot & last & ~1 | (isFirst ? 0 : 1)
  }

  func prefix(_ slot: UInt128) -> Prefix {
    Prefix(IPAddress(number: pool.address.number | slot << shift, pool.address.family), length: length)
  }

  /// The first slot from `start` on, and then from the beginning, that nothing is in the way of.
  func free(from start: UInt128, obstacle: (Prefix) -> Prefix?) -> UInt128? {
    free(in: start...last, obstacle) ?? (start > 0 ? free(in: 0...start - 1, obstacle) : nil)
  }

  private func free(in range: ClosedRange<UInt128>, _ obstacle: (Prefix) -> Prefix?) -> UInt128? {
    var slot = range.lowerBound
    while let found = obstacle(prefix(slot)) {
      let behind = slots(found).last
      guard behind < range.upperBound else { return nil }
      slot = max(behind, slot) + 1
    }
    return slot
  }

  /// The slots that a prefix covers, wholly or in part.
  private func slots(_ prefix: Prefix) -> (first: UInt128, last: UInt128) {
    guard prefix.length > pool.length else { return (0, last) }
    let first = (prefix.address.number & ~pool.address.number) >> shift
    // A shorter prefix covers several, a longer one is part of one.
    let count = prefix.length >= length ? 1 : UInt128(1) << UInt128(length - prefix.length)
    return (first, first + count - 1)
  }
}

extension Prefix {
  /// Whether there is an address in both.
  public func overlaps(_ other: Prefix) -> Bool {
    length <= other.length ? contains(other.address) : other.contains(address)
  }

  /// Whether all of `other` lies inside.
  public func covers(_ other: Prefix) -> Bool { length <= other.length && contains(other.address) }
}

extension IPAddress {
  /// A 128-bit number, of which an IPv4 address is the top.
  var number: UInt128 { UInt128(high) << 64 | UInt128(low) }

  init(number: UInt128, _ family: Family) {
    self.init(v6High: UInt64(truncatingIfNeeded: number >> 64), low: UInt64(truncatingIfNeeded: number))
    self.family = family
  }
}
