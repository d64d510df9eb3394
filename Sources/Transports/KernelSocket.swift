import CLinux
import Glibc
import PacketIO

/// What sockets that an operator configures have in common: how they are made and bound, and what is said when they
/// cannot be.
enum KernelSocket {
  case udp, tcp

  private var name: String { self == .udp ? "UDP" : "TCP" }

  /// - Parameter flags: beside `SOCK_CLOEXEC`.
  /// - Returns: the descriptor; negative, with `errno` set, when there is none.
  func open(_ address: IPAddress, flags: Int32 = 0) -> Int32 {
    let type = self == .udp ? SOCK_DGRAM : SOCK_STREAM
    return socket(address.isV4 ? AF_INET : AF_INET6, Int32(type.rawValue | SOCK_CLOEXEC.rawValue) | flags, 0)
  }

  /// The same for one that shall be bound to `endpoint`, and to no IPv4 address if that is an IPv6 one.
  func open(for endpoint: Endpoint, flags: Int32 = 0) throws(SystemError) -> Int32 {
    let descriptor = open(endpoint.address, flags: flags)
    guard descriptor >= 0 else {
      throw SystemError(
        "open a \(name) socket for \(endpoint)", errno: errno,
        remedy: errno == EAFNOSUPPORT
          ? "listen on an IPv4 address only, or enable IPv6" : "raise the limit of open files (ulimit -n)")
    }
    if !endpoint.address.isV4 { KernelSocket.set(descriptor, Int32(IPPROTO_IPV6), IPV6_V6ONLY, 1) }
    return descriptor
  }

  /// Binds, and listens where there is a backlog; closes the descriptor on failure. A port that a process just gave up
  /// stays taken for a moment, because an io_uring is torn down in the background: tries for up to a second.
  func bind(_ descriptor: Int32, to endpoint: Endpoint, backlog: Int32? = nil) throws(SystemError) {
    let address = SocketName(endpoint)
    for attempt in 0... {
      if unsafe address.withPointer({ unsafe Glibc.bind(descriptor, $0, $1) }) == 0,
        backlog.map({ listen(descriptor, $0) == 0 }) ?? true
      {
        return
      }
      let code = errno
      if code == EADDRINUSE, attempt < 20 {
        usleep(50_000)
        continue
      }
      close(descriptor)
      throw SystemError("listen on \(name) \(endpoint)", errno: code, remedy: remedy(code))
    }
  }

  private func remedy(_ code: Int32) -> String? {
    switch code {
    case EADDRINUSE:
      self == .udp
        ? "stop the program that uses the port (ss -ulpn shows it), or choose another `listen` port"
        : "stop the program that uses the port (ss -tlpn shows it), or choose another `listen-tcp` port"
    case EADDRNOTAVAIL: "this machine has no such address: listen on one it has (ip address), or on a port only"
    case EACCES: "choose a port above 1023, or grant CAP_NET_BIND_SERVICE"
    default: nil
    }
  }

  /// False with `errno` set where the kernel refuses.
  @discardableResult
  static func set(_ descriptor: Int32, _ level: Int32, _ option: Int32, _ value: Int32) -> Bool {
    var value = value
    return unsafe setsockopt(descriptor, level, option, &value, socklen_t(MemoryLayout<Int32>.size)) == 0
  }
}
