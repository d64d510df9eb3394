import PacketIO

/// Makes the workers' state of peers and associations, and knows where keys that went have stopped.
struct CellMaker: Sendable {
  let workers: Int
  let sealing: Sealing
  private var memory = SequenceMemory()

  init(workers: Int, sealing: Sealing) {
    self.workers = workers
    self.sealing = sealing
  }

  /// Throws where a key is to seal at another worker than before: only the one that has used it knows its numbers in
  /// time.
  func check(_ peer: PeerConfiguration) throws(ConfigurationError) {
    guard workers > 1 else { return }
    for (worker, association) in peer.sealers where !association.isEphemeral {
      guard let before = memory.worker(sealing: association.key.fingerprint), before != worker else { continue }
      throw ConfigurationError(
        subject: .peer(peer.name), setting: "key", problem: "has sealed at worker \(before), and cannot at \(worker)",
        remedy: "make a new key")
    }
  }

  /// The peer comes into force.
  mutating func note(_ peer: PeerConfiguration) {
    guard workers > 1 else { return }
    for (worker, association) in peer.sealers where !association.isEphemeral {
      memory.note(sealing: association.key.fingerprint, worker: worker)
    }
  }

  /// Has each worker leave the numbers of associations that go. This comes for all peers before any gets a new one, so
  /// that a key which goes from one to another is known.
  mutating func letGo(_ old: RegistryMember, _ new: PeerConfiguration?, _ transitions: [Transition]) {
    for (worker, transition) in transitions.enumerated() {
      for cell in old.cells[worker].inbound {
        let association = cell.reference.value.configuration
        if association.isEphemeral || new?.inbound.contains(where: association.isSameAssociation) ?? false { continue }
        let mark = memory.leave(receiving: cell.reference.value.fingerprint, spi: association.spi)
        transition.leavingInbound.append(Transition.Arrival(cell: cell, mark: mark))
      }
      let ours = new.map { $0.ownOutbound(worker) } ?? nil
      for (cell, successor) in [
        (old.cells[worker].outbound, new?.outbound), (old.cells[worker].own, ours),
      ] {
        guard let cell, !cell.reference.value.configuration.isEphemeral else { continue }
        if let successor, cell.reference.value.configuration.isSameAssociation(as: successor) { continue }
        let mark = memory.leave(sending: cell.reference.value.fingerprint)
        transition.leavingOutbound.append(Transition.Arrival(cell: cell, mark: mark))
      }
    }
  }

  func makeCells(
    _ step: DraftStep, _ record: PeerRecord, worker: Int, _ transition: Transition, now: MonotonicTime
  ) -> PeerCells {
    let peer = record.configuration
    let old = step.old
    let before = old?.cells[worker]
    let state = before?.state ?? StateCell(Peer(paths: worker == 0 ? peer.paths : [], now: now))
    if worker == 0, let old, old.configuration.paths != peer.paths {
      transition.moved.append((peer: state.reference, paths: peer.paths))
    }
    let inbound = peer.inbound.filter { Int($0.spi) & (workers - 1) == worker }.map { association in
      makeInbound(association, before, transition)
    }
    return PeerCells(
      state: state, outbound: worker == 0 ? makeOutbound(peer.outbound, before?.outbound, transition) : nil,
      own: makeOutbound(peer.ownOutbound(worker), before?.own, transition), inbound: inbound)
  }

  private func makeInbound(
    _ association: SecurityAssociationConfiguration, _ before: PeerCells?, _ transition: Transition
  ) -> StateCell<InboundAssociation> {
    let kept = before?.inbound.first {
      $0.reference.value.spi == association.spi
        && $0.reference.value.configuration.isSameAssociation(as: association)
    }
    if let kept {
      if kept.reference.value.lease !== association.lease {
        transition.newInboundLeases.append((kept.reference, association.lease))
      }
      return kept
    }
    let cell = StateCell(
      InboundAssociation(association, aead: AEAD(association.cipher, key: association.key, sealing: sealing)))
    if let mark = memory.mark(receiving: cell.reference.value.fingerprint, spi: association.spi) {
      transition.enteringInbound.append(Transition.Arrival(cell: cell, mark: mark))
    }
    return cell
  }

  private func makeOutbound(
    _ association: SecurityAssociationConfiguration?, _ before: StateCell<OutboundAssociation>?,
    _ transition: Transition
  ) -> StateCell<OutboundAssociation>? {
    guard let association else { return nil }
    if let before, before.reference.value.configuration.isSameAssociation(as: association) {
      if before.reference.value.lease !== association.lease {
        transition.newLeases.append((before.reference, association.lease))
      }
      return before
    }
    let cell = StateCell(
      OutboundAssociation(association, aead: AEAD(association.cipher, key: association.key, sealing: sealing)))
    if let mark = memory.mark(sending: cell.reference.value.fingerprint) {
      transition.enteringOutbound.append(Transition.Arrival(cell: cell, mark: mark))
    }
    return cell
  }
}

extension PeerConfiguration {
  /// What a worker seals under by itself.
  func ownOutbound(_ worker: Int) -> SecurityAssociationConfiguration? {
    guard workerOutbound.indices.contains(worker) else { return nil }
    // One key has one place where its numbers are counted.
    if worker == 0, let outbound, workerOutbound[0].isSameAssociation(as: outbound) { return nil }
    return workerOutbound[worker]
  }

  /// Outbound associations, each with the worker that has it.
  fileprivate var sealers: [(Int, SecurityAssociationConfiguration)] {
    (outbound.map { [(0, $0)] } ?? [])
      + workerOutbound.indices.compactMap { worker in ownOutbound(worker).map { (worker, $0) } }
  }
}
