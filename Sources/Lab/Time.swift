import Glibc

/// Seconds of the monotonic clock, from some point in the past.
public func monotonicSeconds() -> Double {
  var time = timespec()
  unsafe clock_gettime(CLOCK_MONOTONIC, &time)
  return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

/// Blocks the calling thread.
public func pause(seconds: Double) { pause(until: monotonicSeconds() + seconds) }

/// Blocks the calling thread until the monotonic clock shows `moment`, in seconds.
public func pause(until moment: Double) {
  let whole = moment.rounded(.down)
  var time = timespec(tv_sec: Int(whole), tv_nsec: Int((moment - whole) * 1e9))
  while unsafe clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nil) == EINTR {}
}
