import PacketIO

extension WorkerReport {
  /// Several workers' figures as one: sums, but for what worker 0 alone knows. Nil without any.
  init?(merging reports: [WorkerReport]) {
    guard var sum = reports.first else { return nil }
    for report in reports.dropFirst() {
      sum.outbound += report.outbound
      sum.sealed += report.sealed
      sum.arrived += report.arrived
      sum.delivered += report.delivered
      sum.outboundDrops = WorkerReport.merge(sum.outboundDrops, report.outboundDrops)
      sum.inboundDrops = WorkerReport.merge(sum.inboundDrops, report.inboundDrops)
      sum.firewall.add(report.firewall)
      sum.controlSent += report.controlSent
      sum.controlReceived += report.controlReceived
      sum.aggregation += report.aggregation
      sum.buffers += report.buffers
      sum.freeBuffers += report.freeBuffers
      sum.handedOver += report.handedOver
      for share in report.shares { Statistics.Share.add(share, to: &sum.shares) }
      for (index, transport) in report.transports.enumerated() where index < sum.transports.count {
        sum.transports[index].add(transport)
      }
    }
    self = sum
  }

  private static func merge(_ a: [DropCount], _ b: [DropCount]) -> [DropCount] {
    DropReason.allCases.compactMap { reason in
      let packets = (a + b).filter { $0.reason == reason }.reduce(0) { $0 + $1.packets }
      return packets > 0 ? DropCount(reason: reason, packets: packets) : nil
    }
  }
}

extension TrafficCount {
  static func += (sum: inout TrafficCount, other: TrafficCount) {
    sum.packets += other.packets
    sum.bytes += other.bytes
  }
}

extension AggregationCount {
  fileprivate static func += (sum: inout AggregationCount, other: AggregationCount) {
    sum.sent += other.sent
    sum.packetsSent += other.packetsSent
    sum.received += other.received
    sum.packetsReceived += other.packetsReceived
  }
}

extension Statistics.Worker {
  init(_ report: WorkerReport) {
    outbound = report.outbound
    sealed = report.sealed
    arrived = report.arrived
    delivered = report.delivered
    handedOver = report.handedOver
    freeBuffers = report.freeBuffers
  }
}

extension TranslationCount {
  static func += (sum: inout TranslationCount, other: TranslationCount) {
    sum.sent += other.sent
    sum.received += other.received
    sum.dnsRewritten += other.dnsRewritten
    sum.dnsSigned += other.dnsSigned
    sum.dnsUnfit += other.dnsUnfit
  }
}

extension Statistics.TransportStatistics {
  /// A worker that does not have the transport counts nothing.
  fileprivate mutating func add(_ other: Statistics.TransportStatistics) {
    guard counters.count == other.counters.count else { return }
    counters = zip(counters, other.counters).map {
      TransportCounter(name: $0.name, value: $0.value + $1.value, loss: $0.loss)
    }
  }
}

extension Statistics.Firewall {
  fileprivate mutating func add(_ other: Statistics.Firewall) {
    if rules.map(\.number) == other.rules.map(\.number) {
      for index in rules.indices { rules[index].traffic += other.rules[index].traffic }
    }
    for ground in other.grounds {
      if let index = grounds.firstIndex(where: { $0.name == ground.name }) {
        grounds[index].traffic += ground.traffic
      } else {
        grounds.append(ground)
      }
    }
    establishedFlows += other.establishedFlows
    pendingFlows += other.pendingFlows
    closedFlows += other.closedFlows
    flowCapacity += other.flowCapacity
    pendingCapacity += other.pendingCapacity
    opened += other.opened
    expired += other.expired
    evicted += other.evicted
    overflowed += other.overflowed
  }
}
