import Dataplane
import Lab
import PacketIO

/// What the TUN device hands over at once.
struct PacketShape {
  var id: String
  var name: String
  /// TCP superpackets are cut; UDP packets go as they are.
  var isTCP: Bool
  var segments: Int
  /// Bytes behind the transport header of each segment.
  var payload: Int

  static let all = [
    PacketShape(id: "tcp-44", name: "TCP 44 × 1360", isTCP: true, segments: 44, payload: 1360),
    PacketShape(id: "tcp-1", name: "TCP 1 × 1360", isTCP: true, segments: 1, payload: 1360),
    PacketShape(id: "udp-1350", name: "UDP 1350", isTCP: false, segments: 1, payload: 1350),
    PacketShape(id: "udp-64", name: "UDP 64", isTCP: false, segments: 1, payload: 64),
  ]

  var headerLength: Int { isTCP ? 40 : 28 }

  /// From 10.0.0.1 to 100.64.1.2, with the partial checksum that the kernel leaves in packets it hands to a TUN device.
  func bytes(_ random: inout SplitMix64) -> [UInt8] {
    let length = headerLength + segments * payload
    func big(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 255), UInt8(value & 255)] }
    let addresses: [UInt8] = [10, 0, 0, 1, 100, 64, 1, 2]
    var packet: [UInt8] = [0x45, 0] + big(length) + [0, 1, 0x40, 0, 64, isTCP ? 6 : 17, 0, 0] + addresses
    let header = PacketShape.sum(packet)
    packet.replaceSubrange(10..<12, with: big(Int(~header)))
    let pseudo = big(Int(PacketShape.sum(addresses + [0, isTCP ? 6 : 17] + big(length - 20))))
    packet += [0x30, 0x39, 0x14, 0x51]
    packet +=
      isTCP
      ? [0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xFF, 0xFF] + pseudo + [0, 0]
      : big(length - 20) + pseudo
    return packet + (0..<segments * payload).map { _ in UInt8(truncatingIfNeeded: random.next()) }
  }

  private static func sum(_ bytes: [UInt8]) -> UInt16 {
    var sum: UInt32 = 0
    for i in stride(from: 0, to: bytes.count, by: 2) { sum += UInt32(bytes[i]) << 8 | UInt32(bytes[i + 1]) }
    while sum > 0xFFFF { sum = sum & 0xFFFF + sum >> 16 }
    return UInt16(sum)
  }

  var offload: Offload {
    Offload(
      segmentation: isTCP && segments > 1 ? .tcp4 : .none, needsChecksum: true, checksumStart: 20,
      checksumOffset: isTCP ? 16 : 6)
  }
}

/// What is done with packets beside sealing and opening.
enum PacketManner {
  case plain
  /// The firewall's default policy and a rule that lets packets come in, and both addresses translated on their way.
  case policed
  /// Small packets share ESP packets (RFC 9347).
  case aggregated
}

/// Both pipelines, one behind the other: what is sealed for one peer, another one has sent.
struct PipelineTiming: ~Copyable {
  private static let batch = 16
  private let shape: PacketShape
  private let pool = BufferPool(count: 256)
  private let tables: Snapshot
  /// What the pipelines work with, held as a node holds it.
  private var lent: Turn
  private let template: PacketBytes
  private var outbound: OutboundPipeline
  private var inbound: InboundPipeline
  private var packets = PacketBatch(capacity: batch)
  private var results = OutboundResults(buffers: 256, batchCapacity: batch)
  private let firewall: StateCell<Firewall>
  private let isPoliced: Bool

