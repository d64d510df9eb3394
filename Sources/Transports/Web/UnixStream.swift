import Glibc
import PacketIO

/// A stream to a program of this machine, by a Unix socket; it never waits.
enum UnixStream {
  /// Bytes of a path at most: `sockaddr_un` has room for one more.
  static let longestPath = 107

  /// Connects.
  /// - Returns: the descriptor, or a negated errno: nobody listens there, or too many wait to be accepted.
  static func open(_ path: String) -> Int32 {
    let descriptor = socket(
      AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    guard descriptor >= 0 else { return -errno }
    var name = sockaddr_un()
    name.sun_family = sa_family_t(AF_UNIX)
    guard path.utf8.count <= longestPath else {
      KernelSocket.close(descriptor)
      return -ENAMETOOLONG
    }
    unsafe withUnsafeMutableBytes(of: &name.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
    let status = unsafe withUnsafePointer(to: &name) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard status != 0 else { return descriptor }
    let error = errno
    KernelSocket.close(descriptor)
    return -error
  }

  /// Receives what is there: bytes, 0 at the end, or a negated errno.
  static func receive(_ descriptor: Int32, into bytes: PacketBytes) -> Int {
    TCPSocket.receive(descriptor, into: bytes)
  }

  /// Sends what is taken now: bytes, or negative when the other end is gone.
  static func send(_ descriptor: Int32, _ bytes: PacketBytes) -> Int { TCPSocket.send(descriptor, bytes) }

  /// The same, of the bytes from `start` on.
  static func send(_ descriptor: Int32, _ bytes: [UInt8], from start: Int) -> Int {
    TCPSocket.send(descriptor, bytes, from: start)
  }
}
