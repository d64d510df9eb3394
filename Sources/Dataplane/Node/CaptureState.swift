import PacketIO

/// The capture that is under way on a node, if any.
struct CaptureState {
  /// Nil while nobody captures.
  private(set) var tap: StateCell<CaptureTap>?

  /// False when one is under way, or no buffer is free.
  mutating func begin(
    _ capture: PacketCapture, _ turn: Turn, _ outbound: inout OutboundPipeline,
    _ inbound: inout InboundPipeline
  ) -> Bool {
    if tap?.reference.value.capture.isOver == true { end(turn, &outbound, &inbound) }
    guard tap == nil, let scratch = turn.pool.take() else { return false }
    let cell = StateCell(CaptureTap(capture, scratch: scratch, pool: turn.pool))
    cell.reference.value.adopt(turn.tables)
    tap = cell
    (outbound.tap, inbound.tap) = (cell.reference, cell.reference)
    return true
  }

  mutating func end(_ turn: Turn, _ outbound: inout OutboundPipeline, _ inbound: inout InboundPipeline) {
    guard let tap else { return }
    (outbound.tap, inbound.tap) = (nil, nil)
    _ = tap.reference.value.flush(now: turn.now)
    tap.reference.value.capture.end(at: turn.now.nanoseconds)
    turn.pool.release(tap.reference.value.scratchBuffer)
    self.tap = nil
  }

  func isAbout(_ capture: PacketCapture) -> Bool { tap?.reference.value.capture === capture }

  func adopt(_ tables: Snapshot) { tap?.reference.value.adopt(tables) }

  func addRead(_ batch: borrowing PacketBatch, _ turn: Turn) {
    tap?.reference.value.addRead(batch, tables: turn.tables, pool: turn.pool)
  }

  func addReplies(_ batch: borrowing PacketBatch, _ turn: Turn) {
    tap?.reference.value.addReplies(batch, pool: turn.pool)
  }

  func addReceived(_ batch: borrowing PacketBatch, _ turn: Turn) {
    tap?.reference.value.addTrains(batch, isOutgoing: false, tables: turn.tables, pool: turn.pool)
  }

  func addDeliveries(_ coalescer: borrowing Coalescer, _ turn: Turn) {
    tap?.reference.value.addDeliveries(coalescer, pool: turn.pool)
  }

  /// Hands over what a call has gathered, with its trains: now it is known what became of each packet. False: the
  /// capture is over.
  @inline(never)
  func flush(_ trains: borrowing PacketBatch, _ turn: Turn) -> Bool {
    guard let tap else { return true }
    tap.reference.value.addTrains(trains, isOutgoing: true, tables: turn.tables, pool: turn.pool)
    return tap.reference.value.flush(now: turn.now)
  }
}
