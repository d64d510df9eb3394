import CLinux
import Glibc

/// An IPv4 or IPv6 address with a port, as the kernel takes it.
struct Endpoint: Sendable {
  fileprivate var storage: sockaddr_storage
  fileprivate var length: socklen_t
  let isV6: Bool

  /// - Parameter address: in text form, "192.0.2.1" or "2001:db8::1".
  init(_ address: String, port: UInt16) throws {
    storage = sockaddr_storage()
    var four = sockaddr_in()
    var six = sockaddr_in6()
    if unsafe inet_pton(AF_INET, address, &four.sin_addr) == 1 {
      four.sin_family = sa_family_t(AF_INET)
      four.sin_port = port.bigEndian
      isV6 = false
      length = socklen_t(MemoryLayout<sockaddr_in>.size)
      unsafe memcpy(&storage, &four, Int(length))
    } else if unsafe inet_pton(AF_INET6, address, &six.sin6_addr) == 1 {
      six.sin6_family = sa_family_t(AF_INET6)
      six.sin6_port = port.bigEndian
      isV6 = true
      length = socklen_t(MemoryLayout<sockaddr_in6>.size)
      unsafe memcpy(&storage, &six, Int(length))
    } else {
      throw LabError("\(address) is not an IP address")
    }
  }
}

/// A blocking socket. It belongs to the namespace of the thread that opened it; any thread may use it.
final class Socket: Sendable {
  enum Kind { case stream, datagram, echo }

  let descriptor: Int32
  let isV6: Bool

  private init(descriptor: Int32, isV6: Bool) {
    self.descriptor = descriptor
    self.isV6 = isV6
  }

  init(_ kind: Kind, isV6: Bool) throws {
    let type = kind == .stream ? SOCK_STREAM : SOCK_DGRAM
    let echo = isV6 ? Int32(IPPROTO_ICMPV6) : Int32(IPPROTO_ICMP)
    descriptor = socket(
      isV6 ? AF_INET6 : AF_INET, Int32(type.rawValue) | Int32(SOCK_CLOEXEC.rawValue), kind == .echo ? echo : 0)
    self.isV6 = isV6
    if descriptor < 0 { throw LabError.system("open a socket") }
  }

  /// Takes over an open descriptor.
  init(adopting descriptor: Int32) {
    self.descriptor = descriptor
    isV6 = false
  }

  deinit { close(descriptor) }

  // MARK: Options

  func set(_ level: Int, _ option: Int32, _ value: Int32, _ what: String) throws {
    var value = value
    if unsafe setsockopt(descriptor, Int32(level), option, &value, socklen_t(MemoryLayout<Int32>.size)) != 0 {
      throw LabError.system("set \(what)")
    }
  }

  /// After so many seconds without progress a blocked call fails with EAGAIN.
  func setTimeout(_ seconds: Double) throws {
    var time = timeval(tv_sec: Int(seconds), tv_usec: Int((seconds - seconds.rounded(.down)) * 1e6))
    for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
      let size = socklen_t(MemoryLayout<timeval>.size)
      if unsafe setsockopt(descriptor, SOL_SOCKET, option, &time, size) != 0 { throw LabError.system("set a timeout") }
    }
  }

  /// - Parameter name: as in `net.ipv4.tcp_available_congestion_control`.
  func setCongestionControl(_ name: String) throws {
    let result = unsafe setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_CONGESTION, name, socklen_t(name.utf8.count))
    if result != 0 {
      throw LabError.system(
        "use the congestion control \(name)", remedy: "load its kernel module (modprobe tcp_\(name))")
    }
  }

  /// Room for `bytes` in the receive queue, beyond the system's limit where we may.
  func setReceiveBuffer(_ bytes: Int) throws {
    if (try? set(Int(SOL_SOCKET), SO_RCVBUFFORCE, Int32(bytes), "SO_RCVBUFFORCE")) == nil {
      try set(Int(SOL_SOCKET), SO_RCVBUF, Int32(bytes), "SO_RCVBUF")
    }
  }

  // MARK: Addresses

  func bind(_ endpoint: Endpoint) throws {
    var endpoint = endpoint
    let result = unsafe withUnsafePointer(to: &endpoint.storage) {
      unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe Glibc.bind(descriptor, $0, endpoint.length) }
    }
    if result != 0 { throw LabError.system("bind a socket") }
  }

  func connect(_ endpoint: Endpoint) throws {
    var endpoint = endpoint
    let result = unsafe withUnsafePointer(to: &endpoint.storage) {
      unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe Glibc.connect(descriptor, $0, endpoint.length)
      }
    }
    if result == 0 { return }
    // What a blocking connect says when its timeout is over.
    throw errno == EINPROGRESS ? LabError("connect: no answer") : LabError.system("connect")
  }

  func listen() throws {
    if Glibc.listen(descriptor, 64) != 0 { throw LabError.system("listen") }
  }

  func accept() throws -> Socket {
    let accepted = culvert_accept_cloexec(descriptor)
    if accepted < 0 { throw errno == EAGAIN ? LabError("accept: nobody connected") : LabError.system("accept") }
    return Socket(descriptor: accepted, isV6: isV6)
  }

  /// The local port.
  var port: UInt16 {
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    let result = unsafe withUnsafeMutablePointer(to: &storage) {
      unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe getsockname(descriptor, $0, &length) }
    }
    // The port is at the same place in both kinds of address.
    return result != 0
      ? 0
      : unsafe withUnsafeBytes(of: &storage) { unsafe UInt16(bigEndian: $0.load(fromByteOffset: 2, as: UInt16.self)) }
  }

  // MARK: Bytes

  /// Bytes sent, or a negative errno.
  func send(_ buffer: LabBuffer, _ offset: Int, _ count: Int) -> Int {
    let n = unsafe Glibc.send(descriptor, buffer.slice(offset, count).baseAddress, count, Int32(MSG_NOSIGNAL))
    return n < 0 ? -Int(errno) : n
  }

  /// Bytes received, 0 at the end of a stream, or a negative errno.
  func receive(_ buffer: LabBuffer, _ offset: Int = 0, _ count: Int? = nil) -> Int {
    let room = unsafe buffer.slice(offset, count ?? buffer.count - offset)
    let n = unsafe recv(descriptor, room.baseAddress, room.count, 0)
    return n < 0 ? -Int(errno) : n
  }

  /// Waits for a datagram and sends it back to where it came from.
  func returnDatagram(_ buffer: LabBuffer) {
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    unsafe withUnsafeMutablePointer(to: &storage) {
      unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { peer in
        let room = unsafe buffer.slice(0, buffer.count)
        let n = unsafe recvfrom(descriptor, room.baseAddress, room.count, 0, peer, &length)
        if n >= 0 { unsafe _ = sendto(descriptor, room.baseAddress, n, 0, peer, length) }
      }
    }
  }

  func endSending() { shutdown(descriptor, Int32(SHUT_WR)) }

  /// Wakes whoever is blocked on it.
  func abort() { shutdown(descriptor, Int32(SHUT_RDWR)) }

  /// Segments that TCP sent again since the connection began.
  var retransmits: Int {
    var info = tcp_info()
    var length = socklen_t(MemoryLayout<tcp_info>.size)
    let result = unsafe getsockopt(descriptor, Int32(IPPROTO_TCP), TCP_INFO, &info, &length)
    return result == 0 ? Int(info.tcpi_total_retrans) : 0
  }
}

