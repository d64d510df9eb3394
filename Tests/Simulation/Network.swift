import Glibc
import PacketIO
import TestSupport

@testable import Dataplane

/// Gateways, the links between them, the hosts behind them and whoever looks after them, on one clock and from one seed;
/// with a model that knows what must come of each packet.
///
/// What happens to a packet: `hostsSend`, the sender's nodes, `dispatch` (translator, link), `arrive` (translator), the
/// receiver's nodes, `deliver`. After each call of a node, `collect` takes what it has made.
final class Network {
  let plan: Plan
  var numbers: SeededNumbers
  var clock = Clock()
  private(set) var gateways: [Gateway] = []
  var operators: [Operator] = []
  var internet: Internet
  /// Nil: nobody meets at a relay.
  let hairpins: HairpinNetwork?
  private var hosts: Hosts
  private(set) var model: Model
  private(set) var trace = Trace()
  /// What is wrong with a gateway or a link on purpose, so that a test can see that it is found.
  var sabotage: Sabotage? { didSet { hairpins?.sabotage = sabotage?.ofRelay } }

  private var coordinations: [AddressCoordination?]
  /// By SPI, whose packets they are.
  private var tunnels: [UInt32: (tunnel: Plan.Tunnel, association: SecurityAssociationConfiguration)] = [:]
  /// Datagrams that somebody keeps for a replay.
  private var captured: [Flight] = []
  /// Datagrams that each gateway's nodes were given.
  private var taken: [Int]
  /// Gateways to which an attacker has brought something before its sender could: it cannot be told from a translator.
  private var deceived: Set<Int> = []
  /// What each link brought that got to no gateway.
  private(set) var strayed = 0
  var trafficGoesOn = true
  /// No weather any more.
  private(set) var isCalm = false

  init(_ plan: Plan, seed: UInt64) throws {
    self.plan = plan
    numbers = SeededNumbers(seed: seed)
    model = Model(gateways: plan.gateways)
    coordinations = Array(repeating: nil, count: plan.gateways)
    taken = Array(repeating: 0, count: plan.gateways)
    internet = Internet(plan)
    hairpins = plan.hairpins.isEmpty ? nil : HairpinNetwork(plan, seed: seed, now: clock.now)
    hosts = Hosts(plan)
    for number in 0..<plan.gateways {
      operators.append(Operator(plan, gateway: number, hairpins: hairpins?.paths(of: number) ?? [:]))
      gateways.append(Gateway(number: number, plan))
      try start(number)
      clock.plan(.traffic(gateway: number), after: numbers.next() % 10_000_000)
    }
  }

  var now: MonotonicTime { clock.now }

  // MARK: Time

  /// Lets so much time pass, or as much as passes before something is wrong.
  func run(seconds: Double) throws {
    let end = now.adding(seconds: seconds)
    while model.fault == nil, let occurrence = clock.next(until: end) { try happen(occurrence) }
  }

  private func happen(_ occurrence: Occurrence) throws {
    switch occurrence {
    case .arrival(let flight): arrive(flight)
    case .traffic(let gateway): hostsSend(gateway)
    case .timers(let gateway, let worker, let life):
      guard isAlive(gateway, life) else { return }
      gateways[gateway].work(worker, now: now)
      planTimers(gateway, worker)
      collect(gateway)
    case .wake(let gateway, let worker, let life):
      guard isAlive(gateway, life) else { return }
      gateways[gateway].takeHandOffs(worker, now: now)
      collect(gateway)
    case .refusal(let gateway, let worker, let life, let path, let size, let quote):
      guard isAlive(gateway, life) else { return }
      gateways[gateway].refused(path, over: size, quote, worker: worker, now: now)
      collect(gateway)
    case .negotiation(let gateway, let life):
      if isAlive(gateway, life) { negotiate(gateway) }
    case .adoption(let gateway, let worker, let life, let transition, let configuration):
      if isAlive(gateway, life) { adopt(gateway, worker, transition, configuration) }
    case .hairpins(let place): if let hairpins { follow(hairpins.work(place, now: now, &numbers)) }
    case .step(let step): step(self)
    }
  }

  private func isAlive(_ gateway: Int, _ life: Int) -> Bool {
    gateways[gateway].isUp && gateways[gateway].life == life
  }

  private func planTimers(_ gateway: Int, _ worker: Int) {
    let deadline = max(gateways[gateway][worker].value.deadline, now.adding(nanoseconds: 1000))
    clock.plan(.timers(gateway: gateway, worker: worker, life: gateways[gateway].life), at: deadline)
  }

