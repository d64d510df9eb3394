import PacketIO

@testable import Transports

/// A train of datagrams as a socket receives it: sealed packets are passed on, each once and in order; key exchange,
/// keep-alives and what is too short are not.
///
/// Two bytes of datagram size, then the train.
let udpDatagrams = FuzzTarget(name: "UDPDatagrams") { input in
  var input = FuzzInput(input)
  let size = max(input.number(), 1)
  let bytes = input.rest()
  let pool = link.io.pool
  guard !bytes.isEmpty, bytes.count <= 65507, let buffer = pool.take() else { return }
  let available = pool.available
  pool.bytes(buffer).copy(bytes, to: BufferPool.headroom)
  let train = Superpacket(
    buffer: buffer, offset: BufferPool.headroom, length: bytes.count, segmentSize: size,
    path: Path(endpoint: Endpoint(address: IPAddress(v4: 0x7F00_0001), port: 4500)))
  var received = PacketBatch(capacity: bytes.count / 4 + 1)
  var messages = PacketBatch(capacity: bytes.count / 4 + 1)
  link.udp.classify(train, io: &link.io, received: &received, messages: &messages)

  // The same, said simply.
  var expected: [ArraySlice<UInt8>] = []
  var said: [ArraySlice<UInt8>] = []
  for start in stride(from: 0, to: bytes.count, by: size) {
    let datagram = bytes[start..<min(start + size, bytes.count)]
    if datagram.count >= 4, datagram.prefix(4).contains(where: { $0 != 0 }) { expected.append(datagram) }
    if datagram.count > 4, datagram.prefix(4).allSatisfy({ $0 == 0 }) { said.append(datagram.dropFirst(4)) }
  }
  var found: [ArraySlice<UInt8>] = []
  for index in 0..<received.count {
    let run = received[index].bytes(in: pool).array()
    for start in stride(from: 0, to: run.count, by: size) {
      found.append(run[start..<min(start + size, run.count)])
    }
    pool.release(received[index].buffer)
  }
  var heard: [[UInt8]] = []
  for index in 0..<messages.count {
    heard.append(messages[index].bytes(in: pool).array())
    pool.release(messages[index].buffer)
  }
  require(heard.elementsEqual(said) { $0.elementsEqual($1) }, "\(heard) taken for messages, not \(said)")
  require(found.elementsEqual(expected) { $0.elementsEqual($1) }, "\(found) passed on, not \(expected)")
  pool.release(buffer)
  require(pool.available == available + 1, "buffers are lost")
}

/// The control data of a received train, as the kernel has it: size of the datagrams, and traffic class.
let udpControl = FuzzTarget(name: "UDPControl") { input in
  withPacketBytes(input) { bytes in
    guard let size = ReceivedMessage.ancillary(bytes).segmentSize else { return }
    require(size > 0, "datagrams of \(size) bytes")
  }
}

/// An entry of a socket's error queue, whose quoted packet is a stranger's: 32 bytes of address, a byte of the control
/// data's length, that, and the quote.
let udpErrors = FuzzTarget(name: "UDPErrors") { input in
  guard input.count > 33 else { return }
  withPacketBytes(input) { bytes in
    let length = min(Int(bytes[32]), bytes.count - 33)
    let (control, payload) = (bytes.slice(33, length), bytes.dropFirst(33 + length))
    guard let refusal = SizeRefusal(name: bytes.slice(0, 32), control: control, payload: payload) else { return }
    require(refusal.size >= 0, "at most \(refusal.size) bytes")
    guard let quote = refusal.quote else { return }
    require(payload.count >= 8 && payload.load32(0) == quote.spi, "another SPI than the quoted one")
  }
}

/// One link for all inputs: what it remembers between them are counters.
private struct Link: ~Copyable {
  var io: WorkerIO
  let udp: UDPLink

  init() throws {
    let ring = try Ring(entries: 8)
    var io = WorkerIO(ring: ring, pool: BufferPool(count: 4), now: MonotonicTime(nanoseconds: 1))
    udp = try UDPLink(socket4: nil, socket6: nil, index: 0, receiveBuffers: 2, io: &io)
    self.io = io
  }
}

nonisolated(unsafe) private var link: Link = {
  do { return try Link() } catch { fatalError("\(error)") }
}()
