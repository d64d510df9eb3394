import PacketIO

/// What a worker does about packets that are another's, and about those that others hand to it.
extension WorkerLoop {
  // MARK: Giving away

  /// Takes packets of flows that other workers own out of what was read.
  mutating func steerRead() {
    guard let steering else { return }
    var kept = 0
    for index in 0..<tunBatch.count {
      let superpacket = tunBatch[index]
      let bytes = superpacket.bytes(in: io.pool)
      if let packet = InnerPacket(bytes) {
        let owner = steering.owner(packet, bytes)
        if owner != number {
          if !post(WorkerExchange.Kind.outbound, superpacket, to: owner) {
            outbound.refuse(superpacket, .handOverFull, pool: io.pool)
          }
          io.pool.release(superpacket.buffer)
          continue
        }
      }
      tunBatch[kept] = superpacket
      kept += 1
    }
    while tunBatch.count > kept { _ = tunBatch.popLast() }
  }

  /// Gives worker 0 what it is to seal.
  mutating func handJudged() {
    for index in 0..<outbound.elsewhere.count {
      let superpacket = outbound.elsewhere[index]
      if !post(WorkerExchange.Kind.judged, superpacket, to: 0) {
        outbound.refuse(superpacket, .handOverFull, pool: io.pool)
      }
      io.pool.release(superpacket.buffer)
    }
    outbound.elsewhere.removeAll()
  }

  /// Gives opened packets to the owners of their flows.
  mutating func handOpened() {
    for index in 0..<inbound.foreign.count {
      let packet = inbound.foreign[index]
      let superpacket = Superpacket(
        buffer: packet.buffer, offset: Int(packet.offset), length: Int(packet.length), segmentSize: Int(packet.length))
      if !post(WorkerExchange.Kind.opened, superpacket, to: Int(packet.owner), peer: packet.peer) {
        inbound.counters.drop(.handOverFull)
      }
      io.pool.release(packet.buffer)
    }
    inbound.foreign.removeAll()
  }

  /// Sorts sealed packets that came by this worker's sockets: runs of those whose association is here go to `mine`.
  /// Receive offload may have made one train of several workers' packets, and a stream carries them all.
  mutating func sortReceived() {
    for index in 0..<received.count {
      let train = received[index]
      let bytes = train.bytes(in: io.pool)
      let size = max(Int(train.segmentSize), 1)
      let step = size + Int(train.gap)
      var start = 0
      while start < bytes.count {
        let holder = holder(of: bytes, at: start)
        var end = start + step
        while end < bytes.count, self.holder(of: bytes, at: end) == holder { end += step }
        var run = train
        run.offset += Int32(start)
        run.length = Int32(min(end - Int(train.gap), bytes.count) - start)
        start = end
        if holder != number {
          if !post(WorkerExchange.Kind.sealed, run, to: holder) {
            inbound.refuse(packets: run.datagrams, bytes: Int(run.length), .handOverFull)
          }
          continue
        }
        io.pool.retain(train.buffer)
        mine.append(run)
        if mine.isFull {
          swap(&received, &mine)
          openReceived()
          swap(&received, &mine)
        }
      }
      io.pool.release(train.buffer)
    }
    received.removeAll()
    swap(&received, &mine)
  }

  private func holder(of bytes: PacketBytes, at offset: Int) -> Int {
    bytes.count - offset >= 4 ? Int(bytes.load32(offset)) & (workers - 1) : number
  }

  /// False when the way there is full.
  mutating func post(
    _ kind: UInt8, _ superpacket: Superpacket, to worker: Int, peer: Int32 = -1, detail: UInt8 = 0,
    isMarked: Bool = false
  ) -> Bool {
    post(kind, superpacket, superpacket.bytes(in: io.pool), to: worker, peer: peer, detail: detail, isMarked: isMarked)
  }

  private mutating func post(
    _ kind: UInt8, _ superpacket: Superpacket, _ bytes: PacketBytes, to worker: Int, peer: Int32 = -1,
    detail: UInt8 = 0, isMarked: Bool = false
  ) -> Bool {
    let letter = Letter(
      kind: kind, detail: detail, isMarked: isMarked, peer: peer, version: tables.peerListVersion,
      superpacket: superpacket)
    guard exchange?.box(from: number, to: worker)?.post(letter, bytes) == true else { return false }
    unannounced |= 1 << worker
    handedOver &+= 1
    return true
  }

  /// Wakes the workers that were posted something: by a message of the ring, else by their descriptor.
  mutating func announce() {
    guard unannounced != 0, let exchange else { return }
    for worker in 0..<workers where unannounced & 1 << worker != 0 && exchange.claimNotice(from: number, to: worker) {
      let ring = exchange.ring(of: worker)
      if ring >= 0, io.ring.features.contains(.messages) {
        io.ring.send(
          Token(owner: WorkerLoop.owner, kind: OwnKind.notice), to: ring,
          token: Token(owner: WorkerLoop.owner, kind: OwnKind.noticeSent, value: worker))
      } else {
        exchange.workers[worker].wake()
      }
    }
    unannounced = 0
  }

  // MARK: Taking

  /// Whether letters wait.
  var hasLetters: Bool {
    guard let exchange else { return false }
    return (0..<workers).contains { exchange.box(from: $0, to: number)?.isEmpty == false }
  }

