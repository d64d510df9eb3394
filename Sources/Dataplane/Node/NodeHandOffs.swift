import PacketIO

/// What a node does about the hand-offs of other workers.
extension Node {
  /// Takes what others have handed to this worker, each one's in order. True: there is more, when the outputs were
  /// taken.
  package mutating func takeHandOffs() -> Bool {
    guard let queues = handOffs.queues else { return false }
    defer { finish() }
    if intake.isHalfOpen { return openHanded() }
    if intake.sender == 0, intake.taken == 0 { intake.hasMore = false }
    while intake.sender < handOffs.workers {
      if let queue = queues.queue(from: intake.sender, to: worker) {
        if intake.taken == 0 { queue.clearAnnouncement() }
        while intake.taken < HandOffIntake.limit, queue.take({ take($0, $1) }) {
          intake.taken += 1
          if datapath.outputs.trains.count >= PathKeeper.trainsAtOnce { return true }
        }
        if intake.isFull { return flushHandOffs() }
        if !queue.isEmpty, intake.taken == HandOffIntake.limit { intake.hasMore = true }
      }
      intake.sender += 1
      intake.taken = 0
    }
    if intake.kind != nil { return flushHandOffs() }
    intake.sender = 0
    return false
  }

  /// Whether it was taken; if not, it waits for what was gathered before, or for tables that are on their way.
  private mutating func take(_ handOff: HandOff, _ bytes: PacketBytes) -> Bool {
    if let version = handOff.version, version != tables.peerListVersion {
      // The difference of two numbers that go round. A newer list of peers is about to be adopted here too.
      if Int32(bitPattern: version &- tables.peerListVersion) > 0 { return false }
      if case .opened = handOff { datapath.inbound.counters.drop(.unknownSPI) }
      return true
    }
    switch handOff {
    case .outbound(let superpacket):
      if forwardsFragment(handOff, bytes) { return true }
      return gather(.outbound, superpacket, bytes)
    case .judged(let superpacket): return gather(.judged, superpacket, bytes)
    case .sealed(let superpacket): return gather(.sealed, superpacket, bytes)
    case .opened(let peer, _):
      if forwardsFragment(handOff, bytes) { return true }
      return takeOpened(bytes, from: peer)
    case .control(let message, _): take(message, bytes)
    case .answered(let peer, _): sharing.takeAnswer(from: Int(peer), tables, facts)
    case .path(let update, _): sharing.take(update, tables, facts)
    case .activity(let activity, _): sharing.take(activity, tables)
    case .heard(let peer, let path, _): paths.followMove(Int(peer), to: path, &datapath, facts)
    case .failed(let path): paths.fail(path, datapath.turn)
    case .refused(let path, let size, let quote): paths.refuse(over: Int(size), at: path, quote, datapath.turn)
    }
    return true
  }

  private mutating func gather(_ kind: HandOffIntake.Kind, _ superpacket: Superpacket, _ bytes: PacketBytes) -> Bool {
    guard intake.begin(kind) else { return false }
    guard !intake.append(superpacket, bytes, pool) else { return true }
    if kind == .sealed {
      datapath.inbound.refuse(packets: superpacket.datagrams, bytes: bytes.count, .noBuffer)
    } else {
      datapath.outbound.refuse(superpacket, bytes, .noBuffer)
    }
    return true
  }

  private mutating func takeOpened(_ bytes: PacketBytes, from peer: Int32) -> Bool {
    guard datapath.inbound.coalescer.room > 0 else {
      intake.isFull = true
      return false
    }
    guard intake.begin(.opened) else { return false }
    guard let place = intake.reserve(bytes.count, pool) else {
      if intake.isFull { return false }
      datapath.inbound.counters.drop(.noBuffer)
      return true
    }
    pool.bytes(place.buffer).slice(place.offset, bytes.count).copy(bytes, to: 0)
    datapath.inbound.acceptOpened(
      buffer: place.buffer, offset: place.offset, length: bytes.count + HandOffIntake.openedTail, peer: peer,
      datapath.turn)
    return true
  }

  /// With worker 0: gives a fragment to the owner of its datagram's flow. True when that is another worker.
  private mutating func forwardsFragment(_ handOff: HandOff, _ bytes: PacketBytes) -> Bool {
    guard worker == 0, let steering = handOffs.steering, let packet = InnerPacket(bytes), packet.isFragment else {
      return false
    }
    var translation: StateReference<PrefixTranslation>?
    var holder = tables.receiver(of: bytes)
    if case .opened(let peer, _) = handOff {
      (translation, holder) = (tables.peers[Int(peer)].translation, Holder(row: peer))
    }
    let owner = steering.owner(packet, bytes, translation)
    guard owner != 0 else { return false }
    guard !handOffs.post(handOff, bytes, of: holder, to: owner) else { return true }
    if case .outbound(let superpacket) = handOff {
      datapath.outbound.refuse(superpacket, bytes, .handOverFull)
    } else {
      datapath.inbound.counters.drop(.handOverFull)
    }
    return true
  }

  /// Runs what was gathered through the pipelines. True: the outputs are to be taken.
  private mutating func flushHandOffs() -> Bool {
    intake.isFull = false
    switch intake.kind {
    case .outbound: sealHanded(isJudged: false)
    case .judged: sealHanded(isJudged: true)
    case .sealed: return openHanded()
    case .opened: datapath.finishOpened()
    case nil: break
    }
    intake.end(pool)
    return true
  }

  private mutating func sealHanded(isJudged: Bool) {
    datapath.seal(&intake.packets, isJudged: isJudged)
    handJudged()
  }

  private mutating func openHanded() -> Bool {
    datapath.open(&intake.packets)
    followOpening()
    intake.isHalfOpen = !intake.packets.isEmpty
    if !intake.isHalfOpen { intake.end(pool) }
    return true
  }
}
