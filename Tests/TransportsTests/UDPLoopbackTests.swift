import Glibc
import Lab
import PacketIO
import Testing
import TransportSupport

@testable import Transports

/// Trains over real sockets, on the loopback interface of a namespace of our own, with each set of kernel features:
/// what an older kernel lacks costs speed and no packet.
@Suite(.serialized, .enabled(if: canMakeNamespaces, "needs root and iproute2: see SKIPPED above"))
struct UDPLoopbackTests {
  /// One end of the path: a link and its ring.
  private final class End {
    var io: WorkerIO
    let link: any TransportLink
    private(set) var received: [[UInt8]] = []
    private(set) var trains = 0
    private(set) var paths: Set<Path> = []
    private(set) var trafficClasses: Set<UInt8> = []

    init(_ features: RingFeatures, buffers: Int = 96, _ open: (inout WorkerIO) throws -> any TransportLink) throws {
      let ring = try Ring(entries: 64, allowed: features)
      var io = WorkerIO(ring: ring, pool: BufferPool(count: buffers), now: .current())
      io.ring.activate()
      link = try open(&io)
      self.io = io
    }

    func send(_ trains: [[[UInt8]]], to path: Path, trafficClass: UInt8 = 0) {
      for train in trains {
        let buffer = io.pool.take()!
        io.pool.bytes(buffer).copy(train.flatMap { $0 }, to: BufferPool.headroom)
        var batch = PacketBatch(capacity: 1)
        batch.append(
          Superpacket(
            buffer: buffer, offset: BufferPool.headroom, length: train.reduce(0) { $0 + $1.count },
            segmentSize: train[0].count, path: path, trafficClass: trafficClass))
        link.send(&batch, io: &io)
      }
    }

    /// Whether somebody takes messages.
    var takesMessages = false
    var messages: [[UInt8]] = []
    var messagePaths: Set<Path> = []

    func send(message: [UInt8], to path: Path) {
      let buffer = io.pool.take()!
      io.pool.bytes(buffer).copy(message, to: BufferPool.headroom)
      var batch = PacketBatch(capacity: 1)
      batch.append(
        Superpacket(
          buffer: buffer, offset: BufferPool.headroom, length: message.count, segmentSize: message.count, path: path))
      link.send(messages: &batch, io: &io)
    }

    /// Errors that the next sends seem to end with, though they do not.
    var feignedErrors: [Int32] = []

    /// A turn, as a worker has it.
    func turn() {
      var batch = PacketBatch(capacity: 256)
      var arrived = PacketBatch(capacity: takesMessages ? 64 : 0)
      io.ring.submitAndWait(nanoseconds: 1_000_000)
      while var completion = io.ring.nextCompletion() {
        if !completion.more, completion.buffer == nil, completion.result > 4, let error = feignedErrors.first {
          feignedErrors.removeFirst()
          completion = Completion(token: completion.token, result: -error, flags: completion.flags)
        }
        link.complete(completion, io: &io, received: &batch, messages: &arrived)
      }
      for index in 0..<arrived.count {
        messages.append(arrived[index].bytes(in: io.pool).array())
        messagePaths.insert(arrived[index].path)
        io.pool.release(arrived[index].buffer)
      }
      for index in 0..<batch.count {
        let train = batch[index]
        let bytes = train.bytes(in: io.pool).array()
        received += stride(from: 0, to: bytes.count, by: Int(train.segmentSize)).map {
          Array(bytes[$0..<min($0 + Int(train.segmentSize), bytes.count)])
        }
        trains += 1
        paths.insert(train.path)
        trafficClasses.insert(train.trafficClass)
        io.pool.release(train.buffer)
      }
      link.endTurn(io: &io)
    }

    func counter(_ name: String) -> UInt64 { link.counters().first { $0.name == name }?.value ?? 0 }

    deinit {
      link.close(io: &io)
      for _ in 0..<3 { turn() }
    }
  }

