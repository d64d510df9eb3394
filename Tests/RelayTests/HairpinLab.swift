import Glibc
import Lab
import PacketIO
import Testing
import TransportSupport

@testable import Relay
@testable import Transports

/// Tests of hairpins over real sockets, one after the other: some measure time, and one the process's memory.
@Suite(.serialized, .enabled(if: canMakeNamespaces, "needs root and iproute2: see SKIPPED above"))
enum HairpinNetworks {}

/// A proxy and gateways on the loopback interface of the calling thread's namespace, all driven by one thread, with
/// clocks that a test can move.
final class HairpinLab {
  static let tlsPort: UInt16 = 8443

  /// A gateway's end: a hairpin link on a ring of its own.
  final class Gateway {
    var io: WorkerIO
    let transport: HairpinTransport
    let link: any TransportLink
    var received: [[UInt8]] = []
    var trains = 0
    var paths: Set<Path> = []
    var reports: [TransportEvent] = []

    init(_ entries: [HairpinTransport.Entry]) throws {
      let ring = try Ring(entries: 64)
      var io = WorkerIO(ring: ring, pool: BufferPool(count: 128), now: .current())
      io.ring.activate()
      transport = HairpinTransport(entries)
      link = try transport.open(worker: 0, index: 2, io: &io)
      self.io = io
    }

    /// - Parameter trains: datagrams of equal size, the last may be shorter.
    func send(_ train: [[UInt8]], to path: Path, trafficClass: UInt8 = 0) {
      guard let buffer = io.pool.take() else { return }
      io.pool.bytes(buffer).copy(train.flatMap { $0 }, to: BufferPool.headroom)
      var batch = PacketBatch(capacity: 1)
      batch.append(
        Superpacket(
          buffer: buffer, offset: BufferPool.headroom, length: train.reduce(0) { $0 + $1.count },
          segmentSize: train[0].count, path: path, trafficClass: trafficClass))
      link.send(&batch, io: &io)
    }

    func turn(wait: UInt64 = 200_000) {
      var messages = PacketBatch(capacity: 64)
      var batch = PacketBatch(capacity: 256)
      io.ring.submitAndWait(nanoseconds: wait)
      io.now = .current()
      while let completion = io.ring.nextCompletion() {
        link.complete(completion, io: &io, received: &batch, messages: &messages)
      }
      for index in 0..<batch.count {
        let train = batch[index]
        let bytes = train.bytes(in: io.pool).array()
        received += stride(from: 0, to: bytes.count, by: Int(train.segmentSize) + Int(train.gap)).map {
          Array(bytes[$0..<min($0 + Int(train.segmentSize), bytes.count)])
        }
        trains += 1
        paths.insert(train.path)
        io.pool.release(train.buffer)
      }
      link.endTurn(io: &io)
      reports += io.takeEvents()
    }

    func counter(_ name: String) -> UInt64 { link.counters().first { $0.name == name }?.value ?? 0 }

    deinit {
      link.close(io: &io)
      for _ in 0..<3 { turn() }
    }
  }

  static let port: UInt16 = 4501
  static func endpoint(isV4: Bool = true, port: UInt16 = HairpinLab.port) -> Endpoint {
    Endpoint(address: isV4 ? IPAddress(v4: 0x7F00_0001) : IPAddress(v6High: 0, low: 1), port: port)
  }

  var sample = HairpinSample()
  var server: HairpinServer
  var records: Records
  /// What is added to the real clocks.
  var shift: Int64 = 0
  /// The clocks stand still there; nil: they go.
  var standing: HairpinClock?
  /// Seconds since 1970 at which the lab began.
  let began = Int64(time(nil))

  final class Records: @unchecked Sendable {
    var all: [HairpinRecord] = []
    var uses: [HairpinUse] = []
    var refusals: [HairpinRefusal] = []
  }

  init(_ change: (inout HairpinProxyOptions) -> Void = { _ in }) throws {
    let records = Records()
    var options = HairpinProxyOptions(
      listen: [HairpinLab.endpoint(), HairpinLab.endpoint(isV4: false)], publicKeys: [sample.authority.publicKey])
    options.ports = 21000...21999
    options.reports.onRecord = { records.all.append($0) }
    options.reports.onUse = { records.uses.append($0) }
    options.reports.onRefusal = { records.refusals.append($0) }
    change(&options)
    self.records = records
    server = try HairpinServer(options, clock: .current())
  }

  /// The clocks the proxy sees.
  var clock: HairpinClock {
    let now = standing ?? HairpinClock.current()
    return HairpinClock(
      monotonic: now.monotonic.adding(nanoseconds: UInt64(shift) * 1_000_000_000), wall: now.wall + shift)
  }

  func turn(_ gateways: [Gateway] = []) {
    let clock = self.clock
    _ = server.turn(waiting: 0) { clock }
    for gateway in gateways { gateway.turn() }
  }

