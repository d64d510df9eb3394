public import Dataplane
public import Identity
public import Keying
public import PacketIO

/// Agrees upon keys for a dataplane's peers: carries messages between `KeyExchange` and the dataplane, and puts the keys
/// in force.
///
/// Peers are added to the dataplane first, with `negotiatesKeys` and under the partner's name. All work is done on a
/// thread of its own. It reads the dataplane's messages and key notices, so nobody else can.
public actor KeyAgent {
  private let dataplane: Dataplane
  private var exchange: KeyExchange
  private let thread = KeyThread()
  private let admission = Admission()
  private var relayPairs: Set<Admission.Pair> = []
  /// By partner.
  private var terms: [String: (partner: Partner, terms: AssociationTerms)] = [:]
  /// What is to be done, and whether somebody does it.
  private var pending: [KeyingAction] = []
  private var isActing = false
  /// Who waits until that is done.
  private var waiting: [CheckedContinuation<Void, Never>] = []
  private var alarm: (at: MonotonicTime, task: Task<Void, Never>)?
  private var idleness = IdleWatch()
  /// Looks for partners without traffic, while some are to be closed then.
  private var idleTask: Task<Void, Never>?
  /// Who waits until all that were told of the end know, or were told twice.
  private var parting: [CheckedContinuation<Void, Never>] = []
  private var readers: [Task<Void, Never>] = []
  private let reports: AsyncStream<KeyAgentEvent>.Continuation
  /// What becomes of partners, for one reader; of those that nobody has read yet the newest thousand are kept.
  public nonisolated let events: AsyncStream<KeyAgentEvent>
  private let isOther: @Sendable (PacketBytes, Path) -> Bool
  private let otherMessages: AsyncStream<PathMessage>.Continuation
  /// Messages that are not of a handshake, for one reader: those that `init` was told of. The newest hundred are kept.
  public nonisolated let others: AsyncStream<PathMessage>

  /// The thread that does all of this.
  public nonisolated var unownedExecutor: UnownedSerialExecutor { thread.unowned }

  /// - Parameters:
  ///   - settings: as many workers as the dataplane has.
  ///   - isOther: which messages besides those of handshakes are wanted; asked on packet threads.
  public init(
    _ dataplane: Dataplane, _ settings: KeyExchange.Settings = KeyExchange.Settings(),
    others isOther: @escaping @Sendable (PacketBytes, Path) -> Bool = { _, _ in false }
  ) {
    self.dataplane = dataplane
    self.isOther = isOther
    (others, otherMessages) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(100))
    exchange = KeyExchange(settings, random: SystemRandomNumberGenerator())
    (events, reports) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1024))
  }

  deinit {
    alarm?.task.cancel()
    idleTask?.cancel()
    for reader in readers { reader.cancel() }
    reports.finish()
    otherMessages.finish()
    thread.end()
  }

  /// Begins to work. Partners may be set before.
  public func start() {
    guard readers.isEmpty else { return }
    let messages = dataplane.messages { [admission, isOther] message, path in
      // Which it is, its first byte says (RFC 7401 §5.1).
      HIPHeader.peek(message) == nil ? isOther(message, path) : admission.admits(message, now: .current())
    }
    let notices = dataplane.keyNotices()
    readers = [
      Task { [weak self] in for await message in messages { await self?.take(message) } },
      Task { [weak self] in for await notice in notices { await self?.take(notice) } },
    ]
  }

  // MARK: Partners

  /// A partner is there, or is another than before; a handshake with a new one begins at once. The dataplane has a peer
  /// of its name.
  public func set(_ partner: Partner, _ terms: AssociationTerms = AssociationTerms()) {
    let before = self.terms[partner.name]
    if let before, before.partner.pair != partner.pair { admission.remove(before.partner.pair) }
    // Names may be exchanged.
    if let owner = exchange.name(of: partner), owner != partner.name { remove(owner) }
    admission.insert(partner.pair)
    self.terms[partner.name] = (partner, terms)
    act { $0.set(partner, now: $1) }
    if partner.idleClose != nil, idleTask == nil {
      idleTask = Task { [weak self] in
        while let interval = await self?.closeIdle() { try? await Task.sleep(for: interval) }
      }
    }
  }

  /// A partner is none any more: its keys go, and it is told.
  public func remove(_ name: String) {
    guard let before = terms.removeValue(forKey: name) else { return }
    admission.remove(before.partner.pair)
    idleness.forget(name)
    act { $0.remove(name, now: $1) }
  }

  /// Identity relays whose word counts.
  /// - Parameters:
  ///   - relays: their GIDs.
  ///   - local: this gateway's.
  public func set(relays: [HostIdentityTag], local: HostIdentityTag) {
    let pairs = Set(relays.map { Admission.Pair(local: local, remote: $0) })
    for pair in relayPairs.subtracting(pairs) { admission.remove(pair) }
    for pair in pairs { admission.insert(pair) }
    relayPairs = pairs
    exchange.set(relays: relays)
  }

  /// SPIs of manual keys, which are not to be used.
  public func reserve(_ spis: [UInt32]) { for spi in spis { exchange.reserve(spi) } }

  /// This side's addresses are others than before: all partners are told, and told again until they know.
  /// - Parameter locators: as `KeyExchange.move(to:now:)` has it.
  public func move(to locators: [Endpoint]) { act { $0.move(to: locators, now: $1) } }

  /// As `KeyExchange.set(reflexive:now:)`.
  public func set(reflexive locators: [Endpoint]) { act { $0.set(reflexive: locators, now: $1) } }

  /// A relay knows this side from now on, or again: see `KeyExchange.announce(along:now:)`.
  public func announce(along path: Path) { act { $0.announce(along: path, now: $1) } }

  /// New keys for a partner now.
  public func rekey(_ name: String) { act { $0.rekey(name, now: $1) } }

  /// Returns when all that was asked for so far is in force, and sent.
  public func settle() async {
    guard isActing else { return }
    await withCheckedContinuation { waiting.append($0) }
  }

  /// Tells all partners that this is the end. Returns when they know, or were told a second time, half a second later;
  /// call it before the dataplane stops.
  public func stop() async {
    act { $0.end(now: $1) }
    if exchange.isLeaving { await withCheckedContinuation { parting.append($0) } }
    await settle()
    alarm?.task.cancel()
    idleTask?.cancel()
    for reader in readers { reader.cancel() }
    reports.finish()
    otherMessages.finish()
  }

  /// What is known of a partner: its keys, or why there are none.
  public func status(of name: String) -> KeyStatus? {
    terms[name].map { KeyStatus($0.partner, exchange) }
  }

  /// The same of all partners, by name.
  public func statuses() -> [String: KeyStatus] {
    terms.mapValues { KeyStatus($0.partner, exchange) }
  }

  /// Associations that are in use, by partner: with their keys, so for operators who ask for these.
  public func associations() -> [String: [SecurityAssociationConfiguration]] {
    terms.mapValues { known in
      let (outbound, inbound) = exchange.trafficKeys(of: known.partner.name)
      return outbound.map { known.terms.outbound($0, known.partner.lifetime, isFirst: false) }
        + inbound.map { known.terms.inbound($0) }
    }
  }

  /// Whose packets were looked at of late, and whose were too many.
  package func share() -> Statistics.Share {
    let names = terms.map { ($1.partner.pair, $0) }
    return admission.share(Dictionary(names) { first, _ in first }, now: .current())
  }

  /// What became of packets that came.
  public var counters: KeyExchange.Counters { exchange.counters }

  // MARK: What comes in

  private func take(_ message: PathMessage) {
    guard message.bytes.first == 59 else {
      otherMessages.yield(message)
      return
    }
    act { $0.receive(message.bytes, along: message.path, now: $1) }
  }

  private func take(_ notice: KeyNotice) {
    act { exchange, now in
      switch notice {
      case .opened(let name, let spi): exchange.opened(spi, from: name, now: now)
      case .wanted(let name): exchange.want(name, now: now)
      case .silent(let name): exchange.miss(name, now: now)
      case .worn(let name, _): exchange.rekey(name, now: now)
      }
    }
  }

  /// Closes partners without traffic.
  /// - Returns: time until it is to be looked again; nil: nobody is to be closed for that, or this is the end.
  private func closeIdle() async -> Duration? {
    let limits = terms.compactMap { name, known in known.partner.idleClose.map { (name: name, time: $0) } }
    for (name, time) in limits {
      guard let peer = await dataplane.statistics(of: name), terms[name]?.partner.idleClose == time else { continue }
      let idle = idleness.note(name, packets: peer.sent.packets &+ peer.received.packets, now: .current())
      if idle >= time { act { $0.closeIdle(name, now: $1) } }
    }
    let shortest = limits.map(\.time).min()
    if shortest == nil || Task.isCancelled { idleTask = nil }
    return Task.isCancelled ? nil : shortest.map(IdleWatch.interval)
  }

  private func ring() {
    alarm = nil
    act { $0.work(now: $1) }
  }

  private func act(_ body: (inout KeyExchange, MonotonicTime) -> Void) {
    body(&exchange, .current())
    pending += exchange.takeActions()
    setAlarm()
    if !exchange.isLeaving {
      for continuation in parting { continuation.resume() }
      parting = []
    }
    guard !isActing, !pending.isEmpty else { return }
    isActing = true
    Task { await self.perform() }
  }

  private func setAlarm() {
    guard let deadline = exchange.deadline else {
      alarm?.task.cancel()
      alarm = nil
      return
    }
    if let alarm, alarm.at <= deadline { return }
    alarm?.task.cancel()
    let wait = deadline.nanoseconds(since: .current())
    let task = Task { [weak self] in
      try? await Task.sleep(for: .nanoseconds(Int64(clamping: wait)))
      if !Task.isCancelled { await self?.ring() }
    }
    alarm = (deadline, task)
  }

  // MARK: What is to be done

  /// In order: what tells a peer to send comes behind what is needed to open that.
  private func perform() async {
    while !pending.isEmpty {
      let changes = takeChanges()
      if !changes.isEmpty { await put(changes) }
      while let next = pending.first, change(next) == nil {
        pending.removeFirst()
        switch next {
        case .send(let bytes, let path): dataplane.send(message: bytes, along: path)
        case .usePath(let path, let name): dataplane.follow(path, of: name)
        case .located(let paths, let credit, let name):
          for (place, path) in paths.enumerated() {
            dataplane.consider(path, of: name, credit: place == 0 ? credit : 0)
          }
        case .report(let event):
          // With new keys the time without traffic begins anew.
          if case .established(let name, _) = event { idleness.forget(name) }
          reports.yield(.keying(event))
        default: break
        }
      }
    }
    isActing = false
    for continuation in waiting { continuation.resume() }
    waiting = []
  }

  /// Changes that come one behind the other, so that they are put in force at once.
  private func takeChanges() -> [(partner: String, change: [ConfigurationChange])] {
    var changes: [(partner: String, change: [ConfigurationChange])] = []
    while let next = pending.first, let change = change(next) {
      pending.removeFirst()
      changes.append(change)
    }
    return changes
  }

  /// Nil: it is no change of the dataplane's.
  private func change(_ action: KeyingAction) -> (partner: String, change: [ConfigurationChange])? {
    switch action {
    case .send, .usePath, .located, .report: return nil
    case .installInbound(let keys, let name):
      let terms = terms[name]?.terms ?? AssociationTerms()
      return (name, keys.map { .installInbound(terms.inbound($0), peer: name) })
    case .useOutbound(let keys, let name):
      let known = terms[name]
      let isFirst = known.map { $0.partner.local.tag > $0.partner.remote } ?? false
      let associations = keys.map {
        (known?.terms ?? AssociationTerms()).outbound($0, known?.partner.lifetime ?? KeyLifetime(), isFirst: isFirst)
      }
      return (
        name,
        [.installOutbound(associations.first, workers: associations.count > 1 ? associations : [], peer: name)]
      )
    case .stopSending(let name): return (name, [.installOutbound(nil, peer: name)])
    case .retireInbound(let spis, let name): return (name, spis.map { .retireInbound(spi: $0, peer: name) })
    }
  }

  private func put(_ changes: [(partner: String, change: [ConfigurationChange])]) async {
    do {
      return try await dataplane.apply(changes.flatMap(\.change))
    } catch {
      // One of them is to blame; the others are to be in force.
      guard changes.count > 1 else { return report(changes[0].partner, error) }
    }
    for (partner, change) in changes {
      do {
        try await dataplane.apply(change)
      } catch {
        report(partner, error)
      }
    }
  }

  /// Whoever is no partner any more may have gone from the dataplane before its keys were taken back.
  private func report(_ name: String, _ error: any Error) {
    guard terms[name] != nil, !(error is StoppedError) else { return }
    // What they would have been told of has not come about.
    pending.removeAll { action in
      switch action {
      case .report(.established(name, _)), .report(.rekeyed(name, _)): true
      // As the partner, of what it may send under now.
      case .send(let bytes, _): HIPPacket(bytes)?.receiver == terms[name]?.partner.remote
      default: false
      }
    }
    act { $0.abandon(name, now: $1) }
    reports.yield(.notInForce(partner: name, "\(error)"))
  }
}

/// What an agent tells.
public enum KeyAgentEvent: Sendable, Equatable {
  case keying(KeyingEvent)
  /// Keys were agreed upon, and the dataplane does not take them.
  case notInForce(partner: String, String)
}

/// How things are with a partner.
public struct KeyStatus: Sendable, Equatable {
  /// Who it is.
  public let remote: String
  /// Nil: there are no keys.
  public let session: SessionReport?
  /// Why there are none, as far as is known.
  public let failure: KeyingFailure?
  /// There are none, and none are asked for until there is traffic.
  public let isIdle: Bool

  package init(_ partner: Partner, _ session: SessionReport?, _ failure: KeyingFailure?, isIdle: Bool = false) {
    remote = "\(partner.remote)"
    (self.session, self.failure, self.isIdle) = (session, failure, isIdle)
  }

  init(_ partner: Partner, _ exchange: KeyExchange) {
    let name = partner.name
    self.init(partner, exchange.report(of: name), exchange.failure(of: name), isIdle: exchange.isIdle(name))
  }
}

extension Partner {
  fileprivate var pair: Admission.Pair { Admission.Pair(local: local.tag, remote: remote) }
}
