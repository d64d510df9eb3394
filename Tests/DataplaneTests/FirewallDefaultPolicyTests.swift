import PacketIO
import Testing

@testable import Dataplane

/// Source A's default policy: what passes without a single rule.
@Suite struct FirewallDefaultPolicyTests {
  @Test(arguments: [false, true]) func outboundTrafficAndItsRepliesPass(v6: Bool) {
    let gate = Gate()
    #expect(gate.out(.udp(.outbound, 40000, 53, v6: v6)) == nil)
    #expect(gate.back(.udp(.inbound, 40000, 53, v6: v6)) == nil, "a DNS reply")
    let tcp = Connection(gate, opener: .outbound, v6: v6)
    tcp.open()
    tcp.send(.outbound, 100)
    tcp.send(.inbound, 5000)
    #expect(gate.out(.icmp(.outbound, v6 ? 128 : 8, word: 0x1234_0001, v6: v6)) == nil)
    #expect(gate.back(.icmp(.inbound, v6 ? 129 : 0, word: 0x1234_0001, v6: v6)) == nil)
  }

  @Test(arguments: [false, true]) func inboundPingPasses(v6: Bool) {
    let gate = Gate()
    #expect(gate.back(.icmp(.inbound, v6 ? 128 : 8, word: 0x0007_0001, v6: v6)) == nil)
    #expect(gate.out(.icmp(.outbound, v6 ? 129 : 0, word: 0x0007_0001, v6: v6)) == nil)
    #expect(gate.firewall.report().grounds.map(\.name) == ["default: ping"])
  }

  /// UDP probes in, and port unreachable and time exceeded out.
  @Test(arguments: [false, true]) func inboundTraceroutePasses(v6: Bool) {
    let gate = Gate()
    for port in [33434, 33500, 33534] as [UInt16] {
      let probe = PacketSketch.udp(.inbound, port, 50000, v6: v6)
      #expect(gate.back(probe) == nil)
      #expect(gate.out(.error(v6 ? 1 : 3, code: v6 ? 4 : 3, about: probe)) == nil)
      #expect(gate.out(.error(v6 ? 3 : 11, about: probe, from: v6 ? "fd00:1::fe" : "10.1.0.254")) == nil)
    }
    #expect(gate.back(.udp(.inbound, 33433, 50000, v6: v6)) == .firewallDefault)
    #expect(gate.back(.udp(.inbound, 33535, 50000, v6: v6)) == .firewallDefault)
  }

  /// The default policy lets nobody look beyond this side: where its prefixes are known, there only, and otherwise
  /// nowhere that is another peer's.
  @Test(arguments: [false, true]) func partnersReachThisSideOnly(isClosed: Bool) {
    let gate = Gate()
    var configuration = Gate.configuration(FirewallConfiguration(mode: .on), nil)
    configuration.peers[0].prefixes = [Prefix("0.0.0.0/0")!]
    configuration.interface.addresses = [InterfaceAddress(IPAddress("10.99.0.1")!, prefixLength: 24)]
    if isClosed { configuration.localPrefixes = [Prefix("10.1.0.0/16")!] }
    gate.reload(configuration)
    let destinations: [(String, Bool)] = [
      ("10.1.0.1", true), ("10.99.0.1", true), ("10.99.0.7", true), ("10.3.0.1", false), ("198.51.100.7", !isClosed),
      ("224.0.0.1", false), ("127.0.0.1", false), ("255.255.255.255", false),
    ]
    for (number, (destination, passes)) in destinations.enumerated() {
      let word = UInt32(number + 1) << 16 | 1
      for sketch in [PacketSketch.icmp(.inbound, 8, word: word), .udp(.inbound, 33434, UInt16(50_000 + number))] {
        var sketch = sketch
        sketch.destination = IPAddress(destination)!
        if sketch.payload.count > 2 { sketch.setICMP(8, code: 0, word: word, rest: []) }
        #expect(gate.back(sketch) == (passes ? nil : .firewallDefault), "\(destination)")
      }
    }
  }

  @Test(arguments: [false, true]) func outboundTracerouteGetsItsAnswers(v6: Bool) {
    let gate = Gate()
    let probe = PacketSketch.udp(.outbound, 50000, 33434, v6: v6)
    #expect(gate.out(probe) == nil)
    #expect(gate.back(.error(v6 ? 3 : 11, about: probe, from: v6 ? "fd00:2::fe" : "10.2.255.254")) == nil)
    #expect(gate.back(.error(v6 ? 1 : 3, code: v6 ? 4 : 3, about: probe)) == nil)
  }

  @Test(arguments: [false, true]) func everythingElseInboundIsRefused(v6: Bool) {
    let gate = Gate()
    #expect(gate.back(.udp(.inbound, 53, 40000, v6: v6)) == .firewallDefault)
    #expect(gate.back(.udp(.inbound, 40000, 53, v6: v6)) == .firewallDefault, "no reply to anything")
    let syn = PacketSketch(
      .inbound, v6: v6, .tcp(.init(sourcePort: 50000, destinationPort: 22, flags: TCPFlags.syn)))
    #expect(gate.back(syn) == .firewallDefault)
    for type in (v6 ? [129, 133, 134, 135, 137, 139] : [0, 5, 9, 10, 13, 15, 17]) as [UInt8] {
      let verdict = gate.back(.icmp(.inbound, type, v6: v6))
      #expect(verdict == .firewallDefault || verdict == .invalidConnectionState, "ICMP type \(type)")
    }
    for number in [2, 4, 41, 47, 50, 51, 89, 132] as [UInt8] where !v6 || number != 51 {
      let packet = PacketSketch(.inbound, v6: v6, .other(number), payload: [UInt8](repeating: 0, count: 24))
      #expect(gate.back(packet) == .firewallDefault, "protocol \(number)")
    }
    #expect(gate.flowCount == 0, "what is refused leaves nothing behind")
  }

  @Test func otherProtocolsOutboundAreRefused() {
    let gate = Gate()
    #expect(gate.out(PacketSketch(.outbound, .other(47), payload: [0, 0, 8, 0])) == .firewallDefault)
  }

  @Test func anEarlierFlowIsNoLeaveForAnotherOne() {
    let gate = Gate()
    #expect(gate.out(.udp(.outbound, 40000, 53)) == nil)
    #expect(gate.back(.udp(.inbound, 40000, 54)) == .firewallDefault)
    #expect(gate.back(.udp(.inbound, 40001, 53)) == .firewallDefault)
    var other = PacketSketch.udp(.inbound, 40000, 53)
    other.source = IPAddress("10.2.0.3")!
    #expect(gate.back(other) == .firewallDefault)
    #expect(gate.out(.icmp(.outbound, 8, word: 0x0001_0001)) == nil)
    #expect(gate.back(.icmp(.inbound, 0, word: 0x0002_0001)) == .invalidConnectionState)
  }
}
