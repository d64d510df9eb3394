import PacketIO
import Testing

@testable import Dataplane

/// Of each resource that peers share in a node: bob takes as much as he can, carol goes on as if he were not there.
@Suite struct OneBadPeerTests {
  /// A gateway with two peers, whose packets the test seals.
  final class Hub {
    enum Peer: Int, CaseIterable {
      case bob, carol
      var name: String { self == .bob ? "bob" : "carol" }
      var address: String { self == .bob ? "10.2.0.1" : "10.3.0.1" }
      var path: Path { Path(endpoint: Endpoint(address: IPAddress(v4: 0xC612_0001 + UInt32(rawValue)), port: 4500)) }
      var inbound: SecurityAssociationConfiguration { association(0x3000, 1) }
      var outbound: SecurityAssociationConfiguration { association(0x4000, 2) }

      private func association(_ spi: UInt32, _ key: UInt8) -> SecurityAssociationConfiguration {
        SecurityAssociationConfiguration(
          spi: spi + UInt32(rawValue), cipher: .aes128GCM,
          key: KeyMaterial([UInt8](repeating: key + 16 * UInt8(rawValue), count: 20)))
      }
    }

    static let address = "10.1.0.1"
    let gateway: NodeGateway
    private(set) var now = MonotonicTime.seconds(100)
    private var sequences: [UInt64] = [0, 0]
    private let seals = Peer.allCases.map { SlowESP($0.inbound) }

    init() throws {
      let peers = Peer.allCases.map { peer in
        PeerConfiguration(
          name: peer.name, prefixes: [Prefix(IPAddress(peer.address)!, length: 16)], path: peer.path,
          inbound: [peer.inbound], outbound: peer.outbound, aggregates: true)
      }
      let firewall = FirewallConfiguration(
        mode: .on, logsRefusals: true, flowCapacity: 64, pendingCapacity: 32)
      gateway = try NodeGateway(
        "hub",
        Configuration(interface: InterfaceConfiguration(source: .name("none")), peers: peers, firewall: firewall),
        seed: 1, now: now)
    }

    var node: StateReference<Node> { gateway.nodes[0].reference }

    func pass(seconds: Double) {
      now = now.adding(nanoseconds: UInt64(seconds * 1e9))
      gateway.tick(now)
    }

    func bring(_ plain: [UInt8], nextHeader: UInt8, from peer: Peer, by path: Path? = nil) {
      sequences[peer.rawValue] += 1
      let sealed = seals[peer.rawValue].seal(
        plain, sequence: sequences[peer.rawValue], nextHeader: nextHeader)
      gateway.receive(Train(sealed, path: path ?? peer.path))
    }

    /// A packet that does not come now.
    func seal(_ packet: PacketSketch, from peer: Peer) -> [UInt8] {
      sequences[peer.rawValue] += 1
      return seals[peer.rawValue].seal(packet, sequence: sequences[peer.rawValue])
    }

    func bring(_ packet: PacketSketch, from peer: Peer) { bring(packet.bytes, nextHeader: 4, from: peer) }

    func bring(_ type: UInt8, _ body: [UInt8], from peer: Peer, by path: Path? = nil) {
      bring(
        [0x43, 0x55, 0x4C, 0x56, 1, type] + be16(UInt16(body.count)) + body, nextHeader: 59, from: peer, by: path)
    }

    /// What the hub has sealed for a peer since the last call.
    func takeSent(to peer: Peer) -> Int {
      let count = gateway.sent.count { bigEndian($0.datagram[0..<4]) == UInt64(peer.outbound.spi) }
      gateway.sent = []
      return count
    }

    func takeDelivered(from peer: Peer) -> Int {
      let source = be32(IPAddress(peer.address)!.v4)
      defer { gateway.delivered = [] }
      return gateway.delivered.count { Array($0[12..<16]) == source }
    }

    func refused(_ resource: SharedResource, to peer: Peer) -> UInt64 {
      let shares = node.value.shares.filter { $0.resource == resource }
      let row = node.value.tables.row(of: peer.name)!
      return shares.flatMap(\.holders).filter { $0.holder.row == row }.reduce(0) { $0 + $1.refused }
    }

    /// Bob has lost something, carol nothing.
    func expectLoss(_ resource: SharedResource, _ what: String, sourceLocation: SourceLocation = #_sourceLocation) {
      let (bob, carol) = (refused(resource, to: .bob), refused(resource, to: .carol))
      #expect(bob > 0 && carol == 0, "\(resource): bob \(bob), carol \(carol)", sourceLocation: sourceLocation)
      print("\(resource.rawValue): \(what): refused \(bob) times")
    }
  }

  private static func echo(_ identifier: Int, from peer: Hub.Peer) -> PacketSketch {
    PacketSketch(peer.address, Hub.address, .other(1), payload: icmp(8, identifier))
  }

