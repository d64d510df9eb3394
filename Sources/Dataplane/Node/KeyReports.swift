import PacketIO

/// What a worker tells those who agree upon keys, of what the pipelines have noticed.
struct KeyReports {
  /// Peers of which it was told since the last tick.
  private var told: [Int32] = []
  private static let mostPerTick = 64

  mutating func beginTick() { told.removeAll(keepingCapacity: true) }

  /// Packets were dropped for want of a key.
  mutating func reportMissing(_ outputs: inout NodeOutputs, _ tables: Snapshot) {
    for index in 0..<outputs.packets.unkeyed.count {
      let row = outputs.packets.unkeyed[index]
      guard told.count < KeyReports.mostPerTick, !told.contains(row),
        let peer = tables.record(Int(row))?.configuration, peer.negotiatesKeys
      else { continue }
      told.append(row)
      outputs.keyNotices.append(.wanted(peer: peer.name))
    }
    outputs.packets.unkeyed.removeAll()
  }

  /// Packets came under keys for the first time.
  func reportBegun(_ begun: inout FixedArray<SPIOfPeer>, _ outputs: inout NodeOutputs, _ tables: Snapshot) {
    for index in 0..<begun.count {
      guard let peer = tables.record(Int(begun[index].row))?.configuration else { continue }
      outputs.keyNotices.append(.opened(peer: peer.name, spi: begun[index].spi))
    }
    begun.removeAll()
  }
}
