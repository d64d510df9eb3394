import Identity
import PacketIO
import Synchronization

/// Which messages are looked at: those of partners, and a few others. Asked on packet threads, so that a flood of others costs a look-up.
final class Admission: Sendable {
  struct Pair: Hashable {
    let local: HostIdentityTag
    let remote: HostIdentityTag
  }

  private struct State {
    var pairs: Set<Pair> = []
    /// Packets to this side of nobody who is a partner: a few are looked at, to say that somebody has another key.
    var strangers = TokenBucket(perSecond: 1, burst: 5)
  }

  private let state = Mutex(State())

  func insert(_ pair: Pair) { _ = state.withLock { $0.pairs.insert(pair) } }
  func remove(_ pair: Pair) { _ = state.withLock { $0.pairs.remove(pair) } }

  func admits(_ message: PacketBytes) -> Bool {
    guard let header = HIPHeader.peek(message) else { return false }
    return state.withLock { state in
      state.pairs.contains(Pair(local: header.receiver, remote: header.sender))
        || state.strangers.takeOne(now: .current())
    }
  }
}
