import Identity
import Keying
import PacketIO
import TestSupport

@testable import Gateway
@testable import Relay
@testable import Transports

/// Relays, and gateways that reach each other by them only, on one clock and from one seed: enrolments, handshakes, policy
/// and what relays forward are the real ones, links and the packets inside tunnels are not.
final class RelaySimulation {
  /// What is broken on purpose, to show that it would be found.
  enum Sabotage { case none, removalsAreIgnored, aPairIsForgotten, packetsGoToFormerAddresses }

  struct Plan {
    var gateways = 10
    var relays = 3
    /// Pairs of gateways that want each other.
    var partnerships = 20
    var events = 24
    /// For which things happen.
    var seconds = 25.0
    /// Seconds for which gateways, relays and links are gone, at most.
    var outage = 5
    /// Of a thousand pairs so many are allowed in the beginning.
    var allowed = 600
    var sabotage = Sabotage.none

    /// Few pairs, of which most may not meet for long, and long outages.
    static let sparse = Plan(gateways: 6, partnerships: 6, events: 20, seconds: 120, outage: 80, allowed: 300)
  }

  /// Its parts cannot be copied.
  final class RelayNode {
    let identity: HostIdentity
    let endpoint: Endpoint
    let cookies: HairpinCookies
    var relay: IdentityRelay
    var book: PolicyBook
    var isUp = true

    init(_ number: Int, _ authority: HairpinPublicKey, now: MonotonicTime, _ random: inout SeededNumbers) {
      identity = HostIdentity(ed25519Seed: random.bytes(32))
      endpoint = Endpoint(address: IPAddress(v4: 0xCB00_7101 + UInt32(number)), port: 4500)
      cookies = HairpinCookies(secret: random.bytes(32))
      book = PolicyBook(for: identity.tag, keys: [authority])
      relay = RelayNode.empty(identity, RelayPolicy(), cookies, now, seed: random.next())
    }

    func restart(_ policy: RelayPolicy, now: MonotonicTime, seed: UInt64) {
      relay = RelayNode.empty(identity, policy, cookies, now, seed: seed)
    }

    private static func empty(
      _ identity: HostIdentity, _ policy: RelayPolicy, _ cookies: HairpinCookies, _ now: MonotonicTime, seed: UInt64
    ) -> IdentityRelay {
      var options = RelayOptions(identity: identity, policy: policy)
      (options.gateways, options.pairs) = (16, 64)
      return IdentityRelay(options, cookies: cookies, now: now, random: SeededNumbers(seed: seed))
    }
  }

  struct GatewayNode {
    let identity: HostIdentity
    let relays: [PlannedRelay]
    var endpoint: Endpoint
    var isUp = true
    var exchange = KeyExchange(random: SeededNumbers(seed: 0))
    var sessions: [EnrolmentSession] = []
    var partners: [Int: Tunnel] = [:]
    /// Whose packets come under an SPI.
    var inbound: [UInt32: Int] = [:]
  }

  /// What a gateway's dataplane has of a partner.
  struct Tunnel {
    var outbound: UInt32?
    var path: Path?
    /// It was heard, or said to be silent.
    var lastHeard = MonotonicTime(nanoseconds: 0)
    var opened: Set<UInt32> = []
  }

  struct Link: Hashable {
    let gateway: Int
    let relay: Int
  }

  /// What links do, in thousandths, and nanoseconds.
  struct Weather {
    var loss = 0
    var repetition = 0
    /// Somebody sends a packet again, from elsewhere.
    var replay = 0
    var delay: UInt64 = 5_000_000
    var spread: UInt64 = 1
    var cuts: Set<Link> = []
  }

  enum Occurrence {
    /// - sender: whose it is; `isReplay`: somebody else sends it.
    case atRelay(Int, [UInt8], sender: Int, source: Endpoint, isReplay: Bool)
    case atAddress(Endpoint, [UInt8], relay: Int)
    case update(Int, RelayModel.Update, [UInt8])
    case change((RelaySimulation) -> Void)
  }

