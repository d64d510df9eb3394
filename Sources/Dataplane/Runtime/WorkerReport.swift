import PacketIO

/// A worker's figures at the end of a turn, as plain values that may leave its thread.
struct WorkerReport: Sendable {
  var outbound: TrafficCount
  var sealed: TrafficCount
  var arrived: TrafficCount
  var delivered: TrafficCount
  var outboundDrops: [DropCount]
  var inboundDrops: [DropCount]
  var firewall: Statistics.Firewall
  var peers: [Statistics.Peer] = []
  var transports: [Statistics.TransportStatistics] = []
  var controlSent: UInt64
  var controlReceived: UInt64
  var aggregation: AggregationCount
  var buffers: Int
  var freeBuffers: Int
  /// Packets and messages that were given to other workers.
  var handedOver: UInt64

  init(
    tables: Snapshot, outbound pipelineOut: borrowing OutboundPipeline, inbound pipelineIn: borrowing InboundPipeline,
    firewall: Statistics.Firewall, queue: TunQueue, links: [(any TransportLink)?], io: borrowing WorkerIO,
    handedOver: UInt64
  ) {
    self.handedOver = handedOver
    self.firewall = firewall
    outbound = pipelineOut.counters.arrived
    sealed = pipelineOut.counters.departed
    arrived = pipelineIn.counters.arrived
    controlSent = pipelineOut.controlSent
    controlReceived = pipelineIn.controlReceived
    aggregation = pipelineOut.aggregation
    aggregation.received = pipelineIn.aggregation.received
    aggregation.packetsReceived = pipelineIn.aggregation.packetsReceived
    delivered = queue.delivered
    outboundDrops = pipelineOut.counters.dropCounts()
    inboundDrops = pipelineIn.counters.dropCounts()
    if queue.refused > 0 { inboundDrops.append(DropCount(reason: .deviceRefused, packets: queue.refused)) }
    buffers = io.pool.count
    freeBuffers = io.pool.available
    for (index, link) in links.enumerated() {
      transports.append(Statistics.TransportStatistics(index: index, counters: link?.counters() ?? []))
    }
    for (index, configuration) in tables.configuration.peers.enumerated() {
      let entry = tables.peers[index]
      let heard = entry.state.value.lastHeard
      let selection = entry.state.value.choice
      peers.append(
        Statistics.Peer(
          name: configuration.name, path: entry.state.value.path?.endpoint.description, sent: entry.state.value.sent,
          received: entry.state.value.received, pathMTU: entry.state.value.mtu?.current,
          roundTrip: WorkerReport.roundTrip(entry.state),
          probesSent: entry.state.value.mtu?.probesSent ?? 0,
          probesAnswered: entry.state.value.mtu?.probesAnswered ?? 0,
          lastHeard: heard.map { Double(io.now.nanoseconds(since: $0)) / 1e9 },
          paths: WorkerReport.paths(configuration, entry.state, now: io.now), pathReason: selection?.reason,
          pathAge: selection.map { Double(io.now.nanoseconds(since: $0.since)) / 1e9 },
          pathChanges: selection?.switches ?? 0,
          associations: WorkerReport.associations(of: index, configuration, tables),
          translation: Statistics.Translation(tables, peer: index)))
    }
  }

  private static func roundTrip(_ state: StateReference<Peer>) -> Double? {
    let measured = [state.value.mtu?.roundTrip, state.value.selection.currentCandidate?.meter.roundTrip]
    return measured.compactMap { $0 }.first { $0 > 0 }.map { Double($0) / 1e9 }
  }

  /// In the order of preference.
  private static func paths(
    _ peer: PeerConfiguration, _ state: StateReference<Peer>, now: MonotonicTime
  ) -> [Statistics.ConfiguredPath] {
    guard let selection = state.value.choice else { return [] }
    return selection.candidates.sorted { ($0.order, $0.id) < ($1.order, $1.id) }.map { candidate in
      let isUsed = candidate.id == selection.current
      let meter = candidate.meter
      return Statistics.ConfiguredPath(
        name: candidate.place.flatMap { peer.paths.indices.contains($0) ? peer.paths[$0].name : nil }
          ?? PathChange.learned,
        transport: Int(candidate.path.transport), path: candidate.path.endpoint.description, state: candidate.state,
        stateAge: Double(now.nanoseconds(since: candidate.since)) / 1e9, isUsed: isUsed,
        roundTrip: meter.roundTrip > 0 ? Double(meter.roundTrip) / 1e9 : nil, loss: meter.loss, probesSent: meter.sent,
        probesAnswered: meter.answered, pathMTU: candidate.mtu?.current,
        seenAs: candidate.seen?.description, isOpenedByPeer: candidate.isOpenedByPeer)
    }
  }

