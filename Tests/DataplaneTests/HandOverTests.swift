import CLinux
import Glibc
import PacketIO
import Synchronization
import Testing

@testable import Dataplane

/// A path on which worker 0 gets what the test writes into a socket, and nobody gets what is sent. Worker 1 stands
/// still in the middle of a turn until it is let go.
private final class HeldTransport: Transport {
  /// The test's end, and worker 0's.
  let (feed, source): (Int32, Int32)
  private let (hold, release): (Int32, Int32)
  private let isLetGo = Atomic<Bool>(false)
  let isHeld = Atomic<Bool>(false)
  /// Datagrams that worker 0 has done with.
  let done = Atomic<Int>(0)

  init() throws {
    var pair: [Int32] = [-1, -1]
    var pipes: [Int32] = [-1, -1]
    guard socketpair(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0, &pair) == 0, pipe(&pipes) == 0 else {
      throw SystemError("make the sockets of a test", errno: errno)
    }
    (feed, source) = (pair[0], pair[1])
    (hold, release) = (pipes[0], pipes[1])
  }

  deinit { for descriptor in [feed, source, hold] { close(descriptor) } }

  func letGo() { if !isLetGo.exchange(true, ordering: .acquiringAndReleasing) { close(release) } }

  func open(worker: Int, index: UInt8, io: inout WorkerIO) throws -> any TransportLink {
    Link(self, worker: worker, io: &io)
  }

  func open(
    worker: Int, of workers: Int, index: UInt8, io: inout WorkerIO
  ) throws -> (any TransportLink)? {
    try open(worker: worker, index: index, io: &io)
  }

  private final class Link: TransportLink {
    private let path: HeldTransport
    private let worker: Int
    private let receiver: Receiver?
    private var received = 0

    init(_ path: HeldTransport, worker: Int, io: inout WorkerIO) {
      self.path = path
      self.worker = worker
      receiver =
        worker == 0
        ? Receiver(
          path.source, kind: .stream, group: io.claimBufferGroup(), capacity: 32,
          token: Token(owner: io.claimOwner(), kind: 1), io: &io) : nil
      receiver?.rearm(io: &io)
    }

    func send(_ batch: inout PacketBatch, io: inout WorkerIO) {
      for index in 0..<batch.count { io.pool.release(batch[index].buffer) }
      batch.removeAll()
    }

    func complete(
      _ completion: Completion, io: inout WorkerIO, received batch: inout PacketBatch, messages: inout PacketBatch
    ) {
      var error: Int32 = 0
      guard let datagram = receiver?.accept(completion, io: &io, error: &error) else { return }
      received += 1
      batch.append(
        Superpacket(
          buffer: datagram.buffer, offset: datagram.offset, length: datagram.length, segmentSize: datagram.length,
          path: .test))
    }

    func endTurn(io: inout WorkerIO) {
      receiver?.rearm(io: &io)
      if worker == 0 {
        path.done.store(received, ordering: .releasing)
      } else {
        var byte: UInt8 = 0
        path.isHeld.store(true, ordering: .releasing)
        // Ends when the other end is closed, and at once from then on.
        _ = read(path.hold, &byte, 1)
      }
    }

    func overhead(_ path: Path) -> Int? { nil }
    func keepAlive(_ path: Path, io: inout WorkerIO) {}
    func counters() -> [TransportCounter] { [] }
    func close(io: inout WorkerIO) { receiver?.close(io: &io) }
  }
}

/// More packets for a worker than fit the way to it.
@Suite(.enabled("needs root, /dev/net/tun and the tools ip and ethtool") { PrivateNetwork.isAvailable })
struct HandOverTests {
  private static let sent = 2400

  private static func configuration(spi: UInt32) -> (configuration: Configuration, esp: SlowESP) {
    var association = Sites().association
    association.spi = spi
    var configuration = Sites().betaConfiguration
    configuration.interface = InterfaceConfiguration(source: .name("cv0"))
    configuration.peers[0].inbound = [association]
    configuration.firewall = FirewallConfiguration(
      mode: .on, rules: [FirewallRule(number: 1, direction: .inbound, action: .allow)])
    return (configuration, SlowESP(association))
  }

  /// A packet whose flow belongs to worker 1.
  private static func packet() throws -> PacketSketch {
    let pool = BufferPool(count: 1)
    for port in 1...UInt16(64) {
      let sketch = PacketSketch(
        "10.1.0.1", "10.2.0.1", .udp(sourcePort: port, destinationPort: 7),
        payload: [UInt8](repeating: 0x55, count: 1300))
      let bytes = pool.bytes(0).slice(0, sketch.bytes.count)
      bytes.copy(sketch.bytes, to: 0)
      if let packet = InnerPacket(bytes), FlowOwner.owner(packet, bytes, mask: 1) == 1 { return sketch }
    }
    throw PrivateNetwork.Failure("no flow is worker 1's")
  }

  /// As many packets of that size as a queue between two workers holds.
  private static func room(for bytes: Int) -> Int {
    let pool = BufferPool(count: 1)
    let queue = HandOffQueue(capacity: HandOffQueues.inbox / 2)
    var count = 0
    while queue.post(.opened(peer: 0, version: 0), pool.bytes(0).slice(0, bytes)) { count += 1 }
    return count
  }

  /// Worker 0 gets packets that worker 1 is to open (an odd SPI), or to deliver, while that one stands still. As many
  /// as fit wait for it, the others are dropped for that reason, and none is forgotten.
  @Test(.timeLimit(.minutes(1)), arguments: [0x1001, 0x1002] as [UInt32])
  func whatFindsNoRoomIsDroppedAndCounted(spi: UInt32) async throws {
    let (configuration, esp) = Self.configuration(spi: spi)
    let sketch = try Self.packet()
    let datagrams = (1...Self.sent).map { esp.seal(sketch, sequence: UInt64($0)) }
    let path = try HeldTransport()
    defer { path.letGo() }
    let running = Mutex<Dataplane?>(nil)
    try await PrivateNetwork.run { checks in
      var options = Dataplane.Options()
      options.workers = 2
      let dataplane = try Dataplane(configuration, transports: [path], options: options)
      running.withLock { $0 = dataplane }
      while !path.isHeld.load(ordering: .acquiring) { usleep(1000) }
      for datagram in datagrams {
        // Waits while worker 0 has not taken those before.
        checks.equal(Glibc.send(path.feed, datagram, datagram.count, 0), datagram.count)
      }
      while path.done.load(ordering: .acquiring) < Self.sent { usleep(1000) }
    }
    path.letGo()
    let dataplane = try #require(running.withLock { $0 })
    let statistics = await dataplane.statistics()
    let fits = Self.room(for: spi & 1 == 1 ? datagrams[0].count : sketch.bytes.count)
    #expect(fits > 1000 && fits < Self.sent)
    #expect(statistics.inboundDrops == [DropCount(reason: .handOverFull, packets: UInt64(Self.sent - fits))])
    #expect(statistics.arrived.packets == UInt64(Self.sent) && statistics.delivered.packets == UInt64(fits))
    #expect(statistics.workers.map(\.handedOver) == [UInt64(fits), 0])
    #expect(statistics.workers.map(\.delivered.packets) == [0, UInt64(fits)])
    await dataplane.stop()
  }
}
