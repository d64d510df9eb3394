import PacketIO
import TestSupport
import TransportSupport

@testable import Relay
@testable import Transports

/// The relay of a network and all gateways' sessions with it; what they send is the network's to carry.
final class HairpinNetwork {
  /// What was made, to be taken by the network.
  struct Made {
    var departures: [HairpinRelay.Departure] = []
    var questions: [(gateway: Int, bytes: [UInt8], to: Endpoint)] = []
    var lost: [Flight] = []
    var lostPaths: [(gateway: Int, path: Path)] = []
    /// What the relay should not have done.
    var complaint: String?
  }

  /// What relays remember of tickets, as their state file does.
  private final class Uses: @unchecked Sendable { var all: [HairpinUse] = [] }

  private let plan: Plan
  /// By gateway.
  private var entries: [[HairpinTransport.Entry]]
  private var paths: [[Int: Path]]
  private let authority: HairpinPublicKey
  private let uses = Uses()
  private var relay: HairpinRelay
  private var clients: [HairpinClient?]
  private var model = HairpinModel()
  private var planned: [MonotonicTime?]
  private var numbers: SeededNumbers
  private(set) var isUp = true
  var sabotage: HairpinRelay.Sabotage? { didSet { relay.sabotage = sabotage } }

  init(_ plan: Plan, seed: UInt64, now: MonotonicTime) {
    self.plan = plan
    numbers = SeededNumbers(seed: seed)
    entries = Array(repeating: [], count: plan.gateways)
    paths = Array(repeating: [:], count: plan.gateways)
    clients = Array(repeating: nil, count: plan.gateways)
    planned = Array(repeating: nil, count: plan.gateways + 1)
    var sample = HairpinSample(seed: seed)
    authority = sample.authority.publicKey
    for hairpin in plan.hairpins {
      let ticket = sample.ticket(at: HairpinWall(now: now).seconds) {
        $0.bandwidth = hairpin.bandwidth
        $0.notAfter += 86_400
      }
      for end in HairpinEnd.allCases {
        let (gateway, peer) = end == .first ? (hairpin.first, hairpin.second) : (hairpin.second, hairpin.first)
        let entry = HairpinTransport.Entry(sample.file(ticket, end, proxy: HairpinRelay.endpoint), .udp)
        entries[gateway].append(entry)
        paths[gateway][peer] = entry.file.path(.udp, transport: plan.hairpinTransport)
      }
    }
    let uses = uses
    relay = HairpinNetwork.relay(authority, [], now, seed: numbers.next()) { uses.all.append($0) }
  }

  private static func relay(
    _ authority: HairpinPublicKey, _ uses: [HairpinUse], _ now: MonotonicTime, seed: UInt64,
    onUse: @escaping @Sendable (HairpinUse) -> Void
  ) -> HairpinRelay {
    var options = HairpinProxyOptions(listen: [HairpinRelay.endpoint], publicKeys: [authority])
    options.hairpins = 8
    options.uses = uses
    options.reports.onUse = onUse
    return HairpinRelay(options, clock: clock(now), seed: seed)
  }

  private static func clock(_ now: MonotonicTime) -> HairpinClock {
    HairpinClock(monotonic: now, wall: HairpinWall(now: now).seconds)
  }

  /// By which paths a gateway reaches others at the relay.
  func paths(of gateway: Int) -> [Int: Path] { paths[gateway] }
  /// How often a gateway's hairpins were opened.
  func openings(_ gateway: Int) -> UInt64 { clients[gateway]?.openings ?? 0 }

  // MARK: Time

  /// When there is something to do at a place, of which nobody was told; the relay's is behind the gateways'.
  func nextTime(_ place: Int, now: MonotonicTime) -> MonotonicTime? {
    let deadline = place < plan.gateways ? clients[place]?.deadline : isUp ? relay.deadline() : nil
    guard let time = deadline.map({ max($0, now.adding(nanoseconds: 1000)) }) else { return nil }
    if let known = planned[place], known > now, known <= time { return nil }
    planned[place] = time
    return time
  }

