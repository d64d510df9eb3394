import PacketIO
import TransportSupport

@testable import Transports

/// A link without sockets, and one stream of it whose reads are brought by hand.
final class StreamBench {
  var io: WorkerIO
  let link: TCPLink
  let place: Int
  private(set) var packets: [[UInt8]] = []
  private(set) var superpackets = 0
  private let idle: Int
  private let room: Int

  /// - Parameters:
  ///   - isStranger: whether nothing authentic has come by the stream.
  ///   - room: superpackets that can be passed on at a time.
  init(isStranger: Bool = false, isOriginator: Bool = false, room: Int = 192, buffers: Int = 16) throws {
    var io = WorkerIO(ring: try Ring(entries: 8), pool: BufferPool(count: buffers), now: MonotonicTime(nanoseconds: 1))
    var limits = TCPTransport.Limits()
    limits.streams = 16
    limits.unidentifiedBytes = 1 << 30
    link = TCPLink(listeners: [], index: 1, limits: limits, receiveBuffers: 2, io: &io)
    let endpoint = Endpoint(address: IPAddress(v4: 0x7F00_0001), port: 4500)
    let later = MonotonicTime(nanoseconds: 1 << 60)
    if isOriginator {
      place = link.streams.dialled(-1, to: endpoint, destination: 0, deadline: later)!
      link.streams[place].state = .open
    } else {
      place = link.streams.accepted(-1, from: endpoint, deadline: later)!
    }
    if !isStranger { link.streams.authenticate(place) }
    self.io = io
    self.room = room
    idle = self.io.pool.available
  }

  /// One read of the stream.
  func bring(_ bytes: some Collection<UInt8>) {
    guard !bytes.isEmpty, link.streams[place].state == .open else { return }
    let buffer = io.pool.take()!
    io.pool.bytes(buffer).copy(Array(bytes), to: RecordCarry.front)
    let read = StreamReads.Read(
      place: Int32(place), number: link.streams[place].number, buffer: buffer, offset: RecordCarry.front,
      end: RecordCarry.front + bytes.count)
    var batch = PacketBatch(capacity: room)
    var messages = PacketBatch(capacity: 0)
    link.take(read, io: &io, received: &batch, messages: &messages)
    collect(&batch)
    while link.reads.hasBacklog {
      link.resume(io: &io, received: &batch, messages: &messages)
      collect(&batch)
    }
  }

  private func collect(_ batch: inout PacketBatch) {
    for index in 0..<batch.count {
      let run = batch[index]
      let bytes = run.bytes(in: io.pool).array()
      let size = Int(run.segmentSize)
      for start in stride(from: 0, to: bytes.count, by: size + Int(run.gap)) {
        packets.append(Array(bytes[start..<min(start + size, bytes.count)]))
      }
      superpackets += 1
      io.pool.release(run.buffer)
    }
    batch.removeAll()
  }

  var counters: [String: UInt64] {
    var counters: [String: UInt64] = [:]
    for counter in link.counters() { counters[counter.name] = counter.value }
    return counters
  }

  /// What came of it all, as the oracle says it.
  var outcome: StreamOracle {
    let counters = counters
    var outcome = StreamOracle()
    outcome.packets = packets
    outcome.keepAlives = counters["keep-alives-received"] ?? 0
    outcome.keyExchange = counters["key-exchange-ignored"] ?? 0
    outcome.tooShort = counters["too-short"] ?? 0
    outcome.badPrefix = counters["ended-bad-prefix"] ?? 0
    outcome.badLength = counters["ended-bad-length"] ?? 0
    return outcome
  }

  /// Buffers that did not come back, once the stream has ended.
  var lostBuffers: Int {
    link.close(place, error: nil, io: &io)
    return idle - io.pool.available
  }
}
