import CLinux
import Glibc
import PacketIO

/// A timer that a ring can wait for (timerfd).
enum HairpinTimer {
  static func open() throws(SystemError) -> Int32 {
    let descriptor = timerfd_create(CLOCK_MONOTONIC, Int32(O_CLOEXEC | O_NONBLOCK))
    guard descriptor >= 0 else {
      throw SystemError("timerfd_create", errno: errno, remedy: "raise the limit of open files (ulimit -n)")
    }
    return descriptor
  }

  static func close(_ descriptor: Int32) { Glibc.close(descriptor) }

  /// Sets it off at that moment, at once when that has passed.
  static func set(_ descriptor: Int32, _ time: MonotonicTime) {
    var value = itimerspec()
    // Zero would disarm it.
    let nanoseconds = max(time.nanoseconds, 1)
    value.it_value.tv_sec = Int(nanoseconds / 1_000_000_000)
    value.it_value.tv_nsec = Int(nanoseconds % 1_000_000_000)
    let flags: Int32 = 1  // TFD_TIMER_ABSTIME
    unsafe timerfd_settime(descriptor, flags, &value, nil)
  }
}
