import Dataplane
import Lab
import PacketIO

/// A gateway with many peers and many flows, in memory: its two pipelines, its firewall with the default policy, and
/// all its peers, which are only there to seal what it opens.
///
/// Flow by flow, a host on the hub's side, of its own for each peer, sends to a host behind a peer, and is answered.
final class HubTiming {
  /// What goes through the tunnels.
  enum Kind {
    /// Packets one by one, with so many bytes behind the UDP header.
    case udp(payload: Int)
    /// Superpackets of 44 segments with 1360 bytes each.
    case tcp

    static let segments = 44
    static let segmentPayload = 1360

    /// Packets on the wire that each packet of the TUN device is.
    var packets: Int {
      switch self {
      case .udp: 1
      case .tcp: Kind.segments
      }
    }
  }

  static let batch = 32
  /// Ports of one host that flows may have.
  private static let portsPerHost = 50_000

  private let peers: Int
  private let flows: Int
  private let kind: Kind
  private let pool = BufferPool(count: 4 * batch + 8)
  private let hub: Snapshot
  private let far: Snapshot
  private let firewall: StateCell<Firewall>
  private var outbound: OutboundPipeline
  private var inbound: InboundPipeline
  private var farOutbound: OutboundPipeline
  private var packets = PacketBatch(capacity: batch)
  private var results = OutboundResults(buffers: 2 * batch, batchCapacity: batch)
  private var random = SplitMix64(seed: 5)

  /// - Parameters:
  ///   - peers: 1 to 65,536.
  ///   - flows: 1 to 8,000,000, spread evenly over the peers.
  init(peers: Int, flows: Int, _ kind: Kind, _ cipher: Cipher, _ sealing: Sealing) throws {
    self.peers = peers
    self.flows = flows
    self.kind = kind
    var random = SplitMix64(seed: 3)
    var near: [PeerConfiguration] = []
    var there: [PeerConfiguration] = []
    for number in 0..<peers {
      let associations = (0...1).map { direction in
        SecurityAssociationConfiguration(
          spi: UInt32(4096 + 2 * number + direction), cipher: cipher,
          key: KeyMaterial((0..<cipher.keyMaterialLength).map { _ in UInt8(truncatingIfNeeded: random.next()) }))
      }
      let path = Path(endpoint: Endpoint(address: IPAddress(v4: 0xC633_0000 | UInt32(number)), port: 4500))
      near.append(
        PeerConfiguration(
          name: "\(number)", prefixes: [Prefix(IPAddress(v4: HubTiming.farHost(number, 0)), length: 24)], path: path,
          inbound: [associations[1]], outbound: associations[0]))
      there.append(
        PeerConfiguration(
          name: "\(number)", prefixes: [Prefix(IPAddress(v4: HubTiming.nearHost(number)), length: 32)], path: path,
          inbound: [], outbound: associations[1]))
    }
    let interface = InterfaceConfiguration(source: .name("none"))
    // Room for twice as many as there are; among those that are not established, only for the batch at hand.
    let rules = FirewallConfiguration(
      mode: .on, flowCapacity: min(max(2 * flows, 65_536), 8_388_608), pendingCapacity: 4 * HubTiming.batch)
    let now = MonotonicTime.current()
    hub = Snapshot(
      Configuration(interface: interface, peers: near, firewall: rules), sealing: sealing, now: now)
    far = Snapshot(Configuration(interface: interface, peers: there), sealing: sealing, now: now)
    firewall = StateCell(Firewall(using: &random))
    firewall.reference.value.adopt(hub.firewall)
    guard let first = pool.take(), let second = pool.take() else { throw LabError("no packet buffer") }
    outbound = OutboundPipeline(scratch: pool.bytes(first), batchCapacity: HubTiming.batch)
    farOutbound = OutboundPipeline(scratch: pool.bytes(second), batchCapacity: HubTiming.batch)
    inbound = InboundPipeline(capacity: 2048, offloads: .all)
    outbound.firewall = firewall.reference
    inbound.firewall = firewall.reference
    try establish()
  }

  private static func nearHost(_ peer: Int) -> UInt32 { 0xAC10_0000 | UInt32(peer) }
  private static func farHost(_ peer: Int, _ host: Int) -> UInt32 { 0x0A00_0000 | UInt32(peer) << 8 | UInt32(host) }

  /// Lets every flow have a packet, an answer and another packet, after which it is established.
  private func establish() throws {
    var flow = 0
    while flow < flows {
      let these = flow..<min(flow + HubTiming.batch, flows)
      _ = try send(these, isWhole: false)
      _ = try answer(these, isWhole: false)
      _ = try send(these, isWhole: false)
      flow = these.upperBound
    }
  }

  /// Nanoseconds of one packet, each way: of the batch in the middle, so that what else the machine does hardly shows.
  func run(seconds: Double) throws -> (out: Double, back: Double) {
    var out = Samples()
    var back = Samples()
    let end = MonotonicTime.current().adding(seconds: seconds)
    repeat {
      out.append(Double(try send((0..<HubTiming.batch).map { _ in someFlow })))
      back.append(Double(try answer((0..<HubTiming.batch).map { _ in someFlow })))
    } while MonotonicTime.current() < end
    let packets = Double(HubTiming.batch * kind.packets)
    return (out.median / packets, back.median / packets)
  }

  private var someFlow: Int { Int(random.next() % UInt64(flows)) }