  let plan: Plan
  var random: SeededNumbers
  let start = MonotonicTime(nanoseconds: 1 << 50)
  var clock: HairpinClock
  var relays: [RelayNode] = []
  var gateways: [GatewayNode] = []
  var model: RelayModel
  var weather = Weather()
  var control: PolicyControl
  /// By SPI: who takes packets under it, of whom.
  private var owners: [UInt32: (owner: Int, partner: Int)] = [:]
  private var queue: [(at: MonotonicTime, occurrence: Occurrence)] = []
  private var formerAddresses: [Endpoint: Endpoint] = [:]
  private var places = 0
  /// Where somebody was who is elsewhere now.
  private var vacant: [Endpoint] = []
  private(set) var trace: [String] = []
  private(set) var faults: [String] = []
  private(set) var forwarded = 0

  static let tick: UInt64 = 25_000_000

  init(_ plan: Plan, seed: UInt64) {
    self.plan = plan
    random = SeededNumbers(seed: seed)
    clock = HairpinClock(monotonic: start, wall: 1_800_000_000)
    model = RelayModel(relays: Array(repeating: RelayModel.Relay(), count: plan.relays))
    control = PolicyControl(relays: plan.relays, &random)
    for number in 0..<plan.relays {
      relays.append(RelayNode(number, control.authority.publicKey, now: start, &random))
    }
    for _ in 0..<plan.gateways {
      let count = random.chance(100) ? 1 : 2 + random.below(plan.relays - 1)
      let planned = relays.shuffled(using: &random).prefix(count).map {
        PlannedRelay(gid: $0.identity.tag, endpoint: $0.endpoint)
      }
      gateways.append(
        GatewayNode(
          identity: HostIdentity(ed25519Seed: random.bytes(32)), relays: planned, endpoint: Endpoint.unspecified))
    }
    let all = gateways.indices.flatMap { a in (0..<a).map { RelayModel.Pair($0, a) } }
    control.partnerships = Array(all.shuffled(using: &random).prefix(plan.partnerships)).sorted()
    for number in gateways.indices {
      gateways[number].endpoint = freshAddress()
      begin(number)
    }
  }

  var now: MonotonicTime { clock.monotonic }

  func say(_ line: String) {
    let time = Double(now.nanoseconds(since: start)) / 1e9
    trace.append("\((time * 1000).rounded() / 1000) s: \(line)")
  }

  func fail(_ what: String) {
    say("WRONG: \(what)")
    if faults.count < 10 { faults.append(what) }
  }

  // MARK: Gateways

  private func freshAddress() -> Endpoint {
    places += 1
    let address =
      places % 2 == 0
      ? IPAddress(v4: 0xC612_0000 + UInt32(places)) : IPAddress(v6High: 0x2001_0DB8 << 32, low: UInt64(places))
    return Endpoint(address: address, port: UInt16(clamping: 1024 + random.below(60_000)))
  }

  /// A gateway starts, and knows nothing.
  func begin(_ number: Int) {
    let gateway = gateways[number]
    gateways[number].inbound = [:]
    gateways[number].partners = [:]
    gateways[number].exchange = KeyExchange(random: SeededNumbers(seed: random.next()))
    gateways[number].sessions = gateway.relays.map { EnrolmentSession($0, gateway.identity, now: now) }
    gateways[number].exchange.set(relays: gateway.relays.map(\.gid))
    gateways[number].isUp = true
    for pair in control.partnerships where pair.has(number) {
      let other = pair.a == number ? pair.b : pair.a
      gateways[number].partners[other] = Tunnel()
      var partner = Partner(
        name: "\(other)", local: gateway.identity, remote: gateways[other].identity.tag,
        paths: gateway.relays.map(\.path))
      partner.relays = partner.paths
      gateways[number].exchange.set(partner, now: now)
    }
    act(number)
  }

  /// A gateway's packets come from elsewhere from now on.
  /// - Parameter isKnown: it is its own address that has changed, not a translator's.
  func move(_ number: Int, isKnown: Bool) {
    let before = gateways[number].endpoint
    let isUsed = !vacant.isEmpty && random.chance(300)
    gateways[number].endpoint = isUsed ? vacant.remove(at: random.below(vacant.count)) : freshAddress()
    vacant.append(before)
    formerAddresses[gateways[number].endpoint] = before
    say("gateway \(number) moves to \(gateways[number].endpoint)\(isKnown ? "" : ", unnoticed")")
    guard isKnown, gateways[number].isUp else { return }
    gateways[number].exchange.move(to: [gateways[number].endpoint], now: now)
    act(number)
  }

