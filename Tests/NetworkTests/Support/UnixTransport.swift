import CLinux
import Glibc
import PacketIO

/// A transport of one's own: Unix datagram sockets, named by files. There is one partner on it.
final class UnixTransport: Transport {
  private let own: String
  private let other: String

  init(own: String, other: String) {
    self.own = own
    self.other = other
  }

  /// Whatever the endpoint says, there is only one partner: a path is the transport's own business.
  ///
  /// - Parameter index: the transport's position among those of the dataplane.
  static func path(_ index: UInt8) -> Path {
    Path(transport: index, endpoint: PacketIO.Endpoint(address: IPAddress(v4: 1), port: 1))
  }

  func open(worker: Int, index: UInt8, io: inout WorkerIO) throws -> any TransportLink {
    let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard UnixTransport.withAddress(own, { bind(descriptor, $0, $1) }) == 0 else {
      throw SystemError("bind \(own)", errno: errno)
    }
    var size: Int32 = 4 << 20
    setsockopt(descriptor, SOL_SOCKET, SO_SNDBUFFORCE, &size, 4)
    return UnixLink(descriptor, other: other, index: index, io: &io)
  }

  static func withAddress<R>(_ file: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> R) -> R {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(file.utf8)) }
    return withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
    }
  }
}

/// What a worker has of it.
private final class UnixLink: TransportLink {
  private let descriptor: Int32
  private let other: String
  private let path: Path
  private let receiver: Receiver
  private var sent: UInt64 = 0
  private var failed: UInt64 = 0
  private var received: UInt64 = 0
  private var dropped: UInt64 = 0

  init(_ descriptor: Int32, other: String, index: UInt8, io: inout WorkerIO) {
    self.descriptor = descriptor
    self.other = other
    path = UnixTransport.path(index)
    // Completions with this owner number come back to this link, and the kernel fills buffers of this group.
    receiver = Receiver(
      descriptor, kind: .stream, group: io.claimBufferGroup(), capacity: 32,
      token: Token(owner: io.claimOwner(), kind: 0), io: &io)
    receiver.rearm(io: &io)
  }

  func send(_ batch: inout PacketBatch, io: inout WorkerIO) {
    for index in 0..<batch.count {
      let bytes = batch[index].bytes(in: io.pool)
      let size = Int(batch[index].segmentSize)
      for start in stride(from: 0, to: bytes.count, by: size) {
        let datagram = bytes.slice(start, min(size, bytes.count - start))
        // The worker's thread must not wait: what finds no room is dropped, and counted.
        let result = UnixTransport.withAddress(other) {
          sendto(descriptor, datagram.pointer, datagram.count, Int32(MSG_DONTWAIT), $0, $1)
        }
        if result >= 0 { sent += 1 } else { failed += 1 }
      }
      io.pool.release(batch[index].buffer)
    }
    batch.removeAll()
  }

  func complete(
    _ completion: Completion, io: inout WorkerIO, received batch: inout PacketBatch, messages: inout PacketBatch
  ) {
    var error: Int32 = 0
    guard let datagram = receiver.accept(completion, io: &io, error: &error) else { return }
    received += 1
    let whole = Superpacket(
      buffer: datagram.buffer, offset: datagram.offset, length: datagram.length, segmentSize: datagram.length,
      path: path)
    let marker = Superpacket.markerLength
    let bytes = whole.bytes(in: io.pool)
    let isTaken: Bool
    if bytes.count > marker, bytes.load32(0) == 0 {
      // What does not begin with an SPI is a message, and passed on without its mark.
      isTaken = messages.tryAppend(
        Superpacket(
          buffer: whole.buffer, offset: datagram.offset + marker, length: datagram.length - marker,
          segmentSize: datagram.length - marker, path: whole.path))
    } else {
      isTaken = batch.tryAppend(whole)
    }
    guard !isTaken else { return }
    dropped += 1
    io.pool.release(datagram.buffer)
  }

  func endTurn(io: inout WorkerIO) { receiver.rearm(io: &io) }

  /// Datagrams of any size get through.
  func overhead(_ path: Path) -> Int? { nil }

  func keepAlive(_ path: Path, io: inout WorkerIO) {}

  func counters() -> [TransportCounter] {
    [
      TransportCounter(name: "sent-datagrams", value: sent),
      TransportCounter(name: "send-error-other", value: failed, loss: .notSent),
      TransportCounter(name: "received-datagrams", value: received),
      TransportCounter(name: "receive-queue-full", value: dropped, loss: .notPassedOn),
    ]
  }

  func close(io: inout WorkerIO) {
    receiver.close(io: &io)
    Glibc.close(descriptor)
  }
}