  func note(
    _ kind: Trace.Event.Kind, _ gateway: Int, other: Int = -1, number: UInt64 = 0, size: Int = 0
  ) {
    trace.add(Trace.Event(time: now, kind: kind, gateway: gateway, other: other, number: number, size: size))
  }

  /// From when on events are to be shown; nil: the last ones.
  func showTrace(from start: MonotonicTime?) { trace.start = start }

  /// For steps that are planned: what they cannot do is a fault.
  func perform(_ action: (Network) throws -> Void) {
    do { try action(self) } catch { model.fail("\(error)") }
  }

  /// Ends the weather, and mends all links and gateways.
  func calm() throws {
    isCalm = true
    internet.mend()
    startRelay()
    for gateway in gateways {
      let lacked = !(operators[gateway.number].absent.isEmpty && operators[gateway.number].unsealed.isEmpty)
      (operators[gateway.number].absent, operators[gateway.number].unsealed) = ([], [])
      if !gateway.isUp { try start(gateway.number) } else if lacked { try reload(gateway.number) }
    }
  }

  // MARK: Hosts

  private func hostsSend(_ gateway: Int) {
    let burst = 1 + numbers.below(7)
    clock.plan(
      .traffic(gateway: gateway),
      after: UInt64(4_000_000_000 / plan.rate) / 2 + numbers.next() % UInt64(4_000_000_000 / plan.rate))
    guard trafficGoesOn, gateways[gateway].isUp else { return }
    let other = (gateway + 1 + numbers.below(plan.gateways - 1)) % plan.gateways
    send(burst, from: gateway, to: other)
  }

  /// Hosts behind one gateway send some packets to hosts behind another, at one moment.
  func send(_ count: Int, from gateway: Int, to other: Int) {
    let names = plan.alike.isEmpty ? nil : names(from: gateway, to: other)
    guard plan.alike.isEmpty || names != nil else { return }
    let burst = hosts.burst(
      of: count, from: gateway, to: other, number: UInt64(model.sent.count), names: names, now: now, &numbers)
    for sent in burst.packets {
      note(.read, gateway, other: other, number: sent.packet.number, size: sent.packet.size)
      model.add(sent)
    }
    gateways[gateway].read(burst.pieces, worker: numbers.below(plan.workers(gateway)), now: now)
    collect(gateway)
  }

  /// By which address a host knows the one behind the other gateway, and that one it; nil before the two have agreed.
  private func names(from gateway: Int, to other: Int) -> (destination: IPAddress, source: IPAddress)? {
    // Both sides have to agree on it, and all workers to know it by now.
    func name(of named: Int, at knower: Int) -> IPAddress? {
      let spaces =
        gateways[knower].agreements(with: named).map { $0?.remote.first { $0.prefix == Plan.commonLAN } }
        + gateways[named].agreements(with: knower).map { $0?.local.first { $0.prefix == Plan.commonLAN } }
      guard gateways[knower].isUp, gateways[named].isUp, let space = spaces.first,
        spaces.allSatisfy({ $0 == space }), case .known(let prefix)? = space?.state
      else { return nil }
      return IPAddress(v4: prefix.address.v4 | plan.host(named).v4 & 0xFF)
    }
    guard let destination = name(of: other, at: gateway), let source = name(of: gateway, at: other) else { return nil }
    return (destination, source)
  }

  // MARK: What nodes have made

  private func collect(_ gateway: Int) {
    let made = gateways[gateway].made
    gateways[gateway].made = Gateway.Made()
    for (datagram, path) in made.datagrams { dispatch(datagram, path, from: gateway) }
    for path in made.keepAlives {
      // A hairpin's session keeps it open.
      guard path.transport < plan.interfaces else { continue }
      note(.keepAlive, gateway)
      dispatch([0xFF], path, from: gateway)
    }
    for (bytes, wasCut) in made.packets { deliver(bytes, wasCut: wasCut, at: gateway) }
    for reply in made.replies {
      if let number = model.tell(reply, at: gateway) { note(.told, gateway, number: number) }
    }
    let life = gateways[gateway].life
    for worker in made.woken {
      note(.handedOff, gateway, other: worker)
      clock.plan(
        .wake(gateway: gateway, worker: worker, life: life), after: 1000 + numbers.next() % 20_000)
    }
    if !made.notices.isEmpty { hear(made.notices, gateway) }
  }

