import PacketIO

/// A worker's figures at the end of a turn, as plain values that may leave its thread. What people read is made of them
/// by whoever has asked.
struct WorkerReport: Sendable {
  var outbound: TrafficCount
  var sealed: TrafficCount
  var arrived: TrafficCount
  var delivered: TrafficCount
  var outboundDrops: [DropCount]
  var inboundDrops: [DropCount]
  var firewall: Statistics.Firewall
  var peers: [PeerReport] = []
  var transports: [Statistics.TransportStatistics] = []
  var controlSent: UInt64
  var controlReceived: UInt64
  var aggregation: AggregationCount
  var buffers: Int
  var freeBuffers: Int
  /// Packets and messages that were given to other workers.
  var handedOver: UInt64
  /// Who holds how much of what peers and strangers share.
  var shares: [Statistics.Share]

  init(
    tables: Snapshot, outbound pipelineOut: borrowing OutboundPipeline, inbound pipelineIn: borrowing InboundPipeline,
    firewall: Statistics.Firewall, queue: TunQueue, links: [(any TransportLink)?], io: borrowing WorkerIO,
    handedOver: UInt64, shares: [ShareReport]
  ) {
    self.handedOver = handedOver
    func name(_ holder: Holder) -> String {
      switch holder {
      case .peer: tables.record(Int(holder.row))?.configuration.name ?? "nobody"
      case .origin(let address): "\(address)"
      case .dialled(let endpoint): "\(endpoint)"
      }
    }
    self.shares = shares.map { Statistics.Share($0, transport: nil, name: name) }
    for (index, link) in links.enumerated() {
      self.shares += (link?.shares() ?? []).map { Statistics.Share($0, transport: index, name: name) }
    }
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
    peers = (0..<tables.peers.count).compactMap { PeerReport(tables, row: $0, now: io.now) }
  }
}
