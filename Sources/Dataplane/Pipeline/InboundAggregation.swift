import PacketIO

/// ESP packets that bring several inner packets, or fragments of such (RFC 9347). Every inner packet passes the checks
/// that a packet alone passes, and is delivered at once, also when ESP packets before it are still to come (§2.5 allows
/// both). All but the first are laid apart for the device; see `SpreadPackets`.
///
/// Such an ESP packet counts as arrived as often as it brings something: a packet, or something that is dropped for a
/// reason. So packets in stay packets out and drops.
extension InboundPipeline {
  /// - Parameter front: where in the datagram the payload begins.
  @inline(never)
  mutating func receiveAggregate(
    _ datagram: PacketBytes, front: Int, length: Int, sequence: UInt64, _ origin: Origin, _ turn: Turn
  ) {
    let (entry, train) = (origin.entry, origin.train)
    counters.arrived.packets &-= 1
    aggregation.received &+= 1
    entry.state.value.packets &+= 1
    guard var payload = AggregatePayload(datagram.slice(front, length)) else {
      countPiece()
      return drop(.malformedAggregate, train, origin.offset)
    }
    let start = origin.offset &+ front
    var waiting = FragmentWindow.Entry(
      association: entry.state.value.tag, peer: entry.peer, sequence: sequence, buffer: train.buffer,
      trafficClass: train.trafficClass, since: turn.now)
    if payload.continuation.length > 0 {
      waiting.frontOffset = Int32(truncatingIfNeeded: start &+ payload.continuation.offset)
      waiting.frontLength = Int32(truncatingIfNeeded: payload.continuation.length)
      waiting.continues = payload.continues
      complete(&waiting, atFront: true, origin, turn)
    }
    if payload.isPadding {
      if fragments.holds(waiting.association) {
        waiting.frontLength = 0
        waiting.continues = true
        complete(&waiting, atFront: true, origin, turn)
      }
      countPiece()
      return drop(.dummyPacket, train, origin.offset)
    }
    var isFirst = true
    while let block = payload.nextBlock() {
      switch block {
      case .packet(let place, let length):
        take(
          turn.pool.bytes(train.buffer).slice(start &+ place, length), buffer: train.buffer, offset: start &+ place,
          isFree: isFirst && payload.continuation.length == 0, train.trafficClass, origin, turn)
        isFirst = false
      case .beginning(let place, let length):
        waiting.tailOffset = Int32(truncatingIfNeeded: start &+ place)
        waiting.tailLength = Int32(truncatingIfNeeded: length)
        complete(&waiting, atFront: false, origin, turn)
      case .padding: break
      case .malformed:
        countPiece()
        drop(.malformedAggregate, train, origin.offset)
      }
    }
  }

  /// Something that an ESP packet brought: it is delivered, or dropped under one reason.
  private mutating func countPiece(_ count: Int = 1) {
    counters.arrived.packets &+= UInt64(truncatingIfNeeded: count)
    aggregation.packetsReceived &+= UInt64(truncatingIfNeeded: count)
  }

  /// One inner packet.
  ///
  /// - Parameter isFree: what lies in front of it nobody needs any more, so the device's header may be written there.
  @inline(__always)
  private mutating func take(
    _ bytes: PacketBytes, buffer: BufferID, offset: Int, isFree: Bool, _ trafficClass: UInt8, _ origin: Origin,
    _ turn: Turn
  ) {
    countPiece()
    let (entry, peer, pool) = (origin.entry, origin.peer, turn.pool)
    let nextHeader = bytes[0] >> 4 == 4 ? ESPPacket.ipv4 : ESPPacket.ipv6
    switch admit(bytes, nextHeader, entry.peer, trafficClass, turn.tables) {
    case .control: dropInner(.malformedInnerPacket, bytes, entry)
    case .dropped(let reason): dropInner(reason, bytes, entry)
    case .admitted(let packet):
      guard coalescer.room > 0 else { return dropInner(.noBuffer, bytes, entry) }
      if steering != nil, let isGiven = giveAway(packet, bytes, buffer: buffer, at: offset, origin, pool) {
        return isGiven ? countReceived(packet.length, entry, peer) : dropInner(.handOverFull, bytes, entry)
      }
      if isFree, peer.translation == nil {
        coalescer.add(packet, buffer: buffer, offset: offset, peer: entry.peer, pool: pool)
      } else {
        guard let copy = spread.reserve(bytes.count, pool: pool) else { return dropInner(.noBuffer, bytes, entry) }
        pool.bytes(copy.buffer).copy(bytes, to: copy.offset)
        var delivered = packet
        if let translation = peer.translation, packet.transport == IPProtocol.udp {
          let room = pool.bytes(copy.buffer).slice(copy.offset, packet.length &+ SpreadPackets.roomBehind)
          delivered = rewriteNames(room, packet, translation, peer.state)
        }
        coalescer.add(delivered, buffer: copy.buffer, offset: copy.offset, peer: entry.peer, pool: pool)
      }
      countReceived(packet.length, entry, peer)
    }
  }

  @inline(__always)
  private func countReceived(_ length: Int, _ entry: Snapshot.AssociationEntry, _ peer: Snapshot.PeerEntry) {
    peer.state.value.received.add(packets: 1, bytes: length)
    entry.state.value.bytes &+= UInt64(truncatingIfNeeded: length)
  }

  // MARK: Fragments

  /// Puts an ESP packet's fragments with those that wait, and takes the packet that is complete with them, if any.
  private mutating func complete(
    _ waiting: inout FragmentWindow.Entry, atFront: Bool, _ origin: Origin, _ turn: Turn
  ) {
    lose(fragments.insert(waiting, pool: turn.pool))
    let association = waiting.association
    // What is in there does not go in once more with the other end of the payload.
    (waiting.frontLength, waiting.continues) = (-1, false)
    switch fragments.assemble(association, waiting.sequence, atFront: atFront, into: &spread, pool: turn.pool) {
    case .incomplete: break
    case .failed(let reason):
      countPiece()
      counters.drop(reason)
    case .packet(let buffer, let offset, let length, let trafficClass):
      let bytes = turn.pool.bytes(buffer).slice(offset, length)
      take(bytes, buffer: buffer, offset: offset, isFree: true, trafficClass, origin, turn)
    }
  }

  @inline(never)
  mutating func expireFragments(_ turn: Turn) { lose(fragments.expire(now: turn.now, pool: turn.pool)) }

  private mutating func lose(_ count: Int) {
    guard count > 0 else { return }
    countPiece(count)
    counters.drop(.incompletePacket, packets: count)
  }

  @inline(never)
  private mutating func dropInner(_ reason: DropReason, _ bytes: PacketBytes, _ entry: Snapshot.AssociationEntry) {
    counters.drop(reason)
    tap?.value.addOpened(bytes, reason, peer: entry.peer)
  }
}