  private static func icmp(_ type: UInt8, _ identifier: Int) -> [UInt8] {
    let body = be16(UInt16(truncatingIfNeeded: identifier)) + be16(1) + [1, 2, 3, 4]
    let words =
      [UInt16(type) << 8] + stride(from: 0, to: body.count, by: 2).map { UInt16(body[$0]) << 8 | UInt16(body[$0 + 1]) }
    var sum = words.reduce(UInt32(0)) { $0 + UInt32($1) }
    while sum > 0xFFFF { sum = sum & 0xFFFF + sum >> 16 }
    return [type, 0] + be16(~UInt16(sum)) + body
  }

  @Test func flowsThatAreNotAnswered() throws {
    let hub = try Hub()
    for round in 0..<200 {
      for identifier in 0..<10 { hub.bring(Self.echo(round * 10 + identifier, from: .bob), from: .bob) }
      hub.bring(Self.echo(round % 8, from: .carol), from: .carol)
      for identifier in 0..<10 { hub.bring(Self.echo(30_000 + round * 10 + identifier, from: .bob), from: .bob) }
      #expect(hub.takeDelivered(from: .carol) == 1)
      _ = hub.takeSent(to: .carol)
      let answer = PacketSketch(
        Hub.address, Hub.Peer.carol.address, .other(1), payload: Self.icmp(0, round % 8))
      hub.gateway.read([answer.bytes])
      #expect(hub.takeSent(to: .carol) == 1, "round \(round)")
    }
    hub.expectLoss(.pendingFlowsInbound, "4,000 pings")
  }

  @Test func flowsThatLast() throws {
    let hub = try Hub()
    func open(_ port: Int, from peer: Hub.Peer) {
      let here = UInt16(33434 + port / 1000)
      let there = UInt16(2000 + port % 1000)
      let question = PacketSketch(
        peer.address, Hub.address, .udp(sourcePort: there, destinationPort: here), payload: [1])
      hub.bring(question, from: peer)
      hub.gateway.read([
        PacketSketch(Hub.address, peer.address, .udp(sourcePort: here, destinationPort: there), payload: [2]).bytes
      ])
      hub.bring(question, from: peer)
    }
    for port in 0..<1000 { open(port, from: .bob) }
    for port in 0..<20 { open(port, from: .carol) }
    for port in 1000..<3000 { open(port, from: .bob) }
    // Nobody of hers has heard anything for a while, and the host here speaks first.
    for port in 0..<20 {
      _ = hub.takeSent(to: .carol)
      hub.gateway.read([
        PacketSketch(
          Hub.address, Hub.Peer.carol.address,
          .udp(sourcePort: 33434, destinationPort: UInt16(2000 + port)), payload: [3]
        ).bytes
      ])
      #expect(hub.takeSent(to: .carol) == 1)
    }
    let established = hub.node.value.shares.first { $0.resource == .flows }!
    #expect(established.used == 64 && established.holders.first { $0.holder.row == 1 }?.held == 20)
    hub.expectLoss(.flows, "3,000 connections")
  }

  @Test func fragments() throws {
    let hub = try Hub()
    func fragment(_ number: Int, from peer: Hub.Peer, isFirst: Bool) -> PacketSketch {
      var packet = Self.echo(7, from: peer)
      packet.dontFragment = false
      packet.identification = UInt16(truncatingIfNeeded: number)
      packet.fragment = (isFirst ? 0 : 2, isFirst)
      packet.payload = isFirst ? Self.icmp(8, 7) + [0, 0, 0, 0] : [5, 5, 5, 5]
      return packet
    }
    // Hers are over, and take no room from those that follow.
    for round in 0..<800 {
      for number in 0..<5 { hub.bring(fragment(round * 5 + number, from: .bob, isFirst: true), from: .bob) }
      hub.bring(fragment(round, from: .carol, isFirst: true), from: .carol)
      for number in 0..<5 { hub.bring(fragment(20_000 + round * 5 + number, from: .bob, isFirst: true), from: .bob) }
      hub.bring(fragment(round, from: .carol, isFirst: false), from: .carol)
      #expect(hub.takeDelivered(from: .carol) == 2, "round \(round)")
    }
    hub.expectLoss(.fragments, "8,000 first fragments")
  }

