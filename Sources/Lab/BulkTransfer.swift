import Glibc
import Synchronization

/// TCP streams from one namespace to another: how fast, how evenly, and whether every byte arrives.
///
/// Plain blocking sockets and one thread a stream and end, so that what limits is the path and not the generator.
public struct BulkTransfer: Sendable {
  public enum Amount: Sendable, Equatable {
    /// Sends until so many seconds of the measured window are over.
    case seconds(Double)
    /// Sends so many bytes in all, evenly over the streams.
    case bytes(UInt64)
  }

  public struct Progress: Sendable {
    /// Received in all.
    public var bytes: UInt64
    /// Since the streams began.
    public var seconds: Double
    /// Bits per second since the last report.
    public var rate: Double
  }

  public struct Result: Sendable, Equatable {
    /// Received within the measured window.
    public var bytes: UInt64
    /// Length of the measured window: without the warm-up, or from the first byte to the last.
    public var seconds: Double
    /// Bits per second of each whole second of the window.
    public var samples: [Double]
    /// Segments sent again, over all streams, since they connected.
    public var retransmits: Int
    /// With `verifies`: one pair a stream, computed at the two ends.
    public var digests: [Digests]
    public struct Digests: Sendable, Equatable {
      public var sent: UInt64
      public var received: UInt64
    }
    public var bitsPerSecond: Double { seconds > 0 ? Double(bytes) * 8 / seconds : 0 }
    /// Whether all that was sent arrived unaltered; false when nothing was verified.
    public var isIntact: Bool { !digests.isEmpty && digests.allSatisfy { $0.sent == $0.received } }
  }

  public var from: Namespace
  public var to: Namespace
  /// The receiver's.
  public var address: String
  /// What the receiver calls the address, where that is something else: there is translation between the two.
  public var addressThere: String?
  public var streams = 1
  public var amount: Amount
  /// Seconds at the beginning that do not count, with `Amount.seconds`.
  public var warmUp = 0.3
  /// Whether both ends digest what passes; costs a little processor time.
  public var verifies = false
  /// Of the bytes that are sent.
  public var seed: UInt64 = 1
  /// Named here because the system's default may be one that measures the path instead of filling it.
  public var congestionControl = "cubic"
  /// Seconds without a single byte after which the transfer fails.
  public var patience = 10.0
  /// Seconds after which a transfer of `Amount.bytes` fails, however steadily it creeps.
  public var timeLimit = Double.infinity
  /// Asked all the time: whether a transfer of `Amount.seconds` is to end before its time.
  public var isOver: @Sendable () -> Bool = { false }
  /// Seconds between reports of progress.
  public var reportInterval = 0.5

  public init(from: Namespace, to: Namespace, address: String, amount: Amount) {
    self.from = from
    self.to = to
    self.address = address
    self.amount = amount
  }

  /// Runs the transfer to its end.
  /// - Parameters:
  ///   - window: called when the measured window opens (true) and when it closes (false), for other meters.
  ///   - progress: called every `reportInterval` seconds, on the caller's thread.
  public func run(window: (Bool) -> Void = { _ in }, progress: (Progress) -> Void = { _ in }) throws -> Result {
    let listener = try to.inside { () throws -> Socket in
      let endpoint = try Endpoint(addressThere ?? address, port: 0)
      let listener = try Socket(.stream, isV6: endpoint.isV6)
      try listener.bind(endpoint)
      try listener.listen()
      try listener.setTimeout(patience)
      return listener
    }
    let streams = try (0..<streams).map { try Stream(self, number: $0, listener) }
    let begin = monotonicSeconds()
    for stream in streams { stream.start() }
    defer { for stream in streams { stream.abort() } }

    var meter = Meter(begin: begin, streams)
    switch amount {
    case .seconds(let seconds):
      try meter.watch(until: begin + warmUp, every: reportInterval, progress)
      window(true)
      let opened = meter.snapshot()
      try meter.watch(until: opened.time + seconds, every: reportInterval, isOver: isOver, progress)
      let closed = meter.snapshot()
      window(false)
      for stream in streams { stream.stop() }
      let ends = try streams.map { try $0.finish(patience) }
      return Result(
        bytes: closed.bytes - opened.bytes, seconds: closed.time - opened.time,
        samples: meter.wholeSeconds(from: opened.time, to: closed.time),
        retransmits: ends.reduce(0) { $0 + $1.retransmits }, digests: ends.compactMap(\.digests))
    case .bytes:
      window(true)
      try meter.watch(until: begin + timeLimit, every: reportInterval, progress)
      guard streams.allSatisfy(\.isFinished) else {
        throw LabError("only \(meter.snapshot().bytes) bytes arrived within \(timeLimit) s")
      }
      window(false)
      let ends = try streams.map { try $0.finish(patience) }
      let end = ends.map(\.ended).max() ?? begin
      return Result(
        bytes: ends.reduce(0) { $0 + $1.bytes }, seconds: end - begin,
        samples: meter.wholeSeconds(from: begin, to: end),
        retransmits: ends.reduce(0) { $0 + $1.retransmits }, digests: ends.compactMap(\.digests))
    }
  }
}

