import Identity
import PacketIO
import Synchronization

@testable import Keying

/// The generator of a seed (SplitMix64).
struct Seeded: RandomNumberGenerator, Sendable {
  private var state: UInt64

  init(_ seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}

/// Gateways that shake hands over links that lose, repeat and reorder, on a clock of their own, from a seed.
///
/// Each has a dataplane of the simplest kind: what is sealed under a key can be opened by whoever accepts packets under
/// it. What must never happen is noted as a violation: a packet that nobody can open though both sides are there, and a
/// key that two begin to count under.
final class KeyingNetwork {
  struct Faults {
    var loss = 0.0
    var repetition = 0.0
    var reordering = 0.0
  }

  /// Something under way, or due.
  private enum Delivery {
    case handshake([UInt8], from: Int, source: Path)
    case data(TrafficKey, number: UInt64, from: Int)
  }

  struct Gateway {
    let name: String
    let identity: HostIdentity
    var exchange: KeyExchange
    var isUp = true
    /// By partner: keys that packets are accepted under, by SPI.
    var inbound: [UInt32: (key: TrafficKey, partner: String)] = [:]
    var outbound: [String: TrafficKey] = [:]
    var opened: Set<UInt32> = []
    var events: [KeyingEvent] = []
    /// Packets that were opened.
    var received = 0
    var sent = 0
    /// Packets of its that nobody could open.
    var lost = 0
    /// Where packets find it; it sends from the first.
    var places: [Path]
    /// By partner: where that says it is, and where it was found.
    var located: [String: [Path]] = [:]
    /// Bytes that may go to those places.
    var locatingCredit = 0
    var timesLocated = 0
    var found: [String: Path] = [:]
  }

  var gateways: [Gateway] = []
  var now = MonotonicTime(nanoseconds: 1_000_000_000)
  var faults = Faults()
  var violations: [String] = []
  /// Every packet of a handshake that went by.
  var wire: [(from: Int, bytes: [UInt8])] = []
  /// Those that went to where nobody is.
  var elsewhere: [(path: Path, bytes: [UInt8])] = []
  /// Decides what becomes of a packet: its delays in nanoseconds, none for a loss. Nil: the faults do.
  var judge: ((_ from: Int, _ to: Int, _ packet: HIPPacket) -> [UInt64])?
  /// What gets there instead.
  var edit: ((_ from: Int, _ bytes: [UInt8]) -> [UInt8])?
  private var queue: [(at: MonotonicTime, order: Int, to: Int, what: Delivery)] = []
  private var order = 0
  private var random: Seeded
  /// Keys that somebody seals under, with how often somebody began to.
  private var begun: [[UInt8]: Int] = [:]
  private let settings: KeyExchange.Settings
  static let delay: UInt64 = 5_000_000

  init(_ identities: [HostIdentity], settings: KeyExchange.Settings = KeyExchange.Settings(), seed: UInt64) {
    random = Seeded(seed)
    self.settings = settings
    for (number, identity) in identities.enumerated() {
      gateways.append(
        Gateway(
          name: "g\(number)", identity: identity,
          exchange: KeyExchange(settings, random: Seeded(seed &* 31 &+ UInt64(number))),
          places: [KeyingNetwork.path(to: number)]))
    }
  }

  static func path(to gateway: Int) -> Path {
    Path(endpoint: Endpoint(address: IPAddress(v4: 0xC000_0200 | UInt32(gateway + 1)), port: 4500))
  }

  func partner(_ number: Int, of gateway: Int) -> Partner {
    Partner(
      name: "g\(number)", local: gateways[gateway].identity, remote: gateways[number].identity.tag,
      paths: [KeyingNetwork.path(to: number)])
  }

  /// Both are partners of each other from now on.
  func join(_ a: Int, _ b: Int, _ change: (inout Partner) -> Void = { _ in }) {
    for (gateway, other) in [(a, b), (b, a)] {
      var partner = partner(other, of: gateway)
      change(&partner)
      set(partner, at: gateway)
    }
  }

  /// A gateway has other addresses from now on, of which it tells.
  func move(_ gateway: Int, to places: [Path]) {
    gateways[gateway].places = places
    act(gateway) { $0.move(to: places.map(\.endpoint), now: now) }
  }

  func set(_ partner: Partner, at gateway: Int) { act(gateway) { $0.set(partner, now: now) } }

  /// All that it knew is gone.
  func restart(_ gateway: Int, with partners: [Partner]) {
    gateways[gateway].exchange = KeyExchange(settings, random: Seeded(random.next()))
    gateways[gateway].inbound = [:]
    gateways[gateway].outbound = [:]
    gateways[gateway].opened = []
    for partner in partners { set(partner, at: gateway) }
  }

  /// Does something with an exchange, and what it asks for.
  func act(_ gateway: Int, _ body: (inout KeyExchange) -> Void) {
    body(&gateways[gateway].exchange)
    var hasAnswered: Set<Path> = []
    for action in gateways[gateway].exchange.takeActions() {
      // What an answer tells a partner to do is to be possible when it gets there.
      switch action {
      case .send(_, let path): hasAnswered.insert(path)
      case .installInbound(_, let partner):
        let paths = gateways.first { $0.name == partner }?.places ?? []
        if paths.contains(where: hasAnswered.contains) { violations.append("installed after the answer") }
      default: break
      }
      perform(action, gateway)
    }
  }

