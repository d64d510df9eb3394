import PacketIO
import TestSupport

@testable import Dataplane

/// The nodes of a gateway, and its device. What they hand to each other goes through the same queues as between
/// threads; when a worker looks into its own is the network's business.
final class Gateway {
  /// What a node can say of the ways: transports 0 to 15 carry datagrams over IPv4 and UDP; hairpins are worker 0's.
  private struct Facts: PathFacts {
    let worker: Int
    let hairpins: UInt8

    func overhead(_ path: Path) -> Int? { Link.headers }
    func carries(_ path: Path) -> Bool { worker == 0 || path.transport != hairpins }
  }

  /// What nodes have made, to be taken by the network.
  struct Made {
    var datagrams: [(bytes: [UInt8], path: Path)] = []
    /// For hosts, one packet each.
    var packets: [(bytes: [UInt8], wasCut: Bool)] = []
    var replies: [[UInt8]] = []
    var keepAlives: [Path] = []
    var notices: [NegotiationNotice] = []
    var woken: [Int] = []
  }

  /// Packets in and out at device and transports, over all lives.
  struct Books {
    var read = 0
    var sealed = 0
    var opened = 0
    var delivered = 0
    var control = 0
    var outboundDrops: [DropReason: Int] = [:]
    var inboundDrops: [DropReason: Int] = [:]

    func dropped(_ reasons: DropReason...) -> Int {
      reasons.reduce(0) { $0 + (outboundDrops[$1] ?? 0) + (inboundDrops[$1] ?? 0) }
    }
  }

  let number: Int
  private let workers: Int
  private let offloads: TunOffloads
  private let mtuRaiseInterval: UInt64
  private let hairpinTransport: UInt8
  /// How often it was started.
  private(set) var life = 0
  private(set) var nodes: [StateCell<Node>] = []
  var made = Made()
  private(set) var pathChanges: [PathChange] = []
  /// What the workers' tables are made of; workers may have to take over some of it yet.
  private var registry: Registry?
  /// Of the lives before.
  private var closedBooks = Books()
  private var idle: [Int] = []
  private var readCount = 0
  private var deliveredCount = 0

  init(number: Int, _ plan: Plan) {
    self.number = number
    workers = plan.workers(number)
    offloads = plan.joins(number) ? .all : []
    mtuRaiseInterval = plan.mtuRaiseInterval
    hairpinTransport = plan.hairpinTransport
  }

  var isUp: Bool { !nodes.isEmpty }
  subscript(_ worker: Int) -> StateReference<Node> { nodes[worker].reference }

  // MARK: Life

  func start(_ configuration: Configuration, now: MonotonicTime, _ numbers: inout SeededNumbers) {
    life += 1
    let registry = Registry(
      configuration, sealing: .by(CipherEngine.available[0]), workers: workers, now: now)
    self.registry = registry
    let queues = workers > 1 ? HandOffQueues(workers: workers) : nil
    var options = Node.Options()
    options.offloads = offloads
    options.pathMTURaiseInterval = mtuRaiseInterval
    for worker in 0..<workers {
      let node = Node(
        Snapshot(registry.parts(of: worker)), pool: BufferPool(count: 192),
        facts: Facts(worker: worker, hairpins: hairpinTransport), queues: queues, options: options, now: now,
        using: &numbers)
      guard let node else { fatalError("an empty pool") }
      nodes.append(StateCell(node))
    }
    idle = nodes.map { $0.reference.value.pool.available }
  }

  /// Ends all nodes; what is in their queues they do first. Nil, or what is wrong with their books.
  func stop(now: MonotonicTime) -> String? {
    var isBusy = true
    while isBusy {
      isBusy = false
      for worker in 0..<workers { if takeHandOffs(worker, now: now) { isBusy = true } }
    }
    let complaint = complaint
    closedBooks = books
    (readCount, deliveredCount) = (0, 0)
    nodes = []
    return complaint
  }

  /// What each worker is to take over when it comes to it.
  func compile(_ configuration: Configuration, now: MonotonicTime) throws -> [Transition] {
    guard let draft = try registry?.draft(configuration, limits: limits) else { return [] }
    return registry?.commit(draft, now: now) ?? []
  }

