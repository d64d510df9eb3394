import PacketIO

/// A worker's ends of all transports, in the embedder's order.
final class Links: PathFacts {
  /// Nil: worker 0 alone has that transport.
  private(set) var all: [(any TransportLink)?] = []
  private var closed: [any TransportLink] = []
  /// By owner number, a position in `all`; -1: nobody's.
  private var positions = [Int8](repeating: -1, count: 256)
  /// The trains of one of several transports.
  private var share: PacketBatch

  /// - Parameter buffers: of the pool; so many trains there can be.
  init(buffers: Int) { share = PacketBatch(capacity: buffers) }

  /// Opens the next transport, whose completions come to its link from now on.
  func open(_ transport: any Transport, for tables: Snapshot, io: inout WorkerIO) throws {
    let (index, first) = (UInt8(truncatingIfNeeded: all.count), io.nextOwner)
    all.append(
      tables.workers == 1
        ? try transport.open(worker: 0, index: index, io: &io)
        : try transport.open(worker: tables.worker, of: tables.workers, index: index, io: &io))
    for owner in first..<io.nextOwner { positions[Int(owner)] = Int8(bitPattern: index) }
  }

  /// Closes the transport that was opened last. What is in flight ends later; until then it keeps its memory.
  func closeLast(io: inout WorkerIO) {
    guard let link = all.popLast() else { return }
    for owner in positions.indices where positions[owner] == all.count { positions[owner] = -1 }
    guard let link else { return }
    link.close(io: &io)
    closed.append(link)
  }

  /// The link that has claimed an owner number.
  func owner(_ number: UInt8) -> (any TransportLink)? {
    let position = positions[Int(number)]
    return position < 0 ? nil : all[Int(position)]
  }

  subscript(_ path: Path) -> (any TransportLink)? {
    all.indices.contains(Int(path.transport)) ? all[Int(path.transport)] : nil
  }

  func overhead(_ path: Path) -> Int? { self[path]?.overhead(path) }
  func carries(_ path: Path) -> Bool { self[path] != nil }

  /// Gives each transport the trains on its paths.
  func send(_ trains: inout PacketBatch, io: inout WorkerIO) {
    if all.count == 1, let link = all[0] { return link.send(&trains, io: &io) }
    for index in all.indices {
      guard let link = all[index] else { continue }
      for train in 0..<trains.count where Int(trains[train].path.transport) == index { share.append(trains[train]) }
      if !share.isEmpty { link.send(&share, io: &io) }
    }
    // No path leads to a transport that this worker does not have: see `PathSharing`.
    for train in 0..<trains.count where self[trains[train].path] == nil { io.pool.release(trains[train].buffer) }
    trains.removeAll()
  }

  /// Sends a message along its path; dropped when there is no buffer.
  func send(_ message: PathMessage, io: inout WorkerIO) {
    guard let link = self[message.path], let buffer = io.pool.take() else { return }
    io.pool.bytes(buffer).copy(message.bytes, to: BufferPool.headroom)
    share.append(
      Superpacket(
        buffer: buffer, offset: BufferPool.headroom, length: message.bytes.count, segmentSize: message.bytes.count,
        path: message.path))
    link.send(messages: &share, io: &io)
  }

  func follow(_ commands: [PathCommand], io: inout WorkerIO) {
    for command in commands {
      switch command {
      case .confirm(let path, let holder): self[path]?.confirm(path, as: holder, io: &io)
      case .release(let path): self[path]?.release(path, io: &io)
      case .keepAlive(let path): self[path]?.keepAlive(path, io: &io)
      }
    }
  }

  func endTurn(io: inout WorkerIO) {
    for link in all { link?.endTurn(io: &io) }
  }

  func close(io: inout WorkerIO) {
    for link in all { link?.close(io: &io) }
  }
}
