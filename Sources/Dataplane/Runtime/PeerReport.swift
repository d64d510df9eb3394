import PacketIO

/// A worker's figures of one peer, as plain values that may leave its thread.
struct PeerReport: Sendable {
  struct Association: Sendable {
    var direction: Statistics.Association.Direction
    var spi: UInt32
    var cipher: Cipher
    var extended: Bool
    var implicitIV: Bool
    var sequence: UInt64
    var packets: UInt64
    var bytes: UInt64
    var replayed: UInt64 = 0
    var wentBack = false
    var authenticationFailed: UInt64 = 0
  }

  struct Path: Sendable {
    /// In the list; nil: it was learned.
    var place: Int?
    var path: PacketIO.Path
    var state: PathState
    /// Nanoseconds.
    var stateAge: UInt64
    var isUsed: Bool
    /// Nanoseconds; 0: unmeasured.
    var roundTrip: UInt64
    var loss: Double?
    var probesSent: UInt64
    var probesAnswered: UInt64
    var pathMTU: Int?
    var pathMTUSource: PathMTUSource?
    var seenAs: Endpoint?
    var isOpenedByPeer: Bool
  }

  /// As of `PeerRecord`.
  var serial: UInt64
  var path: PacketIO.Path?
  var isPathVerified: Bool
  var sent: TrafficCount
  var received: TrafficCount
  var translated: TranslationCount
  var pathMTU: Int?
  var pathMTUSource: PathMTUSource?
  /// Nanoseconds; nil while unmeasured.
  var roundTrip: UInt64?
  var probesSent: UInt64
  var probesAnswered: UInt64
  /// Nanoseconds since then.
  var lastHeard: UInt64?
  var pathReason: PathReason?
  /// Nanoseconds.
  var pathAge: UInt64?
  var pathChanges: UInt64
  /// In the order of preference.
  var paths: [Path]
  var associations: [Association]

  /// Nil where the row has no peer.
  init?(_ tables: Snapshot, row: Int, now: MonotonicTime) {
    guard let serial = tables.record(row)?.serial else { return nil }
    let entry = tables.peers[row]
    let state = entry.state
    self.serial = serial
    path = state.value.path
    isPathVerified = state.value.isPathVerified
    sent = state.value.sent
    received = state.value.received
    translated = state.value.translated
    pathMTU = state.value.mtu?.current
    pathMTUSource = state.value.mtu?.source
    let selection = state.value.choice
    roundTrip = [state.value.mtu?.roundTrip, state.value.selection.currentCandidate?.meter.roundTrip]
      .compactMap(\.self).first { $0 > 0 }
    probesSent = state.value.mtu?.probesSent ?? 0
    probesAnswered = state.value.mtu?.probesAnswered ?? 0
    lastHeard = state.value.lastHeard.map { now.nanoseconds(since: $0) }
    pathReason = selection?.reason
    pathAge = selection.map { now.nanoseconds(since: $0.since) }
    pathChanges = selection?.switches ?? 0
    paths = selection.map { PeerReport.paths($0, now: now) } ?? []
    associations = [entry.outbound, entry.own].compactMap(\.self).map { Association($0) }
    associations += tables.inbound(of: row).map { Association($0) }
  }

  private static func paths(_ selection: PathSelection, now: MonotonicTime) -> [Path] {
    selection.candidates.sorted { ($0.order, $0.id) < ($1.order, $1.id) }.map { candidate in
      let isUsed = candidate.id == selection.current
      return Path(
        place: candidate.place, path: candidate.path, state: candidate.state,
        stateAge: now.nanoseconds(since: candidate.since), isUsed: isUsed, roundTrip: candidate.meter.roundTrip,
        loss: candidate.meter.loss, probesSent: candidate.meter.sent, probesAnswered: candidate.meter.answered,
        pathMTU: candidate.mtu?.current, pathMTUSource: candidate.mtu?.source, seenAs: candidate.seen,
        isOpenedByPeer: candidate.isOpenedByPeer)
    }
  }
}

extension PeerReport.Association {
  init(_ association: StateReference<OutboundAssociation>) {
    self.init(
      direction: .outbound, spi: association.value.spi, cipher: association.value.aead.cipher,
      extended: association.value.extended, implicitIV: association.value.implicitIV,
      sequence: association.value.next - 1, packets: association.value.packets, bytes: association.value.bytes)
  }

  init(_ association: StateReference<InboundAssociation>) {
    self.init(
      direction: .inbound, spi: association.value.spi, cipher: association.value.aead.cipher,
      extended: association.value.extended, implicitIV: association.value.implicitIV,
      sequence: association.value.window.highest, packets: association.value.packets, bytes: association.value.bytes,
      replayed: association.value.drops.replayed, wentBack: association.value.search.isBehind,
      authenticationFailed: association.value.drops.authenticationFailed)
  }
}

// MARK: - What people read

