package import PacketIO

/// One path and what is known of it.
package struct Candidate: Sendable {
  /// Never given twice.
  package let id: Int
  package internal(set) var path: Path
  var rank: PathRank
  package internal(set) var state = PathState.untried
  package internal(set) var since: MonotonicTime
  package internal(set) var meter = PathMeter()
  var nextProbe: MonotonicTime
  /// Probes since it stopped working, for the back-off.
  var attempts = 0
  /// How often it died while traffic took it, not long ago, and when it did last.
  var flaps = 0
  var lastFlap = MonotonicTime(nanoseconds: 0)
  /// Nil where packets of any size get through.
  package var mtu: PathMTU?
  /// Bytes that the path adds to a sealed packet; nil: any size gets through.
  package var overhead: Int?
  /// The embedder's transport has said what it takes.
  package var isSettled = false
  /// The transport knows that packets of the peer came by this path.
  package var isConfirmed = false
  /// This side's address, as the peer sees it by this path.
  package internal(set) var seen: Endpoint?
  /// The peer was heard here before anything was sent: it could open the path from outside.
  package internal(set) var isOpenedByPeer = false
  /// There is another stream for the same two addresses that is to be kept.
  var isNeedless = false
  /// Since when it has been needless and unused.
  var needlessSince: MonotonicTime?

  var isUsable: Bool { state == .working || state == .suspect }
  /// As `PathRank` has them.
  package var place: Int? { rank.place }
  var originates: Bool { rank.originates }
  var order: Int { rank.order }

  // MARK: States

  mutating func enter(_ state: PathState, now: MonotonicTime) {
    self.state = state
    since = now
  }

  /// Probes that prove a path, and how many of them may be lost.
  static let provingProbes = 20
  static let provingLosses = 1
  /// Between them.
  static let shortestProvingInterval: UInt64 = 200_000_000
  /// Doublings of that interval at most, one for each flap; a flap is forgotten after so long.
  static let provingDoublings = 4
  static let flapMemory: UInt64 = 120_000_000_000
  /// A path is lossy when so many of so many probes were lost; another that is proved is better then.
  static let lossyWindow = 16
  static let lossyLosses = 5

  /// It has answered nearly all of the newest probes.
  var isProved: Bool {
    state == .working && !isNeedless && meter.judged >= Candidate.provingProbes
      && meter.lost(ofLast: Candidate.provingProbes) <= Candidate.provingLosses
  }

  var isLossy: Bool {
    meter.judged >= Candidate.lossyWindow && meter.lost(ofLast: Candidate.lossyWindow) >= Candidate.lossyLosses
  }

  var isUnsteady: Bool { meter.lost(ofLast: 16) >= 2 }

  /// Packets of any size get through.
  var isStream: Bool { isSettled && overhead == nil }

  /// The peer has answered along it, to a number that nobody else could know.
  var hasAnswered: Bool { meter.answered > 0 || mtu.map { $0.probesAnswered > 0 } ?? false }

  /// Nanoseconds between two probes of a path that is to prove itself.
  var provingInterval: UInt64 { Candidate.shortestProvingInterval << UInt64(flaps) }

  /// A path that only the peer can open is asked while it works, and for a while after the peer was heard there, or has
  /// said that it is there.
  func isAsked(now: MonotonicTime) -> Bool {
    if state == .yielded { return false }
    if isUsable || originates { return true }
    guard let sign = meter.lastSign else { return false }
    return now.nanoseconds(since: sign) < PathSelection.activeBackOff
  }

  /// Whether it is to be asked now; where the peer has only said that it is there, and was never heard, as far as there is
  /// credit.
  mutating func isDue(_ credit: inout NamedCredit, now: MonotonicTime) -> Bool {
    guard isAsked(now: now), now >= nextProbe else { return false }
    if place != nil || meter.lastHeard != nil || credit.pay() { return true }
    nextProbe = now.adding(nanoseconds: PathSelection.shortest)
    return false
  }

  /// The peer says that it is there: where that is not known, it is asked at once.
  mutating func expect(now: MonotonicTime) {
    guard !isUsable, state != .yielded else { return }
    meter.expect(now: now)
    attempts = 0
    nextProbe = now
  }

  /// When there is something to do about it though the peer is not active; `PathSelection.idleBackOff` at the latest.
  func nextDue(now: MonotonicTime) -> MonotonicTime {
    var due = now.adding(nanoseconds: PathSelection.idleBackOff)
    if meter.isWaiting || state == .suspect || mtu?.isWaiting == true {
      due = min(due, now.adding(nanoseconds: PathSelection.shortest))
    }
    if isAsked(now: now) { due = min(due, nextProbe) }
    if let needlessSince { due = min(due, needlessSince.adding(nanoseconds: PathSelection.courtesy)) }
    return due
  }

  /// The transport says that the path adds so many bytes to a sealed packet; see `Array.settle`.
  mutating func settle(
    _ bytes: Int?, everything: Bool, largestSealed: Int, largestOuter: Int, raiseInterval: UInt64
  ) {
    isSettled = true
    if !everything, overhead == bytes, (mtu == nil) == (bytes == nil) { return }
    overhead = bytes
    mtu = bytes.map { PathMTU(maximum: min(largestSealed + $0, largestOuter), raiseInterval: raiseInterval) }
  }

  /// Packets there of more than `size` bytes are refused; see `PathMTU.refuse`. Of IPv6, every link takes 1280 bytes
  /// (RFC 8200 §5), so who says less is not believed.
  mutating func refuse(over size: Int, by source: PathMTUSource, now: MonotonicTime) {
    guard source == .link || path.endpoint.address.isV4 || size >= InnerPacket.leastMTUv6 else { return }
    mtu?.refuse(over: size, by: source, now: now)
  }
}