  /// The same after negotiations.
  func compile(_ agreements: [String: AddressAgreement], now: MonotonicTime) throws -> [Transition] {
    let changes = agreements.keys.sorted().compactMap { name in
      agreements[name].map { ConfigurationChange.agree($0, peer: name) }
    }
    guard let draft = try registry?.draft(changes, limits: limits) else { return [] }
    return registry?.commit(draft, now: now) ?? []
  }

  private var limits: ConfigurationLimits {
    ConfigurationLimits(transports: 16, workers: workers, engine: CipherEngine.available[0])
  }

  // MARK: What comes in

  /// What a host sends in one piece: a packet, or `count` of them with payloads of `segmentSize`.
  struct Piece {
    var bytes: [UInt8]
    var count = 1
    var segmentSize = 0
  }

  /// What is on one queue of the device, at most as much as a batch holds.
  func read(_ pieces: [Piece], worker: Int, now: MonotonicTime) {
    let node = self[worker]
    node.value.now = now
    var batch = PacketBatch(capacity: Node.batchCapacity)
    for piece in pieces {
      guard var superpacket = copy(piece.bytes, path: .none, node.value.pool) else { continue }
      if piece.count > 1 {
        superpacket.segmentSize = Int32(piece.segmentSize)
        superpacket.offload = Offload(
          segmentation: .udp, needsChecksum: true, checksumStart: 20, checksumOffset: 6)
      }
      batch.append(superpacket)
      readCount += piece.count
    }
    node.value.read(&batch)
    drain(worker)
  }

  /// Datagrams that one worker's transport has received together; those of one size and origin came as one.
  func receive(_ datagrams: [(bytes: [UInt8], path: Path)], worker: Int, now: MonotonicTime) {
    let node = self[worker]
    node.value.now = now
    var batch = PacketBatch(capacity: Node.receivedCapacity)
    var start = 0
    while start < datagrams.count {
      let (first, path) = datagrams[start]
      var joined = first
      var end = start + 1
      while end < datagrams.count, datagrams[end].path == path, datagrams[end].bytes.count == first.count,
        joined.count + first.count < 60_000
      {
        joined += datagrams[end].bytes
        end += 1
      }
      guard var superpacket = copy(joined, path: path, node.value.pool) else { return }
      superpacket.segmentSize = Int32(first.count)
      batch.append(superpacket)
      start = end
    }
    while node.value.receive(&batch) { drain(worker) }
    drain(worker)
  }

  /// Whether there was anything.
  @discardableResult
  func takeHandOffs(_ worker: Int, now: MonotonicTime) -> Bool {
    let node = self[worker]
    node.value.now = now
    var wasBusy = false
    repeat {
      while node.value.takeHandOffs() {
        wasBusy = true
        drain(worker)
      }
    } while node.value.hasMoreHandOffs
    drain(worker)
    return wasBusy
  }

  func work(_ worker: Int, now: MonotonicTime) {
    let node = self[worker]
    node.value.now = now
    while node.value.work() { drain(worker) }
    drain(worker)
  }

  /// A transport has heard that packets of more than `size` bytes are refused.
  func refused(_ path: Path, over size: Int, _ quote: QuotedPacket?, worker: Int, now: MonotonicTime) {
    self[worker].value.now = now
    self[worker].value.refused(path, over: size, quote: quote)
    drain(worker)
  }

  /// A transport has said that a path is not open.
  func failed(_ path: Path, error: Int32, now: MonotonicTime) {
    self[0].value.now = now
    self[0].value.failed(path, error: error)
    drain(0)
  }

  func adopt(_ transition: Transition, worker: Int, now: MonotonicTime) {
    takeHandOffs(worker, now: now)
    self[worker].value.take(transition)
    work(worker, now: now)
  }

  func send(_ message: AddressCoordination.Outgoing, now: MonotonicTime) {
    self[0].value.now = now
    guard let row = self[0].value.tables.row(of: message.peer) else { return }
    self[0].value.send(message.type, message.body, to: row)
    drain(0)
  }

  private func copy(_ bytes: [UInt8], path: Path, _ pool: BufferPool) -> Superpacket? {
    guard let buffer = pool.take() else { return nil }
    pool.bytes(buffer).copy(bytes, to: BufferPool.headroom)
    return Superpacket(
      buffer: buffer, offset: BufferPool.headroom, length: bytes.count, segmentSize: bytes.count, path: path)
  }

  // MARK: What was made

