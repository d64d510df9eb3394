import CLinux
import Glibc
import PacketIO

/// A TCP socket: one that listens, or the options of a stream.
struct TCPSocket {
  let descriptor: Int32

  /// A stream whose bytes stay unacknowledged for so long is dead (RFC 5482), in milliseconds.
  static let userTimeout: Int32 = 20_000
  /// Seconds without traffic before the other end is asked, and between two questions.
  static let keepAliveIdle: Int32 = 15
  static let keepAliveInterval: Int32 = 5
  private static let backlog: Int32 = 1024

  /// Listens at an address.
  init(listeningAt endpoint: Endpoint) throws(SystemError) {
    descriptor = try KernelSocket.tcp.open(for: endpoint)
    set(SOL_SOCKET, SO_REUSEADDR, 1)
    try KernelSocket.tcp.bind(descriptor, to: endpoint, backlog: TCPSocket.backlog)
  }

  /// A socket that can be connected to an address of the same family; nil with `errno` set when there is none.
  init?(dialling address: IPAddress) {
    // Not non-blocking: the ring waits itself, and only for sockets that block.
    descriptor = KernelSocket.tcp.open(address)
    guard descriptor >= 0 else { return nil }
    prepareStream()
  }

  /// A stream that was accepted.
  init(accepted descriptor: Int32) {
    self.descriptor = descriptor
    prepareStream()
  }

  /// Nothing waits for company, and a dead end is noticed.
  private func prepareStream() {
    let tcp = Int32(IPPROTO_TCP)
    set(tcp, TCP_NODELAY, 1)
    set(tcp, TCP_USER_TIMEOUT, TCPSocket.userTimeout)
    set(SOL_SOCKET, SO_KEEPALIVE, 1)
    set(tcp, TCP_KEEPIDLE, TCPSocket.keepAliveIdle)
    set(tcp, TCP_KEEPINTVL, TCPSocket.keepAliveInterval)
  }

  /// The other end of a stream; nil when it is gone already.
  static func remote(_ descriptor: Int32) -> Endpoint? {
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    return unsafe withUnsafeMutableBytes(of: &storage) { raw -> Endpoint? in
      guard let base = raw.baseAddress,
        unsafe getpeername(descriptor, base.assumingMemoryBound(to: sockaddr.self), &length) == 0
      else { return nil }
      return unsafe SocketName.endpoint(PacketBytes(base, count: min(Int(length), raw.count)))
    }
  }

  /// Receives what is there, without waiting; bytes, 0 at the end, or a negated errno.
  static func receive(_ descriptor: Int32, into bytes: PacketBytes) -> Int {
    let count = unsafe recv(descriptor, bytes.pointer, bytes.count, Int32(MSG_DONTWAIT))
    return count >= 0 ? count : -Int(errno)
  }

  /// Ends both directions: whatever waits for the stream completes.
  static func shutDown(_ descriptor: Int32) { Glibc.shutdown(descriptor, Int32(SHUT_RDWR)) }

  /// Has the kernel forget the stream at once when it is closed, with a reset.
  static func resetOnClose(_ descriptor: Int32) {
    var option = linger(l_onoff: 1, l_linger: 0)
    _ = unsafe setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
  }

  private func set(_ level: Int32, _ option: Int32, _ value: Int32) {
    KernelSocket.set(descriptor, level, option, value)
  }

  /// Closes with a reset.
  func abort() {
    TCPSocket.resetOnClose(descriptor)
    close()
  }

  func close() { Glibc.close(descriptor) }
}
