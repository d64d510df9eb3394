package import PacketIO

/// A configuration compiled for the packet path: immutable tables, and references to the state cells of peers and
/// associations, which outlive it where the next configuration keeps them.
///
/// May be passed between threads: the tables never change, and the state behind the references is read and written
/// by the worker alone.
package final class Snapshot: @unchecked Sendable {
  /// A peer's row: its state, and what the configuration says of it.
  struct PeerEntry: BitwiseCopyable {
    let state: StateReference<Peer>
    /// What this worker seals under: the peer's association, or with a worker other than 0 its own.
    let outbound: StateReference<OutboundAssociation>?
    /// With several workers, what worker 0 seals packets under once the peer answers there.
    let own: StateReference<OutboundAssociation>?
    /// What the peer's outbound associations are like; nil: there is none.
    let implicitIV: Bool?
    /// Worker 0 seals what this one cannot.
    let hasDeputy: Bool
    /// Nanoseconds; 0: no keep-alives.
    let keepAliveInterval: UInt64
    /// Nil: addresses are the same on both sides.
    let translation: StateReference<PrefixTranslation>?
    /// The configuration allows several packets in one, in both directions.
    let aggregates: Bool
  }

  /// An inbound association and its peer's row, found by SPI.
  struct AssociationEntry: BitwiseCopyable {
    let spi: UInt32
    let peer: Int32
    let state: StateReference<InboundAssociation>
  }

  let configuration: Configuration
  /// Whose tables these are, of how many.
  let worker: Int
  let workers: Int
  /// Another number when peers were added or removed, so that rows are not the same.
  let peerListVersion: UInt32
  /// Differs from the one before in what was negotiated only.
  let isAgreement: Bool
  /// What was negotiated with peers, by name.
  let agreements: [String: AddressAgreement]
  /// What the two come to.
  let plan: AddressPlan
  let sealing: Sealing
  let routes: RouteTable
  package let firewall: FirewallPolicy
  let peers: FixedArray<PeerEntry>
  /// By SPI, with open addressing; at most half full.
  private let associations: FixedArray<AssociationEntry?>

  // What keeps the cells alive, by peer name and SPI; compiling the next snapshot reads these.
  private let peerCells: [String: StateCell<Peer>]
  private let inboundCells: [UInt32: StateCell<InboundAssociation>]
  private let outboundCells: [String: StateCell<OutboundAssociation>]
  private let ownCells: [String: StateCell<OutboundAssociation>]
  private let translationCells: [StateCell<PrefixTranslation>]
  /// Somebody's addresses are translated.
  let translates: Bool
  /// With somebody, several packets may be in one.
  let aggregates: Bool

  // What `takeOver` has to do.
  private let freshInbound: [StateReference<InboundAssociation>]
  private let freshOutbound: [StateReference<OutboundAssociation>]
  private let newLeases: [(association: StateReference<OutboundAssociation>, lease: SequenceLease?)]
  /// Peers that are new, or have another configured path or association: the size of their packets is to be found. Or
  /// there are probes to be sent because they tell the peer whether it may aggregate.
  let unsettledPeers: [Int]
  /// Peers whose list of paths differs from the one the previous snapshot had: it wins over what was learned.
  private let movedPeers: [(peer: Int, paths: [ConfiguredPath])]
  private let compiled: MonotonicTime

  /// Compiles a validated configuration. Peers and associations that `previous` has are carried over; compiling
  /// reads nothing of their state.
  ///
  /// - Parameters:
  ///   - agreements: nil: those of `previous`.
  ///   - worker: whose tables they are. Each has state of its own, and those inbound associations whose SPI is its
  ///     number, modulo `workers`.
  ///   - shared: what another worker has got of the same configuration.
  package init(
    _ configuration: Configuration, agreements: [String: AddressAgreement]? = nil, previous: Snapshot?,
    sealing: Sealing, now: MonotonicTime, worker: Int = 0, of workers: Int = 1, shared: Snapshot? = nil
  ) {
    self.worker = worker
    self.workers = workers
    isAgreement = agreements != nil
    let agreements = agreements ?? previous?.agreements ?? [:]
    let plan = shared?.plan ?? AddressPlan(configuration, agreements: agreements)
    var translationCells: [StateCell<PrefixTranslation>] = []
    var peers = FixedArray<PeerEntry>(capacity: configuration.peers.count)
    var associations = FixedArray<AssociationEntry>(
      capacity: configuration.peers.reduce(0) { $0 + $1.inbound.count })
    var routes: [(Prefix, UInt32)] = []
    var peerCells: [String: StateCell<Peer>] = [:]
    var inboundCells: [UInt32: StateCell<InboundAssociation>] = [:]
    var outboundCells: [String: StateCell<OutboundAssociation>] = [:]
    var ownCells: [String: StateCell<OutboundAssociation>] = [:]
    var freshInbound: [StateReference<InboundAssociation>] = []
    var freshOutbound: [StateReference<OutboundAssociation>] = []
    var newLeases: [(association: StateReference<OutboundAssociation>, lease: SequenceLease?)] = []
    var moved: [(peer: Int, paths: [ConfiguredPath])] = []
    var unsettled: [Int] = []
    let mtuChanged = previous?.configuration.interface.mtu != configuration.interface.mtu
    var before: [String: PeerConfiguration] = [:]
    for peer in previous?.configuration.peers ?? [] { before[peer.name] = peer }

    for (index, peer) in configuration.peers.enumerated() {
      let cell = previous?.peerCells[peer.name] ?? StateCell(Peer(paths: worker == 0 ? peer.paths : [], now: now))
      peerCells[peer.name] = cell
      let old = before[peer.name]
      if worker == 0, let old, old.paths != peer.paths { moved.append((index, peer.paths)) }
      if mtuChanged || old?.paths != peer.paths || old?.outbound?.implicitIV != peer.outbound?.implicitIV
        || old?.aggregates != peer.aggregates
      {
        unsettled.append(index)
      }

      for inbound in peer.inbound where Int(inbound.spi) & (workers - 1) == worker {
        let kept = old?.inbound.contains { $0.isSameAssociation(as: inbound) } ?? false
        let cell: StateCell<InboundAssociation>
        if kept, let known = previous?.inboundCells[inbound.spi] {
          cell = known
        } else {
          let aead = AEAD(inbound.cipher, key: inbound.key, sealing: sealing)
          cell = StateCell(InboundAssociation(inbound, aead: aead))
          freshInbound.append(cell.reference)
        }
        inboundCells[inbound.spi] = cell
        associations.append(AssociationEntry(spi: inbound.spi, peer: Int32(index), state: cell.reference))
      }

      /// The cell of an outbound association, kept where it stays the same.
      func outboundState(
        _ outbound: SecurityAssociationConfiguration?, before old: SecurityAssociationConfiguration?,
        _ known: StateCell<OutboundAssociation>?
      ) -> StateCell<OutboundAssociation>? {
        guard let outbound else { return nil }
        if let old, old.isSameAssociation(as: outbound), let known {
          if old.lease != outbound.lease { newLeases.append((known.reference, outbound.lease)) }
          return known
        }
        let aead = AEAD(outbound.cipher, key: outbound.key, sealing: sealing)
        let cell = StateCell(OutboundAssociation(outbound, aead: aead))
        freshOutbound.append(cell.reference)
        return cell
      }
      var outboundCell: StateCell<OutboundAssociation>?
      if worker == 0 {
        outboundCell = outboundState(peer.outbound, before: old?.outbound, previous?.outboundCells[peer.name])
        outboundCells[peer.name] = outboundCell
      }
      let ownCell = outboundState(
        peer.workerOutbound.indices.contains(worker) ? peer.workerOutbound[worker] : nil,
        before: old.flatMap { $0.workerOutbound.indices.contains(worker) ? $0.workerOutbound[worker] : nil },
        previous?.ownCells[peer.name])
      ownCells[peer.name] = ownCell
      var translationCell: StateCell<PrefixTranslation>?
      if let translation = PrefixTranslation(plan.peers[index], peer.translation) {
        let cell = StateCell(translation)
        translationCells.append(cell)
        translationCell = cell
      }
      peers.append(
        PeerEntry(
          state: cell.reference, outbound: worker == 0 ? outboundCell?.reference : ownCell?.reference,
          own: worker == 0 ? ownCell?.reference : nil, implicitIV: peer.outbound?.implicitIV, hasDeputy: worker > 0,
          keepAliveInterval: UInt64(max(peer.keepAliveInterval, 0) * 1e9), translation: translationCell?.reference,
          aggregates: peer.aggregates))
      for prefix in plan.peers[index].routes { routes.append((prefix, UInt32(index))) }
    }

    self.configuration = configuration
    self.agreements = agreements
    self.plan = plan
    self.translationCells = translationCells
    translates = !translationCells.isEmpty
    aggregates = configuration.peers.contains(where: \.aggregates)
    self.sealing = sealing
    let table = shared?.routes ?? RouteTable(routes)
    self.routes = table
    firewall =
      shared?.firewall
      ?? FirewallPolicy.compile(
        configuration, prefixes: plan.peers.map { Array($0.routes) }, routes: table, previous: previous?.firewall)
    let sameList = previous.map {
      $0.configuration.peers.lazy.map(\.name).elementsEqual(configuration.peers.map(\.name))
    }
    peerListVersion = (previous?.peerListVersion ?? 0) &+ (sameList == true ? 0 : 1)
    self.associations = Snapshot.hash(associations)
    self.peers = peers
    self.peerCells = peerCells
    self.inboundCells = inboundCells
    self.outboundCells = outboundCells
    self.ownCells = ownCells
    self.freshInbound = freshInbound
    self.freshOutbound = freshOutbound
    self.newLeases = newLeases
    movedPeers = moved
    compiled = now
    unsettledPeers = unsettled
  }

  /// Takes the place of `previous`, from which this snapshot was compiled: does what has to read or change state. On
  /// the worker's thread, between two batches; once.
  func takeOver(from previous: Snapshot, memory: inout SequenceMemory) {
    for slot in 0..<previous.associations.count {
      if let entry = previous.associations[slot] { memory.leave(entry.state.value) }
    }
    for index in 0..<previous.peers.count {
      if let outbound = previous.peers[index].outbound { memory.leave(outbound.value) }
      if let own = previous.peers[index].own { memory.leave(own.value) }
    }
    for association in freshInbound { memory.enter(&association.value) }
    for association in freshOutbound { memory.enter(&association.value) }
    for (association, lease) in newLeases { association.value.renew(lease) }
    for (peer, paths) in movedPeers {
      peers[peer].state.value.withSelection { $0.relist(paths, now: compiled) }
    }
  }

  private static func hash(_ associations: borrowing FixedArray<AssociationEntry>) -> FixedArray<AssociationEntry?> {
    var size = 16
    while size < associations.count * 2 { size *= 2 }
    var slots = FixedArray<AssociationEntry?>(repeating: nil, count: size)
    for index in 0..<associations.count {
      var slot = Snapshot.slot(associations[index].spi, size)
      while slots[slot] != nil { slot = (slot + 1) & (size - 1) }
      slots[slot] = associations[index]
    }
    return slots
  }

  @inline(__always)
  private static func slot(_ spi: UInt32, _ size: Int) -> Int {
    Int(truncatingIfNeeded: (UInt64(spi) &* 0x9E37_79B9_7F4A_7C15) >> 32) & (size &- 1)
  }

  /// As if every peer had said that it takes several packets in one; for pipelines without a worker that asks.
  package func assumeAggregation() {
    for peer in 0..<peers.count { peers[peer].state.value.takesAggregates = true }
  }

  /// The association of an SPI.
  @inline(__always)
  func association(_ spi: UInt32) -> AssociationEntry? {
    var slot = Snapshot.slot(spi, associations.count)
    while let entry = associations[slot] {
      if entry.spi == spi { return entry }
      slot = (slot &+ 1) & (associations.count &- 1)
    }
    return nil
  }

  // MARK: Fetching ahead

  /// Whether there are so many peers that their state is seldom in the cache: then it pays to have it fetched some
  /// packets before it is needed. See `Lookahead`.
  @inline(__always)
  var isLarge: Bool { peers.count > 256 }

  /// Fetches the place where the search for an SPI begins.
  @inline(__always)
  func prefetchAssociation(_ spi: UInt32) { associations.prefetch(Snapshot.slot(spi, associations.count)) }
}
