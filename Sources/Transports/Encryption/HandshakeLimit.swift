import PacketIO

/// How many handshakes strangers may ask for: each costs this side a signature and a key agreement, and the stranger
/// nothing.
struct HandshakeLimit {
  /// In a second; of one origin an eighth of that, of one site of IPv6 a quarter.
  private let most: Int
  private let mostOfOrigin: Int
  private var begin = MonotonicTime(nanoseconds: 0)
  private var count = 0
  /// Of this second; not more than `most`.
  private var origins: [IPAddress: Int] = [:]
  private var sites: [IPAddress: Int] = [:]

  init(perSecond: Int) {
    most = max(perSecond, 1)
    mostOfOrigin = max(perSecond / 8, 1)
  }

  /// Counts one; false: it is one too many.
  mutating func admit(_ origin: IPAddress, now: MonotonicTime) -> Bool {
    if now.nanoseconds(since: begin) >= 1_000_000_000 {
      begin = now
      count = 0
      origins.removeAll(keepingCapacity: true)
      sites.removeAll(keepingCapacity: true)
    }
    // A /56.
    let site = origin.isV4 ? nil : IPAddress(v6High: origin.high & ~0xFF, low: 0)
    guard count < most, origins[origin] ?? 0 < mostOfOrigin else { return false }
    if let site {
      guard sites[site] ?? 0 < max(most / 4, 1) else { return false }
      sites[site, default: 0] += 1
    }
    count += 1
    origins[origin, default: 0] += 1
    return true
  }
}
