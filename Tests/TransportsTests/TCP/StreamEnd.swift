import Glibc
import Lab
import PacketIO

@testable import Transports

/// One end of TCP paths: a link and its ring, in the calling thread's namespace.
final class StreamEnd {
  var io: WorkerIO
  let link: any TransportLink
  private(set) var received: [Path: [[UInt8]]] = [:]
  private(set) var messages: [Path: [[UInt8]]] = [:]
  private(set) var superpackets = 0
  private(set) var reports: [TransportEvent] = []
  /// Whether somebody takes messages.
  var takesMessages = false
  /// Whether what arrives is taken for authentic.
  var trusts = true
  let idleBuffers: Int
  private var isClosed = false

  init(
    _ port: UInt16?, _ limits: TCPTransport.Limits = TCPTransport.Limits(), features: RingFeatures = .all,
    buffers: Int = 96
  ) throws {
    let ring = try Ring(entries: 64, allowed: features)
    var io = WorkerIO(ring: ring, pool: BufferPool(count: buffers), now: .current())
    io.ring.activate()
    link = try TCPTransport(port: port, limits: limits).open(worker: 0, index: 1, io: &io)
    idleBuffers = io.pool.available
    self.io = io
  }

  func send(_ trains: [[[UInt8]]], to path: Path) {
    for train in trains {
      guard let buffer = io.pool.take() else { continue }
      io.pool.bytes(buffer).copy(train.flatMap { $0 }, to: BufferPool.headroom)
      var batch = PacketBatch(capacity: 1)
      batch.append(
        Superpacket(
          buffer: buffer, offset: BufferPool.headroom, length: train.reduce(0) { $0 + $1.count },
          segmentSize: train[0].count, path: path))
      link.send(&batch, io: &io)
    }
  }

  /// A turn, as a worker has it.
  func turn(_ milliseconds: UInt64 = 1) {
    var arrived = PacketBatch(capacity: takesMessages ? 64 : 0)
    var batch = PacketBatch(capacity: 256)
    io.ring.submitAndWait(nanoseconds: milliseconds * 1_000_000)
    io.now = .current()
    while let completion = io.ring.nextCompletion() {
      link.complete(completion, io: &io, received: &batch, messages: &arrived)
      take(&batch)
      take(messages: &arrived)
    }
    link.endTurn(io: &io)
    reports += io.takeEvents()
  }

  private func take(_ batch: inout PacketBatch) {
    for index in 0..<batch.count {
      let run = batch[index]
      let bytes = run.bytes(in: io.pool).array()
      let size = Int(run.segmentSize)
      for start in stride(from: 0, to: bytes.count, by: size + Int(run.gap)) {
        received[run.path, default: []].append(Array(bytes[start..<min(start + size, bytes.count)]))
      }
      superpackets += 1
      if trusts { link.confirm(run.path, as: .dialled(run.path.endpoint), io: &io) }
      io.pool.release(run.buffer)
    }
    batch.removeAll()
  }

  private func take(messages batch: inout PacketBatch) {
    for index in 0..<batch.count {
      messages[batch[index].path, default: []].append(batch[index].bytes(in: io.pool).array())
      io.pool.release(batch[index].buffer)
    }
    batch.removeAll()
  }

  func send(message: [UInt8], to path: Path) {
    guard let buffer = io.pool.take() else { return }
    io.pool.bytes(buffer).copy(message, to: BufferPool.headroom)
    var batch = PacketBatch(capacity: 1)
    batch.append(
      Superpacket(
        buffer: buffer, offset: BufferPool.headroom, length: message.count, segmentSize: message.count, path: path))
    link.send(messages: &batch, io: &io)
  }

  func counter(_ name: String) -> UInt64 { link.counters().first { $0.name == name }?.value ?? 0 }

  func close() {
    guard !isClosed else { return }
    isClosed = true
    link.close(io: &io)
    for _ in 0..<5 { turn() }
  }

  deinit { close() }

  /// Turns of all ends until `condition` holds; false after `seconds`.
  static func turn(_ ends: [StreamEnd], within seconds: Double = 5, until condition: () -> Bool) -> Bool {
    let begin = MonotonicTime.current()
    while !condition() {
      if MonotonicTime.current().nanoseconds(since: begin) > UInt64(seconds * 1e9) { return false }
      for end in ends { end.turn() }
    }
    return true
  }

  static func path(_ port: UInt16, isV4: Bool = true) -> Path {
    Path(transport: 1, endpoint: Endpoint(address: IPAddress(isV4 ? "127.0.0.1" : "::1")!, port: port))
  }
}
