import PacketIO

/// The worker's end of a capture: keeps the packets of a batch until it is known what became of them.
///
/// A packet is noted before a pipeline sees it; where the pipeline drops it, on a path that is not the fast one, it
/// says why. So the packets that pass cost nothing while nobody captures, and no branch of their own.
struct CaptureTap: ~Copyable {
  private struct Entry: BitwiseCopyable {
    var buffer: BufferID
    var offset: Int32
    var start: Int
    var kept: Int
    var length: Int
    var side: CaptureFile.Side
    var isOutgoing: Bool
    var reason: DropReason?
  }

  let capture: PacketCapture
  /// The row of the one peer that matters; nil: all of them, -1: it does not exist.
  private var peer: Int?
  private var entries = FixedArray<Entry>(capacity: 8192)
  private var bytes: [UInt8] = []
  private var lost: UInt64 = 0
  private let scratch: PacketBytes
  /// Of which `scratch` is.
  let scratchBuffer: BufferID

  /// Bytes of one batch that are kept at most.
  private static let capacity = 8 << 20

  init(_ capture: PacketCapture, scratch: BufferID, pool: BufferPool) {
    self.capture = capture
    scratchBuffer = scratch
    self.scratch = pool.bytes(scratch)
    bytes.reserveCapacity(1 << 20)
  }

  /// Finds the peer it is about among those in force.
  mutating func adopt(_ tables: Snapshot) {
    guard let name = capture.request.peer else { return }
    peer = tables.row(of: name) ?? -1
  }

  private func concerns(_ row: UInt32?) -> Bool { peer == nil || row.map { Int($0) == peer } ?? false }

  // MARK: Packets

  /// What the device has handed over.
  mutating func addRead(_ batch: borrowing PacketBatch, tables: Snapshot, pool: BufferPool) {
    guard capture.request.inner else { return }
    for index in 0..<batch.count {
      let superpacket = batch[index]
      let bytes = superpacket.bytes(in: pool)
      let packet = InnerPacket(bytes)
      guard concerns(packet.flatMap { tables.routes.lookup($0.destination(bytes)) }) else { continue }
      scratch.copy(bytes, to: 0)
      addCut(superpacket, scratch.slice(0, bytes.count), isOutgoing: true)
    }
  }

  /// What the device will get.
  mutating func addDeliveries(_ coalescer: borrowing Coalescer, pool: BufferPool) {
    guard capture.request.inner else { return }
    for index in 0..<coalescer.deliveries.count { addDelivery(coalescer.deliveries[index], coalescer, nil, pool: pool) }
  }

  mutating func addDelivery(
    _ delivery: Delivery, _ coalescer: borrowing Coalescer, _ reason: DropReason?, pool: BufferPool
  ) {
    guard capture.request.inner, concerns(UInt32(bitPattern: delivery.peer)) else { return }
    var length = 0
    var next = delivery.firstSlice
    while next >= 0 {
      let slice = coalescer.slices[Int(next)]
      guard length + Int(slice.length) <= 0xFFFF + 40 else { break }
      scratch.copy(pool.bytes(slice.buffer).slice(Int(slice.offset), Int(slice.length)), to: length)
      length += Int(slice.length)
      next = slice.next
    }
    let superpacket = Superpacket(
      buffer: scratchBuffer, offset: 0, length: length, segmentSize: Int(delivery.segmentSize),
      offload: delivery.offload)
    addCut(superpacket, scratch.slice(0, length), isOutgoing: false, reason)
  }

  /// Messages to hosts inside.
  mutating func addReplies(_ batch: borrowing PacketBatch, pool: BufferPool) {
    guard capture.request.inner, peer == nil else { return }
    for index in 0..<batch.count {
      let bytes = batch[index].bytes(in: pool)
      add([], bytes, side: .inner, isOutgoing: false, nil, batch[index].buffer, 0)
    }
  }

  /// A packet that was opened and may not go on.
  mutating func addOpened(_ inner: PacketBytes, _ reason: DropReason, peer: Int32) {
    guard capture.request.inner, concerns(UInt32(bitPattern: peer)) else { return }
    add([], inner, side: .inner, isOutgoing: false, reason, scratchBuffer, 0)
  }

  /// Trains of sealed datagrams.
  mutating func addTrains(
    _ batch: borrowing PacketBatch, isOutgoing: Bool, tables: Snapshot, pool: BufferPool
  ) {
    guard capture.request.outer else { return }
    for index in 0..<batch.count {
      let train = batch[index]
      let bytes = train.bytes(in: pool)
      for segment in train.segments() {
        let datagram = bytes.slice(segment.start, segment.length)
        if isOutgoing ? leads(train.path, tables) : concerns(owner(datagram, tables)) {
          add(
            header(train, datagram.count, isOutgoing: isOutgoing), datagram, side: .outer, isOutgoing: isOutgoing, nil,
            train.buffer, train.offset + Int32(truncatingIfNeeded: segment.start))
        }
      }
    }
  }

