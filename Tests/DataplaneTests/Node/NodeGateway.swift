import PacketIO
import TestSupport
import Testing

@testable import Dataplane

/// A gateway of one or more nodes, driven by hand: no kernel, no thread, no clock. What its nodes hand to each other
/// goes through the same queues as between threads.
final class NodeGateway {
  /// Transport 0 carries datagrams over IPv4 and UDP, transport 1 is a stream that worker 0 alone has.
  struct Facts: PathFacts {
    let worker: Int
    func overhead(_ path: Path) -> Int? { path.transport == 0 ? 28 : nil }
    func carries(_ path: Path) -> Bool { path.transport == 0 || worker == 0 }
  }

  struct NoBuffer: Error {}

  let name: String
  let nodes: [StateCell<Node>]
  private var registry: Registry
  /// What leaves by the transports, one datagram each.
  var sent: [(datagram: [UInt8], path: Path)] = []
  /// What the device got, in packets.
  var delivered: [[UInt8]] = []
  private(set) var deliveredCount = TrafficCount()
  /// What senders inside were told.
  var replies: [[UInt8]] = []
  var events: [Event] = []
  var commands: [PathCommand] = []
  var notices: [NegotiationNotice] = []
  private let idle: [Int]

  init(_ name: String, _ configuration: Configuration, workers: Int = 1, seed: UInt64, now: MonotonicTime) throws {
    self.name = name
    var random = SeededNumbers(seed: seed)
    let queues = workers > 1 ? HandOffQueues(workers: workers) : nil
    registry = Registry(configuration, sealing: .by(CipherEngine.available[0]), workers: workers, now: now)
    var nodes: [StateCell<Node>] = []
    for worker in 0..<workers {
      let node = Node(
        Snapshot(registry.parts(of: worker)), pool: BufferPool(count: 192), facts: Facts(worker: worker),
        queues: queues, now: now, using: &random)
      guard let node else { throw NoBuffer() }
      nodes.append(StateCell(node))
    }
    self.nodes = nodes
    idle = nodes.map { $0.reference.value.pool.available }
  }

  func peer(_ name: String, worker: Int = 0) -> StateReference<Peer> {
    let tables = nodes[worker].reference.value.tables
    return tables.peers[tables.row(of: name)!].state
  }

  /// What is in force.
  var configuration: Configuration { registry.configuration }

  /// Puts another configuration in force, with all workers.
  func adopt(_ configuration: Configuration, now: MonotonicTime) throws {
    let limits = ConfigurationLimits(transports: 2, workers: nodes.count, engine: CipherEngine.available[0])
    let draft = try registry.draft(configuration, limits: limits)
    for change in registry.commit(draft, now: now) {
      settle()
      let node = nodes[change.worker].reference
      node.value.take(change)
      drain(node)
    }
    // What spoke of the new rows has waited for them.
    for node in nodes { takeHandOffs(node.reference) }
    settle()
  }

  // MARK: What comes in

  /// A packet from the device, on one worker's queue.
  func read(_ packets: [[UInt8]], worker: Int = 0) {
    let node = nodes[worker].reference
    var batch = PacketBatch(capacity: Node.batchCapacity)
    for packet in packets {
      guard let superpacket = copy(packet, path: .none, node.value.pool) else { continue }
      batch.append(superpacket)
    }
    node.value.read(&batch)
    drain(node)
    settle()
  }

  /// A train that one worker's transport has received.
  func receive(_ train: Train, worker: Int = 0) {
    let node = nodes[worker].reference
    var batch = PacketBatch(capacity: Node.receivedCapacity)
    guard var superpacket = copy(train.bytes, path: train.path, node.value.pool) else { return }
    superpacket.segmentSize = Int32(train.segmentSize)
    batch.append(superpacket)
    while node.value.receive(&batch) { drain(node) }
    drain(node)
    settle()
  }

  private func copy(_ bytes: [UInt8], path: Path, _ pool: BufferPool) -> Superpacket? {
    guard let buffer = pool.take() else {
      Issue.record("the pool is empty")
      return nil
    }
    pool.bytes(buffer).copy(bytes, to: BufferPool.headroom)
    return Superpacket(
      buffer: buffer, offset: BufferPool.headroom, length: bytes.count, segmentSize: bytes.count, path: path)
  }

  /// Time has passed.
  func tick(_ now: MonotonicTime) {
    for node in nodes {
      node.reference.value.now = now
      while node.reference.value.work() { drain(node.reference) }
      drain(node.reference)
    }
    settle()
  }

