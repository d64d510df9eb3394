import PacketIO
import Testing

@testable import Dataplane

/// Another policy comes into force while flows are under way.
@Suite struct FirewallReloadTests {
  private static func on(_ rules: [FirewallRule] = []) -> FirewallConfiguration {
    FirewallConfiguration(mode: .on, rules: rules)
  }

  private static func allow(_ ports: ClosedRange<UInt16>, number: Int = 10) -> FirewallRule {
    FirewallRule(number: number, protocol: .tcp, direction: .inbound, destinationPorts: ports, action: .allow)
  }

  @Test func flowsThatAreStillAllowedGoOnWithTheirState() {
    let gate = Gate(Self.on([Self.allow(80...80)]))
    let connection = Connection(gate, opener: .inbound, localPort: 80, remotePort: 40000)
    connection.open()
    connection.send(.inbound, 1000)
    gate.reload(Self.on([FirewallRule(number: 1, protocol: .udp, action: .deny), Self.allow(80...90)]))
    let version = connection.flow?.version
    connection.send(.inbound, 1000)
    #expect(connection.flow?.version != version, "judged again")
    #expect(connection.flow?.isLoose == false)
    let wild = connection.packet(.inbound, sequence: 0x7000_0000, payload: 10)
    #expect(connection.judge(wild) == .invalidConnectionState, "its windows are still known")
  }

  @Test func flowsThatAreNotAllowedAnyMoreEndWithTheirNextPacket() {
    for direction in [TrafficDirection.inbound, .outbound] {
      let gate = Gate(Self.on([Self.allow(80...80)]))
      let connection = Connection(gate, opener: .inbound, localPort: 80, remotePort: 40000)
      connection.open()
      gate.reload(Self.on())
      #expect(connection.flow != nil, "only its next packet ends it")
      #expect(connection.judge(connection.packet(direction, payload: 10)) == .firewallDefault)
      #expect(connection.flow == nil)
    }
  }

  @Test func aDenyInFrontEndsFlows() {
    let gate = Gate()
    #expect(gate.out(.udp(.outbound, 40000, 53)) == nil)
    #expect(gate.out(.icmp(.outbound, 8, word: 0x0042_0001)) == nil)
    gate.reload(Self.on([FirewallRule(number: 1, protocol: .udp, action: .deny)]))
    #expect(gate.back(.udp(.inbound, 40000, 53)) == .firewallRule)
    #expect(gate.back(.icmp(.inbound, 0, word: 0x0042_0001)) == nil)
    gate.reload(Self.on([FirewallRule(number: 1, protocol: .icmp, action: .deny)]))
    #expect(gate.back(.icmp(.inbound, 0, word: 0x0042_0001)) == .firewallRule)
  }

  @Test func anErrorAboutAFlowThatIsForbiddenNowIsRefusedToo() {
    let gate = Gate()
    let packet = PacketSketch.udp(.outbound, 40000, 53)
    #expect(gate.out(packet) == nil)
    gate.reload(Self.on([FirewallRule(number: 1, protocol: .udp, action: .deny)]))
    #expect(gate.back(.error(3, code: 3, about: packet)) == .firewallRule)
  }

  /// Invariant 7.
  @Test func theSamePolicyAgainChangesNothing() {
    let configuration = Self.on([Self.allow(80...80)])
    let gate = Gate(configuration)
    let connection = Connection(gate, opener: .inbound, localPort: 80, remotePort: 40000)
    connection.open()
    let policy = gate.tables.firewall
    let counted = gate.firewall.report()
    gate.reload(configuration)
    #expect(gate.tables.firewall === policy)
    #expect(gate.firewall.report() == counted)
    #expect(connection.flow?.version == policy.version)
  }

