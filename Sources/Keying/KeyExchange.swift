public import Identity
public import PacketIO

/// Keys for tunnels, agreed upon with partners by the Host Identity Protocol (RFC 7401, RFC 7402): all handshakes,
/// rekeys and ends of one gateway.
///
/// It has no socket, clock or thread. Whoever drives it gives it packets that came, with where from, and what the
/// dataplane has seen; does the actions in order (`takeActions`); and calls `work` at `deadline`.
///
/// 1. Packets of nobody who is a partner are counted and forgotten.
/// 2. What is asked without keys gets an answer that costs nothing to forget: `Responder`.
/// 3. All else is one partner's: `HostAssociation`.
public struct KeyExchange {
  /// What a gateway has that the exchanges depend on.
  public struct Settings: Sendable {
    /// Workers of the dataplane: 1, 2, 4, 8 or 16.
    public var workers: Int
    /// Key encapsulations there are, the best first.
    public var mechanisms: [any KeyEncapsulation]
    /// Place of the transport that carries datagrams, among the dataplane's: addresses that partners tell of are there.
    public var datagramTransport: UInt8
    /// UPDATEs that are looked at a second, of each partner, and three times as many at once; each costs a signature.
    public var updatesPerSecond: UInt64

    public init(
      workers: Int = 1, mechanisms: [any KeyEncapsulation] = [], datagramTransport: UInt8 = 0,
      updatesPerSecond: UInt64 = 4
    ) {
      self.workers = workers
      self.mechanisms = mechanisms
      self.datagramTransport = datagramTransport
      self.updatesPerSecond = updatesPerSecond
    }

    func mechanisms(for partner: Partner) -> [UInt8] {
      partner.isForeign || partner.postQuantum == .off ? [] : mechanisms.map(\.mechanism)
    }

    func mechanism(_ number: UInt8?) -> (any KeyEncapsulation)? {
      mechanisms.first { $0.mechanism == number }
    }
  }

  /// What became of packets that came.
  public struct Counters: Sendable, Equatable {
    /// Of partners.
    public var taken = 0
    /// No HIP packets, or such with critical parameters that are not known.
    public var malformed = 0
    /// Of somebody who is no partner, or to somebody who is not here.
    public var unknown = 0
  }

  private let settings: Settings
  private var random: any RandomNumberGenerator & Sendable
  private var spis = SPIPool()
  private(set) var responder: Responder
  private var associations: [Responder.Pair: HostAssociation] = [:]
  private var names: [String: Responder.Pair] = [:]
  private var due = KeyingDeadlines()
  private var actions: [KeyingAction] = []
  private var farewells = Farewells()
  private var relays = RelayVoices()
  private var reflexive: LocatorSet?
  private var strangers = Strangers()
  public private(set) var counters = Counters()

  /// - Parameter random: for keys: the system's, but in simulations.
  public init(_ settings: Settings = Settings(), random: any RandomNumberGenerator & Sendable) {
    self.settings = settings
    self.random = random
    responder = Responder(counter: self.random.next() as UInt64 >> 16)
  }

  /// What is to be done, in order.
  public mutating func takeActions() -> [KeyingAction] {
    defer { actions = [] }
    return actions
  }

  /// When `work` has something to do though nothing comes; nil: never.
  public var deadline: MonotonicTime? { [due.first, farewells.deadline].compactMap(\.self).min() }

  // MARK: Partners

  /// A partner is there, or is another than before. Where who it is stays, so do its keys.
  public mutating func set(_ partner: Partner, now: MonotonicTime) {
    let pair = Responder.Pair(local: partner.local.tag, remote: partner.remote)
    if let before = names[partner.name], before != pair { remove(partner.name, now: now) }
    // Whoever had that name before has another one, or none: its keys are another peer's.
    if let owner = name(of: partner), owner != partner.name { remove(owner, now: now) }
    names[partner.name] = pair
    let isNew = associations[pair] == nil
    with(pair, default: HostAssociation(partner), now: now) { association, _, turn in
      // Keys that it would not get any more go.
      let isGood = association.session.map { partner.accepts($0, agreedWith: association.partner) } ?? true
      if !isGood { association.close(&turn) }
      association.partner = partner
      if isNew || !isGood { association.begin(&turn) }
    }
  }