  @Test func fragmentsInSharedPackets() throws {
    let hub = try Hub()
    let packet = Self.echo(9, from: .carol).bytes
    let cut = packet.count / 2
    for round in 0..<20 {
      for _ in 0..<100 { hub.bring(SlowAggregate.header(0) + packet[..<cut], nextHeader: 144, from: .bob) }
      hub.bring(SlowAggregate.header(0) + packet[..<cut], nextHeader: 144, from: .carol)
      for _ in 0..<100 { hub.bring(SlowAggregate.header(0) + packet[..<cut], nextHeader: 144, from: .bob) }
      hub.bring(
        SlowAggregate.header(packet.count - cut) + packet[cut...], nextHeader: 144, from: .carol)
      #expect(hub.takeDelivered(from: .carol) == 1, "round \(round)")
    }
    hub.expectLoss(.aggregationFragments, "4,000 beginnings")
    // They are not held until something comes.
    hub.pass(seconds: 2)
    let isEmpty = hub.node.value.datapath.inbound.fragments.isEmpty
    #expect(isEmpty)
  }

  @Test func controlMessages() throws {
    let hub = try Hub()
    for round in 0..<20 {
      for number in 0..<300 {
        let probe = ProbeMessage(number: UInt64(number), tieBreaker: 1, rank: 0, isUsed: true)
        hub.bring(ControlMessage.Kind.probe, probe.body, from: .bob)
      }
      _ = hub.takeSent(to: .carol)
      let probe = ProbeMessage(number: UInt64(round), tieBreaker: 1, rank: 0, isUsed: true)
      hub.bring(ControlMessage.Kind.probe, probe.body, from: .carol)
      #expect(hub.takeSent(to: .carol) == 1, "round \(round)")
      hub.pass(seconds: 0.1)
    }
    hub.expectLoss(.controlMessages, "6,000 probes in two seconds")
    #expect(hub.gateway.drops[.controlLimit] ?? 0 > 4000)
    hub.gateway.check()
  }

  @Test func negotiation() throws {
    let hub = try Hub()
    for round in 0..<20 {
      for number in 0..<40 { hub.bring(ControlMessage.Kind.addresses, [UInt8(number)], from: .bob) }
      hub.bring(ControlMessage.Kind.addresses, [UInt8(round)], from: .carol)
      hub.pass(seconds: 0.1)
    }
    func heard(_ peer: Hub.Peer) -> Int {
      hub.gateway.notices.count { if case .message(peer.name, _, _) = $0 { true } else { false } }
    }
    #expect(heard(.carol) == 20 && (20...60).contains(heard(.bob)))
    hub.expectLoss(.negotiation, "800 messages in two seconds")
  }

  /// Packets under bob's key come from everywhere: without an answer from there, traffic does not follow.
  @Test func movesOfThePath() throws {
    let hub = try Hub()
    // He answers a probe, so he is asked before he is followed.
    hub.gateway.read([PacketSketch(Hub.address, Hub.Peer.bob.address, .other(50), payload: [1, 2]).bytes])
    hub.pass(seconds: 0.2)
    func answerProbes(to path: Path) -> Int {
      let probes = hub.gateway.sent.filter { $0.path == path }.compactMap {
        SlowESP(Hub.Peer.bob.outbound).open($0.datagram)
      }
      .filter { $0.nextHeader == 59 && $0.payload[5] == ControlMessage.Kind.probe }
      hub.gateway.sent = []
      for probe in probes {
        let number = bigEndian(probe.payload[8..<16])
        hub.bring(ControlMessage.Kind.probeReply, ProbeReply(number: number, seen: nil).body, from: .bob, by: path)
      }
      return probes.count
    }
    #expect(answerProbes(to: Hub.Peer.bob.path) > 0)
    let victim = Path(endpoint: Endpoint(address: IPAddress("203.0.113.9")!, port: 7))
    for number in 0..<500 {
      let place = Path(endpoint: Endpoint(address: IPAddress(v4: 0xCB00_7100 | UInt32(number % 200)), port: 7))
      hub.bring(Self.echo(number, from: .bob).bytes, nextHeader: 4, from: .bob, by: number == 499 ? victim : place)
    }
    // He guesses, too.
    for number in 1...100 as ClosedRange<UInt64> {
      hub.bring(ControlMessage.Kind.probeReply, ProbeReply(number: number, seen: nil).body, from: .bob, by: victim)
    }
    #expect(hub.gateway.peer("bob").value.path == Hub.Peer.bob.path)
    #expect(!hub.gateway.events.contains { if case .pathChanged = $0 { true } else { false } })
    // Where he is, he can answer.
    hub.pass(seconds: 0.2)
    hub.gateway.sent = []
    hub.bring(Self.echo(1, from: .bob).bytes, nextHeader: 4, from: .bob, by: victim)
    #expect(answerProbes(to: victim) == 1)
    #expect(hub.gateway.peer("bob").value.path == victim)
  }