/// The caller's view of the streams while they run.
private struct Meter {
  let begin: Double
  let streams: [Stream]
  private var history: [(time: Double, bytes: UInt64)]

  init(begin: Double, _ streams: [Stream]) {
    self.begin = begin
    self.streams = streams
    history = [(begin, 0)]
  }

  func snapshot() -> (time: Double, bytes: UInt64) {
    (monotonicSeconds(), streams.reduce(0) { $0 + $1.received.load(ordering: .relaxed) })
  }

  /// Samples until `end` or until all streams have ended, whichever is first.
  mutating func watch(
    until end: Double, every interval: Double, isOver: () -> Bool = { false },
    _ progress: (BulkTransfer.Progress) -> Void
  ) throws {
    var reported = snapshot()
    var stirred = (time: reported.time, bytes: reported.bytes)
    while true {
      let now = snapshot()
      history.append(now)
      if now.bytes != stirred.bytes { stirred = now }
      if now.time - reported.time >= interval {
        let rate = Double(now.bytes - reported.bytes) * 8 / (now.time - reported.time)
        progress(BulkTransfer.Progress(bytes: now.bytes, seconds: now.time - begin, rate: rate))
        reported = now
      }
      if now.time >= end || isOver() || streams.allSatisfy(\.isFinished) { return }
      if let failure = streams.lazy.compactMap(\.failure).first { throw failure }
      if now.time - stirred.time > (streams.first?.patience ?? 10) {
        throw LabError("the transfer stalled after \(now.bytes) bytes")
      }
      pause(until: min(now.time + 0.02, end))
    }
  }

  /// Bits per second of each whole second, interpolated between samples.
  func wholeSeconds(from start: Double, to end: Double) -> [Double] {
    var rates: [Double] = []
    var second = start
    while second + 1 <= end + 0.001 {
      rates.append((bytes(at: second + 1) - bytes(at: second)) * 8)
      second += 1
    }
    return rates
  }

  private func bytes(at time: Double) -> Double {
    guard let after = history.firstIndex(where: { $0.time >= time }) else {
      return Double(history[history.count - 1].bytes)
    }
    if after == 0 { return Double(history[0].bytes) }
    let (a, b) = (history[after - 1], history[after])
    return Double(a.bytes) + Double(b.bytes - a.bytes) * (time - a.time) / (b.time - a.time)
  }
}

/// One connection: its two threads and what they found.
private final class Stream: Sendable {
  struct End {
    var bytes: UInt64
    var ended: Double
    var retransmits: Int
    var digests: BulkTransfer.Result.Digests?
  }
  private struct Threads {
    var sender: LabThread<(digest: UInt64, retransmits: Int)>?
    var receiver: LabThread<(digest: UInt64, ended: Double)>?
  }

  static let writeSize = 128 * 1024
  let received = Atomic<UInt64>(0)
  var patience: Double { transfer.patience }
  private let shallStop = Atomic<Bool>(false)
  private let transfer: BulkTransfer
  private let number: Int
  private let quota: UInt64?
  private let outgoing: Socket
  private let incoming: Socket
  private let threads = Mutex(Threads())