  /// Under which name somebody is a partner already, who has the same two identities; nil: nobody is.
  package func name(of partner: Partner) -> String? {
    associations[Responder.Pair(local: partner.local.tag, remote: partner.remote)]?.partner.name
  }

  /// A partner is none any more: its keys go, and it is told.
  public mutating func remove(_ name: String, now: MonotonicTime) {
    guard let pair = names.removeValue(forKey: name) else { return }
    with(pair, now: now) { association, _, turn in association.close(&turn) }
    associations[pair] = nil
    due.set(pair, nil)
  }

  /// Identity relays that are listened to.
  /// - Parameter relays: GIDs.
  public mutating func set(relays: [HostIdentityTag]) { self.relays.set(relays) }

  /// A partner was closed, has not acknowledged that, and will be told once more.
  public var isLeaving: Bool { !farewells.isEmpty }

  /// There was no traffic with a partner for as long as its `idleClose`: its keys go, and it is told.
  public mutating func closeIdle(_ name: String, now: MonotonicTime) {
    withPartner(name, now: now) { association, turn in
      guard association.session != nil else { return }
      association.close(because: association.partner.isForeign ? nil : .idle, &turn)
      turn.report(.idle(partner: name))
    }
  }

  /// The end of all: every partner is told.
  public mutating func closeAll(now: MonotonicTime) {
    for pair in associations.keys { with(pair, now: now) { association, _, turn in association.close(&turn) } }
  }

  /// The same for good: of what comes afterwards only acknowledgments are taken, so that no partner is left with keys that
  /// were agreed upon in the meantime.
  public mutating func end(now: MonotonicTime) {
    closeAll(now: now)
    associations = [:]
    names = [:]
  }

  /// This side's addresses are others than before: all partners are told, along all paths (RFC 8046 §3.2.1), and
  /// handshakes that are under way begin anew.
  ///
  /// - Parameter locators: address and port of where this side takes datagrams, the preferred one first. The first eight
  ///   are told of; none of them is, where they are only of this machine or of one of its links.
  public mutating func move(to locators: [Endpoint], now: MonotonicTime) {
    let locators = LocatorSet(locators)
    guard !locators.endpoints.isEmpty else { return }
    for pair in associations.keys {
      with(pair, now: now) { association, _, turn in association.move(to: locators, &turn) }
    }
  }

  /// Partners that are reached by relays are told where those see this side, so that both ask each other there. What each
  /// sends opens its own address translator for what the other sends (hole punching, RFC 5128 §3.3), and where it does
  /// not, the relay goes on.
  ///
  /// - Parameter locators: address and port of this side as relays see it, and its own addresses, the first eight of
  ///   which are told of; none: relays see it nowhere.
  public mutating func set(reflexive locators: [Endpoint], now: MonotonicTime) {
    let locators = LocatorSet(locators)
    reflexive = locators.endpoints.isEmpty ? nil : locators
    for pair in associations.keys {
      with(pair, now: now) { association, _, turn in Mobility.introduce(&association, &turn) }
    }
  }

  /// A relay knows this side from now on, or again: partners whose paths lead there are told along it, so that the relay
  /// learns what it is to forward.
  public mutating func announce(along path: Path, now: MonotonicTime) {
    for pair in associations.keys {
      with(pair, now: now) { association, _, turn in RelayBinding.announce(along: path, of: &association, &turn) }
    }
  }

  /// SPIs of manual keys, which are not to be used.
  public mutating func reserve(_ spi: UInt32) { spis.reserve(spi) }

  /// Keys of a partner, as they are in use; nil: there are none.
  public func report(of name: String) -> SessionReport? {
    guard let session = names[name].flatMap({ associations[$0]?.session }), session.isConfirmed else { return nil }
    return session.report
  }

  /// There are no keys, and nobody is asked for any until there is traffic.
  public func isIdle(_ name: String) -> Bool {
    guard let association = names[name].flatMap({ associations[$0] }), case .none = association.attempt else {
      return false
    }
    return association.session == nil
  }

