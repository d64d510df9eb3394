import PacketIO

/// Trains that wait to be sent, in order; each holds a reference on its buffer.
struct TrainQueue: ~Copyable {
  /// What is left of a train, how many of its datagrams a send may carry, whether it is a message, and whether it was
  /// refused before.
  struct Entry: BitwiseCopyable {
    var train: Superpacket
    var segmentLimit: Int
    var isMessage = false
    var isAgain = false
  }

  private var entries: FixedArray<Entry>
  private var head = 0
  private(set) var count = 0

  init(capacity: Int) {
    let nothing = Superpacket(buffer: 0, offset: 0, length: 0, segmentSize: 1)
    entries = FixedArray(repeating: Entry(train: nothing, segmentLimit: 1), count: capacity)
  }

  /// False when the queue is full; nothing is taken then.
  mutating func append(_ entry: Entry) -> Bool {
    guard count < entries.capacity else { return false }
    entries[(head + count) % entries.capacity] = entry
    count += 1
    return true
  }

  var first: Entry? { count > 0 ? entries[head] : nil }

  /// Shortens the first train to what is left of it.
  mutating func replaceFirst(_ train: Superpacket) { entries[head].train = train }

  mutating func removeFirst() {
    head = (head + 1) % entries.capacity
    count -= 1
  }
}