  /// Whatever a judgement depends on makes another version: rules, access lists, and whose addresses are whose.
  @Test func whatMattersMakesAnotherVersion() {
    let base = Gate.configuration(Self.on(), nil)
    let changes: [(String, Bool, (inout Configuration) -> Void)] = [
      ("mode", true, { $0.firewall.mode = .tunnelOnly }),
      ("rule", true, { $0.firewall.rules = [Self.allow(1...2)] }),
      ("access", true, { $0.peers[0].access = [] }),
      ("prefixes", true, { $0.peers[1].prefixes = [Prefix("10.4.0.0/16")!] }),
      ("peer", true, { $0.peers.removeLast() }),
      ("MTU", false, { $0.interface.mtu = 1300 }),
      ("keep-alive", false, { $0.peers[0].keepAliveInterval = .seconds(7) }),
    ]
    for (name, isOther, change) in changes {
      let gate = Gate(Self.on())
      let before = gate.tables.firewall
      var next = base
      change(&next)
      gate.reload(next)
      #expect((gate.tables.firewall !== before) == isOther, "\(name)")
      #expect((gate.tables.firewall.version != before.version) == isOther, "\(name)")
    }
  }

  /// Rules that stay as they were keep their counts; others begin at zero.
  @Test func countsStayWithTheirRule() {
    let web = FirewallRule(number: 20, name: "web", protocol: .tcp, destinationPorts: 80...80, action: .allow)
    let dns = FirewallRule(number: 10, name: "dns", protocol: .udp, destinationPorts: 53...53, action: .allow)
    let gate = Gate(Self.on([web, dns]))
    #expect(gate.out(.udp(.outbound, 1, 53, payload: [1, 2])) == nil)
    #expect(gate.back(.udp(.inbound, 1, 53, payload: [1, 2])) == nil)
    let connection = Connection(gate, opener: .outbound, remotePort: 80)
    connection.open()
    func counts() -> [String: UInt64] {
      Dictionary(
        uniqueKeysWithValues: gate.firewall.report().rules.map { ("\($0.number) \($0.name)", $0.traffic.packets) })
    }
    #expect(counts() == ["10 dns": 2, "20 web": 3])
    #expect(gate.firewall.report().rules[0].traffic.bytes == 60)
    var renamed = web
    renamed.name = "www"
    gate.reload(Self.on([renamed, dns, FirewallRule(number: 1, protocol: .icmp, action: .deny)]))
    #expect(counts() == ["1 ": 0, "10 dns": 2, "20 www": 0])
    connection.send(.outbound, 10)
    #expect(gate.out(.udp(.outbound, 1, 53)) == nil)
    #expect(counts() == ["1 ": 0, "10 dns": 3, "20 www": 2], "flows count for the rule that allows them now")
  }

  // MARK: Access lists

  private static let server = Prefix("10.1.0.5")!

  private func connection(_ gate: Gate, _ direction: TrafficDirection, local: String, port: UInt16) -> PacketSketch {
    var syn = PacketSketch(
      direction, .tcp(.init(sourcePort: 40000, destinationPort: port, flags: TCPFlags.syn)))
    if direction == .outbound { syn.source = IPAddress(local)! } else { syn.destination = IPAddress(local)! }
    return syn
  }

  @Test(arguments: [FirewallConfiguration.Mode.on, .tunnelOnly])
  func aPartnerReachesOnlyWhatItsListNames(mode: FirewallConfiguration.Mode) {
    let everything = FirewallConfiguration(mode: mode, rules: [FirewallRule(number: 1, action: .allow)])
    let gate = Gate(
      everything,
      access: [
        AccessEntry(hosts: Self.server, direction: .inbound, protocol: .tcp, ports: 443...443),
        AccessEntry(hosts: Prefix("10.1.7.0/24")!, direction: .outbound),
      ])
    #expect(gate.back(connection(gate, .inbound, local: "10.1.0.5", port: 443)) == nil)
    #expect(gate.back(connection(gate, .inbound, local: "10.1.0.5", port: 22)) == .accessList)
    #expect(gate.back(connection(gate, .inbound, local: "10.1.0.6", port: 443)) == .accessList)
    #expect(gate.back(connection(gate, .inbound, local: "10.1.7.1", port: 443)) == .accessList)
    #expect(gate.out(connection(gate, .outbound, local: "10.1.7.1", port: 9)) == nil)
    #expect(gate.out(connection(gate, .outbound, local: "10.1.0.5", port: 443)) == .accessList)
    // The server's answer belongs to the partner's flow.
    var answer = PacketSketch(
      .outbound,
      .tcp(
        .init(
          sourcePort: 443, destinationPort: 40000, sequence: 9, acknowledgement: 2, flags: TCPFlags.syn | TCPFlags.ack))
    )
    answer.source = IPAddress("10.1.0.5")!
    #expect(gate.out(answer) == nil)
    // A ping of a host that is not on the list.
    #expect(gate.back(.icmp(.inbound, 8, word: 1)) == .accessList)
    // The other partner has no list.
    var other = connection(gate, .inbound, local: "10.1.0.6", port: 22)
    other.source = IPAddress("10.3.0.1")!
    #expect(gate.back(other) == nil)
  }