  /// Partners are called by their numbers.
  private static func number(_ name: String) -> Int { Int(name) ?? -1 }

  private func act(_ number: Int) {
    for action in gateways[number].exchange.takeActions() {
      switch action {
      case .send(let bytes, let path): send([0, 0, 0, 0] + bytes, along: path, from: number)
      case .installInbound(let keys, let partner):
        let partner = Self.number(partner)
        for key in keys {
          if let owner = owners[key.spi], owner != (number, partner) { fail("SPI \(key.spi) is used twice") }
          owners[key.spi] = (number, partner)
          gateways[number].inbound[key.spi] = partner
        }
      case .useOutbound(let keys, let partner):
        let partner = Self.number(partner)
        gateways[number].partners[partner]?.outbound = keys.first?.spi
        gateways[number].partners[partner]?.lastHeard = now
        sendSealed(from: number, to: partner)
      case .usePath(let path, let partner): gateways[number].partners[Self.number(partner)]?.path = path
      case .stopSending(let partner): gateways[number].partners[Self.number(partner)]?.outbound = nil
      case .retireInbound(let spis, _): for spi in spis { gateways[number].inbound[spi] = nil }
      case .located: break
      case .report(let event): note(event, number)
      }
    }
  }

  private func note(_ event: KeyingEvent, _ number: Int) {
    switch event {
    case .established(let partner, _):
      say("gateway \(number) has keys with \(partner)")
      // Silence is counted anew.
      if let partner = Int(partner) { gateways[number].partners[partner]?.lastHeard = now }
    case .failed(let partner, let why, _): say("gateway \(number) has no keys with \(partner): \(why)")
    default: break
    }
  }

  /// A packet inside a tunnel along all paths, as probes go: its SPI, and whose it is.
  private func sendSealed(from number: Int, to partner: Int) {
    guard let tunnel = gateways[number].partners[partner], let spi = tunnel.outbound else { return }
    var bytes: [UInt8] = []
    bytes.append(number: spi)
    bytes.append(number: UInt32(clamping: number))
    bytes += [UInt8](repeating: 0, count: 92)
    for (place, relay) in gateways[number].relays.enumerated() {
      if relay.path == tunnel.path { gateways[number].sessions[place].busy(now: now) }
      send(bytes, along: relay.path, from: number)
    }
  }

  /// Traffic of each second: who has no keys, or is not heard, is asked for some, as a dataplane does.
  private func converse(_ number: Int) {
    for partner in gateways[number].partners.keys.sorted() {
      guard let tunnel = gateways[number].partners[partner] else { continue }
      let isSilent = now.nanoseconds(since: tunnel.lastHeard) >= 2_000_000_000
      if isSilent { gateways[number].partners[partner]?.lastHeard = now }
      sendSealed(from: number, to: partner)
      guard tunnel.outbound == nil || isSilent else { continue }
      if tunnel.outbound == nil {
        gateways[number].exchange.want("\(partner)", now: now)
      } else {
        gateways[number].exchange.miss("\(partner)", now: now)
      }
      act(number)
    }
  }

  private func work(_ number: Int) {
    guard gateways[number].isUp else { return }
    if let deadline = gateways[number].exchange.deadline, deadline <= now {
      gateways[number].exchange.work(now: now)
      act(number)
    }
    for place in gateways[number].sessions.indices {
      while let step = gateways[number].sessions[place].poll(now: now, using: &random) { follow(step, number, place) }
    }
  }

  private func follow(_ step: EnrolmentSession.Step, _ number: Int, _ place: Int) {
    let relay = gateways[number].relays[place]
    switch step {
    case .send(let bytes): send([0, 0, 0, 0] + bytes, along: relay.path, from: number)
    case .enrolled:
      say("gateway \(number) is enrolled at \(relay.endpoint)")
      gateways[number].exchange.announce(along: relay.path, now: now)
      act(number)
    case .lost(let why): say("gateway \(number) is not enrolled at \(relay.endpoint): \(why)")
    }
  }

