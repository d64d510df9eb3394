import PacketIO

/// What strangers may ask for, by where they come from: an IPv4 address, a network of IPv6 (/64), and a site of IPv6
/// (/56), which has four times as much as one network.
///
/// Origins share a fixed number of buckets by a hash with a secret, so nothing is remembered, and nobody knows whose bucket
/// he shares. Who floods from so many origins that all buckets are used up meets the limits of all together.
struct OriginShares: ~Copyable {
  private struct Table: ~Copyable {
    /// A power of two.
    private static let buckets = 1024
    private var rows: FixedArray<TokenBucket>

    /// A second's worth may come at once.
    init(perSecond: UInt64) {
      rows = FixedArray(repeating: TokenBucket(perSecond: perSecond, burst: perSecond), count: Table.buckets)
    }

    mutating func takeOne(_ origin: UInt64, byStream: Bool, now: MonotonicTime) -> Bool {
      rows[Table.place(origin, byStream: byStream)].takeOne(now: now)
    }

    mutating func owe(_ origin: UInt64, _ count: Int) { rows[Table.place(origin, byStream: false)].take(count) }

    private static func place(_ origin: UInt64, byStream: Bool) -> Int {
      // Hasher has a secret of this process.
      var hasher = Hasher()
      hasher.combine(origin)
      hasher.combine(byStream)
      return hasher.finalize() & (Table.buckets - 1)
    }
  }

  private var messages: Table
  private var messagesOfSites: Table
  private var signatures: Table
  private var signaturesOfSites: Table

  /// - Parameters:
  ///   - messages: of one origin in a second.
  ///   - signatures: the same.
  init(messages: UInt64, signatures: UInt64) {
    self.messages = Table(perSecond: messages)
    messagesOfSites = Table(perSecond: OriginShares.ofSite(messages))
    self.signatures = Table(perSecond: signatures)
    signaturesOfSites = Table(perSecond: OriginShares.ofSite(signatures))
  }

  private static func ofSite(_ ofNetwork: UInt64) -> UInt64 {
    let product = ofNetwork.multipliedReportingOverflow(by: 4)
    return product.overflow ? .max : product.partialValue
  }

  /// Whether a message of a stranger is looked at.
  /// - Parameter byStream: then he is there; a datagram's sender may be made up, and takes nothing from him.
  mutating func admitMessage(of address: IPAddress, byStream: Bool, now: MonotonicTime) -> Bool {
    OriginShares.take(address, byStream: byStream, &messages, &messagesOfSites, now: now)
  }

  /// Whether a signature is checked for him, who has shown where he is.
  mutating func admitSignature(of address: IPAddress, now: MonotonicTime) -> Bool {
    OriginShares.take(address, byStream: false, &signatures, &signaturesOfSites, now: now)
  }

  /// So many more were checked than was asked for: he owes them.
  mutating func charge(signatures count: Int, to address: IPAddress) {
    if address.isV4 { return signatures.owe(UInt64(truncatingIfNeeded: address.v4), count) }
    signatures.owe(address.high, count)
    signaturesOfSites.owe(address.high >> 8, count)
  }

  private static func take(
    _ address: IPAddress, byStream: Bool, _ networks: inout Table, _ sites: inout Table, now: MonotonicTime
  ) -> Bool {
    if address.isV4 {
      return networks.takeOne(UInt64(truncatingIfNeeded: address.v4), byStream: byStream, now: now)
    }
    return networks.takeOne(address.high, byStream: byStream, now: now)
      && sites.takeOne(address.high >> 8, byStream: byStream, now: now)
  }
}