  private func perform(_ action: KeyingAction, _ gateway: Int) {
    switch action {
    case .send(let bytes, let path): send(bytes, along: path, from: gateway)
    case .installInbound(let keys, let partner):
      for key in keys {
        if gateways[gateway].inbound[key.spi] != nil { violations.append("SPI \(key.spi) twice at \(gateway)") }
        gateways[gateway].inbound[key.spi] = (key, partner)
      }
    case .useOutbound(let keys, let partner):
      guard let key = keys.first else { return violations.append("no key") }
      gateways[gateway].outbound[partner] = key
      for key in keys {
        let bytes = unsafe key.key.withBytes { unsafe [UInt8]($0) }
        begun[bytes, default: 0] += 1
        if begun[bytes] != 1 { violations.append("a key is begun twice") }
      }
      sendData(from: gateway, to: partner)
    case .usePath(let path, let partner):
      gateways[gateway].found[partner] = path
      if gateways.first(where: { $0.name == partner })?.places.contains(path) != true {
        violations.append("\(gateway) looks for \(partner) elsewhere")
      }
    case .located(let paths, let credit, let partner):
      gateways[gateway].locatingCredit += credit
      gateways[gateway].located[partner] = paths
      gateways[gateway].timesLocated += 1
    case .stopSending(let partner): gateways[gateway].outbound[partner] = nil
    case .retireInbound(let spis, _): for spi in spis { gateways[gateway].inbound[spi] = nil }
    case .report(let event): gateways[gateway].events.append(event)
    }
  }

  private func send(_ bytes: [UInt8], along path: Path, from: Int) {
    wire.append((from, bytes))
    guard let packet = HIPPacket(bytes) else { return violations.append("a malformed packet is sent") }
    guard let to = gateways.indices.first(where: { gateways[$0].places.contains(path) }) else {
      return elsewhere.append((path, bytes))
    }
    if bytes.count > 1200 { violations.append("\(bytes.count) bytes in a packet") }
    let bytes = edit?(from, bytes) ?? bytes
    for delay in judge?(from, to, packet) ?? delays() {
      put(.handshake(bytes, from: from, source: gateways[from].places[0]), to: to, after: delay)
    }
  }

  private func delays() -> [UInt64] {
    var delays: [UInt64] = []
    if chance() >= faults.loss { delays.append(KeyingNetwork.delay) }
    if chance() < faults.repetition { delays.append(KeyingNetwork.delay + random.next() % 2_000_000_000) }
    if chance() < faults.reordering { delays = delays.map { $0 + random.next() % 100_000_000 } }
    return delays
  }

  private func chance() -> Double { Double(random.next() >> 11) / Double(UInt64(1) << 53) }

  /// A packet of a handshake from anywhere.
  func inject(_ bytes: [UInt8], from: Int, to: Int, source: Path? = nil) {
    put(.handshake(bytes, from: from, source: source ?? gateways[from].places[0]), to: to, after: 0)
  }

  private func put(_ what: Delivery, to: Int, after delay: UInt64) {
    order += 1
    queue.append((now.adding(nanoseconds: delay), order, to, what))
  }

  /// A packet inside the tunnel, if there are keys. Data is never lost, so that whatever cannot be opened shows a fault.
  func sendData(from gateway: Int, to partner: String) {
    guard let key = gateways[gateway].outbound[partner], let to = gateways.firstIndex(where: { $0.name == partner })
    else { return }
    gateways[gateway].sent += 1
    put(.data(key, number: 0, from: gateway), to: to, after: KeyingNetwork.delay)
  }

  private func deliver(_ delivery: Delivery, to gateway: Int) {
    guard gateways[gateway].isUp else { return }
    switch delivery {
    case .handshake(let bytes, _, let source): act(gateway) { $0.receive(bytes, along: source, now: now) }
    case .data(let key, _, let from):
      guard let (own, partner) = gateways[gateway].inbound[key.spi], own == key else {
        gateways[from].lost += 1
        return
      }
      gateways[gateway].received += 1
      if gateways[gateway].opened.insert(key.spi).inserted {
        act(gateway) { $0.opened(key.spi, from: partner, now: now) }
      }
    }
  }

  /// Everything that happens within so many seconds.
  func run(seconds: Double, until isDone: () -> Bool = { false }) {
    let end = now.adding(nanoseconds: UInt64(seconds * 1e9))
    while !isDone() {
      let packet = queue.indices.min { (queue[$0].at, queue[$0].order) < (queue[$1].at, queue[$1].order) }
      let timer = gateways.indices.filter { gateways[$0].isUp }.compactMap { number in
        gateways[number].exchange.deadline.map { (at: $0, number) }
      }.min { $0.at < $1.at }
      guard let next = [packet.map { queue[$0].at }, timer?.at].compactMap(\.self).min(), next <= end else {
        now = end
        return
      }
      now = max(now, next)
      if let packet, queue[packet].at == next {
        let entry = queue.remove(at: packet)
        deliver(entry.what, to: entry.to)
      } else if let timer {
        act(timer.1) { $0.work(now: now) }
      }
    }
  }

  /// Both seal under what the other accepts.
  func areJoined(_ a: Int, _ b: Int) -> Bool {
    for (from, to) in [(a, b), (b, a)] {
      guard let key = gateways[from].outbound[gateways[to].name], gateways[to].inbound[key.spi]?.key == key else {
        return false
      }
    }
    return true
  }
}