  /// Keys of a partner that are in use.
  public func trafficKeys(of name: String) -> (outbound: [TrafficKey], inbound: [TrafficKey]) {
    guard let session = names[name].flatMap({ associations[$0]?.session }), session.isConfirmed else { return ([], []) }
    return (session.keys.outbound, session.keys.inbound)
  }

  /// The session with a partner; for those who forge packets, to try what becomes of them.
  func session(with remote: HostIdentityTag) -> Session? {
    associations.first { $0.key.remote == remote }?.value.session
  }

  /// Why a partner has no keys, as far as is known.
  public func failure(of name: String) -> KeyingFailure? { names[name].flatMap { associations[$0]?.toldFailure } }

  // MARK: Packets

  /// A packet came, without the four zero bytes that go before it.
  public mutating func receive(_ bytes: [UInt8], along path: Path, now: MonotonicTime) {
    guard let packet = HIPPacket(bytes) else {
      counters.malformed += 1
      return
    }
    let pair = Responder.Pair(local: packet.receiver, remote: packet.sender)
    if let unknown = packet.unknownCritical {
      counters.malformed += 1
      return with(pair, now: now) { association, _, turn in
        guard var session = association.session else { return }
        association.notices.refuse(packet, unknown, in: &session, of: association.partner, along: path, &turn)
        association.session = session
      }
    }
    if packet.kind == .closeAck { farewells.takeAcknowledgment(packet, pair) }
    if packet.kind == .notify, relays.knows(packet.sender) { return takeRelayNotice(packet, now: now) }
    guard associations[pair] != nil else {
      counters.unknown += 1
      return noteStranger(packet, along: path, now: now)
    }
    counters.taken += 1
    with(pair, now: now) { association, responder, turn in
      switch packet.kind {
      case .i1:
        guard association.attempt.allowsAnswer(isGreater: association.isGreater, now: turn.now),
          let r1 = responder.answer(packet, of: association.partner, along: path, &turn)
        else { return }
        turn.send(r1, along: path)
      case .r1: association.takeR1(packet, along: path, &turn)
      case .i2: association.takeI2(packet, along: path, &responder, &turn)
      case .r2: association.takeR2(packet, along: path, &turn)
      case .update: association.takeUpdate(packet, along: path, &turn)
      case .close: association.takeClose(packet, along: path, &turn)
      case .closeAck: break
      case .notify:
        association.notices.take(packet, by: association.peer, of: association.partner, &turn)
      }
    }
  }

  private mutating func takeRelayNotice(_ packet: HIPPacket, now: MonotonicTime) {
    guard let (said, isNews) = relays.take(packet, now: now) else { return }
    counters.taken += 1
    if isNews { actions.append(.report(.relayNotified(relay: packet.sender, said.notice))) }
    guard let spi = RelayVoices.takenSPI(said),
      let pair = associations.first(where: { $0.key.local == packet.receiver && $0.value.claims(spi) })?.key
    else { return }
    with(pair, now: now) { association, _, turn in association.leave(spi, &turn) }
  }

  /// Somebody who is no partner speaks from where a partner should be that has no keys.
  private mutating func noteStranger(_ packet: HIPPacket, along path: Path, now: MonotonicTime) {
    // A relay's, which is at many partners' places.
    guard packet.kind != .notify else { return }
    let stranger = Stranger(gid: packet.sender, wanted: packet.receiver, path: path)
    let missed = associations.first { pair, association in
      // Who has another secret has another name for either side.
      (pair.local == packet.receiver || association.partner.mix != nil) && association.session == nil
        && association.partner.paths.contains(path) && !association.partner.relays.contains(path)
    }
    if let missed {
      return with(missed.key, now: now) { association, _, turn in association.fail(.otherKey, by: stranger, &turn) }
    }
    guard packet.kind == .i1 || packet.kind == .i2, strangers.isNews(stranger, now: now) else { return }
    let named = associations.first { $0.key.remote == packet.sender }?.value.partner.name
    actions.append(.report(.stranger(stranger, partner: named)))
  }

  // MARK: What the dataplane has seen

  /// A packet of the partner was opened under an association: of each it is enough to say so once.
  public mutating func opened(_ spi: UInt32, from name: String, now: MonotonicTime) {
    withPartner(name, now: now) { association, turn in association.opened(spi, &turn) }
  }