  /// Who answers no probes is followed, but not as often as he likes.
  @Test func movesOfWhoAnswersNothing() throws {
    let hub = try Hub()
    for number in 0..<500 {
      let place = Path(endpoint: Endpoint(address: IPAddress(v4: 0xCB00_7100 | UInt32(number % 200)), port: 7))
      hub.bring(Self.echo(number, from: .bob).bytes, nextHeader: 4, from: .bob, by: place)
      if number % 50 == 49 { hub.pass(seconds: 0.1) }
    }
    let moves = hub.gateway.events.count { if case .pathChanged = $0 { true } else { false } }
    #expect((1...11).contains(moves), "\(moves)")
    hub.expectLoss(.pathMoves, "500 packets from 200 addresses")
  }

  /// Somebody who has copied carol's packets sends them again and again: what is said to her about it is bounded, so that
  /// she goes on to hear what matters.
  @Test func copiesOfOldPackets() throws {
    let hub = try Hub()
    let copies = (0..<40).map { hub.seal(Self.echo($0, from: .carol), from: .carol) }
    for number in 40..<3000 { _ = hub.seal(Self.echo(number, from: .carol), from: .carol) }
    hub.bring(Self.echo(1, from: .carol), from: .carol)
    _ = hub.takeSent(to: .carol)
    for _ in 0..<20 {
      for _ in 0..<10 {
        for copy in copies { hub.gateway.receive(Train(copy, path: Hub.Peer.carol.path)) }
      }
      hub.pass(seconds: 0.1)
    }
    let said = hub.takeSent(to: .carol)
    // Some are her probes.
    #expect((1...120).contains(said), "\(said)")
    #expect(hub.refused(.refusals, to: .carol) > 100)
  }

  /// Packets under bob's key come from one address after the other: each asks for an answer, and few are asked.
  @Test func questionsToWhoIsNotThere() throws {
    let hub = try Hub()
    hub.gateway.read([PacketSketch(Hub.address, Hub.Peer.bob.address, .other(50), payload: [1, 2]).bytes])
    hub.bring(ControlMessage.Kind.probeReply, ProbeReply(number: 1, seen: nil).body, from: .bob)
    hub.gateway.sent = []
    for number in 0..<500 {
      let place = Path(endpoint: Endpoint(address: IPAddress(v4: 0xCB00_7100 | UInt32(number % 200)), port: 7))
      hub.bring(Self.echo(number, from: .bob).bytes, nextHeader: 4, from: .bob, by: place)
    }
    let asked = hub.gateway.sent.count { $0.path != Hub.Peer.bob.path }
    #expect(asked == 1)
  }

  /// Bob's packets to carol are too big for her path, and he is told so: hers to him, and hosts here, are told all the same.
  @Test func packetsThatAreTooBig() throws {
    let hub = try Hub()
    func big(from source: String, to destination: String) -> PacketSketch {
      PacketSketch(
        source, destination, .udp(sourcePort: 7, destinationPort: 7), payload: [UInt8](repeating: 1, count: 9000))
    }
    func told(_ address: String) -> Int {
      hub.gateway.replies.count { Array($0[16..<20]) == be32(IPAddress(address)!.v4) }
    }
    for round in 0..<20 {
      hub.gateway.replies = []
      for _ in 0..<100 { hub.gateway.read([big(from: Hub.Peer.bob.address, to: Hub.Peer.carol.address).bytes]) }
      hub.gateway.read([big(from: Hub.Peer.carol.address, to: Hub.Peer.bob.address).bytes])
      hub.gateway.read([big(from: Hub.address, to: Hub.Peer.bob.address).bytes])
      #expect(told(Hub.Peer.bob.address) < 20, "round \(round)")
      #expect(told(Hub.Peer.carol.address) == 1 && told(Hub.address) == 1, "round \(round)")
      hub.pass(seconds: 0.1)
    }
    hub.expectLoss(.sizeMessages, "2,000 packets too big")
  }

  /// Bob knocks at doors that are closed, which the firewall notes: it notes carol's, too.
  @Test func linesInTheLog() throws {
    let hub = try Hub()
    func knock(_ peer: Hub.Peer, _ port: Int) {
      let door = PacketSketch.TCP(
        sourcePort: 1000, destinationPort: UInt16(truncatingIfNeeded: 1000 + port), flags: TCPFlags.syn)
      hub.bring(PacketSketch(peer.address, Hub.address, .tcp(door)), from: peer)
    }
    for round in 0..<10 {
      hub.gateway.events = []
      for port in 0..<300 { knock(.bob, round * 300 + port) }
      knock(.carol, round)
      hub.pass(seconds: 2)
      let noted = hub.gateway.events.compactMap { if case .firewallLog(let entry) = $0 { entry.peer } else { nil } }
      let (bob, carol) = (noted.count { $0 == "bob" }, noted.count { $0 == "carol" })
      #expect(carol == 1 && (1...20).contains(bob), "round \(round): \(bob), \(carol)")
    }
    hub.expectLoss(.firewallLog, "3,000 packets that are refused")
  }
}