  private static func associations(
    of index: Int, _ peer: PeerConfiguration, _ tables: Snapshot
  ) -> [Statistics.Association] {
    var list: [Statistics.Association] = []
    for outbound in [tables.peers[index].outbound, tables.peers[index].own].compactMap(\.self) {
      list.append(
        Statistics.Association(
          direction: .outbound, outbound.value.configuration, sequence: outbound.value.next - 1,
          packets: outbound.value.packets, bytes: outbound.value.bytes, drops: []))
    }
    for inbound in peer.inbound {
      guard let entry = tables.association(inbound.spi) else { continue }
      let drops = [
        DropCount(reason: .replayed, packets: entry.state.value.drops.replayed),
        DropCount(reason: .authenticationFailed, packets: entry.state.value.drops.authenticationFailed),
      ]
      list.append(
        Statistics.Association(
          direction: .inbound, inbound, sequence: entry.state.value.window.highest,
          packets: entry.state.value.packets, bytes: entry.state.value.bytes, drops: drops.filter { $0.packets > 0 }))
    }
    return list
  }
}

extension Statistics.Translation {
  fileprivate init?(_ tables: Snapshot, peer index: Int) {
    let plan = tables.plan.peers[index]
    let name = tables.configuration.peers[index].name
    failures = Statistics.Translation.failures(
      tables.agreements[name] ?? AddressAgreement(), unrouted: plan.unrouted,
      known: Set(plan.routes + plan.remote.map(\.real)))
    knownAs = plan.local.map { Space(real: $0.real, intermediate: $0.intermediate) }
    theirs = plan.remote.map { Space(real: $0.real, intermediate: $0.intermediate) }
    unrouted = plan.unrouted
    packets = tables.peers[index].state.value.translated
    if knownAs.isEmpty && theirs.isEmpty && unrouted.isEmpty && failures.isEmpty { return nil }
  }

  /// - Parameter known: prefixes of the peer that are reachable, by whatever addresses.
  private static func failures(_ agreement: AddressAgreement, unrouted: [Prefix], known: Set<Prefix>) -> [String] {
    var failures: [String] = []
    for (owner, spaces) in [("ours", agreement.local), ("theirs", agreement.remote)] {
      for space in spaces {
        if case .refused(let failure) = space.state { failures.append("\(space.prefix) (\(owner)): \(failure)") }
      }
    }
    for prefix in unrouted where !known.contains(prefix) {
      switch agreement.remote.first(where: { $0.prefix == prefix })?.state {
      case .refused: break
      case .withdrawn: failures.append("\(prefix) (theirs): the peer has taken it back; add it to its network again")
      case .pending, .asIs, .known: failures.append("\(prefix) (theirs): the gateways are still talking")
      case nil where agreement.isUnanswered:
        failures.append(
          "\(prefix) (theirs): it clashes, and the peer does not answer; see that it runs and negotiates, or pin a space"
        )
      case nil where agreement.local.isEmpty || !agreement.isSettled:
        failures.append("\(prefix) (theirs): it clashes, and nothing was heard from the peer yet")
      case nil:
        failures.append("\(prefix) (theirs): it clashes, and the peer does not announce it; add it to its network")
      }
    }
    return failures
  }
}

extension Statistics.Association {
  fileprivate init(
    direction: Direction, _ configuration: SecurityAssociationConfiguration, sequence: UInt64, packets: UInt64,
    bytes: UInt64, drops: [DropCount]
  ) {
    self.init(
      direction: direction, spi: configuration.spi, cipher: configuration.cipher,
      extendedSequenceNumbers: configuration.extendedSequenceNumbers, implicitIV: configuration.implicitIV,
      sequence: sequence, packets: packets, bytes: bytes, drops: drops)
  }
}
