package import PacketIO

/// From packets of the TUN device to trains of sealed datagrams.
///
/// For each superpacket:
/// 1. `run` parses the inner packet.
/// 2. `route`: which peer has the destination, is there an association and a path.
/// 3. `judge`: may it pass the firewall.
/// 4. `fit`: into how many packets it is cut, so that they fit the path; a sender whose packet does not is told.
/// 5. `translate`: this side's addresses become those that the peer knows, for peers whose prefixes clash with ours.
/// 6. `claim`: as many sequence numbers as there are packets.
/// 7. `layOut` and `seal`: each packet's header is laid out in the TUN buffer, and the packet goes, encrypted, to
///    where UDP will send it from; a full train closes and the remainder begins the next one.
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

  /// Datagrams in a train, and bytes of a train, that a UDP GSO send takes (Linux: UDP_MAX_SEGMENTS, and the
  /// largest UDP payload over IPv4).
  package static let trainSegments = 128
  package static let trainBytes = 65507

  package var counters = PipelineCounters()
  /// Nil while there is nothing to judge.
  package var firewall: StateReference<Firewall>?
  /// Nil while nobody captures; told of drops.
  var tap: StateReference<CaptureTap>?
  /// Control messages sealed; they are not among the counted packets.
  package private(set) var controlSent: UInt64 = 0
  /// Peers whose association has few sequence numbers left, or none; the worker tells the embedder after each batch,
  /// of which a superpacket can name one peer.
  package var exhausted: FixedArray<Int32>
  /// Packets for hosts inside: what the pipeline has to tell their senders.
  package var replies: PacketBatch
  /// Judged packets that worker 0 is to seal, each with a reference on its buffer; where there is one worker, none.
  var elsewhere: PacketBatch
  private var open: FixedArray<OpenTrain>
  /// Small packets gathered for a peer, at most one such for each superpacket of a batch.
  var aggregates: FixedArray<OpenAggregate>
  package internal(set) var aggregation = AggregationCount()
  /// Somebody takes aggregates, and the batch has several packets.
  private var mayAggregate = false
  private var replyLimit = TokenBucket(perSecond: 100, burst: 20)
  private let header: PacketBytes
  /// Of datagrams that are fragmented here; far apart, so that they do not meet those of a host that counts.
  private var lastIdentification: UInt32 = 0
  /// IPv6 packets that got a fragment header, to be cut at it. What finds no room here is dropped.
  private var divided = PacketBatch(capacity: 128)
  private var lookahead = OutboundLookahead()

  /// - Parameters:
  ///   - scratch: `Segmentation.headerCapacity` bytes or more that live as long as the pipeline.
  ///   - batchCapacity: superpackets of a batch at most; each may begin a train of its own.
  package init(scratch: PacketBytes, batchCapacity: Int) {
    open = FixedArray(capacity: batchCapacity)
    aggregates = FixedArray(capacity: batchCapacity)
    exhausted = FixedArray(capacity: batchCapacity)
    replies = PacketBatch(capacity: batchCapacity)
    elsewhere = PacketBatch(capacity: batchCapacity)
    header = scratch.slice(0, Segmentation.headerCapacity)
  }

  /// Seals `batch` and appends the trains to `trains`, which is to have room for all buffers of the pool. Empties
  /// the batch.
  ///
  /// - Parameter isJudged: another worker's firewall has let them pass.
  package mutating func run(
    _ batch: inout PacketBatch, isJudged: Bool = false, tables: Snapshot, pool: BufferPool, now: MonotonicTime,
    trains: inout PacketBatch
  ) {
    mayAggregate = tables.aggregates && batch.count > 1
    let looksAhead = OutboundLookahead.isWorth(batch, tables, firewall)
    for index in 0..<batch.count {
      if looksAhead { lookahead.advance(to: index, batch, tables, firewall, pool) }
      let superpacket = batch[index]
      let bytes = superpacket.bytes(in: pool)
      if let packet = InnerPacket(bytes) {
        forward(
          superpacket, bytes.slice(0, packet.length), packet, isJudged: isJudged, tables: tables, pool: pool, now: now,
          trains: &trains)
      } else {
        counters.arrived.add(packets: 1, bytes: bytes.count)
        counters.drop(.malformedPacket)
        tap?.value.drop(.malformedPacket, superpacket)
      }
      pool.release(superpacket.buffer)
      if !divided.isEmpty { forwardDivided(tables: tables, pool: pool, now: now, trains: &trains) }
    }
    batch.removeAll()
    if !aggregates.isEmpty { closeAggregates(tables, pool: pool, trains: &trains) }
    flush(tables, trains: &trains)
  }

  /// Counts a superpacket that goes no further, as the packets its sender made it of.
  @inline(never)
  private mutating func drop(
    _ reason: DropReason, _ superpacket: Superpacket, _ packet: InnerPacket, _ bytes: PacketBytes
  ) {
    let segments = Segmentation(superpacket, packet, bytes, limit: Int.max)
    counters.arrived.add(packets: segments?.count ?? 1, bytes: segments?.totalLength ?? packet.length)
    counters.drop(reason, packets: segments?.count ?? 1)
    tap?.value.drop(reason, superpacket)
  }

  /// Counts a superpacket that was read or handed over, and that goes no further.
  mutating func refuse(_ superpacket: Superpacket, _ reason: DropReason, pool: BufferPool) {
    refuse(superpacket, superpacket.bytes(in: pool), reason)
  }

  mutating func refuse(_ superpacket: Superpacket, _ bytes: PacketBytes, _ reason: DropReason) {
    let segments = InnerPacket(bytes).flatMap { Segmentation(superpacket, $0, bytes, limit: Int.max) }
    counters.arrived.add(packets: segments?.count ?? 1, bytes: segments?.totalLength ?? bytes.count)
    counters.drop(reason, packets: segments?.count ?? 1)
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

  @inline(__always)
  private mutating func forward(
    _ superpacket: Superpacket, _ bytes: PacketBytes, _ packet: InnerPacket, isJudged: Bool, tables: Snapshot,
    pool: BufferPool, now: MonotonicTime, trains: inout PacketBatch
  ) {
    switch route(packet, bytes, tables) {
    case .dropped(let reason): drop(reason, superpacket, packet, bytes)
    case .elsewhere(let index):
      if !isJudged, let reason = judge(superpacket, bytes, packet, now: now) {
        return drop(reason, superpacket, packet, bytes)
      }
      tables.peers[index].state.value.lastSent = now
      guard elsewhere.append(superpacket) else { return drop(.handOverFull, superpacket, packet, bytes) }
      pool.retain(superpacket.buffer)
    case .found(let index, let association, let path):
      if !isJudged, let reason = judge(superpacket, bytes, packet, now: now) {
        return drop(reason, superpacket, packet, bytes)
      }
      let entry = tables.peers[index]
      let limit = entry.state.value.largestInner(implicitIV: association.value.implicitIV)
      switch fit(superpacket, bytes, packet, limit: limit) {
      case .refused(let reason, let isTold):
        if isTold { tell(packet, bytes, mtu: limit, pool: pool, now: now) }
        drop(reason, superpacket, packet, bytes)
      case .tooLargeV6(let segments):
        divide(bytes, packet, segments, pool: pool)
      case .cut(var segments, let isTold):
        if isTold { tell(packet, bytes, mtu: limit, pool: pool, now: now) }
        var bytes = bytes
        if let translation = entry.translation {
          translate(superpacket, packet, &segments, &bytes, translation, entry.state, limit: limit, pool: pool)
        }
        if mayAggregate, entry.aggregates, entry.state.value.takesAggregates {
          if segments.kind == .whole, OpenAggregate.takes(bytes.count, limit: limit),
            aggregate(
              bytes, packet, entry, association, peer: index, path: path, limit: limit, pool: pool, now: now,
              trains: &trains)
          {
            return
          }
          closeAggregate(entry, pool: pool, trains: &trains)
        }
        switch claim(segments.count, association, peer: index) {
        case .refused(let reason):
          counters.arrived.add(packets: segments.count, bytes: segments.totalLength)
          counters.drop(reason, packets: segments.count)
          tap?.value.drop(reason, superpacket)
        case .granted(let first):
          counters.arrived.add(packets: segments.count, bytes: segments.totalLength)
          if segments.kind != .whole { header.copy(bytes.slice(0, segments.headerLength), to: 0) }
          let sums = segments.sums(header)
          let inner = Congestion.trafficClass(bytes, isV4: packet.isV4)
          let trafficClass = Congestion.outer(inner, copyDSCP: association.value.copiesDSCP)
          for segment in 0..<segments.count {
            segments.layOut(segment, in: bytes, header: header, sums: sums)
            let train = room(
              for: ESPPacket.sealedLength(segments.length(segment), implicitIV: association.value.implicitIV),
              peer: index, entry, path: path, trafficClass: trafficClass, pool: pool, trains: &trains)
            guard let train else {
              counters.drop(.noBuffer)
              tap?.value.drop(.noBuffer, superpacket)
              continue
            }
            seal(
              pool.bytes(superpacket.buffer), at: Int(superpacket.offset) &+ segments.start(segment),
              length: segments.length(segment), nextHeader: packet.isV4 ? ESPPacket.ipv4 : ESPPacket.ipv6,
              sequence: first &+ UInt64(truncatingIfNeeded: segment), association, into: train, pool: pool)
            counters.departed.add(packets: 1, bytes: segments.length(segment))
            entry.state.value.sent.add(packets: 1, bytes: segments.length(segment))
          }
          entry.state.value.lastSent = now
        }
      }
    }
  }

  enum Routed {
    case found(Int, StateReference<OutboundAssociation>, Path)
    /// Worker 0 has the association or the path to this peer.
    case elsewhere(Int)
    case dropped(DropReason)
  }

  @inline(__always)
  func route(_ packet: InnerPacket, _ bytes: PacketBytes, _ tables: Snapshot) -> Routed {
    guard let peer = tables.routes.lookup(packet.destination(bytes)) else { return .dropped(.noRoute) }
    let entry = tables.peers[Int(peer)]
    guard let association = entry.outbound, let path = entry.state.value.path else {
      if entry.hasDeputy, entry.implicitIV != nil { return .elsewhere(Int(peer)) }
      return .dropped(entry.outbound == nil ? .noAssociation : .noPath)
    }
    if let own = entry.own, entry.state.value.usesOwnAssociation { return .found(Int(peer), own, path) }
    return .found(Int(peer), association, path)
  }

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

  /// Why the firewall refuses the packet, if it does.
  @inline(__always)
  private func judge(
    _ superpacket: Superpacket, _ bytes: PacketBytes, _ packet: InnerPacket, now: MonotonicTime
  ) -> DropReason? {
    guard let firewall else { return nil }
    return firewall.value.judge(
      packet, bytes, length: packet.length, packets: packetCount(superpacket, packet, bytes), octets: packet.length,
      direction: .outbound, now: now
    ).refusal
  }

  @inline(__always)
  mutating func claim(
    _ count: Int, _ association: StateReference<OutboundAssociation>, peer: Int
  ) -> OutboundAssociation.Claim {
    let result = association.value.claim(count)
    if association.value.takeWarning() { exhausted.append(Int32(truncatingIfNeeded: peer)) }
    return result
  }

  enum Fitted {
    /// `isTold`: its sender meant larger packets, and shall learn what fits.
    case cut(Segmentation, isTold: Bool)
    /// Larger than the path takes, but not larger than what any path must take for IPv6.
    case tooLargeV6(Segmentation)
    case refused(DropReason, isTold: Bool)
  }

  @inline(__always)
  func fit(_ superpacket: Superpacket, _ bytes: PacketBytes, _ packet: InnerPacket, limit: Int) -> Fitted {
    if SegmentSizeClamp.concerns(packet, bytes) {
      SegmentSizeClamp.apply(packet, bytes, limit: limit, hasPartialChecksum: superpacket.offload.needsChecksum)
    }
    guard let segments = Segmentation(superpacket, packet, bytes, limit: limit) else {
      return .refused(.malformedPacket, isTold: false)
    }
    let fits = segments.length(0) <= limit
    if segments.kind == .tcp, fits {
      // Cut smaller than its sender meant: it shall learn why, but need not wait for it.
      let isTold =
        segments.payloadLength < Int(superpacket.segmentSize) && segments.count > 1
        && isTellable(packet, segments.headerLength &+ Int(superpacket.segmentSize))
      return .cut(segments, isTold: isTold)
    }
    guard !fits else {
      if segments.kind == .whole, superpacket.offload.needsChecksum {
        Segmentation.completeChecksum(superpacket.offload, in: bytes)
      }
      return .cut(segments, isTold: false)
    }
    return fitOversized(superpacket, bytes, packet, segments, limit: limit)
  }

  @inline(never)
  private func fitOversized(
    _ superpacket: Superpacket, _ bytes: PacketBytes, _ packet: InnerPacket, _ segments: Segmentation, limit: Int
  ) -> Fitted {
    if segments.kind == .whole {
      if superpacket.offload.needsChecksum { Segmentation.completeChecksum(superpacket.offload, in: bytes) }
      if let cut = Segmentation(oversized: packet, bytes, needsChecksum: false, limit: limit) {
        return .cut(cut, isTold: cut.kind == .tcp && isTellable(packet, packet.length))
      }
    }
    // Fragments have been cut above, and extension headers, with which nobody sends much, are left alone.
    if !isTellable(packet, segments.length(0)), packet.transportOffset == 40, segments.kind != .tcp {
      return .tooLargeV6(segments)
    }
    return .refused(.exceedsPathMTU, isTold: true)
  }

  /// Whether the sender of packets of this length can send smaller ones: with IPv6 nobody has to send less than 1280
  /// bytes (RFC 8200 §5).
  @inline(__always)
  private func isTellable(_ packet: InnerPacket, _ length: Int) -> Bool {
    packet.isV4 || length > InnerPacket.leastMTUv6
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
        let copy = addFragmentHeader(whole, packet, identification: lastIdentification, pool: pool)
      else {
        counters.arrived.add(packets: 1, bytes: whole.count)
        counters.drop(.noBuffer)
        continue
      }
      divided.append(copy)
    }
  }

  /// Copies an IPv6 packet without extension headers; nil without a buffer.
  func addFragmentHeader(
    _ bytes: PacketBytes, _ packet: InnerPacket, identification: UInt32, pool: BufferPool
  ) -> Superpacket? {
    guard let buffer = pool.take() else { return nil }
    let copy = pool.bytes(buffer).slice(BufferPool.headroom, bytes.count &+ FragmentHeader.lengthV6)
    copy.copy(bytes.slice(0, 40), to: 0)
    copy.copy(bytes.dropFirst(40), to: 40 &+ FragmentHeader.lengthV6)
    copy.store16(UInt16(truncatingIfNeeded: copy.count &- 40), 4)
    copy[6] = IPProtocol.fragment
    copy.store32(UInt32(packet.transport) << 24, 40)
    copy.store32(identification, 44)
    return Superpacket(buffer: buffer, offset: BufferPool.headroom, length: copy.count, segmentSize: copy.count)
  }

  @inline(never)
  private mutating func forwardDivided(
    tables: Snapshot, pool: BufferPool, now: MonotonicTime, trains: inout PacketBatch
  ) {
    for index in 0..<divided.count {
      let bytes = divided[index].bytes(in: pool)
      if let packet = InnerPacket(bytes) {
        forward(
          divided[index], bytes, packet, isJudged: true, tables: tables, pool: pool, now: now, trains: &trains)
      }
      pool.release(divided[index].buffer)
    }
    divided.removeAll()
  }

  /// Puts a "too big" message for the packet's sender among the replies, unless too many were sent already.
  private mutating func tell(
    _ packet: InnerPacket, _ bytes: PacketBytes, mtu: Int, pool: BufferPool, now: MonotonicTime
  ) {
    guard !replies.isFull, replyLimit.take(now: now), let buffer = pool.take() else { return }
    let room = pool.bytes(buffer).slice(BufferPool.headroom, TooBigMessage.capacity)
    let mtu = packet.isV4 ? mtu : max(mtu, InnerPacket.leastMTUv6)
    guard let length = TooBigMessage.write(about: packet, bytes, mtu: mtu, to: room) else {
      pool.release(buffer)
      return
    }
    replies.append(Superpacket(buffer: buffer, offset: BufferPool.headroom, length: length, segmentSize: length))
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

  // MARK: Control messages

  /// Seals a control message as a datagram of its own and appends it to `trains`. Returns false, and sends nothing,
  /// where there is no association, no path, no number or no buffer: whoever sends one tries again.
  ///
  /// - Parameters:
  ///   - size: bytes the sealed packet shall have, as nearly below as its boundaries allow; 0: as few as it can.
  ///   - underOwn: under the worker's own association rather than the peer's.
  package mutating func sendControl(
    type: UInt8, body: [UInt8], to peer: Int, along path: Path? = nil, size: Int = 0, underOwn: Bool = false,
    tables: Snapshot, pool: BufferPool, trains: inout PacketBatch
  ) -> Bool {
    let entry = tables.peers[peer]
    guard let association = underOwn ? entry.own ?? entry.outbound : entry.outbound,
      let path = path ?? entry.state.value.path, !open.isFull, !trains.isFull
    else { return false }
    let fill = ESPPacket.largestInner(size, implicitIV: association.value.implicitIV)
    let length = max(ControlMessage.headerLength + body.count, fill)
    guard ESPPacket.sealedLength(length, implicitIV: association.value.implicitIV) <= OutboundPipeline.trainBytes,
      let plain = pool.take()
    else { return false }
    defer { pool.release(plain) }
    guard let buffer = pool.take() else { return false }
    guard case .granted(let sequence) = claim(1, association, peer: peer) else {
      pool.release(buffer)
      return false
    }
    ControlMessage.write(
      type: type, body: body, to: pool.bytes(plain).slice(BufferPool.headroom, length))
    open.append(
      OpenTrain(
        buffer: buffer, peer: Int32(peer), length: 0, segmentSize: 0, count: 0, path: path, trafficClass: 0))
    seal(
      pool.bytes(plain), at: BufferPool.headroom, length: length, nextHeader: ESPPacket.dummy, sequence: sequence,
      association, into: open.count - 1, pool: pool)
    if var train = open.popLast() {
      train.segmentSize = train.length
      emit(train, trains: &trains)
    }
    controlSent &+= 1
    return true
  }

  /// The place of the peer's open train that takes one more datagram of `length` bytes; nil without a buffer.
  @inline(__always)
  mutating func room(
    for length: Int, peer: Int, _ entry: Snapshot.PeerEntry, path: Path, trafficClass: UInt8, pool: BufferPool,
    trains: inout PacketBatch
  ) -> Int? {
    let current = Int(entry.state.value.openTrain)
    if current >= 0 {
      let train = open[current]
      // Every datagram but the last has the same size, so a shorter one ends the train.
      if length <= Int(train.segmentSize), Int(train.length) == Int(train.count) &* Int(train.segmentSize),
        Int(train.length) &+ length <= OutboundPipeline.trainBytes,
        Int(train.count) < OutboundPipeline.trainSegments, train.trafficClass == trafficClass
      {
        return current
      }
      guard let buffer = pool.take() else { return nil }
      emit(train, trains: &trains)
      open[current] = OpenTrain(
        buffer: buffer, peer: Int32(truncatingIfNeeded: peer), length: 0,
        segmentSize: Int32(truncatingIfNeeded: length),
        count: 0, path: path, trafficClass: trafficClass)
      return current
    }
    guard let buffer = pool.take() else { return nil }
    let train = OpenTrain(
      buffer: buffer, peer: Int32(truncatingIfNeeded: peer), length: 0, segmentSize: Int32(truncatingIfNeeded: length),
      count: 0, path: path, trafficClass: trafficClass)
    guard open.append(train) else {
      pool.release(buffer)
      return nil
    }
    entry.state.value.openTrain = Int32(truncatingIfNeeded: open.count &- 1)
    return open.count &- 1
  }

  private mutating func emit(_ train: OpenTrain, trains: inout PacketBatch) {
    trains.append(
      Superpacket(
        buffer: train.buffer, offset: BufferPool.headroom, length: Int(train.length),
        segmentSize: Int(train.segmentSize), path: train.path, trafficClass: train.trafficClass))
  }

  private mutating func flush(_ tables: Snapshot, trains: inout PacketBatch) {
    for index in 0..<open.count {
      emit(open[index], trains: &trains)
      tables.peers[Int(open[index].peer)].state.value.openTrain = -1
    }
    open.removeAll()
  }
}
