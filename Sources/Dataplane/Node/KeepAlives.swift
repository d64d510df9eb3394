import PacketIO

/// Paths that are kept open through address translators though nothing is sent there.
extension Datapath {
  /// Keep-alives that a transport can send at once; whoever is left over has its turn at the next tick.
  private static let keepAlivesPerTick = 128
  /// Peers that are looked at for it: to some, packets were sent since.
  private static let keptPerTick = 512

  /// Asks for what is due.
  mutating func keepAlive() {
    let timers = tables.timers
    var (count, looked) = (0, 0)
    while count < Datapath.keepAlivesPerTick, looked < Datapath.keptPerTick, let due = timers.value.keepAlives.first,
      due.time <= now
    {
      looked += 1
      let entry = tables.peers[due.row]
      guard entry.keepAliveInterval > 0, let path = entry.state.value.path else {
        timers.value.keepAlives.set(due.row, nil)
        continue
      }
      if now.nanoseconds(since: entry.state.value.lastSent) >= entry.keepAliveInterval {
        entry.state.value.lastSent = now
        tables.busy.insert(due.row)
        keepAlive(due.row, along: path)
        count += 1
      }
      timers.value.keepAlives.set(
        due.row, entry.state.value.lastSent.adding(nanoseconds: entry.keepAliveInterval))
    }
  }

  /// A peer that keys are agreed upon with is told under them: a byte that anybody can send (RFC 3948 §2.3) would show it
  /// no new port of an address translator. Others need not understand that.
  private mutating func keepAlive(_ row: Int, along path: Path) {
    if tables.record(row)?.configuration.negotiatesKeys == true,
      send(ControlMessage.Kind.keepAlive, [], to: row, along: path)
    {
      return
    }
    outputs.commands.append(.keepAlive(path))
  }
}