  private func deliver(_ bytes: [UInt8], wasCut: Bool, at gateway: Int) {
    var bytes = bytes
    if sabotage == .losesDelivery, numbers.chance(2) { return }
    if sabotage == .altersDelivery, numbers.chance(2) { bytes[bytes.count - 1] ^= 1 }
    guard let packet = model.deliver(bytes, wasCut: wasCut, at: gateway) else { return }
    note(.delivered, gateway, other: packet.from, number: packet.packet.number, size: bytes.count)
  }

  // MARK: Between gateways

  private func dispatch(_ datagram: [UInt8], _ path: Path, from gateway: Int) {
    if plan.silent.contains(gateway), datagram.count > 1, datagram.count < 200 { return }
    let from = Place(gateway: gateway, interface: Int(path.transport))
    let known = datagram.count < 8 ? nil : tunnels[datagram[0..<4].reduce(0) { $0 << 8 | UInt32($1) }]
    let seal = known.map { model.seal(datagram, $0.association) }
    trace.add(tagOf: datagram)
    if seal != nil, Internet.isAttackers(path.endpoint.address), !deceived.contains(gateway) {
      model.fail("gateway \(gateway) follows an attacker")
    }
    var destination = path.endpoint
    if let hairpins, path.transport == plan.hairpinTransport {
      guard let port = hairpins.port(of: path, at: gateway, now: now) else {
        close(path, at: gateway, ENOTCONN)
        return stray(gateway, known?.tunnel.to, seal, datagram.count, sentAt: now)
      }
      destination = port
      planHairpins()
    }
    guard let source = internet.leave(from, to: destination, now: now), let to = internet.place(of: destination)
    else { return stray(gateway, known?.tunnel.to, seal, datagram.count, sentAt: now) }
    let link = internet.link(from: gateway, to: to.gateway, interface: to.interface)
    let flight = Flight(
      datagram: datagram, source: source, destination: destination, link: link, to: to, sentAt: now, seal: seal)
    launch(flight, from: gateway, path)
  }

  /// Puts a datagram on its link. Of what a gateway has sent, its sender may be told that it is too large.
  private func launch(_ flight: Flight, from place: Int, _ path: Path? = nil) {
    var flight = flight
    let (datagram, wasCorrupted) = (flight.datagram, flight.isCorrupted)
    let tunnel = flight.seal.flatMap { tunnels[$0.spi]?.tunnel }
    let sequence = flight.seal?.sequence ?? 0
    note(.sealed, place, other: flight.to.gateway, number: sequence, size: datagram.count)
    if captured.count < 200, numbers.chance(20) { captured.append(flight) }
    switch internet.links[flight.link].carry(bytes: datagram.count, &numbers) {
    case .lost(let loss):
      if case .tooLarge = loss, internet.links[flight.link].faults.tells, let path {
        let quote = QuotedPacket(spi: flight.seal?.spi ?? 0, sequence: UInt32(truncatingIfNeeded: sequence))
        tell(place, path, over: internet.links[flight.link].faults.mtu, quote)
      }
      note(.lost, place, other: flight.to.gateway, number: sequence, size: datagram.count)
      if let tunnel { model.harm(from: tunnel.from, to: tunnel.to, sentAt: flight.sentAt) }
    case .arrives(let copies):
      for copy in copies {
        flight.isCorrupted = copy.isCorrupted || wasCorrupted
        flight.datagram = datagram
        if copy.isCorrupted {
          let bit = numbers.below(datagram.count * 8)
          flight.datagram[bit / 8] ^= 1 << UInt8(bit % 8)
          if let tunnel { model.harm(from: tunnel.from, to: tunnel.to, sentAt: flight.sentAt) }
        }
        clock.plan(.arrival(flight), after: copy.after)
      }
    }
  }

  /// A router's message, or one that looks like it, is on its way to a gateway; some worker's socket gets it.
  func tell(_ gateway: Int, _ path: Path, over size: Int, _ quote: QuotedPacket) {
    clock.plan(
      .refusal(
        gateway: gateway, worker: numbers.below(plan.workers(gateway)), life: gateways[gateway].life, path, size: size,
        quote), after: 1_000_000)
  }

  private func stray(_ gateway: Int, _ meant: Int?, _ seal: Seal?, _ size: Int, sentAt: MonotonicTime) {
    strayed += 1
    note(.strayed, gateway, other: meant ?? -1, number: seal?.sequence ?? 0, size: size)
    if let meant { model.harm(from: gateway, to: meant, sentAt: sentAt) }
  }

