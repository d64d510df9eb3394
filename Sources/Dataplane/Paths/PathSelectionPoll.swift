package import PacketIO

extension PathSelection {
  /// Judges what was sent and returns the probes that are due. Call every 100 ms while the peer is active, and when
  /// `nextDue` has come.
  ///
  /// - Parameter number: gives a number, not 0, that was not used before.
  package mutating func poll(_ traffic: Traffic, now: MonotonicTime, number: () -> UInt64) -> [Probe] {
    if traffic.isActive { lastActive = now }
    namedCredit.look(traffic.received)
    for index in candidates.indices { judge(index, traffic, now: now) }
    choose(now: now)
    settleTwins(now: now)
    candidates.forget(now: now, butFor: current)
    var probes: [Probe] = []
    for index in candidates.indices {
      if candidates[index].isDue(&namedCredit, now: now) { ask(index, traffic, now: now, number, &probes) }
      measure(index, now: now, number, &probes)
    }
    if let place = index(of: challenge?.candidate) {
      if let path = challenge?.path, let number = askChallenge(now: now, number: number) {
        probes.append(probe(place, to: path, number: number))
      }
    }
    schedule(now: now)
    return probes
  }

  /// The probes that are due to see whether the path that traffic takes has room for it. Call every 100 ms while the
  /// peer is active, and when that path's `PathMTU.nextDue` has come.
  package mutating func probeSize(_ traffic: Traffic, now: MonotonicTime, number: () -> UInt64) -> [Probe] {
    guard let index = index(of: current),
      let sizes = candidates[index].mtu?
        .poll(now: now, isActive: traffic.isActive, heard: traffic.lastHeard, number: number)
    else { return [] }
    var probes: [Probe] = []
    for size in [sizes.0, sizes.1] {
      guard let size else { continue }
      // One that is as small as can be tells of the path as well.
      if size.size == 0 { sent(size.number, index, now: now) }
      let overhead = candidates[index].overhead ?? 0
      probes.append(probe(index, number: size.number, size: max(size.size - overhead, 0)))
    }
    return probes
  }

  /// A probe of another kind left along the path that traffic takes.
  private mutating func sent(_ number: UInt64, _ index: Int, now: MonotonicTime) {
    guard candidates[index].isUsable else { return }
    candidates[index].meter.send(number, now: now)
    let interval = interval(index, Traffic(isActive: true, lastHeard: now), now: now)
    candidates[index].nextProbe = max(candidates[index].nextProbe, now.adding(nanoseconds: interval))
  }

  /// A probe that says what this side takes, and whose answer says what the peer does; nil without a path.
  package func announcement(_ number: UInt64) -> Probe? {
    index(of: current).map { probe($0, number: number, size: 0) }
  }

  // The longest back-off of a path that does not work.
  static let activeBackOff: UInt64 = 5_000_000_000
  static let idleBackOff: UInt64 = 30_000_000_000

  private mutating func judge(_ index: Int, _ traffic: Traffic, now: MonotonicTime) {
    candidates[index].meter.judge(now: now)
    let isCurrent = candidates[index].id == current
    if isCurrent { candidates[index].meter.hear(until: traffic.lastHeard) }
    if candidates[index].flaps > 0, now.nanoseconds(since: candidates[index].lastFlap) > Candidate.flapMemory {
      candidates[index].flaps -= 1
      candidates[index].lastFlap = now
    }
    let meter = candidates[index].meter
    if candidates[index].state == .working {
      let heard = max(meter.lastHeard ?? candidates[index].since, since)
      let isSilent =
        isCurrent && traffic.isActive && now.nanoseconds(since: heard) > PathSelection.silence + meter.roundTrip
      if isSilent || meter.silentLosses > 0 { suspect(index, now: now) }
    }
    guard candidates[index].state == .suspect else { return }
    let deadly = traffic.isActive ? PathSelection.deadlyLosses : PathSelection.deadlyIdleLosses
    if meter.silentLosses >= deadly || meter.losses >= PathSelection.deafLosses { die(index, now: now) }
  }

  private mutating func ask(
    _ index: Int, _ traffic: Traffic, now: MonotonicTime, _ number: () -> UInt64, _ probes: inout [Probe]
  ) {
    if candidates[index].state == .untried { candidates[index].enter(.trying, now: now) }
    let number = number()
    probes.append(probe(index, number: number, size: 0))
    candidates[index].meter.send(number, now: now)
    candidates[index].nextProbe = now.adding(nanoseconds: interval(index, traffic, now: now))
    if !candidates[index].isUsable { candidates[index].attempts = min(candidates[index].attempts + 1, 16) }
  }

  /// A probe as of one path, sent along another.
  func probe(_ index: Int, to path: Path, number: UInt64) -> Probe {
    var probe = probe(index, number: number, size: 0)
    probe.path = path
    return probe
  }

  private func probe(_ index: Int, number: UInt64, size: Int) -> Probe {
    let candidate = candidates[index]
    let message = ProbeMessage(
      number: number, tieBreaker: tieBreaker, rank: candidate.place.map { UInt8($0) } ?? ProbeMessage.unlisted,
      isUsed: candidate.id == current)
    return Probe(path: candidate.path, size: size, message: message)
  }

  /// What packets a path takes is found before traffic takes it.
  private mutating func measure(
    _ index: Int, now: MonotonicTime, _ number: () -> UInt64, _ probes: inout [Probe]
  ) {
    guard candidates[index].state == .working, candidates[index].id != current, candidates[index].mtu != nil else {
      return
    }
    let isUnknown = candidates[index].mtu?.phase == .unconfirmed || candidates[index].mtu?.phase == .base
    guard let sizes = candidates[index].mtu?.poll(now: now, isActive: isUnknown, number: number) else { return }
    let overhead = candidates[index].overhead ?? 0
    for size in [sizes.0, sizes.1] {
      if let size { probes.append(probe(index, number: size.number, size: max(size.size - overhead, 0))) }
    }
  }

  private func interval(_ index: Int, _ traffic: Traffic, now: MonotonicTime) -> UInt64 {
    ProbeInterval(
      isActive: traffic.isActive, pause: now.nanoseconds(since: lastActive), current: currentCandidate, leads: leads
    ).nanoseconds(candidates[index])
  }

  private mutating func schedule(now: MonotonicTime) {
    let latest = now.adding(nanoseconds: PathSelection.idleBackOff)
    nextDue = candidates.reduce(latest) { min($0, $1.nextDue(now: now)) }
  }
}