  /// Turns until it is so, for so many seconds at most.
  @discardableResult
  func until(_ gateways: [Gateway], within seconds: Double = 3, _ condition: () -> Bool) -> Bool {
    let end = MonotonicTime.current().adding(seconds: seconds)
    while MonotonicTime.current() < end {
      turn(gateways)
      if condition() { return true }
    }
    return condition()
  }

  /// A ticket that is valid now.
  func ticket(_ change: (inout HairpinTicket) -> Void = { _ in }) -> SignedHairpinTicket {
    sample.ticket(at: began, change)
  }

  /// Both gateways of one ticket, with their hairpin open.
  func pair(
    _ change: (inout HairpinTicket) -> Void = { _ in }, isV4: (Bool, Bool) = (true, true),
    encapsulations: (Encapsulation, Encapsulation) = (.udp, .udp), port: UInt16 = HairpinLab.port
  ) throws -> Pair {
    try pair(
      change, encapsulations: encapsulations,
      at: (HairpinLab.endpoint(isV4: isV4.0, port: port), HairpinLab.endpoint(isV4: isV4.1, port: port)))
  }

  /// - Parameter proxies: where the gateways find the proxy.
  func pair(
    _ change: (inout HairpinTicket) -> Void = { _ in }, encapsulations: (Encapsulation, Encapsulation),
    at proxies: (Endpoint, Endpoint)
  ) throws -> Pair {
    let ticket = ticket(change)
    let files = [
      sample.file(ticket, .first, proxy: proxies.0), sample.file(ticket, .second, proxy: proxies.1),
    ]
    let a = try Gateway([.init(files[0], encapsulations.0)])
    let b = try Gateway([.init(files[1], encapsulations.1)])
    let isOpen = until([a, b]) { a.counter("hairpins-open") == 1 && b.counter("hairpins-open") == 1 }
    return Pair(
      a: a, b: b, toB: files[0].path(encapsulations.0, transport: 2),
      toA: files[1].path(encapsulations.1, transport: 2), ticket: ticket,
      files: files,
      isOpen: isOpen)
  }

  struct Pair {
    let a: Gateway
    let b: Gateway
    /// The path that `a` has to `b`.
    let toB: Path
    let toA: Path
    let ticket: SignedHairpinTicket
    let files: [HairpinTicketFile]
    let isOpen: Bool
  }

  /// A side's row, 2h or 2h + 1 for hairpin h.
  func side(_ place: Int) -> Side { server.engine.sides[SideIndex(place: place)] }

  deinit { server.close() }

  /// A datagram as ESP has it: an SPI, and a pattern.
  static func packet(_ number: Int, size: Int) -> [UInt8] {
    [0x10, 0x01, UInt8(truncatingIfNeeded: number >> 8), UInt8(truncatingIfNeeded: number)]
      + (4..<size).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ number) }
  }

  /// Runs `body` in a namespace of its own, on a thread of its own.
  static func run<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    let namespace = try Namespace("hairpin")
    defer { namespace.remove() }
    return try await namespace.inside(body)
  }
}

/// What tests do to a proxy without gateways.
extension HairpinServer {
  func isInsideRun(_ side: SideIndex) -> Bool { RunForwarding.isInside(side, streams, engine) }

  /// What is answered to a stranger at a side's port, without sending it; and what follows from having sent it.
  mutating func answer(_ bytes: [UInt8], _ sender: Endpoint, atPortOf side: SideIndex) -> Admission.Answer? {
    admission.answer(bytes, sender, toSide: side, isHolder: false, &engine.state)
  }

  mutating func settle(_ answer: Admission.Answer, _ side: SideIndex) { admission.settle(answer, side, &engine.state) }

  /// Ends a side's stream.
  mutating func cut(_ side: SideIndex) { streams.close(side, &engine) }

  /// Opens datagram hairpins of as many tickets, both sides as if their gateways had proved themselves.
  /// - Returns: how many are open: fewer than asked for when files or ports run out.
  mutating func openIdle(_ count: Int, key: HairpinPublicKey) -> Int {
    var random = SystemRandomNumberGenerator()
    for opened in 0..<count {
      let party = HairpinTicket.Party(name: "idle", encapsulations: [.udp], key: key)
      let ticket = HairpinTicket(
        number: .random(using: &random), first: party, second: party, notBefore: 0, notAfter: .max)
      guard let place = admission.begin(ticket, engine.clock) else { return opened }
      for end in HairpinEnd.allCases {
        let side = SideIndex(hairpin: place, end)
        guard engine.openPort(side, .udp, at: options.listen[0].address, listen: 0, of: options.ports) == nil else {
          return opened
        }
        engine.sides[side].holder.isProven = true
        // An address that nobody has.
        engine.sides[side].holder.name = SocketName(Endpoint(address: options.listen[0].address, port: 1))
        admission.hairpins[place].life?.proved(end, now: engine.clock.monotonic)
      }
    }
    return count
  }
}
