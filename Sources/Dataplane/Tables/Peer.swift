package import PacketIO

/// What a worker knows of a peer and changes while packets flow. Lives on through changes of the configuration.
///
/// What every packet needs comes first, on two cache lines.
package struct Peer: ~Copyable {
  /// Where sealed packets go; nil until configured or learned.
  package var path: Path?
  /// The worker has to look at this peer: its path moved, or it was heard elsewhere.
  package var pathMoved = false
  /// The train being filled for this peer, by its place among the open ones; -1: none.
  var openTrain: Int32 = -1
  /// Packets that are gathered for this peer, by their place among the open aggregates; -1: none.
  var openAggregate: Int32 = -1
  /// The peer has said in its newest probe, or answer to one, that it takes several packets in one.
  package var takesAggregates = false
  /// The peer answers under this worker's own association.
  var usesOwnAssociation = false
  /// Bytes of the largest sealed packet, without what the path adds.
  private var largestSealed = Int32(OutboundPipeline.trainBytes)
  /// The last sealed packet or keep-alive.
  package var lastSent: MonotonicTime
  /// When a packet last came by `path`.
  package var lastHeardHere = MonotonicTime(nanoseconds: 0)
  package var sent = TrafficCount()
  package var received = TrafficCount()
  /// The last authenticated packet.
  package var lastHeard: MonotonicTime?
  package var translated = TranslationCount()
  /// How large packets on the path may be; nil where any size fits.
  package private(set) var mtu: PathMTU? { didSet { fit() } }
  /// Bytes that the path adds to a sealed packet.
  private(set) var overhead = 0 { didSet { fit() } }
  /// Bytes of the largest sealed packet where `mtu` does not say: with another worker that looks after the paths, what
  /// it has told.
  var sealedLimit = OutboundPipeline.trainBytes { didSet { fit() } }
  /// Which of several paths is taken; nil: there is one at most, and the newest authenticated packet moves it.
  package private(set) var selection: PathSelection?
  /// With a selection: where the newest authenticated packet came from that did not come by `path`.
  package var heardBy: Path?
  /// The candidate whose path MTU is here at the moment, by its id.
  private var carried: Int?
  /// Bytes of the first fields.
  static let hotBytes = 128

  package init(path: Path?, now: MonotonicTime) {
    self.path = path
    lastSent = now
  }

  package init(paths: [ConfiguredPath], now: MonotonicTime) {
    self.init(path: paths.first(where: \.originates)?.path, now: now)
  }

  /// The path is another one, so what was measured does not hold any more.
  ///
  /// - Parameters:
  ///   - overhead: bytes the path adds to a sealed packet; nil when it takes packets of any size.
  ///   - largestSealed: bytes of the largest sealed packet the configuration can cause.
  package mutating func pathSelected(overhead: Int?, largestSealed: Int, raiseInterval: UInt64) {
    self.overhead = overhead ?? 0
    mtu = overhead.map { PathMTU(maximum: largestSealed + $0, raiseInterval: raiseInterval) }
  }

  // MARK: Several paths

  /// From now on there is a selection; the path stays.
  package mutating func makeSelection(_ paths: [ConfiguredPath], tieBreaker: UInt64, now: MonotonicTime) {
    // What is known of the path so far, the selection takes over.
    let selection = PathSelection(paths, path: path, tieBreaker: tieBreaker, now: now)
    carried = selection.current
    self.selection = selection
    path = selection.currentCandidate?.path
  }

  /// Lends the selection; nil where there is none.
  package mutating func withSelection<R>(_ body: (inout PathSelection) -> R) -> R? {
    guard selection != nil else { return nil }
    return body(&selection!)
  }

  /// When the selection has something to do while the peer is idle.
  package var selectionDue: MonotonicTime { selection?.nextDue ?? MonotonicTime(nanoseconds: UInt64.max) }

  /// The configuration has another list.
  package mutating func relist(_ paths: [ConfiguredPath], now: MonotonicTime) {
    if selection == nil {
      path = paths.first(where: \.originates)?.path
    } else {
      selection?.relist(paths, now: now)
      followSelection()
    }
  }

  /// Asks for each path what it adds to a packet and, where that is new, measures anew.
  ///
  /// - Parameters:
  ///   - everything: what packets may become has changed.
  ///   - overhead: as `TransportLink.overhead`.
  package mutating func settle(
    everything: Bool, largestSealed: Int, raiseInterval: UInt64, overhead: (Path) -> Int?
  ) {
    guard selection != nil else {
      if let path {
        pathSelected(overhead: overhead(path), largestSealed: largestSealed, raiseInterval: raiseInterval)
      }
      return
    }
    for index in selection!.candidates.indices where everything || !selection!.candidates[index].isSettled {
      let bytes = overhead(selection!.candidates[index].path)
      let isCarried = selection!.candidates[index].id == carried
      let known = isCarried ? mtu : selection!.candidates[index].mtu
      selection!.candidates[index].isSettled = true
      if !everything, selection!.candidates[index].overhead == bytes, (known == nil) == (bytes == nil) { continue }
      selection!.candidates[index].overhead = bytes
      if isCarried {
        pathSelected(overhead: bytes, largestSealed: largestSealed, raiseInterval: raiseInterval)
      } else {
        selection!.candidates[index].mtu = bytes.map {
          PathMTU(maximum: largestSealed + $0, raiseInterval: raiseInterval)
        }
      }
    }
  }

  /// Takes the path that the selection has chosen, with what is known of its packets. Returns whether the path is another.
  @discardableResult
  package mutating func followSelection() -> Bool {
    guard let candidate = selection?.currentCandidate else {
      defer { path = nil }
      return path != nil
    }
    if candidate.id != carried {
      if let place = selection?.index(of: carried) { selection?.candidates[place].mtu = mtu }
      carried = candidate.id
      mtu = candidate.mtu
      overhead = candidate.overhead ?? 0
      if let place = selection?.index(of: candidate.id) { selection?.candidates[place].mtu = nil }
      lastHeardHere = MonotonicTime(nanoseconds: 0)
    }
    defer { path = candidate.path }
    return path != candidate.path
  }

  /// Bytes of the largest inner packet that fits the path now.
  @inline(__always)
  func largestInner(implicitIV: Bool) -> Int {
    ESPPacket.largestInner(Int(largestSealed), implicitIV: implicitIV)
  }

  private mutating func fit() {
    largestSealed = Int32(clamping: mtu.map { $0.current - overhead } ?? sealedLimit)
  }

  /// Lends the path MTU's state machine.
  package mutating func withMTU<R>(_ body: (inout PathMTU) -> R) -> R? {
    guard mtu != nil else { return nil }
    return body(&mtu!)
  }
}