  /// What a test sees of a run.
  private struct Outcome: Sendable {
    var received: [[UInt8]] = []
    var trains = 0
    var paths: Set<Path> = []
    var trafficClasses: Set<UInt8> = []
    var sender: [String: UInt64] = [:]
    var receiver: [String: UInt64] = [:]
    var reports: [TransportEvent] = []
    var lostBuffers = 0
  }

  /// Sends and receives until `count` datagrams are there, or nothing has come for a second.
  private static func run(
    _ sender: End, _ receiver: End, count: Int, _ send: (Path) -> Void, to destination: Endpoint
  ) -> Outcome {
    for _ in 0..<2 {
      sender.turn()
      receiver.turn()
    }
    let before = sender.io.pool.available
    send(Path(transport: 0, endpoint: destination))
    var idle = 0
    while idle < 100 {
      let already = receiver.received.count
      sender.turn()
      receiver.turn()
      idle = receiver.received.count == already ? idle + 1 : 0
      if receiver.received.count >= count, idle >= 5 { break }
    }
    var outcome = Outcome()
    outcome.received = receiver.received
    outcome.trains = receiver.trains
    outcome.paths = receiver.paths
    outcome.trafficClasses = receiver.trafficClasses
    for counter in sender.link.counters() { outcome.sender[counter.name] = counter.value }
    for counter in receiver.link.counters() { outcome.receiver[counter.name] = counter.value }
    outcome.reports = sender.io.takeEvents()
    outcome.lostBuffers = before - sender.io.pool.available
    return outcome
  }

  private static func loopback(isV4: Bool, port: UInt16) -> Endpoint {
    Endpoint(address: IPAddress(isV4 ? "127.0.0.1" : "::1")!, port: port)
  }

  /// Trains of different lengths; each datagram is another.
  private static func trains(_ counts: [Int], size: Int) -> [[[UInt8]]] {
    var number: UInt32 = 1
    return counts.map { count in
      (0..<count).map { index in
        defer { number += 1 }
        let length = index == count - 1 && count > 1 ? size / 2 : size
        return [1, 2, UInt8(number >> 8), UInt8(number & 0xFF)]
          + [UInt8](repeating: UInt8(number & 0xFF), count: length - 4)
      }
    }
  }

  @Test(
    arguments: [
      .all, [.bufferRings, .multishotReceive, .multishotRead], [.deferredTaskRun, .bufferRings], [.deferredTaskRun], [],
    ] as [RingFeatures], [true, false])
  func trainsArriveWhole(features: RingFeatures, isV4: Bool) async throws {
    let trains = Self.trains([1, 45, 2, 45, 45, 7, 64, 1], size: 1000)
    let outcome = try await Namespace("udp").inside {
      let sender = try End(features) { try UDPTransport(port: 4501).open(worker: 0, index: 5, io: &$0) }
      let receiver = try End(features) { try UDPTransport(port: 4502).open(worker: 0, index: 7, io: &$0) }
      return Self.run(
        sender, receiver, count: 210, { sender.send(trains, to: $0, trafficClass: 0xBA) },
        to: Self.loopback(isV4: isV4, port: 4502))
    }
    #expect(outcome.received == trains.flatMap { $0 })
    #expect(outcome.paths == [Path(transport: 7, endpoint: Self.loopback(isV4: isV4, port: 4501))])
    #expect(outcome.trafficClasses == [0xBA])
    #expect(outcome.trains < 60, "trains were not received as such")
    #expect(outcome.sender["sent-trains"] == 8 && outcome.sender["sent-datagrams"] == 210)
    #expect(outcome.receiver["received-datagrams"] == 210)
    #expect(outcome.reports == [] && outcome.lostBuffers == 0)
  }

