import PacketIO

/// Small packets of one batch to one peer share ESP packets (RFC 9347). None waits: what a batch has gathered goes with
/// the batch. Whatever comes to the peer and does not join sends first what has been gathered, so packets to a peer
/// keep their order.
extension OutboundPipeline {
  /// Gathers a packet with others to its peer; false: it is to go alone.
  mutating func aggregate(
    _ bytes: PacketBytes, _ packet: InnerPacket, _ destination: Destination, _ turn: Turn,
    _ results: inout OutboundResults
  ) -> Bool {
    let state = destination.peer.state
    let inner = Congestion.trafficClass(bytes, isV4: packet.isV4)
    let trafficClass = Congestion.outer(inner, copyDSCP: destination.association.value.copiesDSCP)
    var place = Int(state.value.openAggregate)
    if place < 0 {
      guard !aggregates.isFull, let buffer = turn.pool.take() else { return false }
      place = aggregates.count
      aggregates.append(OpenAggregate(buffer: buffer, peer: destination.row, pool: turn.pool))
      state.value.openAggregate = Int32(truncatingIfNeeded: place)
    }
    if aggregates[place].count > 0,
      !aggregates[place].hasRoom(for: bytes.count, trafficClass: trafficClass, limit: destination.limit)
    {
      closeAggregate(destination.peer, turn, &results)
    }
    if aggregates[place].count == 0 {
      guard case .granted(let sequence) = claim(1, destination.association, row: destination.row, &results) else {
        return false
      }
      aggregates[place].begin(
        destination.association, sequence: sequence, isV4: packet.isV4, trafficClass: trafficClass,
        path: destination.path)
      state.value.lastSent = turn.now
      turn.tables.busy.insert(destination.row)
    }
    aggregates[place].append(bytes, pool: turn.pool)
    counters.arrived.add(packets: 1, bytes: bytes.count)
    return true
  }

  /// Seals what has been gathered for a peer, if anything.
  @inline(__always)
  mutating func closeAggregate(_ peer: Snapshot.PeerEntry, _ turn: Turn, _ results: inout OutboundResults) {
    let place = Int(peer.state.value.openAggregate)
    guard place >= 0, aggregates[place].count > 0 else { return }
    sealAggregate(place, peer, turn, &results)
  }

  @inline(never)
  private mutating func sealAggregate(
    _ place: Int, _ peer: Snapshot.PeerEntry, _ turn: Turn, _ results: inout OutboundResults
  ) {
    let gathered = aggregates[place]
    aggregates[place].reset()
    let (start, length, nextHeader) = gathered.content
    let count = Int(gathered.count)
    guard let association = gathered.association else { return counters.drop(.noAssociation, packets: count) }
    let train = room(
      for: ESPPacket.sealedLength(length, implicitIV: association.value.implicitIV), to: Int(gathered.peer), peer,
      path: gathered.path, trafficClass: gathered.trafficClass, turn, &results)
    // A capture does not hear of these: their own buffers have gone back.
    guard let train else { return counters.drop(.noBuffer, packets: count) }
    seal(
      turn.pool.bytes(gathered.buffer), at: start, length: length, nextHeader: nextHeader, sequence: gathered.sequence,
      association, into: train, pool: turn.pool)
    let octets = Int(gathered.length) &- AggregatePayload.headerLength
    counters.departed.add(packets: count, bytes: octets)
    peer.state.value.sent.add(packets: count, bytes: octets)
    if count > 1 {
      aggregation.sent &+= 1
      aggregation.packetsSent &+= UInt64(truncatingIfNeeded: count)
    }
  }

  /// At the end of a batch: seals what has been gathered for anybody, and gives the buffers back.
  @inline(never)
  mutating func closeAggregates(_ turn: Turn, _ results: inout OutboundResults) {
    for place in 0..<aggregates.count {
      let peer = turn.tables.peers[Int(aggregates[place].peer)]
      closeAggregate(peer, turn, &results)
      peer.state.value.openAggregate = -1
      turn.pool.release(aggregates[place].buffer)
    }
    aggregates.removeAll()
  }
}
