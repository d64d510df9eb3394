import Foundation
import Glibc
import Lab
import PacketIO
import Relay
import Synchronization
import Transports

/// A generator, a forwarder and a sink in the calling thread's namespace.
struct HairpinRun {
  struct Result: Sendable {
    var packets: UInt64
    var bytes: UInt64
    var seconds: Double
    /// Seconds that the forwarder's thread ran.
    var processor: Double
    /// Bytes of the process's memory for each idle hairpin; 0: there were none.
    var idleBytes = 0.0
  }

  private let load: HairpinLoad
  private let forwarder: Forwarder
  /// Hairpins beside the one that is measured; of a relay all its pairs.
  private let idle: Int
  private static let warmUp = 0.3

  init(_ load: HairpinLoad, _ forwarder: Forwarder, idle: Int = 0) {
    self.load = load
    self.forwarder = forwarder
    self.idle = idle
  }

  private static func loopback(_ port: UInt16) -> Endpoint {
    Endpoint(address: IPAddress(v4: 0x7F00_0001), port: port)
  }

  /// - Returns: also the proxy that is still to be stopped.
  func measure(seconds: Double) throws -> (Result, HairpinProxy?) {
    if forwarder == .proxy { return try measureProxy(seconds) }
    if forwarder == .relay { return try measureRelay(seconds) }
    let (sink, plain) = (HairpinRun.loopback(4700), HairpinRun.loopback(4600))
    let flag = StopFlag()
    let (kind, paths) = (forwarder, load.paths)
    let thread = LabThread(name: "forwarder") {
      try PlainForwarder.run(kind, paths, from: plain, to: sink, until: flag)
    }
    defer {
      flag.raise()
      _ = try? thread.join()
    }
    let result = try run(
      seconds, path: Path(transport: 0, endpoint: plain), thread: "forwarder",
      sink: { paths.sink == .tcp ? TCPTransport(port: 4700) as any Transport : UDPTransport(port: 4700) },
      source: { paths.source == .tcp ? TCPTransport(port: nil) as any Transport : UDPTransport(port: 4650) },
      isReady: { _ in true }
    )
    return (result, nil)
  }

  private func measureProxy(_ seconds: Double) throws -> (Result, HairpinProxy?) {
    var random = SystemRandomNumberGenerator()
    guard let authority = HairpinPrivateKey.generate(using: &random),
      let a = HairpinPrivateKey.generate(using: &random), let b = HairpinPrivateKey.generate(using: &random)
    else { throw LabError("no keys can be made") }
    let now = UInt64(time(nil))
    let ticket = try SignedHairpinTicket(
      signing: HairpinTicket(
        number: .random(using: &random), first: .init(name: "a", encapsulations: [.udp, .tcp], key: a.publicKey),
        second: .init(name: "b", encapsulations: [.udp, .tcp], key: b.publicKey), notBefore: now - 60,
        notAfter: now + 3600),
      with: authority)
    let end = HairpinRun.loopback(HairpinTicketFile.standardPort)
    var options = HairpinProxyOptions(listen: [end], publicKeys: [authority.publicKey])
    options.hairpins = max(options.hairpins, idle + 1)
    if idle > 0 {
      options.ports = 5000...65_000
      options.signatures = 1_000_000
      options.signaturesPerOrigin = 1_000_000
      options.messagesPerOrigin = 1_000_000
    }
    let before = HairpinRun.residentBytes
    let proxy = try HairpinProxy(options)
    if idle > 0 {
      var gateways = try IdleGateways(at: end, authority: authority)
      try gateways.open(idle, now: now)
    }
    let first = try HairpinTicketFile(proxy: end, end: .first, key: a, ticket: ticket)
    let second = try HairpinTicketFile(proxy: end, end: .second, key: b, ticket: ticket)
    // Until the kernel has taken all requests of idle ones.
    if idle > 0 { pause(seconds: 0.5) }
    let idleBytes = idle > 0 ? (HairpinRun.residentBytes - before) / Double(idle) : 0
    let paths = load.paths
    var result = try run(
      seconds, path: first.path(paths.source, transport: 0), thread: HairpinProxy.threadName,
      sink: { HairpinTransport([.init(second, paths.sink)]) },
      source: { HairpinTransport([.init(first, paths.source)]) }, isReady: { $0.counter("hairpins-open") == 1 })
    result.idleBytes = idleBytes
    return (result, proxy)
  }

