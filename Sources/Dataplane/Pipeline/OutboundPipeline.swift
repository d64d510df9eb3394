package import PacketIO

/// From packets of the TUN device to trains of sealed datagrams.
///
/// For each superpacket:
/// 1. `forward` parses the inner packet and decides how it is cut.
/// 2. `route`: which peer has the destination, is there an association and a path.
/// 3. `claim`: as many sequence numbers as it has segments.
/// 4. `prepare`, then `layOut` for each segment: its header is laid out in the TUN buffer.
/// 5. `seal`: the segment goes, encrypted, to where UDP will send it from; a full train closes and the remainder
///    begins the next one.
/// 6. `flush`: at the end of the batch all open trains go to their transports, in the order in which they began.
package struct OutboundPipeline: ~Copyable {
  /// A datagram train that still has room.
  struct OpenTrain: BitwiseCopyable {
    var buffer: BufferID
    var peer: Int32
    var length: Int32
    var segmentSize: Int32
    var count: Int32
    var path: Path
  }

  /// Datagrams in a train, and bytes of a train, that a UDP GSO send takes (Linux: UDP_MAX_SEGMENTS, and the
  /// largest UDP payload over IPv4).
  package static let trainSegments = 128
  package static let trainBytes = 65507

  package var counters = PipelineCounters()
  /// Peers whose association has few sequence numbers left, or none; the worker tells the embedder after each batch,
  /// of which a superpacket can name one peer.
  package var exhausted: FixedArray<Int32>
  private var open: FixedArray<OpenTrain>
  private let header: PacketBytes

  /// - Parameters:
  ///   - scratch: `Segmentation.headerCapacity` bytes or more that live as long as the pipeline.
  ///   - batchCapacity: superpackets of a batch at most; each may begin a train of its own.
  package init(scratch: PacketBytes, batchCapacity: Int) {
    open = FixedArray(capacity: batchCapacity)
    exhausted = FixedArray(capacity: batchCapacity)
    header = scratch.slice(0, Segmentation.headerCapacity)
  }

  /// Seals `batch` and appends the trains to `trains`, which is to have room for all buffers of the pool. Empties the batch.
  package mutating func run(
    _ batch: inout PacketBatch, tables: Snapshot, pool: BufferPool, now: MonotonicTime, trains: inout PacketBatch
  ) {
    for index in 0..<batch.count {
      let superpacket = batch[index]
      forward(superpacket, tables: tables, pool: pool, now: now, trains: &trains)
      pool.release(superpacket.buffer)
    }
    batch.removeAll()
    flush(tables, trains: &trains)
  }

  @inline(__always)
  private mutating func forward(
    _ superpacket: Superpacket, tables: Snapshot, pool: BufferPool, now: MonotonicTime, trains: inout PacketBatch
  ) {
    let read = superpacket.bytes(in: pool)
    guard let packet = InnerPacket(read), let segments = Segmentation(superpacket, packet, read.slice(0, packet.length))
    else {
      counters.arrived.add(packets: 1, bytes: read.count)
      return counters.drop(.malformedPacket)
    }
    let bytes = read.slice(0, packet.length)
    counters.arrived.add(
      packets: segments.count, bytes: packet.length &+ (segments.count &- 1) &* segments.headerLength)
    switch route(packet, bytes, tables) {
    case .dropped(let reason): counters.drop(reason, packets: segments.count)
    case .found(let index, let association, let path):
      switch claim(segments.count, association, peer: index) {
      case .refused(let reason): counters.drop(reason, packets: segments.count)
      case .granted(let first):
        prepare(superpacket.offload, segments, bytes)
        let entry = tables.peers[index]
        for segment in 0..<segments.count {
          if segments.isCut { segments.layOut(segment, in: bytes, header: header) }
          seal(
            superpacket, at: segments.start(segment), length: segments.length(segment), isV4: packet.isV4,
            sequence: first &+ UInt64(truncatingIfNeeded: segment), association, peer: index, entry, path: path,
            pool: pool, trains: &trains)
        }
        entry.state.value.lastSent = now
      }
    }
  }

  private enum Routed {
    case found(Int, StateReference<OutboundAssociation>, Path)
    case dropped(DropReason)
  }

  @inline(__always)
  private func route(_ packet: InnerPacket, _ bytes: PacketBytes, _ tables: Snapshot) -> Routed {
    guard let peer = tables.routes.lookup(packet.destination(bytes)) else { return .dropped(.noRoute) }
    let entry = tables.peers[Int(peer)]
    guard let association = entry.outbound else { return .dropped(.noAssociation) }
    guard let path = entry.state.value.path else { return .dropped(.noPath) }
    return .found(Int(peer), association, path)
  }

  @inline(__always)
  private mutating func claim(
    _ count: Int, _ association: StateReference<OutboundAssociation>, peer: Int
  ) -> OutboundAssociation.Claim {
    let result = association.value.claim(count)
    if association.value.takeWarning() { exhausted.append(Int32(truncatingIfNeeded: peer)) }
    return result
  }

  /// Of a packet that is cut, keeps a copy of the headers, because the second segment's header is written over the
  /// first segment's payload. Of another, completes the checksum.
  @inline(__always)
  private func prepare(_ offload: Offload, _ segments: Segmentation, _ bytes: PacketBytes) {
    if segments.isCut {
      header.copy(bytes.slice(0, segments.headerLength), to: 0)
    } else if offload.needsChecksum {
      Segmentation.completeChecksum(offload, in: bytes)
    }
  }

  /// Encrypts one inner packet from the TUN buffer into the peer's open train.
  @inline(__always)
  private mutating func seal(
    _ superpacket: Superpacket, at start: Int, length: Int, isV4: Bool, sequence: UInt64,
    _ association: StateReference<OutboundAssociation>, peer: Int, _ entry: Snapshot.PeerEntry, path: Path,
    pool: BufferPool, trains: inout PacketBatch
  ) {
    let implicitIV = association.value.implicitIV
    let sealedLength = ESPPacket.sealedLength(length, implicitIV: implicitIV)
    guard sealedLength <= OutboundPipeline.trainBytes else { return counters.drop(.packetTooLarge) }
    guard
      let train = room(for: sealedLength, peer: peer, entry, path: path, pool: pool, trains: &trains)
    else { return counters.drop(.noBuffer) }

    let sealed = pool.bytes(open[train].buffer).slice(
      BufferPool.headroom &+ Int(open[train].length), sealedLength)
    sealed.store32(association.value.spi, 0)
    sealed.store32(UInt32(truncatingIfNeeded: sequence), 4)
    if !implicitIV { sealed.store64(sequence, ESPPacket.headerLength) }

    // The trailer lies over the first bytes of the next segment's payload while this one is sealed.
    let padding = ESPPacket.padding(for: length)
    let front = Int(superpacket.offset) &+ start
    let plain = pool.bytes(superpacket.buffer).slice(front, length &+ padding &+ ESPPacket.trailerLength)
    let saved = pool.bytes(superpacket.buffer).load64(front &+ length)
    for i in 0..<padding { plain[length &+ i] = UInt8(truncatingIfNeeded: i &+ 1) }
    plain[length &+ padding] = UInt8(truncatingIfNeeded: padding)
    plain[length &+ padding &+ 1] = isV4 ? ESPPacket.ipv4 : ESPPacket.ipv6

    association.value.aead.seal(
      iv: sequence,
      AdditionalData(spi: association.value.spi, sequence: sequence, extended: association.value.extended),
      from: plain,
      to: sealed.dropFirst(ESPPacket.headerLength &+ (implicitIV ? 0 : ESPPacket.ivLength)))
    pool.bytes(superpacket.buffer).store64(saved, front &+ length)

    open[train].length &+= Int32(truncatingIfNeeded: sealedLength)
    open[train].count &+= 1
    counters.departed.add(packets: 1, bytes: length)
    association.value.packets &+= 1
    association.value.bytes &+= UInt64(truncatingIfNeeded: length)
    entry.state.value.sent.add(packets: 1, bytes: length)
  }

  /// The place of the peer's open train that takes one more datagram of `length` bytes; nil without a buffer.
  @inline(__always)
  private mutating func room(
    for length: Int, peer: Int, _ entry: Snapshot.PeerEntry, path: Path, pool: BufferPool, trains: inout PacketBatch
  ) -> Int? {
    let current = entry.state.value.openTrain
    if current >= 0 {
      let train = open[current]
      // Every datagram but the last has the same size, so a shorter one ends the train.
      if length <= Int(train.segmentSize), Int(train.length) == Int(train.count) &* Int(train.segmentSize),
        Int(train.length) &+ length <= OutboundPipeline.trainBytes,
        Int(train.count) < OutboundPipeline.trainSegments
      {
        return current
      }
      guard let buffer = pool.take() else { return nil }
      emit(train, trains: &trains)
      open[current] = OpenTrain(
        buffer: buffer, peer: Int32(truncatingIfNeeded: peer), length: 0, segmentSize: Int32(truncatingIfNeeded: length),
        count: 0, path: path)
      return current
    }
    guard let buffer = pool.take() else { return nil }
    let train = OpenTrain(
      buffer: buffer, peer: Int32(truncatingIfNeeded: peer), length: 0, segmentSize: Int32(truncatingIfNeeded: length),
      count: 0, path: path)
    guard open.append(train) else {
      pool.release(buffer)
      return nil
    }
    entry.state.value.openTrain = open.count &- 1
    return open.count &- 1
  }

  private mutating func emit(_ train: OpenTrain, trains: inout PacketBatch) {
    trains.append(
      Superpacket(
        buffer: train.buffer, offset: BufferPool.headroom, length: Int(train.length),
        segmentSize: Int(train.segmentSize), path: train.path))
  }

  private mutating func flush(_ tables: Snapshot, trains: inout PacketBatch) {
    for index in 0..<open.count {
      emit(open[index], trains: &trains)
      tables.peers[Int(open[index].peer)].state.value.openTrain = -1
    }
    open.removeAll()
  }
}
