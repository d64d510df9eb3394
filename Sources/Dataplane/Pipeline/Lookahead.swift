import PacketIO

/// Has memory fetched that packets will need, some packets before they are worked on.
///
/// With many peers or flows, each packet needs a dozen cache lines that are in no cache, and some say where others are.
/// What leads to others is fetched first, so that a packet has gone through three steps when its turn comes: memory
/// answers for several packets at once, while the processor works on one.
enum Lookahead {
  /// Packets between one step and the next: about as much work as memory needs to answer.
  static let stride = 3
  /// Packets between the first step and the work.
  static let distance = 3 * stride
  /// A power of two of packets that are on their way.
  static let ringSize = 16
}

/// Looks ahead in a batch from the TUN device: the peer's row and the flow's place in the table, then flow, peer and
/// association, then the key.
struct OutboundLookahead: ~Copyable {
  struct Packet: BitwiseCopyable {
    /// -1: not known.
    var peer: Int32 = -1
    var length: Int32 = 0
    var flow: Firewall.AnticipatedFlow?
  }

  private var ring = FixedArray<Packet>(repeating: Packet(), count: Lookahead.ringSize)

  /// Whether it pays.
  @inline(__always)
  static func isWorth(
    _ batch: borrowing PacketBatch, _ tables: Snapshot, _ firewall: StateReference<Firewall>?
  ) -> Bool {
    batch.count > 1 && (tables.isLarge || firewall?.value.isLarge ?? false)
  }

  /// What was found out about the packet that is worked on.
  @inline(__always)
  func packet(_ index: Int) -> Packet { ring[index & (Lookahead.ringSize &- 1)] }

  /// Before the packet at `index` is worked on.
  @inline(never)
  mutating func advance(
    to index: Int, _ batch: borrowing PacketBatch, _ tables: Snapshot, _ firewall: StateReference<Firewall>?,
    _ pool: BufferPool
  ) {
    if index == 0 {
      for next in 0..<Lookahead.distance { find(next, batch, tables, firewall, pool) }
      for next in 0..<2 * Lookahead.stride { fetchState(next, batch, tables, firewall) }
      for next in 0..<Lookahead.stride { fetchKey(next, batch, tables) }
    }
    find(index &+ Lookahead.distance, batch, tables, firewall, pool)
    fetchState(index &+ 2 &* Lookahead.stride, batch, tables, firewall)
    fetchKey(index &+ Lookahead.stride, batch, tables)
  }

  @inline(__always)
  private mutating func find(
    _ index: Int, _ batch: borrowing PacketBatch, _ tables: Snapshot, _ firewall: StateReference<Firewall>?,
    _ pool: BufferPool
  ) {
    guard index < batch.count else { return }
    let place = index & (Lookahead.ringSize &- 1)
    ring[place] = Packet()
    let bytes = batch[index].bytes(in: pool)
    guard let packet = InnerPacket(bytes) else { return }
    if let firewall, firewall.value.isLarge { ring[place].flow = firewall.value.anticipate(packet, bytes, .outbound) }
    if tables.isLarge, let peer = tables.routes.lookup(packet.destination(bytes)) {
      tables.peers.prefetch(Int(peer))
      ring[place].peer = Int32(truncatingIfNeeded: peer)
      ring[place].length = Int32(truncatingIfNeeded: packet.length)
    }
  }

  @inline(__always)
  private func fetchState(
    _ index: Int, _ batch: borrowing PacketBatch, _ tables: Snapshot, _ firewall: StateReference<Firewall>?
  ) {
    guard index < batch.count else { return }
    let packet = ring[index & (Lookahead.ringSize &- 1)]
    if let flow = packet.flow { firewall?.value.fetch(flow) }
    guard packet.peer >= 0 else { return }
    let entry = tables.peers[Int(packet.peer)]
    entry.outbound?.prefetch(bytes: OutboundAssociation.hotBytes)
    entry.state.prefetch(bytes: Peer.hotBytes)
  }

  @inline(__always)
  private func fetchKey(_ index: Int, _ batch: borrowing PacketBatch, _ tables: Snapshot) {
    guard index < batch.count else { return }
    let packet = ring[index & (Lookahead.ringSize &- 1)]
    guard packet.peer >= 0 else { return }
    tables.peers[Int(packet.peer)].outbound?.value.aead.prefetch(length: Int(packet.length))
  }
}

/// Looks ahead in a batch from the transports: the place of the SPI, then association and row of the peer, then key,
/// replay window and peer. A train's datagrams have one sender, so its first one stands for all.
struct InboundLookahead: ~Copyable {
  private var ring = FixedArray<Snapshot.AssociationEntry?>(repeating: nil, count: Lookahead.ringSize)

  /// Whether it pays.
  @inline(__always)
  static func isWorth(_ batch: borrowing PacketBatch, _ tables: Snapshot) -> Bool {
    batch.count > 1 && tables.isLarge
  }

  /// Before the train at `index` is worked on.
  ///
  /// - Parameter start: the first one.
  @inline(never)
  mutating func advance(
    to index: Int, from start: Int, _ batch: borrowing PacketBatch, _ tables: Snapshot, _ pool: BufferPool
  ) {
    if index == start {
      for next in start..<start &+ Lookahead.distance { find(next, batch, tables, pool) }
      for next in start..<start &+ 2 &* Lookahead.stride { fetchAssociation(next, batch, tables, pool) }
      for next in start..<start &+ Lookahead.stride { fetchState(next, batch, tables, pool) }
    }
    find(index &+ Lookahead.distance, batch, tables, pool)
    fetchAssociation(index &+ 2 &* Lookahead.stride, batch, tables, pool)
    fetchState(index &+ Lookahead.stride, batch, tables, pool)
  }

  /// The first datagram's beginning, if there is enough of it.
  @inline(__always)
  private func header(_ index: Int, _ batch: borrowing PacketBatch, _ pool: BufferPool) -> PacketBytes? {
    guard index < batch.count, batch[index].length >= Int32(ESPPacket.headerLength) else { return nil }
    return batch[index].bytes(in: pool)
  }

  @inline(__always)
  private func find(_ index: Int, _ batch: borrowing PacketBatch, _ tables: Snapshot, _ pool: BufferPool) {
    if let header = header(index, batch, pool) { tables.prefetchAssociation(header.load32(0)) }
  }

  @inline(__always)
  private mutating func fetchAssociation(
    _ index: Int, _ batch: borrowing PacketBatch, _ tables: Snapshot, _ pool: BufferPool
  ) {
    guard let header = header(index, batch, pool) else { return }
    let entry = tables.association(header.load32(0))
    ring[index & (Lookahead.ringSize &- 1)] = entry
    guard let entry else { return }
    entry.state.prefetch(bytes: InboundAssociation.hotBytes)
    tables.peers.prefetch(Int(entry.peer))
  }

  @inline(__always)
  private func fetchState(_ index: Int, _ batch: borrowing PacketBatch, _ tables: Snapshot, _ pool: BufferPool) {
    guard let header = header(index, batch, pool), let entry = ring[index & (Lookahead.ringSize &- 1)] else { return }
    entry.state.value.window.prefetch(header.load32(4))
    entry.state.value.aead.prefetch(length: Int(batch[index].segmentSize))
    tables.peers[Int(entry.peer)].state.prefetch(bytes: Peer.hotBytes)
  }
}
