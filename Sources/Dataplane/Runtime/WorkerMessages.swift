import PacketIO

/// Which link has claimed an owner number.
struct LinkOwners {
  /// By owner number, a position in the list of links; 0xFF: nobody's.
  private var links = [UInt8](repeating: 0xFF, count: 256)

  mutating func append(link: Int, from first: UInt8, to end: UInt8) {
    for owner in first..<end { links[Int(owner)] = UInt8(truncatingIfNeeded: link) }
  }

  subscript(_ owner: UInt8) -> Int? {
    let link = links[Int(owner)]
    return link == 0xFF ? nil : Int(link)
  }
}

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
      channel.put(PathMessage(path: batch[index].path, bytes: batch[index].bytes(in: pool).array()))
      pool.release(batch[index].buffer)
    }
    batch.removeAll()
  }
}

extension WorkerLoop {
  /// Sends a message along its path; dropped when there is no buffer.
  mutating func send(_ message: PathMessage) {
    let link = Int(message.path.transport)
    guard links.indices.contains(link), let buffer = io.pool.take() else { return }
    io.pool.bytes(buffer).copy(message.bytes, to: BufferPool.headroom)
    var batch = PacketBatch(capacity: 1)
    batch.append(
      Superpacket(
        buffer: buffer, offset: BufferPool.headroom, length: message.bytes.count, segmentSize: message.bytes.count,
        path: message.path))
    links[link].send(messages: &batch, io: &io)
  }

  mutating func takeTransportEvents() {
    for event in io.takeEvents() {
      switch event.kind {
      case .opened: introduce(at: event.path)
      case .failed(let error), .ended(let error):
        events.send(
          .transportError(
            transport: Int(event.path.transport), path: event.path,
            error: SystemError("send to \(event.path.endpoint)", errno: error)))
        if number == 0 { failPath(event.path) } else { _ = exchange?.workers[0].post(.failed(event.path)) }
      }
    }
  }
}