  /// More than the table of messages holds, one datagram each: what does not fit waits its turn.
  @Test func aRouteThatCannotSegmentCarriesAllTheSame() async throws {
    let trains = Self.trains([Int](repeating: 45, count: 40), size: 200)
    let outcome = try await Namespace("udp").inside {
      // The kernel refuses to segment (EINVAL) for a socket that wants no checksums.
      let socket = try UDPSocket(address: IPAddress(v4: 0), port: 4501)
      var one: Int32 = 1
      setsockopt(socket.descriptor, SOL_SOCKET, SO_NO_CHECK, &one, 4)
      let sender = try End(.all) {
        try UDPLink(socket4: socket, socket6: nil, index: 0, receiveBuffers: 2, io: &$0)
      }
      let receiver = try End(.all) { try UDPTransport(port: 4502).open(worker: 0, index: 0, io: &$0) }
      return Self.run(
        sender, receiver, count: 1800, { sender.send(trains, to: $0) }, to: Self.loopback(isV4: true, port: 4502))
    }
    #expect(outcome.sender["sent-datagrams"] == 1800 && outcome.sender["sent-trains"] == 1800)
    #expect(outcome.sender["send-queue-full"] == 0)
    #expect(outcome.received.count == 1800)
    #expect(Set(outcome.received) == Set(trains.flatMap { $0 }))
    #expect(outcome.reports == [] && outcome.lostBuffers == 0)
  }

  /// As kernels before 6.10 have it: 64 datagrams in a send. And as routes have it that cannot segment: one.
  @Test func whatASendRefusesGoesInSmallerPieces() async throws {
    let trains = Self.trains([128], size: 100)
    let second = Self.trains([100, 60], size: 100)
    let third = Self.trains([3], size: 100)
    let outcome = try await Namespace("udp").inside {
      let sender = try End(.all) { try UDPTransport(port: 4501).open(worker: 0, index: 0, io: &$0) }
      let receiver = try End(.all) { try UDPTransport(port: 4502).open(worker: 0, index: 0, io: &$0) }
      sender.feignedErrors = [EINVAL]
      return Self.run(
        sender, receiver, count: 1000,
        { path in
          sender.send(trains, to: path)
          sender.turn()
          sender.send(second, to: path)
          sender.turn()
          sender.feignedErrors = [EIO]
          sender.send(third, to: path)
          sender.turn()
          sender.send(third, to: path)
        }, to: Self.loopback(isV4: true, port: 4502))
    }
    // Refused only in appearance, so the first and the third train arrive twice.
    let arrivals = 2 * 128 + 160 + 2 * 3 + 3
    #expect(outcome.received.count == arrivals)
    // 64 + 64; 64 + 36, 60; then one by one.
    #expect(outcome.sender["sent-trains"] == 11)
    #expect(outcome.sender["sent-datagrams"] == 294)
    #expect(outcome.reports == [] && outcome.lostBuffers == 0)
  }

  @Test func theLongestTrain() async throws {
    let trains = Self.trains([128, 128], size: 100)
    let outcome = try await Namespace("udp").inside {
      let sender = try End(.all) { try UDPTransport(port: 4501).open(worker: 0, index: 0, io: &$0) }
      let receiver = try End(.all) { try UDPTransport(port: 4502).open(worker: 0, index: 0, io: &$0) }
      return Self.run(
        sender, receiver, count: 256, { sender.send(trains, to: $0) }, to: Self.loopback(isV4: true, port: 4502))
    }
    #expect(outcome.received == trains.flatMap { $0 })
    // Older kernels take half of it at a time.
    #expect([2, 4].contains(outcome.sender["sent-trains"]))
  }

