package import PacketIO

extension Ladder {
  /// Nanoseconds that a needless stream stays after its last use: what is under way there shall arrive.
  static let courtesy: UInt64 = 2_000_000_000

  /// Where both sides have opened a stream, because nobody said who can be reached, one is enough: that which the side
  /// with the higher address opened, as between two that are known to be open (`Reach.opener`). Traffic goes there, and
  /// when neither side has used the other one for `courtesy`, who opened that gives it up.
  ///
  /// Both sides compare the same two addresses, namely those that each sees of the other, so they agree.
  mutating func settleTwins(now: MonotonicTime) {
    for index in rungs.indices {
      let twin = keptTwin(of: index)
      rungs[index].isNeedless = twin != nil
      switch (rungs[index].state, twin) {
      case (.yielded, nil): resume(index, now: now)
      case (.working, let twin?): leave(index, for: twin, now: now)
      default: rungs[index].needlessSince = nil
      }
    }
  }

  /// Paths of streams that this side opened and does not need any more; each is returned once.
  package mutating func takeReleased() -> [Path] {
    defer { released = [] }
    return released
  }

  private mutating func leave(_ index: Int, for twin: Int, now: MonotonicTime) {
    let rung = rungs[index]
    let kept = rungs[twin].id
    if rung.id == current || rung.id == partnerRoad {
      rungs[index].needlessSince = nil
      // Who follows would be called back as long as the leader has not left.
      if rung.id == current, leads || partnerRoad == kept { take(kept, .streamKept, now: now) }
    } else if let since = rung.needlessSince {
      guard now.nanoseconds(since: since) >= Ladder.courtesy else { return }
      rungs[index].needlessSince = nil
      enter(.yielded, index, now: now)
      if rung.place != nil { released.append(rung.path) }
    } else {
      rungs[index].needlessSince = now
    }
  }

  private mutating func resume(_ index: Int, now: MonotonicTime) {
    // A stream that the peer had opened is gone; when it opens another, that is heard.
    guard rungs[index].place != nil else { return enter(.dead, index, now: now) }
    enter(.untried, index, now: now)
    rungs[index].attempts = 0
    rungs[index].nextProbe = now
  }

  /// The stream that does in place of this one; nil where there is none, or this one is to be kept.
  private func keptTwin(of index: Int) -> Int? {
    let rung = rungs[index]
    let isOwn = rung.place != nil
    guard isStream(rung), !isOwn || rung.originates else { return nil }
    let twin = rungs.firstIndex {
      isStream($0) && $0.isUsable && $0.path.transport == rung.path.transport
        && $0.path.endpoint.address == rung.path.endpoint.address && ($0.place != nil) != isOwn
    }
    guard let twin, let seen = rung.seen ?? rungs[twin].seen else { return nil }
    let (here, there) = (seen.address, rung.path.endpoint.address)
    guard here.family == there.family, here != there, (here < there) == isOwn else { return nil }
    return twin
  }

  private func isStream(_ rung: Rung) -> Bool { rung.isSettled && rung.overhead == nil }
}
