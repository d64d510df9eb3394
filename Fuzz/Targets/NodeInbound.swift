import PacketIO

@testable import Dataplane

/// A whole worker's body under two peers that have turned evil and whose packets are all authentic: what they send, by
/// which paths, when, and what hosts and transports do meanwhile. Nothing traps, packets in are packets out and drops,
/// and every buffer comes back.
///
/// First a byte of options: bit 0: the firewall is on; bit 1: peers have a choice of paths; bit 2: small packets share ESP
/// packets. Then steps, each a byte that says which, and what it takes:
/// - 0: a payload: peer, path, next header, two bytes of length, the bytes
/// - 1: a control message: peer, path, type, two bytes of length, the body
/// - 2: time: so many times 20 ms
/// - 3: a packet from the device: two bytes of length, the bytes
/// - 4: a transport says that a path fails, or has opened
let nodeInbound = FuzzTarget(name: "NodeInbound") { input in
  var input = FuzzInput(input)
  guard var node = FuzzedNode(options: input.byte()) else { return require(false, "no buffers at the start") }
  for _ in 0..<200 where !input.isEmpty {
    switch input.byte() % 5 {
    case 0:
      let (peer, path, header) = (input.byte(), input.byte(), input.byte())
      node.bring(input.bytes(min(input.number(), 3000)), nextHeader: header, from: peer, by: path)
    case 1:
      let (peer, path, type) = (input.byte(), input.byte(), input.byte())
      let body = input.bytes(min(input.number(), ControlMessage.bodyCapacity))
      let length = [UInt8(body.count >> 8), UInt8(body.count & 0xFF)]
      node.bring([0x43, 0x55, 0x4C, 0x56, 1, type] + length + body, nextHeader: 59, from: peer, by: path)
    case 2: node.pass(ticks: input.byte())
    case 3: node.read(input.bytes(min(input.number(), 3000)))
    default: node.report(input.byte())
    }
  }
  node.check()
}

private struct FuzzedNode: ~Copyable {
  private struct Facts: PathFacts {
    func overhead(_ path: Path) -> Int? { path.transport == 0 ? 28 : nil }
    func carries(_ path: Path) -> Bool { true }
  }

  private let pool = BufferPool(count: 192)
  private let idle: Int
  private var node: Node
  private var now = MonotonicTime(nanoseconds: 1_000_000_000)
  private var sequences: [UInt32] = [0, 0]
  private var delivered = 0

  init?(options: UInt8) {
    func association(_ spi: UInt32) -> SecurityAssociationConfiguration {
      SecurityAssociationConfiguration(
        spi: spi, cipher: .aes128GCM, key: KeyMaterial([UInt8](repeating: 7, count: 20)),
        extendedSequenceNumbers: false, replayWindow: 64)
    }
    let peers = (0..<2 as Range<UInt32>).map { number in
      var peer = PeerConfiguration(
        name: "peer\(number)", prefixes: [Prefix(IPAddress(v4: 0x0A02_0000 + number << 16), length: 16)],
        path: FuzzedNode.path(UInt8(number)), inbound: [association(0x1000 + number)],
        outbound: association(0x2000 + number), aggregates: options & 4 != 0)
      if options & 2 != 0 {
        peer.paths = (0..<3 as Range<UInt8>).map { place in
          ConfiguredPath(name: "\(place)", path: FuzzedNode.path(place << 1 | UInt8(number)))
        }
      }
      return peer
    }
    let firewall = FirewallConfiguration(mode: options & 1 != 0 ? .on : .off, flowCapacity: 64, pendingCapacity: 16)
    let tables = Snapshot(
      Configuration(interface: InterfaceConfiguration(source: .name("fuzz")), peers: peers, firewall: firewall),
      sealing: .leftOut, now: now)
    var random = SplitMix(state: 1)
    guard let node = Node(tables, pool: pool, facts: Facts(), now: now, using: &random) else { return nil }
    self.node = node
    idle = pool.available
  }