  /// Out of the hub: nanoseconds that its pipeline took.
  private func send(_ flows: some Collection<Int>, isWhole: Bool = true) throws -> UInt64 {
    let wanted = flows.count * (isWhole ? kind.packets : 1)
    for flow in flows { try append(flow, isAnswer: false, isWhole: isWhole) }
    let begin = MonotonicTime.current()
    outbound.run(&packets, Turn(tables: hub, pool: pool, now: begin), into: &results)
    let time = MonotonicTime.current().nanoseconds(since: begin)
    try expect(wanted, sealed(), outbound.counters.dropCounts())
    for index in 0..<results.trains.count { pool.release(results.trains[index].buffer) }
    results.trains.removeAll()
    return time
  }

  /// Into the hub: nanoseconds that its pipeline took.
  private func answer(_ flows: some Collection<Int>, isWhole: Bool = true) throws -> UInt64 {
    let wanted = flows.count * (isWhole ? kind.packets : 1)
    for flow in flows { try append(flow, isAnswer: true, isWhole: isWhole) }
    farOutbound.run(&packets, Turn(tables: far, pool: pool, now: .current()), into: &results)
    try expect(wanted, sealed(), farOutbound.counters.dropCounts())
    let begin = MonotonicTime.current()
    // The headroom in front of a received train is the same, so what was sealed is what was received.
    let done = inbound.run(results.trains, from: 0, Turn(tables: hub, pool: pool, now: begin))
    let time = MonotonicTime.current().nanoseconds(since: begin)
    var delivered = 0
    for index in 0..<inbound.coalescer.deliveries.count {
      let delivery = inbound.coalescer.deliveries[index]
      delivered += Int(delivery.packets)
      var slice = delivery.firstSlice
      while slice >= 0 {
        let piece = inbound.coalescer.slices[Int(slice)]
        pool.release(piece.buffer)
        slice = piece.next
      }
    }
    try expect(results.trains.count, done, inbound.counters.dropCounts())
    inbound.coalescer.removeAll()
    results.trains.removeAll()
    try expect(wanted, delivered, inbound.counters.dropCounts())
    return time
  }

  /// Packets in all trains.
  private func sealed() -> Int {
    var count = 0
    for index in 0..<results.trains.count {
      count += results.trains[index].datagrams
    }
    return count
  }

  /// Dropping is fast: never let it pass for carrying.
  private func expect(_ wanted: Int, _ found: Int, _ drops: some Any) throws {
    if wanted != found { throw LabError("\(found) of \(wanted) packets came through: \(drops)") }
  }

  /// Puts a packet of a flow into the batch, as the TUN device would hand it over: with a partial checksum.
  ///
  /// - Parameter isWhole: false for as little as makes the flow known.
  private func append(_ flow: Int, isAnswer: Bool, isWhole: Bool) throws {
    let peer = flow % peers
    let number = flow / peers
    let near = HubTiming.nearHost(peer)
    let far = HubTiming.farHost(peer, 1 + number / HubTiming.portsPerHost)
    let ports = UInt32(10_000 + number % HubTiming.portsPerHost) << 16 | 443
    guard let buffer = pool.take() else { throw LabError("no packet buffer") }
    let (transport, length): (UInt8, Int) =
      switch kind {
      case .udp(let payload): (17, 28 + payload)
      case .tcp: (6, 40 + (isWhole ? Kind.segments * Kind.segmentPayload : 1))
      }
    let bytes = pool.bytes(buffer).slice(BufferPool.headroom, length)
    bytes.store32(0x4500_0000 | UInt32(length), 0)
    bytes.store32(0x0001_4000, 4)
    bytes.store32(0x4000_0000 | UInt32(transport) << 16, 8)
    bytes.store32(isAnswer ? far : near, 12)
    bytes.store32(isAnswer ? near : far, 16)
    bytes.store16(~HubTiming.sum(bytes, 0, 20), 10)
    bytes.store32(isAnswer ? ports << 16 | ports >> 16 : ports, 20)
    // The pseudo-header's part of the sum: addresses, protocol, length.
    let partial = HubTiming.folded(HubTiming.raw(bytes, 12, 8) + UInt32(transport) + UInt32(length - 20))
    var offload = Offload(segmentation: .none, needsChecksum: true, checksumStart: 20, checksumOffset: 6)
    var segmentSize = length
    switch kind {
    case .udp:
      bytes.store16(UInt16(length - 20), 24)
      bytes.store16(partial, 26)
    case .tcp:
      bytes.store64(0x0000_0001_0000_0001, 24)
      bytes.store32(0x5010_FFFF, 32)
      bytes.store32(UInt32(partial) << 16, 36)
      offload.checksumOffset = 16
      if isWhole {
        offload.segmentation = .tcp4
        segmentSize = Kind.segmentPayload
      }
    }
    packets.append(
      Superpacket(
        buffer: buffer, offset: BufferPool.headroom, length: length, segmentSize: segmentSize, offload: offload))
  }

  private static func raw(_ bytes: PacketBytes, _ offset: Int, _ count: Int) -> UInt32 {
    var sum: UInt32 = 0
    for place in stride(from: offset, to: offset + count, by: 2) {
      sum += UInt32(bytes[place]) << 8 | UInt32(bytes[place + 1])
    }
    return sum
  }

  private static func folded(_ sum: UInt32) -> UInt16 {
    var sum = sum
    while sum > 0xFFFF { sum = sum & 0xFFFF + sum >> 16 }
    return UInt16(sum)
  }

  private static func sum(_ bytes: PacketBytes, _ offset: Int, _ count: Int) -> UInt16 {
    folded(raw(bytes, offset, count))
  }
}
