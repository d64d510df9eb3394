import Foundation
import Glibc
import Host
import PacketIO

/// Serves the connections of a listener one after the other, on a thread of its own.
enum Acceptor {
  /// - Parameters:
  ///   - waker: ends it, and closes the listener.
  ///   - seconds: that reads and writes of a connection wait.
  ///   - serve: what is done with a connection, which is closed afterwards.
  static func start(
    _ name: String, _ listener: Int32, until waker: Waker, seconds: Int, _ serve: @escaping @Sendable (Int32) -> Void
  ) {
    let thread = Thread {
      while true {
        let ready = UnixSocket.waitUntilReadable([listener, waker.descriptor])
        if ready[1] { break }
        let connection = UnixSocket.accept(listener)
        guard connection >= 0 else {
          // Out of descriptors, most likely: not a reason to spin.
          usleep(100_000)
          continue
        }
        UnixSocket.setTimeLimit(connection, seconds: seconds)
        serve(connection)
        close(connection)
      }
      close(listener)
    }
    thread.name = name
    thread.start()
  }
}
