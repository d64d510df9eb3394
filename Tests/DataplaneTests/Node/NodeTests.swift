import PacketIO
import Testing

@testable import Dataplane

/// Whole workers in memory.
@Suite struct NodeTests {
  /// Packets go through, and the probes of both sides are answered.
  @Test(arguments: [1, 2, 4])
  func packetsAreDelivered(workers: Int) throws {
    let pair = try NodePair(workers: workers, seed: 1) {
      $0.firewall = FirewallConfiguration(
        mode: .on, rules: [FirewallRule(number: 1, direction: .inbound, action: .allow)])
    }
    pair.run(seconds: 3, packetsPerSecond: 300)
    pair.expectAll()
    for gateway in pair.gateways {
      gateway.check()
      let other = gateway.name == "alpha" ? "beta" : "alpha"
      #expect(gateway.drops.isEmpty, "\(gateway.drops)")
      #expect((gateway.peer(other).value.mtu?.probesAnswered ?? 0) > 3)
      let handedOver = gateway.nodes.map { $0.reference.value.handedOver }
      #expect(workers == 1 ? handedOver == [0] : handedOver.allSatisfy { $0 > 100 }, "\(handedOver)")
      // Each worker seals for itself by now, under its own association.
      for worker in 1..<workers { #expect(gateway.peer(other, worker: worker).value.path != nil) }
      #expect(gateway.peer(other).value.usesOwnAssociation == (workers > 1))
    }
  }

  /// Large packets vanish on the link; the nodes find that out, tell senders and send what fits.
  @Test(arguments: [1, 2])
  func findsWhatThePathTakes(workers: Int) throws {
    let pair = try NodePair(workers: workers, seed: 2)
    pair.links[0].mtu = 1380
    pair.run(seconds: 20, packetsPerSecond: 50, size: 1390)
    for gateway in pair.gateways {
      let mtu = gateway.peer(gateway.name == "alpha" ? "beta" : "alpha").value.mtu
      #expect((1360...1380).contains(mtu?.current ?? 0), "\(mtu?.current ?? 0)")
      #expect(!gateway.replies.isEmpty)
      gateway.check()
    }
    pair.forget()
    let lost = pair.links[0].lost
    pair.run(seconds: 5, packetsPerSecond: 50, size: 1300)
    pair.expectAll()
    #expect(pair.links[0].lost == lost)
  }

  /// A path dies under traffic: within two seconds packets take the other one, and come back when it is proved again.
  @Test(arguments: [1, 2])
  func leavesALostPath(workers: Int) throws {
    let pair = try NodePair(links: 2, workers: workers, seed: 3)
    pair.run(seconds: 3, packetsPerSecond: 100)
    pair.expectAll()
    for side in 0..<2 { #expect(path(of: pair, side) == pair.links[0].path(to: 1 - side)) }
    pair.links[0].isUp = false
    pair.run(seconds: 2, packetsPerSecond: 100)
    pair.forget()
    pair.run(seconds: 3, packetsPerSecond: 100)
    pair.expectAll()
    for side in 0..<2 {
      #expect(path(of: pair, side) == pair.links[1].path(to: 1 - side))
      #expect(changes(of: pair.gateways[side]).contains { $0.path == pair.links[1].path(to: 1 - side) })
    }
    pair.links[0].isUp = true
    pair.run(seconds: 30, packetsPerSecond: 20)
    pair.expectAll()
    for side in 0..<2 {
      #expect(path(of: pair, side) == pair.links[0].path(to: 1 - side))
      pair.gateways[side].check()
    }
  }

  private func path(of pair: NodePair, _ side: Int) -> Path? {
    pair.gateways[side].peer(side == 0 ? "beta" : "alpha").value.path
  }

  private func changes(of gateway: NodeGateway) -> [PathChange] {
    gateway.events.compactMap { if case .pathSelected(_, let change) = $0 { change } else { nil } }
  }

  /// The same seed gives the same datagrams, to the last byte.
  @Test func isDeterministic() throws {
    func trace() throws -> [[UInt8]] {
      let pair = try NodePair(links: 2, workers: 2, seed: 4)
      pair.run(seconds: 2, packetsPerSecond: 50)
      return pair.gateways.flatMap(\.delivered)
    }
    #expect(try trace() == trace())
  }

  /// A keep-alive is ordered of the transport once nothing was sent for so long.
  @Test func keepsQuietPathsOpen() throws {
    let pair = try NodePair(seed: 5) { $0.peers[0].keepAliveInterval = .seconds(2) }
    pair.run(seconds: 11)
    for (side, gateway) in pair.gateways.enumerated() {
      let keepAlives = gateway.commands.filter { $0 == .keepAlive(pair.links[0].path(to: 1 - side)) }
      #expect((4...6).contains(keepAlives.count), "\(gateway.commands)")
    }
  }

  /// Of a configuration that has other rows, hand-offs that speak of the old ones harm nobody.
  @Test func changesTablesUnderTraffic() throws {
    let pair = try NodePair(workers: 2, seed: 6)
    pair.run(seconds: 2, packetsPerSecond: 100)
    for change in 1...3 {
      for (side, gateway) in pair.gateways.enumerated() {
        var configuration = gateway.configuration
        let extra = PeerConfiguration(
          name: "other \(change)", prefixes: [Prefix("10.\(10 + change).0.0/16")!], path: .path(change))
        configuration.peers.insert(extra, at: side == 0 ? 0 : configuration.peers.count)
        try gateway.adopt(configuration, now: pair.now)
      }
      pair.run(seconds: 2, packetsPerSecond: 100)
    }
    pair.expectAll()
    for gateway in pair.gateways {
      gateway.check()
      #expect(gateway.drops.isEmpty, "\(gateway.drops)")
    }
  }
}
