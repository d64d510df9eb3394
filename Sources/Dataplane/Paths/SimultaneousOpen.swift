package import PacketIO

extension PathSelection {
  /// Nanoseconds that a needless stream stays after its last use: what is under way there shall arrive.
  static let courtesy: UInt64 = 2_000_000_000

  /// Where both sides have opened a stream, because nobody said who can be reached, one is enough: that which the side
  /// with the higher address opened, as between two that are known to be open (`Reach.opener`). Traffic goes there, and
  /// when neither side has used the other one for `courtesy`, who opened that gives it up.
  ///
  /// Both sides compare the same two addresses, namely those that each sees of the other, so they agree.
  mutating func settleTwins(now: MonotonicTime) {
    for index in candidates.indices {
      let twin = candidates.keptTwin(of: index)
      candidates[index].isNeedless = twin != nil
      switch (candidates[index].state, twin) {
      case (.yielded, nil): resume(index, now: now)
      case (.working, let twin?): leave(index, for: twin, now: now)
      default: candidates[index].needlessSince = nil
      }
    }
  }

  /// Paths of streams that this side opened and does not need any more; each is returned once.
  package mutating func takeReleased() -> [Path] {
    defer { released = [] }
    return released
  }

  private mutating func leave(_ index: Int, for twin: Int, now: MonotonicTime) {
    let candidate = candidates[index]
    let kept = candidates[twin].id
    if candidate.id == current || candidate.id == partnerPath {
      candidates[index].needlessSince = nil
      // Who follows would be called back as long as the leader has not left.
      if candidate.id == current, leads || partnerPath == kept { take(kept, .streamKept, now: now) }
    } else if let since = candidate.needlessSince {
      guard now.nanoseconds(since: since) >= PathSelection.courtesy else { return }
      candidates[index].needlessSince = nil
      candidates[index].enter(.yielded, now: now)
      if candidate.place != nil { released.append(candidate.path) }
    } else {
      candidates[index].needlessSince = now
    }
  }

  private mutating func resume(_ index: Int, now: MonotonicTime) {
    // A stream that the peer had opened is gone; when it opens another, that is heard.
    guard candidates[index].place != nil else { return candidates[index].enter(.dead, now: now) }
    candidates[index].enter(.untried, now: now)
    candidates[index].attempts = 0
    candidates[index].nextProbe = now
  }
}

extension [Candidate] {
  /// The stream that does in place of this one; nil where there is none, or this one is to be kept.
  fileprivate func keptTwin(of index: Int) -> Int? {
    let candidate = self[index]
    let isOwn = candidate.place != nil
    guard candidate.isStream, !isOwn || candidate.originates else { return nil }
    let twin = firstIndex {
      $0.isStream && $0.isUsable && $0.path.transport == candidate.path.transport
        && $0.path.endpoint.address == candidate.path.endpoint.address && ($0.place != nil) != isOwn
    }
    guard let twin, let seen = candidate.seen ?? self[twin].seen else { return nil }
    let (here, there) = (seen.address, candidate.path.endpoint.address)
    guard here.family == there.family, here != there, (here < there) == isOwn else { return nil }
    return twin
  }
}
