import PacketIO

/// What carries a node's packets: both pipelines with the tables, the firewall and the memory that they work with, and
/// what they have made. All other parts of a node send through it.
package struct Datapath: ~Copyable {
  package private(set) var turn: Turn
  package var outbound: OutboundPipeline
  package var inbound: InboundPipeline
  package var outputs: NodeOutputs
  /// What a firewall remembers that is in force, or was.
  let firewall: StateCell<Firewall>
  private var capture = CaptureState()
  private var keys = KeyReports()
  private var released = PacketBatch(capacity: HeldPackets.mostPackets)
  /// Where in the batch that is being opened to go on; nil: no batch is half opened.
  private var next: Int?

  /// - Parameter capacity: packets that can wait for the device.
  init(
    _ turn: Turn, capacity: Int, batch: Int, offloads: TunOffloads, scratch: BufferID,
    random: inout some RandomNumberGenerator
  ) {
    outbound = OutboundPipeline(scratch: turn.pool.bytes(scratch), batchCapacity: batch)
    inbound = InboundPipeline(capacity: capacity, offloads: offloads)
    outputs = NodeOutputs(buffers: turn.pool.count, batchCapacity: batch)
    firewall = StateCell(Firewall(using: &random, workers: turn.tables.workers))
    self.turn = turn
  }

  var tables: Snapshot { turn.tables }
  var pool: BufferPool { turn.pool }
  var now: MonotonicTime {
    get { turn.now }
    set { turn.now = newValue }
  }
  /// This worker's number.
  var worker: Int { turn.tables.worker }

  /// Who holds how much of what peers share here.
  var shares: [ShareReport] {
    firewall.reference.value.shares()
      + [inbound.fragments.shares(), inbound.controlShares.report(), outbound.replyLimit.shares.report()]
  }

  // MARK: Packets

  /// Seals a batch of packets from the device, or that another worker has judged; empties it.
  mutating func seal(_ batch: inout PacketBatch, isJudged: Bool = false) {
    if !isJudged { capture.addRead(batch, turn) }
    outbound.run(&batch, isJudged: isJudged, turn, into: &outputs.packets)
    capture.addReplies(outputs.packets.replies, turn)
  }

  /// Opens as much of a batch as there is room for among the deliveries; empties it when all is done. What it leaves is
  /// to be opened before anything else is, once the deliveries were taken.
  mutating func open(_ batch: inout PacketBatch) {
    if next == nil { capture.addReceived(batch, turn) }
    let reached = inbound.run(batch, from: next ?? 0, turn)
    capture.addDeliveries(inbound.coalescer, turn)
    next = reached < batch.count ? reached : nil
    if next == nil { batch.removeAll() }
  }

  /// Judges and completes what `inbound.acceptOpened` has taken.
  mutating func finishOpened() {
    inbound.finish(turn)
    capture.addDeliveries(inbound.coalescer, turn)
  }

  /// Sends a control message; false where it cannot be sent now, and whoever sends it tries again.
  ///
  /// - Parameters:
  ///   - size: bytes the sealed packet shall have at most; 0: as few as it can.
  ///   - underOwn: under the worker's own association rather than the peer's.
  @discardableResult
  mutating func send(
    _ type: UInt8, _ body: [UInt8], to peer: Int, along path: Path? = nil, size: Int = 0, underOwn: Bool = false
  ) -> Bool {
    outbound.sendControl(
      type: type, body: body, to: peer, along: path, size: size, underOwn: underOwn, turn, into: &outputs.packets)
  }

  /// At the end of each call, when it is known what became of the packets.
  mutating func finish() {
    if !outputs.packets.exhausted.isEmpty { reportExhaustion() }
    if !outputs.packets.unkeyed.isEmpty { keys.reportMissing(&outputs, tables) }
    if !inbound.numbers.begun.isEmpty { keys.reportBegun(&inbound.numbers.begun, &outputs, tables) }
    if capture.tap != nil, !capture.flush(outputs.packets.trains, turn) { endCapture() }
  }

  private mutating func reportExhaustion() {
    for index in 0..<outputs.packets.exhausted.count {
      let row = Int(outputs.packets.exhausted[index])
      let associations = [tables.peers[row].outbound, tables.peers[row].own].compactMap(\.self)
      guard let association = associations.min(by: { $0.value.remaining < $1.value.remaining }) else { continue }
      if association.value.configuration.isEphemeral {
        let name = tables.configuration.peers[row].name
        outputs.keyNotices.append(.worn(peer: name, spi: association.value.spi))
        if association.value.remaining > 0 { continue }
      }
      outputs.events.append(
        .sequenceNumbersRunningOut(
          peer: tables.configuration.peers[row].name, spi: association.value.spi,
          remaining: association.value.remaining))
    }
    outputs.packets.exhausted.removeAll()
  }

  // MARK: Tables and firewall

  /// Puts a change in force, between two batches.
  mutating func take(_ change: Transition) {
    turn.tables = change.takeOver(tables)
    if !change.rows.isEmpty { capture.adopt(tables) }
    adoptFirewall()
    sealHeld(change)
  }

  /// There may be keys now for what has waited for them.
  private mutating func sealHeld(_ change: Transition) {
    for row in change.rows where row.entry?.outbound != nil || row.isOtherPeer {
      outbound.held.release(row.row, into: &released, pool: pool, &outbound.counters)
      if released.isEmpty { continue }
      outbound.run(&released, turn, into: &outputs.packets)
    }
  }

  mutating func adoptFirewall() {
    firewall.reference.value.adopt(tables.firewall)
    outbound.firewall = tables.firewall.isActive ? firewall.reference : nil
    inbound.firewall = outbound.firewall
  }

  /// Forgets flows and fragments whose time is over.
  mutating func sweep() {
    if tables.firewall.isActive { firewall.reference.value.sweep(now: now) }
    inbound.expireFragments(turn)
    outbound.held.expire(now: now, &outbound.counters)
    inbound.controlShares.removeAll()
    outbound.replyLimit.shares.removeAll()
    keys.beginTick()
  }

  mutating func reportFirewall() {
    guard !firewall.reference.value.log.records.isEmpty else { return }
    let tables = tables
    for entry in firewall.reference.value.takeLog({ tables.record($0)?.configuration.name }) {
      outputs.events.append(.firewallLog(entry))
    }
  }

  // MARK: Capture and explanation

  mutating func begin(_ capture: PacketCapture) -> Bool { self.capture.begin(capture, turn, &outbound, &inbound) }

  /// - Parameter capture: nil: whichever is under way.
  mutating func endCapture(_ capture: PacketCapture? = nil) {
    if let capture, !self.capture.isAbout(capture) { return }
    self.capture.end(turn, &outbound, &inbound)
  }

  mutating func explain(_ packet: [UInt8]) -> Explanation {
    Examination(now: now).explain(packet, &outbound, &inbound, turn)
  }
}