  /// Has the nodes take what they have handed to each other, until nothing is left.
  func settle() {
    var woken = nodes.flatMap { $0.reference.value.takeWorkersToWake() }
    while let worker = woken.popLast() {
      let node = nodes[worker].reference
      takeHandOffs(node)
      if node.value.hasMoreHandOffs { woken.append(worker) }
      woken += nodes.flatMap { $0.reference.value.takeWorkersToWake() }
    }
  }

  private func takeHandOffs(_ node: StateReference<Node>) {
    while node.value.takeHandOffs() { drain(node) }
    drain(node)
  }

  // MARK: What was made

  private func drain(_ node: StateReference<Node>) {
    let pool = node.value.pool
    let trains = node.value.outputs.trains.count
    for index in 0..<trains {
      let train = node.value.outputs.trains[index]
      let bytes = train.bytes(in: pool).array()
      for segment in train.segments() {
        sent.append((Array(bytes[segment.start..<segment.start + segment.length]), train.path))
      }
      pool.release(train.buffer)
    }
    node.value.outputs.trains.removeAll()
    takeDeliveries(node, pool)
    for index in 0..<node.value.replies.count {
      replies.append(node.value.replies[index].bytes(in: pool).array())
      pool.release(node.value.replies[index].buffer)
    }
    node.value.replies.removeAll()
    events += node.value.outputs.takeEvents()
    commands += node.value.outputs.takeCommands()
    notices += node.value.outputs.takeNotices()
  }

  /// No offloads were announced, so that each delivery is one packet.
  private func takeDeliveries(_ node: StateReference<Node>, _ pool: BufferPool) {
    for index in 0..<node.value.deliveries.deliveries.count {
      let delivery = node.value.deliveries.deliveries[index]
      var bytes: [UInt8] = []
      var next = delivery.firstSlice
      while next >= 0 {
        let slice = node.value.deliveries.slices[Int(next)]
        bytes += pool.bytes(slice.buffer).slice(Int(slice.offset), Int(slice.length)).array()
        pool.release(slice.buffer)
        next = slice.next
      }
      #expect(delivery.packets == 1)
      delivered.append(bytes)
      deliveredCount.add(packets: 1, bytes: bytes.count)
    }
    node.value.deliveries.removeAll()
  }

  // MARK: The books

  /// In is out plus drops, over all workers, and every buffer has come back.
  func check() {
    var (outbound, inbound) = ((arrived: UInt64(0), gone: UInt64(0)), (arrived: UInt64(0), gone: UInt64(0)))
    for (node, idle) in zip(nodes, idle) {
      let state = node.reference
      outbound.arrived += state.value.datapath.outbound.counters.arrived.packets
      outbound.gone += state.value.datapath.outbound.counters.departed.packets
      inbound.arrived += state.value.datapath.inbound.counters.arrived.packets
      inbound.gone += state.value.datapath.inbound.controlReceived
      for reason in DropReason.allCases {
        outbound.gone += state.value.datapath.outbound.counters.dropped(reason)
        inbound.gone += state.value.datapath.inbound.counters.dropped(reason)
      }
      #expect(state.value.pool.available == idle, "\(name) has lost buffers")
    }
    inbound.gone += deliveredCount.packets
    #expect(outbound.arrived == outbound.gone, "\(name), outbound")
    #expect(inbound.arrived == inbound.gone, "\(name), inbound")
  }

  var drops: [DropReason: UInt64] {
    var drops: [DropReason: UInt64] = [:]
    for node in nodes {
      for reason in DropReason.allCases {
        let count =
          node.reference.value.datapath.outbound.counters.dropped(reason)
          + node.reference.value.datapath.inbound.counters.dropped(reason)
        if count > 0 { drops[reason, default: 0] += count }
      }
    }
    return drops
  }
}

/// Two gateways with some links between them, and the time.
final class NodePair {
  /// Between the addresses of the two gateways.
  struct Link {
    let ends: [Endpoint]
    var isUp = true
    /// Bytes of the largest IP packet.
    var mtu = 1500
    /// Datagrams that were too large, or that came while it was down.
    var lost = 0

    init(_ number: UInt32) {
      ends = [1, 2].map { Endpoint(address: IPAddress(v4: 0xC612_0000 | number << 8 | $0), port: 4500) }
    }

    func path(to gateway: Int) -> Path { Path(endpoint: ends[gateway]) }
  }

  private(set) var now = MonotonicTime.seconds(100)
  var links: [Link]
  let gateways: [NodeGateway]
  private var random: SeededNumbers
  /// Packets that hosts have sent, by the gateway that is to deliver them.
  private(set) var expected: [[[UInt8]]] = [[], []]

  static let step: UInt64 = 10_000_000