  private func leads(_ path: Path, _ tables: Snapshot) -> Bool {
    guard let peer else { return true }
    return peer >= 0 && peer < tables.peers.count && tables.peers[peer].state.value.path == path
  }

  private func owner(_ datagram: PacketBytes, _ tables: Snapshot) -> UInt32? {
    guard datagram.count >= 4 else { return nil }
    return tables.association(datagram.load32(0)).map { UInt32(bitPattern: $0.peer) }
  }

  private func header(_ train: Superpacket, _ count: Int, isOutgoing: Bool) -> [UInt8] {
    let remote = train.path.endpoint
    let nobody = remote.address.isV4 ? IPAddress(v4: 0) : IPAddress(v6High: 0, low: 0)
    let own = capture.request.local.flatMap { $0.address.family == remote.address.family ? $0 : nil }
    let local = own ?? Endpoint(address: nobody, port: capture.request.localPort)
    return OuterHeader.bytes(
      count, from: isOutgoing ? local : remote, to: isOutgoing ? remote : local, trafficClass: train.trafficClass)
  }

  /// As packets that would be on a wire. `copy` lies at the beginning of the scratch buffer, and is written over.
  private mutating func addCut(
    _ superpacket: Superpacket, _ copy: PacketBytes, isOutgoing: Bool, _ reason: DropReason? = nil
  ) {
    guard let packet = InnerPacket(copy),
      let segments = Segmentation(superpacket, packet, copy.slice(0, packet.length), limit: Int.max)
    else {
      return add([], copy, side: .inner, isOutgoing: isOutgoing, reason, superpacket.buffer, superpacket.offset)
    }
    let whole = copy.slice(0, packet.length)
    if segments.kind == .whole, superpacket.offload.needsChecksum {
      Segmentation.completeChecksum(superpacket.offload, in: whole)
    }
    let header = scratch.slice(0xFFFF + 64, Segmentation.headerCapacity)
    if segments.kind != .whole { header.copy(whole.slice(0, segments.headerLength), to: 0) }
    let sums = segments.sums(header)
    for segment in 0..<segments.count {
      segments.layOut(segment, in: whole, header: header, sums: sums)
      add(
        [], whole.slice(segments.start(segment), segments.length(segment)), side: .inner, isOutgoing: isOutgoing,
        reason,
        superpacket.buffer, superpacket.offset)
    }
  }

  private mutating func add(
    _ front: [UInt8], _ packet: PacketBytes, side: CaptureFile.Side, isOutgoing: Bool, _ reason: DropReason?,
    _ buffer: BufferID, _ offset: Int32
  ) {
    let length = front.count + packet.count
    let kept = min(length, capture.request.snapLength)
    guard !entries.isFull, bytes.count + kept <= CaptureTap.capacity else {
      lost += 1
      return
    }
    let start = bytes.count
    bytes += front.prefix(kept)
    bytes += packet.slice(0, kept - min(kept, front.count)).array()
    entries.append(
      Entry(
        buffer: buffer, offset: offset, start: start, kept: kept, length: length, side: side, isOutgoing: isOutgoing,
        reason: reason))
  }

  // MARK: What became of them

  /// All packets of the superpacket in this buffer went no further.
  mutating func drop(_ reason: DropReason, _ superpacket: Superpacket) {
    for index in 0..<entries.count
    where entries[index].buffer == superpacket.buffer && entries[index].side == .inner && entries[index].isOutgoing {
      entries[index].reason = reason
    }
  }

  /// The datagram at this place went no further.
  mutating func drop(_ reason: DropReason, buffer: BufferID, offset: Int) {
    for index in 0..<entries.count
    where entries[index].buffer == buffer && Int(entries[index].offset) == offset && entries[index].side == .outer {
      entries[index].reason = reason
    }
  }

  /// Hands over the batch. False: the capture is over.
  mutating func flush(now: MonotonicTime) -> Bool {
    if entries.isEmpty, lost == 0 { return !capture.isOver }
    var blocks: [[UInt8]] = []
    blocks.reserveCapacity(entries.count)
    for index in 0..<entries.count {
      let entry = entries[index]
      blocks.append(
        CaptureFile.packet(
          bytes[entry.start..<entry.start + entry.kept], length: entry.length, side: entry.side,
          time: now.nanoseconds &+ capture.request.epoch, isOutgoing: entry.isOutgoing,
          comment: entry.reason.map { "dropped: \($0.name)" }))
    }
    defer {
      entries.removeAll()
      bytes.removeAll(keepingCapacity: true)
      lost = 0
    }
    return capture.put(blocks, lost: lost)
  }
}
