package import PacketIO

/// The path MTU towards one peer, found with authenticated probes (Datagram PLPMTUD, RFC 8899) and so out of reach
/// for forged ICMP. Sizes are bytes of whole IP packets outside.
///
/// A probe is a control message padded to the size in question; the peer answers it at once.
/// - At first the configured maximum is believed. The peer's first answers confirm it or refute it.
/// - While packets flow, a pair of probes, one as small and one as large as a packet may be, goes out three times a
///   second: if only small ones come back, three times in a row, large packets vanish on the way (a black hole,
///   RFC 8899 §4.3) and the size falls to the base. After the first bad pair the next ones follow at once, so that
///   the answer is known before TCP's third retransmission, behind which it would wait for more than a second.
/// - From there a search probes common sizes, then bisects; after `raiseInterval` it looks for more again.
/// - ICMP is not listened to at all, as RFC 8899 §4.6 allows: black holes are found as fast, and nobody can forge them.
///
/// Pure: bytes and time are the caller's.
package struct PathMTU: BitwiseCopyable, Sendable {
  /// RFC 8899 §5.1.2: BASE_PLPMTU, MAX_PROBES, PROBE_TIMER, PMTU_RAISE_TIMER.
  package static let base = 1200
  static let maxProbes = 3
  static let probeTimer: UInt64 = 1_000_000_000
  package static let raiseInterval: UInt64 = 600_000_000_000
  /// How often a pair confirms the size in use, and how many bad pairs make a black hole.
  static let confirmInterval: UInt64 = 300_000_000
  /// The longest wait for a pair's answers.
  static let longestPatience: UInt64 = 500_000_000
  static let badPairs = 3
  /// The search ends when the answer is known this well.
  static let precision = 16
  /// Packet sizes of common links and tunnels, which are probed first.
  private static let commonSizes: InlineArray<11, Int> = [
    1280, 1360, 1400, 1420, 1440, 1460, 1472, 1480, 1492, 1500, 9000,
  ]

  package enum Phase: UInt8, Sendable, BitwiseCopyable {
    /// The peer has not answered a probe; perhaps it knows none.
    case unconfirmed
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
  package let maximum: Int
  /// The largest size that was answered, and the smallest that is believed not to pass.
  private var confirmed = PathMTU.base
  private var tooLarge: Int
  private var pair: Pair?
  private var search: Search?
  private var consecutiveBad = 0
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
    self.maximum = max(maximum, PathMTU.base)
    current = self.maximum
    tooLarge = self.maximum + 1
    self.raiseInterval = raiseInterval
  }

  /// Begins anew, as after a change of path.
  package mutating func restart() {
    let old = self
    self = PathMTU(maximum: maximum, raiseInterval: raiseInterval)
    (roundTrip, probesSent, probesAnswered, blackHoles) =
      (old.roundTrip, old.probesSent, old.probesAnswered, old.blackHoles)
  }

  // MARK: Time

  /// What is to be sent now. Call every 50 to 100 ms while `isActive`, meaning that packets were sent to the peer
  /// within the last second, or a probe is under way.
  ///
  /// - Parameter number: gives a number that was not used before.
  package mutating func poll(now: MonotonicTime, isActive: Bool, number: () -> UInt64) -> (Probe?, Probe?) {
    judgePair(now: now)
    if let probe = pollSearch(now: now, number: number) { return (probe, nil) }
    guard isActive, pair == nil, now >= nextPair, maximum > PathMTU.base || phase == .unconfirmed else {
      return (nil, nil)
    }
    return startPair(now: now, number: number)
  }

  /// When `poll` has something to do although the peer is not active.
  package var nextDue: MonotonicTime {
    if isWaiting || phase == .searching { return MonotonicTime(nanoseconds: 0) }
    return phase == .complete && current < maximum ? raiseAt : MonotonicTime(nanoseconds: UInt64.max)
  }

  /// Whether an answer is awaited.
  package var isWaiting: Bool { pair != nil || search != nil }

  private mutating func startPair(now: MonotonicTime, number: () -> UInt64) -> (Probe?, Probe?) {
    let new = Pair(
      small: Probe(number: number(), size: 0), large: Probe(number: number(), size: current), sentAt: now,
      patience: min(max(4 * roundTrip, 200_000_000), PathMTU.longestPatience))
    pair = new
    // A peer that never answers is asked ever more seldom, up to twice a minute.
    nextPair = now.adding(nanoseconds: phase == .unconfirmed ? pairInterval : PathMTU.confirmInterval)
    if phase == .unconfirmed { pairInterval = min(pairInterval * 2, 30_000_000_000) }
    probesSent += 1
    return (new.small, new.large)
  }

  private mutating func judgePair(now: MonotonicTime) {
    guard let pair, now.nanoseconds(since: pair.sentAt) >= pair.patience else { return }
    self.pair = nil
    guard pair.smallCame, !pair.largeCame else {
      if pair.largeCame { consecutiveBad = 0 }
      return
    }
    consecutiveBad += 1
    nextPair = now
    if consecutiveBad >= PathMTU.badPairs || phase == .unconfirmed { fallToBase(now: now) }
  }

  /// The current size does not pass. The search begins with it nevertheless: the loss may have been chance.
  private mutating func fallToBase(now: MonotonicTime) {
    guard current > PathMTU.base else { return }
    if phase != .unconfirmed { blackHoles += 1 }
    consecutiveBad = 0
    phase = .searching
    tooLarge = current + 1
    confirmed = PathMTU.base
    // One attempt only.
    search = Search(
      probe: Probe(number: 0, size: current), sentAt: MonotonicTime(nanoseconds: 0), attempts: PathMTU.maxProbes - 1)
    current = PathMTU.base
  }

  private mutating func pollSearch(now: MonotonicTime, number: () -> UInt64) -> Probe? {
    if phase == .complete, current < maximum, now >= raiseAt {
      phase = .searching
      tooLarge = maximum + 1
      confirmed = current
      search = Search(probe: Probe(number: 0, size: maximum), sentAt: MonotonicTime(nanoseconds: 0), attempts: 1)
    }
    guard phase == .searching else { return nil }
    if var search {
      guard now.nanoseconds(since: search.sentAt) >= PathMTU.probeTimer else { return nil }
      if search.attempts < PathMTU.maxProbes {
        search.attempts += 1
        search.sentAt = now
        search.probe.number = number()
        self.search = search
        probesSent += 1
        return search.probe
      }
      tooLarge = search.probe.size
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
    guard tooLarge - confirmed > PathMTU.precision else { return nil }
    return (confirmed + tooLarge) / 2
  }

  private func isPossible(_ size: Int) -> Bool { size > confirmed && size < tooLarge && size <= maximum }

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
    if phase == .unconfirmed || current == maximum { finishSearch(now: now) }
  }

  private mutating func measure(_ sample: UInt64) {
    roundTrip = roundTrip == 0 ? max(sample, 1) : (roundTrip &* 7 &+ sample) / 8
  }
}
