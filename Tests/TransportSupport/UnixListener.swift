import Foundation
import Glibc

/// A server behind a Unix socket, as a web server is: it accepts, reads and answers when a test has it do so.
package final class UnixListener {
  package let path: String
  private let listener: Int32
  /// Streams that were accepted, in order.
  package private(set) var streams: [Int32] = []
  /// What the first of them has brought.
  package private(set) var heard: [UInt8] = []

  package init() {
    path = FileManager.default.temporaryDirectory.appending(path: "web-\(UUID().uuidString.prefix(8)).sock").path
    listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    var name = sockaddr_un()
    name.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    withUnsafeMutableBytes(of: &name.sun_path) { $0.copyBytes(from: bytes) }
    _ = withUnsafePointer(to: &name) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(listener, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    listen(listener, 512)
  }

  deinit {
    for stream in streams + [listener] { close(stream) }
    unlink(path)
  }

  package func acceptAll() {
    while case let stream = accept(listener, nil, nil), stream >= 0 { streams.append(stream) }
  }

  /// Takes what the first has brought.
  package func fetch() {
    acceptAll()
    guard let stream = streams.first else { return }
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while case let count = recv(stream, &buffer, buffer.count, Int32(MSG_DONTWAIT)), count > 0 {
      heard += buffer[0..<count]
    }
  }

  /// Answers the first, as much as is taken now.
  /// - Returns: bytes that were.
  package func say(_ bytes: ArraySlice<UInt8>) -> Int {
    guard let stream = streams.first else { return 0 }
    return max(bytes.withUnsafeBytes { send(stream, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT | MSG_NOSIGNAL)) }, 0)
  }

  /// Has said all to the first.
  package func end() { if let stream = streams.first { shutdown(stream, Int32(SHUT_WR)) } }
}
