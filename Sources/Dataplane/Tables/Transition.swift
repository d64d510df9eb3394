import PacketIO

/// What a worker does once to go over from what was in force to what is: `Registry` has prepared all of it, so that the
/// packet thread looks for nothing and allocates nothing. What was in force before stays in here, and goes with the
/// last who holds it: the thread that has asked for the change.
package final class Transition: @unchecked Sendable {
  /// An association that is new to the worker, and where its key stopped before.
  struct Arrival<Association: ~Copyable> {
    let cell: StateCell<Association>
    let mark: SequenceMark
  }

  /// Tables made anew, because those in force have no room; nil: rows of those are exchanged.
  var tables: Snapshot?
  var rows: [Snapshot.RowChange] = []
  var common: Snapshot.Common

  /// Associations that are not there any more, and where their numbers are to be left.
  var leavingOutbound: [Arrival<OutboundAssociation>] = []
  var leavingInbound: [Arrival<InboundAssociation>] = []
  var enteringOutbound: [Arrival<OutboundAssociation>] = []
  var enteringInbound: [Arrival<InboundAssociation>] = []
  var newLeases: [(StateReference<OutboundAssociation>, SequenceLease?)] = []
  var newInboundLeases: [(StateReference<InboundAssociation>, SequenceLease?)] = []
  /// Peers whose list of paths differs from the one before: it wins over what was learned.
  var moved: [(peer: StateReference<Peer>, paths: [ConfiguredPath])] = []

  /// Rows of peers that are new, or have another configured path or association: the size of their packets is to be
  /// found. Or there are probes to be sent because they tell the peer whether it may aggregate.
  var unsettled: [Int] = []
  /// Rows of peers that agree upon keys, and have another one for sending.
  var rekeyed: [Int] = []
  /// It differs from what was before in what was negotiated only.
  var isAgreement = false
  /// Whose it is.
  let worker: Int
  /// Nanoseconds that it took the worker; written by it, and read when all have done it.
  var duration: UInt64 = 0
  private let compiled: MonotonicTime

  init(_ common: Snapshot.Common, worker: Int, now: MonotonicTime) {
    self.common = common
    self.worker = worker
    compiled = now
  }

  /// Puts it in force. On the worker's thread, between two batches; once.
  /// - Returns: the tables in force from now on.
  package func takeOver(_ tables: Snapshot) -> Snapshot {
    for association in leavingOutbound {
      association.cell.reference.value.noteUsed()
      association.mark.number.store(association.cell.reference.value.next, ordering: .relaxed)
    }
    for association in leavingInbound {
      association.cell.reference.value.noteHighest()
      association.mark.number.store(association.cell.reference.value.window.highest, ordering: .relaxed)
    }
    for association in enteringOutbound {
      association.cell.reference.value.resume(from: association.mark.number.load(ordering: .relaxed))
    }
    for association in enteringInbound {
      association.cell.reference.value.resume(after: association.mark.number.load(ordering: .relaxed))
    }
    for (association, lease) in newLeases { association.value.renew(lease) }
    for (association, lease) in newInboundLeases { association.value.renew(lease) }
    for (peer, paths) in moved { peer.value.withSelection { $0.relist(paths, now: compiled) } }
    let next = self.tables
    next?.adopt(tables)
    for change in rows where change.isOtherPeer { (next ?? tables).welcome(change) }
    if let next {
      // So that what was in force goes with this.
      self.tables = tables
      return next
    }
    tables.exchange(&rows, &common)
    return tables
  }
}