  private func measureRelay(_ seconds: Double) throws -> (Result, HairpinProxy?) {
    let crowd = RelayCrowd(pairs: idle)
    let options = crowd.options
    let before = HairpinRun.residentBytes
    let proxy = try HairpinProxy(options)
    try crowd.enter()
    let idleBytes = (HairpinRun.residentBytes - before) / Double(idle)
    var result = try run(
      seconds, path: Path(transport: 0, endpoint: RelayCrowd.relay), thread: HairpinProxy.threadName, spis: idle,
      sink: { UDPTransport(port: RelayCrowd.sinkPort) }, source: { UDPTransport(port: RelayCrowd.sourcePort) },
      isReady: { _ in true })
    result.idleBytes = idleBytes
    return (result, proxy)
  }

  /// - Parameter spis: under how many SPIs trains go, one after the other, as `RelayCrowd` has them.
  private func run(
    _ seconds: Double, path: Path, thread name: String, spis: Int = 0, sink: @escaping @Sendable () -> any Transport,
    source: @escaping @Sendable () -> any Transport, isReady: @escaping @Sendable (PathEnd) -> Bool
  ) throws -> Result {
    let load = load
    let flag = StopFlag()
    let tally = Tally()
    let receiver = LabThread(name: "sink") {
      let end = try PathEnd(sink())
      while !flag.isRaised { end.receive(tally) }
    }
    let sender = LabThread(name: "source") {
      let end = try PathEnd(source())
      let limit = monotonicSeconds() + 5
      while !isReady(end), monotonicSeconds() < limit { end.turn(waiting: 1_000_000) }
      while !flag.isRaised { end.send(load, to: path, spis: spis) }
    }
    defer {
      flag.raise()
      _ = try? sender.join()
      _ = try? receiver.join()
    }
    let limit = monotonicSeconds() + 8
    while tally.packets.load(ordering: .relaxed) == 0 {
      if monotonicSeconds() > limit { throw LabError("nothing came through the forwarder") }
      pause(seconds: 0.01)
    }
    pause(seconds: HairpinRun.warmUp)
    let before = (monotonicSeconds(), tally.now, try HairpinRun.processorSeconds(name))
    pause(seconds: seconds)
    let after = (monotonicSeconds(), tally.now, try HairpinRun.processorSeconds(name))
    return Result(
      packets: after.1.packets - before.1.packets, bytes: after.1.bytes - before.1.bytes, seconds: after.0 - before.0,
      processor: after.2 - before.2)
  }

  private static var residentBytes: Double {
    let words = ProcFile.read("/proc/self/statm")?.split(separator: " ") ?? []
    return (words.count > 1 ? Double(words[1]) ?? 0 : 0) * 4096
  }

  /// Processor time of this process's thread of that name.
  private static func processorSeconds(_ name: String) throws -> Double {
    for task in (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/task")) ?? [] {
      guard ProcFile.read("/proc/self/task/\(task)/comm")?.split(separator: "\n").first.map(String.init) == name,
        let words = ProcFile.read("/proc/self/task/\(task)/schedstat")?.split(separator: " "),
        let nanoseconds = words.first.flatMap({ Double($0) })
      else { continue }
      return nanoseconds / 1e9
    }
    throw LabError("the forwarder has ended")
  }
}

/// Tells threads to end.
final class StopFlag: Sendable {
  private let value = Atomic<Bool>(false)
  var isRaised: Bool { value.load(ordering: .relaxed) }
  func raise() { value.store(true, ordering: .relaxed) }
}

/// What arrived.
final class Tally: Sendable {
  let packets = Atomic<UInt64>(0)
  let bytes = Atomic<UInt64>(0)
  var now: (packets: UInt64, bytes: UInt64) { (packets.load(ordering: .relaxed), bytes.load(ordering: .relaxed)) }
}

/// One end of a path: a transport's link on a ring of its own.
final class PathEnd {
  private var io: WorkerIO
  private let link: any TransportLink
  private var batch = PacketBatch(capacity: 256)
  /// Nobody takes any.
  private var messages = PacketBatch(capacity: 0)
  private var outgoing = PacketBatch(capacity: 64)
  private var confirmed: Set<Path> = []
  /// Buffers that are not for sending.
  private var reserve: Int?
  /// Whose turn it is among several SPIs.
  private var next = 0
  /// A little less than `TCPTransport.Limits.queuedTrains`.
  private static let streamQueue = 28

