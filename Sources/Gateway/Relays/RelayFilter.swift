import PacketIO
import Synchronization
import Transports

/// Which messages may be a relay's: those that come from where one is, so many of each in a second. Asked on packet
/// threads, so that a flood of strangers takes nothing from relays, and costs a look-up.
final class RelayFilter: Sendable {
  private let buckets = Mutex<[Path: TokenBucket]>([:])

  /// Messages a second of one relay.
  private static let rate: UInt64 = 50

  func set(_ relays: [Path]) {
    buckets.withLock { buckets in
      buckets = Dictionary(
        relays.map { ($0, buckets[$0] ?? TokenBucket(perSecond: RelayFilter.rate, burst: 2 * RelayFilter.rate)) }
      ) { first, _ in first }
    }
  }

  func admits(_ message: PacketBytes, from path: Path, now: MonotonicTime) -> Bool {
    HairpinMessage.isOwn(message) && buckets.withLock { $0[path]?.takeOne(now: now) } == true
  }
}
