package import PacketIO

/// From sealed datagrams to packets for the TUN device.
///
/// For each datagram of each train:
/// 1. `run` cuts the train into datagrams.
/// 2. `find`: the association by SPI; length checks.
/// 3. `open`: replay pre-check, decryption in place, replay commit, padding (RFC 4303 §3.4, in this order).
/// 4. `learn`: what an authenticated packet tells of its sender: that it lives, and where.
/// 5. `admit`: the inner packet is whole, and its source routes back to the peer that sealed it; congestion marks
///    come in, segment sizes of TCP handshakes go down to what the path takes. Control messages leave here.
/// 6. `rewriteNames`: a DNS message of a peer whose prefixes clash with ours names hosts as they are known here.
///    An ESP packet may bring several inner packets, or fragments (`receiveAggregate`): each goes through 5 to 7.
/// 7. The coalescer merges packets of one flow; deliveries are in the order in which they began.
///
/// For each delivery:
/// 8. `translate`: addresses by which such a peer knows this side's hosts become their own.
/// 9. `judge`: may it pass the firewall, a superpacket as one.
package struct InboundPipeline: ~Copyable {
  package var counters = PipelineCounters()
  /// Nil while there is nothing to judge.
  package var firewall: StateReference<Firewall>?
  /// Nil while nobody captures; told of drops.
  var tap: StateReference<CaptureTap>?
  /// Control messages taken; they are among the arrived packets.
  package private(set) var controlReceived: UInt64 = 0
  /// Control messages that wait for the worker, each with a reference on its buffer.
  package var controls: FixedArray<ControlArrival>
  package var coalescer: Coalescer
  package internal(set) var aggregation = AggregationCount()
  /// Fragments of inner packets that came in several ESP packets.
  var fragments = FragmentWindow()
  var spread = SpreadPackets()
  /// Where in the next batch's first train to go on: at the first datagram that found too little room.
  private var resumeOffset = 0
  /// Another worker looks after the paths: where a peer was heard is for it to judge.
  var reportsPaths = false
  /// Nil while each packet is this worker's own, as where there is one.
  var steering: FlowSteering?
  /// Opened packets of flows that other workers own, each with a reference on its buffer.
  var foreign: FixedArray<ForeignPacket>
  /// Peers whose path moved, as far as they find room here; the mark at each peer tells for sure.
  private var moved: FixedArray<Int32>

  /// The last admitted source, as it stands in the packet, so that a train of one flow is looked up once.
  private var lastSource = IPAddress(v4: 0)
  private var lastSourcePeer: Int32 = -1
  /// The peer of whom this train has told already that it lives, and where.
  private var heard: Int32 = -1

  private var lookahead = InboundLookahead()
  /// The flows of the deliveries, while the firewall's table is large.
  private var flows: FixedArray<Firewall.AnticipatedFlow?>

  /// Datagrams of a train at most.
  package static let trainSegments = 128

  /// - Parameter capacity: packets that can wait for delivery, `trainSegments` or more.
  package init(capacity: Int, offloads: TunOffloads) {
    precondition(capacity >= InboundPipeline.trainSegments)
    coalescer = Coalescer(capacity: capacity, offloads: offloads)
    flows = FixedArray(capacity: capacity)
    moved = FixedArray(capacity: 256)
    controls = FixedArray(capacity: 64)
    foreign = FixedArray(capacity: capacity)
  }

  /// Opens the trains of `batch` from `start` on and collects deliveries in the coalescer; releases the trains'
  /// buffers. Returns where to go on once the deliveries were sent, `batch.count` when all is done.
  package mutating func run(
    _ batch: borrowing PacketBatch, from start: Int, tables: Snapshot, pool: BufferPool, now: MonotonicTime
  ) -> Int {
    lastSourcePeer = -1
    if !fragments.isEmpty { expireFragments(pool: pool, now: now) }
    var index = start
    let looksAhead = InboundLookahead.isWorth(batch, tables)
    let fetchesFlows = firewall?.value.isLarge ?? false
    trains: while index < batch.count {
      if looksAhead { lookahead.advance(to: index, from: start, batch, tables, pool) }
      let train = batch[index]
      let size = max(Int(train.segmentSize), 1)
      let gap = Int(train.gap)
      let length = Int(train.length)
      guard
        coalescer.room &- foreign.count >= (length &+ size &- 1) / size
          || coalescer.deliveries.isEmpty && foreign.isEmpty
      else { break }
      heard = -1
      var offset = resumeOffset
      resumeOffset = 0
      while offset < length {
        let datagram = min(size, length &- offset)
        if tables.aggregates, !hasRoom(forBlocksOf: datagram) {
          resumeOffset = offset
          break trains
        }
        receive(train, at: Int(train.offset) &+ offset, length: datagram, tables: tables, pool: pool, now: now)
        offset &+= datagram &+ gap
      }
      pool.release(train.buffer)
      if fetchesFlows, !tables.translates { anticipateFlows(pool) }
      index &+= 1
    }
    finish(tables, pool: pool, now: now)
    return index
  }

  @inline(__always)
  private mutating func receive(
    _ train: Superpacket, at offset: Int, length: Int, tables: Snapshot, pool: BufferPool, now: MonotonicTime
  ) {
    let datagram = pool.bytes(train.buffer).slice(offset, length)
    counters.arrived.add(packets: 1, bytes: length)
    switch find(datagram, tables) {
    case .dropped(let reason): drop(reason, train, offset)
    case .found(let entry):
      let newest = entry.state.value.window.highest
      switch open(datagram, entry.state) {
      case .dropped(let reason): drop(reason, train, offset)
      case .opened(let front, let innerLength, let nextHeader, let sequence):
        let peer = tables.peers[Int(entry.peer)].state
        let isNewest = sequence > newest
        let inner = datagram.slice(front, innerLength)
        if nextHeader == ESPPacket.aggregate, tables.peers[Int(entry.peer)].aggregates {
          if isNewest { learn(peer, entry.peer, train.path, now: now) }
          return receiveAggregate(
            datagram, front: front, length: innerLength, at: offset, sequence: sequence, train, entry, tables: tables,
            pool: pool, now: now)
        }
        switch admit(inner, nextHeader, entry.peer, train.trafficClass, tables) {
        case .dropped(let reason):
          if isNewest { learn(peer, entry.peer, train.path, now: now) }
          drop(reason, train, offset)
          tap?.value.addOpened(inner, reason, peer: entry.peer)
        case .control(let type, let body):
          keep(
            type, isNewest: isNewest, offset: offset &+ front &+ ControlMessage.headerLength, length: body.count,
            entry.peer, train, tables, pool, now: now)
        case .admitted(let packet):
          if isNewest { learn(peer, entry.peer, train.path, now: now) }
          guard coalescer.room > 0 else { return drop(.noBuffer, train, offset) }
          peer.value.received.add(packets: 1, bytes: packet.length)
          entry.state.value.packets &+= 1
          entry.state.value.bytes &+= UInt64(truncatingIfNeeded: packet.length)
          if steering != nil,
            giveAway(packet, inner, offset: offset &+ front, entry.peer, train, at: offset, tables, pool)
          {
            return
          }
          accept(
            packet, datagram.dropFirst(front), buffer: train.buffer, offset: offset &+ front, entry.peer, tables, pool)
        }
      }
    }
  }

  /// Puts a packet whose flow another worker owns among those to be handed over; false when it is this worker's own.
  @inline(never)
  private mutating func giveAway(
    _ packet: InnerPacket, _ bytes: PacketBytes, offset: Int, _ peer: Int32, _ train: Superpacket, at datagram: Int,
    _ tables: Snapshot, _ pool: BufferPool
  ) -> Bool {
    guard let steering, case let owner = steering.owner(packet, bytes, tables.peers[Int(peer)].translation),
      owner != steering.worker
    else { return false }
    let packet = ForeignPacket(
      owner: Int32(truncatingIfNeeded: owner), peer: peer, buffer: train.buffer,
      offset: Int32(truncatingIfNeeded: offset), length: Int32(truncatingIfNeeded: packet.length))
    if foreign.append(packet) { pool.retain(packet.buffer) } else { drop(.handOverFull, train, datagram) }
    return true
  }

  /// Puts an opened packet among those to be delivered; there is room.
  /// - Parameter bytes: from where it begins to the end of what may be written.
  @inline(__always)
  private mutating func accept(
    _ packet: InnerPacket, _ bytes: PacketBytes, buffer: BufferID, offset: Int, _ peer: Int32, _ tables: Snapshot,
    _ pool: BufferPool
  ) {
    var delivered = packet
    if let translation = tables.peers[Int(peer)].translation, packet.transport == IPProtocol.udp {
      delivered = rewriteNames(bytes, packet, translation, tables.peers[Int(peer)].state)
    }
    coalescer.add(delivered, buffer: buffer, offset: offset, peer: peer, pool: pool)
  }

  /// Takes a packet that another worker has opened; it lies at `offset` of a buffer, which has room in front of it.
  /// `finish` is to follow.
  mutating func acceptOpened(
    buffer: BufferID, offset: Int, length: Int, peer: Int32, tables: Snapshot, pool: BufferPool
  ) {
    let bytes = pool.bytes(buffer).slice(offset, length)
    guard let packet = InnerPacket(bytes) else { return counters.drop(.malformedInnerPacket) }
    guard coalescer.room > 0 else { return counters.drop(.noBuffer) }
    accept(packet, bytes, buffer: buffer, offset: offset, peer, tables, pool)
  }

  /// Translates, judges and completes what is to be delivered.
  mutating func finish(_ tables: Snapshot, pool: BufferPool, now: MonotonicTime) {
    if tables.translates { translate(tables, pool: pool) }
    if let firewall {
      if firewall.value.isLarge { anticipateFlows(pool) }
      judge(firewall, pool: pool, now: now)
    }
    flows.removeAll()
    coalescer.finish(pool: pool)
    spread.finish(pool: pool)
  }

  /// Counts sealed packets that do not even get here.
  mutating func refuse(packets: Int, bytes: Int, _ reason: DropReason) {
    counters.arrived.add(packets: packets, bytes: bytes)
    counters.drop(reason, packets: packets)
  }

  @inline(never)
  mutating func drop(_ reason: DropReason, _ train: Superpacket, _ offset: Int) {
    counters.drop(reason)
    tap?.value.drop(reason, buffer: train.buffer, offset: offset)
  }

  private enum Found {
    case found(Snapshot.AssociationEntry)
    case dropped(DropReason)
  }

  @inline(__always)
  private func find(_ datagram: PacketBytes, _ tables: Snapshot) -> Found {
    guard datagram.count >= ESPPacket.headerLength else { return .dropped(.truncated) }
    guard let entry = tables.association(datagram.load32(0)) else { return .dropped(.unknownSPI) }
    let sealedPart = datagram.count &- entry.state.value.frontLength &- ESPPacket.icvLength
    guard sealedPart >= ESPPacket.trailerLength, sealedPart & 3 == 0 else { return .dropped(.truncated) }
    return .found(entry)
  }

  private enum Opened {
    /// Where the inner packet begins, its bytes, what it is, and its full sequence number.
    case opened(front: Int, length: Int, nextHeader: UInt8, sequence: UInt64)
    case dropped(DropReason)
  }

  @inline(__always)
  private func open(_ datagram: PacketBytes, _ association: StateReference<InboundAssociation>) -> Opened {
    let sequence = association.value.window.infer(datagram.load32(4))
    guard association.value.window.mayAccept(sequence) else {
      association.value.drops.replayed &+= 1
      return .dropped(.replayed)
    }
    let front = association.value.frontLength
    let iv = association.value.implicitIV ? sequence : datagram.load64(ESPPacket.headerLength)
    let data = AdditionalData(
      spi: datagram.load32(0), sequence: sequence, extended: association.value.extended)
    guard association.value.aead.open(iv: iv, data, inPlace: datagram.dropFirst(front)) else {
      association.value.drops.authenticationFailed &+= 1
      return .dropped(.authenticationFailed)
    }
    guard association.value.window.commit(sequence) else {
      association.value.drops.replayed &+= 1
      return .dropped(.replayed)
    }
    let trailer = datagram.count &- ESPPacket.icvLength &- ESPPacket.trailerLength
    let padding = Int(datagram[trailer])
    let length = trailer &- front &- padding
    guard length >= 0 else { return .dropped(.badPadding) }
    for i in 0..<padding where datagram[front &+ length &+ i] != UInt8(truncatingIfNeeded: i &+ 1) {
      return .dropped(.badPadding)
    }
    return .opened(front: front, length: length, nextHeader: datagram[trailer &+ 1], sequence: sequence)
  }

  enum Admitted {
    case admitted(InnerPacket)
    case control(type: UInt8, body: PacketBytes)
    case dropped(DropReason)
  }

  @inline(__always)
  mutating func admit(
    _ inner: PacketBytes, _ nextHeader: UInt8, _ peer: Int32, _ trafficClass: UInt8, _ tables: Snapshot
  ) -> Admitted {
    guard nextHeader == ESPPacket.ipv4 || nextHeader == ESPPacket.ipv6 else {
      guard nextHeader == ESPPacket.dummy else { return .dropped(.unknownNextHeader) }
      guard let message = ControlMessage.parse(inner) else { return .dropped(.dummyPacket) }
      return .control(type: message.type, body: message.body)
    }
    guard let packet = InnerPacket(inner), packet.isV4 == (nextHeader == ESPPacket.ipv4) else {
      return .dropped(.malformedInnerPacket)
    }
    let source = packet.source(inner)
    if lastSourcePeer != peer || lastSource != source {
      let known = tables.peers[Int(peer)].translation?.value.admittedSource(source) ?? source
      guard let owner = tables.routes.lookup(known), owner == UInt32(bitPattern: peer) else {
        return .dropped(.spoofedSource)
      }
      lastSource = source
      lastSourcePeer = peer
    }
    if Congestion.matters(trafficClass), !Congestion.decapsulate(trafficClass, inner, isV4: packet.isV4) {
      return .dropped(.congestionExperienced)
    }
    if SegmentSizeClamp.concerns(packet, inner), let implicitIV = tables.peers[Int(peer)].implicitIV {
      let limit = tables.peers[Int(peer)].state.value.largestInner(implicitIV: implicitIV)
      SegmentSizeClamp.apply(packet, inner, limit: limit, hasPartialChecksum: false)
    }
    return .admitted(packet)
  }

  /// Has a control message wait for the worker.
  @inline(never)
  private mutating func keep(
    _ type: UInt8, isNewest: Bool, offset: Int, length: Int, _ peer: Int32, _ train: Superpacket, _ tables: Snapshot,
    _ pool: BufferPool, now: MonotonicTime
  ) {
    let state = tables.peers[Int(peer)].state
    if isNewest {
      if type < ControlMessage.Kind.firstOfNegotiation {
        // Probes go by every path. The worker looks into them.
        state.value.lastHeard = now
        if state.value.path == train.path { state.value.lastHeardHere = now }
      } else {
        learn(state, peer, train.path, now: now)
      }
    }
    let arrival = ControlArrival(
      peer: peer, type: type, buffer: train.buffer, offset: Int32(truncatingIfNeeded: offset),
      length: Int32(truncatingIfNeeded: length), path: train.path, isNewest: isNewest)
    guard controls.append(arrival) else { return counters.drop(.noBuffer) }
    pool.retain(train.buffer)
    controlReceived &+= 1
  }

  /// Only the newest packet of an association moves a path, so that an old one delivered late, or replayed from
  /// elsewhere, does not (as RFC 7296 §2.23 has it for peers behind address translators). Where there are several
  /// paths, the worker hears of it and the selection decides.
  @inline(__always)
  private mutating func learn(_ peer: StateReference<Peer>, _ index: Int32, _ path: Path, now: MonotonicTime) {
    guard heard != index else { return }
    heard = index
    peer.value.lastHeard = now
    guard peer.value.path != path else {
      peer.value.lastHeardHere = now
      return
    }
    learnPath(peer, index, path)
  }

  @inline(never)
  private mutating func learnPath(_ peer: StateReference<Peer>, _ index: Int32, _ path: Path) {
    if peer.value.selection == nil, !reportsPaths {
      peer.value.path = path
    } else {
      peer.value.heardBy = path
    }
    guard !peer.value.pathMoved else { return }
    peer.value.pathMoved = true
    moved.append(index)
  }

  /// Peers that were heard elsewhere since the last call, each once.
  package mutating func takeMoved(_ tables: Snapshot) -> [Int] {
    guard !moved.isEmpty else { return [] }
    var peers: [Int] = []
    let count = moved.isFull ? tables.peers.count : moved.count
    for place in 0..<count {
      let peer = moved.isFull ? place : Int(moved[place])
      guard tables.peers[peer].state.value.pathMoved else { continue }
      tables.peers[peer].state.value.pathMoved = false
      peers.append(peer)
    }
    moved.removeAll()
    return peers
  }

  /// - Parameter bytes: the packet, and behind it the trailer and check value that nobody needs any more.
  func rewriteNames(
    _ bytes: PacketBytes, _ packet: InnerPacket, _ translation: StateReference<PrefixTranslation>,
    _ peer: StateReference<Peer>
  ) -> InnerPacket {
    let outcome = translation.value.inbound.rewriteDNS(bytes, packet, port: translation.value.dnsPort)
    peer.value.translated.count(outcome)
    guard case .rewritten(let length) = outcome, length != packet.length else { return packet }
    return InnerPacket(bytes.slice(0, length)) ?? packet
  }

  /// Before the coalescer writes the headers of superpackets, so that what it writes follows. Merged packets have their
  /// headers in the first.
  private mutating func translate(_ tables: Snapshot, pool: BufferPool) {
    for index in 0..<coalescer.deliveries.count {
      let delivery = coalescer.deliveries[index]
      let peer = tables.peers[Int(delivery.peer)]
      guard let translation = peer.translation else { continue }
      let head = coalescer.head(delivery, pool)
      guard let packet = InnerPacket(head) else { continue }
      if translation.value.inbound.translate(head, packet) {
        peer.state.value.translated.received &+= UInt64(truncatingIfNeeded: Int(delivery.packets))
      }
    }
  }

  /// Finds out the flows of deliveries that have begun.
  @inline(never)
  private mutating func anticipateFlows(_ pool: BufferPool) {
    while flows.count < coalescer.deliveries.count {
      let bytes = coalescer.head(coalescer.deliveries[flows.count], pool)
      flows.append(InnerPacket(bytes).flatMap { firewall?.value.anticipate($0, bytes, .inbound) })
    }
  }

  @inline(__always)
  private func fetchFlow(_ index: Int, _ firewall: StateReference<Firewall>) {
    if index < flows.count, let flow = flows[index] { firewall.value.fetch(flow) }
  }

  /// Takes out what the firewall refuses. The headers are still those of each delivery's first packet.
  private mutating func judge(_ firewall: StateReference<Firewall>, pool: BufferPool, now: MonotonicTime) {
    var isAnyRefused = false
    for index in 0..<min(Lookahead.distance, flows.count) { fetchFlow(index, firewall) }
    for index in 0..<coalescer.deliveries.count {
      fetchFlow(index &+ Lookahead.distance, firewall)
      let delivery = coalescer.deliveries[index]
      let bytes = coalescer.head(delivery, pool)
      let reason =
        if let packet = InnerPacket(bytes) {
          firewall.value.judge(
            packet, bytes, length: Int(delivery.length), packets: Int(delivery.packets), octets: Int(delivery.length),
            direction: .inbound, now: now
          ).refusal
        } else {
          DropReason?.some(.malformedInnerPacket)
        }
      guard let reason else { continue }
      counters.drop(reason, packets: Int(delivery.packets))
      tap?.value.addDelivery(delivery, coalescer, reason, pool: pool)
      coalescer.discard(index, pool: pool)
      isAnyRefused = true
    }
    if isAnyRefused { coalescer.removeDiscarded() }
  }
}