  private struct SplitMix: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
      state &+= 0x9E37_79B9_7F4A_7C15
      let mixed = (state ^ state >> 30) &* 0xBF58_476D_1CE4_E5B9
      return mixed ^ mixed >> 31
    }
  }

  /// One in four is a stream that the peer has opened.
  private static func path(_ number: UInt8) -> Path {
    let isStream = number & 0xC0 == 0xC0
    return Path(
      transport: isStream ? 1 : 0,
      endpoint: Endpoint(address: IPAddress(v4: 0xC000_0200 | UInt32(number)), port: 4500), tag: isStream ? 9 : 0)
  }

  mutating func bring(_ plain: [UInt8], nextHeader: UInt8, from peer: UInt8, by path: UInt8) {
    let peer = Int(peer & 1)
    sequences[peer] += 1
    var datagram: [UInt8] = []
    for word in [0x1000 + UInt32(peer), sequences[peer], 0, sequences[peer]] {
      datagram += (0..<4).map { UInt8(truncatingIfNeeded: word >> UInt32(24 - 8 * $0)) }
    }
    let padding = (4 - (plain.count + 2) & 3) & 3
    datagram += plain + (0..<padding).map { UInt8($0 + 1) } + [UInt8(padding), nextHeader]
    datagram += [UInt8](repeating: 0, count: 16)
    guard let superpacket = copy(datagram, FuzzedNode.path(path)) else { return }
    var batch = PacketBatch(capacity: Node.receivedCapacity)
    batch.append(superpacket)
    while node.receive(&batch) { drain() }
    drain()
  }

  mutating func read(_ packet: [UInt8]) {
    guard !packet.isEmpty, let superpacket = copy(packet, .none) else { return }
    var batch = PacketBatch(capacity: Node.batchCapacity)
    batch.append(superpacket)
    node.read(&batch)
    drain()
  }

  private func copy(_ bytes: [UInt8], _ path: Path) -> Superpacket? {
    guard let buffer = pool.take() else { return nil }
    pool.bytes(buffer).copy(bytes, to: BufferPool.headroom)
    return Superpacket(
      buffer: buffer, offset: BufferPool.headroom, length: bytes.count, segmentSize: bytes.count, path: path)
  }

  mutating func pass(ticks: UInt8) {
    now = now.adding(nanoseconds: UInt64(ticks) * 20_000_000)
    node.now = now
    while node.work() { drain() }
    drain()
  }

  mutating func report(_ which: UInt8) {
    if which & 1 == 0 { node.opened(FuzzedNode.path(which)) } else { node.failed(FuzzedNode.path(which), error: 111) }
    drain()
  }

  private mutating func drain() {
    for index in 0..<node.outputs.trains.count { pool.release(node.outputs.trains[index].buffer) }
    node.outputs.trains.removeAll()
    for index in 0..<node.replies.count { pool.release(node.replies[index].buffer) }
    node.replies.removeAll()
    delivered += takeDeliveries(&node.deliveries, pool: pool) { _ in }.packets
    _ = (node.outputs.takeEvents(), node.outputs.takeCommands(), node.outputs.takeNotices())
  }

  mutating func check() {
    // What fragments hold is given back with time.
    pass(ticks: 255)
    let arrived = Int(node.datapath.inbound.counters.arrived.packets)
    var dropped = 0
    for reason in DropReason.allCases { dropped += Int(node.datapath.inbound.counters.dropped(reason)) }
    let controls = Int(node.datapath.inbound.controlReceived)
    require(
      arrived == delivered + controls + dropped,
      "\(arrived) in, \(delivered) out, \(controls) control messages, \(dropped) dropped")
    require(pool.available == idle, "\(idle - pool.available) buffers are lost")
    for share in node.shares {
      require(share.used == share.holders.reduce(0) { $0 + $1.held }, "\(share.resource) does not add up")
      require(share.used <= share.capacity, "\(share.resource) has no room for what it holds")
    }
  }
}
