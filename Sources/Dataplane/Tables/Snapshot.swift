package import PacketIO

/// What one worker's packet path reads: routes, peers' rows, associations by SPI, firewall policy; and references to the
/// state cells of peers and associations, which outlive every change that keeps them.
///
/// A peer keeps its row as long as it is there. `Registry` prepares each change, with all memory that it needs; the
/// worker takes it over between two batches (`Transition`), and nobody else touches these tables meanwhile. Where they
/// have no room for a change, the registry makes larger ones.
package final class Snapshot: @unchecked Sendable {
  /// A peer's row: its state, and what the configuration says of it. A row without a peer has a state that nobody
  /// sends to, and nothing else.
  struct PeerEntry: BitwiseCopyable {
    let state: StateReference<Peer>
    /// What this worker seals under: the peer's association, or with a worker other than 0 its own.
    let outbound: StateReference<OutboundAssociation>?
    /// With several workers, what worker 0 seals packets under once the peer answers there.
    let own: StateReference<OutboundAssociation>?
    /// Nil: addresses are the same on both sides.
    let translation: StateReference<PrefixTranslation>?
    /// Nanoseconds; 0: no keep-alives.
    let keepAliveInterval: UInt64
    /// What the peer's outbound associations are like; nil: there is none.
    let implicitIV: Bool?
    /// Worker 0 seals what this one cannot.
    let hasDeputy: Bool
    /// The configuration allows several packets in one, in both directions.
    let aggregates: Bool
  }

  typealias AssociationEntry = AssociationTable.Entry

  /// What a row's references lead to, and keeps it alive.
  struct Owner {
    let record: PeerRecord
    let cells: PeerCells
  }

  /// All that is not of one peer.
  struct Common {
    var routes: RouteTable
    var firewall: FirewallPolicy
    var interface: InterfaceConfiguration
    var peerCount: Int
    /// This side's prefixes are known: what comes from elsewhere is not sealed.
    var isClosed: Bool
    /// Somebody's addresses are translated.
    var translates: Bool
    /// With somebody, several packets may be in one.
    var aggregates: Bool
    /// Another number when peers were added or removed: a row may be another peer's.
    var peerListVersion: UInt32
  }

  /// Whose tables these are, of how many.
  let worker: Int
  let workers: Int
  let sealing: Sealing
  /// By row.
  let peers: PeerRows
  private let associations: AssociationTable
  /// Rows whose peer was sent to or heard not long ago, at least: those that are looked at in each tick.
  let busy: RowSet
  /// Rows whose peer's traffic has a choice of paths, as the worker knows that looks after them.
  let choosing: RowSet
  /// When to look at the others, for the worker that looks after paths.
  private let deadlines: StateCell<Deadlines>
  /// By row; nil: there is no peer.
  private var owners: [Owner?]
  private(set) var common: Common
  private(set) var routes: RouteTable.Reference
  private(set) var isClosed: Bool
  private(set) var translates: Bool
  private(set) var aggregates: Bool
  private(set) var isLarge: Bool
  private let nobody: StateCell<Peer>

  init(_ parts: Parts) {
    worker = parts.worker
    workers = parts.workers
    sealing = parts.sealing
    let owners = parts.owners
    let rows = parts.rows
    let common = parts.common
    let nobody = StateCell(Peer(paths: [], now: MonotonicTime(nanoseconds: 0)))
    let associations = AssociationTable(capacity: parts.associations)
    var peers = PeerRows(capacity: rows)
    for row in 0..<rows {
      guard owners.indices.contains(row), let owner = owners[row] else {
        peers.append(Snapshot.vacancy(nobody))
        continue
      }
      peers.append(Snapshot.entry(owner, worker: worker))
      for entry in Snapshot.associations(owner, row: row) { associations.insert(entry) }
    }
    self.peers = peers
    self.associations = associations
    busy = RowSet(capacity: rows)
    choosing = RowSet(capacity: rows)
    // Other workers have none.
    let timed = parts.worker == 0 ? rows : 0
    deadlines = StateCell(
      Deadlines(paths: RowDeadlines(capacity: timed), keepAlives: RowDeadlines(capacity: timed)))
    self.nobody = nobody
    self.owners = owners + Array(repeating: nil, count: max(rows - owners.count, 0))
    self.common = common
    routes = common.routes.reference
    isClosed = common.isClosed
    translates = common.translates
    aggregates = common.aggregates
    isLarge = common.peerCount > Snapshot.fewPeers
  }

  /// Compiles a configuration from nothing, without asking whether it is valid.
  package convenience init(
    _ configuration: Configuration, sealing: Sealing, now: MonotonicTime, worker: Int = 0, of workers: Int = 1
  ) {
    self.init(Registry(configuration, sealing: sealing, workers: workers, now: now).parts(of: worker))
  }

  /// When something is to be done for peers that nothing is sent to.
  struct Deadlines: ~Copyable {
    /// About their paths.
    var paths: RowDeadlines
    /// At the earliest: a packet may have been sent since.
    var keepAlives: RowDeadlines
  }

  /// What tables are made of.
  struct Parts {
    let worker: Int
    let workers: Int
    let sealing: Sealing
    /// By row.
    let owners: [Owner?]
    /// That there is room for.
    let rows: Int
    let associations: Int
    let common: Common
  }

  // MARK: Look-ups

  package var firewall: FirewallPolicy { common.firewall }
  var peerListVersion: UInt32 { common.peerListVersion }

  /// The association of an SPI.
  @inline(__always)
  func association(_ spi: UInt32) -> AssociationEntry? { associations.find(spi) }

  /// The peer whose an address is; else nobody.
  func holder(of address: IPAddress) -> Holder {
    Holder(row: routes.lookup(address).map { Int32(truncatingIfNeeded: $0) } ?? -1)
  }

  /// Whom a packet from the device goes to.
  func receiver(of bytes: PacketBytes) -> Holder {
    InnerPacket(bytes).map { holder(of: $0.destination(bytes)) } ?? Holder(row: -1)
  }

  /// Whether a packet from `source` may be sealed for the peer of a row: it is this side's, or another peer's, whose
  /// packets are forwarded here.
  func maySend(from source: IPAddress, to row: Int) -> Bool {
    guard source.isHost else { return false }
    // No machine forwards the second kind (RFC 4291 §2.5.6), so it is this one's.
    if !isClosed || source.isLinkLocalV6 { return true }
    switch routes.owner(source) {
    case .own: return true
    case .peer(let other): return Int(other) != row
    case .nobody: return peers[row].translation?.value.isOwn(source) ?? false
    }
  }

  /// Whether a packet from `source` may come from the peer of a row. Addresses are as they are known here.
  @inline(__always)
  func mayReceive(from source: IPAddress, of row: Int) -> Bool {
    routes.lookup(source) == UInt32(truncatingIfNeeded: row) && source.isHost
      && !(peers[row].translation?.value.isOwn(source) ?? false)
  }

  /// What is in force of the peer of a row; nil: there is none.
  package func record(_ row: Int) -> PeerRecord? { owners.indices.contains(row) ? owners[row]?.record : nil }

  /// The one peer that a path leads to; nil: none, or several.
  func peer(at path: Path) -> String? {
    var found: Int?
    for row in 0..<peers.count where record(row) != nil && peers[row].state.value.knows(path) {
      if found != nil { return nil }
      found = row
    }
    return found.flatMap { record($0)?.configuration.name }
  }

  /// A row's inbound associations that this worker has.
  func inbound(of row: Int) -> [StateReference<InboundAssociation>] {
    owners.indices.contains(row) ? owners[row]?.cells.inbound.map(\.reference) ?? [] : []
  }

  /// Peers that there are.
  var peerCount: Int { common.peerCount }

  /// The row of a peer; looks through all.
  package func row(of name: String) -> Int? { owners.firstIndex { $0?.record.configuration.name == name } }

  /// What the configuration says, as far as a worker asks.
  package var configuration: Rows { Rows(tables: self) }

  /// Peers' configurations by row.
  package struct Rows {
    fileprivate let tables: Snapshot

    var interface: InterfaceConfiguration { tables.common.interface }
    package var peers: Rows { self }
    package var indices: Range<Int> { 0..<tables.owners.count }

    /// A row without a peer has an empty one.
    package subscript(_ row: Int) -> PeerConfiguration {
      tables.owners[row]?.record.configuration ?? PeerConfiguration(name: "", prefixes: [])
    }
  }

  var timers: StateReference<Deadlines> { deadlines.reference }

  /// As if every peer had said that it takes several packets in one; for pipelines without a worker that asks.
  package func assumeAggregation() {
    for peer in 0..<peers.count { peers[peer].state.value.takesAggregates = true }
  }

  /// Tells all leases how far their associations' numbers are.
  package func noteSequences() {
    for owner in owners {
      owner?.cells.outbound?.reference.value.noteUsed()
      owner?.cells.own?.reference.value.noteUsed()
      for inbound in owner?.cells.inbound ?? [] { inbound.reference.value.noteHighest() }
    }
  }

  // MARK: Fetching ahead

  /// With more, their state is seldom in the cache: then it pays to have it fetched some packets before it is needed. See
  /// `Lookahead`.
  private static let fewPeers = 256

  /// Fetches the place where the search for an SPI begins.
  @inline(__always)
  func prefetchAssociation(_ spi: UInt32) { associations.prefetch(spi) }

  // MARK: Changes

  /// A row that is to be another, with all that this needs.
  struct RowChange {
    let row: Int
    /// Whoever is there afterwards, and once it was exchanged, whoever was there before.
    var owner: Owner?
    /// SPIs that the row has had.
    let oldSPIs: [UInt32]
    let associations: [AssociationEntry]
    /// Nil: there is no peer any more.
    let entry: PeerEntry?
    /// Another peer than before, or none.
    let isOtherPeer: Bool
    /// The worker's own association is another.
    let hasOtherOwn: Bool
  }

  /// These tables follow on others, of the same rows and fewer.
  func adopt(_ before: Snapshot) {
    busy.insert(before.busy)
    choosing.insert(before.choosing)
    timers.value.paths.adopt(before.timers.value.paths)
    timers.value.keepAlives.adopt(before.timers.value.keepAlives)
  }

  /// A new peer is looked at; of one that has gone nothing is left to do.
  func welcome(_ change: RowChange) {
    if change.entry != nil { busy.insert(change.row) } else { busy.remove(change.row) }
  }

  /// Exchanges rows, and what is not of one peer, for others. What was there is left in the arguments, until nothing
  /// refers to it any more.
  func exchange(_ rows: inout [RowChange], _ common: inout Common) {
    for change in rows { for spi in change.oldSPIs { associations.remove(spi) } }
    for index in rows.indices {
      let row = rows[index].row
      swap(&owners[row], &rows[index].owner)
      peers.replace(row, by: rows[index].entry ?? Snapshot.vacancy(nobody))
      for entry in rows[index].associations { associations.insert(entry) }
    }
    swap(&self.common, &common)
    routes = self.common.routes.reference
    isClosed = self.common.isClosed
    translates = self.common.translates
    aggregates = self.common.aggregates
    isLarge = self.common.peerCount > Snapshot.fewPeers
  }

  static func entry(_ owner: Owner, worker: Int) -> PeerEntry {
    let peer = owner.record.configuration
    let cells = owner.cells
    return PeerEntry(
      state: cells.state.reference, outbound: worker == 0 ? cells.outbound?.reference : cells.own?.reference,
      own: worker == 0 ? cells.own?.reference : nil, translation: owner.record.translation?.reference,
      keepAliveInterval: peer.keepAliveInterval.nanoseconds, implicitIV: peer.outbound?.implicitIV,
      hasDeputy: worker > 0, aggregates: peer.aggregates)
  }

  private static func vacancy(_ nobody: StateCell<Peer>) -> PeerEntry {
    PeerEntry(
      state: nobody.reference, outbound: nil, own: nil, translation: nil, keepAliveInterval: 0, implicitIV: nil,
      hasDeputy: false, aggregates: false)
  }

  static func associations(_ owner: Owner, row: Int) -> [AssociationEntry] {
    owner.cells.inbound.map {
      AssociationEntry(spi: $0.reference.value.spi, peer: Int32(truncatingIfNeeded: row), state: $0.reference)
    }
  }
}
