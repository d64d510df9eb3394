import PacketIO
import Testing

@testable import Dataplane

/// A UDP or TCP datagram that is cut into fragments.
struct Datagram {
  /// The fragmentable part.
  let content: [UInt8]
  let whole: PacketSketch
  var identification: UInt16 = 77

  /// - Parameter length: bytes of payload.
  init(
    _ direction: TrafficDirection, length: Int, v6: Bool = false, localPort: UInt16 = 40000, remotePort: UInt16 = 5000
  ) {
    whole = .udp(
      direction, localPort, remotePort, v6: v6, payload: [UInt8](repeating: 7, count: length))
    content = Array(whole.bytes[(v6 ? 40 : 20)...])
  }

  init(tcp whole: PacketSketch) {
    self.whole = whole
    content = Array(whole.bytes[(whole.isV4 ? 20 : 40)...])
  }

  /// Bytes `range` of the content; `offset` where it claims to lie.
  func fragment(_ range: Range<Int>, at offset: Int? = nil, more: Bool? = nil) -> PacketSketch {
    var sketch = whole
    sketch.body = .other(whole.transport)
    sketch.payload = Array(content[range])
    sketch.identification = identification
    sketch.dontFragment = false
    sketch.fragment = (
      offset: UInt16((offset ?? range.lowerBound) / 8), more: more ?? (range.upperBound < content.count)
    )
    return sketch
  }

  /// Cut every 1480 bytes.
  var fragments: [PacketSketch] {
    stride(from: 0, to: content.count, by: 1480).map { fragment($0..<min($0 + 1480, content.count)) }
  }
}

/// No fragment passes that was not judged, and none can change what was.
@Suite struct FirewallFragmentTests {
  private static let allowPort5000 = FirewallConfiguration(
    mode: .on,
    rules: [FirewallRule(number: 1, protocol: .udp, direction: .inbound, destinationPorts: 5000...5000, action: .allow)]
  )

  private func inbound(_ length: Int, port: UInt16, v6: Bool = false) -> Datagram {
    Datagram(.inbound, length: length, v6: v6, localPort: port, remotePort: 40000)
  }

