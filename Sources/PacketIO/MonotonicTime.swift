import Glibc

/// A point on the monotonic clock, in nanoseconds. The core never reads a clock: `now` is always an argument.
@frozen public struct MonotonicTime: Comparable, Hashable, Sendable, BitwiseCopyable {
  public var nanoseconds: UInt64

  @inlinable public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

  /// The kernel's `CLOCK_MONOTONIC`, read by a worker once a turn.
  public static func current() -> MonotonicTime {
    var time = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return MonotonicTime(nanoseconds: UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec))
  }

  /// Nanoseconds for which the calling thread has had a processor so far (CLOCK_THREAD_CPUTIME_ID). A call into the kernel.
  package static func busyOfThread() -> UInt64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
  }

  @inlinable public static func < (a: MonotonicTime, b: MonotonicTime) -> Bool { a.nanoseconds < b.nanoseconds }

  /// The moment that much later.
  @inlinable public func adding(nanoseconds: UInt64) -> MonotonicTime {
    MonotonicTime(nanoseconds: self.nanoseconds &+ nanoseconds)
  }

  /// The moment that much later; a negative duration is none.
  public func adding(_ duration: Duration) -> MonotonicTime { adding(nanoseconds: duration.nanoseconds) }

  /// The moment that much later; `seconds` must not be negative.
  @inlinable public func adding(seconds: Double) -> MonotonicTime {
    adding(nanoseconds: UInt64(seconds * 1e9))
  }

  /// Nanoseconds from `earlier` to here; zero when `earlier` lies ahead.
  @inlinable public func nanoseconds(since earlier: MonotonicTime) -> UInt64 {
    nanoseconds > earlier.nanoseconds ? nanoseconds &- earlier.nanoseconds : 0
  }
}

/// The time of day, which may be set back.
package enum WallClock {
  /// Nanoseconds since 1970.
  package static func nanoseconds() -> UInt64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_REALTIME, &time)
    return UInt64(clamping: time.tv_sec) &* 1_000_000_000 &+ UInt64(clamping: time.tv_nsec)
  }
}

extension Duration {
  /// In nanoseconds; 0 for a negative one, and the most there is for what is longer than 584 years.
  public var nanoseconds: UInt64 {
    let (seconds, attoseconds) = components
    guard seconds >= 0, attoseconds >= 0 else { return 0 }
    let (whole, overflows) = UInt64(clamping: seconds).multipliedReportingOverflow(by: 1_000_000_000)
    let (all, passes) = whole.addingReportingOverflow(UInt64(clamping: attoseconds / 1_000_000_000))
    return overflows || passes ? .max : all
  }

  /// In seconds, for what is shown or written in a file.
  public var inSeconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }
}
