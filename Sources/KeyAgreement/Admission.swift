import Dataplane
import Identity
import PacketIO
import Synchronization

/// Which messages are looked at: so many of each partner, and a few others. Asked on packet threads, so that a flood costs a
/// look-up.
///
/// Who a message is of is a claim: GIDs are seen on the wire, and anybody can write them into an I1. So each pair has a
/// share, and a flood in one partner's name leaves the others theirs.
final class Admission: Sendable {
  struct Pair: Hashable {
    let local: HostIdentityTag
    let remote: HostIdentityTag
  }

  /// What one pair may say. Asking costs nothing to send, so it does not take the share of answers and rekeys.
  private struct Share {
    var questions = Admission.limit(20)
    var others = Admission.limit(50)
    /// Packets that were not looked at.
    var refused: UInt64 = 0
    /// What may come at once.
    static let capacity = 140

    /// What has come of that not long ago.
    mutating func held(_ now: MonotonicTime) -> Int {
      Share.capacity - questions.available(now: now) - others.available(now: now)
    }
  }

  private static func limit(_ rate: UInt64) -> TokenBucket { TokenBucket(perSecond: rate, burst: 2 * rate) }

  private struct State {
    var pairs: [Pair: Share] = [:]
    /// Packets to this side of nobody who is a partner: a few are looked at, to say that somebody has another key.
    var strangers = TokenBucket(perSecond: 1, burst: Admission.mostOfStrangers)
    var refusedStrangers: UInt64 = 0
  }

  private static let mostOfStrangers: UInt64 = 5
  private let state = Mutex(State())

  func insert(_ pair: Pair) { state.withLock { if $0.pairs[pair] == nil { $0.pairs[pair] = Share() } } }
  func remove(_ pair: Pair) { _ = state.withLock { $0.pairs.removeValue(forKey: pair) } }

  func admits(_ message: PacketBytes, now: MonotonicTime) -> Bool {
    guard let header = HIPHeader.peek(message) else { return false }
    let pair = Pair(local: header.receiver, remote: header.sender)
    return state.withLock { state in
      guard state.pairs[pair] != nil else {
        if state.strangers.takeOne(now: now) { return true }
        state.refusedStrangers &+= 1
        return false
      }
      let isAdmitted =
        header.kind == .i1
        ? state.pairs[pair]?.questions.takeOne(now: now) == true
        : state.pairs[pair]?.others.takeOne(now: now) == true
      if !isAdmitted { state.pairs[pair]?.refused &+= 1 }
      return isAdmitted
    }
  }

  /// Who has sent how much of late.
  /// - Parameter names: of partners.
  func share(_ names: [Pair: String], now: MonotonicTime) -> Statistics.Share {
    state.withLock { state in
      let capacity = Int(clamping: Admission.mostOfStrangers)
      var holders = state.pairs.map { pair, share in
        var share = share
        return (holder: names[pair] ?? "\(pair.remote)", held: share.held(now), refused: share.refused)
      }
      holders.append(("strangers", capacity - state.strangers.available(now: now), state.refusedStrangers))
      return Statistics.Share(.handshakes, capacity: capacity + Share.capacity * state.pairs.count, holders)
    }
  }
}