  init(_ shape: PacketShape, _ cipher: Cipher, _ sealing: Sealing, _ manner: PacketManner) throws {
    self.shape = shape
    isPoliced = manner == .policed
    var random = SplitMix64(seed: UInt64(shape.payload))
    let key = KeyMaterial((0..<cipher.keyMaterialLength).map { _ in UInt8(truncatingIfNeeded: random.next()) })
    let association = SecurityAssociationConfiguration(spi: 4096, cipher: cipher, key: key)
    guard let near = Prefix("10.0.0.0/24"), let far = Prefix("100.64.1.0/24"), let lan = Prefix("10.1.0.0/16"),
      let source = Prefix("10.0.0.1/32"),
      let translatedSource = Prefix("100.64.2.1/32"), let target = Prefix("10.0.0.2/32"),
      let knownTarget = Prefix("100.64.1.2/32"), let scratch = pool.take(), let first = pool.take()
    else { throw LabError("no packet buffer") }
    var receiver = PeerConfiguration(
      name: "receiver", prefixes: [far],
      path: Path(endpoint: Endpoint(address: IPAddress(v4: 0xC000_0202), port: 4500)), outbound: association,
      aggregates: manner == .aggregated)
    var sender = PeerConfiguration(
      name: "sender", prefixes: [near, translatedSource], inbound: [association], aggregates: manner == .aggregated)
    var rules = FirewallConfiguration()
    if isPoliced {
      rules = FirewallConfiguration(
        mode: .on, rules: [FirewallRule(number: 10, direction: .inbound, action: .allow)])
      receiver.translation = TranslationConfiguration(
        mode: .fixed, knownAs: [PrefixPair(real: source, intermediate: translatedSource)])
      sender.translation = TranslationConfiguration(
        mode: .fixed, knownAs: [PrefixPair(real: target, intermediate: knownTarget)])
    }
    tables = Snapshot(
      Configuration(
        interface: InterfaceConfiguration(source: .name("none")), peers: [receiver, sender],
        localPrefixes: isPoliced ? [lan] : [], firewall: rules), sealing: sealing, now: .current())
    lent = Turn(tables: tables, pool: pool, now: .current())
    if manner == .aggregated { tables.assumeAggregation() }
    firewall = StateCell(Firewall(using: &random))
    firewall.reference.value.adopt(tables.firewall)
    outbound = OutboundPipeline(scratch: pool.bytes(scratch), batchCapacity: PipelineTiming.batch)
    inbound = InboundPipeline(capacity: 1024, offloads: .all)
    if isPoliced {
      outbound.firewall = firewall.reference
      inbound.firewall = firewall.reference
    }
    let bytes = shape.bytes(&random)
    template = pool.bytes(first).slice(BufferPool.headroom, bytes.count)
    template.copy(bytes, to: 0)
  }

  /// Nanoseconds of one inner packet.
  /// - Parameter turns: batches to run; nil: as many as there is time for.
  mutating func run(seconds: Double, turns: Int?) throws -> (out: Double, back: Double) {
    var out: UInt64 = 0
    var back: UInt64 = 0
    var count: UInt64 = 0
    _ = try turn()
    var done = 0
    while turns.map({ done < $0 }) ?? (Double(out + back) < seconds * 1e9) {
      let times = try turn()
      out += times.out
      back += times.back
      done += 1
      count += UInt64(PipelineTiming.batch * shape.segments)
    }
    return (Double(out) / Double(count), Double(back) / Double(count))
  }

  /// Packets that went both ways from `begin` to `end`.
  /// - Parameter atBegin: called then.
  mutating func count(from begin: MonotonicTime, to end: MonotonicTime, atBegin: () -> Void) throws -> UInt64 {
    var count: UInt64 = 0
    // The first turn touches the memory.
    _ = try turn()
    while MonotonicTime.current() < begin {}
    atBegin()
    while MonotonicTime.current() < end {
      _ = try turn()
      count += UInt64(PipelineTiming.batch * shape.segments)
    }
    return count
  }

  private mutating func turn() throws -> (out: UInt64, back: UInt64) {
    for _ in 0..<PipelineTiming.batch {
      guard let buffer = pool.take() else { throw LabError("no packet buffer") }
      pool.bytes(buffer).copy(template, to: BufferPool.headroom)
      packets.append(
        Superpacket(
          buffer: buffer, offset: BufferPool.headroom, length: template.count,
          segmentSize: shape.segments > 1 ? shape.payload : template.count, offload: shape.offload))
    }
    let begin = MonotonicTime.current()
    lent.now = begin
    outbound.run(&packets, lent, into: &results)
    let middle = MonotonicTime.current()
    lent.now = middle
    // The headroom in front of a received train is the same, so what was sealed is what was received.
    let done = inbound.run(results.trains, from: 0, lent)
    let end = MonotonicTime.current()
    var delivered = 0
    var translated = 0
    for index in 0..<inbound.coalescer.deliveries.count {
      let delivery = inbound.coalescer.deliveries[index]
      delivered += Int(delivery.packets)
      var slice = delivery.firstSlice
      let first = inbound.coalescer.slices[Int(slice)]
      let packet = pool.bytes(first.buffer).slice(Int(first.offset), 20)
      if packet.load32(12) == 0x6440_0201, packet.load32(16) == 0x0A00_0002 { translated += Int(delivery.packets) }
      while slice >= 0 {
        let piece = inbound.coalescer.slices[Int(slice)]
        pool.release(piece.buffer)
        slice = piece.next
      }
    }
    let all = done == results.trains.count && delivered == PipelineTiming.batch * shape.segments
    inbound.coalescer.removeAll()
    results.trains.removeAll()
    // Dropping is fast: never let it pass for carrying.
    guard all else {
      throw LabError(
        "\(delivered) of \(PipelineTiming.batch * shape.segments) packets came back, \(inbound.counters.dropCounts())")
    }
    guard translated == (isPoliced ? delivered : 0) else {
      throw LabError("\(translated) of \(delivered) packets were translated")
    }
    return (middle.nanoseconds(since: begin), end.nanoseconds(since: middle))
  }
}
