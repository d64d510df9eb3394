import Glibc
import PacketIO
import TestSupport
import Testing

@testable import Transports

/// Encrypted streams of a table that is read and written by plain calls, over a pair of sockets.
@Suite struct EncryptedTableTests {
  /// An accepted stream, and the other end, which is played by hand.
  private struct Bench: ~Copyable {
    var table: StreamTable
    let place: Int
    let client = TLSEnd()
    private let far: Int32
    private let pool = BufferPool(count: 1)
    private let buffer: BufferID
    var received: [UInt8] = []
    /// The last of `receive` that was no bytes.
    var status = 0

    init() throws {
      var pair: [Int32] = [0, 0]
      #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue), 0, &pair) == 0)
      // Small, so that sends are cut.
      for descriptor in pair {
        var size: Int32 = 4096
        setsockopt(descriptor, SOL_SOCKET, SO_SNDBUF, &size, 4)
      }
      table = StreamTable(
        capacity: 1, limits: .init(unauthenticated: 1, perOrigin: 1, evictsWithinOrigin: false), dials: false,
        encryption: StreamEncryption(server: try TLSContext(showing: nil), client: nil, handshakes: 8))
      let endpoint = Endpoint(address: TLSEnd.origin, port: 1)
      place = table.accepted(pair[0], from: endpoint, deadline: MonotonicTime(nanoseconds: 1 << 60))!
      far = pair[1]
      buffer = pool.take()!
    }

    deinit { close(far) }

    /// Reads once, so many bytes at most.
    mutating func receive(_ most: Int) {
      let count = table.receive(place, into: pool.bytes(buffer).slice(0, most))
      if count > 0 { received += pool.bytes(buffer).slice(0, count).array() } else { status = count }
    }

    /// What lies in the sockets goes to the client, and what it has to the table's.
    mutating func carry() {
      var bytes = [UInt8](repeating: 0, count: 3000)
      let count = recv(far, &bytes, bytes.count, Int32(MSG_DONTWAIT))
      if count > 0 { client.take(Array(bytes.prefix(count))) }
      waiting += client.give(2000)
      let sent = send(far, waiting, waiting.count, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
      if sent > 0 { waiting.removeFirst(sent) }
    }
    private var waiting: [UInt8] = []
    var isCarried: Bool { waiting.isEmpty }

    /// Bytes on the wire that the client does not know of.
    func say(_ bytes: [UInt8]) { _ = send(far, bytes, bytes.count, Int32(MSG_NOSIGNAL)) }

    func heard() -> [UInt8] {
      var bytes = [UInt8](repeating: 0, count: 3000)
      return Array(bytes.prefix(max(recv(far, &bytes, bytes.count, Int32(MSG_DONTWAIT)), 0)))
    }

    mutating func shake() {
      for _ in 0..<100 where !client.isOpen || table[place].state != .open {
        carry()
        receive(100)
      }
    }
  }

  @Test(arguments: 0..<8) func whatGoesInComesOut(seed: Int) throws {
    var random = SeededNumbers(seed: UInt64(seed))
    var bench = try Bench()
    #expect(bench.table[bench.place].state == .securing && !bench.table.isPlain(bench.place))
    bench.shake()
    #expect(bench.client.isOpen && bench.table[bench.place].state == .open)
    // In small reads, of which none leaves something that a poll of the socket would not tell.
    let text = random.bytes(40_000)
    #expect(bench.client.seal([Array(text.prefix(30_000))]))
    while bench.received.count < 30_000 {
      bench.carry()
      bench.status = 0
      let most = Int.random(in: 1...20_000, using: &random)
      let before = bench.received.count
      bench.receive(most)
      // As a caller polls the socket when fewer came than fit, nothing must be left here then.
      if bench.received.count - before < most {
        let count = bench.received.count
        bench.receive(1)
        #expect(bench.received.count == count)
      }
    }
    #expect(bench.received == Array(text.prefix(30_000)))
    // The other way, more than sockets and records hold.
    var queue = ByteQueue()
    queue.append(Array(text))
    var rounds = 0
    while !queue.isEmpty || bench.table.hasSealed(bench.place) || bench.client.received.count < text.count {
      rounds += 1
      try #require(rounds < 10_000)
      if queue.isEmpty {
        let isThere = bench.table.flush(bench.place)
        #expect(isThere)
      } else {
        let sent = queue.send(to: bench.place, &bench.table)
        #expect(sent >= 0)
      }
      bench.carry()
    }
    #expect(bench.client.received == text && rounds > 8)
    bench.client.bidFarewell()
    bench.carry()
    bench.status = 1
    bench.receive(1000)
    #expect(bench.status == 0 && bench.table.ending(bench.place) == ECONNRESET)
  }

  private enum Kind: UInt8 { case poll }

  /// Whether a poll of the stream completes now.
  private static func isTold(_ bench: inout Bench) throws -> Bool {
    var ring = try Ring(entries: 8)
    ring.activate()
    bench.table[bench.place].isReceiving = false
    bench.table.pollReadable(bench.place, token: Token(owner: 0, kind: Kind.poll), ring: &ring)
    ring.submitAndWait(nanoseconds: 0)
    return ring.nextCompletion() != nil
  }

  /// What was taken out of the socket and not read, and an end that came behind something, are told of as if they were in
  /// the socket; a part of a record is not.
  @Test func whatIsLeftIsTold() throws {
    var bench = try Bench()
    bench.shake()
    #expect(bench.client.seal([[UInt8](repeating: 7, count: 3000)]))
    bench.carry()
    bench.receive(1000)
    #expect(bench.received.isEmpty && bench.status == -Int(EAGAIN))
    var isTold = try Self.isTold(&bench)
    #expect(!isTold)
    for _ in 0..<4 { bench.carry() }
    for count in [1000, 2000, 3000] {
      bench.receive(1000)
      isTold = try Self.isTold(&bench)
      #expect(bench.received.count == count && isTold)
    }
    bench.receive(1000)
    isTold = try Self.isTold(&bench)
    #expect(bench.received.count == 3000 && !isTold)
    #expect(bench.client.seal([[1, 2, 3]]))
    bench.client.bidFarewell()
    for _ in 0..<4 { bench.carry() }
    bench.receive(1000)
    isTold = try Self.isTold(&bench)
    #expect(bench.received.count == 3003 && isTold)
    bench.status = 1
    bench.receive(1000)
    #expect(bench.status == 0)
  }

  @Test func whoIsNoTLSIsRefused() throws {
    var bench = try Bench()
    bench.say(Array("GET / HTTP/1.1\r\n\r\n".utf8))
    bench.receive(1000)
    #expect(bench.status == -Int(EPROTO) && bench.received.isEmpty && bench.table.tlsFigures.failed == 1)
    // An alert at most.
    let heard = bench.heard()
    #expect(heard.isEmpty || heard.starts(with: [0x15, 3]) && heard.count == 7)
    let sent = bench.table.send(bench.place, [1, 2, 3])
    #expect(sent == -1)
  }
}