  init(_ transfer: BulkTransfer, number: Int, _ listener: Socket) throws {
    self.transfer = transfer
    self.number = number
    if case .bytes(let total) = transfer.amount {
      let share = total / UInt64(transfer.streams)
      quota = number == 0 ? total - share * UInt64(transfer.streams - 1) : share
    } else {
      quota = nil
    }
    let endpoint = try Endpoint(transfer.address, port: listener.port)
    outgoing = try transfer.from.inside { () throws -> Socket in
      let socket = try Socket(.stream, isV6: endpoint.isV6)
      try socket.setCongestionControl(transfer.congestionControl)
      try socket.setTimeout(transfer.patience)
      do { try socket.connect(endpoint) } catch {
        throw LabError("\(error) (from \(transfer.from.label) to \(transfer.address))")
      }
      return socket
    }
    incoming = try listener.accept()
    try incoming.setTimeout(transfer.patience)
  }

  func start() {
    threads.withLock {
      $0.receiver = LabThread(name: "receive \(number)") { [self] in try receive() }
      $0.sender = LabThread(name: "send \(number)") { [self] in try send() }
    }
  }

  /// The sender finishes the write it is in, then ends the stream.
  func stop() { shallStop.store(true, ordering: .relaxed) }

  /// Ends both threads wherever they are.
  func abort() {
    stop()
    outgoing.abort()
    incoming.abort()
  }

  var isFinished: Bool { threads.withLock { $0.receiver?.finished != nil } }

  var failure: (any Error)? {
    threads.withLock {
      if case .failure(let error) = $0.receiver?.finished { return error }
      if case .failure(let error) = $0.sender?.finished { return error }
      return nil
    }
  }

  func finish(_ patience: Double) throws -> End {
    guard case (let sender?, let receiver?) = threads.withLock({ ($0.sender, $0.receiver) }) else {
      throw LabError("the stream was not started")
    }
    let sent = try sender.join()
    let got = try receiver.join()
    return End(
      bytes: received.load(ordering: .relaxed), ended: got.ended, retransmits: sent.retransmits,
      digests: transfer.verifies ? .init(sent: sent.digest, received: got.digest) : nil)
  }

  private func send() throws -> (digest: UInt64, retransmits: Int) {
    // Not a multiple of the write size nor of any segment, so that a piece in the wrong place is a wrong piece.
    let pattern = Pattern(seed: transfer.seed &+ UInt64(number) << 32, count: 1_000_003 + Stream.writeSize)
    var digest = StreamDigest()
    var sent: UInt64 = 0
    while !shallStop.load(ordering: .relaxed), sent < quota ?? .max {
      let offset = Int(sent % 1_000_003)
      let count = Int(min(UInt64(Stream.writeSize), (quota ?? .max) - sent))
      let n = outgoing.send(pattern.buffer, offset, count)
      if n < 0 {
        if n == -Int(EINTR) { continue }
        throw n == -Int(EAGAIN)
          ? LabError("the transfer stalled after \(sent) bytes") : LabError.system("send", Int32(-n))
      }
      if transfer.verifies { digest.update(pattern.buffer, offset, n) }
      sent += UInt64(n)
    }
    let retransmits = outgoing.retransmits
    outgoing.endSending()
    return (digest.value, retransmits)
  }

  private func receive() throws -> (digest: UInt64, ended: Double) {
    let buffer = LabBuffer(count: Stream.writeSize)
    var digest = StreamDigest()
    while true {
      let n = incoming.receive(buffer)
      if n == 0 { return (digest.value, monotonicSeconds()) }
      if n < 0 {
        if n == -Int(EINTR) { continue }
        if n == -Int(EAGAIN) {
          throw LabError("the transfer stalled after \(received.load(ordering: .relaxed)) bytes")
        }
        throw LabError.system("receive", Int32(-n))
      }
      if transfer.verifies { digest.update(buffer, 0, n) }
      received.add(UInt64(n), ordering: .relaxed)
    }
  }
}

/// Reproducible bytes to send. The end repeats the beginning, so that a write may start anywhere before.
private struct Pattern {
  let buffer: LabBuffer

  init(seed: UInt64, count: Int) {
    buffer = LabBuffer(count: (count + 7) / 8 * 8)
    var random = SplitMix64(seed: seed)
    let period = count - Stream.writeSize
    for offset in stride(from: 0, to: buffer.count, by: 8) { buffer.store64(random.next(), offset) }
    buffer.store(buffer.bytes(0, buffer.count - period), period)
  }
}