  private func arrive(_ first: Flight) {
    var gateway = first.to.gateway
    guard gateway < plan.gateways else { return arriveAtRelay(first) }
    var received: [(bytes: [UInt8], path: Path)] = []
    var next: Flight? = first
    while let flight = next {
      take(flight, &received)
      next = received.count < Node.batchCapacity ? clock.nextArrival(at: gateway) : nil
    }
    guard !received.isEmpty else { return }
    if sabotage == .deliversElsewhere, numbers.chance(5) { gateway = (gateway + 1) % plan.gateways }
    guard gateways[gateway].isUp else { return }
    // Hairpins are worker 0's.
    let isByRelay = received.contains { $0.path.transport >= plan.interfaces }
    let worker = isByRelay ? 0 : numbers.below(plan.workers(gateway))
    gateways[gateway].receive(received, worker: worker, now: now)
    collect(gateway)
  }

  private func take(_ flight: Flight, _ received: inout [(bytes: [UInt8], path: Path)]) {
    let gateway = flight.to.gateway
    let tunnel = flight.seal.flatMap { tunnels[$0.spi]?.tunnel }
    guard internet.enters(flight, now: now), gateways[gateway].isUp else {
      return stray(tunnel?.from ?? gateway, tunnel?.to, flight.seal, flight.datagram.count, sentAt: flight.sentAt)
    }
    // Keep-alives are for translators, and a transport ignores them.
    guard flight.datagram.count > 1 else { return }
    var path = Path(transport: UInt8(flight.to.interface), endpoint: flight.source)
    if let hairpins, path.transport == plan.hairpinTransport {
      let (found, made) = hairpins.hear(flight, now: now, &numbers)
      follow(made)
      guard let found else {
        if let tunnel { stray(tunnel.from, tunnel.to, flight.seal, flight.datagram.count, sentAt: flight.sentAt) }
        return
      }
      path = found
    }
    let opens = model.receive(flight, at: gateway)
    if opens, Internet.isAttackers(flight.source.address) { deceived.insert(gateway) }
    note(
      opens ? .arrived : .refused, gateway, other: tunnel?.from ?? -1, number: flight.seal?.sequence ?? 0,
      size: flight.datagram.count)
    if !opens, let tunnel, tunnel.to == gateway {
      model.harm(from: tunnel.from, to: gateway, sentAt: flight.sentAt)
    }
    if sabotage == .acceptsTwice, let seal = flight.seal { forgetReplays(seal.spi, gateway) }
    taken[gateway] += 1
    received.append((flight.datagram, path))
  }

  private func forgetReplays(_ spi: UInt32, _ gateway: Int) {
    for node in gateways[gateway].nodes {
      guard let entry = node.reference.value.tables.association(spi) else { continue }
      entry.state.value.window = ReplayWindow(size: 2048, extended: true, lowest: 1)
    }
  }

  // MARK: At the relay

  private func arriveAtRelay(_ first: Flight) {
    var flights: [Flight] = []
    var next: Flight? = first
    while let flight = next {
      if internet.enters(flight, now: now) { flights.append(flight) }
      next = flights.count < 40 ? clock.nextArrival(at: plan.relay) : nil
    }
    if let hairpins { follow(hairpins.receive(flights, now: now)) }
  }

  /// Carries what the relay and the sessions with it have made.
  private func follow(_ made: HairpinNetwork.Made) {
    if let complaint = made.complaint { model.fail(complaint) }
    for flight in made.lost {
      let tunnel = flight.seal.flatMap { tunnels[$0.spi]?.tunnel }
      if let tunnel { stray(tunnel.from, tunnel.to, flight.seal, flight.datagram.count, sentAt: flight.sentAt) }
    }
    for departure in made.departures {
      let source = Endpoint(address: HairpinRelay.endpoint.address, port: departure.port)
      send(departure.bytes, from: plan.relay, source, to: departure.to, departure.flight)
    }
    for (gateway, bytes, destination) in made.questions {
      let place = Place(gateway: gateway, interface: Int(plan.hairpinTransport))
      guard let source = internet.leave(place, to: destination, now: now) else { continue }
      send(bytes, from: gateway, source, to: destination, nil)
    }
    for (gateway, path) in made.lostPaths { close(path, at: gateway, ETIMEDOUT) }
    planHairpins()
  }

