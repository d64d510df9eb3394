import PacketIO
import Testing

@testable import Dataplane

/// A mesh of gateways on a virtual clock, with a path between them that loses, doubles, delays and damages, with
/// somebody who replays and invents, and with operators who change keys, peers and addresses at any time. Everything
/// comes from one seed. Beside each gateway runs a model of what it has to do, and after each step both are compared.
final class Simulator {
  static let gateways = 4
  private static let window = 128

  private var numbers: SeededNumbers
  private var traffic: [[Traffic?]]
  private var nodes: [Node] = []
  private var now = 1
  private var underway: [Arrival] = []
  private var captured: [Arrival] = []
  /// What each sealed datagram is.
  private var sealed: [[UInt8]: Sealed] = [:]
  /// Every number that was ever used under a key (invariant 1).
  private var nonces: Set<Nonce> = []
  private var paths = Simulator.gateways

  /// What the run has seen, so that a test can tell that it saw enough.
  private(set) var deliveredPackets = 0
  private(set) var happened: [String: Int] = [:]

  struct Tunnel: Hashable {
    var from: Int
    var to: Int
    var generation: Int

    var spi: UInt32 { 0x10000 + UInt32(from << 12 | to << 8 | generation) }
    var association: SecurityAssociationConfiguration {
      SecurityAssociationConfiguration(
        spi: spi, cipher: generation % 2 == 0 ? .aes128GCM : .chacha20Poly1305,
        key: KeyMaterial(
          be32(spi) + [UInt8](repeating: 9, count: generation % 2 == 0 ? 16 : 32)),
        extendedSequenceNumbers: generation % 3 != 2, implicitIV: generation % 4 == 3,
        replayWindow: Simulator.window,
        // Some cross the boundary of 32 bits.
        firstSequence: generation % 3 == 0 ? (1 << 32) - 40 : 1)
    }
  }

  private struct Nonce: Hashable {
    var spi: UInt32
    var iv: UInt64
  }

  private struct Sealed {
    var tunnel: Tunnel
    var sequence: UInt64
    var inner: [UInt8]
  }

  private struct Arrival {
    var time: Int
    var to: Path
    var from: Path
    var datagram: [UInt8]
  }

  /// What a receiver has to remember of an association.
  private struct Window {
    /// Numbers up to here count as seen.
    var floor: UInt64
    var highest: UInt64
    var seen: Set<UInt64> = []

    func accepts(_ sequence: UInt64) -> Bool {
      sequence > highest
        || highest - sequence < UInt64(Simulator.window) && sequence > floor && !seen.contains(sequence)
    }
  }

  /// A gateway and what is expected of it.
  private struct Node {
    var gateway: TestGateway
    var path: Int
    var configured: Configuration
    /// By peer: the generation it seals with; nil: none. A peer that is missing is not configured.
    var outbound: [Int: Int?] = [:]
    var inbound: [Int: [Int]] = [:]
    /// Where peers are, by the configuration and by what was learned.
    var configuredPaths: [Int: Int] = [:]
    var paths: [Int: Path] = [:]
    var next: [Tunnel: UInt64] = [:]
    var windows: [Tunnel: Window] = [:]
    var left: [Tunnel: UInt64] = [:]
    var drops: [DropReason: Int] = [:]
  }

  init(seed: UInt64) {
    numbers = SeededNumbers(seed: seed)
    let count = Simulator.gateways
    traffic = [[Traffic?]](repeating: [Traffic?](repeating: nil, count: count), count: count)
    for from in 0..<count {
      for to in 0..<count where to != from {
        let pairSeed = seed &* 1000 &+ UInt64(from * count + to)
        traffic[from][to] = Traffic(
          seed: pairSeed, flows: 3, from: ["10.\(from).0.1", "fd00:\(from)::1"], to: ["10.\(to).0.1", "fd00:\(to)::1"])
      }
    }
    for index in 0..<count {
      let empty = Configuration(interface: InterfaceConfiguration(source: .name("sim")))
      nodes.append(Node(gateway: TestGateway(empty), path: index, configured: empty))
      for peer in 0..<count where peer != index {
        nodes[index].outbound[peer] = 0
        nodes[index].inbound[peer] = [0]
        nodes[index].configuredPaths[peer] = peer
      }
      reload(index)
    }
  }

