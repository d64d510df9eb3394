import PacketIO
import Testing

@testable import Dataplane

/// A packet as the TUN device hands it over, or takes it: with what the virtio header says beside.
struct TunPacket: Equatable {
  var bytes: [UInt8]
  var offload = Offload()
  /// Payload bytes of a segment; not used without segmentation.
  var segmentSize = 0

  init(_ bytes: [UInt8], offload: Offload = Offload(), segmentSize: Int = 0) {
    self.bytes = bytes
    self.offload = offload
    self.segmentSize = segmentSize
  }

  /// What the kernel hands over: a packet to be completed, and cut where `segmentSize` is not zero.
  init(_ sketch: PacketSketch, segmentSize: Int = 0) {
    var sketch = sketch
    sketch.checksumField = .partial
    var segmentation = Offload.Segmentation.none
    if segmentSize > 0 { segmentation = sketch.transport == 17 ? .udp : sketch.isV4 ? .tcp4 : .tcp6 }
    self.init(
      sketch.bytes,
      offload: Offload(
        segmentation: segmentation, needsChecksum: true, checksumStart: UInt16(sketch.transportOffset),
        checksumOffset: UInt16(sketch.checksumOffset)),
      segmentSize: segmentSize)
  }
}

/// Datagrams of one size, the last possibly shorter, as one send or one receive has them.
struct Train: Equatable {
  var bytes: [UInt8]
  var segmentSize: Int
  var path: Path
  var trafficClass: UInt8
  /// Bytes between one record and the next, as a stream has them.
  var gap: UInt8 = 0

  init(_ bytes: [UInt8], segmentSize: Int? = nil, path: Path = .test, trafficClass: UInt8 = 0) {
    self.trafficClass = trafficClass
    self.bytes = bytes
    self.segmentSize = segmentSize ?? bytes.count
    self.path = path
  }

  var datagrams: [[UInt8]] {
    stride(from: 0, to: bytes.count, by: segmentSize).map { Array(bytes[$0..<min($0 + segmentSize, bytes.count)]) }
  }
}

extension [Train] {
  var datagrams: [[UInt8]] { flatMap(\.datagrams) }

  /// As a kernel's receive offload joins them: runs of one size, of which the last may be shorter.
  static func joining(_ datagrams: [[UInt8]], path: Path = .test, limit: Int = 64) -> [Train] {
    var trains: [Train] = []
    var open = false
    for datagram in datagrams {
      if open, let train = trains.last, datagram.count <= train.segmentSize,
        train.bytes.count + datagram.count <= 65507, train.bytes.count < limit * train.segmentSize
      {
        trains[trains.count - 1].bytes += datagram
        open = datagram.count == train.segmentSize
      } else {
        trains.append(Train(datagram, path: path))
        open = true
      }
    }
    return trains
  }
}

extension Path {
  /// A path by number.
  static func path(_ number: Int) -> Path {
    Path(endpoint: Endpoint(address: IPAddress(v4: 0xC000_0200 | UInt32(number)), port: 4500))
  }
  static let test = Path.path(1)
}

extension MonotonicTime {
  static func seconds(_ seconds: Double) -> MonotonicTime { MonotonicTime(nanoseconds: UInt64(seconds * 1e9)) }
}

/// A gateway without a kernel: tables, both pipelines and a pool, one side of which are TUN packets in arrays and the
/// other side trains in arrays. After each call it has checked that packets in are packets out plus drops, and that
/// every buffer has come back.
final class TestGateway {
  private(set) var tables: Snapshot
  private(set) var outbound: OutboundPipeline
  private(set) var inbound: InboundPipeline
  private var results: OutboundResults
  let firewall: StateCell<Firewall>
  let pool: BufferPool
  /// Peers reported as moved, and as running out of sequence numbers, since this was last emptied.
  var moved: [String] = []
  var exhausted: [String] = []
  /// What was found of peers' numbers that was not known, since this was last emptied.
  var disagreements: [SequenceDisagreement] = []
  /// What senders inside were told, and control messages that came, since this was last emptied.
  var replies: [[UInt8]] = []
  var controls: [ControlMessageSeen] = []
  /// What was sealed and delivered so far, counted here.
  private(set) var sealed = TrafficCount()
  private(set) var delivered = TrafficCount()
  private(set) var registry: Registry
  private var idle: Int
  private let batchCapacity = 64

