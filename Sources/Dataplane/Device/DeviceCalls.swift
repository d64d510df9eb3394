import CLinux
import Glibc
import PacketIO

/// The system calls that setting up a device takes, over arrays and packet windows: the unsafe code of this
/// directory is here. Each returns a non-negative result or a negated errno, as the kernel itself does.
enum DeviceCalls {
  /// Bytes of `struct ifreq`, the largest argument of any ioctl used here.
  static let ioctlArgumentLength = 40

  /// Opens with `O_CLOEXEC` added.
  static func open(_ path: String, _ flags: Int32) -> Int32 {
    result(unsafe culvert_open(path, flags))
  }

  static func socket(_ family: Int32, _ type: Int32, _ proto: Int32) -> Int32 {
    result(Glibc.socket(family, type | Int32(SOCK_CLOEXEC.rawValue), proto))
  }

  /// - Parameter argument: at least `ioctlArgumentLength` bytes, whatever the request.
  static func ioctl(_ descriptor: Int32, _ request: UInt32, _ argument: inout [UInt8]) -> Int32 {
    precondition(argument.count >= ioctlArgumentLength)
    return unsafe argument.withUnsafeMutableBytes { bytes in
      result(unsafe culvert_ioctl_pointer(descriptor, UInt(request), bytes.baseAddress))
    }
  }

  static func ioctl(_ descriptor: Int32, _ request: UInt32, value: UInt) -> Int32 {
    result(culvert_ioctl_value(descriptor, UInt(request), value))
  }

  /// Has a filter choose the queue of each packet. Zero or an errno.
  static func steer(_ descriptor: Int32, _ program: [UInt64]) -> Int32 {
    unsafe -culvert_steer_queues(descriptor, program, UInt32(clamping: program.count))
  }

  static func setOption(_ descriptor: Int32, _ level: Int32, _ name: Int32, _ value: Int32) -> Int32 {
    var value = value
    return result(unsafe setsockopt(descriptor, level, name, &value, socklen_t(MemoryLayout<Int32>.size)))
  }

  /// - Parameter address: a socket address as the kernel lays it out.
  static func bind(_ descriptor: Int32, _ address: [UInt8]) -> Int32 {
    unsafe withSocketAddress(address) { unsafe result(Glibc.bind(descriptor, $0, $1)) }
  }

  static func connect(_ descriptor: Int32, _ address: [UInt8]) -> Int32 {
    unsafe withSocketAddress(address) { unsafe result(Glibc.connect(descriptor, $0, $1)) }
  }

  static func send(_ descriptor: Int32, _ bytes: PacketBytes, to address: [UInt8]) -> Int {
    unsafe withSocketAddress(address) {
      unsafe result(sendto(descriptor, bytes.pointer, bytes.count, 0, $0, $1))
    }
  }

  static func send(_ descriptor: Int32, _ bytes: [UInt8]) -> Int {
    unsafe bytes.withUnsafeBytes { unsafe result(Glibc.send(descriptor, $0.baseAddress, $0.count, 0)) }
  }

  /// Receives one datagram. A result greater than `buffer.count` is the length of one that was cut off.
  static func receive(_ descriptor: Int32, into buffer: inout [UInt8]) -> Int {
    unsafe buffer.withUnsafeMutableBytes { bytes in
      while true {
        let got = unsafe result(recv(descriptor, bytes.baseAddress, bytes.count, Int32(MSG_TRUNC)))
        if got != -Int(EINTR) { return got }
      }
    }
  }

  static func read(_ descriptor: Int32, into bytes: PacketBytes) -> Int {
    unsafe result(Glibc.read(descriptor, bytes.pointer, bytes.count))
  }

  static func write(_ descriptor: Int32, _ bytes: PacketBytes) -> Int {
    unsafe result(Glibc.write(descriptor, bytes.pointer, bytes.count))
  }

  /// Waits until one of `descriptors` can be read; at most `milliseconds`.
  static func waitReadable(_ descriptors: [Int32], milliseconds: Int32) {
    var entries = descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    _ = unsafe poll(&entries, nfds_t(entries.count), milliseconds)
  }

  /// Another descriptor of the same open file, closed on exec.
  static func duplicate(_ descriptor: Int32) -> Int32 { result(fcntl(descriptor, F_DUPFD_CLOEXEC, 0)) }

  static func setNonBlocking(_ descriptor: Int32) -> Int32 {
    let flags = fcntl(descriptor, F_GETFL)
    return flags < 0 ? -errno : result(fcntl(descriptor, F_SETFL, flags | O_NONBLOCK))
  }

  /// What tells one file, or one namespace, from all others; nil when it cannot be told.
  static func identity(of descriptor: Int32) -> FileIdentity? {
    var status = stat()
    guard unsafe fstat(descriptor, &status) == 0 else { return nil }
    return FileIdentity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
  }

  struct FileIdentity: Equatable {
    let device: UInt64
    let inode: UInt64
  }

  private static func result<T: FixedWidthInteger & SignedInteger>(_ value: T) -> T { value < 0 ? -T(errno) : value }

  private static func withSocketAddress<T>(
    _ address: [UInt8], _ body: (UnsafePointer<sockaddr>, socklen_t) -> T
  ) -> T {
    // Room for any address, aligned for all of them.
    var storage = sockaddr_storage()
    precondition(address.count <= MemoryLayout<sockaddr_storage>.size)
    return unsafe withUnsafeMutableBytes(of: &storage) { raw in
      unsafe raw.copyBytes(from: address)
      return unsafe raw.withMemoryRebound(to: sockaddr.self) {
        guard let base = $0.baseAddress else { preconditionFailure("a socket address has storage") }
        return unsafe body(UnsafePointer(base), socklen_t(address.count))
      }
    }
  }
}
