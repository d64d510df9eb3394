import PacketIO

/// Packets for peers that keys are being agreed upon with: the last few, for a moment, so that whoever begins to talk need
/// not begin again. Copies, since buffers are few.
struct HeldPackets: ~Copyable {
  struct Packet {
    /// Without a buffer.
    let superpacket: Superpacket
    let bytes: [UInt8]
    /// What it counts as.
    let arrived: (packets: Int, bytes: Int)
    let since: MonotonicTime
  }

  private var packets: [Int32: [Packet]] = [:]
  private var total = 0

  /// Packets and bytes for one peer, bytes for all, and nanoseconds.
  static let mostPackets = 8
  static let mostBytes = 16_384
  private static let mostInAll = 4 << 20
  private static let patience: UInt64 = 2_000_000_000

  var isEmpty: Bool { packets.isEmpty }

  /// Keeps a packet; those before give way.
  /// - Returns: what is dropped for it; the packet itself where there is no room.
  mutating func hold(_ packet: Packet, for row: Int32) -> [Packet] {
    guard packet.bytes.count <= HeldPackets.mostBytes, total + packet.bytes.count <= HeldPackets.mostInAll else {
      return [packet]
    }
    var held = packets[row] ?? []
    var dropped: [Packet] = []
    held.append(packet)
    total += packet.bytes.count
    while held.count > HeldPackets.mostPackets || held.reduce(0, { $0 + $1.bytes.count }) > HeldPackets.mostBytes {
      dropped.append(held.removeFirst())
    }
    total -= dropped.reduce(0) { $0 + $1.bytes.count }
    packets[row] = held
    return dropped
  }

  /// Those of a peer, in order.
  mutating func take(_ row: Int32) -> [Packet] {
    guard let held = packets.removeValue(forKey: row) else { return [] }
    total -= held.reduce(0) { $0 + $1.bytes.count }
    return held
  }

  /// Those that have waited too long.
  mutating func expire(now: MonotonicTime) -> [Packet] {
    var expired: [Packet] = []
    for (row, held) in packets {
      let kept = held.filter { now.nanoseconds(since: $0.since) < HeldPackets.patience }
      guard kept.count < held.count else { continue }
      expired += held.filter { now.nanoseconds(since: $0.since) >= HeldPackets.patience }
      packets[row] = kept.isEmpty ? nil : kept
    }
    total -= expired.reduce(0) { $0 + $1.bytes.count }
    return expired
  }

  // MARK: For the pipeline, with its counters

  /// Keeps a copy of a packet.
  /// - Returns: false: keys are not agreed upon with that peer, and there is nothing to wait for.
  @inline(never)
  mutating func hold(
    _ superpacket: Superpacket, _ packet: InnerPacket, _ bytes: PacketBytes, for row: Int, _ turn: Turn,
    _ counters: inout PipelineCounters
  ) -> Bool {
    guard turn.tables.record(row)?.configuration.negotiatesKeys == true else { return false }
    let segments = Segmentation(superpacket, packet, bytes, limit: Int.max)
    let dropped = hold(
      Packet(
        superpacket: superpacket, bytes: superpacket.bytes(in: turn.pool).array(),
        arrived: (packets: segments?.count ?? 1, bytes: segments?.totalLength ?? packet.length), since: turn.now),
      for: Int32(truncatingIfNeeded: row))
    for packet in dropped { packet.refuse(&counters) }
    return true
  }

  /// Drops what has waited too long.
  mutating func expire(now: MonotonicTime, _ counters: inout PipelineCounters) {
    if isEmpty { return }
    for packet in expire(now: now) { packet.refuse(&counters) }
  }

  /// Gives back what was kept for a peer, in buffers.
  mutating func release(
    _ row: Int, into batch: inout PacketBatch, pool: BufferPool, _ counters: inout PipelineCounters
  ) {
    if isEmpty { return }
    for packet in take(Int32(truncatingIfNeeded: row)) {
      guard !batch.isFull, let buffer = pool.take() else {
        packet.refuse(&counters)
        continue
      }
      var superpacket = packet.superpacket
      superpacket.buffer = buffer
      superpacket.offset = Int32(truncatingIfNeeded: BufferPool.headroom)
      pool.bytes(buffer).copy(packet.bytes, to: BufferPool.headroom)
      batch.append(superpacket)
    }
  }
}

extension HeldPackets.Packet {
  fileprivate func refuse(_ counters: inout PipelineCounters) {
    counters.arrived.add(packets: arrived.packets, bytes: arrived.bytes)
    counters.drop(.noAssociation, packets: arrived.packets)
  }
}
