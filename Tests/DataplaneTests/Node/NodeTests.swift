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

  /// The device may have packets as large as there are; what is sealed is never larger than what can be sent, and who sends
  /// more is told what he can send.
  @Test func theLargestDeviceFitsItsTransport() throws {
    let peer = OneBadPeerTests.Hub.Peer.carol
    let interface = InterfaceConfiguration(source: .name("none"), mtu: 65_535)
    let gateway = try NodeGateway(
      "hub",
      Configuration(
        interface: interface,
        peers: [
          PeerConfiguration(
            name: peer.name, prefixes: [Prefix(IPAddress(peer.address)!, length: 16)], path: peer.path,
            inbound: [peer.inbound], outbound: peer.outbound)
        ]), seed: 1, now: .seconds(100))
    func read(_ length: Int) {
      (gateway.sent, gateway.replies) = ([], [])
      let payload = [UInt8](repeating: 3, count: length - 28)
      gateway.read([
        PacketSketch("10.1.0.1", peer.address, .udp(sourcePort: 7, destinationPort: 7), payload: payload).bytes
      ])
    }
    read(65_535)
    let told = try #require(gateway.replies.first)
    let size = Int(told[26]) << 8 | Int(told[27])
    #expect(!gateway.sent.contains { $0.datagram.count > 1000 } && size > 65_400, "\(size)")
    read(size)
    let sealed = try #require(gateway.sent.first { $0.datagram.count > 1000 })
    let sent = sealed.datagram.count + 28
    #expect(gateway.replies.isEmpty && (65_500...65_535).contains(sent), "\(sent)")
    read(size + 1)
    #expect(!gateway.sent.contains { $0.datagram.count > 1000 } && gateway.replies.count == 1)
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