  init(
    _ configuration: Configuration, buffers: Int = 48, inboundCapacity: Int = 1024, offloads: TunOffloads = .all,
    sealing: Sealing = .by(CipherEngine.available[0])
  ) {
    registry = Registry(configuration, sealing: sealing, workers: 1, now: .seconds(1))
    tables = Snapshot(registry.parts(of: 0))
    pool = BufferPool(count: buffers)
    // What lay in a buffer before must not matter.
    for id in 0..<buffers {
      pool.bytes(BufferID(id)).copy([UInt8](repeating: 0xA0 | UInt8(id & 15), count: BufferPool.bufferSize), to: 0)
    }
    let scratch = pool.take()!
    outbound = OutboundPipeline(scratch: pool.bytes(scratch), batchCapacity: batchCapacity)
    inbound = InboundPipeline(capacity: inboundCapacity, offloads: offloads)
    results = OutboundResults(buffers: buffers, batchCapacity: batchCapacity)
    var random = SeededNumbers(seed: 1)
    firewall = StateCell(Firewall(using: &random))
    idle = pool.available
    adoptFirewall()
  }

  private func adoptFirewall() {
    firewall.reference.value.adopt(tables.firewall)
    outbound.firewall = tables.firewall.isActive ? firewall.reference : nil
    inbound.firewall = outbound.firewall
  }

  /// As a worker does it, between two batches.
  func adopt(_ configuration: Configuration, now: MonotonicTime = .seconds(2)) {
    take(try? registry.draft(configuration, limits: .none), now: now)
  }

  /// The same for changes. False: they are refused.
  func adopt(_ changes: [ConfigurationChange], now: MonotonicTime = .seconds(2)) -> Bool {
    let draft = try? registry.draft(changes, limits: .none)
    take(draft, now: now)
    return draft != nil
  }

  private func take(_ draft: Registry.Draft?, now: MonotonicTime) {
    guard let draft else { return }
    tables = registry.commit(draft, now: now)[0].takeOver(tables)
    adoptFirewall()
  }

  /// From the TUN device to trains.
  func seal(_ packets: [TunPacket], now: MonotonicTime = .seconds(2)) -> [Train] {
    var sent: [Train] = []
    var rest = packets[...]
    while !rest.isEmpty {
      var batch = PacketBatch(capacity: batchCapacity)
      while let packet = rest.first, !batch.isFull, pool.available > idle / 2, let buffer = pool.take() {
        pool.bytes(buffer).copy(packet.bytes, to: BufferPool.headroom)
        batch.append(
          Superpacket(
            buffer: buffer, offset: BufferPool.headroom, length: packet.bytes.count,
            segmentSize: packet.offload.segmentation == .none ? packet.bytes.count : packet.segmentSize,
            offload: packet.offload))
        rest.removeFirst()
      }
      precondition(!batch.isEmpty, "the pool is empty before the pipeline runs")
      tap?.reference.value.addRead(batch, tables: tables, pool: pool)
      outbound.run(&batch, turn(now), into: &results)
      tap?.reference.value.addTrains(results.trains, isOutgoing: true, tables: tables, pool: pool)
      sent += takeTrains()
      for index in 0..<results.replies.count {
        replies.append(results.replies[index].bytes(in: pool).array())
        pool.release(results.replies[index].buffer)
      }
      results.replies.removeAll()
      for index in 0..<results.exhausted.count {
        exhausted.append(tables.configuration.peers[Int(results.exhausted[index])].name)
      }
      results.exhausted.removeAll()
      flushTap(now: now)
    }
    check()
    return sent
  }

  // MARK: Capture

  private var tap: StateCell<CaptureTap>?
  var isCapturing: Bool { tap != nil }

  func begin(_ capture: PacketCapture) {
    let cell = StateCell(CaptureTap(capture, scratch: pool.take()!, pool: pool))
    cell.reference.value.adopt(tables)
    tap = cell
    (outbound.tap, inbound.tap) = (cell.reference, cell.reference)
    idle = pool.available
  }

  func end(_ capture: PacketCapture) {
    capture.end(at: MonotonicTime.seconds(2).nanoseconds)
    dropTap()
  }

  private func dropTap() {
    guard let tap else { return }
    (outbound.tap, inbound.tap) = (nil, nil)
    pool.release(tap.reference.value.scratchBuffer)
    self.tap = nil
    idle = pool.available
  }

  private func flushTap(now: MonotonicTime) {
    if let tap, !tap.reference.value.flush(now: now) { dropTap() }
  }

  /// What would become of a packet.
  func explain(_ packet: [UInt8], now: MonotonicTime = .seconds(2)) -> Explanation {
    let examination = Examination(now: now)
    let explanation = examination.explain(packet, &outbound, &inbound, turn(now))
    check()
    return explanation
  }