  init(_ transport: any Transport) throws {
    let ring = try Ring(entries: 256)
    var io = WorkerIO(ring: ring, pool: BufferPool(count: 384), now: .current())
    io.ring.activate()
    link = try transport.open(worker: 0, index: 0, io: &io)
    self.io = io
  }

  deinit { link.close(io: &io) }

  func counter(_ name: String) -> UInt64 { link.counters().first { $0.name == name }?.value ?? 0 }

  func turn(waiting: UInt64) {
    io.ring.submitAndWait(nanoseconds: waiting)
    io.now = .current()
    while let completion = io.ring.nextCompletion() {
      link.complete(completion, io: &io, received: &batch, messages: &messages)
    }
    link.endTurn(io: &io)
    _ = io.takeEvents()
  }

  /// A turn that counts what came.
  func receive(_ tally: Tally) {
    turn(waiting: 5_000_000)
    var (packets, bytes) = (UInt64(0), UInt64(0))
    for index in 0..<batch.count {
      let train = batch[index]
      packets += UInt64(train.datagrams)
      bytes += UInt64(train.length)
      if confirmed.count < 4, confirmed.insert(train.path).inserted { link.confirm(train.path, as: .peer(1), io: &io) }
      io.pool.release(train.buffer)
    }
    batch.removeAll()
    if packets > 0 {
      tally.packets.add(packets, ordering: .relaxed)
      tally.bytes.add(bytes, ordering: .relaxed)
    }
  }

  /// A turn that sends as much as there are buffers for; to a stream as much as its queue takes, because trains that it
  /// drops would only keep a processor from forwarder and sink.
  func send(_ load: HairpinLoad, to path: Path, spis: Int = 0) {
    let reserve = reserve ?? (load.paths.source == .tcp ? max(io.pool.available - PathEnd.streamQueue, 64) : 64)
    self.reserve = reserve
    while io.pool.available > reserve, !outgoing.isFull, let buffer = io.pool.take() {
      let bytes = io.pool.bytes(buffer)
      let spi: UInt32 = spis > 0 ? RelayCrowd.spi(next % spis) : 0x1001
      next &+= 1
      for packet in 0..<load.train { bytes.store32(spi, BufferPool.headroom + packet * load.size) }
      outgoing.append(
        Superpacket(
          buffer: buffer, offset: BufferPool.headroom, length: load.train * load.size, segmentSize: load.size,
          path: path))
    }
    if !outgoing.isEmpty { link.send(&outgoing, io: &io) }
    turn(waiting: io.pool.available > reserve ? 0 : 1_000_000)
    for index in 0..<batch.count { io.pool.release(batch[index].buffer) }
    batch.removeAll()
  }
}

extension HairpinRun {
  /// The figures of one run, in a network namespace of its own.
  func measureApart(seconds: Double) throws -> Result {
    let namespace = try Namespace("proxy")
    defer { namespace.remove() }
    let (result, proxy) = try namespace.inside { try measure(seconds: seconds) }
    if let proxy {
      let end = DispatchSemaphore(value: 0)
      Task {
        await proxy.stop()
        end.signal()
      }
      end.wait()
    }
    return result
  }
}

extension HairpinRun.Result {
  /// Adds what a load came to by one forwarder: in a second, and for a second of processor time.
  func add(_ load: HairpinLoad, by name: String, to report: inout Report) {
    let subject = Report.Entry(name: name, isBound: false, note: nil)
    let isSmall = load.size < 1000
    let amount = isSmall ? Double(packets) / 1e6 : Double(bytes) * 8 / 1e9
    let unit = isSmall ? "Mpacket" : "Gbit"
    for (id, title, divisor) in [
      ("wall", "Arrived a second", seconds),
      ("cpu", "Arrived for a second of the forwarder's processor time", processor),
    ] where divisor > 0 {
      let metric = Report.Metric(
        id: "\(load.id)-\(id)", title: "\(title), \(unit)", unit: unit, higherIsBetter: true, column: load.title)
      report.add(amount / divisor, metric, of: subject)
    }
  }
}
