import PacketIO

/// What is told of the numbers of opened packets, and looked for where packets do not open.
struct InboundNumbers: ~Copyable {
  /// Peers whose numbers are not what this side thinks, since the node looked; what finds no room is found again.
  var findings = FixedArray<SequenceFinding>(capacity: 16)
  /// Associations whose first packet was opened, since the node looked; what finds no room is found again.
  var begun = FixedArray<SPIOfPeer>(capacity: 64)
  /// The association that the last packet was opened under, whose lease has not been told of all.
  private var opened: Snapshot.AssociationEntry?

  /// A packet was accepted.
  @inline(__always)
  mutating func note(_ entry: Snapshot.AssociationEntry) {
    if entry.state.value.window.highest >= entry.state.value.noteAt { noteHighest(entry) }
    if opened?.spi != entry.spi { noteOpened(next: entry) }
  }

  /// The lease is to be told; or a search has ended.
  @inline(never)
  private mutating func noteHighest(_ entry: Snapshot.AssociationEntry) {
    let highest = entry.state.value.window.highest
    if entry.state.value.isSearching, highest &- entry.state.value.search.highest > 1 << 31 {
      _ = findings.tryAppend(SequenceFinding(row: entry.peer, spi: entry.spi, what: .foundAgain, isNews: true))
    }
    if entry.state.value.isUntold, begun.tryAppend(SPIOfPeer(row: entry.peer, spi: entry.spi)) {
      entry.state.value.noteTold()
    }
    entry.state.value.noteHighest()
  }

  /// Has a lease told of what was opened under it, before anybody gets what that brought: should the process be killed,
  /// what was delivered is not accepted again.
  @inline(never)
  mutating func noteOpened(next: Snapshot.AssociationEntry?) {
    opened?.state.value.noteHighest()
    opened = next
  }

  /// Looks whether a packet opens under another number than it seems to have; the number that it has.
  @inline(never)
  mutating func search(
    _ datagram: PacketBytes, inferred: UInt64, _ entry: Snapshot.AssociationEntry, _ pool: BufferPool
  ) -> UInt64 {
    let (sequence, isBehind) = entry.state.value.tryAnother(inferred, datagram, pool)
    if isBehind {
      let isNews = entry.state.value.noteBehind()
      _ = findings.tryAppend(SequenceFinding(row: entry.peer, spi: entry.spi, what: .peerWentBack, isNews: isNews))
    }
    return sequence
  }
}

/// One of a peer's inbound associations.
struct SPIOfPeer: BitwiseCopyable {
  let row: Int32
  let spi: UInt32
}
