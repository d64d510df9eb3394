import Glibc
package import PacketIO

/// Stream sockets of the Unix family, blocking, with time limits.
package enum UnixSocket {
  /// Bytes of a path: what `sockaddr_un` holds, without the final zero.
  package static let longestPath = 107

  /// Connects to whoever listens at `path`.
  /// - Parameter seconds: how long reads and writes wait.
  package static func connect(_ path: String, seconds: Int) throws(SystemError) -> Descriptor {
    let socket = try make()
    setTimeLimit(socket.raw, seconds: seconds)
    guard try unsafe withAddress(path, { unsafe Glibc.connect(socket.raw, $0, $1) }) == 0 else {
      throw SystemError("connect to \(path)", errno: errno)
    }
    return socket
  }

  /// Sends one datagram.
  /// - Parameter path: of a file, or with "@" before it a name in the kernel's own space of names (unix(7)).
  package static func sendDatagram(_ bytes: [UInt8], to path: String) throws(SystemError) {
    let socket = try make(SOCK_DGRAM)
    let sent = try unsafe withAddress(path) {
      Int32(clamping: unsafe sendto(socket.raw, bytes, bytes.count, Int32(MSG_NOSIGNAL), $0, $1))
    }
    if sent < 0 { throw SystemError("send to \(path)", errno: errno) }
  }

  /// Listens at `path`, which does not exist yet, for this user only.
  package static func listen(_ path: String) throws(SystemError) -> Descriptor {
    let socket = try make()
    guard try unsafe withAddress(path, { unsafe Glibc.bind(socket.raw, $0, $1) }) == 0 else {
      let reason = errno
      throw SystemError("control socket \(path)", errno: reason, remedy: PosixFile.remedy(forWriting: reason))
    }
    // Nobody can connect before `listen`, so nobody slips in before the mode is set.
    guard unsafe chmod(path, 0o600) == 0, Glibc.listen(socket.raw, 16) == 0 else {
      let reason = errno
      unsafe unlink(path)
      throw SystemError("control socket \(path)", errno: reason)
    }
    return socket
  }

  /// Blocks until at least one of the descriptors has something, or has failed.
  package static func waitUntilReadable(_ descriptors: [Int32]) -> [Bool] {
    var waits = descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    unsafe poll(&waits, nfds_t(waits.count), -1)
    return waits.map { $0.revents != 0 }
  }

  /// -1 on failure. The connection is closed in programs that this one starts.
  package static func accept(_ listener: Int32) -> Int32 {
    let connection = Glibc.accept(listener, nil, nil)
    if connection >= 0 { _ = fcntl(connection, F_SETFD, FD_CLOEXEC) }
    return connection
  }

  /// How long reads and writes wait.
  package static func setTimeLimit(_ descriptor: Int32, seconds: Int) {
    setTimeLimit(descriptor, milliseconds: seconds * 1000)
  }

  /// How long reads and writes wait.
  package static func setTimeLimit(_ descriptor: Int32, milliseconds: Int) {
    var time = timeval(tv_sec: milliseconds / 1000, tv_usec: milliseconds % 1000 * 1000)
    let size = socklen_t(MemoryLayout<timeval>.size)
    unsafe setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &time, size)
    unsafe setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &time, size)
  }

  /// Bytes up to a newline, without it; nil when the other side closed before the first byte.
  /// - Throws: `EAGAIN` after the time limit, `EMSGSIZE` beyond `limit` bytes, `ECONNRESET` for half a line.
  package static func readLine(_ descriptor: Int32, limit: Int) throws(SystemError) -> [UInt8]? {
    var line: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 16384)
    while true {
      let n = unsafe recv(descriptor, &chunk, chunk.count, 0)
      if n < 0 && errno == EINTR { continue }
      if n < 0 { throw SystemError("control socket", errno: errno) }
      if n == 0 {
        if line.isEmpty { return nil }
        throw SystemError("control socket", errno: ECONNRESET)
      }
      // One line in either direction, so nothing is lost behind it.
      if let end = chunk[..<n].firstIndex(of: UInt8(ascii: "\n")) { return line + chunk[..<end] }
      line += chunk[..<n]
      if line.count > limit { throw SystemError("control socket", errno: EMSGSIZE) }
    }
  }

  /// Writes a line and its end, within the time limit.
  package static func writeLine(_ descriptor: Int32, _ line: [UInt8]) throws(SystemError) {
    try write(descriptor, line + [UInt8(ascii: "\n")])
  }

  /// Tells the other side that nothing more comes; it may still send.
  package static func endSending(_ descriptor: Int32) { shutdown(descriptor, Int32(SHUT_WR)) }

  /// Ends the connection both ways; whoever waits for it goes on.
  package static func end(_ descriptor: Int32) { shutdown(descriptor, Int32(SHUT_RDWR)) }

  /// Whether the other side will send nothing more; bytes that wait say no.
  package static func isClosed(_ descriptor: Int32) -> Bool {
    var byte: UInt8 = 0
    let n = unsafe recv(descriptor, &byte, 1, Int32(MSG_PEEK) | Int32(MSG_DONTWAIT))
    return n == 0 || n < 0 && errno != EAGAIN && errno != EINTR
  }

  /// The next bytes; nil when the other side has closed.
  /// - Throws: `EAGAIN` after the time limit.
  package static func read(_ descriptor: Int32, limit: Int) throws(SystemError) -> [UInt8]? {
    var chunk = [UInt8](repeating: 0, count: limit)
    while true {
      let n = unsafe recv(descriptor, &chunk, chunk.count, 0)
      if n < 0 && errno == EINTR { continue }
      if n < 0 { throw SystemError("control socket", errno: errno) }
      return n == 0 ? nil : Array(chunk[..<n])
    }
  }

  /// Writes all of it, within the time limit.
  package static func write(_ descriptor: Int32, _ bytes: [UInt8]) throws(SystemError) {
    var done = 0
    while done < bytes.count {
      let n = unsafe bytes.withUnsafeBytes { buffer in
        unsafe send(descriptor, buffer.baseAddress! + done, buffer.count - done, Int32(MSG_NOSIGNAL))
      }
      if n < 0 && errno == EINTR { continue }
      if n < 0 { throw SystemError("control socket", errno: errno) }
      done += n
    }
  }

  private static func make(_ kind: __socket_type = SOCK_STREAM) throws(SystemError) -> Descriptor {
    let raw = socket(AF_UNIX, Int32(kind.rawValue | SOCK_CLOEXEC.rawValue), 0)
    if raw < 0 { throw SystemError("control socket", errno: errno) }
    return Descriptor(adopting: raw)
  }

  private static func withAddress(
    _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
  ) throws(SystemError) -> Int32 {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    var bytes = Array(path.utf8)
    let isAbstract = bytes.first == UInt8(ascii: "@")
    if isAbstract { bytes[0] = 0 }
    guard (1...longestPath).contains(bytes.count) else { throw SystemError(path, errno: ENAMETOOLONG) }
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
    return unsafe withUnsafePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        // Every byte counts of a name that is no file's.
        unsafe body($0, socklen_t(isAbstract ? 2 + bytes.count : MemoryLayout<sockaddr_un>.size))
      }
    }
  }
}
