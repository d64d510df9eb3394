import Glibc
import PacketIO
import TestSupport
import Testing

@testable import Transports

/// The parts of the UDP transport that need no network.
@Suite struct UDPLinkTests {
  // MARK: Control data

  /// `struct cmsghdr` and its data, padded to the next one.
  private func message(level: Int32, type: Int32, _ data: [UInt8], length: UInt64? = nil) -> [UInt8] {
    var bytes = native(length ?? UInt64(16 + data.count)) + native(level) + native(type) + data
    while bytes.count % 8 != 0 { bytes.append(0xEE) }
    return bytes
  }

  private func native<T: FixedWidthInteger>(_ value: T) -> [UInt8] { withUnsafeBytes(of: value) { Array($0) } }

  private func ancillary(_ bytes: [UInt8]) -> (segmentSize: Int?, trafficClass: UInt8) {
    let pool = BufferPool(count: 1)
    let memory = pool.bytes(0).slice(0, bytes.count)
    memory.copy(bytes, to: 0)
    return withExtendedLifetime(pool) { ReceivedMessage.ancillary(memory) }
  }

  @Test func controlDataOfTheKernel() {
    let size = message(level: 17, type: 104, native(Int32(1440)))
    let class4 = message(level: 0, type: 1, [0x03])
    let class6 = message(level: 41, type: 67, native(Int32(0xB8)))
    #expect(ancillary([]) == (nil, 0))
    #expect(ancillary(size) == (1440, 0))
    #expect(ancillary(class4) == (nil, 3))
    #expect(ancillary(class6 + size) == (1440, 0xB8))
    #expect(ancillary(size + class4) == (1440, 3))
    // The last message may lack its padding.
    #expect(ancillary(size + class4.prefix(17)) == (1440, 3))
    #expect(ancillary(class4 + size.prefix(20)) == (1440, 3))
    #expect(ancillary(message(level: 1, type: 29, [UInt8](repeating: 7, count: 16)) + size) == (1440, 0))
  }

