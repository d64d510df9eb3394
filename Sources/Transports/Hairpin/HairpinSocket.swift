import CLinux
import Glibc
import PacketIO

/// The proxy's sockets, by descriptor.
enum HairpinSocket {
  /// Bytes that the kernel may queue for a hairpin in each direction; it is also the queue of a hairpin whose
  /// bandwidth is used up.
  static let bufferSize: Int32 = 2 << 20

  /// A bound UDP socket that receives trains. Not non-blocking: the ring waits itself, and only for sockets that block.
  /// - Returns: a negated errno when it cannot be had.
  static func openUDP(_ endpoint: Endpoint) -> Int32 {
    let isV4 = endpoint.address.isV4
    let descriptor = socket(
      isV4 ? AF_INET : AF_INET6, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { return -errno }
    if !isV4 { set(descriptor, Int32(IPPROTO_IPV6), IPV6_V6ONLY, 1) }
    set(descriptor, Int32(CULVERT_SOL_UDP), Int32(CULVERT_UDP_GRO), 1)
    // Sealed packets go out whole and unfragmented: gateways find the path MTU with probes (RFC 8899 §4.6).
    if isV4 {
      set(descriptor, Int32(IPPROTO_IP), IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
      set(descriptor, Int32(IPPROTO_IP), IP_RECVTOS, 1)
    } else {
      set(descriptor, Int32(IPPROTO_IPV6), IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE)
      set(descriptor, Int32(IPPROTO_IPV6), IPV6_RECVTCLASS, 1)
    }
    setBuffers(descriptor)
    return bind(descriptor, endpoint)
  }

  /// Streams that may wait to be accepted: a flood of them shall not keep others waiting for a second SYN.
  private static let backlog: Int32 = 1024

  /// A socket that listens for streams.
  /// - Returns: a negated errno when it cannot be had.
  static func openTCP(_ endpoint: Endpoint) -> Int32 {
    let isV4 = endpoint.address.isV4
    let descriptor = socket(
      isV4 ? AF_INET : AF_INET6, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { return -errno }
    if !isV4 { set(descriptor, Int32(IPPROTO_IPV6), IPV6_V6ONLY, 1) }
    set(descriptor, SOL_SOCKET, SO_REUSEADDR, 1)
    let bound = bind(descriptor, endpoint)
    guard bound >= 0, listen(bound, backlog) != 0 else { return bound }
    let code = errno
    Glibc.close(bound)
    return -code
  }

  /// Nothing waits for company, a dead end is noticed, and splice does not wait.
  static func prepareStream(_ descriptor: Int32) {
    _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
    let tcp = Int32(IPPROTO_TCP)
    set(descriptor, tcp, TCP_NODELAY, 1)
    set(descriptor, tcp, TCP_USER_TIMEOUT, TCPSocket.userTimeout)
    set(descriptor, SOL_SOCKET, SO_KEEPALIVE, 1)
    set(descriptor, tcp, TCP_KEEPIDLE, TCPSocket.keepAliveIdle)
    set(descriptor, tcp, TCP_KEEPINTVL, TCPSocket.keepAliveInterval)
  }

  /// Sends what the kernel takes now: bytes, 0 when it takes none, or negative when the stream is gone.
  static func sendSome(_ descriptor: Int32, _ bytes: PacketBytes) -> Int {
    let sent = unsafe Glibc.send(descriptor, bytes.pointer, bytes.count, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
    return sent >= 0 ? sent : (errno == EAGAIN || errno == EINTR ? 0 : -1)
  }

  static func sendSome(_ descriptor: Int32, _ bytes: [UInt8]) -> Int {
    let sent = unsafe bytes.withUnsafeBytes {
      unsafe Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
    }
    return sent >= 0 ? sent : (errno == EAGAIN || errno == EINTR ? 0 : -1)
  }

  /// Sends all, or says that it cannot.
  static func sendStream(_ descriptor: Int32, _ bytes: [UInt8]) -> Bool {
    sendSome(descriptor, bytes) == bytes.count
  }

  static func setBuffers(_ descriptor: Int32) {
    for (forced, usual) in [(SO_RCVBUFFORCE, SO_RCVBUF), (SO_SNDBUFFORCE, SO_SNDBUF)] {
      if !set(descriptor, SOL_SOCKET, forced, bufferSize) { set(descriptor, SOL_SOCKET, usual, bufferSize) }
    }
  }

  /// Binds, or closes and returns a negated errno.
  static func bind(_ descriptor: Int32, _ endpoint: Endpoint) -> Int32 {
    let name = SocketName(endpoint)
    if unsafe name.withPointer({ unsafe Glibc.bind(descriptor, $0, $1) }) == 0 { return descriptor }
    let code = errno
    Glibc.close(descriptor)
    return -code
  }

  @discardableResult
  static func set(_ descriptor: Int32, _ level: Int32, _ option: Int32, _ value: Int32) -> Bool {
    var value = value
    return unsafe setsockopt(descriptor, level, option, &value, socklen_t(MemoryLayout<Int32>.size)) == 0
  }

  /// Sends one datagram; zero or an errno.
  static func send(_ descriptor: Int32, _ bytes: [UInt8], to name: SocketName) -> Int32 {
    let sent = unsafe name.withPointer { address, length in
      unsafe bytes.withUnsafeBytes {
        unsafe sendto(descriptor, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT), address, length)
      }
    }
    return sent < 0 ? errno : 0
  }

  /// Datagrams that the kernel dropped before they could be read.
  static func kernelDrops(_ descriptor: Int32) -> UInt64 {
    // struct sk_meminfo: nine words, the last of them SK_MEMINFO_DROPS (Linux include/uapi/linux/sock_diag.h).
    var words: (UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32) = (0, 0, 0, 0, 0, 0, 0, 0, 0)
    var length = socklen_t(36)
    let option: Int32 = 55  // SO_MEMINFO
    let status = unsafe getsockopt(descriptor, SOL_SOCKET, option, &words, &length)
    return status == 0 && length == 36 ? UInt64(words.8) : 0
  }

  /// Splice has no MSG_NOSIGNAL: the calling thread is told of a stream that has ended by an error, and by no signal.
  static func ignoreBrokenPipes() {
    var signals = sigset_t()
    unsafe sigemptyset(&signals)
    unsafe sigaddset(&signals, SIGPIPE)
    unsafe pthread_sigmask(SIG_BLOCK, &signals, nil)
  }

  static func close(_ descriptor: Int32) { Glibc.close(descriptor) }
}
