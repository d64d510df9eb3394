import Glibc

@testable import Lab

/// An IPv4 address with a port, compared and printed.
struct Place: Hashable, Sendable, CustomStringConvertible {
  let address: String
  let port: UInt16

  init(_ address: String, _ port: UInt16) {
    self.address = address
    self.port = port
  }

  var description: String { "\(address):\(port)" }

  fileprivate init(_ raw: sockaddr_in) {
    let number = UInt32(bigEndian: raw.sin_addr.s_addr)
    address = (0..<4).map { "\(number >> (24 - 8 * $0) & 255)" }.joined(separator: ".")
    port = UInt16(bigEndian: raw.sin_port)
  }

  fileprivate var raw: sockaddr_in {
    var raw = sockaddr_in()
    raw.sin_family = sa_family_t(AF_INET)
    raw.sin_port = port.bigEndian
    inet_pton(AF_INET, address, &raw.sin_addr)
    return raw
  }
}

/// A socket that says who is seen as whom: for tests of address translation.
final class Talker: Sendable {
  enum Kind { case udp, tcp, icmp }

  private let descriptor: Int32

  private init(adopting descriptor: Int32) { self.descriptor = descriptor }

  /// - Parameter place: its own; nil: the kernel's choice. Waits at most `patience` seconds for anything.
  init(_ kind: Kind, in namespace: Namespace, at place: Place? = nil, patience: Double = 1) async throws {
    descriptor = try await namespace.inside {
      let type = kind == .udp ? SOCK_DGRAM : kind == .tcp ? SOCK_STREAM : SOCK_RAW
      let descriptor = socket(
        AF_INET, Int32(type.rawValue) | Int32(SOCK_CLOEXEC.rawValue), kind == .icmp ? Int32(IPPROTO_ICMP) : 0)
      var one: Int32 = 1
      setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, 4)
      var time = timeval(tv_sec: Int(patience), tv_usec: Int(patience * 1e6) % 1_000_000)
      for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
        setsockopt(descriptor, SOL_SOCKET, option, &time, socklen_t(MemoryLayout<timeval>.size))
      }
      if let place, Talker.give(place, { Glibc.bind(descriptor, $0, $1) }) != 0 {
        throw LabError.system("bind \(place)")
      }
      return descriptor
    }
  }

  deinit { close(descriptor) }

  private static func give(_ place: Place, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
    var raw = place.raw
    return withUnsafePointer(to: &raw) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
    }
  }

  func set(_ level: Int, _ option: Int32, _ value: Int32) {
    var value = value
    setsockopt(descriptor, Int32(level), option, &value, 4)
  }

  /// 0, or the errno: a refused connection, or `EINPROGRESS` after nobody answered.
  func connect(_ place: Place) async throws -> Int32 {
    try await blocking { [self] in Talker.give(place) { Glibc.connect(descriptor, $0, $1) } == 0 ? 0 : errno }
  }

  /// Nothing more will be sent.
  func shutDown() { shutdown(descriptor, Int32(SHUT_WR)) }

  func listen() { Glibc.listen(descriptor, 8) }

  /// The next connection and who it is from; nil when nobody came.
  func accept() async throws -> (Talker, Place)? {
    try await blocking { [self] in
      var raw = sockaddr_in()
      var length = socklen_t(MemoryLayout<sockaddr_in>.size)
      let accepted = withUnsafeMutablePointer(to: &raw) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { Glibc.accept(descriptor, $0, &length) }
      }
      guard accepted >= 0 else { return nil }
      let talker = Talker(adopting: accepted)
      var time = timeval(tv_sec: 1, tv_usec: 0)
      setsockopt(accepted, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
      return (talker, Place(raw))
    }
  }

  /// 0, or the errno.
  @discardableResult func send(_ bytes: [UInt8], to place: Place? = nil) -> Int32 {
    guard let place else { return Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) < 0 ? errno : 0 }
    return Talker.give(place) { Int32(truncatingIfNeeded: sendto(descriptor, bytes, bytes.count, 0, $0, $1)) } < 0
      ? errno : 0
  }

  @discardableResult func send(_ text: String, to place: Place? = nil) -> Int32 { send(Array(text.utf8), to: place) }

  /// The next datagram, or what is there of a stream, and who it is from; nil when nothing came.
  func receive() async throws -> (bytes: [UInt8], from: Place)? {
    try await blocking { [self] in
      var raw = sockaddr_in()
      var length = socklen_t(MemoryLayout<sockaddr_in>.size)
      var buffer = [UInt8](repeating: 0, count: 65536)
      let n = withUnsafeMutablePointer(to: &raw) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          recvfrom(descriptor, &buffer, buffer.count, 0, $0, &length)
        }
      }
      return n < 0 ? nil : (Array(buffer[..<n]), Place(raw))
    }
  }

  /// What waits, or came, as an error: the errno of the next receive.
  func failure() async throws -> Int32 {
    try await blocking { [self] in
      var byte: UInt8 = 0
      return recv(descriptor, &byte, 1, 0) < 0 ? errno : 0
    }
  }
}
