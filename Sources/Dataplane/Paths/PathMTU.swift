package import PacketIO

/// The path MTU towards one peer. Sizes are bytes of whole IP packets outside.
///
/// A peer of this kind is asked with authenticated probes (Datagram PLPMTUD, RFC 8899), out of reach for forged ICMP. A
/// probe is a control message padded to the size in question; the peer answers it at once.
/// - Before the first answer, what can be cut is cut to `base`; see also `trial`. A pair of probes, one as small and one as
///   large as a packet may be, finds out whether the path takes more.
/// - While packets flow, such a pair goes out three times a second: if only small ones come back, three times in a row,
///   large packets vanish on the way (a black hole, RFC 8899 §4.3) and the size falls to the base. After the first bad
///   pair the next ones follow at once, so that the answer is known before TCP's third retransmission, behind which it
///   would wait for more than a second.
/// - Pairs then find out whether the base passes. Where it does not, the size falls to `least` (the error state of
///   RFC 8899 §5.2), and the search goes on from there.
/// - The search probes common sizes, then bisects; after `raiseInterval` it looks for more again.
/// - ICMP is not listened to, as RFC 8899 §4.6 allows: black holes are found as fast, and nobody can forge them.
///
/// A peer that is heard and answers none of several probes knows none: another ESP program. Towards it there is classical
/// discovery (RFC 1191, RFC 8201): from what this machine's own link takes, down by what routers say. `refuse` says what of
/// that is believed.
///
/// Pure: bytes and time are the caller's.
package struct PathMTU: BitwiseCopyable, Sendable {
  /// RFC 8899 §5.1.2: BASE_PLPMTU, MIN_PLPMTU, MAX_PROBES, PROBE_TIMER, PMTU_RAISE_TIMER.
  package static let base = 1200
  package static let least = 512
  static let maxProbes = 3
  static let probeTimer: UInt64 = 1_000_000_000
  package static let raiseInterval: UInt64 = 600_000_000_000
  /// How often a pair confirms the size in use, and how many bad pairs make a black hole.
  static let confirmInterval: UInt64 = 300_000_000
  /// The longest wait for a pair's answers where the round trip is known and short, and where it is not.
  static let longestPatience: UInt64 = 500_000_000
  static let longestFirstPatience: UInt64 = 3_000_000_000
  static let badPairs = 3
  /// So many pairs without an answer, while the peer is heard, make it one that knows no probes.
  static let silentPairs = 3
  /// Between two pairs to a peer that never answers: at most, and when it is heard for the first time.
  static let longestPairInterval: UInt64 = 30_000_000_000
  static let heardPairInterval: UInt64 = 1_000_000_000
  /// The search ends when the answer is known this well.
  static let precision = 16
  /// Bytes of the largest IP packet, whatever the link (RFC 791 §3.1).
  package static let largest = 65_535
  /// Packet sizes of common links and tunnels, which are probed first.
  private static let commonSizes: InlineArray<11, Int> = [
    1280, 1360, 1400, 1420, 1440, 1460, 1472, 1480, 1492, 1500, 9000,
  ]

  package enum Phase: UInt8, Sendable, BitwiseCopyable {
    /// The peer has not answered a probe yet.
    case unconfirmed
    /// It is heard and answers none.
    case classical
    /// It has answered; whether the base passes is not known.
    case base
    case searching
    case complete
  }

  /// A probe to be sent: `size` 0 is the smallest possible.
  package struct Probe: BitwiseCopyable, Sendable, Equatable {
    package var number: UInt64
    package var size: Int
  }

  /// Two probes whose answers are compared.
  private struct Pair: BitwiseCopyable {
    var small: Probe
    var large: Probe
    var sentAt: MonotonicTime
    var smallCame = false
    var largeCame = false
    /// Nanoseconds after which it is judged.
    var patience: UInt64
  }

  private struct Search: BitwiseCopyable {
    var probe: Probe
    var sentAt: MonotonicTime
    var attempts: Int
  }

  package private(set) var phase = Phase.unconfirmed
  /// The size packets may have now.
  package private(set) var current: Int
  /// The largest packet that the configuration can cause.
  package let maximum: Int
  /// What was not refused yet by this machine's link, or by routers where these are believed; and who has refused more.
  private var limit: Int
  private var limitSource = PathMTUSource.configured
  /// The largest size that was answered; 0: none. And the smallest that is believed not to pass.
  private var confirmed = 0
  private var tooLarge: Int
  private var pair: Pair?
  private var search: Search?
  private var consecutiveBad = 0
  private var consecutiveSilent = 0
  private var lastPair = MonotonicTime(nanoseconds: 0)
  private var nextPair = MonotonicTime(nanoseconds: 0)
  private var raiseAt = MonotonicTime(nanoseconds: UInt64.max)
  private let raiseInterval: UInt64
  private var pairInterval = PathMTU.confirmInterval

  /// Nanoseconds, smoothed as in RFC 6298; 0 while unknown.
  package private(set) var roundTrip: UInt64 = 0
  package private(set) var probesSent: UInt64 = 0
  package private(set) var probesAnswered: UInt64 = 0
  package private(set) var blackHoles: UInt64 = 0

  /// - Parameter maximum: the largest packet the configuration can cause.
  package init(maximum: Int, raiseInterval: UInt64 = PathMTU.raiseInterval) {
    self.maximum = min(max(maximum, PathMTU.least), PathMTU.largest)
    limit = self.maximum
    current = min(self.maximum, PathMTU.base)
    tooLarge = self.maximum + 1
    self.raiseInterval = raiseInterval
  }

  /// What packets may have that cannot be cut. Before anything is known they are let go as they are: to tell their senders
  /// of a size that may be outdated in a moment would have them send small packets for ten minutes (RFC 8201 §4).
  package var trial: Int { phase == .unconfirmed ? limit : current }

  /// What the size in use rests on.
  package var source: PathMTUSource {
    switch phase {
    case .unconfirmed: current < PathMTU.base ? limitSource : .base
    case .classical: limitSource
    case .base, .searching, .complete: confirmed >= current ? .probes : .base
    }
  }

  // MARK: Time

  /// What is to be sent now. Call every 50 to 100 ms while `isActive`, meaning that packets were sent to the peer
  /// within the last second, or a probe is under way.
  ///
  /// - Parameters:
  ///   - heard: when the last authentic packet came by this path.
  ///   - number: gives a number that was not used before.
  package mutating func poll(
    now: MonotonicTime, isActive: Bool, heard: MonotonicTime = MonotonicTime(nanoseconds: 0), number: () -> UInt64
  ) -> (Probe?, Probe?) {
    judgePair(now: now, heard: heard)
    if let probe = pollSearch(now: now, number: number) { return (probe, nil) }
    if phase == .unconfirmed, heard > lastPair {
      nextPair = min(nextPair, lastPair.adding(nanoseconds: PathMTU.heardPairInterval))
    }
    guard isActive, pair == nil, now >= nextPair || isRaiseDue(now: now), maximum > PathMTU.base || phase != .complete
    else { return (nil, nil) }
    return startPair(now: now, number: number)
  }

  /// When `poll` has something to do although the peer is not active.
  package var nextDue: MonotonicTime {
    if isWaiting || phase == .searching { return MonotonicTime(nanoseconds: 0) }
    return phase == .complete && current < maximum ? raiseAt : MonotonicTime(nanoseconds: UInt64.max)
  }

  /// Whether an answer is awaited.
  package var isWaiting: Bool { pair != nil || search != nil }

  private var isAnswered: Bool { phase != .unconfirmed && phase != .classical }

  private func isRaiseDue(now: MonotonicTime) -> Bool { phase == .classical && limit < maximum && now >= raiseAt }

  private mutating func startPair(now: MonotonicTime, number: () -> UInt64) -> (Probe?, Probe?) {
    var size = current
    if phase == .unconfirmed { size = limit }
    // Whether more passes, a packet tells that nobody misses.
    if isRaiseDue(now: now) { size = maximum }
    let new = Pair(
      small: Probe(number: number(), size: 0), large: Probe(number: number(), size: size), sentAt: now,
      patience: isAnswered ? patience : min(pairInterval, PathMTU.longestFirstPatience))
    pair = new
    lastPair = now
    // A peer that never answers is asked ever more seldom, up to twice a minute.
    nextPair = now.adding(nanoseconds: isAnswered ? PathMTU.confirmInterval : pairInterval)
    if !isAnswered { pairInterval = min(pairInterval * 2, PathMTU.longestPairInterval) }
    probesSent += 1
    return (new.small, new.large)
  }

  /// Nanoseconds to wait for a large packet's answer, from when it was sent.
  private var patience: UInt64 { max(min(4 * roundTrip, PathMTU.longestPatience), 2 * roundTrip, 200_000_000) }

  private mutating func judgePair(now: MonotonicTime, heard: MonotonicTime) {
    // The small one's answer has told how long one takes.
    guard let pair, now.nanoseconds(since: pair.sentAt) >= (pair.smallCame ? patience : pair.patience) else { return }
    self.pair = nil
    if pair.largeCame {
      consecutiveBad = 0
    } else if pair.smallCame {
      consecutiveBad += 1
      nextPair = now
      if consecutiveBad >= PathMTU.badPairs || (!isAnswered && current < pair.large.size) {
        fall(from: pair.large.size)
      }
    } else if !isAnswered {
      judgeSilence(pair, heard: heard)
    }
  }

  /// Neither of a pair was answered, and none ever was.
  private mutating func judgeSilence(_ pair: Pair, heard: MonotonicTime) {
    if phase == .classical {
      guard pair.large.size > current else { return }
      // Nobody has refused it.
      (limit, limitSource, current) = (pair.large.size, .configured, pair.large.size)
      return
    }
    guard heard > pair.sentAt else { return }
    consecutiveSilent += 1
    if consecutiveSilent >= PathMTU.silentPairs { assume() }
  }

  /// Without answers, what nobody has refused is taken to pass.
  package mutating func assume() {
    phase = .classical
    current = limit
  }

  /// That size does not pass: the base may, or nothing of the base's size does.
  private mutating func fall(from size: Int) {
    consecutiveBad = 0
    guard size > PathMTU.least else { return }
    if isAnswered, phase != .base { blackHoles += 1 }
    confirmed = 0
    search = nil
    if size > PathMTU.base {
      phase = .base
      current = min(PathMTU.base, limit)
      tooLarge = size + 1
    } else {
      phase = .searching
      current = PathMTU.least
      tooLarge = size
    }
  }

  private mutating func pollSearch(now: MonotonicTime, number: () -> UInt64) -> Probe? {
    if phase == .complete, current < maximum, now >= raiseAt {
      phase = .searching
      (limit, limitSource) = (maximum, .configured)
      tooLarge = maximum + 1
      search = Search(probe: Probe(number: 0, size: maximum), sentAt: MonotonicTime(nanoseconds: 0), attempts: 1)
    }
    guard phase == .searching else { return nil }
    if var search {
      guard now.nanoseconds(since: search.sentAt) >= max(PathMTU.probeTimer, 2 * roundTrip) else { return nil }
      if search.attempts < PathMTU.maxProbes {
        search.attempts += 1
        search.sentAt = now
        search.probe.number = number()
        self.search = search
        probesSent += 1
        return search.probe
      }
      tooLarge = min(tooLarge, search.probe.size)
      self.search = nil
    }
    guard let size = nextSize() else {
      finishSearch(now: now)
      return nil
    }
    let probe = Probe(number: number(), size: size)
    search = Search(probe: probe, sentAt: now, attempts: 1)
    probesSent += 1
    return probe
  }

  private mutating func finishSearch(now: MonotonicTime) {
    phase = .complete
    search = nil
    raiseAt = now.adding(nanoseconds: raiseInterval)
  }

  /// The middle of the common sizes that are still possible, then the middle of what is left.
  private func nextSize() -> Int? {
    var possible = 0
    for index in PathMTU.commonSizes.indices where isPossible(PathMTU.commonSizes[index]) { possible += 1 }
    if possible > 0 {
      var seen = 0
      for index in PathMTU.commonSizes.indices where isPossible(PathMTU.commonSizes[index]) {
        if seen == possible / 2 { return PathMTU.commonSizes[index] }
        seen += 1
      }
    }
    let passes = max(confirmed, current)
    guard tooLarge - passes > PathMTU.precision else { return nil }
    return (passes + tooLarge) / 2
  }

  private func isPossible(_ size: Int) -> Bool { size > max(confirmed, current) && size < tooLarge && size <= limit }

  // MARK: Answers

  /// The peer answered the probe of this number.
  package mutating func acknowledge(_ number: UInt64, now: MonotonicTime) {
    if var pair, number == pair.small.number || number == pair.large.number {
      measure(now.nanoseconds(since: pair.sentAt))
      if number == pair.small.number, !pair.smallCame {
        pair.smallCame = true
        probesAnswered += 1
      }
      if number == pair.large.number { pair.largeCame = true }
      self.pair = pair
      if pair.largeCame { confirm(pair.large.size, now: now) }
    } else if let search, number == search.probe.number {
      measure(now.nanoseconds(since: search.sentAt))
      probesAnswered += 1
      self.search = nil
      confirm(search.probe.size, now: now)
    }
  }

  private mutating func confirm(_ size: Int, now: MonotonicTime) {
    confirmed = max(confirmed, size)
    current = max(current, size)
    consecutiveBad = 0
    switch phase {
    case .unconfirmed, .classical: finishSearch(now: now)
    case .base:
      phase = .searching
      // What was too large is tried once more: the loss may have been chance.
      search = Search(
        probe: Probe(number: 0, size: min(tooLarge - 1, limit)), sentAt: MonotonicTime(nanoseconds: 0),
        attempts: PathMTU.maxProbes - 1)
    case .searching: if current >= limit { finishSearch(now: now) }
    case .complete: break
    }
  }

  private mutating func measure(_ sample: UInt64) {
    roundTrip = roundTrip == 0 ? max(sample, 1) : (roundTrip &* 7 &+ sample) / 8
  }

  // MARK: Refusals

  /// Packets of more than `size` bytes are refused by this machine's own link, which is always believed, or by a router:
  /// that counts where the peer answers no probes, and not below the base, where it would harm most if it was forged. That
  /// the message is about packets of this path is the caller's to find out.
  package mutating func refuse(over size: Int, by source: PathMTUSource, now: MonotonicTime) {
    guard source == .link || (!isAnswered && size >= PathMTU.base) else { return }
    let size = max(size, PathMTU.least)
    let isAboutPair = pair.map { $0.large.size > size } ?? false
    let isAboutSearch = search.map { $0.probe.size > size } ?? false
    guard size < limit || isAboutPair || isAboutSearch else { return }
    (limit, limitSource) = (min(size, maximum), source)
    raiseAt = now.adding(nanoseconds: raiseInterval)
    tooLarge = min(tooLarge, limit + 1)
    confirmed = min(confirmed, limit)
    current = phase == .classical ? limit : min(current, limit)
    if isAboutPair {
      pair = nil
      if phase != .classical { nextPair = now }
      if phase == .unconfirmed { pairInterval = PathMTU.confirmInterval }
    }
    if isAboutSearch {
      search =
        limit > current
        ? Search(probe: Probe(number: 0, size: limit), sentAt: MonotonicTime(nanoseconds: 0), attempts: 0) : nil
    }
  }
}