  // MARK: Steps

  func run(steps: Int) {
    for _ in 0..<steps {
      now += 1
      act()
      arrive()
    }
    // What is still underway arrives.
    for _ in 0..<40 {
      now += 1
      arrive()
    }
  }

  private func pick<T>(_ choices: [T]) -> T { choices[Int.random(in: choices.indices, using: &numbers)] }
  private func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &numbers) < percent }
  private func count(_ what: String) { happened[what, default: 0] += 1 }
  private var time: MonotonicTime { .seconds(Double(now)) }

  private func act() {
    let from = Int.random(in: 0..<nodes.count, using: &numbers)
    let to = (from + Int.random(in: 1..<nodes.count, using: &numbers)) % nodes.count
    switch Int.random(in: 0..<100, using: &numbers) {
    case 0..<64: send(from, to, source: from)
    case 64..<68: send(from, to, source: (from + 1) % nodes.count)
    case 68..<76: rekey(from, to)
    case 76..<80: changePeer(from, to)
    case 80..<84: reloadUnchanged(from)
    case 84..<87: move(from)
    case 87: tell(from, to)
    case 88..<95: replay()
    default: invent()
    }
  }

  private func send(_ from: Int, _ to: Int, source: Int) {
    guard source != to, traffic[source][to] != nil else { return }
    var items: [Traffic.Item] = []
    for _ in 0..<Int.random(in: 1...4, using: &numbers) { items.append(traffic[source][to]!.next()) }
    let segments = items.flatMap { $0.segments.map(\.bytes) }
    let trains = nodes[from].gateway.seal(items.map(\.packet), now: time)
    count(source == from ? "sent" : "spoofed")

    let refused: DropReason?
    if nodes[from].outbound[to] == nil {
      refused = .noRoute
    } else if nodes[from].outbound[to]! == nil {
      refused = .noAssociation
    } else {
      refused = nodes[from].paths[to] == nil ? .noPath : nil
    }
    if let refused {
      nodes[from].drops[refused, default: 0] += segments.count
      #expect(trains.isEmpty, "\(refused)")
      return
    }
    let tunnel = Tunnel(from: from, to: to, generation: nodes[from].outbound[to]!!)
    let path = nodes[from].paths[to]!
    let esp = SlowESP(tunnel.association)
    #expect(trains.datagrams.count == segments.count)
    for (datagram, segment) in zip(trains.datagrams, segments) {
      let sequence = nodes[from].next[tunnel]!
      nodes[from].next[tunnel]! += 1
      #expect(nonces.insert(Nonce(spi: tunnel.spi, iv: sequence)).inserted, "\(tunnel): \(sequence) is used again")
      let content = esp.open(datagram, high: tunnel.association.extendedSequenceNumbers ? UInt32(sequence >> 32) : 0)
      #expect(content?.sequence == UInt32(truncatingIfNeeded: sequence) && content?.iv == sequence)
      #expect(content?.payload == segment, "something else was sealed")
      sealed[datagram] = Sealed(tunnel: tunnel, sequence: sequence, inner: segment)
      carry(Arrival(time: now, to: path, from: .path(nodes[from].path), datagram: datagram))
    }
    #expect(trains.allSatisfy { $0.path == path })
  }

  private func carry(_ arrival: Arrival) {
    if chance(5) { captured.append(arrival) }
    if chance(4) { return count("lost") }
    var arrival = arrival
    arrival.time += chance(80) ? 2 : Int.random(in: 1...8, using: &numbers)
    if chance(3) {
      count("damaged")
      let bit = Int.random(in: 0..<arrival.datagram.count * 8, using: &numbers)
      arrival.datagram[bit / 8] ^= 1 << UInt8(bit % 8)
    }
    underway.append(arrival)
    if chance(4) {
      count("doubled")
      arrival.time += Int.random(in: 0...5, using: &numbers)
      underway.append(arrival)
    }
  }

  private func replay() {
    guard !captured.isEmpty else { return }
    for _ in 0..<5 {
      var arrival = pick(captured)
      arrival.time = now
      arrival.from = .path(200)
      // Wherever the receiver is now.
      if let known = sealed[arrival.datagram] { arrival.to = .path(nodes[known.tunnel.to].path) }
      underway.append(arrival)
    }
    count("replayed")
  }

  private func invent() {
    let victim = pick(nodes)
    var datagram = numbers.bytes(Int.random(in: 1...200, using: &numbers))
    if chance(50), let known = captured.randomElement(using: &numbers) {
      datagram.replaceSubrange(0..<0, with: known.datagram.prefix(8))
    }
    underway.append(Arrival(time: now, to: .path(victim.path), from: .path(201), datagram: datagram))
    count("invented")
  }

  // MARK: Arrival

  private func arrive() {
    let ready = underway.filter { $0.time <= now }
    underway.removeAll { $0.time <= now }
    for index in nodes.indices {
      let mine = ready.filter { $0.to == .path(nodes[index].path) }
      guard !mine.isEmpty else { continue }
      var trains: [Train] = []
      var start = 0
      while start < mine.count {
        let end = mine[start...].firstIndex { $0.from != mine[start].from } ?? mine.count
        trains += [Train].joining(mine[start..<end].map(\.datagram), path: mine[start].from)
        start = end
      }
      let expected = mine.compactMap { receive(index, $0) }
      deliveredPackets += expected.count
      var oracle = DeliveryOracle(expected)
      oracle.judge(nodes[index].gateway.open(trains, now: time))
      check(index, "step \(now)")
    }
  }

  /// What the model of a gateway makes of a datagram: the packet for its TUN device.
  private func receive(_ index: Int, _ arrival: Arrival) -> [UInt8]? {
    func refuse(_ reason: DropReason) -> [UInt8]? {
      nodes[index].drops[reason, default: 0] += 1
      return nil
    }
    guard let known = sealed[arrival.datagram], known.tunnel.to == index,
      nodes[index].inbound[known.tunnel.from]?.contains(known.tunnel.generation) == true,
      var window = nodes[index].windows[known.tunnel], window.accepts(known.sequence)
    else { return refuse(.authenticationFailed) }
    window.seen.insert(known.sequence)
    if known.sequence > window.highest {
      window.highest = known.sequence
      nodes[index].paths[known.tunnel.from] = arrival.from
    }
    nodes[index].windows[known.tunnel] = window
    // The source is the sender's own, or it is nobody's here.
    let source = SlowPacket(known.inner).source
    let owner = source.isV4 ? Int(source.octets[1]) : Int(source.octets[3])
    guard owner == known.tunnel.from else { return refuse(.spoofedSource) }
    return known.inner
  }

  /// Which refusals of a damaged or old datagram come first is not the model's business.
  private static let refusals: [DropReason] = [.truncated, .unknownSPI, .replayed, .authenticationFailed]

  private func check(_ index: Int, _ context: String) {
    var found = nodes[index].gateway.drops
    for reason in Simulator.refusals.dropLast() {
      found[.authenticationFailed, default: 0] += found.removeValue(forKey: reason) ?? 0
    }
    found = found.filter { $0.value > 0 }
    #expect(found == nodes[index].drops, "gateway \(index), \(context)")
    for peer in nodes[index].outbound.keys {
      #expect(
        nodes[index].gateway.peer("\(peer)").value.path == nodes[index].paths[peer], "path of \(peer) at \(index)")
    }
  }

  // MARK: Operators

  private func reload(_ index: Int) {
    var configuration = nodes[index].configured
    configuration.peers = nodes[index].outbound.keys.sorted().map { peer in
      PeerConfiguration(
        name: "\(peer)", prefixes: [Prefix("10.\(peer).0.0/16")!, Prefix("fd00:\(peer)::/32")!],
        path: .path(nodes[index].configuredPaths[peer]!),
        inbound: nodes[index].inbound[peer]!.map { Tunnel(from: peer, to: index, generation: $0).association },
        outbound: nodes[index].outbound[peer]!.map { Tunnel(from: index, to: peer, generation: $0).association })
    }
    // Their order means nothing.
    configuration.peers.shuffle(using: &numbers)
    nodes[index].gateway.adopt(configuration, now: time)

    var windows: [Tunnel: Window] = [:]
    for (peer, generations) in nodes[index].inbound {
      for tunnel in generations.map({ Tunnel(from: peer, to: index, generation: $0) }) {
        let first = max(tunnel.association.firstSequence - 1, nodes[index].left[tunnel] ?? 0)
        windows[tunnel] = nodes[index].windows[tunnel] ?? Window(floor: first, highest: first)
      }
    }
    for (tunnel, window) in nodes[index].windows where windows[tunnel] == nil {
      nodes[index].left[tunnel] = window.highest
    }
    nodes[index].windows = windows
    for (peer, generation) in nodes[index].outbound {
      guard let generation else { continue }
      let tunnel = Tunnel(from: index, to: peer, generation: generation)
      nodes[index].next[tunnel] = nodes[index].next[tunnel] ?? tunnel.association.firstSequence
    }
    for configured in configuration.peers {
      let peer = Int(configured.name)!
      let before = nodes[index].configured.peers.first { $0.name == configured.name }
      if before?.path != configured.path { nodes[index].paths[peer] = configured.path }
    }
    nodes[index].configured = configuration
  }

  private func reloadUnchanged(_ index: Int) {
    let keys = nodes[index].windows.mapValues(\.highest)
    nodes[index].gateway.adopt(nodes[index].configured, now: time)
    for (tunnel, highest) in keys {
      #expect(nodes[index].gateway.tables.association(tunnel.spi)?.state.value.window.highest == highest)
    }
    check(index, "step \(now), a reload that changes nothing")
    count("reloaded")
  }

  /// One side of a tunnel changes keys: forward, or back to one that was used before.
  private func rekey(_ from: Int, _ to: Int) {
    guard nodes[from].outbound[to] != nil, nodes[to].inbound[from] != nil else { return }
    let newest = nodes[to].inbound[from]!.max() ?? 0
    switch Int.random(in: 0..<6, using: &numbers) {
    case 0, 1:
      nodes[to].inbound[from]!.append(min(newest + 1, 255))
      nodes[to].inbound[from] = Array(Set(nodes[to].inbound[from]!).sorted().suffix(3))
      reload(to)
    case 2, 3:
      nodes[from].outbound[to] = .some(newest)
      reload(from)
    case 4:
      nodes[from].outbound[to] = .some(Int.random(in: 0...newest, using: &numbers))
      reload(from)
    default:
      let returning = Int.random(in: 0...newest, using: &numbers)
      nodes[to].inbound[from] = Array(Set(nodes[to].inbound[from]!.suffix(2) + [returning])).sorted()
      reload(to)
    }
    count("rekeyed")
  }

  private func changePeer(_ index: Int, _ peer: Int) {
    if nodes[index].outbound[peer] == nil {
      nodes[index].outbound[peer] = .some(0)
      nodes[index].inbound[peer] = [0, 1]
    } else if chance(50) {
      nodes[index].outbound.removeValue(forKey: peer)
      nodes[index].inbound.removeValue(forKey: peer)
    } else {
      nodes[index].outbound[peer] = .some(nil)
    }
    reload(index)
    count("changed peers")
  }

  /// The gateway has another address from now on; what is on its way to the old one is lost.
  private func move(_ index: Int) {
    paths += 1
    nodes[index].path = paths
    count("moved")
  }

  /// An operator writes down where a peer is now, for one that lost it.
  private func tell(_ index: Int, _ peer: Int) {
    nodes[index].configuredPaths[peer] = nodes[peer].path
    reload(index)
    count("told")
  }
}