  /// There is a packet for a partner without keys. Where some are just being put in force, it has come before them.
  public mutating func want(_ name: String, now: MonotonicTime) {
    withPartner(name, now: now) { association, turn in
      if association.session?.isFresh(turn.now) != true { association.begin(&turn) }
    }
  }

  /// Nothing is heard of a partner that packets go to.
  public mutating func miss(_ name: String, now: MonotonicTime) {
    withPartner(name, now: now) { association, turn in association.begin(&turn) }
  }

  /// Keys could not be put in force: they are gone, and it is tried again after a while.
  public mutating func abandon(_ name: String, now: MonotonicTime) {
    withPartner(name, now: now) { association, turn in
      association.endAttempt(&turn)
      association.forget(&turn)
      association.attempt = .later(&turn)
    }
  }

  /// Keys are worn: as many packets or bytes went under them as is good for them.
  public mutating func rekey(_ name: String, now: MonotonicTime) {
    withPartner(name, now: now) { association, turn in association.beginRekey(&turn) }
  }

  // MARK: Time

  /// Does what is due.
  public mutating func work(now: MonotonicTime) {
    for farewell in farewells.takeDue(now) { actions.append(.send(farewell.packet, along: farewell.path)) }
    while let pair = due.takeFirst(before: now) {
      with(pair, now: now) { association, _, turn in association.work(&turn) }
    }
  }

  private mutating func withPartner(
    _ name: String, now: MonotonicTime, _ body: (inout HostAssociation, inout KeyingTurn) -> Void
  ) {
    guard let pair = names[name] else { return }
    with(pair, now: now) { association, _, turn in body(&association, &turn) }
  }

  /// Lends one association, and keeps what has become of it.
  private mutating func with(
    _ pair: Responder.Pair, default new: HostAssociation? = nil, now: MonotonicTime,
    _ body: (inout HostAssociation, inout Responder, inout KeyingTurn) -> Void
  ) {
    guard var association = associations[pair] ?? new else { return }
    var turn = KeyingTurn(now: now, settings: settings, random: random, spis: spis, reflexive: reflexive)
    // Neither is copied when it is written to.
    associations[pair] = nil
    spis = SPIPool()
    body(&association, &responder, &turn)
    random = turn.random
    spis = turn.spis
    actions += turn.actions
    if let farewell = turn.farewell { farewells.add(farewell, pair) }
    due.set(pair, association.deadline)
    associations[pair] = association
  }
}

/// When each association has something to do.
struct KeyingDeadlines {
  private var heap: [(at: MonotonicTime, pair: Responder.Pair)] = []
  /// What holds; entries that say otherwise are old.
  private var current: [Responder.Pair: MonotonicTime] = [:]

  var first: MonotonicTime? { heap.first?.at }

  mutating func set(_ pair: Responder.Pair, _ time: MonotonicTime?) {
    if current[pair] == time { return }
    current[pair] = time
    guard let time else { return }
    // Whoever rekeys without end leaves old entries behind, the latest of them for an hour.
    if heap.count > 2 * current.count + 64 {
      heap = heap.filter { current[$0.pair] == $0.at && $0.pair != pair }.sorted { $0.at < $1.at }
    }
    heap.append((time, pair))
    var child = heap.count - 1
    while child > 0, heap[child].at < heap[(child - 1) / 2].at {
      heap.swapAt(child, (child - 1) / 2)
      child = (child - 1) / 2
    }
  }

  /// One that is due, or whose entry was.
  mutating func takeFirst(before now: MonotonicTime) -> Responder.Pair? {
    while let top = heap.first, top.at <= now {
      removeTop()
      guard current[top.pair] == top.at else { continue }
      current[top.pair] = nil
      return top.pair
    }
    return nil
  }

  private mutating func removeTop() {
    let last = heap.removeLast()
    guard !heap.isEmpty else { return }
    heap[0] = last
    var parent = 0
    while true {
      let (left, right) = (2 * parent + 1, 2 * parent + 2)
      var least = parent
      if left < heap.count, heap[left].at < heap[least].at { least = left }
      if right < heap.count, heap[right].at < heap[least].at { least = right }
      if least == parent { return }
      heap.swapAt(parent, least)
      parent = least
    }
  }
}
