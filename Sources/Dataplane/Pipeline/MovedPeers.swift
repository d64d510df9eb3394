import PacketIO

/// Peers that were heard elsewhere than by their path, since somebody looked.
struct MovedPeers: ~Copyable {
  /// As far as they find room here; the mark at each peer tells for sure.
  private var rows = FixedArray<Int32>(capacity: 256)

  /// An authenticated packet, the newest of its association, came with the train, by another path than usual.
  @inline(never)
  mutating func note(_ peer: StateReference<Peer>, _ row: Int32, _ train: Superpacket, now: MonotonicTime) {
    peer.value.hear(by: train.path, bytes: Int32(truncatingIfNeeded: train.length), now: now)
    guard !peer.value.isHeardElsewhere else { return }
    peer.value.isHeardElsewhere = true
    _ = rows.tryAppend(row)
  }

  /// The rows of those noted since the last call, each once.
  mutating func take(_ tables: Snapshot) -> [Int] {
    guard !rows.isEmpty else { return [] }
    var peers: [Int] = []
    let count = rows.isFull ? tables.peers.count : rows.count
    for place in 0..<count {
      let row = rows.isFull ? place : Int(rows[place])
      guard tables.peers[row].state.value.isHeardElsewhere else { continue }
      tables.peers[row].state.value.isHeardElsewhere = false
      peers.append(row)
    }
    rows.removeAll()
    return peers
  }
}
