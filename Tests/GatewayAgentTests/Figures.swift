import PacketIO

@testable import Dataplane
@testable import Gateway

/// Statistics as a dataplane would give them, with sequence numbers that a test sets.
struct Figures {
  var statistics: Statistics

  init(_ plan: GatewayPlan) {
    statistics = Statistics(
      [], uptime: 3725, interface: "culvert7", offloads: ["checksum", "tcp4"], engine: "openssl", lostEvents: 0)
    statistics.outbound = TrafficCount(packets: 1000, bytes: 1_000_000)
    statistics.outboundDrops = [
      DropCount(reason: .noRoute, packets: 3), DropCount(reason: .noPath, packets: 0),
    ]
    statistics.transports = [
      Statistics.TransportStatistics(index: 0, counters: [TransportCounter(name: "received", value: 12)])
    ]
    for peer in plan.peers.map(\.configuration) {
      var associations: [Statistics.Association] = []
      if let outbound = peer.outbound { associations.append(Figures.association(.outbound, outbound)) }
      associations += peer.inbound.map { Figures.association(.inbound, $0) }
      statistics.peers.append(
        Statistics.Peer(
          name: peer.name, path: peer.path?.endpoint, sent: TrafficCount(), received: TrafficCount(),
          lastHeard: peer.path == nil ? nil : 2, associations: associations))
    }
  }

  private static func association(
    _ direction: Statistics.Association.Direction, _ configuration: SecurityAssociationConfiguration
  ) -> Statistics.Association {
    Statistics.Association(
      direction: direction, spi: configuration.spi, cipher: configuration.cipher,
      extendedSequenceNumbers: configuration.extendedSequenceNumbers, implicitIV: configuration.implicitIV,
      sequence: 0, packets: 0, bytes: 0,
      drops: direction == .inbound ? [DropCount(reason: .replayed, packets: 7)] : [])
  }

  mutating func set(_ peer: String, _ direction: Statistics.Association.Direction, _ sequence: UInt64) {
    for p in statistics.peers.indices where statistics.peers[p].name == peer {
      for a in statistics.peers[p].associations.indices
      where statistics.peers[p].associations[a].direction == direction {
        statistics.peers[p].associations[a].sequence = sequence
      }
    }
  }
}
