package import PacketIO

extension Ladder {
  /// Judges what was sent and returns the probes that are due. Call every 100 ms while the peer is active, and when
  /// `nextDue` has come.
  ///
  /// - Parameter number: gives a number, not 0, that was not used before.
  package mutating func poll(_ traffic: Traffic, now: MonotonicTime, number: () -> UInt64) -> [Probe] {
    if traffic.isActive { lastActive = now }
    for index in rungs.indices { judge(index, traffic, now: now) }
    choose(now: now)
    settleTwins(now: now)
    forget(now: now)
    var probes: [Probe] = []
    for index in rungs.indices {
      if isAsked(index, now: now), now >= rungs[index].nextProbe { ask(index, traffic, now: now, number, &probes) }
      measure(index, now: now, number, &probes)
    }
    schedule(now: now)
    return probes
  }

  /// A probe of another kind left along the road that traffic takes: it tells as much.
  package mutating func sent(_ number: UInt64, now: MonotonicTime) {
    guard let index = index(of: current), rungs[index].isUsable else { return }
    rungs[index].meter.send(number, now: now)
    let interval = interval(index, Traffic(isActive: true, lastHeard: now), now: now)
    rungs[index].nextProbe = max(rungs[index].nextProbe, now.adding(nanoseconds: interval))
  }

  /// What a probe of another kind says of the road that traffic takes.
  package func message(_ number: UInt64) -> ProbeMessage {
    ProbeMessage(
      number: number, tieBreaker: tieBreaker, rank: currentRung?.place.map { UInt8($0) } ?? ProbeMessage.unlisted,
      isUsed: true)
  }

  /// A probe could not be sent.
  package mutating func withdraw(_ number: UInt64) {
    for index in rungs.indices { rungs[index].meter.withdraw(number) }
  }

  // Nanoseconds between two probes of a road that works: the one that traffic takes, and those kept for the worst.
  static let activeInterval: UInt64 = 500_000_000
  static let idleInterval: UInt64 = 10_000_000_000
  static let standbyInterval: UInt64 = 2_000_000_000
  static let idleStandbyInterval: UInt64 = 20_000_000_000
  // The longest back-off of a road that does not work.
  static let activeBackOff: UInt64 = 5_000_000_000
  static let idleBackOff: UInt64 = 30_000_000_000

  private mutating func judge(_ index: Int, _ traffic: Traffic, now: MonotonicTime) {
    rungs[index].meter.judge(now: now)
    let isCurrent = rungs[index].id == current
    if isCurrent { rungs[index].meter.hear(until: traffic.lastHeard) }
    if rungs[index].flaps > 0, now.nanoseconds(since: rungs[index].lastFlap) > Ladder.flapMemory {
      rungs[index].flaps -= 1
      rungs[index].lastFlap = now
    }
    let meter = rungs[index].meter
    if rungs[index].state == .working {
      let heard = max(meter.lastHeard ?? rungs[index].since, since)
      let isSilent = isCurrent && traffic.isActive && now.nanoseconds(since: heard) > Ladder.silence + meter.roundTrip
      if isSilent || meter.silentLosses > 0 { suspect(index, now: now) }
    }
    guard rungs[index].state == .suspect else { return }
    let deadly = traffic.isActive ? Ladder.deadlyLosses : Ladder.deadlyIdleLosses
    if meter.silentLosses >= deadly || meter.losses >= Ladder.deafLosses { die(index, now: now) }
  }

  /// A road that only the peer can open is asked while it works, and for a while after the peer was heard there.
  private func isAsked(_ index: Int, now: MonotonicTime) -> Bool {
    if rungs[index].state == .yielded { return false }
    if rungs[index].isUsable || rungs[index].originates { return true }
    guard let heard = rungs[index].meter.lastHeard else { return false }
    return now.nanoseconds(since: heard) < Ladder.activeBackOff
  }