  private func arrive(_ bytes: [UInt8], at number: Int, from relay: RelayNode) {
    guard gateways[number].isUp,
      let place = gateways[number].relays.firstIndex(where: { $0.endpoint == relay.endpoint })
    else { return }
    let path = gateways[number].relays[place].path
    guard bytes.prefix(4).allSatisfy({ $0 == 0 }) else { return open(bytes, at: number) }
    let message = Array(bytes.dropFirst(4))
    if message.first == 59 {
      gateways[number].exchange.receive(message, along: path, now: now)
      return act(number)
    }
    let wall = 1_800_000_000_000_000_000 + now.nanoseconds(since: start)
    let step = gateways[number].sessions[place].receive(message, now: now, wall: wall, using: &random)
    if let step { follow(step, number, place) }
  }

  private func open(_ bytes: [UInt8], at number: Int) {
    let (spi, sender) = Self.sealed(bytes)
    guard let partner = gateways[number].inbound[spi] else { return }
    if partner != sender { fail("gateway \(number) takes a packet of \(sender) for one of \(partner)") }
    gateways[number].partners[partner]?.lastHeard = now
    if gateways[number].partners[partner]?.opened.insert(spi).inserted == true {
      gateways[number].exchange.opened(spi, from: "\(partner)", now: now)
      act(number)
    }
  }

  private static func sealed(_ bytes: [UInt8]) -> (spi: UInt32, sender: Int) {
    var reader = ByteReader(bytes[...])
    return (reader.number(UInt32.self) ?? 0, Int(reader.number(UInt32.self) ?? 0))
  }

  // MARK: Links

  private func send(_ bytes: [UInt8], along path: Path, from number: Int) {
    guard let relay = relays.firstIndex(where: { $0.endpoint == path.endpoint }) else { return }
    let source = gateways[number].endpoint
    carry(Link(gateway: number, relay: relay)) {
      .atRelay(relay, bytes, sender: number, source: source, isReplay: false)
    }
    guard random.chance(weather.replay) else { return }
    let elsewhere = Endpoint(address: IPAddress(v4: 0xC633_6401), port: 4500)
    put(.atRelay(relay, bytes, sender: number, source: elsewhere, isReplay: true), after: weather.delay)
  }

  private func carry(_ link: Link, _ occurrence: () -> Occurrence) {
    guard !weather.cuts.contains(link), !random.chance(weather.loss) else { return }
    let delay = weather.delay + UInt64.random(in: 0..<weather.spread, using: &random)
    put(occurrence(), after: delay)
    // Late enough to speak of what is over.
    if random.chance(weather.repetition) { put(occurrence(), after: delay + UInt64(random.below(5_000_000_000))) }
  }

  func put(_ occurrence: Occurrence, after delay: UInt64) {
    let time = now.adding(nanoseconds: delay)
    // The next one stands last; of those at one time the first that was put.
    var (low, high) = (0, queue.count)
    while low < high {
      let middle = (low + high) / 2
      if queue[middle].at > time { low = middle + 1 } else { high = middle }
    }
    queue.insert((time, occurrence), at: low)
  }

  // MARK: Relays

  /// What a relay says goes to an address, and to whoever is there by then.
  private func emit(_ bytes: [UInt8], by relay: Int, to address: Endpoint) {
    guard let receiver = gateways.firstIndex(where: { $0.endpoint == address }) else { return }
    carry(Link(gateway: receiver, relay: relay)) { .atAddress(address, bytes, relay: relay) }
  }

  private func forward(
    _ bytes: [UInt8], by relay: Int, to place: Int, of sender: Int, from source: Endpoint, isSealed: Bool
  ) {
    forwarded += 1
    var address = relays[relay].relay.places.addresses[place].name.endpoint
    if plan.sabotage == .packetsGoToFormerAddresses, let former = formerAddresses[address] { address = former }
    let receiver =
      isSealed
      ? owners[Self.sealed(bytes).spi].flatMap { $0.partner == sender ? $0.owner : nil }
      : HIPPacket(Array(bytes.dropFirst(4))).flatMap { packet in
        gateways.firstIndex { $0.identity.tag == packet.receiver }
      }
    let wrong = model.forward(from: sender, at: source, to: receiver, at: address, by: relay)
    if let wrong { fail("relay \(relay): \(wrong)") }
    emit(bytes, by: relay, to: address)
  }

