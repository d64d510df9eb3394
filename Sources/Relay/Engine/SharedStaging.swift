import PacketIO

/// Where packets go that leave by a port which many gateways share.
struct SharedDestination: BitwiseCopyable {
  var descriptor: Int32
  var name: SocketName
  /// Whose it is; not negative.
  var number: Int
}

/// Packets of many pairs leave by few sockets: they are staged as those of hairpins are, and sent when somebody else's
/// come, or at the end of the turn.
extension Engine {
  /// Runs that are kept for hairpins.
  private static let keptRuns = ForwardBatch.capacity / 4

  /// Puts a run behind those to the same destination; those to another go first.
  ///
  /// Whoever has each small packet go elsewhere than the one before fills what can be staged in a turn. What finds no room
  /// is then sent by a call of its own, so that nobody loses anything by it.
  /// - Returns: what was not taken, as far as is known by now.
  mutating func stage(_ run: ForwardBatch.Run, to destination: SharedDestination) -> ForwardBatch.Amount {
    if stagedShared?.number != destination.number { flushShared() }
    guard batch.room > Engine.keptRuns else {
      if stagedShared != nil { flushShared() }
      // Nothing is overtaken by what comes after it.
      io.ring.submit()
      return batch.sendNow(run, destination.descriptor, to: destination.name)
    }
    stagedShared = destination
    batch.stage(run, pool: io.pool)
    return ForwardBatch.Amount()
  }

  /// Sends what is staged to a shared destination.
  mutating func flushShared() {
    guard let destination = stagedShared else { return }
    stagedShared = nil
    guard batch.staged > 0 else { return }
    // A negative sender is nobody of a hairpin.
    _ = batch.send(destination.descriptor, to: destination.name, sender: -1 - destination.number, ring: &io.ring)
  }

  /// Takes the completion of a message to a shared destination.
  /// - Returns: the destination's number, and what it did not take; nil: it was a hairpin's.
  mutating func completeShared(_ index: Int, _ result: Int32) -> (number: Int, failed: ForwardBatch.Amount)? {
    let sender = batch.sender(index)
    guard sender < 0 else { return nil }
    let open = batch.descriptor(index)
    return (-1 - sender, batch.complete(index, result: result, open: open, pool: io.pool))
  }
}