  private mutating func ask(
    _ index: Int, _ traffic: Traffic, now: MonotonicTime, _ number: () -> UInt64, _ probes: inout [Probe]
  ) {
    if rungs[index].state == .untried { enter(.trying, index, now: now) }
    let number = number()
    probes.append(probe(index, number: number, size: 0))
    rungs[index].meter.send(number, now: now)
    rungs[index].nextProbe = now.adding(nanoseconds: interval(index, traffic, now: now))
    if !rungs[index].isUsable { rungs[index].attempts = min(rungs[index].attempts + 1, 16) }
  }

  private func probe(_ index: Int, number: UInt64, size: Int) -> Probe {
    let rung = rungs[index]
    let message = ProbeMessage(
      number: number, tieBreaker: tieBreaker, rank: rung.place.map { UInt8($0) } ?? ProbeMessage.unlisted,
      isUsed: rung.id == current)
    return Probe(path: rung.path, size: size, message: message)
  }

  /// What packets a road takes is found before traffic takes it.
  private mutating func measure(
    _ index: Int, now: MonotonicTime, _ number: () -> UInt64, _ probes: inout [Probe]
  ) {
    guard rungs[index].state == .working, rungs[index].id != current, rungs[index].mtu != nil else { return }
    let isUnknown = rungs[index].mtu?.phase == .unconfirmed
    guard let sizes = rungs[index].mtu?.poll(now: now, isActive: isUnknown, number: number) else { return }
    let overhead = rungs[index].overhead ?? 0
    for size in [sizes.0, sizes.1] {
      if let size { probes.append(probe(index, number: size.number, size: max(size.size - overhead, 0))) }
    }
  }

  private func interval(_ index: Int, _ traffic: Traffic, now: MonotonicTime) -> UInt64 {
    let rung = rungs[index]
    // Traffic that suffers pauses, and must not make it look as if there was none.
    let isWatched = now.nanoseconds(since: lastActive) < Ladder.attention
    let isActive = now.nanoseconds(since: lastActive) < Ladder.pause
    switch rung.state {
    case .untried, .trying, .dead, .yielded:
      let longest = traffic.isActive ? Ladder.activeBackOff : Ladder.idleBackOff
      return min(200_000_000 << UInt64(min(rung.attempts, 10)), longest)
    case .suspect:
      return max(traffic.isActive ? Ladder.shortest : 300_000_000, rung.meter.roundTrip / 4)
    case .working:
      if rung.id == current {
        if isWatched, isUnsteady(rung) { return Ladder.provingInterval }
        return isActive ? Ladder.activeInterval : Ladder.idleInterval
      }
      if let current = currentRung {
        if rung.order < current.order, leads {
          return max(provingInterval(rung), rung.meter.roundTrip / 4)
        }
        if isWatched, isUnsteady(current) { return Ladder.provingInterval }
      }
      return isActive ? Ladder.standbyInterval : Ladder.idleStandbyInterval
    }
  }

  private func isUnsteady(_ rung: Rung) -> Bool { rung.meter.lost(ofLast: 16) >= 2 }

  private mutating func forget(now: MonotonicTime) {
    rungs.removeAll {
      $0.place == nil && $0.id != current && !$0.isUsable && $0.state != .yielded
        && now.nanoseconds(since: $0.since) > Ladder.forgetting
    }
  }

  private mutating func schedule(now: MonotonicTime) {
    var due = now.adding(nanoseconds: Ladder.idleBackOff)
    for index in rungs.indices {
      let isUnderWay =
        rungs[index].meter.isWaiting || rungs[index].state == .suspect || rungs[index].mtu?.isWaiting == true
      if isUnderWay { due = min(due, now.adding(nanoseconds: Ladder.shortest)) }
      if isAsked(index, now: now) { due = min(due, rungs[index].nextProbe) }
      if let since = rungs[index].needlessSince { due = min(due, since.adding(nanoseconds: Ladder.courtesy)) }
    }
    nextDue = due
  }
}
