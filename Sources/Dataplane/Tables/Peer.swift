package import PacketIO

/// What a worker knows of a peer and changes while packets flow. Lives on through changes of the configuration.
///
/// What every packet needs comes first, on two cache lines. What is known of the peer's paths comes last; of it, `path`
/// and `largestSealed` are copies for the packets.
package struct Peer: ~Copyable {
  /// Where sealed packets go; nil until configured or learned.
  package private(set) var path: Path?
  /// The node has to look at this peer: it was heard elsewhere.
  package var isHeardElsewhere = false
  /// Something may go to where it was heard.
  private(set) var hasCredit = false
  /// The train being filled for this peer, by its place among the open ones, if the one there is for this peer.
  var openTrain: Int32 = -1
  /// Packets that are gathered for this peer, by their place among the open aggregates; -1: none.
  var openAggregate: Int32 = -1
  /// The peer has said in its newest probe, or answer to one, that it takes several packets in one.
  package var takesAggregates = false
  /// The peer answers under this worker's own association.
  var usesOwnAssociation = false
  /// Bytes of the largest sealed packet that the path takes, without what the path adds.
  private(set) var largestSealed = Int32(SealedTrain.bytes)
  /// The same of packets that cannot be cut: more, while nothing is known; see `PathMTU.trial`.
  private(set) var largestTrial = Int32(SealedTrain.bytes)
  /// The last sealed packet or keep-alive.
  package var lastSent: MonotonicTime
  /// When a packet last came by `path`.
  package var lastHeardHere = MonotonicTime(nanoseconds: 0)
  /// When there is something to do about the paths although nothing is sent to the peer.
  package private(set) var nextDue = MonotonicTime(nanoseconds: 0)
  package var sent = TrafficCount()
  package var received = TrafficCount()
  /// The last authenticated packet.
  package var lastHeard: MonotonicTime?
  package var translated = TranslationCount()
  /// Where the newest authenticated packet came from that did not come by `path`; nil: none did since the node looked.
  package var heardBy: Path?
  /// Which paths there are, and which one is taken; with another worker that looks after the paths, none.
  package private(set) var selection: PathSelection
  /// Where the peer was heard, while it is asked there; at the end, because it seldom is.
  private var credit: PathCredit?
  /// Bytes of the first fields.
  static let hotBytes = 128

  package init(paths: [ConfiguredPath], now: MonotonicTime) {
    selection = PathSelection(paths, isChoice: paths.areChoice, now: now)
    lastSent = now
    follow()
  }

  // MARK: Paths

  /// Lends the selection, and does what it has decided.
  @discardableResult
  package mutating func withSelection<R>(_ body: (inout PathSelection) -> R) -> R {
    defer { follow() }
    return body(&selection)
  }

  /// What is known of the size of packets on the path; nil where any size fits, and where there is no path.
  package var mtu: PathMTU? { selection.currentMTU }

  /// The peer is where traffic goes: it has answered from there, or was heard on a stream, at whose end somebody is.
  var isPathVerified: Bool {
    guard let candidate = selection.currentCandidate else { return false }
    return candidate.hasAnswered || candidate.isStream && lastHeardHere.nanoseconds > 0
  }

  /// Whether a path is one of the peer's.
  func knows(_ path: Path) -> Bool { self.path == path || selection.candidates.contains { $0.path == path } }

  /// The selection, where there is a choice.
  package var choice: PathSelection? { selection.isChoice ? selection : nil }

  /// An authentic packet, the newest, has come by another path.
  mutating func hear(by path: Path, bytes: Int32, now: MonotonicTime) {
    heardBy = path
    if credit?.path != path { credit = PathCredit(path, now: now) }
    credit?.earn(bytes, now: now)
    hasCredit = true
  }

  /// Something newer has come by the path that traffic takes: the peer is there.
  mutating func hearHere() {
    heardBy = nil
    (credit, hasCredit) = (nil, false)
  }

  /// Where a train goes instead: to where the peer was heard and is being asked, as far as there is credit for that.
  @inline(__always)
  mutating func path(for bytes: Int32, usually path: Path, now: MonotonicTime) -> Path {
    hasCredit ? pathOnCredit(bytes: bytes, now: now) ?? path : path
  }

  @inline(never)
  private mutating func pathOnCredit(bytes: Int32, now: MonotonicTime) -> Path? {
    guard let path = credit?.path, selection.challenge?.moves(selection.currentCandidate, to: path) == true,
      credit?.pay(bytes, now: now) == true
    else { return nil }
    return path
  }

  /// Where the peer was heard elsewhere than by `path`; each place is returned once.
  package mutating func takeHeardBy() -> Path? {
    defer { heardBy = nil }
    return heardBy
  }

  /// What another worker that looks after the paths has told.
  mutating func take(_ path: Path?, sealedLimit: Int32, trialLimit: Int32) {
    self.path = path
    largestSealed = sealedLimit
    largestTrial = trialLimit
  }

  /// Bytes of the largest inner packet that fits the path now.
  @inline(__always)
  func largestInner(implicitIV: Bool) -> Int {
    ESPPacket.largestInner(Int(largestSealed), implicitIV: implicitIV)
  }

  /// The same of one that cannot be cut.
  @inline(__always)
  func largestTrial(implicitIV: Bool) -> Int {
    ESPPacket.largestInner(Int(largestTrial), implicitIV: implicitIV)
  }

  /// Traffic takes the path that the selection has chosen.
  private mutating func follow() {
    let chosen = selection.currentPath
    if path != chosen {
      path = chosen
      (credit, hasCredit) = (nil, false)
      lastHeardHere = MonotonicTime(nanoseconds: 0)
    }
    let mtu = selection.currentMTU
    let overhead = selection.currentOverhead
    largestSealed = Int32(clamping: mtu.map { $0.current - overhead } ?? SealedTrain.bytes)
    largestTrial = Int32(clamping: mtu.map { $0.trial - overhead } ?? SealedTrain.bytes)
    let due = mtu?.nextDue ?? MonotonicTime(nanoseconds: UInt64.max)
    nextDue = selection.isChoice ? min(selection.nextDue, due) : due
  }
}