  @Test(arguments: [true, false])
  func whatCannotBeSentIsCountedAndReported(isV4: Bool) async throws {
    let trains = Self.trains([3], size: 1000)
    let outcome = try await Namespace("udp").inside {
      let sender = try End(.all) { try UDPTransport(port: 4501).open(worker: 0, index: 0, io: &$0) }
      let receiver = try End(.all) { try UDPTransport(port: 4502).open(worker: 0, index: 0, io: &$0) }
      let nowhere = Endpoint(address: IPAddress(isV4 ? "192.0.2.1" : "2001:db8::1")!, port: 4500)
      return Self.run(
        sender, receiver, count: 3,
        {
          sender.send(trains, to: Path(endpoint: nowhere))
          sender.link.keepAlive(Path(endpoint: nowhere), io: &sender.io)
          // What works goes on.
          sender.send(trains, to: $0)
        }, to: Self.loopback(isV4: isV4, port: 4502))
    }
    #expect(outcome.received == trains[0])
    #expect(outcome.sender["send-error-unreachable"] == 3 && outcome.sender["keep-alives-failed"] == 1)
    // The same twice in a row.
    #expect(outcome.reports.map(\.error) == [ENETUNREACH] && outcome.reports.map(\.count) == [2])
    #expect(outcome.lostBuffers == 0)
  }

  @Test func keepAlivesAndStrangers() async throws {
    let outcome = try await Namespace("udp").inside {
      let sender = try End(.all) { try UDPTransport(port: 4501).open(worker: 0, index: 0, io: &$0) }
      let receiver = try End(.all) { try UDPTransport(port: 4502).open(worker: 0, index: 0, io: &$0) }
      return Self.run(
        sender, receiver, count: 1,
        { path in
          for _ in 0..<3 { sender.link.keepAlive(path, io: &sender.io) }
          sender.send([[[0, 0, 0, 0, 1, 2]], [[1]], [[5, 5, 5, 5]]], to: path)
          // Nothing at all.
          let descriptor = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
          SocketName(path.endpoint).withPointer { _ = sendto(descriptor, nil, 0, 0, $0, $1) }
          close(descriptor)
        }, to: Self.loopback(isV4: true, port: 4502))
    }
    #expect(outcome.received == [[5, 5, 5, 5]])
    #expect(outcome.sender["keep-alives-sent"] == 3 && outcome.receiver["keep-alives-received"] == 3)
    #expect(outcome.receiver["key-exchange-ignored"] == 1 && outcome.receiver["too-short"] == 2)
    #expect(outcome.receiver["truncated"] == 0 && outcome.receiver["received-datagrams"] == 7)
  }

  /// More than the receiver has buffers for: it waits unarmed, and goes on when they come back.
  @Test(arguments: [.all, []] as [RingFeatures])
  func aReceiverThatRanOutOfBuffersGoesOn(features: RingFeatures) async throws {
    let trains = Self.trains([Int](repeating: 1, count: 300), size: 100)
    let outcome = try await Namespace("udp").inside {
      let sender = try End(.all, buffers: 400) {
        try UDPTransport(port: 4501).open(worker: 0, index: 0, io: &$0)
      }
      let receiver = try End(features, buffers: 7) {
        try UDPTransport(port: 4502, receiveBuffers: 2).open(worker: 0, index: 0, io: &$0)
      }
      return Self.run(
        sender, receiver, count: 300,
        {
          // No kernel joins datagrams that differ in size.
          sender.send(trains.enumerated().map { [$1[0] + [UInt8](repeating: 0, count: $0 % 7)] }, to: $0)
        }, to: Self.loopback(isV4: true, port: 4502))
    }
    #expect(outcome.received.count == 300)
    #expect(outcome.receiver["receive-queue-full"] == 0)
  }