  /// - Parameter change: of what each gateway is told.
  init(links count: UInt32 = 1, workers: Int = 1, seed: UInt64, change: (inout Configuration) -> Void = { _ in }) throws
  {
    let links = (0..<count).map(Link.init)
    self.links = links
    let start = now
    gateways = try (0..<2).map { side in
      var configuration = try NodePair.configuration(side, links, workers: workers)
      change(&configuration)
      return try NodeGateway(
        side == 0 ? "alpha" : "beta", configuration, workers: workers, seed: seed &+ UInt64(side), now: start)
    }
    random = SeededNumbers(seed: seed &+ 2)
  }

  static func configuration(_ side: Int, _ links: [Link], workers: Int) throws -> Configuration {
    let names = ["alpha", "beta"]
    func derived(_ worker: Int?) throws -> StaticAssociations {
      StaticAssociations(
        secret: KeyMaterial([UInt8](repeating: 7, count: 32)), local: names[side], remote: names[1 - side],
        cipher: .aes128GCM, worker: worker)
    }
    func association(_ spi: UInt32, _ key: KeyMaterial) -> SecurityAssociationConfiguration {
      SecurityAssociationConfiguration(spi: spi, cipher: .aes128GCM, key: key)
    }
    let own = try workers == 1 ? [] : (0..<workers).map { try derived($0) }
    let common = try derived(nil)
    var configuration = Configuration(
      interface: InterfaceConfiguration(source: .name("none")),
      peers: [
        PeerConfiguration(
          name: names[1 - side], prefixes: side == 0 ? Sites.betaPrefixes : Sites.alphaPrefixes, path: nil,
          inbound: ([common] + own).map { association($0.inbound.spi, $0.inbound.key) },
          outbound: association(common.outbound.spi, common.outbound.key),
          workerOutbound: own.map { association($0.outbound.spi, $0.outbound.key) })
      ])
    configuration.peers[0].paths = links.enumerated().map {
      ConfiguredPath(name: "link \($0)", path: $1.path(to: 1 - side))
    }
    return configuration
  }

  /// Lets so many seconds pass, in which hosts on both sides send so many packets a second of that size.
  func run(seconds: Double, packetsPerSecond: Int = 0, size: Int = 200) {
    let end = now.adding(nanoseconds: UInt64(seconds * 1e9))
    var due = 0.0
    while now < end {
      now = now.adding(nanoseconds: NodePair.step)
      due += Double(packetsPerSecond) * Double(NodePair.step) / 1e9
      carry()
      for gateway in gateways { gateway.tick(now) }
      while due >= 1 {
        for side in 0..<2 { send(from: side, size: size) }
        due -= 1
      }
      for gateway in gateways { gateway.settle() }
    }
    // What is under way arrives.
    carry()
    for gateway in gateways { gateway.settle() }
  }

  private func send(from side: Int, size: Int) {
    let port = UInt16.random(in: 1...40, using: &random)
    let addresses = side == 0 ? ("10.1.0.1", "10.2.0.1") : ("10.2.0.1", "10.1.0.1")
    let payload = random.bytes(size - 28)
    let packet = PacketSketch(
      addresses.0, addresses.1,
      .udp(sourcePort: side == 0 ? port : 7, destinationPort: side == 0 ? 7 : port), payload: payload
    ).bytes
    expected[1 - side].append(packet)
    gateways[side].read([packet], worker: Int.random(in: 0..<gateways[side].nodes.count, using: &random))
  }

  /// Each datagram comes to any worker: whose it is, they find out themselves.
  private func carry() {
    for side in 0..<2 {
      let sent = gateways[side].sent
      gateways[side].sent = []
      for (datagram, path) in sent {
        guard let link = links.firstIndex(where: { $0.ends[1 - side] == path.endpoint }) else { continue }
        guard links[link].isUp, datagram.count + 28 <= links[link].mtu else {
          links[link].lost += 1
          continue
        }
        let receiver = gateways[1 - side]
        receiver.receive(
          Train(datagram, path: links[link].path(to: side)),
          worker: Int.random(in: 0..<receiver.nodes.count, using: &random))
      }
    }
  }

  /// Forgets what was sent and delivered.
  func forget() {
    expected = [[], []]
    for gateway in gateways { gateway.delivered = [] }
  }

  /// All that was sent was delivered, each packet once; in any order, as the workers come to it.
  func expectAll() {
    for side in 0..<2 {
      let (got, wanted) = (gateways[side].delivered, expected[side])
      #expect(got.count == wanted.count, "\(gateways[side].name): \(got.count) of \(wanted.count) packets")
      #expect(Set(got) == Set(wanted), "\(gateways[side].name) got other packets")
    }
  }
}
