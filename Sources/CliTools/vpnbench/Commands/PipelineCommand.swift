import ArgumentParser
import Dataplane
import Lab
import PacketIO

/// `vpnbench pipeline`: packets as the TUN device hands them over, to sealed datagrams and back, without a kernel.
struct PipelineCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pipeline", abstract: "The packet path in memory: TUN bytes to sealed datagrams and back.")

  @OptionGroup var output: OutputOptions

  @Option(help: "Seconds of each measurement.")
  var seconds = 0.2

  @Option(help: "Cipher of the association: aes-128-gcm, aes-256-gcm or chacha20-poly1305.")
  var cipher = "aes-128-gcm"

  func validate() throws {
    guard Cipher(rawValue: cipher) != nil else {
      throw ValidationError("--cipher is one of \(Cipher.allCases.map(\.rawValue).joined(separator: ", "))")
    }
    guard (0.001...60).contains(seconds) else { throw ValidationError("--seconds is from 0.001 to 60") }
  }

  func run() throws {
    guard let cipher = Cipher(rawValue: cipher) else { return }
    var report = Report(scenario: "pipeline")
    report.settings = ["seconds": "\(seconds)", "cipher": cipher.rawValue]
    let sealings =
      [(Report.Subject(name: "null cipher", isBound: true, note: "sealing left out"), Sealing.leftOut)]
      + CipherEngine.available.filter { $0.supports(cipher) }.map {
        (Report.Subject(name: $0.rawValue, isBound: false, note: cipher.rawValue), Sealing.by($0))
      }
    report.subjects = sealings.map(\.0)
    let progress = Progress(total: output.rounds * sealings.count)
    for round in 0..<output.rounds {
      for (subject, sealing) in sealings {
        progress.step("round \(round + 1) of \(output.rounds): \(subject.name)")
        for shape in PacketShape.all {
          var path = try PipelineTiming(shape, cipher, sealing)
          let times = try path.run(seconds: seconds)
          report.add(times.out, PipelineCommand.metric("Out", shape), of: subject)
          report.add(times.back, PipelineCommand.metric("In", shape), of: subject)
        }
      }
    }
    progress.finish()
    report.warnOfNoise([PipelineCommand.metric("Out", PacketShape.all[0]).id])
    try output.deliver(report)
  }

  private static func metric(_ direction: String, _ shape: PacketShape) -> Report.Metric {
    let title = "\(direction), time of one packet"
    return Report.Metric(
      id: "\(direction.lowercased())-\(shape.id)", title: title, unit: "ns", higherIsBetter: false, column: shape.name)
  }
}

/// What the TUN device hands over at once.
private struct PacketShape {
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

  /// From 10.0.0.1 to 10.0.0.2, with the partial checksum that the kernel leaves in packets it hands to a TUN device.
  func bytes(_ random: inout SplitMix64) -> [UInt8] {
    let length = headerLength + segments * payload
    func big(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 255), UInt8(value & 255)] }
    let addresses: [UInt8] = [10, 0, 0, 1, 10, 0, 0, 2]
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

/// Both pipelines, one behind the other, with one peer that is ourselves.
private struct PipelineTiming: ~Copyable {
  private static let batch = 16
  private let shape: PacketShape
  private let pool = BufferPool(count: 256)
  private let tables: Snapshot
  private let template: PacketBytes
  private var outbound: OutboundPipeline
  private var inbound: InboundPipeline
  private var packets = PacketBatch(capacity: batch)
  private var trains = PacketBatch(capacity: 256)

  init(_ shape: PacketShape, _ cipher: Cipher, _ sealing: Sealing) throws {
    self.shape = shape
    var random = SplitMix64(seed: UInt64(shape.payload))
    let key = KeyMaterial((0..<cipher.keyMaterialLength).map { _ in UInt8(truncatingIfNeeded: random.next()) })
    let association = SecurityAssociationConfiguration(spi: 4096, cipher: cipher, key: key)
    guard let prefix = Prefix("10.0.0.0/24"), let scratch = pool.take(), let first = pool.take() else {
      throw LabError("no packet buffer")
    }
    let peer = PeerConfiguration(
      name: "self", prefixes: [prefix], path: Path(endpoint: Endpoint(address: IPAddress(v4: 0xC000_0202), port: 4500)),
      inbound: [association], outbound: association)
    tables = Snapshot(
      Configuration(interface: InterfaceConfiguration(source: .name("none")), peers: [peer]), previous: nil,
      sealing: sealing, now: .current())
    outbound = OutboundPipeline(scratch: pool.bytes(scratch), batchCapacity: PipelineTiming.batch)
    inbound = InboundPipeline(capacity: 1024, offloads: .all)
    let bytes = shape.bytes(&random)
    template = pool.bytes(first).slice(BufferPool.headroom, bytes.count)
    template.copy(bytes, to: 0)
  }

  /// Nanoseconds of one inner packet.
  mutating func run(seconds: Double) throws -> (out: Double, back: Double) {
    var out: UInt64 = 0
    var back: UInt64 = 0
    var count: UInt64 = 0
    _ = try turn()
    while Double(out + back) < seconds * 1e9 {
      let times = try turn()
      out += times.out
      back += times.back
      count += UInt64(PipelineTiming.batch * shape.segments)
    }
    return (Double(out) / Double(count), Double(back) / Double(count))
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
    outbound.run(&packets, tables: tables, pool: pool, now: begin, trains: &trains)
    let middle = MonotonicTime.current()
    // The headroom in front of a received train is the same, so what was sealed is what was received.
    let done = inbound.run(trains, from: 0, tables: tables, pool: pool, now: middle)
    let end = MonotonicTime.current()
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
    let all = done == trains.count && delivered == PipelineTiming.batch * shape.segments
    inbound.coalescer.removeAll()
    trains.removeAll()
    // Dropping is fast: never let it pass for carrying.
    guard all else {
      throw LabError(
        "\(delivered) of \(PipelineTiming.batch * shape.segments) packets came back, \(inbound.counters.dropCounts())")
    }
    return (middle.nanoseconds(since: begin), end.nanoseconds(since: middle))
  }
}