  /// A control message as a train.
  func sealControl(
    type: UInt8, body: [UInt8], to peer: String, along path: Path? = nil, size: Int = 0
  ) -> [Train] {
    let sent = outbound.sendControl(
      type: type, body: body, to: index(peer), along: path, size: size, turn(.seconds(2)), into: &results)
    let result = takeTrains()
    require(sent == !result.isEmpty, "sent, but there is nothing; or the other way round")
    check()
    return result
  }

  private func turn(_ now: MonotonicTime) -> Turn { Turn(tables: tables, pool: pool, now: now) }

  private func takeTrains() -> [Train] {
    var taken: [Train] = []
    for index in 0..<results.trains.count {
      let train = results.trains[index]
      taken.append(
        Train(
          train.bytes(in: pool).array(), segmentSize: Int(train.segmentSize), path: train.path,
          trafficClass: train.trafficClass))
      pool.release(train.buffer)
    }
    results.trains.removeAll()
    return taken
  }

  /// From trains to what the TUN device gets.
  func open(_ trains: [Train], now: MonotonicTime = .seconds(2)) -> [Delivered] {
    var result: [Delivered] = []
    var rest = trains[...]
    while !rest.isEmpty {
      var batch = PacketBatch(capacity: batchCapacity)
      while let train = rest.first, !batch.isFull, let buffer = pool.take() {
        pool.bytes(buffer).copy(train.bytes, to: BufferPool.headroom)
        batch.append(
          Superpacket(
            buffer: buffer, offset: BufferPool.headroom, length: train.bytes.count, segmentSize: train.segmentSize,
            path: train.path, trafficClass: train.trafficClass, gap: train.gap))
        rest.removeFirst()
      }
      precondition(!batch.isEmpty, "the pool is empty before the pipeline runs")
      var next = 0
      tap?.reference.value.addTrains(batch, isOutgoing: false, tables: tables, pool: pool)
      while next < batch.count {
        let before = next
        next = inbound.run(batch, from: next, turn(now))
        tap?.reference.value.addDeliveries(inbound.coalescer, pool: pool)
        let taken = take()
        result += taken
        if next == before, taken.isEmpty {
          Issue.record("the pipeline stands still")
          return result
        }
      }
      for index in 0..<inbound.controls.count {
        let arrival = inbound.controls[index]
        controls.append(
          ControlMessageSeen(
            type: arrival.type,
            body: pool.bytes(arrival.buffer).slice(Int(arrival.offset), Int(arrival.length)).array()))
        pool.release(arrival.buffer)
      }
      inbound.controls.removeAll()
      for index in 0..<inbound.numbers.findings.count where inbound.numbers.findings[index].isNews {
        disagreements.append(inbound.numbers.findings[index].what)
      }
      inbound.numbers.findings.removeAll()
      flushTap(now: now)
      for peer in inbound.takeMoved(tables) {
        moved.append(tables.configuration.peers[peer].name)
        follow(tables.peers[peer].state, now: now)
      }
    }
    check()
    return result
  }

  /// As a node does where there is no choice of paths.
  private func follow(_ peer: StateReference<Peer>, now: MonotonicTime) {
    guard !peer.value.selection.isChoice, let path = peer.value.takeHeardBy() else { return }
    peer.value.withSelection { $0.follow(path, now: now) }
  }

  /// A control message to the first peer, as datagrams.
  func sendControl(_ message: ControlMessageSeen, size: Int = 0) -> [Train] {
    let sent = outbound.sendControl(
      type: message.type, body: message.body, to: 0, size: size, turn(.seconds(2)), into: &results)
    let result = takeTrains()
    require(sent == (result.count == 1), "a control message is one datagram or none")
    check()
    return result
  }

  /// One packet of the TUN device, one datagram.
  func seal(_ packet: [UInt8], now: MonotonicTime = .seconds(2)) -> [[UInt8]] {
    seal([TunPacket(packet)], now: now).datagrams
  }

  /// One datagram, the packets it brings.
  func open(_ datagram: [UInt8], path: Path = .test, now: MonotonicTime = .seconds(2)) -> [[UInt8]] {
    open([Train(datagram, path: path)], now: now).flatMap(\.packets)
  }

  var drops: [DropReason: Int] {
    var drops: [DropReason: Int] = [:]
    for reason in DropReason.allCases {
      let count = Int(outbound.counters.dropped(reason) + inbound.counters.dropped(reason))
      if count > 0 { drops[reason] = count }
    }
    return drops
  }

  func peer(_ name: String) -> StateReference<Peer> { tables.peers[index(name)].state }
  func outboundAssociation(_ name: String) -> StateReference<OutboundAssociation>? {
    tables.peers[index(name)].outbound
  }