  /// - Parameter flight: what it came in by.
  private func send(_ bytes: [UInt8], from place: Int, _ source: Endpoint, to destination: Endpoint, _ flight: Flight?)
  {
    trace.add(tagOf: bytes)
    let sentAt = flight?.sentAt ?? now
    let tunnel = flight?.seal.flatMap { tunnels[$0.spi]?.tunnel }
    guard let to = internet.place(of: destination) else {
      return stray(tunnel?.from ?? place, tunnel?.to, flight?.seal, bytes.count, sentAt: sentAt)
    }
    let link = internet.link(from: place, to: to.gateway, interface: to.interface)
    launch(
      Flight(
        datagram: bytes, source: source, destination: destination, link: link, to: to, sentAt: sentAt,
        seal: flight?.seal, isCorrupted: flight?.isCorrupted ?? false), from: place)
  }

  /// A gateway's transport says that a path is not open.
  private func close(_ path: Path, at gateway: Int, _ error: Int32) {
    let life = gateways[gateway].life
    clock.plan(
      .step { network in
        guard network.isAlive(gateway, life) else { return }
        network.gateways[gateway].failed(path, error: error, now: network.now)
        network.collect(gateway)
      }, after: 1000)
  }

  private func planHairpins() {
    guard let hairpins else { return }
    for place in 0...plan.relay {
      if let time = hairpins.nextTime(place, now: now) { clock.plan(.hairpins(place: place), at: time) }
    }
  }

  /// - Parameter isOrderly: its gateways are told.
  func stopRelay(isOrderly: Bool) {
    guard let hairpins, hairpins.isUp else { return }
    note(.stopped, plan.relay)
    follow(hairpins.stopRelay(isOrderly: isOrderly, now: now))
  }

  func startRelay() {
    guard let hairpins, !hairpins.isUp else { return }
    note(.started, plan.relay)
    hairpins.startRelay(now: now)
    planHairpins()
  }

  // MARK: What people do

  /// Starts a gateway, the first time or again: what must not be forgotten is in its state file.
  func start(_ gateway: Int) throws {
    if sabotage != .repeatsNumbers { operators[gateway].used = model.used }
    operators[gateway].accepted = model.accepted(at: gateway)
    var configuration = try operators[gateway].configuration()
    if sabotage == .forgetsFirewall, gateway == 0 { configuration.firewall.mode = .off }
    try register(gateway)
    note(.started, gateway)
    gateways[gateway].start(configuration, now: now, &numbers)
    for worker in 0..<plan.workers(gateway) {
      accept(gateway, worker, configuration)
      planTimers(gateway, worker)
    }
    hairpins?.start(gateway, now: now)
    planHairpins()
    coordinations[gateway] = plan.alike.contains(gateway) ? AddressCoordination() : nil
    coordinations[gateway]?.update(configuration, now: now, random: &numbers)
    negotiate(gateway)
    collect(gateway)
  }

  func stop(_ gateway: Int) {
    guard gateways[gateway].isUp else { return }
    note(.stopped, gateway)
    hairpins?.stop(gateway)
    let complaint = gateways[gateway].stop(now: now)
    collect(gateway)
    model.harmAll(through: gateway, now: now)
    model.end(gateway)
    if let complaint { model.fail(complaint) }
  }

  /// Puts what its operator has decided in force.
  func reload(_ gateway: Int) throws {
    guard gateways[gateway].isUp else { return }
    let configuration = try operators[gateway].configuration()
    try register(gateway)
    coordinations[gateway]?.update(configuration, now: now, random: &numbers)
    planAdoption(gateway, try gateways[gateway].compile(configuration, now: now), configuration)
    negotiate(gateway)
  }

  private func register(_ gateway: Int) throws {
    for tunnel in operators[gateway].tunnels {
      let association = try plan.association(tunnel)
      tunnels[association.spi] = (tunnel, association)
    }
  }

  private func planAdoption(_ gateway: Int, _ transitions: [Transition], _ configuration: Configuration) {
    for (worker, transition) in transitions.enumerated() {
      clock.plan(
        .adoption(gateway: gateway, worker: worker, life: gateways[gateway].life, transition, configuration),
        after: 1000 * UInt64(1 + 7 * worker))
    }
  }

  private func adopt(_ gateway: Int, _ worker: Int, _ transition: Transition, _ configuration: Configuration) {
    gateways[gateway].adopt(transition, worker: worker, now: now)
    accept(gateway, worker, configuration)
    note(.adopted, gateway, other: worker)
    collect(gateway)
  }

  private func accept(_ gateway: Int, _ worker: Int, _ configuration: Configuration) {
    let workers = plan.workers(gateway)
    if workers == 1 { hosts.adopt(configuration, at: gateway) }
    model.adopt(configuration.peers.flatMap(\.inbound), at: gateway, worker: worker, of: workers)
  }

