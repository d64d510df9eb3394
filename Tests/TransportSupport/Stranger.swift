import Glibc
import PacketIO

/// A socket of somebody who does not speak the protocol, or not as he should.
package final class Stranger {
  package let descriptor: Int32

  /// Connects to a port of this machine from one of its addresses.
  package init(to port: UInt16, from address: String = "127.0.0.1") {
    descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    SocketName(Endpoint(address: IPAddress(address)!, port: 0)).withPointer { _ = bind(descriptor, $0, $1) }
    SocketName(Endpoint(address: IPAddress("127.0.0.1")!, port: port)).withPointer { _ = connect(descriptor, $0, $1) }
  }

  /// Listens, and never accepts.
  package init(listeningAt port: UInt16) {
    descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    var one: Int32 = 1
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, 4)
    SocketName(Endpoint(address: IPAddress("127.0.0.1")!, port: port)).withPointer { _ = bind(descriptor, $0, $1) }
    listen(descriptor, 8)
  }

  package func say(_ bytes: [UInt8]) { _ = Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) }

  /// Whether the other side has ended the stream.
  package var isEnded: Bool {
    var byte: UInt8 = 0
    let count = recv(descriptor, &byte, 1, Int32(MSG_DONTWAIT))
    return count == 0 || count < 0 && errno != EAGAIN
  }

  deinit { close(descriptor) }
}