  private func index(_ name: String) -> Int { tables.row(of: name)! }

  /// What `TunQueue` does: the virtio headers are written in front of all packets before the first one leaves.
  private func take() -> [Delivered] {
    for index in 0..<inbound.coalescer.deliveries.count {
      let delivery = inbound.coalescer.deliveries[index]
      let first = inbound.coalescer.slices[Int(delivery.firstSlice)]
      let bytes = pool.bytes(first.buffer).slice(Int(first.offset) - VirtioNetHeader.length, VirtioNetHeader.length)
      VirtioNetHeader.write(
        delivery.offload, gsoSize: Int(delivery.segmentSize), headerLength: Int(delivery.headerLength), to: bytes)
    }
    var result: [Delivered] = []
    for index in 0..<inbound.coalescer.deliveries.count {
      let delivery = inbound.coalescer.deliveries[index]
      var bytes: [UInt8] = []
      var slices = 0
      var next = delivery.firstSlice
      while next >= 0 {
        let slice = inbound.coalescer.slices[Int(next)]
        bytes += pool.bytes(slice.buffer).slice(Int(slice.offset), Int(slice.length)).array()
        pool.release(slice.buffer)
        slices += 1
        next = slice.next
      }
      require(slices == Int(delivery.sliceCount) && bytes.count == Int(delivery.length), "miscounted slices")
      result.append(
        Delivered(
          bytes, offload: delivery.offload, segmentSize: delivery.packets > 1 ? Int(delivery.segmentSize) : 0,
          count: Int(delivery.packets)))
      delivered.packets += UInt64(delivery.packets)
      delivered.bytes += UInt64(bytes.count + Int(delivery.packets - 1) * Int(delivery.headerLength))
    }
    inbound.coalescer.removeAll()
    return result
  }

  /// ESP packets of which fragments wait for others.
  var waitingFragments: Int { inbound.fragments.count }

  private func require(_ condition: Bool, _ message: @autoclosure () -> String) {
    if !condition { Issue.record(Comment(rawValue: message())) }
  }

  private func check() {
    // Fragments that wait for others hold what they came in.
    let missing = idle - pool.available
    require((0...waitingFragments).contains(missing), "\(missing) buffers are lost")
    require(
      outbound.counters.arrived.packets == outbound.counters.departed.packets + outboundDrops,
      "outbound: \(outbound.counters.arrived) in, \(outbound.counters.departed) out, \(outboundDrops) dropped")
    require(
      outboundDrops > 0 || outbound.counters.arrived.bytes == outbound.counters.departed.bytes,
      "outbound: \(outbound.counters.arrived) in, \(outbound.counters.departed) out")
    require(
      inbound.counters.arrived.packets == delivered.packets + inbound.controlReceived + inboundDrops,
      "inbound: \(inbound.counters.arrived) in, \(delivered) out, \(inboundDrops) dropped")
  }

  private var outboundDrops: UInt64 { DropReason.allCases.reduce(0) { $0 + outbound.counters.dropped($1) } }
  private var inboundDrops: UInt64 { DropReason.allCases.reduce(0) { $0 + inbound.counters.dropped($1) } }
}

extension Peer {
  /// The transport has said what the path takes; a peer that is nowhere is on the test's path.
  mutating func pathSelected(overhead: Int?, largestSealed: Int, raiseInterval: UInt64) {
    withSelection {
      if $0.currentPath == nil { $0.follow(.test, now: .seconds(1)) }
      $0.candidates.settle(everything: true, largestSealed: largestSealed, raiseInterval: raiseInterval) { _ in overhead
      }
      $0.candidates.assumeSizes()
    }
  }
}

struct ControlMessageSeen: Equatable {
  var type: UInt8
  var body: [UInt8]
}

/// What the TUN device got in one write.
struct Delivered {
  let packet: TunPacket
  /// Packets that it claims to stand for.
  let count: Int

  init(_ bytes: [UInt8], offload: Offload, segmentSize: Int, count: Int) {
    packet = TunPacket(bytes, offload: offload, segmentSize: segmentSize)
    self.count = count
  }

  /// The packets that a kernel makes of it.
  var packets: [[UInt8]] {
    guard packet.offload.segmentation != .none else { return [packet.bytes] }
    return SlowPacket(packet.bytes).segments(of: packet.segmentSize).map(\.bytes)
  }
}

extension ConfigurationLimits {
  /// As a dataplane in force would have them.
  static let none = ConfigurationLimits(
    transports: 16, workers: 1, engine: CipherEngine.available[0], isRunning: true)
}
