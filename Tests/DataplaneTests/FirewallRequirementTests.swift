import PacketIO
import Testing

@testable import Dataplane

/// The RFCs' requirements on filters that remember, one test each, as far as they concern a firewall without address
/// translation. "Inbound" is from the partner.
@Suite struct FirewallRequirementTests {
  private static let allowAll = FirewallConfiguration(mode: .on, rules: [FirewallRule(number: 1, action: .allow)])

  // MARK: UDP

  /// RFC 4787 REQ-5, RFC 6092 REC-14: not below two minutes; five are the default once a reply came.
  @Test func rfc4787Req5UDPTimeouts() {
    let gate = Gate()
    #expect(gate.out(.udp(.outbound, 40000, 5000)) == nil)
    gate.wait(120)
    #expect(gate.back(.udp(.inbound, 40000, 5000)) == nil)
    gate.wait(300)
    #expect(gate.back(.udp(.inbound, 40000, 5000)) == nil)
    gate.wait(300.3)
    #expect(gate.back(.udp(.inbound, 40000, 5000)) == .firewallDefault)
    // Without a reply two minutes are all.
    #expect(gate.out(.udp(.outbound, 40001, 5000)) == nil)
    gate.wait(120.3)
    #expect(gate.back(.udp(.inbound, 40001, 5000)) == .firewallDefault)
  }

  /// RFC 4787 REQ-6, RFC 6092 REC-16: outbound packets refresh, and inbound ones may.
  @Test func rfc4787Req6RefreshByEitherSide() {
    for direction in [TrafficDirection.outbound, .inbound] {
      let gate = Gate()
      #expect(gate.out(.udp(.outbound, 40000, 5000)) == nil)
      #expect(gate.back(.udp(.inbound, 40000, 5000)) == nil)
      for _ in 0..<5 {
        gate.wait(250)
        #expect(gate.verdict(PacketSketch.udp(direction, 40000, 5000).bytes, direction).refusal == nil)
      }
      #expect(gate.back(.udp(.inbound, 40000, 5000)) == nil)
    }
  }

  /// RFC 4787 REQ-8 and RFC 6092 REC-17: the more stringent filtering: by address and port.
  @Test func rfc4787Req8FilteringByAddressAndPort() {
    let gate = Gate()
    #expect(gate.out(.udp(.outbound, 40000, 5000)) == nil)
    #expect(gate.back(.udp(.inbound, 40000, 5001)) == .firewallDefault)
  }

  /// RFC 4787 REQ-12, RFC 6092 REC-19: an ICMP error ends no flow.
  @Test func rfc4787Req12ErrorsEndNoUDPFlow() {
    let gate = Gate()
    let packet = PacketSketch.udp(.outbound, 40000, 5000)
    #expect(gate.out(packet) == nil)
    #expect(gate.back(.error(3, code: 3, about: packet)) == nil)
    #expect(gate.back(.udp(.inbound, 40000, 5000)) == nil)
  }