  /// An access list allows nothing that rules deny.
  @Test func rulesHoldWithinAnAccessList() {
    let gate = Gate(access: [AccessEntry(hosts: Self.server)])
    #expect(gate.back(connection(gate, .inbound, local: "10.1.0.5", port: 443)) == .firewallDefault)
    #expect(gate.out(connection(gate, .outbound, local: "10.1.0.5", port: 443)) == nil)
  }

  @Test func anEmptyListMeansNothing() {
    let gate = Gate(FirewallConfiguration(mode: .tunnelOnly), access: [])
    #expect(gate.out(.udp(.outbound, 1, 2)) == .accessList)
    #expect(gate.back(.udp(.inbound, 1, 2)) == .accessList)
  }

  @Test(arguments: [FirewallConfiguration.Mode.on, .tunnelOnly])
  func aNarrowedListEndsFlows(mode: FirewallConfiguration.Mode) {
    let everything = FirewallConfiguration(mode: mode, rules: [FirewallRule(number: 1, action: .allow)])
    let gate = Gate(everything, access: [AccessEntry(hosts: Prefix("10.1.0.0/16")!)])
    let connection = Connection(gate, opener: .inbound, localPort: 443, remotePort: 40000)
    connection.open()
    gate.reload(everything, access: [AccessEntry(hosts: Self.server)])
    #expect(connection.judge(connection.packet(.outbound, payload: 10)) == .accessList)
    #expect(connection.judge(connection.packet(.inbound, payload: 10)) == .accessList)
    gate.reload(everything)
    connection.pass(.inbound, payload: 10)
  }

  // MARK: Modes

  @Test func tunnelOnlyPassesWithoutRulesAndRemembersNothing() {
    let gate = Gate(FirewallConfiguration(mode: .tunnelOnly, rules: [FirewallRule(number: 1, action: .deny)]))
    #expect(!gate.tables.firewall.isActive, "nobody has an access list, so nothing is to be judged")
    #expect(gate.back(.udp(.inbound, 53, 40000)) == nil)
    #expect(gate.flowCount == 0)
  }

  @Test func offJudgesNothing() {
    let gate = Gate(FirewallConfiguration(mode: .off, rules: [FirewallRule(number: 1, action: .deny)]), access: [])
    #expect(!gate.tables.firewall.isActive)
  }

  /// While it was off, connections went on unseen: what was known of them is not true any more.
  @Test func flowsDoNotOutliveAChangeOfMode() {
    let gate = Gate()
    let connection = Connection(gate, opener: .outbound)
    connection.open()
    gate.reload(FirewallConfiguration(mode: .off))
    #expect(gate.flowCount == 0)
    connection.ends[.outbound]!.next &+= 50_000_000
    connection.ends[.inbound]!.next &+= 90_000_000
    gate.reload(FirewallConfiguration(mode: .on))
    connection.pass(.outbound, payload: 10)
    connection.pass(.inbound, payload: 10)
    #expect(connection.flow?.isLoose == true)
  }
}
