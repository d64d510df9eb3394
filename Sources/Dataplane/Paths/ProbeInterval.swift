/// How long to wait between two probes of a path.
struct ProbeInterval {
  // Nanoseconds, of a path that works: the one that traffic takes, and those kept for the worst.
  private static let active: UInt64 = 500_000_000
  private static let idle: UInt64 = 10_000_000_000
  private static let standby: UInt64 = 2_000_000_000
  private static let idleStandby: UInt64 = 20_000_000_000
  /// How long a path that loses packets is looked at closely after the last traffic.
  private static let attention: UInt64 = 30_000_000_000
  /// After so long without traffic there is none: a connection that loses much waits for seconds between packets.
  private static let longestPause: UInt64 = 10_000_000_000

  /// Something was sent to the peer just now.
  let isActive: Bool
  /// Nanoseconds since something was. Traffic that suffers pauses, and must not make it look as if there was none.
  let pause: UInt64
  /// The path that traffic takes.
  let current: Candidate?
  /// This side decides which one that is.
  let leads: Bool

  func nanoseconds(_ candidate: Candidate) -> UInt64 {
    let isWatched = pause < ProbeInterval.attention
    let isUsed = pause < ProbeInterval.longestPause
    switch candidate.state {
    case .untried, .trying, .dead, .yielded:
      let longest = isActive ? PathSelection.activeBackOff : PathSelection.idleBackOff
      return min(200_000_000 << UInt64(min(candidate.attempts, 10)), longest)
    case .suspect:
      return max(isActive ? PathSelection.shortest : 300_000_000, candidate.meter.roundTrip / 4)
    case .working:
      guard let current else { return isUsed ? ProbeInterval.standby : ProbeInterval.idleStandby }
      if candidate.id == current.id {
        if isWatched, candidate.isUnsteady { return Candidate.shortestProvingInterval }
        return isUsed ? ProbeInterval.active : ProbeInterval.idle
      }
      if candidate.order < current.order, leads {
        return max(candidate.provingInterval, candidate.meter.roundTrip / 4)
      }
      if isWatched, current.isUnsteady { return Candidate.shortestProvingInterval }
      return isUsed ? ProbeInterval.standby : ProbeInterval.idleStandby
    }
  }
}