  @Test func controlDataOfAnEnemy() {
    for length in [0, 1, 15, 16, 25, 1000, 1 << 32, UInt64(Int.max), 1 << 63, UInt64.max] {
      #expect(ancillary(message(level: 17, type: 104, native(Int32(9)), length: length)) == (nil, 0), "\(length)")
    }
    for size in [0, -1, Int32.min] {
      #expect(ancillary(message(level: 17, type: 104, native(size))).segmentSize == nil)
    }
    #expect(ancillary(message(level: 17, type: 104, [1, 2])).segmentSize == nil)
    #expect(ancillary(message(level: 17, type: 104, native(Int32.max))).segmentSize == Int(Int32.max))
    for count in 0..<24 { #expect(ancillary([UInt8](repeating: 0xFF, count: count)) == (nil, 0)) }
    var numbers = Numbers(state: 1)
    for _ in 0..<2000 {
      let count = Int.random(in: 0...72, using: &numbers)
      let size = ancillary((0..<count).map { _ in UInt8.random(in: 0...255, using: &numbers) }).segmentSize
      #expect(size ?? 1 > 0)
    }
  }

  // MARK: Errors

  /// `struct sock_extended_err`, as the kernel has it beside a quoted packet.
  private func error(_ level: Int32, code: Int32 = EMSGSIZE, origin: UInt8, _ type: UInt8, _ kind: UInt8, size: UInt32)
    -> [UInt8]
  {
    message(
      level: level, type: level == 0 ? 11 : 25,
      native(UInt32(code)) + [origin, type, kind, 0] + native(size) + native(UInt32(0)))
  }

  private func refusal(_ control: [UInt8], _ payload: [UInt8], _ address: String = "192.0.2.7") throws -> SizeRefusal? {
    let endpoint = Endpoint(address: try #require(IPAddress(address)), port: 4500)
    let name: [UInt8] = SocketName(endpoint).withPointer { pointer, length in
      Array(UnsafeRawBufferPointer(start: pointer, count: Int(length)))
    }
    let pool = BufferPool(count: 1)
    let memory = pool.bytes(0)
    memory.copy(name + control + payload, to: 0)
    return withExtendedLifetime(pool) {
      SizeRefusal(
        name: memory.slice(0, name.count), control: memory.slice(name.count, control.count),
        payload: memory.slice(name.count + control.count, payload.count))
    }
  }

  @Test func whatIsSaidOfSizes() throws {
    let quoted: [UInt8] = [0, 0, 0x10, 1, 0, 0, 0, 77, 9, 9]
    let quote = QuotedPacket(spi: 0x1001, sequence: 77)
    let router = try refusal(error(0, origin: 2, 3, 4, size: 1300), quoted)
    #expect(router?.size == 1300 && router?.quote == quote)
    #expect(router?.endpoint == Endpoint("192.0.2.7:4500", defaultPort: 0))
    let router6 = try refusal(error(41, origin: 3, 2, 0, size: 1280), quoted, "2001:db8::7")
    #expect(router6?.size == 1280 && router6?.quote == quote)
    let own = try refusal(error(0, origin: 1, 0, 0, size: 1460), [])
    #expect(own?.size == 1460 && own?.quote == nil)
    // Other errors, other kinds of messages, quotes that are no sealed packet or too short to tell.
    let nothing = try [
      refusal(error(0, code: ECONNREFUSED, origin: 2, 3, 3, size: 0), quoted),
      refusal(error(0, origin: 2, 3, 3, size: 1300), quoted), refusal(error(41, origin: 3, 1, 0, size: 1300), quoted),
      refusal(error(0, origin: 9, 3, 4, size: 1300), quoted),
      refusal(error(0, origin: 2, 3, 4, size: 1300), [0, 0, 0, 1]),
      refusal(error(0, origin: 2, 3, 4, size: 1300), [0, 0, 0, 0, 1, 2, 3, 4]), refusal([], quoted),
      refusal(Array(error(0, origin: 2, 3, 4, size: 1300).prefix(30)), quoted),
    ]
    #expect(nothing.allSatisfy { $0 == nil })
  }

  // MARK: Classification

  /// A link without sockets.
  private final class Bench {
    var io: WorkerIO
    let link: UDPLink

    init() throws {
      let ring = try Ring(entries: 8)
      var io = WorkerIO(ring: ring, pool: BufferPool(count: 4), now: .current())
      link = try UDPLink(socket4: nil, socket6: nil, index: 3, receiveBuffers: 2, io: &io)
      self.io = io
    }

    func classify(_ bytes: [UInt8], segmentSize: Int, room: Int = 128) -> [[UInt8]] {
      let buffer = io.pool.take()!
      io.pool.bytes(buffer).copy(bytes, to: BufferPool.headroom)
      var received = PacketBatch(capacity: room)
      var messages = PacketBatch(capacity: 0)
      link.classify(
        Superpacket(
          buffer: buffer, offset: BufferPool.headroom, length: bytes.count, segmentSize: segmentSize, path: somewhere),
        io: &io, received: &received, messages: &messages)
      var runs: [[UInt8]] = []
      for index in 0..<received.count {
        runs.append(received[index].bytes(in: io.pool).array())
        #expect(received[index].segmentSize == segmentSize && received[index].path == somewhere)
        io.pool.release(received[index].buffer)
      }
      io.pool.release(buffer)
      #expect(io.pool.available == io.pool.count - 1, "buffers are lost")
      return runs
    }

    func counter(_ name: String) -> UInt64 { link.counters().first { $0.name == name }!.value }
  }

  @Test func whatIsNotSealedIsSetApart() throws {
    let bench = try Bench()
    #expect(bench.classify([0xFF], segmentSize: 1) == [])
    #expect(bench.counter("keep-alives-received") == 1)
    for short in [[0xFE], [0xFF, 0xFF], [1, 2, 3], [0, 0, 0]] as [[UInt8]] {
      #expect(bench.classify(short, segmentSize: short.count) == [])
    }
    #expect(bench.counter("too-short") == 4)
    #expect(bench.classify([0, 0, 0, 0], segmentSize: 4) == [])
    #expect(bench.classify([0, 0, 0, 0, 1, 2, 3, 4, 5], segmentSize: 9) == [])
    #expect(bench.counter("key-exchange-ignored") == 2)
    // Anything else may be ESP: the dataplane judges.
    for other in [[0, 0, 0, 1], [1, 0, 0, 0], [0xFF, 0xFF, 0xFF, 0xFF, 0]] as [[UInt8]] {
      #expect(bench.classify(other, segmentSize: other.count) == [other])
    }
    #expect(bench.counter("received-datagrams") == 10)
  }

  @Test func runsOfATrain() throws {
    let bench = try Bench()
    let a: [UInt8] = [1, 1, 1, 1, 1]
    let zero: [UInt8] = [0, 0, 0, 0, 9]
    #expect(bench.classify(a + a + a, segmentSize: 5) == [a + a + a])
    #expect(bench.classify(zero + a + a + zero + zero + a, segmentSize: 5) == [a + a, a])
    #expect(bench.classify(a + zero, segmentSize: 5) == [a])
    #expect(bench.classify(zero + zero, segmentSize: 5) == [])
    // The last is shorter: a keep-alive, too short, or a sealed packet.
    #expect(bench.classify(a + a + [0xFF], segmentSize: 5) == [a + a])
    #expect(bench.classify(a + [1, 2, 3], segmentSize: 5) == [a])
    #expect(bench.classify(a + [1, 2, 3, 4], segmentSize: 5) == [a + [1, 2, 3, 4]])
    // A size beyond the bytes, as it was told, is one datagram.
    #expect(bench.classify(a, segmentSize: Int(Int32.max)) == [a])
    #expect(bench.counter("keep-alives-received") == 1 && bench.counter("key-exchange-ignored") == 6)
    #expect(bench.counter("too-short") == 1 && bench.counter("receive-queue-full") == 0)
  }

  @Test func runsThatDoNotFitAreCounted() throws {
    let bench = try Bench()
    let train = [UInt8]([1, 1, 1, 1, 0, 0, 0, 0, 2, 2, 2, 2, 3, 3, 3, 3, 0, 0, 0, 0, 4, 4, 4, 4])
    #expect(bench.classify(train, segmentSize: 4, room: 1) == [[1, 1, 1, 1]])
    #expect(bench.counter("receive-queue-full") == 3)
    let whole: [UInt8] = [1, 1, 1, 1]
    #expect(bench.classify(whole, segmentSize: Int(Int32.max), room: 0) == [])
    #expect(bench.counter("receive-queue-full") == 4)
  }

  @Test func aPathWithoutASocketOfItsFamilyIsCountedAndReported() throws {
    let bench = try Bench()
    let buffer = try #require(bench.io.pool.take())
    var batch = PacketBatch(capacity: 1)
    batch.append(
      Superpacket(buffer: buffer, offset: BufferPool.headroom, length: 100, segmentSize: 30, path: somewhere))
    bench.link.send(&batch, io: &bench.io)
    #expect(bench.counter("no-socket-of-family") == 4)
    let reports = bench.io.takeEvents()
    #expect(reports == [TransportEvent(.failed(EAFNOSUPPORT), somewhere)])
    #expect(bench.io.pool.available == 3)
  }

  // MARK: Tables

  @Test func messagesAreUsedAgain() {
    var table = MessageTable(capacity: 3)
    func train(_ number: Int) -> Superpacket { Superpacket(buffer: 0, offset: number, length: 1, segmentSize: 1) }
    var held: [Int: Int] = [:]
    for number in 0..<3 { held[table.take(train(number))!] = number }
    #expect(Set(held.keys) == [0, 1, 2])
    let none = table.take(train(9))
    #expect(none == nil)
    for round in 3..<50 {
      let message = held.keys.sorted()[round % 3]
      let returned = table.give(message)
      #expect(Int(returned.offset) == held.removeValue(forKey: message))
      let next = table.take(train(round))
      #expect(next == message, "another entry was free")
      held[message] = round
    }
  }

  @Test func aQueueOfTrainsAgainstAnArray() {
    var queue = TrainQueue(capacity: 5)
    var right: [Int32] = []
    var numbers = Numbers(state: 4)
    for number in 0..<1000 as Range<Int32> {
      if Bool.random(using: &numbers) {
        let train = Superpacket(buffer: 0, offset: Int(number), length: 1, segmentSize: 1)
        let taken = queue.append(TrainQueue.Entry(train: train, segmentLimit: Int(number)))
        #expect(taken == (right.count < 5))
        if taken { right.append(number) }
      } else if right.count > 0 {
        queue.removeFirst()
        right.removeFirst()
      }
      let first = queue.first?.train.offset
      let count = queue.count
      #expect(first == right.first && count == right.count)
    }
  }

  @Test(arguments: ["0.0.0.0", "127.0.0.1", "255.255.255.255", "192.0.2.77", "::", "::1", "2001:db8::7", "fe80::1"])
  func socketNamesKeepAddressAndPort(address: String) throws {
    let pool = BufferPool(count: 1)
    for port in [0, 1, 4500, 0x1194, 65535] as [UInt16] {
      let endpoint = Endpoint(address: try #require(IPAddress(address)), port: port)
      let name = SocketName(endpoint)
      let bytes: [UInt8] = name.withPointer { pointer, length in
        Array(UnsafeRawBufferPointer(start: pointer, count: Int(length)))
      }
      #expect(bytes.count == (endpoint.address.isV4 ? MemoryLayout<sockaddr_in>.size : MemoryLayout<sockaddr_in6>.size))
      pool.bytes(0).copy(bytes, to: 0)
      #expect(SocketName.endpoint(pool.bytes(0).slice(0, bytes.count)) == endpoint)
      // As the C library reads it.
      var text = [CChar](repeating: 0, count: 64)
      let family = endpoint.address.isV4 ? AF_INET : AF_INET6
      _ = bytes.withUnsafeBytes { inet_ntop(family, $0.baseAddress! + (family == AF_INET ? 4 : 8), &text, 64) }
      let written = text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
      #expect(String(decoding: written, as: UTF8.self) == address)
      for count in 0..<bytes.count {
        #expect(SocketName.endpoint(pool.bytes(0).slice(0, count)) == nil || (count >= 16 && family == AF_INET))
      }
    }
    pool.bytes(0).copy([1, 0] + [UInt8](repeating: 0, count: 26), to: 0)
    #expect(SocketName.endpoint(pool.bytes(0).slice(0, 28)) == nil, "the name of a Unix socket")
  }
}

private let somewhere = Path(endpoint: Endpoint(address: IPAddress(v4: 0x7F00_0001), port: 4500))

/// SeededNumbers64.
struct Numbers: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
    return z ^ z >> 31
  }
}
