package import PacketIO

/// Where a peer was heard and is asked whether it really is, before traffic goes there: packets under its key may have
/// been sent from there by somebody who has copied them, or by a peer that means to harm whoever is at that address
/// (return routability, RFC 8046 §3.3).
///
/// Not asked are streams, at whose other end somebody is, addresses that the configuration lists, and the first address
/// of a peer that has none. A peer that has never answered a probe, as other programs' ESP does not, is followed
/// without, as RFC 7296 §2.23 has it.
package struct PathChallenge: Sendable {
  /// Nanoseconds until it is asked again.
  static let interval: UInt64 = 100_000_000

  let path: Path
  /// Which path has moved there, by its id; nil: the only one.
  let candidate: Int?
  var number: UInt64 = 0
  var askedAt: MonotonicTime?

  /// What to ask when a peer is heard at a place. Who comes from ever other addresses has no more questions sent than who
  /// comes from one: whoever was asked just now has time to answer.
  static func next(after asked: PathChallenge?, _ path: Path, candidate: Int?, now: MonotonicTime) -> PathChallenge {
    if let asked {
      if asked.path == path, asked.candidate == candidate { return asked }
      if let time = asked.askedAt, now.nanoseconds(since: time) < interval { return asked }
    }
    return PathChallenge(path: path, candidate: candidate)
  }

  /// Whether a candidate will be at the path, once the peer has answered.
  func moves(_ candidate: Candidate?, to path: Path) -> Bool {
    self.path == path && (self.candidate == nil || self.candidate == candidate?.id)
  }
}

/// What is to be done about a place where the peer was heard.
package enum PathMove {
  case follow
  /// Ask there first.
  case ask(PathProbe)
  /// It was asked not long ago.
  case wait
  /// Follow, if the peer has not moved too often.
  case followUnasked
}

extension PathSelection {
  /// Without a choice: the newest authentic packet came by another path.
  ///
  /// - Parameter isStream: packets of any size get through there.
  package mutating func move(to path: Path, isStream: Bool, now: MonotonicTime, number: () -> UInt64) -> PathMove {
    guard let current = currentCandidate, !isStream,
      !candidates.contains(where: { $0.path == path && $0.place != nil })
    else { return .follow }
    guard answersProbes else { return .followUnasked }
    challenge = PathChallenge.next(after: challenge, path, candidate: nil, now: now)
    guard let number = askChallenge(now: now, number: number), let place = index(of: current.id) else { return .wait }
    return .ask(probe(place, to: path, number: number))
  }

  /// Where the peer has answered, if that was asked with this number.
  package mutating func takeChallenge(answeredBy number: UInt64) -> Path? {
    guard let challenge, challenge.candidate == nil, challenge.number == number, challenge.askedAt != nil else {
      return nil
    }
    self.challenge = nil
    return challenge.path
  }

  /// The number of a question that is due; nil: none is.
  mutating func askChallenge(now: MonotonicTime, number: () -> UInt64) -> UInt64? {
    guard let asked = challenge else { return nil }
    if let time = asked.askedAt, now.nanoseconds(since: time) < PathChallenge.interval { return nil }
    let number = number()
    challenge?.number = number
    challenge?.askedAt = now
    return number
  }
}
