import PacketIO
import Testing

@testable import Dataplane

/// Floods against full tables: who established a flow keeps it, and who floods pushes out himself.
@Suite struct FirewallFloodTests {
  private static func configuration(flows: Int = 64, pending: Int = 128) -> FirewallConfiguration {
    FirewallConfiguration(
      mode: .on, rules: [FirewallRule(number: 1, direction: .inbound, action: .allow)], flowCapacity: flows,
      pendingCapacity: pending)
  }

  /// SYNs from everywhere, and UDP from everywhere, between each two packets of a transfer.
  @Test(arguments: ["syn", "udp", "ack", "icmp", "mixed"])
  func anEstablishedTransferLosesNothing(kind: String) {
    let gate = Gate(Self.configuration())
    // The table is full of established flows, of which one is ours.
    let connections = (0..<64).map { Connection(gate, opener: .inbound, localPort: 80, remotePort: UInt16(1000 + $0)) }
    for connection in connections { connection.open() }
    #expect(gate.firewall.table.count(.established) == 64)
    var numbers = SeededNumbers(seed: 3)
    let transfer = connections[17]
    for _ in 0..<200 {
      for _ in 0..<50 {
        let source = IPAddress(v4: 0x0A02_0000 | UInt32(numbers.next() & 0xFFFF))
        let port = UInt16(truncatingIfNeeded: numbers.next())
        var flood = PacketSketch(.inbound, .udp(sourcePort: port, destinationPort: 53))
        switch kind == "mixed" ? ["syn", "udp", "ack", "icmp"][Int(numbers.next() & 3)] : kind {
        case "syn": flood.body = .tcp(.init(sourcePort: port, destinationPort: 80, flags: TCPFlags.syn))
        case "ack": flood.body = .tcp(.init(sourcePort: port, destinationPort: 80, flags: TCPFlags.ack))
        case "icmp": flood.setICMP(8, code: 0, word: UInt32(port) << 16, rest: [])
        default: break
        }
        flood.source = source
        #expect(gate.back(flood) == nil)
      }
      transfer.send(.inbound, 60000)
      transfer.send(.outbound, 1000)
      gate.wait(0.01)
    }
    for connection in connections { connection.send(.outbound, 10) }
    #expect(gate.firewall.table.count(.established) == 64)
    #expect(gate.firewall.table.count(.pendingInbound) <= 128)
    #expect(gate.firewall.table.counts.evicted > 9000)
  }

  /// A partner's flood leaves what this side begins alone, and the other way round.
  @Test func eachSidePushesOutItsOwn() {
    let gate = Gate(Self.configuration())
    #expect(gate.out(.udp(.outbound, 40000, 53)) == nil)
    #expect(gate.back(.udp(.inbound, 53, 50000)) == nil)
    for port in 0..<UInt16(5000) { #expect(gate.back(.udp(.inbound, port, 1000)) == nil) }
    #expect(gate.back(.udp(.inbound, 40000, 53)) == nil, "the answer to our question")
    #expect(gate.verdict(PacketSketch.udp(.outbound, 53, 50000).bytes, .outbound).isKnown == false, "pushed out")
  }

  /// The oldest goes first, and not one more than needed.
  @Test func theOldestGoesFirst() {
    let gate = Gate(Self.configuration(pending: 10))
    func isKnown(_ port: UInt16) -> Bool {
      let key = FlowKey(
        local: IPAddress(Gate.local)!, remote: IPAddress(Gate.remote)!, transport: 17, localPort: port, remotePort: 1000
      )
      return gate.firewall.table.find(key, tag: gate.firewall.table.tag(key)) >= 0
    }
    for port in 1...13 as ClosedRange<UInt16> { #expect(gate.back(.udp(.inbound, port, 1000)) == nil) }
    #expect((1...13).filter(isKnown) == Array(4...13))
  }

  /// Answers alone make no established flow: whoever lies about his source never says a second word in it.
  @Test func questionsAndAnswersStayPending() {
    let gate = Gate(Self.configuration())
    for port in 0..<UInt16(500) {
      #expect(gate.back(.udp(.inbound, 53, 1000 + port)) == nil)
      #expect(gate.out(.udp(.outbound, 53, 1000 + port)) == nil)
    }
    #expect(gate.firewall.table.count(.established) == 0)
    #expect(gate.back(.udp(.inbound, 53, 1499)) == nil)
    #expect(gate.firewall.table.count(.established) == 1)
  }

  /// With the table full, new connections work, but a flood can push them out; closed ones make room first.
  @Test func whatFindsNoRoomStillWorks() {
    let gate = Gate(Self.configuration(flows: 4, pending: 8))
    let connections = (0..<5).map { Connection(gate, opener: .outbound, localPort: UInt16(1000 + $0)) }
    for connection in connections { connection.open() }
    #expect(gate.firewall.table.count(.established) == 4)
    let fifth = connections[4]
    #expect(fifth.flow?.phase == .established && fifth.flow?.segment == .pendingOutbound)
    #expect(gate.firewall.table.counts.overflowed > 0)
    fifth.send(.inbound, 1000)
    // It goes to the end of the queue with each packet, so a slow trickle does not reach it.
    for port in 0..<UInt16(40) {
      #expect(gate.out(.udp(.outbound, 2000 + port, 53)) == nil)
      fifth.send(.inbound, 1000)
    }
    connections[0].close()
    fifth.send(.inbound, 1000)
    #expect(fifth.flow?.segment == .established)
    #expect(connections[0].flow == nil)
  }

  /// What is refused leaves no trace, so it cannot fill anything.
  @Test func refusedPacketsFillNothing() {
    let gate = Gate(FirewallConfiguration(mode: .on, flowCapacity: 4, pendingCapacity: 4))
    for port in 0..<UInt16(1000) { #expect(gate.back(.udp(.inbound, port, 1000)) == .firewallDefault) }
    #expect(gate.firewall.table.counts.opened == 0)
  }

  /// Memory for flows grows as flows come, up to what was set aside.
  @Test func expiredFlowsAreSweptWithinAMinute() {
    let gate = Gate(Self.configuration(flows: 2000, pending: 4000))
    for port in 0..<UInt16(4000) { #expect(gate.out(.udp(.outbound, port, 53)) == nil) }
    gate.wait(100)
    for _ in 0..<700 { gate.firewall.sweep(now: gate.now) }
    #expect(gate.flowCount == 4000)
    gate.wait(21)
    for _ in 0..<600 { gate.firewall.sweep(now: gate.now) }
    #expect(gate.flowCount == 0)
    #expect(gate.firewall.table.counts.expired == 4000)
  }

  /// Another secret gives other places, so nobody can choose flows that all fall on one.
  @Test func placesDependOnTheSecret() {
    var numbers = SeededNumbers(seed: 1)
    let (first, second) = (FlowHash(using: &numbers), FlowHash(using: &numbers))
    var same = 0
    var buckets = [Int](repeating: 0, count: 256)
    for port in 0..<UInt16(4096) {
      let key = FlowKey(
        local: IPAddress("10.1.0.1")!, remote: IPAddress("10.2.0.2")!, transport: 6, localPort: port, remotePort: 443)
      if first.hash(key) == second.hash(key) { same += 1 }
      buckets[Int(first.hash(key) & 255)] += 1
    }
    #expect(same < 4)
    // 16 are expected of each; the chance that one of 256 is above 40 is below one in ten thousand.
    #expect(buckets.max()! < 40)
  }
}
