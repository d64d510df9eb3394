import CLinux
import Glibc
import Synchronization

/// UDP datagrams from one namespace to another at a given rate, numbered, so that every loss is seen.
public struct DatagramFlood: Sendable {
  public struct Result: Sendable, Equatable {
    public var sent: UInt64
    /// Distinct datagrams that arrived.
    public var received: UInt64
    public var duplicates: UInt64
    /// Arrived after a later one.
    public var late: UInt64
    /// While sending.
    public var seconds: Double
    /// Share of the sent ones that did not arrive, 0 to 1.
    public var loss: Double { sent == 0 ? 0 : Double(sent - min(sent, received)) / Double(sent) }
    /// Datagrams a second.
    public var sentRate: Double { seconds > 0 ? Double(sent) / seconds : 0 }
    public var receivedRate: Double { seconds > 0 ? Double(received) / seconds : 0 }
  }

  public var from: Namespace
  public var to: Namespace
  /// The receiver's.
  public var address: String
  /// What the receiver calls the address, where that is something else: there is translation between the two.
  public var addressThere: String?
  /// UDP payload bytes of each datagram, 24 to 65507.
  public var size: Int
  /// Datagrams a second; nil: as many as the sender can.
  public var rate: Double?
  public var seconds = 0.5
  /// More than 1: so many datagrams go to the kernel as one (UDP_SEGMENT), as modern QUIC senders do.
  public var segmentsPerSend = 1
  /// Bytes of the receiver's queue.
  public var receiveBuffer = 4 << 20

  public init(from: Namespace, to: Namespace, address: String, size: Int, rate: Double? = nil) {
    self.from = from
    self.to = to
    self.address = address
    self.size = size
    self.rate = rate
  }

  /// What a datagram begins with: which flood it belongs to, then its number.
  private static let numberOffset = 8
  private static let batch = 64
  /// Seconds without a packet after which none is expected any more.
  private static let silence = 0.1
  /// Seconds; the queue holds far more than arrives in so short a time.
  private static let receiverNap = 100e-6

  public func run() throws -> Result {
    precondition((24...65507).contains(size) && segmentsPerSend >= 1 && size * segmentsPerSend <= 65000)
    let flood = UInt64(getpid()) << 32 | UInt64(Counter.next())
    let receiver = try to.inside { () throws -> Socket in
      let socket = try Socket(.datagram, isV6: address.contains(":"))
      try socket.setReceiveBuffer(receiveBuffer)
      try socket.bind(try Endpoint(addressThere ?? address, port: 0))
      return socket
    }
    let sender = try from.inside { () throws -> Socket in
      let endpoint = try Endpoint(address, port: receiver.port)
      let socket = try Socket(.datagram, isV6: endpoint.isV6)
      try socket.connect(endpoint)
      if segmentsPerSend > 1 {
        try socket.set(Int(SOL_UDP), Int32(CULVERT_UDP_SEGMENT), Int32(size), "UDP_SEGMENT")
      }
      return socket
    }
    let over = Shared(Atomic(false))
    let capacity = Int(rate.map { $0 * seconds * 1.1 } ?? seconds * 20e6) + 1024
    let receiving = LabThread(name: "flood in") { () -> SequenceTally in
      let batch = DatagramBatch(capacity: DatagramFlood.batch, size: size)
      var tally = SequenceTally(capacity: capacity)
      var lastHeard = monotonicSeconds()
      culvert_set_timer_slack(1000)
      while true {
        let n = batch.receive(on: receiver)
        if n <= 0 {
          let now = monotonicSeconds()
          // Silence after the sender's end: nothing is on its way any more.
          if over.value.load(ordering: .acquiring), now > lastHeard + DatagramFlood.silence { return tally }
          // To wake a receiver for each packet would cost more than to carry it.
          pause(until: now + DatagramFlood.receiverNap)
          continue
        }
        lastHeard = monotonicSeconds()
        for i in 0..<n where batch.size(i) == size {
          let offset = i * batch.stride
          if batch.buffer.load64(offset) == flood {
            tally.take(batch.buffer.load64(offset + DatagramFlood.numberOffset))
          }
        }
      }
    }
    let sending = LabThread(name: "flood out") { try send(on: sender, flood) }
    defer { over.value.store(true, ordering: .releasing) }
    let (sent, elapsed) = try sending.join()
    over.value.store(true, ordering: .releasing)
    let tally = try receiving.join()
    return Result(
      sent: sent, received: tally.received, duplicates: tally.duplicates, late: tally.late, seconds: elapsed)
  }

  private func send(on socket: Socket, _ flood: UInt64) throws -> (UInt64, Double) {
    culvert_set_timer_slack(1000)
    let datagrams = segmentsPerSend > 1 ? segmentsPerSend : DatagramFlood.batch
    let batch = DatagramBatch(
      capacity: segmentsPerSend > 1 ? 1 : datagrams, size: segmentsPerSend > 1 ? size * segmentsPerSend : size)
    let stride = segmentsPerSend > 1 ? size : batch.stride
    for i in 0..<datagrams { batch.buffer.store64(flood, i * stride) }
    // Bursts of about 100 µs worth of datagrams: shorter naps are not kept anyway.
    let burst = rate.map { max(1, min(datagrams, Int($0 * 100e-6))) } ?? datagrams
    var sent: UInt64 = 0
    let begin = monotonicSeconds()
    while true {
      let now = monotonicSeconds()
      if now >= begin + seconds { return (sent, now - begin) }
      var due = datagrams
      if let rate {
        due = min(datagrams, Int((now - begin) * rate) + 1 - Int(sent))
        if segmentsPerSend > 1, due < datagrams { due = 0 }
        if due < burst {
          pause(until: min(begin + Double(Int(sent) + burst) / rate, begin + seconds))
          if due <= 0 || segmentsPerSend > 1 { continue }
        }
      }
      for i in 0..<due { batch.buffer.store64(sent + UInt64(i), i * stride + DatagramFlood.numberOffset) }
      let n = batch.send(on: socket, segmentsPerSend > 1 ? 1 : due)
      if n > 0 {
        sent += UInt64(segmentsPerSend > 1 ? segmentsPerSend : n)
      } else if n != -Int(ENOBUFS), n != -Int(EAGAIN), n != -Int(EINTR), n != -Int(ECONNREFUSED) {
        throw LabError.system("send datagrams of \(size) bytes", Int32(-n))
      }
    }
  }
}