  /// What comes to a relay's port, as `SharedPorts` has it.
  private func take(_ bytes: [UInt8], at number: Int, sender: Int, source: Endpoint, isReplay: Bool) {
    let node = relays[number]
    guard node.isUp else { return }
    guard bytes.prefix(4).allSatisfy({ $0 == 0 }) else {
      switch withName(source, { node.relay.route(Self.sealed(bytes).spi, from: .datagram($0)) }) {
      case .forward(let side, let slot, let place):
        node.relay.forwarded(side, slot, packets: 1, bytes: bytes.count, now: now)
        forward(bytes, by: number, to: place, of: sender, from: source, isSealed: true)
      case .unknown(let drop, let side): ask(source, at: number, side: side, drop, length: bytes.count)
      }
      return
    }
    if bytes[4] != 59 { return answer(bytes, at: number, sender: isReplay ? nil : sender, source) }
    let outcome = withBytes(Array(bytes.dropFirst(4))) { packet in
      withName(source) { node.relay.observe(packet, from: .datagram($0), clock) }
    }
    switch outcome {
    case .forward(let place): forward(bytes, by: number, to: place, of: sender, from: source, isSealed: false)
    case .drop(_, let notice?): emit(notice, by: number, to: source)
    case .drop(let drop, nil): ask(source, at: number, side: nil, drop, length: bytes.count)
    case .wait: fail("relay \(number) is busy")
    }
  }

  private func ask(_ source: Endpoint, at number: Int, side: Int?, _ drop: RelayDrop, length: Int) {
    guard [.unknownSPI, .senderNotEnrolled, .foreignSource].contains(drop) else { return }
    let question = relays[number].relay.who(source, port: 4500, side: side, length: length, now: now)
    if let question { emit(question, by: number, to: source) }
  }

  private func answer(_ bytes: [UInt8], at number: Int, sender: Int?, _ source: Endpoint) {
    let node = relays[number]
    var answer: [UInt8]?
    if case .enrol(let enrol) = EnrolmentMessage(bytes) {
      answer = node.relay.answer(enrol, bytes, from: source, port: (0, 4500), clock)
      if case .enrolled? = answer.flatMap({ EnrolmentMessage($0) }) {
        let wrong = model.enrol(sender, enrol.sequence, from: source, at: number)
        if let wrong { fail("relay \(number): \(wrong)") }
      }
    } else if case .hello(let nonce, .zero) = HairpinMessage(bytes) {
      let cookie = node.cookies.cookie(source, nonce: nonce, port: 4500, now: now)
      answer = HairpinMessage.challenge(nonce: nonce, cookie: cookie).encoded
    } else if case .hold(let nonce) = HairpinMessage(bytes) {
      answer = node.relay.answerHold(nonce, from: source, now: now)
    }
    if let answer { emit(answer, by: number, to: source) }
  }

  private func tell(_ said: [(place: Int, notice: [UInt8])], by number: Int) {
    for (place, notice) in said {
      emit(notice, by: number, to: relays[number].relay.places.addresses[place].name.endpoint)
    }
  }

  /// An update gets to a relay, which keeps it also when it is down.
  private func take(_ update: RelayModel.Update, _ bytes: [UInt8], at number: Int) {
    let isTaken: Bool
    do throws(PolicyBook.Refusal) {
      _ = try relays[number].book.take(bytes)
      isTaken = true
      say("relay \(number) takes update \(update.number), which allows \(update.allowed), not \(update.removed)")
    } catch {
      isTaken = false
      say("relay \(number) refuses update \(update.number): \(error)")
    }
    if model.take(update, at: number) != isTaken { fail("relay \(number) judges update \(update.number) wrongly") }
    guard isTaken, relays[number].isUp else { return }
    tell(relays[number].relay.set(policy(of: number), clock), by: number)
  }