  /// A gateway has another address from now on.
  func move(_ gateway: Int, interface: Int = 0) {
    internet.move(Place(gateway: gateway, interface: interface))
    note(.moved, gateway)
  }

  // MARK: Attackers

  /// Somebody sends again what a gateway has sent before, from elsewhere.
  func replay() {
    guard !captured.isEmpty else { return }
    var flight = captured[numbers.below(captured.count)]
    flight.source = Internet.attacker
    guard internet.translators[flight.to] == nil else { return }
    flight.link = -1
    note(.replayed, flight.to.gateway, number: flight.seal?.sequence ?? 0)
    clock.plan(.arrival(flight), after: 1000)
  }

  /// Somebody sends what looks like a sealed packet.
  func invent() {
    let place = Place(gateway: numbers.below(plan.gateways), interface: numbers.below(plan.interfaces))
    guard let destination = internet.endpoint(of: place), internet.translators[place] == nil else { return }
    var datagram = numbers.bytes(2 + numbers.below(200))
    if numbers.chance(500), let known = captured.randomElement(using: &numbers), datagram.count >= 8 {
      datagram.replaceSubrange(0..<8, with: known.datagram.prefix(8))
    }
    note(.invented, place.gateway, size: datagram.count)
    clock.plan(
      .arrival(
        Flight(
          datagram: datagram, source: Internet.attacker, destination: destination, link: -1, to: place, sentAt: now,
          seal: nil)),
      after: 1000)
  }

  // MARK: Negotiation

  private func hear(_ notices: [NegotiationNotice], _ gateway: Int) {
    guard coordinations[gateway] != nil else { return }
    for notice in notices {
      switch notice {
      case .message(let peer, let type, let body):
        coordinations[gateway]?.receive(body, type: type, from: peer, now: now)
      case .heard(let peer): coordinations[gateway]?.nudge(peer, now: now)
      }
    }
    negotiate(gateway)
  }

  private func negotiate(_ gateway: Int) {
    guard let messages = coordinations[gateway]?.poll(now: now) else { return }
    for message in messages { gateways[gateway].send(message, now: now) }
    if let changes = coordinations[gateway]?.takeChanges(), !changes.isEmpty,
      let configuration = try? operators[gateway].configuration()
    {
      note(.agreed, gateway)
      let agreements = coordinations[gateway]?.agreements ?? [:]
      perform { network in
        network.planAdoption(
          gateway, try network.gateways[gateway].compile(agreements, now: network.now), configuration)
      }
    }
    if let deadline = coordinations[gateway]?.nextDeadline {
      clock.plan(
        .negotiation(gateway: gateway, life: gateways[gateway].life),
        at: max(deadline, now.adding(nanoseconds: 1_000_000)))
    }
    collect(gateway)
  }

  /// What a gateway has agreed on with another; nil: nothing yet.
  func agreement(of gateway: Int, with other: Int) -> AddressAgreement? {
    coordinations[gateway]?.agreements[Plan.name(other)]
  }

  // MARK: The end

  /// Lets arrive what is under way, and looks at all books.
  ///
  /// - Parameter allowed: reasons for which gateways may have dropped packets that nothing has harmed.
  func finish(allowing allowed: Set<DropReason> = []) throws {
    trafficGoesOn = false
    try run(seconds: 2)
    if let hairpins {
      follow(hairpins.finish())
      try run(seconds: 0.1)
    }
    guard model.fault == nil else { return }
    if sabotage == .leaksBuffer { _ = gateways[0][0].value.pool.take() }
    let audit = Audit(model: model, plan: plan, taken: taken, allowed: allowed)
    for gateway in gateways { if let complaint = audit.complaint(about: gateway) { model.fail(complaint) } }
    for (index, link) in internet.links.enumerated() {
      let underway = clock.count { if case .arrival(let flight) = $0 { flight.link == index } else { false } }
      if link.underway != underway {
        model.fail("link \(index) accounts for \(link.underway) datagrams, not \(underway)")
      }
    }
    let allowedDrops = gateways.reduce(0) { sum, gateway in
      allowed.reduce(sum) { $0 + gateway.books.dropped($1) }
    }
    // Errors are sent so many a second; the others of these senders learn nothing.
    let untold = gateways.reduce(-model.told) { $0 + $1.books.dropped(.exceedsPathMTU) }
    model.judge(counted: allowedDrops + max(untold, 0))
  }
}