  /// Four workers share a port, and each gets the packets whose SPI has its number in the last bits; what is too short
  /// for one goes to the first.
  @Test(arguments: [true, false]) func workersShareAPort(isV4: Bool) async throws {
    let received: [[[UInt8]]] = try await Namespace("udp").inside {
      let sender = try End(.all, buffers: 400) {
        try UDPTransport(port: 4501).open(worker: 0, index: 0, io: &$0)
      }
      let workers = try (0..<4).map { number in
        try End(.all) {
          let link = try UDPTransport(port: 4502).open(worker: number, of: 4, index: 0, io: &$0)
          return try #require(link)
        }
      }
      for _ in 0..<2 {
        for worker in workers { worker.turn() }
      }
      let path = Path(transport: 0, endpoint: Self.loopback(isV4: isV4, port: 4502))
      for spi in UInt8(1)...80 { sender.send([[[9, 9, 9, spi, spi, 1, 2, 3]]], to: path) }
      sender.link.keepAlive(path, io: &sender.io)
      for _ in 0..<20 {
        sender.turn()
        for worker in workers { worker.turn() }
      }
      #expect(workers.map { $0.counter("keep-alives-received") } == [1, 0, 0, 0])
      return workers.map(\.received)
    }
    for (number, packets) in received.enumerated() {
      #expect(packets.map { $0[3] } == (1...80).filter { $0 % 4 == number }, "worker \(number)")
    }
  }

  /// Nor is one that is shared by somebody else.
  @Test func aSharedPortIsNotJoinedByStrangers() async throws {
    let error: SystemError? = try await Namespace("udp").inside {
      let first = try UDPSocket(address: IPAddress(v4: 0), port: 4500, worker: 0, of: 2)
      defer { first.close() }
      do throws(SystemError) {
        _ = try UDPSocket(address: IPAddress(v4: 0), port: 4500, worker: 0, of: 2)
        return nil
      } catch {
        return error
      }
    }
    #expect(error?.errno == EADDRINUSE)
  }

  @Test func aPortInUseIsRefusedWithARemedy() async throws {
    let error: SystemError? = try await Namespace("udp").inside {
      let first = try UDPSocket(address: IPAddress(v4: 0), port: 4500)
      defer { first.close() }
      do throws(SystemError) {
        _ = try UDPSocket(address: IPAddress(v4: 0), port: 4500)
        return nil
      } catch {
        return error
      }
    }
    #expect(error?.errno == EADDRINUSE && error?.remedy?.contains("ss -ulpn") == true)
    let foreign: SystemError? = try await Namespace("udp").inside {
      do throws(SystemError) {
        _ = try UDPSocket(address: IPAddress("192.0.2.1")!, port: 4500)
        return nil
      } catch {
        return error
      }
    }
    #expect(foreign?.errno == EADDRNOTAVAIL && foreign?.remedy != nil)
  }

  /// Messages go and come beside sealed packets, behind four zero bytes; where nobody takes them they are counted.
  @Test(arguments: [true, false])
  func messagesArriveBesidePackets(isTaken: Bool) async throws {
    let said = [1, 2, 1400, 60_000].map { [UInt8](repeating: 0, count: $0) }
    let (outcome, messages, paths) = try await Namespace("udp").inside {
      let sender = try End(.all) { try UDPTransport(port: 4501).open(worker: 0, index: 0, io: &$0) }
      let receiver = try End(.all) { try UDPTransport(port: 4502).open(worker: 0, index: 3, io: &$0) }
      receiver.takesMessages = isTaken
      let outcome = Self.run(
        sender, receiver, count: 45,
        { path in
          for message in said { sender.send(message: message, to: path) }
          sender.send(Self.trains([45], size: 500), to: path)
        }, to: Self.loopback(isV4: true, port: 4502))
      return (outcome, receiver.messages, receiver.messagePaths)
    }
    #expect(outcome.received.count == 45 && outcome.lostBuffers == 0)
    #expect(outcome.sender["messages-sent"] == 4 && outcome.sender["sent-datagrams"] == 45)
    #expect(messages == (isTaken ? said : []) && paths == (isTaken ? outcome.paths : []))
    #expect(outcome.receiver["messages-received"] == (isTaken ? 4 : 0))
    #expect(outcome.receiver["key-exchange-ignored"] == (isTaken ? 0 : 4))
    #expect(outcome.receiver["received-datagrams"] == 49)
  }
}