  @Test(arguments: [false, true]) func laterFragmentsFollowTheFirst(v6: Bool) {
    let gate = Gate(Self.allowPort5000)
    let allowed = inbound(5000, port: 5000, v6: v6).fragments
    #expect(allowed.count == 4)
    for piece in allowed { #expect(gate.back(piece) == nil) }
    // In any order once the first is there, and again.
    for piece in [allowed[0], allowed[3], allowed[1], allowed[1], allowed[2]] { #expect(gate.back(piece) == nil) }
    let denied = inbound(5000, port: 5001, v6: v6)
    var other = denied
    other.identification = 78
    #expect(gate.back(other.fragments[0]) == .firewallDefault)
    for piece in other.fragments.dropFirst() { #expect(gate.back(piece) == .fragmentRefused) }
  }

  @Test(arguments: [false, true]) func fragmentsWithoutAFirstAreRefused(v6: Bool) {
    let gate = Gate(Self.allowPort5000)
    let pieces = inbound(5000, port: 5000, v6: v6).fragments
    for piece in pieces.dropFirst() { #expect(gate.back(piece) == .fragmentRefused) }
    #expect(gate.back(pieces[0]) == nil)
    #expect(gate.back(pieces[1]) == nil)
  }

  /// Each of them belongs to another datagram.
  @Test func whatIdentifiesADatagramIsCompared() {
    let gate = Gate(Self.allowPort5000)
    let datagram = inbound(3000, port: 5000)
    let pieces = datagram.fragments
    #expect(gate.back(pieces[0]) == nil)
    var other = pieces[1]
    other.identification = 78
    #expect(gate.back(other) == .fragmentRefused)
    other = pieces[1]
    other.source = IPAddress("10.2.0.9")!
    #expect(gate.back(other) == .fragmentRefused)
    other = pieces[1]
    other.destination = IPAddress("10.1.0.9")!
    #expect(gate.back(other) == .fragmentRefused)
    other = pieces[1]
    other.body = .other(6)
    #expect(gate.back(other) == .fragmentRefused)
    #expect(gate.verdict(pieces[1].bytes, .outbound).refusal == .fragmentRefused)
    #expect(gate.back(pieces[1]) == nil)
  }

  /// RFC 1858 §3, RFC 3128: a first fragment that leaves some of the header to a later one.
  @Test func rfc1858TinyFirstFragments() {
    let gate = Gate(FirewallConfiguration(mode: .on, rules: [FirewallRule(number: 1, action: .allow)]))
    var tcp = PacketSketch.TCP(sourcePort: 40000, destinationPort: 80, flags: TCPFlags.syn)
    tcp.options = [UInt8](repeating: 1, count: 20)
    let datagram = Datagram(tcp: PacketSketch(.inbound, .tcp(tcp), payload: [UInt8](repeating: 1, count: 100)))
    for length in [8, 16, 24, 32] { #expect(gate.back(datagram.fragment(0..<length)) == .fragmentRefused, "\(length)") }
    #expect(gate.back(datagram.fragment(0..<40)) == nil)
    let udp = inbound(100, port: 5000)
    #expect(gate.back(udp.fragment(0..<8)) == nil)
    var cut = udp.fragment(0..<8)
    cut.payload = Array(cut.payload.prefix(7))
    #expect(gate.back(cut) == .fragmentRefused)
  }

  /// RFC 1858 §4, RFC 3128, RFC 5722: a later fragment that lies over what was judged, which would change ports or
  /// flags where hosts put the pieces together.
  @Test(arguments: [false, true]) func rfc5722OverlappingFragments(v6: Bool) {
    let gate = Gate(Self.allowPort5000)
    let datagram = inbound(3000, port: 5000, v6: v6)
    #expect(gate.back(datagram.fragment(0..<800)) == nil)
    for offset in [8, 16, 792] {
      #expect(gate.back(datagram.fragment(800..<1600, at: offset)) == .fragmentRefused)
      // And with it the whole datagram.
      #expect(gate.back(datagram.fragment(800..<1600)) == .fragmentRefused)
      #expect(gate.back(datagram.fragment(0..<800)) == nil)
    }
    #expect(gate.back(datagram.fragment(800..<1600)) == nil)
  }

  /// A second first fragment, of other ports, under the same numbers: it is judged for itself, and when it is refused
  /// what follows is too.
  @Test func aSecondFirstFragmentIsJudgedForItself() {
    let gate = Gate(Self.allowPort5000)
    let allowed = inbound(3000, port: 5000)
    let denied = inbound(3000, port: 22)
    #expect(gate.back(allowed.fragments[0]) == nil)
    #expect(gate.back(denied.fragments[0]) == .firewallDefault)
    #expect(gate.back(allowed.fragments[1]) == .fragmentRefused)
  }

  /// RFC 4963: identifications come round while datagrams of before are remembered.
  @Test func rfc4963IdentificationsThatComeRound() {
    let gate = Gate(Self.allowPort5000)
    for length in [3000, 1600, 4000, 2000] {
      for piece in inbound(length, port: 5000).fragments { #expect(gate.back(piece) == nil) }
    }
  }

  /// RFC 6946: a whole packet with a fragment header.
  @Test func rfc6946AtomicFragments() {
    let gate = Gate(Self.allowPort5000)
    for port in [5000, 5001] as [UInt16] {
      let datagram = inbound(100, port: port, v6: true)
      let atomic = datagram.fragment(0..<datagram.content.count, more: false)
      #expect(gate.back(atomic) == (port == 5000 ? nil : .firewallDefault))
      #expect(gate.back(datagram.fragment(80..<96, more: false)) == .fragmentRefused, "nothing follows it")
    }
  }

  /// A later fragment that says where it goes next is refused as any packet is, though its first one passed.
  @Test func laterFragmentsWithSourceRoutesAreRefused() {
    let gate = Gate(Self.allowPort5000)
    let pieces = inbound(3000, port: 5000).fragments
    #expect(gate.back(pieces[0]) == nil)
    var routed = pieces[1]
    routed.options = [131, 7, 4, 10, 1, 0, 9, 0]
    #expect(gate.back(routed) == .sourceRouted)
    #expect(gate.back(pieces[1]) == nil)
    let pieces6 = inbound(3000, port: 5000, v6: true).fragments
    #expect(gate.back(pieces6[0]) == nil)
    var routed6 = pieces6[1]
    routed6.extensions = [(type: 43, rest: [2, 0, 0, 0, 0, 0, 0] + [UInt8](repeating: 1, count: 16))]
    #expect(gate.back(routed6) == .sourceRouted)
    #expect(gate.back(pieces6[1]) == nil)
  }

  /// A packet has one fragment header at most; a second one would be judged by the first.
  @Test func twoFragmentHeadersAreNoPacket() {
    let gate = Gate(Self.allowPort5000)
    var bytes = inbound(100, port: 5000, v6: true).whole.bytes
    let atomic: [UInt8] = [44, 0, 0, 0, 0, 0, 0, 77]
    let later: [UInt8] = [17, 0, 0, 80, 0, 0, 0, 77]
    bytes =
      Array(bytes[0..<4]) + be16(UInt16(bytes.count - 40 + 16)) + [44] + Array(bytes[7..<40]) + atomic + later
      + Array(bytes[40...])
    #expect(gate.verdict(bytes, .inbound).refusal == .malformedPacket)
  }

  /// RFC 7112: the first fragment has the whole chain of headers; without it the packet cannot even be read.
  @Test func rfc7112HeaderChainsThatAreCut() {
    let gate = Gate(FirewallConfiguration(mode: .on, rules: [FirewallRule(number: 1, action: .allow)]))
    var bytes = PacketSketch.udp(.inbound, 5000, 40000, v6: true).bytes
    // Fragment header, then destination options that claim to be longer than the packet.
    let chain: [UInt8] = [60, 0, 0, 1, 0, 0, 0, 9] + [17, 20, 1, 4, 0, 0, 0, 0]
    bytes = Array(bytes[0..<4]) + be16(UInt16(chain.count)) + [44] + Array(bytes[7..<40]) + chain
    #expect(gate.verdict(bytes, .inbound).refusal != nil)
  }

  @Test func fragmentsBeyondTheEndOfADatagramAreRefused() {
    let gate = Gate(Self.allowPort5000)
    let datagram = inbound(3000, port: 5000)
    #expect(gate.back(datagram.fragment(0..<1480)) == nil)
    #expect(gate.back(datagram.fragment(1480..<2960, at: 65528)) == .fragmentRefused)
    #expect(gate.back(datagram.fragment(1480..<1487, at: 65528)) == nil)
  }

  @Test func fragmentsAreForgottenAfterAMinute() {
    let gate = Gate(Self.allowPort5000)
    let pieces = inbound(3000, port: 5000).fragments
    #expect(gate.back(pieces[0]) == nil)
    gate.wait(60)
    #expect(gate.back(pieces[1]) == nil)
    gate.wait(0.3)
    #expect(gate.back(pieces[1]) == .fragmentRefused)
  }

  /// The table of datagrams has a limit, and whoever fills it gains nothing.
  @Test func aFloodOfFirstFragmentsOpensNothing() {
    let gate = Gate(Self.allowPort5000)
    var datagram = inbound(3000, port: 5000)
    for identification in 0..<UInt16(5000) {
      datagram.identification = identification
      #expect(gate.back(datagram.fragment(0..<1480)) == nil)
    }
    var passed = 0
    for identification in 0..<UInt16(10000) {
      datagram.identification = identification
      if gate.back(datagram.fragment(1480..<2960)) == nil { passed += 1 }
    }
    #expect((256...FragmentTable.capacity).contains(passed))
  }

  /// Fragmented TCP hides numbers from the firewall, so from then on it does not enforce windows.
  @Test func fragmentedTCPGoesOn() {
    let connection = Connection(Gate(), opener: .outbound)
    connection.open()
    let datagram = Datagram(tcp: connection.packet(.outbound, payload: 4000))
    for piece in datagram.fragments { #expect(connection.gate.out(piece) == nil) }
    connection.ends[.outbound]!.next &+= 4000
    connection.pass(.inbound)
    connection.send(.outbound, 1000)
  }

  @Test func aFragmentOutsideTheWindowIsRefusedAsAnyPacket() {
    let connection = Connection(Gate(), opener: .outbound)
    connection.open()
    let wild = connection.packet(.inbound, sequence: 0x7000_0000, payload: 4000)
    let pieces = Datagram(tcp: wild).fragments
    #expect(connection.gate.back(pieces[0]) == .invalidConnectionState)
    #expect(connection.gate.back(pieces[1]) == .fragmentRefused)
    #expect(connection.flow?.isLoose == false)
  }

  @Test func pingsMayBeFragmented() {
    let gate = Gate()
    let ping = PacketSketch.icmp(.inbound, 8, word: 0x0001_0001, rest: [UInt8](repeating: 1, count: 3000))
    for piece in Datagram(tcp: ping).fragments { #expect(gate.back(piece) == nil) }
  }

  /// What was allowed when its first fragment came, is carried through.
  @Test func reloadCutsNoDatagram() {
    let gate = Gate(Self.allowPort5000)
    let pieces = inbound(3000, port: 5000).fragments
    #expect(gate.back(pieces[0]) == nil)
    gate.reload(FirewallConfiguration(mode: .on))
    #expect(gate.back(pieces[1]) == nil)
    #expect(gate.back(pieces[0]) == .firewallDefault)
    #expect(gate.back(pieces[1]) == .fragmentRefused)
  }
}
