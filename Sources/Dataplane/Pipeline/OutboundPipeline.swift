package import PacketIO

/// From packets of the TUN device to trains of sealed datagrams.
///
/// For each superpacket:
/// 1. `run` parses the inner packet.
/// 2. `route`: which peer has the destination, is there an association and a path.
/// 3. `judge`: is its source this side's, or another peer's; may it pass the firewall.
/// 4. `PathFit.fit`: into how many packets it is cut, so that they fit the path; a sender whose packet does not is told
///    (`tell`), or it goes in fragments (`divide`).
/// 5. `translate`: this side's addresses become those that the peer knows, for peers whose prefixes clash with ours.
/// 6. `claim`: as many sequence numbers as there are packets.
/// 7. `sealSegments`: each packet's header is laid out in the TUN buffer, and the packet goes, encrypted (`seal`), to
///    where UDP will send it from; a full train closes and the remainder begins the next one (`room`).
///    Or `aggregate`: small packets to one peer are gathered, and sealed together.
/// 8. `flush`: at the end of the batch all open trains go to their transports, in the order in which they began.
package struct OutboundPipeline: ~Copyable {
  /// A datagram train that still has room.
  struct OpenTrain: BitwiseCopyable {
    var buffer: BufferID
    var peer: Int32
    var length: Int32
    var segmentSize: Int32
    var count: Int32
    var path: Path
    var trafficClass: UInt8
  }

  /// Where a packet goes: the peer, the association to seal under, the path.
  struct Destination: BitwiseCopyable {
    let row: Int
    let entry: StateReference<PeerRows.Row>
    let association: StateReference<OutboundAssociation>
    let path: Path

    @inline(__always) var peer: Snapshot.PeerEntry { entry.value.entry }

    /// Bytes of the largest inner packet that the path takes.
    @inline(__always)
    var limit: Int { peer.state.value.largestInner(implicitIV: association.value.implicitIV) }
    /// The same of one that cannot be cut.
    @inline(__always)
    var trial: Int { peer.state.value.largestTrial(implicitIV: association.value.implicitIV) }
  }

  package var counters = PipelineCounters()
  /// Nil while there is nothing to judge.
  package var firewall: StateReference<Firewall>?
  /// Nil while nobody captures; told of drops.
  var tap: StateReference<CaptureTap>?
  /// Control messages sealed; they are not among the counted packets.
  package private(set) var controlSent: UInt64 = 0
  private var open: FixedArray<OpenTrain>
  /// Small packets gathered for a peer, at most one such for each superpacket of a batch.
  var aggregates: FixedArray<OpenAggregate>
  package internal(set) var aggregation = AggregationCount()
  /// Somebody takes aggregates, and the batch has several packets.
  private var mayAggregate = false
  var replyLimit = ReplyLimit()
  private let header: PacketBytes
  /// Of datagrams that are fragmented here; far apart, so that they do not meet those of a host that counts.
  private var lastIdentification: UInt32 = 0
  /// IPv6 packets that got a fragment header, to be cut at it. What finds no room here is dropped.
  private var divided = PacketBatch(capacity: 128)
  private var lookahead = OutboundLookahead()
  var held = HeldPackets()
  /// The last source that was admitted, to which peer.
  private var lastSource = IPAddress(v4: 0)
  private var lastRow = -1
  /// Of the packet that is worked on, where the batch looks ahead.
  private var known = OutboundLookahead.Packet()

  /// - Parameters:
  ///   - scratch: `Segmentation.headerCapacity` bytes or more that live as long as the pipeline.
  ///   - batchCapacity: superpackets of a batch at most; each may begin a train of its own.
  package init(scratch: PacketBytes, batchCapacity: Int) {
    open = FixedArray(capacity: batchCapacity)
    aggregates = FixedArray(capacity: batchCapacity)
    header = scratch.slice(0, Segmentation.headerCapacity)
  }

  // MARK: 1. Run

  /// Seals `batch`, and empties it.
  ///
  /// - Parameters:
  ///   - isJudged: another worker's firewall has let them pass.
  ///   - results: its `trains` are to have room for all buffers of the pool.
  package mutating func run(
    _ batch: inout PacketBatch, isJudged: Bool = false, _ turn: Turn, into results: inout OutboundResults
  ) {
    mayAggregate = turn.tables.aggregates && batch.count > 1
    lastRow = -1
    let looksAhead = OutboundLookahead.isWorth(batch, turn.tables, firewall)
    for index in 0..<batch.count {
      if looksAhead {
        lookahead.advance(to: index, batch, turn.tables, firewall, turn.pool)
        known = lookahead.packet(index)
      }
      let superpacket = batch[index]
      let bytes = superpacket.bytes(in: turn.pool)
      if let packet = InnerPacket(bytes) {
        forward(superpacket, bytes.slice(0, packet.length), packet, isJudged: isJudged, turn, &results)
      } else {
        counters.arrived.add(packets: 1, bytes: bytes.count)
        counters.drop(.malformedPacket)
        tap?.value.drop(.malformedPacket, superpacket)
      }
      turn.pool.release(superpacket.buffer)
      if !divided.isEmpty { forwardDivided(turn, &results) }
    }
    batch.removeAll()
    known = OutboundLookahead.Packet()
    if !aggregates.isEmpty { closeAggregates(turn, &results) }
    flush(turn, &results)
  }

  /// One superpacket, through steps 2 to 7.
  @inline(__always)
  private mutating func forward(
    _ superpacket: Superpacket, _ bytes: PacketBytes, _ packet: InnerPacket, isJudged: Bool, _ turn: Turn,
    _ results: inout OutboundResults
  ) {
    switch route(packet, bytes, turn.tables) {
    case .dropped(let reason): drop(reason, superpacket, packet, bytes)
    case .unkeyed(let row):
      _ = results.unkeyed.tryAppend(Int32(truncatingIfNeeded: row))
      if !held.hold(superpacket, packet, bytes, for: row, turn, &counters) {
        drop(.noAssociation, superpacket, packet, bytes)
      }
    case .elsewhere(let row):
      if !isJudged, let reason = judge(superpacket, bytes, packet, to: row, turn) {
        return drop(reason, superpacket, packet, bytes)
      }
      turn.tables.peers[row].state.value.lastSent = turn.now
      turn.tables.busy.insert(row)
      guard results.judged.tryAppend(superpacket) else { return drop(.handOverFull, superpacket, packet, bytes) }
      turn.pool.retain(superpacket.buffer)
    case .found(let destination):
      if !isJudged, let reason = judge(superpacket, bytes, packet, to: destination.row, turn) {
        return drop(reason, superpacket, packet, bytes)
      }
      switch PathFit.fit(superpacket, bytes, packet, limit: destination.limit, trial: destination.trial) {
      case .refused(let reason, let isTold):
        if isTold { tell(packet, bytes, mtu: destination.trial, turn, &results) }
        drop(reason, superpacket, packet, bytes)
      case .tooLargeV6(let segments): divide(bytes, packet, segments, pool: turn.pool)
      case .cut(let segments, let isTold):
        if isTold { tell(packet, bytes, mtu: destination.limit, turn, &results) }
        send(segments, of: superpacket, bytes, packet, to: destination, turn, &results)
      }
    }
  }

  /// One superpacket that fits, through steps 5 to 7.
  @inline(__always)
  private mutating func send(
    _ fitted: Segmentation, of superpacket: Superpacket, _ fittedBytes: PacketBytes, _ packet: InnerPacket,
    to destination: Destination, _ turn: Turn, _ results: inout OutboundResults
  ) {
    var (segments, bytes) = (fitted, fittedBytes)
    if let translation = destination.peer.translation {
      translate(
        superpacket, packet, &segments, &bytes, translation, destination.peer.state, limit: destination.limit,
        pool: turn.pool)
    }
    if mayAggregate, destination.peer.aggregates, destination.peer.state.value.takesAggregates {
      if segments.kind == .whole, OpenAggregate.takes(bytes.count, limit: destination.limit),
        aggregate(bytes, packet, destination, turn, &results)
      {
        return
      }
      closeAggregate(destination.peer, turn, &results)
    }
    sealSegments(segments, of: superpacket, bytes, packet, to: destination, turn, &results)
  }

  // MARK: 2. Route

  enum Routed {
    case found(Destination)
    /// Worker 0 has the association or the path to this peer.
    case elsewhere(Int)
    case dropped(DropReason)
    /// There is no key for the peer.
    case unkeyed(Int)
  }

  @inline(__always)
  func route(_ packet: InnerPacket, _ bytes: PacketBytes, _ tables: Snapshot) -> Routed {
    let row: Int
    if known.peer >= 0 {
      row = Int(known.peer)
    } else {
      guard let found = tables.routes.lookup(packet.destination(bytes)) else { return .dropped(.noRoute) }
      row = Int(found)
    }
    let entry = tables.peers.reference(row)
    let peer = entry.value.entry
    guard let association = peer.outbound, let path = peer.state.value.path else {
      if peer.hasDeputy, peer.implicitIV != nil { return .elsewhere(row) }
      return peer.outbound == nil ? .unkeyed(row) : .dropped(.noPath)
    }
    if let own = peer.own, peer.state.value.usesOwnAssociation {
      return .found(Destination(row: row, entry: entry, association: own, path: path))
    }
    return .found(Destination(row: row, entry: entry, association: association, path: path))
  }

  // MARK: 3. Judge

  /// Why the packet is refused, if it is.
  @inline(__always)
  private mutating func judge(
    _ superpacket: Superpacket, _ bytes: PacketBytes, _ packet: InnerPacket, to row: Int, _ turn: Turn
  ) -> DropReason? {
    let source = packet.source(bytes)
    if lastRow != row || lastSource != source {
      guard turn.tables.maySend(from: source, to: row) else { return .foreignSource }
      lastSource = source
      lastRow = row
    }
    guard let firewall else { return nil }
    return firewall.value.judge(
      packet, bytes, length: packet.length, packets: packetCount(superpacket, packet, bytes), octets: packet.length,
      direction: .outbound, flow: known.flow, now: turn.now
    ).refusal
  }

  /// How many packets a superpacket's sender made it of.
  @inline(__always)
  private func packetCount(_ superpacket: Superpacket, _ packet: InnerPacket, _ bytes: PacketBytes) -> Int {
    let transport = packet.transportOffset
    guard superpacket.offload.segmentation != .none, bytes.count &- transport >= 20 else { return 1 }
    let header = packet.transport == IPProtocol.tcp ? Int(bytes[transport &+ 12] &>> 4) &* 4 : 8
    let size = max(Int(superpacket.segmentSize), 1)
    return max((packet.length &- transport &- header &+ size &- 1) / size, 1)
  }

  // MARK: 4. Fit

  /// Puts a "too big" message for the packet's sender among the replies, unless too many were sent already.
  private mutating func tell(
    _ packet: InnerPacket, _ bytes: PacketBytes, mtu: Int, _ turn: Turn, _ results: inout OutboundResults
  ) {
    let sender = turn.tables.holder(of: packet.source(bytes))
    guard !results.replies.isFull, replyLimit.takeOne(for: sender, now: turn.now), let buffer = turn.pool.take()
    else { return }
    let room = turn.pool.bytes(buffer).slice(BufferPool.headroom, TooBigMessage.capacity)
    let mtu = packet.isV4 ? mtu : max(mtu, InnerPacket.leastMTUv6)
    guard let length = TooBigMessage.write(about: packet, bytes, mtu: mtu, to: room) else {
      turn.pool.release(buffer)
      return
    }
    results.replies.append(
      Superpacket(buffer: buffer, offset: BufferPool.headroom, length: length, segmentSize: length))
  }

  /// Sends IPv6 packets in fragments that the receiving host puts together, where the tunnel has to pass them on and
  /// the path does not take them. RFC 2473 §7.1 would have the outer packet fragmented, which a socket with
  /// segmentation offload cannot do, and which many paths drop.
  @inline(never)
  private mutating func divide(
    _ bytes: PacketBytes, _ packet: InnerPacket, _ segments: Segmentation, pool: BufferPool
  ) {
    if segments.kind != .whole { header.copy(bytes.slice(0, segments.headerLength), to: 0) }
    let sums = segments.sums(header)
    for index in 0..<segments.count {
      segments.layOut(index, in: bytes, header: header, sums: sums)
      let whole = bytes.slice(segments.start(index), segments.length(index))
      lastIdentification &+= 0x9E37_79B1
      guard !divided.isFull,
        let copy = PathFit.addFragmentHeader(whole, packet, identification: lastIdentification, pool: pool)
      else {
        counters.arrived.add(packets: 1, bytes: whole.count)
        counters.drop(.noBuffer)
        continue
      }
      divided.append(copy)
    }
  }

  @inline(never)
  private mutating func forwardDivided(_ turn: Turn, _ results: inout OutboundResults) {
    known = OutboundLookahead.Packet()
    for index in 0..<divided.count {
      let bytes = divided[index].bytes(in: turn.pool)
      if let packet = InnerPacket(bytes) {
        forward(divided[index], bytes, packet, isJudged: true, turn, &results)
      }
      turn.pool.release(divided[index].buffer)
    }
    divided.removeAll()
  }

  // MARK: 5. Translate

  /// Once for all segments. A DNS message that names translated hosts may change its length.
  func translate(
    _ superpacket: Superpacket, _ packet: InnerPacket, _ segments: inout Segmentation, _ bytes: inout PacketBytes,
    _ translation: StateReference<PrefixTranslation>, _ peer: StateReference<Peer>, limit: Int, pool: BufferPool
  ) {
    var packet = packet
    if packet.transport == IPProtocol.udp, segments.kind == .whole {
      let outcome = translation.value.outbound.rewriteDNS(
        pool.bytes(superpacket.buffer).slice(Int(superpacket.offset), max(limit, packet.length)), packet,
        port: translation.value.dnsPort)
      peer.value.translated.count(outcome)
      if case .rewritten(let length) = outcome, length != packet.length {
        bytes = pool.bytes(superpacket.buffer).slice(Int(superpacket.offset), length)
        guard let resized = InnerPacket(bytes) else { return }
        packet = resized
        segments = Segmentation(whole: packet)
      }
    }
    // `fit` has completed the checksum of what is not cut into segments; those get theirs when they are laid out.
    if translation.value.outbound.translate(bytes, packet) {
      peer.value.translated.sent &+= UInt64(truncatingIfNeeded: segments.count)
    }
  }

  // MARK: 6. Claim

  @inline(__always)
  mutating func claim(
    _ count: Int, _ association: StateReference<OutboundAssociation>, row: Int, _ results: inout OutboundResults
  ) -> OutboundAssociation.Claim {
    let result = association.value.claim(count)
    if association.value.takeWarning() { _ = results.exhausted.tryAppend(Int32(truncatingIfNeeded: row)) }
    return result
  }

  // MARK: 7. Seal

  @inline(__always)
  private mutating func sealSegments(
    _ segments: Segmentation, of superpacket: Superpacket, _ bytes: PacketBytes, _ packet: InnerPacket,
    to destination: Destination, _ turn: Turn, _ results: inout OutboundResults
  ) {
    let association = destination.association
    counters.arrived.add(packets: segments.count, bytes: segments.totalLength)
    switch claim(segments.count, association, row: destination.row, &results) {
    case .refused(let reason):
      counters.drop(reason, packets: segments.count)
      tap?.value.drop(reason, superpacket)
    case .granted(let first):
      if segments.kind != .whole { header.copy(bytes.slice(0, segments.headerLength), to: 0) }
      let sums = segments.sums(header)
      let inner = Congestion.trafficClass(bytes, isV4: packet.isV4)
      let trafficClass = Congestion.outer(inner, copyDSCP: association.value.copiesDSCP)
      for segment in 0..<segments.count {
        segments.layOut(segment, in: bytes, header: header, sums: sums)
        let train = room(
          for: ESPPacket.sealedLength(segments.length(segment), implicitIV: association.value.implicitIV),
          to: destination.row, destination.peer, path: destination.path, trafficClass: trafficClass, turn,
          &results)
        guard let train else {
          counters.drop(.noBuffer)
          tap?.value.drop(.noBuffer, superpacket)
          continue
        }
        seal(
          turn.pool.bytes(superpacket.buffer), at: Int(superpacket.offset) &+ segments.start(segment),
          length: segments.length(segment), nextHeader: packet.isV4 ? ESPPacket.ipv4 : ESPPacket.ipv6,
          sequence: first &+ UInt64(truncatingIfNeeded: segment), association, into: train, pool: turn.pool)
        counters.departed.add(packets: 1, bytes: segments.length(segment))
        destination.peer.state.value.sent.add(packets: 1, bytes: segments.length(segment))
      }
      if destination.peer.state.value.lastSent != turn.now {
        destination.peer.state.value.lastSent = turn.now
        turn.tables.busy.insert(destination.row)
      }
    }
  }

  /// The place of the peer's open train that takes one more datagram of `length` bytes; nil without a buffer.
  @inline(__always)
  mutating func room(
    for length: Int, to row: Int, _ peer: Snapshot.PeerEntry, path: Path, trafficClass: UInt8, _ turn: Turn,
    _ results: inout OutboundResults
  ) -> Int? {
    // Nothing, or one of another batch, may have been left there.
    let current = Int(UInt32(bitPattern: peer.state.value.openTrain))
    let isOpen = current < open.count && open[current].peer == Int32(truncatingIfNeeded: row)
    if isOpen {
      let train = open[current]
      // Every datagram but the last has the same size, so a shorter one ends the train.
      if length <= Int(train.segmentSize), Int(train.length) == Int(train.count) &* Int(train.segmentSize),
        Int(train.length) &+ length <= SealedTrain.bytes,
        Int(train.count) < SealedTrain.segments, train.trafficClass == trafficClass
      {
        return current
      }
    }
    guard let buffer = turn.pool.take() else { return nil }
    let train = OpenTrain(
      buffer: buffer, peer: Int32(truncatingIfNeeded: row), length: 0, segmentSize: Int32(truncatingIfNeeded: length),
      count: 0, path: path, trafficClass: trafficClass)
    if isOpen {
      let (full, now) = (open[current], turn.now)
      emit(full, along: peer.state.value.path(for: full.length, usually: full.path, now: now), &results)
      open[current] = train
      return current
    }
    guard open.tryAppend(train) else {
      turn.pool.release(buffer)
      return nil
    }
    peer.state.value.openTrain = Int32(truncatingIfNeeded: open.count &- 1)
    return open.count &- 1
  }

  /// Encrypts `length` bytes at `start` of a buffer into an open train. The trailer lies over the bytes behind them
  /// meanwhile.
  @inline(__always)
  mutating func seal(
    _ buffer: PacketBytes, at start: Int, length: Int, nextHeader: UInt8, sequence: UInt64,
    _ association: StateReference<OutboundAssociation>, into train: Int, pool: BufferPool
  ) {
    let implicitIV = association.value.implicitIV
    let sealedLength = ESPPacket.sealedLength(length, implicitIV: implicitIV)
    let sealed = pool.bytes(open[train].buffer).slice(
      BufferPool.headroom &+ Int(open[train].length), sealedLength)
    sealed.store32(association.value.spi, 0)
    sealed.store32(UInt32(truncatingIfNeeded: sequence), 4)
    if !implicitIV { sealed.store64(sequence, ESPPacket.headerLength) }

    let padding = ESPPacket.padding(for: length)
    let plain = buffer.slice(start, length &+ padding &+ ESPPacket.trailerLength)
    let saved = buffer.load64(start &+ length)
    for i in 0..<padding { plain[length &+ i] = UInt8(truncatingIfNeeded: i &+ 1) }
    plain[length &+ padding] = UInt8(truncatingIfNeeded: padding)
    plain[length &+ padding &+ 1] = nextHeader

    association.value.aead.seal(
      iv: sequence,
      AdditionalData(spi: association.value.spi, sequence: sequence, extended: association.value.extended),
      from: plain,
      to: sealed.dropFirst(ESPPacket.headerLength &+ (implicitIV ? 0 : ESPPacket.ivLength)))
    buffer.store64(saved, start &+ length)

    open[train].length &+= Int32(truncatingIfNeeded: sealedLength)
    open[train].count &+= 1
    association.value.packets &+= 1
    association.value.bytes &+= UInt64(truncatingIfNeeded: length)
  }

  // MARK: 8. Flush

  private mutating func flush(_ turn: Turn, _ results: inout OutboundResults) {
    for index in 0..<open.count {
      let (train, peer) = (open[index], turn.tables.peers[Int(open[index].peer)].state)
      emit(train, along: peer.value.path(for: train.length, usually: train.path, now: turn.now), &results)
    }
    open.removeAll()
  }

  private func emit(_ train: OpenTrain, along path: Path, _ results: inout OutboundResults) {
    results.trains.append(
      Superpacket(
        buffer: train.buffer, offset: BufferPool.headroom, length: Int(train.length),
        segmentSize: Int(train.segmentSize), path: path, trafficClass: train.trafficClass))
  }

  // MARK: Drops

  /// Counts a superpacket that goes no further, as the packets its sender made it of.
  @inline(never)
  private mutating func drop(
    _ reason: DropReason, _ superpacket: Superpacket, _ packet: InnerPacket, _ bytes: PacketBytes
  ) {
    refuse(superpacket, packet, bytes, reason)
    tap?.value.drop(reason, superpacket)
  }

  /// Counts a superpacket that was read or handed off and that goes no further.
  mutating func refuse(_ superpacket: Superpacket, _ bytes: PacketBytes, _ reason: DropReason) {
    refuse(superpacket, InnerPacket(bytes), bytes, reason)
  }

  private mutating func refuse(
    _ superpacket: Superpacket, _ packet: InnerPacket?, _ bytes: PacketBytes, _ reason: DropReason
  ) {
    let segments = packet.flatMap { Segmentation(superpacket, $0, bytes, limit: Int.max) }
    counters.arrived.add(
      packets: segments?.count ?? 1, bytes: segments?.totalLength ?? packet?.length ?? bytes.count)
    counters.drop(reason, packets: segments?.count ?? 1)
  }

  // MARK: Control messages

  /// Seals a control message as a datagram of its own and appends it to the trains. Returns false, and sends nothing,
  /// where there is no association, no path, no number or no buffer: whoever sends one tries again.
  ///
  /// - Parameters:
  ///   - size: bytes the sealed packet shall have, as nearly below as its boundaries allow; 0: as few as it can.
  ///   - underOwn: under the worker's own association rather than the peer's.
  package mutating func sendControl(
    type: UInt8, body: [UInt8], to row: Int, along path: Path? = nil, size: Int = 0, underOwn: Bool = false,
    _ turn: Turn, into results: inout OutboundResults
  ) -> Bool {
    let (peer, pool) = (turn.tables.peers[row], turn.pool)
    guard let association = underOwn ? peer.own ?? peer.outbound : peer.outbound,
      let path = path ?? peer.state.value.path, !open.isFull, !results.trains.isFull
    else { return false }
    let fill = ESPPacket.largestInner(size, implicitIV: association.value.implicitIV)
    let length = max(ControlMessage.headerLength + body.count, fill)
    guard ESPPacket.sealedLength(length, implicitIV: association.value.implicitIV) <= SealedTrain.bytes,
      let plain = pool.take()
    else { return false }
    defer { pool.release(plain) }
    guard let buffer = pool.take() else { return false }
    guard case .granted(let sequence) = claim(1, association, row: row, &results) else {
      pool.release(buffer)
      return false
    }
    ControlMessage.write(
      type: type, body: body, to: pool.bytes(plain).slice(BufferPool.headroom, length))
    open.append(
      OpenTrain(
        buffer: buffer, peer: Int32(truncatingIfNeeded: row), length: 0, segmentSize: 0, count: 0, path: path,
        trafficClass: 0))
    seal(
      pool.bytes(plain), at: BufferPool.headroom, length: length, nextHeader: ESPPacket.dummy, sequence: sequence,
      association, into: open.count - 1, pool: pool)
    if var train = open.popLast() {
      train.segmentSize = train.length
      emit(train, along: path, &results)
    }
    controlSent &+= 1
    return true
  }
}
