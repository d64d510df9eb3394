import PacketIO

@testable import Transports

/// A TCP stream that somebody accepted, read by read: what it brings must be what its bytes say, however they are cut,
/// and no buffer may be lost.
///
/// One byte whether the sender is authenticated, then for each read one byte of its length and its bytes.
let streamReads = FuzzTarget(name: "StreamReads") { input in
  var input = FuzzInput(input)
  let isUnauthenticated = input.byte() & 1 == 0
  let endpoint = Endpoint(address: IPAddress(v4: 0x7F00_0001), port: 4500)
  let link = bench.link
  let available = bench.io.pool.available
  guard
    let place = link.streams.accepted(-1, from: endpoint, deadline: MonotonicTime(nanoseconds: 1 << 60))
  else { return require(false, "no place for a stream") }
  if !isUnauthenticated { link.streams.authenticate(place) }
  let number = link.streams[place].number
  var all: [UInt8] = []
  var found: [[UInt8]] = []
  var heard: [[UInt8]] = []
  while !input.isEmpty, link.streams[place].state == .open {
    let bytes = input.bytes(Int(input.byte()) + 1)
    guard !bytes.isEmpty, let buffer = bench.io.pool.take() else { break }
    all += bytes
    bench.io.pool.bytes(buffer).copy(bytes, to: RecordCarry.front)
    var received = PacketBatch(capacity: 300)
    var messages = PacketBatch(capacity: 300)
    link.take(
      StreamReads.Read(
        place: Int32(place), number: number, buffer: buffer, offset: RecordCarry.front,
        end: RecordCarry.front + bytes.count), io: &bench.io, received: &received, messages: &messages)
    for index in 0..<messages.count {
      heard.append(messages[index].bytes(in: bench.io.pool).array())
      bench.io.pool.release(messages[index].buffer)
    }
    for index in 0..<received.count {
      let run = received[index].bytes(in: bench.io.pool).array()
      let size = Int(received[index].segmentSize)
      for start in stride(from: 0, to: run.count, by: size + Int(received[index].gap)) {
        found.append(Array(run[start..<min(start + size, run.count)]))
      }
      bench.io.pool.release(received[index].buffer)
    }
  }
  let (expected, said, isGood) = packets(all)
  require(found == expected, "\(found) passed on, not \(expected)")
  require(heard == said, "\(heard) taken for messages, not \(said)")
  require(isGood == (link.streams[place].state == .open), "the stream is \(isGood ? "ended" : "still open")")
  link.close(place, error: nil, io: &bench.io)
  _ = bench.io.takeEvents()
  require(bench.io.pool.available == available, "buffers are lost")
}

/// The packets and messages of a stream, said simply, and whether it may go on.
private func packets(_ bytes: [UInt8]) -> ([[UInt8]], [[UInt8]], Bool) {
  let prefix = Array("IKETCP".utf8)
  guard bytes.prefix(6).elementsEqual(prefix.prefix(bytes.count)) else { return ([], [], false) }
  var rest = bytes.dropFirst(6)
  var packets: [[UInt8]] = []
  var messages: [[UInt8]] = []
  while rest.count >= 2 {
    let length = Int(rest[rest.startIndex]) << 8 | Int(rest[rest.startIndex + 1])
    if length < 2 { return (packets, messages, false) }
    if rest.count < length { break }
    let payload = Array(rest.dropFirst(2).prefix(length - 2))
    if payload.count >= 4, payload.prefix(4).contains(where: { $0 != 0 }) { packets.append(payload) }
    if payload.count > 4, payload.prefix(4).allSatisfy({ $0 == 0 }) { messages.append(Array(payload.dropFirst(4))) }
    rest = rest.dropFirst(length)
  }
  return (packets, messages, true)
}

/// One link for all inputs: what it remembers between them are counters.
private struct Bench: ~Copyable {
  var io: WorkerIO
  let link: TCPLink

  init() throws {
    let ring = try Ring(entries: 8)
    var io = WorkerIO(ring: ring, pool: BufferPool(count: 16), now: MonotonicTime(nanoseconds: 1))
    var limits = TCPTransport.Limits()
    limits.streams = 16
    limits.unidentifiedBytes = 1 << 30
    link = TCPLink(listeners: [], index: 1, limits: limits, receiveBuffers: 2, io: &io)
    self.io = io
  }
}

nonisolated(unsafe) private var bench: Bench = {
  do { return try Bench() } catch { fatalError("\(error)") }
}()
