import PacketIO

/// Messages on their way from a worker's links to whoever reads them.
struct MessageIntake: ~Copyable {
  /// Those of one completion.
  private static let capacity = 64

  /// Without room while nobody reads, so that the links count what comes as ignored.
  var batch = PacketBatch(capacity: 0)
  private let channel: MessageChannel

  init(_ channel: MessageChannel) { self.channel = channel }

  /// Once a turn: whether there is a reader may have changed.
  mutating func prepare() {
    guard channel.isOpen != (batch.capacity > 0) else { return }
    batch = PacketBatch(capacity: channel.isOpen ? MessageIntake.capacity : 0)
  }

  mutating func pass(pool: BufferPool) {
    guard !batch.isEmpty else { return }
    for index in 0..<batch.count {
      channel.put(batch[index].bytes(in: pool), from: batch[index].path)
      pool.release(batch[index].buffer)
    }
    batch.removeAll()
  }
}