  /// What a relay is told to let pass.
  private func policy(of number: Int) -> RelayPolicy {
    var policy = relays[number].book.policy
    switch plan.sabotage {
    case .removalsAreIgnored:
      for pair in relays[number].relay.policy.namedPairs { policy.allow(pair.smaller, pair.greater) }
    case .aPairIsForgotten: if let pair = policy.namedPairs.last { policy.deny([pair]) }
    case .none, .packetsGoToFormerAddresses: break
    }
    return policy
  }

  func restartRelay(_ number: Int) {
    relays[number].restart(policy(of: number), now: now, seed: random.next())
    model.restart(number)
    relays[number].isUp = true
  }

  // MARK: Time

  func run(seconds: Double) {
    let end = now.adding(seconds: seconds)
    while now < end {
      let next = now.adding(nanoseconds: RelaySimulation.tick)
      while let first = queue.last, first.at <= next {
        queue.removeLast()
        set(max(now, first.at))
        happen(first.occurrence)
      }
      set(next)
      let turn = now.nanoseconds(since: start) / RelaySimulation.tick
      for number in relays.indices where relays[number].isUp && turn % 4 == 0 {
        for _ in 0..<2 { tell(relays[number].relay.sweep(clock), by: number) }
      }
      for number in gateways.indices {
        work(number)
        if gateways[number].isUp, turn % 40 == UInt64(4 * number) { converse(number) }
      }
    }
  }

  private func set(_ time: MonotonicTime) {
    clock = HairpinClock(
      monotonic: time, wall: 1_800_000_000 + Int64(time.nanoseconds(since: start) / 1_000_000_000))
  }

  private func happen(_ occurrence: Occurrence) {
    switch occurrence {
    case .atRelay(let relay, let bytes, let sender, let source, let isReplay):
      take(bytes, at: relay, sender: sender, source: source, isReplay: isReplay)
    case .atAddress(let address, let bytes, let relay):
      guard let number = gateways.firstIndex(where: { $0.endpoint == address }) else { return }
      arrive(bytes, at: number, from: relays[relay])
    case .update(let relay, let update, let bytes): take(update, bytes, at: relay)
    case .change(let change): change(self)
    }
  }

  // MARK: What came of it

  /// Whether a relay would forward a packet from one gateway to another now.
  func passes(_ relay: Int, from a: Int, to b: Int) -> Bool {
    guard let spi = gateways[a].partners[b]?.outbound else { return false }
    let node = relays[relay]
    guard
      case .forward(_, _, let place) = withName(gateways[a].endpoint, { node.relay.route(spi, from: .datagram($0)) })
    else { return false }
    return node.relay.places.addresses[place].name.endpoint == gateways[b].endpoint
  }

  /// What keeps two gateways apart; nil: both have keys of each other, and a relay forwards in both directions.
  func obstacle(_ pair: RelayModel.Pair) -> String? {
    for (a, b) in [(pair.a, pair.b), (pair.b, pair.a)] {
      guard gateways[a].exchange.report(of: "\(b)") != nil, let spi = gateways[a].partners[b]?.outbound else {
        return "\(a) has no keys with \(b)"
      }
      guard gateways[b].inbound[spi] == a else { return "\(b) does not take what \(a) seals" }
    }
    let isOpen = relays.indices.contains {
      passes($0, from: pair.a, to: pair.b) && passes($0, from: pair.b, to: pair.a)
    }
    return isOpen ? nil : "no relay forwards between \(pair)"
  }

  /// Pairs that are to be connected: allowed, and with a relay in common.
  var wanted: [RelayModel.Pair] {
    control.partnerships.filter { pair in
      relays.contains { relay in
        control.allowed.contains(pair)
          && [pair.a, pair.b].allSatisfy { gateways[$0].relays.contains { $0.endpoint == relay.endpoint } }
      }
    }
  }

  var obstacles: [String] { wanted.compactMap { obstacle($0) } }

  /// What passes and is not to.
  var leaks: [String] {
    control.partnerships.filter { !control.allowed.contains($0) }.flatMap { pair in
      relays.indices.filter { passes($0, from: pair.a, to: pair.b) || passes($0, from: pair.b, to: pair.a) }
        .map { "relay \($0) forwards between \(pair)" }
    }
  }
}
