import CLinux
import Glibc
import Synchronization

/// Datagrams of somebody who belongs to nobody, without end: all alike but for some words that are new in each.
public struct StrangerFlood: Sendable {
  public struct Result: Sendable, Equatable {
    public var sent: UInt64 = 0
    public var seconds = 0.0
    /// Datagrams a second.
    public var rate: Double { seconds > 0 ? Double(sent) / seconds : 0 }
  }

  public var from: Namespace
  /// The sender's address and port; nil: its own, and any.
  public var source: (address: String, port: UInt16)?
  public var address: String
  public var port: UInt16
  /// UDP payload of each.
  public var datagram: [UInt8]
  /// Offsets of words of 8 bytes that are random in each.
  public var fresh: [Int] = []
  /// Datagrams a second; nil: as many as the sender can.
  public var rate: Double?

  public init(from: Namespace, to address: String, port: UInt16, _ datagram: [UInt8]) {
    self.from = from
    self.address = address
    self.port = port
    self.datagram = datagram
  }

  private static let batch = 64

  /// One that goes on.
  public final class Running: Sendable {
    private let over = Shared(Atomic(false))
    private let thread: LabThread<Result>

    fileprivate init(_ flood: StrangerFlood) {
      thread = LabThread(name: "stranger") { [over] in try flood.run(until: over) }
    }

    deinit { over.value.store(true, ordering: .releasing) }

    /// Ends it, and tells what was sent.
    public func finish() throws -> Result {
      over.value.store(true, ordering: .releasing)
      return try thread.join()
    }
  }

  /// Sends until that is finished.
  public func start() -> Running { Running(self) }

  private func run(until over: Shared<Atomic<Bool>>) throws -> Result {
    precondition(fresh.allSatisfy { $0 >= 0 && $0 + 8 <= datagram.count })
    let socket = try from.inside { () throws -> Socket in
      let socket = try Socket(.datagram, isV6: address.contains(":"))
      if let source { try socket.bind(Endpoint(source.address, port: source.port)) }
      try socket.connect(Endpoint(address, port: port))
      return socket
    }
    let batch = DatagramBatch(capacity: StrangerFlood.batch, size: datagram.count)
    for place in 0..<batch.capacity { batch.buffer.store(datagram, place * batch.stride) }
    culvert_set_timer_slack(1000)
    var random = SplitMix64(seed: 1)
    var result = Result()
    let begin = monotonicSeconds()
    while !over.value.load(ordering: .acquiring) {
      var due = batch.capacity
      if let rate {
        due = min(due, Int((monotonicSeconds() - begin) * rate) - Int(result.sent))
        // Bursts of some 100 µs: shorter naps are not kept anyway.
        let burst = max(1, min(batch.capacity, Int(rate * 100e-6)))
        if due < burst {
          pause(until: begin + Double(Int(result.sent) + burst) / rate)
          continue
        }
      }
      for place in 0..<due {
        for word in fresh { batch.buffer.store64(random.next(), place * batch.stride + word) }
      }
      let n = batch.send(on: socket, due)
      if n > 0 {
        result.sent += UInt64(n)
      } else if n != -Int(ENOBUFS), n != -Int(EAGAIN), n != -Int(EINTR), n != -Int(ECONNREFUSED) {
        throw LabError.system("send datagrams of \(datagram.count) bytes", Int32(-n))
      }
    }
    result.seconds = monotonicSeconds() - begin
    return result
  }
}

/// A UDP socket that nobody reads: what comes is counted off by the kernel, once its queue is full.
public final class IdleSocket: Sendable {
  public let port: UInt16
  private let socket: Socket

  /// On that address, at any port, in the thread's namespace.
  public init(_ address: String) throws {
    socket = try Socket(.datagram, isV6: address.contains(":"))
    try socket.setReceiveBuffer(4096)
    try socket.bind(Endpoint(address, port: 0))
    port = socket.port
  }
}
