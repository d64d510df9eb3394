import Identity
import PacketIO
import Synchronization

/// Which messages are looked at: those of partners. Asked on packet threads, so that a flood of others costs a look-up.
final class Admission: Sendable {
  struct Pair: Hashable {
    let local: HostIdentityTag
    let remote: HostIdentityTag
  }

  private let pairs = Mutex<Set<Pair>>([])

  func set(_ pairs: Set<Pair>) { self.pairs.withLock { $0 = pairs } }
  func insert(_ pair: Pair) { _ = pairs.withLock { $0.insert(pair) } }
  func remove(_ pair: Pair) { _ = pairs.withLock { $0.remove(pair) } }

  func admits(_ message: PacketBytes) -> Bool {
    guard let header = HIPHeader.peek(message) else { return false }
    return pairs.withLock { $0.contains(Pair(local: header.receiver, remote: header.sender)) }
  }
}
