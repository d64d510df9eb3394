import CLinux
import Glibc

/// What sockets have in common: how they are made and bound, and what is said when they cannot be.
package enum KernelSocket {
  case udp, tcp

  private var name: String { self == .udp ? "UDP" : "TCP" }

  /// - Parameter flags: beside `SOCK_CLOEXEC`.
  /// - Returns: the descriptor; negative, with `errno` set, when there is none.
  package func open(_ address: IPAddress, flags: Int32 = 0) -> Int32 {
    let type = self == .udp ? SOCK_DGRAM : SOCK_STREAM
    let descriptor = socket(
      address.isV4 ? AF_INET : AF_INET6, Int32(type.rawValue | SOCK_CLOEXEC.rawValue) | flags, 0)
    // One that is bound to an IPv6 address leaves the IPv4 ones to others.
    if descriptor >= 0, !address.isV4 { KernelSocket.set(descriptor, Int32(IPPROTO_IPV6), IPV6_V6ONLY, 1) }
    return descriptor
  }

  /// Binds, and listens where there is a backlog; closes the descriptor on failure.
  /// - Returns: the descriptor, or a negated errno.
  func bind(_ descriptor: Int32, to endpoint: Endpoint, backlog: Int32? = nil) -> Int32 {
    guard descriptor >= 0 else { return -errno }
    let name = SocketName(endpoint)
    if unsafe name.withPointer({ unsafe Glibc.bind(descriptor, $0, $1) }) == 0,
      backlog.map({ listen(descriptor, $0) == 0 }) ?? true
    {
      return descriptor
    }
    let code = errno
    KernelSocket.close(descriptor)
    return -code
  }

  /// Opens one that an operator has configured. A port that a process just gave up stays taken for a moment, because an
  /// io_uring is torn down in the background: tries for up to a second.
  ///
  /// - Parameter open: opens and binds it; a negated errno when it cannot.
  package func patiently(_ endpoint: Endpoint, _ open: () -> Int32) throws(SystemError) -> Int32 {
    for attempt in 0... {
      let descriptor = open()
      guard descriptor < 0 else { return descriptor }
      guard descriptor == -EADDRINUSE, attempt < 20 else {
        throw SystemError("listen on \(name) \(endpoint)", errno: -descriptor, remedy: remedy(-descriptor))
      }
      usleep(50_000)
    }
    return -1
  }

  private func remedy(_ code: Int32) -> String? {
    switch code {
    case EADDRINUSE:
      self == .udp
        ? "stop the program that uses the port (ss -ulpn shows it), or choose another `listen` port"
        : "stop the program that uses the port (ss -tlpn shows it), or choose another port (`listen-tcp`, `listen-tls`)"
    case EADDRNOTAVAIL: "this machine has no such address: listen on one it has (ip address), or on a port only"
    case EACCES: "choose a port above 1023, or grant CAP_NET_BIND_SERVICE"
    case EAFNOSUPPORT: "listen on an IPv4 address only, or enable IPv6"
    case EMFILE, ENFILE: "raise the limit of open files (ulimit -n)"
    default: nil
    }
  }

  /// Closes a descriptor.
  package static func close(_ descriptor: Int32) { Glibc.close(descriptor) }

  /// False with `errno` set where the kernel refuses.
  @discardableResult
  static func set(_ descriptor: Int32, _ level: Int32, _ option: Int32, _ value: Int32) -> Bool {
    var value = value
    return unsafe setsockopt(descriptor, level, option, &value, socklen_t(MemoryLayout<Int32>.size)) == 0
  }

  /// Bytes the kernel may queue in each direction. The privileged options ignore the system's limit; without the
  /// privilege, as much as it allows.
  static func setBuffers(_ descriptor: Int32, _ bytes: Int32) {
    for (forced, usual) in [(SO_RCVBUFFORCE, SO_RCVBUF), (SO_SNDBUFFORCE, SO_SNDBUF)] {
      if !set(descriptor, SOL_SOCKET, forced, bytes) { set(descriptor, SOL_SOCKET, usual, bytes) }
    }
  }

  /// Opens one for IPv4, and for IPv6 where the machine has it: a machine without tunnels over IPv4.
  package static func both<Socket>(
    port: UInt16, _ open: (IPAddress, UInt16) throws(SystemError) -> Socket, close: (Socket) -> Void
  ) throws(SystemError) -> (v4: Socket, v6: Socket?) {
    let v4 = try open(IPAddress(v4: 0), port)
    do throws(SystemError) {
      return (v4, try open(IPAddress(v6High: 0, low: 0), port))
    } catch {
      guard error.errno == EAFNOSUPPORT || error.errno == EADDRNOTAVAIL else {
        close(v4)
        throw error
      }
      return (v4, nil)
    }
  }
}