/// Programs that answer on a Unix socket.
public enum UnixSocket {
  /// Sends a request and returns all that comes back until the other side has nothing more to say.
  /// - Parameter end: text after which the answer is complete although the connection stays open.
  public static func ask(_ path: String, _ request: String, until end: String? = nil, timeout: Double = 5) throws
    -> String
  {
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    if descriptor < 0 { throw LabError.system("open a socket") }
    let connection = Socket(adopting: descriptor)
    try connection.setTimeout(timeout)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    let fits = unsafe withUnsafeMutableBytes(of: &address.sun_path) { room -> Bool in
      guard bytes.count < room.count else { return false }
      unsafe room.copyBytes(from: bytes)
      return true
    }
    guard fits else { throw LabError("\(path) is too long for a Unix socket") }
    let result = unsafe withUnsafePointer(to: &address) {
      unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    if result != 0 { throw LabError.system("connect to \(path)") }
    System.write(descriptor, request)
    if end == nil { connection.endSending() }
    let buffer = LabBuffer(count: 65536)
    var answer: [UInt8] = []
    while true {
      let n = connection.receive(buffer)
      if n < 0 { throw LabError.system("wait for an answer from \(path)", Int32(-n)) }
      answer += buffer.bytes(0, n)
      let text = String(decoding: answer, as: UTF8.self)
      if n == 0 || end.map({ text.hasSuffix($0) }) == true { return text }
    }
  }
}

extension Socket {
  /// A socket that writes ICMP messages.
  convenience init(sendingICMP: Void) throws {
    let descriptor = socket(AF_INET, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue), Int32(IPPROTO_ICMP))
    if descriptor < 0 { throw LabError.system("open a raw socket", remedy: "run as root") }
    self.init(adopting: descriptor)
  }

  /// A socket that sees every frame of an interface of the calling thread's namespace.
  convenience init(tapping interface: String) throws {
    let everything = UInt16(0x0003).bigEndian  // ETH_P_ALL
    let index = unsafe if_nametoindex(interface)
    if index == 0 { throw LabError.system("listen on \(interface)") }
    let descriptor = socket(AF_PACKET, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue), Int32(everything))
    if descriptor < 0 { throw LabError.system("open a packet socket", remedy: "run as root") }
    self.init(adopting: descriptor)
    var address = sockaddr_ll()
    address.sll_family = UInt16(AF_PACKET)
    address.sll_protocol = everything
    address.sll_ifindex = Int32(index)
    let result = unsafe withUnsafePointer(to: &address) {
      unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe Glibc.bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_ll>.size))
      }
    }
    if result != 0 { throw LabError.system("listen on \(interface)") }
    try setReceiveBuffer(4 << 20)
    try setTimeout(0.1)
  }

  /// The frame's own length, also where it is longer than the buffer; or a negative errno.
  func receiveTruncated(_ buffer: LabBuffer) -> Int {
    let room = unsafe buffer.slice(0, buffer.count)
    let n = unsafe recv(descriptor, room.baseAddress, room.count, Int32(MSG_TRUNC))
    return n < 0 ? -Int(errno) : n
  }
}
