import CLinux
import Glibc

/// Wakes a worker that waits in its ring, from any thread.
package final class Waker: Sendable {
  /// Becomes readable when somebody called `wake`.
  package let descriptor: Int32

  package init() throws(SystemError) {
    descriptor = eventfd(0, Int32(EFD_CLOEXEC))
    if descriptor < 0 {
      throw SystemError("eventfd", errno: errno, remedy: "raise the limit of open files (ulimit -n)")
    }
  }

  deinit { close(descriptor) }

  /// Makes the descriptor readable; any number of calls before the worker looks count as one.
  package func wake() {
    var one: UInt64 = 1
    _ = unsafe write(descriptor, &one, 8)
  }

  /// Takes back what was called so far. Waits where nobody has.
  package func clear() {
    var count: UInt64 = 0
    _ = unsafe read(descriptor, &count, 8)
  }
}

/// What a thread does.
private final class ThreadBody {
  let run: () -> Void
  init(_ run: @escaping () -> Void) { self.run = run }
}

/// Starts a thread of its own for `body`, in the calling thread's network namespace; nobody waits for its end.
/// - Returns: zero or an errno.
package func startThread(_ body: @escaping () -> Void) -> Int32 {
  let start = unsafe Unmanaged.passRetained(ThreadBody(body))
  var thread = pthread_t()
  let status = unsafe pthread_create(
    &thread, nil,
    { argument in
      unsafe Unmanaged<ThreadBody>.fromOpaque(argument!).takeRetainedValue().run()
      return nil
    }, start.toOpaque())
  if status == 0 { pthread_detach(thread) } else { unsafe start.release() }
  return status
}

/// Names the calling thread, for `ps` and the like.
package func nameThread(_ name: String) { _ = unsafe culvert_set_thread_name(name) }
