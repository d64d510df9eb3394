package import PacketIO

/// From sealed datagrams to packets for the TUN device.
///
/// For each datagram of each train:
/// 1. `run` cuts the train into datagrams.
/// 2. `find`: the association by SPI; length checks.
/// 3. `open`: replay pre-check, decryption in place, replay commit, padding (RFC 4303 §3.4, in this order).
/// 4. `learn`: what an authenticated packet tells of its sender: that it lives, and where.
/// 5. `admit`: the inner packet is whole, and its source is the peer's that sealed it; congestion marks come in,
///    segment sizes of TCP handshakes go down to what the path takes. Control messages leave here.
/// 6. `rewriteNames`: a DNS message of a peer whose prefixes clash with ours names hosts as they are known here.
///    An ESP packet may bring several inner packets, or fragments (`receiveAggregate`): each goes through 5 to 7.
/// 7. The coalescer merges packets of one flow; deliveries are in the order in which they began.
///
/// For each delivery:
/// 8. `translate`: addresses by which such a peer knows this side's hosts become their own.
/// 9. `judge`: may it pass the firewall, a superpacket as one.
package struct InboundPipeline: ~Copyable {
  /// Where an opened datagram came from.
  struct Origin: BitwiseCopyable {
    let entry: Snapshot.AssociationEntry
    let row: StateReference<PeerRows.Row>
    let train: Superpacket
    /// Where in the train's buffer it begins.
    let offset: Int
    /// No later packet of its association had come before.
    let isNewest: Bool

    @inline(__always) var peer: Snapshot.PeerEntry { row.value.entry }
  }

  package var counters = PipelineCounters()
  /// Nil while there is nothing to judge.
  package var firewall: StateReference<Firewall>?
  /// Nil while nobody captures; told of drops.
  var tap: StateReference<CaptureTap>?
  /// Control messages taken; they are among the arrived packets.
  package private(set) var controlReceived: UInt64 = 0
  /// Control messages that wait for the node, each with a reference on its buffer.
  package var controls: FixedArray<ControlArrival>
  /// Whose they are, of those since the last tick.
  var controlShares = Shares(.controlMessages, capacity: 4096, most: InboundPipeline.controlsPerPeer)
  package var coalescer: Coalescer
  package internal(set) var aggregation = AggregationCount()
  /// Fragments of inner packets that came in several ESP packets.
  var fragments = FragmentWindow()
  var spread = SpreadPackets()
  /// Where in the next batch's first train to go on: at the first datagram that found too little room.
  private var resumeOffset = 0
  /// Nil while each packet is this worker's own, as where there is one.
  var steering: FlowSteering?
  /// Opened packets of flows that other workers own, each with a reference on its buffer.
  var foreign: FixedArray<ForeignPacket>
  private var moved = MovedPeers()
  var numbers = InboundNumbers()

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
  /// Control messages of one peer that are looked into between two ticks: eight paths that are asked ten times a second
  /// and ask as often need 16.
  static let controlsPerPeer = 48

  /// - Parameter capacity: packets that can wait for delivery, `trainSegments` or more.
  package init(capacity: Int, offloads: TunOffloads) {
    precondition(capacity >= InboundPipeline.trainSegments)
    coalescer = Coalescer(capacity: capacity, offloads: offloads)
    flows = FixedArray(capacity: capacity)
    controls = FixedArray(capacity: 256)
    foreign = FixedArray(capacity: capacity)
  }

  // MARK: 1. Run

  /// Opens the trains of `batch` from `start` on and collects deliveries in the coalescer; releases the trains'
  /// buffers. Returns where to go on once the deliveries were sent, `batch.count` when all is done.
  package mutating func run(
    _ batch: borrowing PacketBatch, from start: Int, _ turn: Turn
  ) -> Int {
    lastSourcePeer = -1
    if !fragments.isEmpty { expireFragments(turn) }
    var index = start
    let looksAhead = InboundLookahead.isWorth(batch, turn.tables)
    let fetchesFlows = firewall?.value.isLarge ?? false
    trains: while index < batch.count {
      if looksAhead { lookahead.advance(to: index, from: start, batch, turn.tables, turn.pool) }
      let train = batch[index]
      let size = max(Int(train.segmentSize), 1)
      guard hasRoom(for: (Int(train.length) &+ size &- 1) / size) else { break }
      heard = -1
      var segments = train.segments(from: resumeOffset)
      resumeOffset = 0
      while let segment = segments.next() {
        if turn.tables.aggregates, !hasRoom(for: segment.length / AggregatePayload.leastBlock) {
          resumeOffset = segment.start
          break trains
        }
        receive(train, at: Int(train.offset) &+ segment.start, length: segment.length, turn)
      }
      turn.pool.release(train.buffer)
      if fetchesFlows, !turn.tables.translates { anticipateFlows(turn.pool) }
      index &+= 1
    }
    numbers.noteOpened(next: nil)
    finish(turn)
    return index
  }

  /// Whether so many packets find room among the deliveries, if anything does.
  @inline(__always)
  func hasRoom(for packets: Int) -> Bool {
    coalescer.room &- foreign.count >= packets || coalescer.deliveries.isEmpty && foreign.isEmpty
  }

  /// One datagram, through steps 2 to 7.
  @inline(__always)
  private mutating func receive(_ train: Superpacket, at offset: Int, length: Int, _ turn: Turn) {
    let datagram = turn.pool.bytes(train.buffer).slice(offset, length)
    counters.arrived.add(packets: 1, bytes: length)
    switch find(datagram, turn.tables) {
    case .dropped(let reason): drop(reason, train, offset)
    case .found(let entry):
      let newest = entry.state.value.window.highest
      switch open(datagram, entry, turn.pool) {
      case .dropped(let reason): drop(reason, train, offset)
      case .opened(let front, let innerLength, let nextHeader, let sequence):
        let origin = Origin(
          entry: entry, row: turn.tables.peers.reference(Int(entry.peer)), train: train, offset: offset,
          isNewest: sequence > newest)
        if nextHeader == ESPPacket.aggregate, origin.peer.aggregates {
          if origin.isNewest { learn(origin.peer.state, entry.peer, train, turn) }
          return receiveAggregate(datagram, front: front, length: innerLength, sequence: sequence, origin, turn)
        }
        take(datagram, front: front, length: innerLength, nextHeader, origin, turn)
      }
    }
  }

  /// What one datagram has brought, through steps 4 to 7.
  @inline(__always)
  private mutating func take(
    _ datagram: PacketBytes, front: Int, length: Int, _ nextHeader: UInt8, _ origin: Origin, _ turn: Turn
  ) {
    let (row, train) = (origin.entry.peer, origin.train)
    let inner = datagram.slice(front, length)
    switch admit(inner, nextHeader, row, train.trafficClass, turn.tables) {
    case .dropped(let reason):
      if origin.isNewest { learn(origin.peer.state, row, train, turn) }
      drop(reason, train, origin.offset)
      tap?.value.addOpened(inner, reason, peer: row)
    case .control(let type, let body):
      keep(type, at: origin.offset &+ front &+ ControlMessage.headerLength, length: body.count, origin, turn)
    case .admitted(let packet):
      if origin.isNewest { learn(origin.peer.state, row, train, turn) }
      guard coalescer.room > 0 else { return drop(.noBuffer, train, origin.offset) }
      origin.peer.state.value.received.add(packets: 1, bytes: packet.length)
      origin.entry.state.value.packets &+= 1
      origin.entry.state.value.bytes &+= UInt64(truncatingIfNeeded: packet.length)
      let start = origin.offset &+ front
      if steering != nil,
        let isGiven = giveAway(packet, inner, buffer: train.buffer, at: start, origin, turn.pool)
      {
        if !isGiven { drop(.handOverFull, train, origin.offset) }
        return
      }
      accept(
        packet, datagram.dropFirst(front), buffer: train.buffer, offset: start, row, origin.peer, turn.pool)
    }
  }

  // MARK: 2. Find

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

  // MARK: 3. Open

  private enum Opened {
    /// Where the inner packet begins, its bytes, what it is, and its full sequence number.
    case opened(front: Int, length: Int, nextHeader: UInt8, sequence: UInt64)
    case dropped(DropReason)
  }

  @inline(__always)
  private mutating func open(
    _ datagram: PacketBytes, _ entry: Snapshot.AssociationEntry, _ pool: BufferPool
  ) -> Opened {
    let association = entry.state
    var sequence = association.value.window.infer(datagram.load32(4))
    if association.value.isSearching { sequence = numbers.search(datagram, inferred: sequence, entry, pool) }
    guard association.value.window.mayAccept(sequence) else {
      association.value.drops.replayed &+= 1
      association.value.noteRefusal()
      return .dropped(.replayed)
    }
    let front = association.value.frontLength
    let iv = association.value.implicitIV ? sequence : datagram.load64(ESPPacket.headerLength)
    let data = AdditionalData(
      spi: datagram.load32(0), sequence: sequence, extended: association.value.extended)
    guard association.value.aead.open(iv: iv, data, inPlace: datagram.dropFirst(front)) else {
      association.value.drops.authenticationFailed &+= 1
      association.value.noteRefusal()
      return .dropped(.authenticationFailed)
    }
    guard association.value.window.commit(sequence) else {
      association.value.drops.replayed &+= 1
      return .dropped(.replayed)
    }
    numbers.note(entry)
    let trailer = datagram.count &- ESPPacket.icvLength &- ESPPacket.trailerLength
    let padding = Int(datagram[trailer])
    let length = trailer &- front &- padding
    guard length >= 0 else { return .dropped(.badPadding) }
    for i in 0..<padding where datagram[front &+ length &+ i] != UInt8(truncatingIfNeeded: i &+ 1) {
      return .dropped(.badPadding)
    }
    return .opened(front: front, length: length, nextHeader: datagram[trailer &+ 1], sequence: sequence)
  }

  // MARK: 4. Learn

  /// Only the newest packet of an association moves a path, so that an old one delivered late, or replayed from
  /// elsewhere, does not (as RFC 7296 §2.23 has it for peers behind address translators). The node hears of it, and the
  /// peer's path selection decides.
  @inline(__always)
  private mutating func learn(_ peer: StateReference<Peer>, _ index: Int32, _ train: Superpacket, _ turn: Turn) {
    guard heard != index else { return }
    heard = index
    if peer.value.lastHeard != turn.now {
      peer.value.lastHeard = turn.now
      turn.tables.busy.insert(Int(index))
    }
    guard peer.value.path != train.path else {
      peer.value.lastHeardHere = turn.now
      if peer.value.hasCredit { peer.value.hearHere() }
      return
    }
    moved.note(peer, index, train, now: turn.now)
  }

  /// Peers that were heard elsewhere since the last call, each once.
  package mutating func takeMoved(_ tables: Snapshot) -> [Int] { moved.take(tables) }

  // MARK: 5. Admit

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
      guard tables.mayReceive(from: known, of: Int(peer)) else { return .dropped(.spoofedSource) }
      lastSource = source
      lastSourcePeer = peer
    }
    if Congestion.matters(trafficClass), !Congestion.decapsulate(trafficClass, inner, isV4: packet.isV4) {
      return .dropped(.congestionExperienced)
    }
    if SegmentSizeClamp.concerns(packet, inner), let implicitIV = tables.peers[Int(peer)].implicitIV {
      let limit = tables.peers[Int(peer)].state.value.largestTrial(implicitIV: implicitIV)
      SegmentSizeClamp.apply(packet, inner, limit: limit, hasPartialChecksum: false)
    }
    return .admitted(packet)
  }

  /// Has a control message wait for the node.
  @inline(never)
  private mutating func keep(_ type: UInt8, at offset: Int, length: Int, _ origin: Origin, _ turn: Turn) {
    let (state, row, train) = (origin.peer.state, origin.entry.peer, origin.train)
    guard controlShares.take(for: Holder(row: row)) else { return counters.drop(.controlLimit) }
    if origin.isNewest {
      if type < ControlMessage.Kind.firstOfNegotiation {
        // Probes go by every path. The node looks into them.
        state.value.lastHeard = turn.now
        turn.tables.busy.insert(Int(row))
        if state.value.path == train.path { state.value.lastHeardHere = turn.now }
      } else {
        learn(state, row, train, turn)
      }
    }
    let arrival = ControlArrival(
      peer: row, type: type, buffer: train.buffer, offset: Int32(truncatingIfNeeded: offset),
      length: Int32(truncatingIfNeeded: length), path: train.path, isNewest: origin.isNewest)
    guard controls.tryAppend(arrival) else { return counters.drop(.noBuffer) }
    turn.pool.retain(train.buffer)
    controlReceived &+= 1
  }

  // MARK: 6. Accept

  /// Puts a packet whose flow another worker owns among those to be handed off; nil when it is this worker's own, false
  /// when there is no room.
  @inline(never)
  mutating func giveAway(
    _ packet: InnerPacket, _ bytes: PacketBytes, buffer: BufferID, at offset: Int, _ origin: Origin, _ pool: BufferPool
  ) -> Bool? {
    guard let steering, case let owner = steering.owner(packet, bytes, origin.peer.translation),
      owner != steering.worker
    else { return nil }
    let packet = ForeignPacket(
      owner: Int32(truncatingIfNeeded: owner), peer: origin.entry.peer, buffer: buffer,
      offset: Int32(truncatingIfNeeded: offset), length: Int32(truncatingIfNeeded: packet.length))
    guard foreign.tryAppend(packet) else { return false }
    pool.retain(buffer)
    return true
  }

  /// Puts an opened packet among those to be delivered; there is room.
  /// - Parameter bytes: from where it begins to the end of what may be written.
  @inline(__always)
  private mutating func accept(
    _ packet: InnerPacket, _ bytes: PacketBytes, buffer: BufferID, offset: Int, _ row: Int32,
    _ peer: Snapshot.PeerEntry, _ pool: BufferPool
  ) {
    var delivered = packet
    if let translation = peer.translation, packet.transport == IPProtocol.udp {
      delivered = rewriteNames(bytes, packet, translation, peer.state)
    }
    coalescer.add(delivered, buffer: buffer, offset: offset, peer: row, pool: pool)
  }

  /// Takes a packet that another worker has opened; it lies at `offset` of a buffer, which has room in front of it.
  /// `finish` is to follow.
  mutating func acceptOpened(buffer: BufferID, offset: Int, length: Int, peer row: Int32, _ turn: Turn) {
    let bytes = turn.pool.bytes(buffer).slice(offset, length)
    guard let packet = InnerPacket(bytes) else { return counters.drop(.malformedInnerPacket) }
    guard coalescer.room > 0 else { return counters.drop(.noBuffer) }
    accept(packet, bytes, buffer: buffer, offset: offset, row, turn.tables.peers[Int(row)], turn.pool)
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

  // MARK: 8. and 9. Translate and judge

  /// Translates, judges and completes what is to be delivered.
  mutating func finish(_ turn: Turn) {
    if turn.tables.translates { translate(turn) }
    if let firewall {
      if firewall.value.isLarge { anticipateFlows(turn.pool) }
      judge(firewall, turn)
    }
    flows.removeAll()
    coalescer.finish(pool: turn.pool)
    spread.finish(pool: turn.pool)
  }

  /// Before the coalescer writes the headers of superpackets, so that what it writes follows. Merged packets have their
  /// headers in the first.
  private mutating func translate(_ turn: Turn) {
    for index in 0..<coalescer.deliveries.count {
      let delivery = coalescer.deliveries[index]
      let peer = turn.tables.peers[Int(delivery.peer)]
      guard let translation = peer.translation else { continue }
      let head = coalescer.head(delivery, turn.pool)
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
  private mutating func judge(_ firewall: StateReference<Firewall>, _ turn: Turn) {
    var isAnyRefused = false
    for index in 0..<min(Lookahead.distance, flows.count) { fetchFlow(index, firewall) }
    for index in 0..<coalescer.deliveries.count {
      fetchFlow(index &+ Lookahead.distance, firewall)
      let delivery = coalescer.deliveries[index]
      let bytes = coalescer.head(delivery, turn.pool)
      let reason =
        if let packet = InnerPacket(bytes) {
          firewall.value.judge(
            packet, bytes, length: Int(delivery.length), packets: Int(delivery.packets), octets: Int(delivery.length),
            direction: .inbound, flow: index < flows.count ? flows[index] : nil, now: turn.now
          ).refusal
        } else {
          DropReason?.some(.malformedInnerPacket)
        }
      guard let reason else { continue }
      counters.drop(reason, packets: Int(delivery.packets))
      tap?.value.addDelivery(delivery, coalescer, reason, pool: turn.pool)
      coalescer.discard(index, pool: turn.pool)
      isAnyRefused = true
    }
    if isAnyRefused { coalescer.removeDiscarded() }
  }

  // MARK: Drops

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
}
