import CLinux
import Glibc

/// A TCP socket: one that listens, or the options of a stream.
package struct TCPSocket {
  package let descriptor: Int32

  /// A stream whose bytes stay unacknowledged for so long is dead (RFC 5482), in milliseconds.
  static let userTimeout: Int32 = 20_000
  /// Seconds without traffic before the other end is asked, and between two questions.
  static let keepAliveIdle: Int32 = 15
  static let keepAliveInterval: Int32 = 5
  /// Streams that may wait to be accepted: a flood of them shall not keep others waiting for a second SYN.
  private static let backlog: Int32 = 1024

  /// Listens at an address that an operator has configured.
  package init(listeningAt endpoint: Endpoint) throws(SystemError) {
    descriptor = try KernelSocket.tcp.patiently(endpoint) { TCPSocket.listen(endpoint) }
  }

  /// A socket that can be connected to an address of the same family; nil with `errno` set when there is none.
  package init?(dialling address: IPAddress) {
    // Not non-blocking: the ring waits itself, and only for sockets that block.
    descriptor = KernelSocket.tcp.open(address)
    guard descriptor >= 0 else { return nil }
    TCPSocket.prepareStream(descriptor)
  }

  /// A stream that was accepted.
  package init(accepted descriptor: Int32) {
    self.descriptor = descriptor
    TCPSocket.prepareStream(descriptor)
  }

  /// A socket that listens.
  /// - Parameter waits: whether the ring shall wait for it: it does so only for sockets that block.
  /// - Returns: the descriptor, or a negated errno.
  package static func listen(_ endpoint: Endpoint, waits: Bool = true) -> Int32 {
    let descriptor = KernelSocket.tcp.open(endpoint.address, flags: waits ? 0 : Int32(SOCK_NONBLOCK.rawValue))
    guard descriptor >= 0 else { return -errno }
    KernelSocket.set(descriptor, SOL_SOCKET, SO_REUSEADDR, 1)
    return KernelSocket.tcp.bind(descriptor, to: endpoint, backlog: backlog)
  }

  /// Accepts one stream of a listener that does not wait: its descriptor, or a negated errno.
  package static func accept(_ listener: Int32) -> Int32 {
    let descriptor = culvert_accept_cloexec(listener)
    return descriptor >= 0 ? descriptor : -errno
  }

  /// Nothing waits for company, and a dead end is noticed.
  ///
  /// - Parameter waits: whether the ring waits for it; a splice then waits too.
  package static func prepareStream(_ descriptor: Int32, waits: Bool = true) {
    if !waits { _ = fcntl(descriptor, F_SETFL, O_NONBLOCK) }
    let tcp = Int32(IPPROTO_TCP)
    KernelSocket.set(descriptor, tcp, TCP_NODELAY, 1)
    KernelSocket.set(descriptor, tcp, TCP_USER_TIMEOUT, TCPSocket.userTimeout)
    KernelSocket.set(descriptor, SOL_SOCKET, SO_KEEPALIVE, 1)
    KernelSocket.set(descriptor, tcp, TCP_KEEPIDLE, TCPSocket.keepAliveIdle)
    KernelSocket.set(descriptor, tcp, TCP_KEEPINTVL, TCPSocket.keepAliveInterval)
  }

  /// The other end of a stream; nil when it is gone already.
  package static func remote(_ descriptor: Int32) -> Endpoint? { unsafe endpoint(descriptor, getpeername) }

  /// This end of it.
  package static func local(_ descriptor: Int32) -> Endpoint? { unsafe endpoint(descriptor, getsockname) }

  private static func endpoint(
    _ descriptor: Int32, _ name: (Int32, UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Int32
  ) -> Endpoint? {
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    return unsafe withUnsafeMutableBytes(of: &storage) { raw -> Endpoint? in
      guard let base = raw.baseAddress,
        unsafe name(descriptor, base.assumingMemoryBound(to: sockaddr.self), &length) == 0
      else { return nil }
      return unsafe SocketName.endpoint(PacketBytes(base, count: min(Int(length), raw.count)))
    }
  }

  /// Receives what is there, without waiting; bytes, 0 at the end, or a negated errno.
  package static func receive(_ descriptor: Int32, into bytes: PacketBytes) -> Int {
    let count = unsafe recv(descriptor, bytes.pointer, bytes.count, Int32(MSG_DONTWAIT))
    return count >= 0 ? count : -Int(errno)
  }

  /// Sends what the kernel takes now: bytes, 0 when it takes none, or negative when the stream is gone.
  package static func send(_ descriptor: Int32, _ bytes: PacketBytes) -> Int {
    let sent = unsafe Glibc.send(descriptor, bytes.pointer, bytes.count, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
    return sent >= 0 ? sent : (errno == EAGAIN || errno == EINTR ? 0 : -1)
  }

  /// The same, of the bytes from `start` on.
  package static func send(_ descriptor: Int32, _ bytes: [UInt8], from start: Int = 0) -> Int {
    guard start < bytes.count else { return 0 }
    let sent = unsafe bytes.withUnsafeBytes {
      unsafe Glibc.send(
        descriptor, $0.baseAddress! + start, $0.count - start, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
    }
    return sent >= 0 ? sent : (errno == EAGAIN || errno == EINTR ? 0 : -1)
  }

  /// Ends both directions: whatever waits for the stream completes.
  package static func shutDown(_ descriptor: Int32) { Glibc.shutdown(descriptor, Int32(SHUT_RDWR)) }

  /// Says that nothing more will be sent.
  package static func endWriting(_ descriptor: Int32) { Glibc.shutdown(descriptor, Int32(SHUT_WR)) }

  /// Has the kernel forget the stream at once when it is closed, with a reset.
  package static func resetOnClose(_ descriptor: Int32) {
    var option = linger(l_onoff: 1, l_linger: 0)
    _ = unsafe setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
  }

  /// Closes with a reset.
  package func abort() {
    TCPSocket.resetOnClose(descriptor)
    close()
  }

  package func close() { Glibc.close(descriptor) }
}