  func work(_ place: Int, now: MonotonicTime, _ numbers: inout SeededNumbers) -> Made {
    guard planned[place] == now else { return Made() }
    planned[place] = nil
    guard place < plan.gateways else {
      guard isUp else { return Made() }
      relay.work(Self.clock(now))
      return takeMade()
    }
    clients[place]?.work(plan.hairpinTransport, HairpinWall(now: now), &numbers)
    return takeMade(place)
  }

  // MARK: Gateways

  func start(_ gateway: Int, now: MonotonicTime) { clients[gateway] = HairpinClient(entries[gateway], now: now) }
  func stop(_ gateway: Int) { clients[gateway] = nil }

  /// Where a gateway's sealed packet goes; nil: the hairpin is not open.
  func port(of path: Path, at gateway: Int, now: MonotonicTime) -> Endpoint? {
    clients[gateway]?.port(of: path, now: now)
  }

  /// - Returns: by which path a sealed packet has come; nil: it was none, or nobody's.
  func hear(_ flight: Flight, now: MonotonicTime, _ numbers: inout SeededNumbers) -> (path: Path?, made: Made) {
    let gateway = flight.to.gateway
    let path = clients[gateway]?.receive(
      flight.datagram, from: flight.source, plan.hairpinTransport, HairpinWall(now: now), &numbers)
    return (path, takeMade(gateway))
  }

  private func takeMade(_ gateway: Int) -> Made {
    var made = Made()
    guard let (questions, lost) = clients[gateway]?.takeMade() else { return made }
    made.questions = questions.map { (gateway, $0.bytes, $0.to) }
    made.lostPaths = lost.map { (gateway, $0) }
    return made
  }

  // MARK: The relay

  /// What got to the relay at one moment, in this order: what has one size, origin and port came as one.
  func receive(_ flights: [Flight], now: MonotonicTime) -> Made {
    guard isUp else { return Made(lost: flights) }
    var all = Made()
    var rest = flights[...]
    while let first = rest.first {
      let group = rest.prefix {
        $0.source == first.source && $0.destination == first.destination
          && $0.datagram.count == first.datagram.count
      }
      rest = rest.dropFirst(group.count)
      let due = group.filter { model.destination(of: $0) != nil }.count
      for flight in group { model.arrive(flight) }
      relay.receive(Array(group), Self.clock(now))
      let made = takeMade()
      let sent = made.departures.filter { $0.flight != nil }.count
      all.complaint = all.complaint ?? made.complaint
      if plan.hairpins.allSatisfy({ $0.bandwidth == 0 }), sent != due {
        all.complaint = all.complaint ?? "the relay sends \(sent) of \(due) packets"
      }
      all.departures += made.departures
      all.lost += made.lost
    }
    return all
  }

  private func takeMade() -> Made {
    var made = Made()
    (made.departures, made.lost) = relay.takeMade()
    for departure in made.departures {
      guard let flight = departure.flight else {
        model.depart(departure)
        continue
      }
      if model.destination(of: flight) != departure.to {
        made.complaint = "the relay sends to \(departure.to) what came from \(flight.source)"
      }
    }
    return made
  }

  /// - Parameter isOrderly: its gateways are told.
  func stopRelay(isOrderly: Bool, now: MonotonicTime) -> Made {
    guard isUp else { return Made() }
    let complaint = relay.complaint
    if isOrderly { relay.close(Self.clock(now)) }
    isUp = false
    var made = takeMade()
    made.complaint = made.complaint ?? complaint
    return made
  }

  func startRelay(now: MonotonicTime) {
    guard !isUp else { return }
    let uses = uses
    relay = HairpinNetwork.relay(authority, uses.all, now, seed: numbers.next()) { uses.all.append($0) }
    relay.sabotage = sabotage
    model = HairpinModel()
    isUp = true
  }

  /// Nothing that waits at the relay gets anywhere any more.
  func finish() -> Made {
    guard isUp else { return Made() }
    return Made(lost: relay.takeWaiting(), complaint: relay.complaint)
  }
}
