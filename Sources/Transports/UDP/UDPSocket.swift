import CLinux
import Glibc
import PacketIO

/// A bound UDP socket with segmentation offload on receipt, and the conversions between kernel addresses and paths.
struct UDPSocket {
  let descriptor: Int32
  let isV4: Bool

  /// Bytes the kernel may queue in each direction: some forty full trains.
  static let bufferSize: Int32 = 4 << 20

  /// - Parameter workers: how many sockets share the port, opened in the order of their workers' numbers.
  init(address: IPAddress, port: UInt16, worker: Int = 0, of workers: Int = 1) throws(SystemError) {
    // A port that is shared could be shared with a stranger too: so it has to be free first.
    if workers > 1, worker == 0 { try UDPSocket(address: address, port: port).close() }
    isV4 = address.isV4
    let endpoint = Endpoint(address: address, port: port)
    descriptor = try KernelSocket.udp.open(for: endpoint, flags: Int32(SOCK_NONBLOCK.rawValue))
    set(Int32(CULVERT_SOL_UDP), Int32(CULVERT_UDP_GRO), 1)
    // Packets go out whole and unfragmented, whatever ICMP says: the path MTU is found with probes (RFC 8899 §4.6).
    if isV4 {
      set(Int32(IPPROTO_IP), IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
      set(Int32(IPPROTO_IP), IP_RECVTOS, 1)
    } else {
      set(Int32(IPPROTO_IPV6), IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE)
      set(Int32(IPPROTO_IPV6), IPV6_RECVTCLASS, 1)
    }
    // The privileged options ignore the system's limit; without the privilege, as much as it allows.
    if !set(SOL_SOCKET, SO_RCVBUFFORCE, UDPSocket.bufferSize) { set(SOL_SOCKET, SO_RCVBUF, UDPSocket.bufferSize) }
    if !set(SOL_SOCKET, SO_SNDBUFFORCE, UDPSocket.bufferSize) { set(SOL_SOCKET, SO_SNDBUF, UDPSocket.bufferSize) }
    if workers > 1 { set(SOL_SOCKET, SO_REUSEPORT, 1) }
    try KernelSocket.udp.bind(descriptor, to: endpoint)
    if workers > 1, worker == 0 { try steer(workers) }
  }

  /// Has the kernel give each packet to the socket of the worker that its SPI names: the sockets of a port are numbered
  /// as they were bound. What is too short for an SPI goes to the first one.
  private func steer(_ workers: Int) throws(SystemError) {
    guard culvert_steer_by_spi(descriptor, UInt32(workers - 1)) == 0 else {
      let code = errno
      Glibc.close(descriptor)
      throw SystemError(
        "share a UDP port between workers", errno: code,
        remedy: "run one worker, or a kernel with SO_ATTACH_REUSEPORT_CBPF")
    }
  }

  @discardableResult
  private func set(_ level: Int32, _ option: Int32, _ value: Int32) -> Bool {
    KernelSocket.set(descriptor, level, option, value)
  }

  func close() { Glibc.close(descriptor) }
}

/// A kernel socket address: `sockaddr_in` or `sockaddr_in6`, whose fields fall on the same places.
@safe struct SocketName: BitwiseCopyable {
  private var family: UInt16
  private var port: UInt16
  /// The IPv4 address, or the IPv6 flow label.
  private var word: UInt32 = 0
  /// The IPv6 address.
  private var high: UInt64 = 0
  private var low: UInt64 = 0
  private var scope: UInt32 = 0
  let length: socklen_t

  init(_ endpoint: Endpoint) {
    port = endpoint.port.bigEndian
    if endpoint.address.isV4 {
      family = UInt16(AF_INET)
      word = endpoint.address.v4.bigEndian
      length = socklen_t(MemoryLayout<sockaddr_in>.size)
    } else {
      family = UInt16(AF_INET6)
      high = endpoint.address.high.bigEndian
      low = endpoint.address.low.bigEndian
      length = socklen_t(MemoryLayout<sockaddr_in6>.size)
    }
  }

  @unsafe func withPointer<R>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> R) -> R {
    unsafe withUnsafeBytes(of: self) {
      unsafe body($0.baseAddress!.assumingMemoryBound(to: sockaddr.self), length)
    }
  }

  var isV4: Bool { family == UInt16(AF_INET) }

  /// What it names.
  var endpoint: Endpoint {
    isV4
      ? Endpoint(address: IPAddress(v4: UInt32(bigEndian: word)), port: UInt16(bigEndian: port))
      : Endpoint(
        address: IPAddress(v6High: UInt64(bigEndian: high), low: UInt64(bigEndian: low)), port: UInt16(bigEndian: port))
  }

  /// Same address and port; of IPv4 only those bytes that the kernel writes are compared.
  @inline(__always) func equals(_ other: SocketName) -> Bool {
    guard family == other.family, port == other.port else { return false }
    return isV4 ? word == other.word : high == other.high && low == other.low
  }

  /// The same, with the address where the kernel wrote it.
  @inline(__always) func equals(_ bytes: PacketBytes) -> Bool {
    guard bytes.count >= Int(length), bytes.loadNative(0, as: UInt16.self) == family,
      bytes.loadNative(2, as: UInt16.self) == port
    else { return false }
    return isV4
      ? bytes.loadNative(4, as: UInt32.self) == word
      : bytes.loadNative(8, as: UInt64.self) == high && bytes.loadNative(16, as: UInt64.self) == low
  }

  /// Reads the address the kernel wrote; nil for another family.
  static func endpoint(_ bytes: PacketBytes) -> Endpoint? {
    guard bytes.count >= 16 else { return nil }
    let family = Int32(bytes.loadNative(0, as: UInt16.self))
    if family == AF_INET { return Endpoint(address: IPAddress(v4: bytes.load32(4)), port: bytes.load16(2)) }
    guard family == AF_INET6, bytes.count >= 28 else { return nil }
    return Endpoint(address: IPAddress(v6High: bytes.load64(8), low: bytes.load64(16)), port: bytes.load16(2))
  }
}
