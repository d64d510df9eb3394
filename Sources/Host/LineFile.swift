import Glibc
package import PacketIO
import Synchronization

/// A file to which lines are appended, each with one write.
package final class LineFile: Sendable {
  private let file: Descriptor
  private let path: String
  private let hasComplained = Mutex(false)
  private let complain: @Sendable (SystemError) -> Void

  /// - Parameters:
  ///   - path: "-": standard output.
  ///   - complain: is told of the first line that could not be written. Whoever writes goes on without; once is enough.
  /// - Throws: `SystemError`.
  package init(path: String, complain: @escaping @Sendable (SystemError) -> Void) throws(SystemError) {
    self.path = path
    self.complain = complain
    do {
      file =
        path == "-"
        ? Descriptor(adopting: dup(STDOUT_FILENO))
        : try Descriptor(open: path, O_WRONLY | O_CREAT | O_APPEND, mode: 0o640)
    } catch {
      throw SystemError("open \(path)", errno: error.errno, remedy: "name a file that can be written")
    }
  }

  /// - Parameter isDurable: it is on stable storage when this returns.
  package func write(_ line: String, isDurable: Bool = false) {
    do {
      try file.writeAll(Array((line + "\n").utf8))
      if isDurable { try file.synchronise() }
    } catch {
      let isFirst = hasComplained.withLock { old in
        defer { old = true }
        return !old
      }
      guard isFirst else { return }
      complain(
        SystemError("write \(path)", errno: error.errno, remedy: "free some space, or name another file"))
    }
  }
}