extension Statistics.Peer {
  /// - Parameter reports: of all workers, worker 0's first. Sums, but for what worker 0 alone knows. Nil without any.
  init?(_ reports: [PeerReport], _ record: PeerRecord) {
    guard let first = reports.first else { return nil }
    func seconds(_ nanoseconds: UInt64) -> Double { Double(nanoseconds) / 1e9 }
    self.init(
      name: record.configuration.name, path: first.path?.endpoint, transport: first.path.map { Int($0.transport) },
      pathName: first.path.map { path in
        record.configuration.paths.first { $0.path == path }?.name ?? PathChange.learned
      }, isPathVerified: first.isPathVerified, sent: TrafficCount(), received: TrafficCount(), pathMTU: first.pathMTU,
      pathMTUSource: first.pathMTUSource,
      roundTrip: first.roundTrip.map(seconds),
      probesSent: first.probesSent, probesAnswered: first.probesAnswered,
      lastHeard: reports.compactMap(\.lastHeard).min().map(seconds),
      paths: first.paths.map { Statistics.Candidate($0, listed: record.configuration.paths) },
      pathReason: first.pathReason, pathAge: first.pathAge.map(seconds), pathChanges: first.pathChanges,
      associations: reports.flatMap(\.associations).map(Statistics.Association.init),
      translation: Statistics.Translation(record))
    for report in reports {
      sent += report.sent
      received += report.received
      translation?.packets += report.translated
    }
  }
}

extension Statistics.Candidate {
  fileprivate init(_ report: PeerReport.Path, listed: [ConfiguredPath]) {
    self.init(
      name: report.place.flatMap { listed.indices.contains($0) ? listed[$0].name : nil } ?? PathChange.learned,
      transport: Int(report.path.transport), path: report.path.endpoint, state: report.state,
      stateAge: Double(report.stateAge) / 1e9, isUsed: report.isUsed,
      roundTrip: report.roundTrip > 0 ? Double(report.roundTrip) / 1e9 : nil, loss: report.loss,
      probesSent: report.probesSent, probesAnswered: report.probesAnswered, pathMTU: report.pathMTU,
      pathMTUSource: report.pathMTUSource,
      seenAs: report.seenAs, isOpenedByPeer: report.isOpenedByPeer)
  }
}

extension Statistics.Association {
  fileprivate init(_ report: PeerReport.Association) {
    let drops = [
      DropCount(reason: .replayed, packets: report.replayed),
      DropCount(reason: .authenticationFailed, packets: report.authenticationFailed),
    ]
    self.init(
      direction: report.direction, spi: report.spi, cipher: report.cipher, extendedSequenceNumbers: report.extended,
      implicitIV: report.implicitIV, sequence: report.sequence, packets: report.packets, bytes: report.bytes,
      drops: drops.filter { $0.packets > 0 }, disagreement: report.wentBack ? .peerWentBack : nil)
  }
}

extension Statistics.Translation {
  /// Nil where nothing is translated, and all is reachable.
  fileprivate init?(_ record: PeerRecord) {
    let plan = record.plan
    failures = Statistics.Translation.failures(
      record.agreement, unrouted: plan.unrouted, known: Set(plan.routes + plan.remote.map(\.real)))
    knownAs = plan.local.map { Space(real: $0.real, intermediate: $0.intermediate) }
    theirs = plan.remote.map { Space(real: $0.real, intermediate: $0.intermediate) }
    unrouted = plan.unrouted
    packets = TranslationCount()
    if knownAs.isEmpty && theirs.isEmpty && unrouted.isEmpty && failures.isEmpty { return nil }
  }

  /// - Parameter known: prefixes of the peer that are reachable, by whatever addresses.
  private static func failures(_ agreement: AddressAgreement, unrouted: [Prefix], known: Set<Prefix>) -> [String] {
    var failures: [String] = []
    for (owner, spaces) in [("ours", agreement.local), ("theirs", agreement.remote)] {
      for space in spaces {
        if case .refused(let failure) = space.state { failures.append("\(space.prefix) (\(owner)): \(failure)") }
      }
    }
    for prefix in unrouted where !known.contains(prefix) {
      switch agreement.remote.first(where: { $0.prefix == prefix })?.state {
      case .refused: break
      case .withdrawn: failures.append("\(prefix) (theirs): the peer has taken it back; add it to its network again")
      case .pending, .asIs, .known: failures.append("\(prefix) (theirs): the gateways are still talking")
      case nil where agreement.isUnanswered:
        failures.append(
          "\(prefix) (theirs): it clashes, and the peer does not answer; see that it runs and negotiates, or pin a space"
        )
      case nil where agreement.local.isEmpty || !agreement.isSettled:
        failures.append("\(prefix) (theirs): it clashes, and nothing was heard from the peer yet")
      case nil:
        failures.append("\(prefix) (theirs): it clashes, and the peer does not announce it; add it to its network")
      }
    }
    return failures
  }
}