extension [Candidate] {
  /// What the transports say of a path: bytes that it adds to a sealed packet; nil: packets of any size get through.
  ///
  /// - Parameters:
  ///   - everything: what packets may become has changed, so that all is measured anew.
  ///   - largestSealed: bytes of the largest sealed packet that the configuration can cause.
  ///   - largestOuter: bytes of the largest packet outside that it allows.
  ///   - raiseInterval: as `PathMTU` has it.
  package mutating func settle(
    everything: Bool, largestSealed: Int, largestOuter: Int = PathMTU.largest, raiseInterval: UInt64,
    overhead: (Path) -> Int?
  ) {
    for index in indices where everything || !self[index].isSettled {
      self[index].settle(
        overhead(self[index].path), everything: everything, largestSealed: largestSealed, largestOuter: largestOuter,
        raiseInterval: raiseInterval)
    }
  }

  /// Paths by which the peer was heard and that were not returned before.
  package mutating func takeUnconfirmed() -> [Path] {
    var paths: [Path] = []
    for index in indices where !self[index].isConfirmed && self[index].meter.lastHeard != nil {
      self[index].isConfirmed = true
      paths.append(self[index].path)
    }
    return paths
  }

  /// A probe could not be sent.
  mutating func withdraw(_ number: UInt64) { for index in indices { self[index].meter.withdraw(number) } }

  /// Learned paths that have been dead for long are forgotten.
  mutating func forget(now: MonotonicTime, butFor current: Int?) {
    removeAll {
      $0.place == nil && $0.id != current && !$0.isUsable && $0.state != .yielded
        && now.nanoseconds(since: $0.since) > PathSelection.forgetting
    }
  }

  /// All are taken to pass whatever nobody has refused, as those of peers that answer no probes.
  package mutating func assumeSizes() { for index in indices { self[index].mtu?.assume() } }

  /// Packets of more than `size` bytes to that address are refused: by this machine's own link, or by a router that has
  /// quoted one of them. The port may be another: what is said of one socket's packets holds for all.
  mutating func refuse(over size: Int, at path: Path, by source: PathMTUSource, now: MonotonicTime) {
    for index in indices
    where self[index].path.transport == path.transport && self[index].path.endpoint.address == path.endpoint.address {
      self[index].refuse(over: size, by: source, now: now)
    }
  }

  /// Of the first relay; nil: there is none.
  var firstRelay: Int? { filter(\.rank.isRelayed).compactMap(\.place).min() }

  /// The best path that works; one that is suspect only where none does.
  var bestUsable: Int? {
    func best(_ state: PathState) -> Int? {
      filter { $0.state == state }.min {
        ($0.isNeedless ? 1 : 0, $0.order) < ($1.isNeedless ? 1 : 0, $1.order)
      }?
      .id
    }
    return best(.working) ?? best(.suspect)
  }
}
