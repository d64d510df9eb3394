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
    var questions = TokenBucket(perSecond: 20, burst: 40)
    var others = TokenBucket(perSecond: 50, burst: 100)
  }

  private struct State {
    var pairs: [Pair: Share] = [:]
    /// Packets to this side of nobody who is a partner: a few are looked at, to say that somebody has another key.
    var strangers = TokenBucket(perSecond: 1, burst: 5)
  }

  private let state = Mutex(State())

  func insert(_ pair: Pair) { state.withLock { if $0.pairs[pair] == nil { $0.pairs[pair] = Share() } } }
  func remove(_ pair: Pair) { _ = state.withLock { $0.pairs.removeValue(forKey: pair) } }

  func admits(_ message: PacketBytes, now: MonotonicTime) -> Bool {
    guard let header = HIPHeader.peek(message) else { return false }
    let pair = Pair(local: header.receiver, remote: header.sender)
    return state.withLock { state in
      guard state.pairs[pair] != nil else { return state.strangers.takeOne(now: now) }
      return header.kind == .i1
        ? state.pairs[pair]?.questions.takeOne(now: now) == true
        : state.pairs[pair]?.others.takeOne(now: now) == true
    }
  }
}