  /// RFC 4787 REQ-14: fragments, in order. Out of order, those ahead of the first are lost: see
  /// `FirewallFragmentTests`.
  @Test func rfc4787Req14FragmentsInOrder() {
    let gate = Gate()
    for piece in Datagram(.outbound, length: 4000).fragments { #expect(gate.out(piece) == nil) }
  }

  /// RFC 6092 REC-20: UDP-Lite is not UDP.
  @Test func rfc6092Rec20UDPLiteIsAnotherProtocol() {
    let gate = Gate(Self.allowAll)
    #expect(gate.out(.udp(.outbound, 40000, 5000)) == nil)
    let lite = PacketSketch(.inbound, .other(136), payload: be16(5000) + be16(40000) + [0, 8, 0, 0])
    #expect(!gate.verdict(lite.bytes, .inbound).isKnown)
  }

  /// RFC 6092 REC-12: other protocols five minutes.
  @Test func rfc6092Rec12OtherProtocols() {
    let gate = Gate(
      FirewallConfiguration(mode: .on, rules: [FirewallRule(number: 1, direction: .outbound, action: .allow)]))
    let payload = [UInt8](repeating: 1, count: 16)
    #expect(gate.out(PacketSketch(.outbound, .other(47), payload: payload)) == nil)
    gate.wait(300)
    #expect(gate.back(PacketSketch(.inbound, .other(47), payload: payload)) == nil)
    gate.wait(300.3)
    #expect(gate.back(PacketSketch(.inbound, .other(47), payload: payload)) == .firewallDefault)
  }

  // MARK: TCP

  /// RFC 5382 REQ-2, RFC 6092 REC-31: all valid sequences, simultaneous open among them. More of it is in
  /// `FirewallTCPTests` and `FirewallTransferTests`.
  @Test func rfc5382Req2SimultaneousOpen() {
    let connection = Connection(Gate(), opener: .outbound)
    connection.pass(.outbound, TCPFlags.syn)
    connection.pass(.inbound, TCPFlags.syn)
    connection.pass(.outbound)
    connection.pass(.inbound)
    connection.send(.inbound, 1000)
    #expect(connection.flow?.phase == .established)
  }

  /// RFC 5382 REQ-4: an unsolicited SYN is dropped silently, and does not stand in the way of an outbound one.
  @Test func rfc5382Req4UnsolicitedSyn() {
    let gate = Gate()
    let connection = Connection(gate, opener: .outbound)
    #expect(connection.judge(connection.packet(.inbound, TCPFlags.syn)) == .firewallDefault)
    gate.wait(3)
    connection.pass(.outbound, TCPFlags.syn)
    connection.pass(.inbound, TCPFlags.syn)
    connection.pass(.outbound)
  }

  /// RFC 5382 REQ-5, RFC 6092 REC-35: established two hours and four minutes.
  @Test func rfc5382Req5EstablishedTimeout() {
    let connection = Connection(Gate(), opener: .outbound)
    connection.open()
    connection.gate.wait(7440)
    connection.send(.inbound, 10)
    connection.gate.wait(7440.3)
    #expect(connection.judge(connection.packet(.inbound, payload: 10)) == .firewallDefault)
  }

  /// RFC 5382 REQ-5, RFC 6092 REC-35: partly open four minutes.
  @Test func rfc5382Req5TransitoryTimeoutWhileOpening() {
    let connection = Connection(Gate(), opener: .outbound)
    connection.pass(.outbound, TCPFlags.syn)
    connection.gate.wait(240)
    connection.pass(.inbound, TCPFlags.syn | TCPFlags.ack)
    connection.gate.wait(240.3)
    #expect(connection.judge(connection.packet(.inbound, TCPFlags.syn | TCPFlags.ack)) == .firewallDefault)
  }

  /// RFC 5382 REQ-5, RFC 7857 §2.2: closing four minutes.
  @Test func rfc5382Req5TransitoryTimeoutWhileClosing() {
    let connection = Connection(Gate(), opener: .outbound)
    connection.open()
    connection.pass(.outbound, TCPFlags.fin | TCPFlags.ack)
    connection.pass(.inbound, TCPFlags.fin | TCPFlags.ack)
    #expect(connection.flow?.phase == .closing)
    connection.gate.wait(240)
    connection.pass(.inbound)
    connection.gate.wait(240.3)
    #expect(connection.judge(connection.packet(.inbound)) == .firewallDefault)
  }

  /// RFC 7857 §2.2 and §2.3: after a reset the flow stays for four minutes, and traffic brings it back.
  @Test func rfc7857ResetShortensOnly() {
    let connection = Connection(Gate(), opener: .outbound)
    connection.open()
    #expect(connection.judge(connection.packet(.inbound, TCPFlags.rst)) == nil)
    connection.gate.wait(239)
    connection.send(.inbound, 10)
    connection.gate.wait(7000)
    connection.send(.inbound, 10)
    #expect(connection.judge(connection.packet(.inbound, TCPFlags.rst)) == nil)
    connection.gate.wait(240.3)
    #expect(connection.judge(connection.packet(.inbound)) == .firewallDefault)
  }

  /// RFC 5382 REQ-9, RFC 6092 REC-36: errors about a connection pass.
  @Test(arguments: [false, true]) func rfc5382Req9ErrorsAboutAConnection(v6: Bool) {
    let connection = Connection(Gate(), opener: .outbound, v6: v6)
    connection.open()
    let packet = connection.packet(.outbound, payload: 1000)
    connection.pass(.outbound, payload: 1000)
    // Fragmentation needed, packet too big; as routers quote it, 8 bytes behind the header or all of it.
    for quoted in [v6 ? 48 : 28, 1 << 16] {
      #expect(connection.judge(.error(v6 ? 2 : 3, code: v6 ? 0 : 4, about: packet, quoting: quoted)) == nil)
    }
    let router = v6 ? "fd00:2::fe" : "10.2.255.254"
    #expect(connection.gate.back(.error(v6 ? 3 : 11, about: packet, from: router)) == nil)
  }

  /// RFC 5382 REQ-10, RFC 6092 REC-37: an ICMP error ends no connection.
  @Test func rfc5382Req10ErrorsEndNoConnection() {
    let connection = Connection(Gate(), opener: .outbound)
    connection.open()
    let packet = connection.packet(.outbound, payload: 10)
    connection.pass(.outbound, payload: 10)
    for code in 0...15 { #expect(connection.judge(.error(3, code: UInt8(code), about: packet)) == nil) }
    #expect(connection.flow?.phase == .established)
    connection.pass(.inbound)
    connection.send(.inbound, 10)
  }

  /// RFC 5927 §4.1: an error quotes a number that is in flight, or it is a guess.
  @Test func rfc5927ErrorsQuoteWhatIsInFlight() {
    let connection = Connection(Gate(), opener: .outbound)
    connection.open()
    connection.send(.outbound, 50000)
    connection.pass(.outbound, payload: 1000)
    let next = connection.ends[.outbound]!.next
    for sequence in [next &+ 1, next &- 2000, next &+ 0x8000_0000] {
      let guess = connection.packet(.outbound, sequence: sequence, payload: 10)
      #expect(connection.judge(.error(3, code: 4, about: guess)) == .invalidConnectionState)
    }
    #expect(connection.judge(.error(3, code: 4, about: connection.packet(.outbound, sequence: next &- 1000))) == nil)
  }

  /// RFC 6092 REC-32: no windows without having seen the window-scale option.
  @Test func rfc6092Rec32NoWindowsWithoutTheHandshake() {
    let connection = Connection(Gate(), opener: .outbound)
    connection.pass(.outbound)
    #expect(connection.judge(connection.packet(.inbound, sequence: 5000 &+ 10_000_000, payload: 10)) == nil)
  }

  // MARK: ICMP

  /// RFC 5508 REQ-1: queries and their responses.
  @Test(arguments: [(8, 0), (13, 14), (15, 16), (17, 18)] as [(UInt8, UInt8)])
  func rfc5508Req1Queries(question: UInt8, answer: UInt8) {
    let gate = Gate()
    #expect(gate.out(.icmp(.outbound, question, word: 0x0042_0001, rest: [UInt8](repeating: 0, count: 12))) == nil)
    #expect(gate.back(.icmp(.inbound, answer, word: 0x0042_0001, rest: [UInt8](repeating: 0, count: 12))) == nil)
    #expect(gate.back(.icmp(.inbound, answer, word: 0x0043_0001)) == .invalidConnectionState)
    let other: UInt8 = answer == 0 ? 14 : 0
    #expect(gate.back(.icmp(.inbound, other, word: 0x0042_0001)) == .invalidConnectionState)
  }

  /// RFC 5508 REQ-2: not below a minute.
  @Test func rfc5508Req2QueryTimeout() {
    let gate = Gate()
    #expect(gate.out(.icmp(.outbound, 8, word: 0x0042_0001)) == nil)
    gate.wait(60)
    #expect(gate.back(.icmp(.inbound, 0, word: 0x0042_0001)) == nil)
    gate.wait(60.3)
    #expect(gate.back(.icmp(.inbound, 0, word: 0x0042_0001)) == .invalidConnectionState)
  }

  /// RFC 5508 REQ-3 a: an error whose checksum is wrong is dropped.
  @Test(arguments: [false, true]) func rfc5508Req3ErrorsWithAWrongChecksum(v6: Bool) {
    let gate = Gate()
    let packet = PacketSketch.udp(.outbound, 40000, 5000, v6: v6)
    #expect(gate.out(packet) == nil)
    var error = PacketSketch.error(v6 ? 1 : 3, code: v6 ? 4 : 3, about: packet)
    error.payload[2] ^= 1
    #expect(gate.back(error) == .firewallDefault)
  }

  /// RFC 5508 REQ-4, RFC 6092 REC-10: an error about no known flow is dropped, inbound.
  @Test func rfc5508Req4ErrorsAboutNothingInbound() {
    let gate = Gate()
    #expect(gate.back(.error(3, code: 3, about: .udp(.outbound, 40000, 5000))) == .firewallDefault)
    // About a flow of the other direction, or sent to another host than the quoted one.
    #expect(gate.out(.udp(.outbound, 40000, 5000)) == nil)
    #expect(gate.back(.error(3, code: 3, about: .udp(.inbound, 40000, 5000))) == .firewallDefault)
    var stray = PacketSketch.error(3, code: 3, about: .udp(.outbound, 40000, 5000))
    stray.destination = IPAddress("10.1.0.77")!
    #expect(gate.back(stray) == .firewallDefault)
  }

  /// RFC 5508 REQ-5: and outbound.
  @Test func rfc5508Req5ErrorsAboutNothingOutbound() {
    let gate = Gate()
    #expect(gate.out(.error(3, code: 3, about: .udp(.inbound, 40000, 5000))) == .invalidConnectionState)
  }

  /// Only the side that a packet went to can tell what became of it: not another peer, and no gateway of ours about a
  /// packet that went elsewhere.
  @Test(arguments: [false, true]) func errorsComeFromWhereTheQuotedPacketWent(isTCP: Bool) {
    let gate = Gate()
    let question =
      isTCP
      ? PacketSketch(.outbound, .tcp(.init(sourcePort: 5000, destinationPort: 80, flags: TCPFlags.syn)))
      : PacketSketch.udp(.outbound, 5000, 5000)
    #expect(gate.out(question) == nil)
    for (type, code) in [(3, 4), (3, 3), (11, 0)] as [(UInt8, UInt8)] {
      // Gamma about what went to beta; then a router of beta's.
      #expect(
        gate.back(.error(type, code: code, about: question, from: "10.3.0.9")) == .invalidConnectionState)
      #expect(gate.back(.error(type, code: code, about: question, from: "10.2.99.1")) == nil)
    }
    var configuration = Gate.configuration(FirewallConfiguration(mode: .on), nil)
    configuration.localPrefixes = Sites.alphaPrefixes
    gate.reload(configuration)
    let probe = PacketSketch.udp(.inbound, 33434, 50000)
    #expect(gate.back(probe) == nil)
    #expect(gate.out(.error(11, about: probe, from: "10.3.0.9")) == .invalidConnectionState)
    #expect(gate.out(.error(11, about: probe, from: "10.1.0.254")) == nil)
  }

  /// RFC 5508 REQ-6: an error about a query neither refreshes nor ends it.
  @Test func rfc5508Req6ErrorsLeaveQueriesAlone() {
    let gate = Gate()
    let question = PacketSketch.icmp(.outbound, 8, word: 0x0042_0001)
    #expect(gate.out(question) == nil)
    gate.wait(40)
    #expect(gate.back(.error(3, code: 1, about: question)) == nil)
    gate.wait(15)
    #expect(gate.verdict(PacketSketch.icmp(.inbound, 0, word: 0x0042_0001).bytes, .inbound).refusal == nil, "not ended")
    let other = PacketSketch.icmp(.outbound, 8, word: 0x0043_0001)
    #expect(gate.out(other) == nil)
    gate.wait(40)
    #expect(gate.back(.error(3, code: 1, about: other)) == nil)
    gate.wait(20.3)
    #expect(gate.back(.icmp(.inbound, 0, word: 0x0043_0001)) == .invalidConnectionState, "not refreshed")
  }

  /// RFC 5508 §4: errors about the answer to a query.
  @Test func rfc5508ErrorsAboutAnswers() {
    let gate = Gate()
    #expect(gate.back(.icmp(.inbound, 8, word: 0x0042_0001)) == nil)
    let answer = PacketSketch.icmp(.outbound, 0, word: 0x0042_0001)
    #expect(gate.out(answer) == nil)
    #expect(gate.back(.error(11, about: answer, from: "10.2.255.254")) == nil)
  }

  /// RFC 4443 §2.4 e, RFC 1122 §3.2.2: no error is about an error.
  @Test(arguments: [false, true]) func rfc4443ErrorsAboutErrors(v6: Bool) {
    let gate = Gate()
    let packet = PacketSketch.udp(.inbound, 33434, 5000, v6: v6)
    #expect(gate.back(packet) == nil)
    let error = PacketSketch.error(v6 ? 1 : 3, code: v6 ? 4 : 3, about: packet)
    #expect(gate.out(error) == nil)
    #expect(gate.back(.error(v6 ? 1 : 3, about: error)) == .firewallDefault)
  }

  /// RFC 792 promises eight bytes behind the quoted header; with less nothing can be told.
  @Test func rfc792QuotesThatAreTooShort() {
    let gate = Gate()
    let packet = PacketSketch.udp(.outbound, 40000, 5000, payload: [UInt8](repeating: 1, count: 100))
    #expect(gate.out(packet) == nil)
    for length in 0..<28 { #expect(gate.back(.error(3, code: 3, about: packet, quoting: length)) == .firewallDefault) }
    #expect(gate.back(.error(3, code: 3, about: packet, quoting: 28)) == nil)
  }

  /// RFC 4890 §4.3.1: the errors that must not be dropped, all with a known flow.
  @Test func rfc4890ErrorsThatMustPass() {
    let gate = Gate()
    let packet = PacketSketch.udp(.outbound, 40000, 5000, v6: true)
    #expect(gate.out(packet) == nil)
    for (type, code) in [(1, 0), (1, 1), (1, 3), (1, 4), (2, 0), (3, 0), (3, 1), (4, 0), (4, 1), (4, 2)]
      as [(UInt8, UInt8)]
    {
      #expect(gate.back(.error(type, code: code, about: packet)) == nil, "type \(type) code \(code)")
    }
  }

  /// An error counts from whom the packet went to: another partner, who can guess ports, could shrink the path MTU of
  /// this side's flow to somebody else, or end it.
  @Test func errorsComeFromWhomTheQuotedPacketWentTo() {
    let gate = Gate()
    let packet = PacketSketch.udp(.outbound, 40000, 5000)
    #expect(gate.out(packet) == nil)
    for (type, code) in [(3, 4), (3, 3), (11, 0)] as [(UInt8, UInt8)] {
      #expect(gate.back(.error(type, code: code, about: packet, from: "10.2.255.254")) == nil)
      #expect(gate.back(.error(type, code: code, about: packet, from: "10.3.0.1")) == .invalidConnectionState)
    }
    let query = PacketSketch.icmp(.outbound, 8, word: 0x0042_0001)
    #expect(gate.out(query) == nil)
    #expect(gate.back(.error(3, code: 1, about: query, from: "10.3.0.1")) == .invalidConnectionState)
  }

  /// The quoted packet may have extension headers.
  @Test func errorsQuoteExtensionHeaders() {
    let gate = Gate()
    var packet = PacketSketch.udp(.outbound, 40000, 5000, v6: true)
    packet.extensions = [(type: 60, rest: [0, 1, 4, 0, 0, 0, 0])]
    #expect(gate.out(packet) == nil)
    #expect(gate.back(.error(1, code: 4, about: packet)) == nil)
  }

  // MARK: Packets that choose their way

  /// RFC 6092 REC-4, RFC 5095: routing headers of type 0.
  @Test func rfc6092Rec4RoutingHeaders() {
    let gate = Gate(Self.allowAll)
    for (type, refused) in [(0, true), (2, false), (4, false)] as [(UInt8, Bool)] {
      var packet = PacketSketch.udp(.inbound, 40000, 5000, v6: true)
      packet.extensions = [(type: 43, rest: [2, type, 0, 0, 0, 0, 0] + [UInt8](repeating: 1, count: 16))]
      #expect(gate.back(packet) == (refused ? .sourceRouted : nil))
      packet.extensions.insert((type: 60, rest: [0, 1, 4, 0, 0, 0, 0]), at: 0)
      #expect(gate.back(packet) == (refused ? .sourceRouted : nil))
    }
  }

  /// However many routing headers stand in front of the one of type 0.
  @Test func aRoutingHeaderBehindAnotherIsFound() {
    let gate = Gate(Self.allowAll)
    func routing(_ type: UInt8) -> (type: UInt8, rest: [UInt8]) {
      (type: 43, rest: [2, type, 0, 0, 0, 0, 0] + [UInt8](repeating: 1, count: 16))
    }
    for (types, refused) in [([2, 0], true), ([4, 2, 0], true), ([4, 2], false)] as [([UInt8], Bool)] {
      var packet = PacketSketch.udp(.inbound, 40000, 5000, v6: true)
      packet.extensions = types.map(routing)
      #expect(gate.back(packet) == (refused ? .sourceRouted : nil), "\(types)")
    }
  }

  /// RFC 7126 §4.3, §4.4: source routes of IPv4.
  @Test func rfc7126SourceRoutes() {
    let gate = Gate(Self.allowAll)
    let cases: [([UInt8], Bool)] = [
      ([131, 7, 4, 10, 1, 0, 9, 0], true), ([1, 1, 1, 137, 7, 4, 10, 1, 0, 9, 0, 0], true),
      ([148, 4, 0, 0], false), ([7, 7, 4, 0, 0, 0, 0, 0], false), ([0, 131, 0, 0], false), ([1, 1, 1, 1], false),
      // Options that run out of the header.
      ([1, 1, 1, 131], true), ([7, 200, 131, 0], false), ([7, 0, 131, 7], false), ([1, 1, 1, 7], false),
    ]
    for (options, refused) in cases {
      var packet = PacketSketch.udp(.inbound, 40000, 5000)
      packet.options = options
      #expect(gate.back(packet) == (refused ? .sourceRouted : nil), "\(options)")
    }
  }
}
