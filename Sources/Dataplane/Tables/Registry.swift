import PacketIO

/// What is in force, indexed, so that a change of one peer is validated and compiled without looking at the others. The
/// workers' tables are made here, and the transitions by which they follow.
///
/// 1. `draft`: what the changes come to, validated against what stays. Indices are brought up to date.
/// 2. The caller does what may fail otherwise; then `revert`, or
/// 3. `commit`: a transition for each worker. It cannot fail.
///
/// A peer has a row of the tables, the same for all workers, as long as it is there; and a place in the configuration's
/// order, which decides who keeps a prefix that several have.
package struct Registry: @unchecked Sendable {
  typealias Member = RegistryMember
  typealias Target = DraftTarget
  typealias Step = DraftStep
  typealias Draft = RegistryDraft

  let workers: Int
  let sealing: Sealing
  /// All but the peers.
  private(set) var settings: Configuration
  /// The device, with the routes that follow from what was negotiated.
  private(set) var interface: InterfaceConfiguration
  private var members: [String: Member] = [:]
  private var claims = Claims()
  private var claimants = Claimants()
  private var routes = RouteIndex()
  private var maker: CellMaker
  private var nextOrder = 0
  private var nextSerial: UInt64 = 1
  /// Rows that had a peer and have none.
  private var freeRows: [Int] = []
  /// Rows that have, or have had, a peer; and rows of the tables.
  private var usedRows = 0
  private var rowCapacity = 0
  /// By worker: rows of the tables that it has.
  private var madeRows: [Int]
  /// By worker: inbound associations, and room for them.
  private var associations: [Int]
  private var associationCapacity: [Int]
  private var count = Count()
  private var common: Snapshot.Common

  /// Peers with something that the packet path asks about before it looks at a peer.
  private struct Count {
    var translated = 0
    var aggregating = 0
    /// With an access list.
    var limited = 0
    /// Not all of whose prefixes are routed as they are; by name.
    var relocated: Set<String> = []

    mutating func add(_ record: PeerRecord, _ amount: Int) {
      if record.translation != nil { translated += amount }
      if record.configuration.aggregates { aggregating += amount }
      if record.access != nil { limited += amount }
      guard Count.isRelocated(record.plan) else { return }
      if amount > 0 {
        relocated.insert(record.configuration.name)
      } else {
        relocated.remove(record.configuration.name)
      }
    }

    static func isRelocated(_ plan: AddressPlan.Peer) -> Bool { !plan.unrouted.isEmpty || !plan.remote.isEmpty }
  }

  /// Something was committed: until then, the settings are not known to be valid.
  private var isInForce = false

  /// Nothing is in force.
  init(_ settings: Configuration, sealing: Sealing, workers: Int) {
    self.settings = settings
    self.settings.peers = []
    interface = settings.interface
    self.sealing = sealing
    self.workers = workers
    maker = CellMaker(workers: workers, sealing: sealing)
    associations = Array(repeating: 0, count: workers)
    associationCapacity = associations
    madeRows = associations
    let table = RouteTable([])
    common = Snapshot.Common(
      routes: table,
      firewall: FirewallPolicy(
        FirewallConfiguration(), routes: table, isClosed: false, lists: [], rows: 0, previous: nil, judgesAnew: true),
      interface: settings.interface, peerCount: 0, isClosed: false, translates: false, aggregates: false,
      peerListVersion: 0)
  }

  /// A configuration as it is, valid or not.
  init(_ configuration: Configuration, sealing: Sealing, workers: Int, now: MonotonicTime) {
    self.init(configuration, sealing: sealing, workers: workers)
    var draft = Draft(settings: settings)
    for peer in configuration.peers where draft.step(of: peer.name) == nil {
      draft.add(Step(peer.name, nil, Target(peer, AddressAgreement(), order: draft.steps.count)))
    }
    try? enter(&draft, validates: false)
    _ = commit(draft, now: now)
  }

  // MARK: What is in force

  /// Peers, in the configuration's order.
  private var ordered: [Member] { members.values.sorted { $0.order < $1.order } }

  var records: [PeerRecord] { ordered.map(\.record) }

  var configuration: Configuration {
    var configuration = settings
    configuration.peers = ordered.map(\.configuration)
    return configuration
  }

  var agreements: [String: AddressAgreement] { members.mapValues(\.record.agreement) }
  var plan: AddressPlan { AddressPlan(peers: ordered.map(\.record.plan), interface: interface) }
  var peerCount: Int { members.count }

  func find(_ peer: String) -> (row: Int, record: PeerRecord)? { members[peer].map { ($0.row, $0.record) } }

  /// What has to be known to negotiate with a peer; nil where nothing is negotiated.
  func terms(_ peer: String) -> AddressNegotiation.Terms? {
    members[peer].flatMap { AddressNegotiation.Terms($0.configuration, claimed: $0.base.claimed) }
  }

  /// The device as it is after a draft, with the routes that follow from what was negotiated.
  private func interface(after draft: Draft) -> InterfaceConfiguration {
    let relocates = draft.steps.contains { $0.new.map { Count.isRelocated($0.plan) } ?? false }
    guard !count.relocated.isEmpty || relocates else {
      let isSame = isInForce && draft.before?.interface == settings.interface
      return isSame ? interface : AddressPlan.interface(settings.interface, []) { _ in true }
    }
    var plans: [(order: Int, plan: AddressPlan.Peer)] = draft.steps.compactMap { $0.new.map { ($0.order, $0.plan) } }
    for name in count.relocated where draft.step(of: name) == nil {
      if let member = members[name] { plans.append((member.order, member.record.plan)) }
    }
    let leaving = Set(draft.steps.compactMap { $0.old?.row })
    return AddressPlan.interface(settings.interface, plans.sorted { $0.order < $1.order }.map(\.plan)) { prefix in
      draft.steps.contains { $0.new?.plan.routes.contains(prefix) ?? false }
        || routes.rows(prefix).contains { !leaving.contains($0) }
    }
  }

  /// What a worker's tables are made of, with room for more.
  func parts(of worker: Int) -> Snapshot.Parts {
    var owners: [Snapshot.Owner?] = Array(repeating: nil, count: usedRows)
    for member in members.values {
      owners[member.row] = Snapshot.Owner(record: member.record, cells: member.cells[worker])
    }
    return Snapshot.Parts(
      worker: worker, workers: workers, sealing: sealing, owners: owners, rows: rowCapacity,
      associations: associationCapacity[worker], common: common)
  }

  // MARK: 1. Drafts

  /// What a whole configuration changes. The order of peers becomes its own.
  ///
  /// - Throws: `ConfigurationError`; then nothing has changed.
  mutating func draft(_ configuration: Configuration, limits: ConfigurationLimits) throws(ConfigurationError) -> Draft {
    var settings = configuration
    settings.peers = []
    try settings.validateSettings(running: limits.isRunning ? self.settings : nil)
    var draft = Draft(settings: settings)
    let replans = settings.localPrefixes != self.settings.localPrefixes
    let keepsOrder = keepsOrder(configuration.peers)
    var names: Set<String> = []
    for (place, peer) in configuration.peers.enumerated() {
      guard names.insert(peer.name).inserted else { throw PeerConfiguration.nameIsUsedTwice(peer.name) }
      let old = members[peer.name]
      let peer = peer.keepingAssociations(of: old?.configuration)
      if !replans, keepsOrder, let old, old.configuration == peer { continue }
      let order = keepsOrder ? old?.order ?? nextOrder + place : place
      draft.add(Step(peer.name, old, Target(peer, old?.record.agreement ?? AddressAgreement(), order: order)))
    }
    if names.count < members.count || !draft.steps.isEmpty {
      for (name, old) in members where !names.contains(name) { draft.add(Step(name, old, nil)) }
    }
    try settle(&draft, limits)
    return draft
  }

  /// Peers that are there come in the order that they have, and new ones behind them.
  private func keepsOrder(_ peers: [PeerConfiguration]) -> Bool {
    var last = -1
    for peer in peers {
      let order = members[peer.name]?.order ?? Int.max
      guard order == Int.max || order > last else { return false }
      last = order
    }
    return true
  }

  /// What a list of changes comes to.
  ///
  /// - Throws: `ConfigurationError`; then nothing has changed.
  mutating func draft(_ changes: [ConfigurationChange], limits: ConfigurationLimits) throws(ConfigurationError) -> Draft
  {
    var draft = Draft(settings: settings)
    draft.isAgreement = !changes.isEmpty
    var added = 0
    for change in changes {
      if case .agree = change {} else { draft.isAgreement = false }
      switch change {
      case .add(let peer):
        guard target(of: peer.name, draft) == nil else { throw PeerConfiguration.nameIsUsedTwice(peer.name) }
        draft.add(
          Step(peer.name, members[peer.name], Target(peer, AddressAgreement(), order: nextOrder + added)))
        added += 1
      case .remove(let name): draft.add(Step(name, members[name], try self.change(of: name, draft) { _ in nil }))
      case .replace(let peer):
        let new = try self.change(of: peer.name, draft) { target in
          var target = target
          target.configuration = peer.keepingAssociations(of: target.configuration)
          return target
        }
        draft.add(Step(peer.name, members[peer.name], new))
      case .installInbound(let association, let name):
        draft.add(
          Step(
            name, members[name],
            try edit(name, draft) { peer in
              peer.inbound.removeAll { $0.spi == association.spi }
              peer.inbound.append(association)
            }))
      case .installOutbound(let association, let workers, let name):
        draft.add(
          Step(
            name, members[name],
            try edit(name, draft) { peer in
              peer.outbound = association
              peer.workerOutbound = workers
            }))
      case .retireInbound(let spi, let name):
        draft.add(Step(name, members[name], try edit(name, draft) { peer in peer.inbound.removeAll { $0.spi == spi } }))
      case .agree(let agreement, let name):
        let new = try self.change(of: name, draft) { target in
          var target = target
          target.agreement = agreement
          return target
        }
        draft.add(Step(name, members[name], new))
      case .interface(let interface): draft.settings.interface = interface
      case .firewall(let firewall): draft.settings.firewall = firewall
      }
    }
    if draft.settings != settings { try draft.settings.validateSettings(running: settings) }
    try settle(&draft, limits)
    return draft
  }

  private func target(of name: String, _ draft: Draft) -> Target? {
    if let step = draft.step(of: name) { return step.new }
    return members[name].map { Target($0.configuration, $0.record.agreement, order: $0.order) }
  }

  private func change(
    of name: String, _ draft: Draft, _ body: (Target) -> Target?
  ) throws(ConfigurationError) -> Target? {
    guard let target = target(of: name, draft) else {
      throw ConfigurationError(
        subject: .peer(name), setting: "name", problem: "there is no such peer", remedy: "add it first")
    }
    return body(target)
  }

  private func edit(
    _ name: String, _ draft: Draft, _ body: (inout PeerConfiguration) -> Void
  ) throws(ConfigurationError) -> Target? {
    try change(of: name, draft) { target in
      var target = target
      body(&target.configuration)
      return target
    }
  }

  /// Brings the indices up to date, and validates.
  private mutating func settle(_ draft: inout Draft, _ limits: ConfigurationLimits) throws(ConfigurationError) {
    for step in draft.steps {
      if let new = step.new { try new.configuration.validate(limits, localPrefixes: draft.settings.localPrefixes) }
    }
    draft.before = settings
    settings = draft.settings
    do throws(ConfigurationError) {
      try enter(&draft, validates: true)
    } catch {
      revert(draft)
      throw error
    }
    draft.interface = interface(after: draft)
  }

  /// Takes what was out of the indices, and puts in what is to be.
  private mutating func enter(_ draft: inout Draft, validates: Bool) throws(ConfigurationError) {
    draft.sort()
    var touched: Set<Prefix> = []
    for step in draft.steps {
      if let old = step.old {
        touched.formUnion(old.configuration.prefixes)
        leave(old)
      }
    }
    for index in draft.steps.indices {
      guard let new = draft.steps[index].new else { continue }
      if validates {
        try claims.check(new.configuration)
        try maker.check(new.configuration)
      }
      claims.insert(new.configuration)
      claimants.insert(new.configuration, order: new.order)
      touched.formUnion(new.configuration.prefixes)
      draft.steps[index].isEntered = true
    }
    addFollowers(of: touched, to: &draft)
    for index in draft.steps.indices {
      guard let target = draft.steps[index].new else { continue }
      let new = planned(target)
      draft.steps[index].new = new
      if validates {
        try claims.check(
          new.base.routes, of: new.configuration, hasOwnPrefixes: !settings.localPrefixes.isEmpty)
      }
      claims.insert(new.base.routes, of: new.configuration.name)
      draft.steps[index].isRouted = true
    }
  }

  private mutating func leave(_ old: Member) {
    claims.remove(old.configuration)
    claims.remove(old.base.routes, of: old.configuration.name)
    claimants.remove(old.configuration)
  }

  /// Whoever has one of the prefixes too may have it routed now, or no more.
  private mutating func addFollowers(of prefixes: Set<Prefix>, to draft: inout Draft) {
    var isLonger = false
    for name in prefixes.flatMap(claimants.peers) where draft.step(of: name) == nil {
      guard let member = members[name] else { continue }
      var step = Step(name, member, Target(member.configuration, member.record.agreement, order: member.order))
      step.isFollower = true
      draft.add(step)
      claims.remove(member.base.routes, of: name)
      isLonger = true
    }
    if isLonger { draft.sort() }
  }

  private func planned(_ target: Target) -> Target {
    var target = target
    func plan(_ agreement: AddressAgreement) -> AddressPlan.Peer {
      AddressPlan.plan(target.configuration, agreement, local: settings.localPrefixes) {
        claimants.isTaken($0, before: target.order)
      }
    }
    target.base = plan(AddressAgreement())
    target.plan = target.agreement == AddressAgreement() ? target.base : plan(target.agreement)
    return target
  }

  /// What was drafted does not come into force.
  mutating func revert(_ draft: Draft) {
    if let before = draft.before { settings = before }
    for step in draft.steps {
      guard let new = step.new else { continue }
      if step.isRouted { claims.remove(new.base.routes, of: step.name) }
      guard step.isEntered else { continue }
      claims.remove(new.configuration)
      claimants.remove(new.configuration)
    }
    for step in draft.steps {
      guard let old = step.old else { continue }
      claims.insert(old.base.routes, of: step.name)
      if step.isFollower { continue }
      claims.insert(old.configuration)
      claimants.insert(old.configuration, order: old.order)
    }
  }

  // MARK: 3. Transitions

  /// - Returns: for each worker what it has to do.
  mutating func commit(_ draft: Draft, now: MonotonicTime) -> [Transition] {
    let before = draft.before ?? settings
    defer { isInForce = true }
    interface = draft.interface
    let transitions = (0..<workers).map { Transition(common, worker: $0, now: now) }
    for step in draft.steps { if let old = step.old { maker.letGo(old, step.new?.configuration, transitions) } }
    var isOtherList = false
    var accessChanged = false
    for step in draft.steps {
      let record = makeRecord(step)
      if record?.access !== step.old?.record.access { accessChanged = true }
      if (step.old == nil) != (step.new == nil) { isOtherList = true }
      put(step, record, transitions, now: now)
    }
    update(
      rulesChanged: !isInForce || before.firewall != settings.firewall, accessChanged: accessChanged,
      isOtherList: isOtherList)
    let isOtherSize = before.interface.mtu != settings.interface.mtu
    for (worker, transition) in transitions.enumerated() {
      transition.common = common
      transition.isAgreement = draft.isAgreement
      if isOtherSize { transition.unsettled = members.values.map(\.row).sorted() }
      if makesRoom(worker) { transition.tables = Snapshot(parts(of: worker)) }
    }
    return transitions
  }

  /// Nil: the peer goes. The old one where nothing of it changes.
  private mutating func makeRecord(_ step: Step) -> PeerRecord? {
    guard let new = step.new else { return nil }
    if let old = step.old?.record, old.configuration == new.configuration, old.agreement == new.agreement,
      old.plan == new.plan
    {
      return old
    }
    defer { if step.old == nil { nextSerial += 1 } }
    return PeerRecord(
      new.configuration, new.agreement, new.plan, serial: step.old?.record.serial ?? nextSerial,
      before: step.old?.record)
  }

  private mutating func put(_ step: Step, _ record: PeerRecord?, _ transitions: [Transition], now: MonotonicTime) {
    if let old = step.old {
      count.add(old.record, -1)
      for worker in 0..<workers { associations[worker] -= old.cells[worker].inbound.count }
    }
    let row = step.old?.row ?? takeRow()
    routes.replace(
      step.old.map { ($0.record.plan.routes, $0.order) }, by: step.new.map { ($0.plan.routes, $0.order) }, row: row)
    guard let record, let new = step.new else {
      members[step.name] = nil
      freeRows.append(row)
      for transition in transitions { transition.rows.append(vacated(row, step, transition)) }
      return
    }
    nextOrder = max(nextOrder, new.order + 1)
    count.add(record, 1)
    var cells = step.old?.cells ?? []
    let before = step.old?.record
    // What is agreed without consequences is of no concern to the workers.
    if record !== before, before?.configuration != record.configuration || before?.plan != record.plan {
      maker.note(record.configuration)
      cells = transitions.enumerated().map { maker.makeCells(step, record, worker: $0, $1, now: now) }
      for (worker, transition) in transitions.enumerated() {
        change(row, step, Snapshot.Owner(record: record, cells: cells[worker]), worker: worker, transition)
      }
    }
    for worker in 0..<workers { associations[worker] += cells[worker].inbound.count }
    members[step.name] = Member(record: record, base: new.base, order: new.order, row: row, cells: cells)
  }

  private mutating func takeRow() -> Int {
    if let row = freeRows.popLast() { return row }
    usedRows += 1
    return usedRows - 1
  }

  private func change(
    _ row: Int, _ step: Step, _ owner: Snapshot.Owner, worker: Int, _ transition: Transition
  ) {
    let old = step.old
    let (before, after) = (old?.cells[worker], owner.cells)
    transition.rows.append(
      Snapshot.RowChange(
        row: row, owner: owner, oldSPIs: (before?.inbound ?? []).map { $0.reference.value.spi },
        associations: Snapshot.associations(owner, row: row), entry: Snapshot.entry(owner, worker: worker),
        isOtherPeer: old == nil, hasOtherOwn: before?.own !== after.own))
    let (was, peer) = (old?.configuration, owner.record.configuration)
    if peer.negotiatesKeys, worker == 0, after.outbound != nil, before?.outbound !== after.outbound {
      transition.rekeyed.append(row)
    }
    if was?.paths != peer.paths || was?.outbound?.implicitIV != peer.outbound?.implicitIV
      || was?.aggregates != peer.aggregates || was?.mtu != peer.mtu || old == nil
    {
      transition.unsettled.append(row)
    }
  }

  private func vacated(_ row: Int, _ step: Step, _ transition: Transition) -> Snapshot.RowChange {
    let worker = transition.worker
    return Snapshot.RowChange(
      row: row, owner: nil, oldSPIs: (step.old?.cells[worker].inbound ?? []).map { $0.reference.value.spi },
      associations: [], entry: nil, isOtherPeer: true, hasOtherOwn: true)
  }

  private mutating func update(rulesChanged: Bool, accessChanged: Bool, isOtherList: Bool) {
    let isOtherGate = common.isClosed == settings.localPrefixes.isEmpty
    common.isClosed = !settings.localPrefixes.isEmpty
    common.interface = settings.interface
    common.peerCount = members.count
    common.translates = count.translated > 0
    common.aggregates = count.aggregating > 0
    if isOtherList { common.peerListVersion &+= 1 }
    if usedRows > rowCapacity { rowCapacity = Registry.roomy(usedRows) }
    routes.own = OwnPrefixes(settings)
    let next = routes.next(after: common.routes)
    if let next { common.routes = next }
    guard next != nil || rulesChanged || accessChanged || isOtherGate else { return }
    var lists: [(row: Int, list: StateCell<RuleSet>)] = []
    if count.limited > 0 {
      for member in members.values { if let list = member.record.access { lists.append((member.row, list)) } }
    }
    common.firewall = FirewallPolicy(
      settings.firewall, routes: common.routes, isClosed: common.isClosed, lists: lists, rows: rowCapacity,
      previous: common.firewall, judgesAnew: true)
  }

  /// True when a worker needs other tables, because those that it has are full.
  private mutating func makesRoom(_ worker: Int) -> Bool {
    let isFull = madeRows[worker] < rowCapacity || associations[worker] > associationCapacity[worker]
    if associations[worker] > associationCapacity[worker] {
      associationCapacity[worker] = Registry.roomy(associations[worker])
    }
    madeRows[worker] = rowCapacity
    return isFull
  }

  /// Room for a quarter more.
  private static func roomy(_ count: Int) -> Int { count + count / 4 + 8 }
}
