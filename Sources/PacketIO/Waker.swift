import CLinux
import Glibc

/// Wakes a worker that waits in its ring, from any thread.
public final class Waker: Sendable {
  /// Becomes readable when somebody called `wake`.
  public let descriptor: Int32

  public init() throws(SystemError) {
    descriptor = eventfd(0, Int32(EFD_CLOEXEC))
    if descriptor < 0 {
      throw SystemError("eventfd", errno: errno, remedy: "raise the limit of open files (ulimit -n)")
    }
  }

  deinit { close(descriptor) }

  /// Makes the descriptor readable; any number of calls before the worker looks count as one.
  public func wake() {
    var one: UInt64 = 1
    _ = unsafe write(descriptor, &one, 8)
  }
}
