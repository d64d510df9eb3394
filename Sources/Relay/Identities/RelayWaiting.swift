import Identity
import PacketIO

/// First packets of handshakes that wait because the relay is busy. One by each path of each of a pair's gateways (of two who begin at
/// once only one is answered, and the relay cannot know which), and not many: of more the oldest goes, and its gateway says
/// it again.
struct RelayWaiting {
  struct Entry {
    let sender: HostIdentityTag
    let receiver: HostIdentityTag
    /// By which it has come, and goes on.
    let path: RelayPath
    /// With the four zero bytes.
    let packet: [UInt8]
    let due: MonotonicTime

    var pair: RelayPolicy.Pair { RelayPolicy.Pair(sender, receiver) }
    fileprivate var way: Way { Way(sender: sender, receiver: receiver, path: path) }
  }

  fileprivate struct Way: Hashable {
    let sender: HostIdentityTag
    let receiver: HostIdentityTag
    let path: RelayPath
  }

  /// Packets that wait at most.
  static let capacity = 1024

  /// In the order in which they came.
  private var entries: [Entry] = []
  private var ways: Set<Way> = []
  /// When the next one has waited long enough; nil: none waits.
  private(set) var nextDue: MonotonicTime?

  var count: Int { entries.count }

  /// - Returns: what was dropped for it, or that it was.
  mutating func add(_ entry: Entry) -> RelayDrop? {
    guard ways.insert(entry.way).inserted else { return .waitsAlready }
    let isFull = entries.count == RelayWaiting.capacity
    if isFull { ways.remove(entries.removeFirst().way) }
    entries.append(entry)
    // Too early where the oldest had it: then nothing is due, and that is all.
    nextDue = min(nextDue ?? entry.due, entry.due)
    return isFull ? .crowdedOut : nil
  }

  /// Takes out what has waited long enough.
  mutating func takeDue(now: MonotonicTime) -> [Entry] {
    guard let nextDue, nextDue <= now else { return [] }
    let due = entries.filter { $0.due <= now }
    entries.removeAll { $0.due <= now }
    for entry in due { ways.remove(entry.way) }
    self.nextDue = entries.lazy.map(\.due).min()
    return due
  }
}