  private func drain(_ worker: Int) {
    let node = self[worker]
    let pool = node.value.pool
    for index in 0..<node.value.outputs.trains.count {
      let train = node.value.outputs.trains[index]
      let bytes = train.bytes(in: pool)
      let size = Int(train.segmentSize)
      for start in stride(from: 0, to: bytes.count, by: size) {
        made.datagrams.append((bytes.slice(start, min(size, bytes.count - start)).array(), train.path))
      }
      pool.release(train.buffer)
    }
    node.value.outputs.trains.removeAll()
    for index in 0..<node.value.deliveries.deliveries.count { deliver(index, node, pool) }
    node.value.deliveries.removeAll()
    for index in 0..<node.value.replies.count {
      made.replies.append(node.value.replies[index].bytes(in: pool).array())
      pool.release(node.value.replies[index].buffer)
    }
    node.value.replies.removeAll()
    made.woken += node.value.takeWorkersToWake()
    guard node.value.outputs.hasWords else { return }
    made.notices += node.value.outputs.takeNotices()
    for case .keepAlive(let path) in node.value.outputs.takeCommands() { made.keepAlives.append(path) }
    for case .pathSelected(_, let change) in node.value.outputs.takeEvents() { pathChanges.append(change) }
  }

  private func deliver(_ index: Int, _ node: StateReference<Node>, _ pool: BufferPool) {
    let delivery = node.value.deliveries.deliveries[index]
    var bytes: [UInt8] = []
    var next = delivery.firstSlice
    while next >= 0 {
      let slice = node.value.deliveries.slices[Int(next)]
      bytes += pool.bytes(slice.buffer).slice(Int(slice.offset), Int(slice.length)).array()
      pool.release(slice.buffer)
      next = slice.next
    }
    deliveredCount += Int(delivery.packets)
    guard delivery.packets > 1 else { return made.packets.append((bytes, false)) }
    let packets = Packet.cut(
      bytes, headerLength: Int(delivery.headerLength), segmentSize: Int(delivery.segmentSize))
    made.packets += packets.map { ($0, true) }
  }

  // MARK: The books

  /// Of all lives.
  var books: Books {
    var books = closedBooks
    books.read += readCount
    books.delivered += deliveredCount
    for cell in nodes {
      let node = cell.reference
      books.sealed += Int(node.value.datapath.outbound.counters.departed.packets)
      books.opened += Int(node.value.datapath.inbound.counters.arrived.packets)
      books.control += Int(node.value.datapath.inbound.controlReceived)
      for reason in DropReason.allCases {
        let outbound = Int(node.value.datapath.outbound.counters.dropped(reason))
        let inbound = Int(node.value.datapath.inbound.counters.dropped(reason))
        if outbound > 0 { books.outboundDrops[reason, default: 0] += outbound }
        if inbound > 0 { books.inboundDrops[reason, default: 0] += inbound }
      }
    }
    return books
  }

  /// Packets in are packets out and drops by reason (invariant 4), and every buffer is back. Nil, or what is wrong.
  var complaint: String? {
    let books = books
    let out = books.sealed + books.outboundDrops.values.reduce(0, +)
    let into = books.delivered + books.control + books.inboundDrops.values.reduce(0, +)
    if books.read != out { return "gateway \(number) has read \(books.read) packets, and accounts for \(out)" }
    if books.opened != into { return "gateway \(number) has taken \(books.opened) packets, and accounts for \(into)" }
    for (cell, idle) in zip(nodes, idle) {
      let missing = idle - cell.reference.value.pool.available
      let waiting = cell.reference.value.datapath.inbound.fragments.count
      if missing < 0 || missing > waiting { return "gateway \(number) misses \(missing) buffers" }
    }
    return nil
  }

  /// The newest path to a peer, as worker 0 has it.
  func path(to peer: Int) -> Path? { self.peer(peer)?.value.path }

  /// By worker, what is in force between this gateway and a peer.
  func agreements(with peer: Int) -> [AddressAgreement?] {
    nodes.map {
      let tables = $0.reference.value.tables
      return tables.row(of: Plan.name(peer)).flatMap { tables.record($0)?.agreement }
    }
  }

  func peer(_ peer: Int) -> StateReference<Peer>? {
    guard isUp else { return nil }
    let tables = self[0].value.tables
    return tables.row(of: Plan.name(peer)).map { tables.peers[$0].state }
  }
}