  /// Takes what others have handed to this worker, each one's in order.
  mutating func takeLetters() {
    guard let exchange else { return }
    for sender in 0..<workers {
      guard let box = exchange.box(from: sender, to: number) else { continue }
      exchange.clearNotice(from: sender, to: number)
      guard !box.isEmpty else { continue }
      var taken = 0
      // Only what fits the box once, so that a busy sender does not keep this worker from its own packets.
      while taken < WorkerLoop.lettersPerTurn, box.take({ take($0, $1) }) { taken += 1 }
      if taken == WorkerLoop.lettersPerTurn, !box.isEmpty { hasMoreLetters = true }
    }
    flushLetters()
  }

  private mutating func take(_ letter: Letter, _ bytes: PacketBytes) {
    if letter.kind != lastLetterKind { flushLetters() }
    lastLetterKind = letter.kind
    switch letter.kind {
    case WorkerExchange.Kind.outbound:
      if forwardsFragment(letter, bytes) { return }
      guard let packet = copy(letter, bytes) else { return outbound.refuse(letter.superpacket, bytes, .noBuffer) }
      handed.append(packet)
      if handed.isFull { flushLetters() }
    case WorkerExchange.Kind.judged:
      guard let packet = copy(letter, bytes) else { return outbound.refuse(letter.superpacket, bytes, .noBuffer) }
      handed.append(packet)
      if handed.isFull { flushLetters() }
    case WorkerExchange.Kind.opened:
      guard letter.version == tables.peerListVersion else { return inbound.counters.drop(.unknownSPI) }
      if forwardsFragment(letter, bytes) { return }
      takeOpened(letter, bytes)
    case WorkerExchange.Kind.sealed:
      guard let packet = copy(letter, bytes) else {
        return inbound.refuse(packets: letter.superpacket.datagrams, bytes: bytes.count, .noBuffer)
      }
      received.append(packet)
      guard received.count >= WorkerLoop.batchCapacity else { return }
      runInbound()
      // Each letter has a buffer of its own; without this, a full box would take them all.
      emptyWrites()
    case WorkerExchange.Kind.control where letter.version == tables.peerListVersion:
      takeControl(
        letter.detail, bytes, from: Int(letter.peer), path: letter.superpacket.path, isNewest: letter.isMarked)
    case WorkerExchange.Kind.answer where letter.version == tables.peerListVersion:
      takeAnswer(from: Int(letter.peer))
    default: break
    }
  }

  /// With worker 0: gives a fragment to the owner of its datagram's flow. True when that is another worker.
  private mutating func forwardsFragment(_ letter: Letter, _ bytes: PacketBytes) -> Bool {
    guard number == 0, let steering, let packet = InnerPacket(bytes), packet.isFragment else { return false }
    let translation = letter.peer >= 0 ? tables.peers[Int(letter.peer)].translation : nil
    let owner = steering.owner(packet, bytes, translation)
    guard owner != 0 else { return false }
    if !post(letter.kind, letter.superpacket, bytes, to: owner, peer: letter.peer) {
      if letter.kind == WorkerExchange.Kind.outbound {
        outbound.refuse(letter.superpacket, bytes, .handOverFull)
      } else {
        inbound.counters.drop(.handOverFull)
      }
    }
    return true
  }

  private func copy(_ letter: Letter, _ bytes: PacketBytes) -> Superpacket? {
    guard let buffer = io.pool.take() else { return nil }
    var superpacket = letter.superpacket
    superpacket.buffer = buffer
    superpacket.offset = Int32(BufferPool.headroom)
    superpacket.length = Int32(bytes.count)
    superpacket.bytes(in: io.pool).copy(bytes, to: 0)
    return superpacket
  }

  /// Copies opened packets behind each other into one buffer, with room in front of each for the device's header, and
  /// behind each for a name that becomes longer.
  private mutating func takeOpened(_ letter: Letter, _ bytes: PacketBytes) {
    let front = BufferPool.headroom
    let room = front + bytes.count + WorkerLoop.openedTail
    if openedBuffer == nil || openedEnd + room > BufferPool.bufferSize || inbound.coalescer.room == 0 {
      flushLetters()
      openedBuffer = io.pool.take()
      openedEnd = 0
    }
    guard let buffer = openedBuffer else { return inbound.counters.drop(.noBuffer) }
    io.pool.bytes(buffer).slice(openedEnd + front, bytes.count).copy(bytes, to: 0)
    inbound.acceptOpened(
      buffer: buffer, offset: openedEnd + front, length: bytes.count + WorkerLoop.openedTail, peer: letter.peer,
      tables: tables, pool: io.pool)
    openedEnd += (room + 63) & ~63
  }

  /// Runs what was taken through the pipelines.
  mutating func flushLetters() {
    if !handed.isEmpty {
      let isJudged = lastLetterKind == WorkerExchange.Kind.judged
      if let tap, !isJudged { tap.reference.value.addRead(handed, tables: tables, pool: io.pool) }
      outbound.run(&handed, isJudged: isJudged, tables: tables, pool: io.pool, now: io.now, trains: &trains)
      finishOutbound()
    }
    if let buffer = openedBuffer {
      openedBuffer = nil
      inbound.finishAccepted(tables: tables, pool: io.pool, now: io.now)
      if let tap { tap.reference.value.addDeliveries(inbound.coalescer, pool: io.pool) }
      emptyWrites()
      queue.send(&inbound.coalescer, io: &io)
      emptyWrites()
      io.pool.release(buffer)
    }
  }
}
