import PacketIO

/// Small packets of one batch to one peer share ESP packets (RFC 9347). None waits: what a batch has gathered goes with
/// the batch. Whatever comes to the peer and does not join sends first what has been gathered, so packets to a peer
/// keep their order.
extension OutboundPipeline {
  /// Gathers a packet with others to its peer; false: it is to go alone.
  mutating func aggregate(
    _ bytes: PacketBytes, _ packet: InnerPacket, _ entry: Snapshot.PeerEntry,
    _ association: StateReference<OutboundAssociation>, peer: Int, path: Path, limit: Int, pool: BufferPool,
    now: MonotonicTime, trains: inout PacketBatch
  ) -> Bool {
    let inner = Congestion.trafficClass(bytes, isV4: packet.isV4)
    let trafficClass = Congestion.outer(inner, copyDSCP: association.value.copiesDSCP)
    var place = Int(entry.state.value.openAggregate)
    if place < 0 {
      guard !aggregates.isFull, let buffer = pool.take() else { return false }
      place = aggregates.count
      aggregates.append(OpenAggregate(buffer: buffer, peer: peer, pool: pool))
      entry.state.value.openAggregate = Int32(truncatingIfNeeded: place)
    }
    if aggregates[place].count > 0,
      !aggregates[place].hasRoom(for: bytes.count, trafficClass: trafficClass, limit: limit)
    {
      closeAggregate(entry, pool: pool, trains: &trains)
    }
    if aggregates[place].count == 0 {
      guard case .granted(let sequence) = claim(1, association, peer: peer) else { return false }
      aggregates[place].begin(
        association, sequence: sequence, isV4: packet.isV4, trafficClass: trafficClass, path: path)
      entry.state.value.lastSent = now
    }
    aggregates[place].append(bytes, pool: pool)
    counters.arrived.add(packets: 1, bytes: bytes.count)
    return true
  }

  /// Seals what has been gathered for a peer, if anything.
  @inline(__always)
  mutating func closeAggregate(_ entry: Snapshot.PeerEntry, pool: BufferPool, trains: inout PacketBatch) {
    let place = Int(entry.state.value.openAggregate)
    guard place >= 0, aggregates[place].count > 0 else { return }
    sealAggregate(place, entry, pool: pool, trains: &trains)
  }

  @inline(never)
  private mutating func sealAggregate(
    _ place: Int, _ entry: Snapshot.PeerEntry, pool: BufferPool, trains: inout PacketBatch
  ) {
    let gathered = aggregates[place]
    aggregates[place].reset()
    let (start, length, nextHeader) = gathered.content
    let count = Int(gathered.count)
    guard let association = gathered.association else { return counters.drop(.noAssociation, packets: count) }
    let train = room(
      for: ESPPacket.sealedLength(length, implicitIV: association.value.implicitIV), peer: Int(gathered.peer), entry,
      path: gathered.path, trafficClass: gathered.trafficClass, pool: pool, trains: &trains)
    // A capture does not hear of these: their own buffers have gone back.
    guard let train else { return counters.drop(.noBuffer, packets: count) }
    seal(
      pool.bytes(gathered.buffer), at: start, length: length, nextHeader: nextHeader, sequence: gathered.sequence,
      association, into: train, pool: pool)
    let octets = Int(gathered.length) &- AggregatePayload.headerLength
    counters.departed.add(packets: count, bytes: octets)
    entry.state.value.sent.add(packets: count, bytes: octets)
    if count > 1 {
      aggregation.sent &+= 1
      aggregation.packetsSent &+= UInt64(truncatingIfNeeded: count)
    }
  }

  /// At the end of a batch: seals what has been gathered for anybody, and gives the buffers back.
  @inline(never)
  mutating func closeAggregates(_ tables: Snapshot, pool: BufferPool, trains: inout PacketBatch) {
    for place in 0..<aggregates.count {
      let entry = tables.peers[Int(aggregates[place].peer)]
      closeAggregate(entry, pool: pool, trains: &trains)
      entry.state.value.openAggregate = -1
      pool.release(aggregates[place].buffer)
    }
    aggregates.removeAll()
  }
}
