import Glibc
import Synchronization

/// Round trips on an idle path: one small packet at a time.
public struct Echo: Sendable {
  public enum Kind: Sendable { case icmp, udp }

  public struct Result: Sendable, Equatable {
    public var sent: Int
    /// Round-trip times in seconds, in the order they were measured.
    public var times: [Double]
    public var lost: Int { sent - times.count }
  }

  public var from: Namespace
  public var to: Namespace
  /// The echoing side's.
  public var address: String
  /// ICMP is answered by the kernel, UDP by a thread of ours, which adds a wake-up.
  public var kind = Kind.icmp
  public var count = 200
  /// Seconds between requests, or less time when an answer takes longer.
  public var interval = 0.005
  /// Payload bytes, 16 at least.
  public var size = 56
  /// Stands at the end of every request, as far as it fits.
  public var text = ""
  /// Seconds to wait for an answer.
  public var patience = 1.0

  public init(from: Namespace, to: Namespace, address: String) {
    self.from = from
    self.to = to
    self.address = address
  }

  public func run() throws -> Result {
    precondition(size >= 16)
    var port: UInt16 = 0
    var server: Socket? = nil
    if kind == .udp {
      let socket = try to.inside { () throws -> Socket in
        let socket = try Socket(.datagram, isV6: address.contains(":"))
        try socket.bind(Endpoint(address, port: 0))
        try socket.setTimeout(0.2)
        return socket
      }
      port = socket.port
      server = socket
    }
    let over = Shared(Atomic(false))
    let answering = server.map { socket in LabThread(name: "echo") { try answer(on: socket, over) } }
    defer { over.value.store(true, ordering: .releasing) }
    let destination = port
    let result = try LabThread(in: from, name: "ping") { try ask(port: destination) }.join()
    over.value.store(true, ordering: .releasing)
    try answering?.join()
    return result
  }

  private func ask(port: UInt16) throws -> Result {
    let endpoint = try Endpoint(address, port: port)
    let socket = try Socket(kind == .icmp ? .echo : .datagram, isV6: endpoint.isV6)
    try socket.connect(endpoint)
    try socket.setTimeout(patience)
    let header = kind == .icmp ? 8 : 0
    let request = LabBuffer(count: header + size)
    let answer = LabBuffer(count: header + size + 64)
    // ICMP echo request (RFC 792, RFC 4443): the kernel fills in checksum and identifier.
    request.store(Array(text.utf8.prefix(size - 8)), header + 8)
    if kind == .icmp { request.store([endpoint.isV6 ? 128 : 8, 0]) }
    var result = Result(sent: 0, times: [])
    var next = monotonicSeconds()
    for number in 0..<count {
      pause(until: next)
      request.store64(UInt64(number), header)
      let start = monotonicSeconds()
      next = start + interval
      var n = socket.send(request, 0, request.count)
      if n < 0 { throw LabError.system("send an echo request to \(address)", Int32(-n)) }
      result.sent += 1
      repeat {
        n = socket.receive(answer)
        if n < 0, n != -Int(EAGAIN), n != -Int(EINTR) {
          throw LabError.system("wait for an echo from \(address)", Int32(-n))
        }
        // Not the answer to an earlier request that came after its time.
      } while n > 0 && (n < header + 8 || answer.load64(header) != UInt64(number))
      if n > 0 { result.times.append(monotonicSeconds() - start) }
    }
    return result
  }

  private func answer(on socket: Socket, _ over: Shared<Atomic<Bool>>) throws {
    let buffer = LabBuffer(count: 65536)
    while !over.value.load(ordering: .acquiring) { socket.returnDatagram(buffer) }
  }
}
