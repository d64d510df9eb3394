import PacketIO
import Testing

@testable import Dataplane

/// What belongs to a TCP connection and what does not.
@Suite struct FirewallTCPTests {
  private static let allowAll = FirewallConfiguration(mode: .on, rules: [FirewallRule(number: 1, action: .allow)])

  private func opened(
    by opener: TrafficDirection = .outbound, scales: (UInt8?, UInt8?) = (7, 7),
    sequences: (UInt32, UInt32) = (1000, 5000)
  ) -> Connection {
    let connection = Connection(Gate(Self.allowAll), opener: opener, sequences: sequences, scales: scales)
    connection.open()
    return connection
  }

  // MARK: Life

  @Test(
    arguments: [TrafficDirection.outbound, .inbound], [(1000, 5000), (0xFFFF_FFF0, 0xFFFF_FF00)] as [(UInt32, UInt32)])
  func aWholeLife(opener: TrafficDirection, sequences: (UInt32, UInt32)) {
    let connection = Connection(Gate(Self.allowAll), opener: opener, sequences: sequences)
    connection.pass(opener, TCPFlags.syn)
    #expect(connection.flow?.phase == .opening)
    connection.pass(opener.opposite, TCPFlags.syn | TCPFlags.ack)
    #expect(connection.flow?.phase == .answered)
    connection.pass(opener)
    #expect(connection.flow?.phase == .established && connection.flow?.segment == .established)
    for _ in 0..<20 {
      connection.send(.outbound, 64000)
      connection.send(.inbound, 1)
    }
    connection.close()
    #expect(connection.flow?.phase == .closed && connection.flow?.segment == .closed)
    // The last acknowledgement got lost, so the FIN comes again.
    let fin = connection.packet(
      opener.opposite, TCPFlags.fin | TCPFlags.ack, sequence: connection.ends[opener.opposite]!.next &- 1)
    #expect(connection.judge(fin) == nil)
    connection.pass(opener)
    #expect(connection.flow?.phase == .closed)
  }

  @Test func halfClosedConnectionsGoOn() {
    let connection = opened()
    connection.pass(.outbound, TCPFlags.fin | TCPFlags.ack)
    connection.pass(.inbound)
    for _ in 0..<50 { connection.send(.inbound, 30000) }
    connection.gate.wait(7000)
    connection.send(.inbound, 100)
    #expect(connection.flow?.phase == .established)
  }

  @Test func simultaneousOpen() {
    let connection = Connection(Gate(), opener: .outbound)
    connection.pass(.outbound, TCPFlags.syn)
    connection.pass(.inbound, TCPFlags.syn)
    #expect(connection.flow?.phase == .answered)
    // Each repeats its SYN with an acknowledgement.
    for direction in [TrafficDirection.outbound, .inbound] {
      let number = connection.ends[direction]!.next &- 1
      #expect(connection.judge(connection.packet(direction, TCPFlags.syn | TCPFlags.ack, sequence: number)) == nil)
    }
    connection.send(.outbound, 5000)
    connection.send(.inbound, 5000)
    #expect(connection.flow?.phase == .established && connection.flow?.isLoose == false)
  }

  @Test func aNewConnectionMayTakeTheSamePorts() {
    let connection = opened()
    connection.close()
    connection.ends[.outbound]!.next = 77_000_000
    connection.ends[.inbound]!.next = 99_000_000
    connection.open()
    connection.send(.inbound, 1000)
    #expect(connection.flow?.phase == .established)
  }

  /// The partner may not turn an old outbound connection into one of its own.
  @Test func anOldConnectionIsNoLeaveToBeginANewOneBackwards() {
    let connection = Connection(Gate(), opener: .outbound)
    connection.open()
    let syn = connection.packet(.inbound, TCPFlags.syn)
    #expect(connection.judge(syn) == .invalidConnectionState)
    connection.close()
    #expect(connection.judge(syn) == .firewallDefault)
    #expect(connection.flow?.phase == .closed, "a refused SYN changes nothing")
  }

  // MARK: Handshake

  @Test func onlyASynOrWhatFollowsOneBeginsAConnection() {
    for flags in [TCPFlags.rst, TCPFlags.rst | TCPFlags.ack, TCPFlags.syn | TCPFlags.ack] {
      let connection = Connection(Gate(Self.allowAll), opener: .outbound)
      #expect(connection.judge(connection.packet(.outbound, flags)) == .invalidConnectionState)
      #expect(connection.judge(connection.packet(.inbound, flags)) == .invalidConnectionState)
      #expect(connection.flow == nil)
    }
  }

  @Test(arguments: [
    0, TCPFlags.fin, TCPFlags.syn | TCPFlags.fin, TCPFlags.syn | TCPFlags.rst, TCPFlags.rst | TCPFlags.fin, 0x3F,
    TCPFlags.psh, TCPFlags.urg, TCPFlags.fin | TCPFlags.urg | TCPFlags.psh, TCPFlags.syn | TCPFlags.ack | TCPFlags.fin,
  ])
  func senselessFlagsAreRefused(flags: UInt8) {
    let connection = opened()
    #expect(connection.judge(connection.packet(.outbound, flags)) == .invalidConnectionState)
    #expect(connection.judge(connection.packet(.inbound, flags)) == .invalidConnectionState)
    let other = Connection(connection.gate, opener: .outbound, localPort: 1)
    #expect(other.judge(other.packet(.outbound, flags)) == .invalidConnectionState)
  }

  @Test(arguments: [TCPFlags.ece, TCPFlags.cwr, TCPFlags.ece | TCPFlags.cwr])
  func explicitCongestionIsNoStrangeFlag(flags: UInt8) {
    let connection = Connection(Gate(), opener: .outbound)
    connection.pass(.outbound, TCPFlags.syn | flags)
    connection.pass(.inbound, TCPFlags.syn | TCPFlags.ack | TCPFlags.ece)
    connection.pass(.outbound, TCPFlags.ack | flags, payload: 10)
  }

  @Test func aSynAckMustAcknowledgeTheSyn() {
    let connection = Connection(Gate(), opener: .outbound)
    connection.pass(.outbound, TCPFlags.syn)
    for number in [1000, 1002, 0, 5000] as [UInt32] {
      let answer = connection.packet(.inbound, TCPFlags.syn | TCPFlags.ack, acknowledgement: number)
      #expect(connection.judge(answer) == .invalidConnectionState)
    }
    connection.pass(.inbound, TCPFlags.syn | TCPFlags.ack)
  }

  /// Whoever cannot see the answer to its SYN cannot make its flow an established one.
  @Test func aBlindAcknowledgementEstablishesNothing() {
    let connection = Connection(Gate(Self.allowAll), opener: .inbound)
    connection.pass(.inbound, TCPFlags.syn)
    connection.pass(.outbound, TCPFlags.syn | TCPFlags.ack)
    for number in [1000, 1002, 999, 0, 0x8000_0000] as [UInt32] {
      let blind = connection.packet(.inbound, acknowledgement: number)
      #expect(connection.judge(blind) == .invalidConnectionState)
    }
    #expect(connection.flow?.phase == .answered && connection.flow?.segment == .pendingInbound)
    connection.pass(.inbound)
    #expect(connection.flow?.segment == .established)
  }

  @Test func handshakePacketsMayComeTwice() {
    let connection = Connection(Gate(), opener: .outbound)
    let syn = connection.packet(.outbound, TCPFlags.syn)
    connection.pass(.outbound, TCPFlags.syn)
    #expect(connection.judge(syn) == nil)
    let synAck = connection.packet(.inbound, TCPFlags.syn | TCPFlags.ack)
    connection.pass(.inbound, TCPFlags.syn | TCPFlags.ack)
    #expect(connection.judge(syn) == nil)
    #expect(connection.judge(synAck) == nil)
    connection.pass(.outbound)
    // The acknowledgement got lost behind us.
    #expect(connection.judge(synAck) == nil)
    connection.send(.outbound, 60000)
    connection.send(.inbound, 60000)
    #expect(connection.flow?.isLoose == false)
  }

  /// A server under attack answers from a cookie that changes with time, and each answer is as good as another.
  @Test(arguments: [UInt32(0), 4_000_000_000], [UInt8?.none, 9])
  func aServerMayAnswerWithAnotherNumber(number: UInt32, scale: UInt8?) {
    let connection = Connection(Gate(), opener: .outbound, scales: (9, 7))
    connection.pass(.outbound, TCPFlags.syn)
    connection.pass(.inbound, TCPFlags.syn | TCPFlags.ack)
    connection.ends[.inbound]!.next = number
    connection.ends[.inbound]!.scale = scale
    connection.pass(.inbound, TCPFlags.syn | TCPFlags.ack)
    connection.pass(.outbound)
    connection.send(.outbound, 60000)
    connection.send(.inbound, 60000)
  }

  @Test func dataInTheSynMayBeAcknowledgedOrNot() {
    for acknowledged in [true, false] {
      let connection = Connection(Gate(), opener: .outbound)
      #expect(connection.judge(connection.packet(.outbound, TCPFlags.syn, payload: 500)) == nil)
      connection.ends[.outbound]!.next &+= acknowledged ? 501 : 1
      connection.pass(.inbound, TCPFlags.syn | TCPFlags.ack)
      // The server need not wait for the handshake's end (RFC 7413).
      connection.pass(.inbound, payload: 3000)
      connection.pass(.outbound)
      connection.send(.outbound, 500)
      #expect(connection.flow?.phase == .established)
    }
  }

  /// RFC 9293 §3.5.1: one end has forgotten the connection, the other has not.
  @Test func aHalfOpenConnectionIsClearedAway() {
    let connection = opened()
    let old = connection.ends
    // The opener has restarted and takes the same ports.
    connection.ends[.outbound]!.next = 800_000
    let syn = connection.packet(.outbound, TCPFlags.syn)
    #expect(connection.judge(syn) == nil)
    // The other end states its case, the opener resets, and the next SYN begins.
    let challenge = connection.packet(.inbound, acknowledgement: old[.outbound]!.next)
    #expect(connection.judge(challenge) == nil)
    let reset = connection.packet(.outbound, TCPFlags.rst, sequence: old[.outbound]!.next)
    #expect(connection.judge(reset) == nil)
    #expect(connection.flow?.phase == .reset)
    connection.open()
    #expect(connection.flow?.phase == .established)
  }

  @Test func aStaleAcknowledgementMayAnswerASyn() {
    let connection = Connection(Gate(), opener: .outbound)
    connection.pass(.outbound, TCPFlags.syn)
    #expect(connection.judge(connection.packet(.inbound, acknowledgement: 123_456)) == nil)
    #expect(
      connection.judge(connection.packet(.inbound, acknowledgement: 123_456, payload: 1)) == .invalidConnectionState)
    #expect(connection.judge(connection.packet(.outbound, TCPFlags.rst, sequence: 123_456)) == nil)
    connection.ends[.outbound]!.next = 1000
    connection.open()
  }

  @Test func aRefusedConnectionIsOver() {
    let connection = Connection(Gate(), opener: .outbound)
    connection.pass(.outbound, TCPFlags.syn)
    let blind = connection.packet(.inbound, TCPFlags.rst | TCPFlags.ack, sequence: 0, acknowledgement: 7)
    #expect(connection.judge(blind) == .invalidConnectionState)
    #expect(connection.judge(connection.packet(.inbound, TCPFlags.rst, sequence: 0)) == .invalidConnectionState)
    let refusal = connection.packet(.inbound, TCPFlags.rst | TCPFlags.ack, sequence: 0)
    #expect(connection.judge(refusal) == nil)
    #expect(connection.flow?.phase == .reset)
    connection.ends[.outbound]!.next = 1000
    connection.open()
  }

  // MARK: Windows

  @Test(arguments: [(7, 7), (nil, 7), (7, nil), (nil, nil), (14, 0)] as [(UInt8?, UInt8?)])
  func dataBeyondTheWindowIsRefused(scales: (UInt8?, UInt8?)) {
    let connection = opened(scales: scales)
    // Windows count from the last packet of each side, scaled; that of a SYN is not.
    connection.pass(.outbound)
    connection.pass(.inbound)
    let isScaled = scales.0 != nil && scales.1 != nil
    for direction in [TrafficDirection.outbound, .inbound] {
      let other = connection.ends[direction.opposite]!
      let window = UInt32(other.window) << UInt32(isScaled ? other.scale! : 0)
      let next = connection.ends[direction]!.next
      let beyond = connection.packet(direction, sequence: next &+ window &+ 1, payload: 10)
      #expect(connection.judge(beyond) == .invalidConnectionState)
      let within = connection.packet(direction, sequence: next &+ window &- 10, payload: 10)
      #expect(connection.judge(within) == nil)
    }
  }

  @Test func dataFromFarBehindIsRefused() {
    let connection = opened(scales: (nil, nil))
    for _ in 0..<10 { connection.send(.outbound, 60000) }
    let next = connection.ends[.outbound]!.next
    let window = UInt32(connection.ends[.inbound]!.window)
    let old = connection.packet(.outbound, sequence: next &- window &- 101, payload: 100)
    #expect(connection.judge(old) == .invalidConnectionState)
    let again = connection.packet(.outbound, sequence: next &- window &- 100, payload: 100)
    #expect(connection.judge(again) == nil)
  }

  @Test func whatWasNotSentCannotBeAcknowledged() {
    let connection = opened()
    connection.send(.outbound, 1000)
    let next = connection.ends[.outbound]!.next
    #expect(connection.judge(connection.packet(.inbound, acknowledgement: next &+ 1)) == .invalidConnectionState)
    #expect(connection.judge(connection.packet(.inbound, acknowledgement: next)) == nil)
    // Nor a thing of long ago.
    for _ in 0..<10_000 {
      connection.pass(.outbound, payload: 1000)
      connection.pass(.inbound)
    }
    let late = connection.packet(.inbound, acknowledgement: connection.ends[.outbound]!.next &- 9_000_000)
    #expect(connection.judge(late) == .invalidConnectionState)
  }

  @Test func keepAlivesAndProbesOfAClosedWindowPass() {
    let connection = opened(scales: (nil, nil))
    connection.send(.outbound, 3000)
    let next = connection.ends[.outbound]!.next
    #expect(connection.judge(connection.packet(.outbound, sequence: next &- 1)) == nil)
    #expect(connection.judge(connection.packet(.outbound, sequence: next &- 1, payload: 1)) == nil)
    // The whole window is in flight, then it closes.
    connection.pass(.outbound, payload: 60000)
    connection.pass(.inbound, window: 0)
    #expect(
      connection.judge(connection.packet(.outbound, sequence: connection.ends[.outbound]!.next, payload: 1)) == nil)
    connection.pass(.inbound, window: 1000)
    connection.send(.outbound, 1000)
  }

  /// A superpacket counts all its segments, however the gathering of either side falls.
  @Test func superpacketsAreMeasuredWhole() {
    let connection = opened()
    // The header is that of one packet of 40 bytes; the superpacket has 60000 more.
    let head = connection.packet(.outbound)
    #expect(connection.judge(head, length: 60040) == nil)
    connection.ends[.outbound]!.next &+= 60000
    // All of it may be acknowledged at once, or by pieces.
    #expect(
      connection.judge(connection.packet(.inbound, acknowledgement: connection.ends[.outbound]!.next &- 31000)) == nil)
    connection.pass(.inbound)
    #expect(
      connection.judge(connection.packet(.inbound, acknowledgement: connection.ends[.outbound]!.next &+ 1)) != nil)
    // Sent again in other pieces.
    let again = connection.packet(.outbound, sequence: connection.ends[.outbound]!.next &- 20000)
    #expect(connection.judge(again, length: 20040) == nil)
  }

  /// RFC 6092 REC-31 and REC-32.
  @Test func aConnectionThatIsUnderWayIsPickedUpWithoutEnforcingWindows() {
    let connection = Connection(Gate(), opener: .outbound)
    connection.pass(.outbound, payload: 100)
    #expect(connection.flow?.isLoose == true)
    for offset in [0, 1_000_000, 1 << 30] as [UInt32] {
      #expect(connection.judge(connection.packet(.inbound, sequence: 5000 &+ offset, payload: 100)) == nil)
    }
    connection.pass(.outbound)
    #expect(connection.flow?.phase == .established)
    // The partner may not do so against the rules.
    let inbound = Connection(Gate(), opener: .inbound)
    #expect(inbound.judge(inbound.packet(.inbound, payload: 100)) == .firewallDefault)
  }

  // MARK: Resets

  /// RFC 5961 §3 and RFC 7857 §2.
  @Test func aResetMustHitTheMark() {
    let connection = opened()
    connection.send(.inbound, 1000)
    let next = connection.ends[.inbound]!.next
    for offset in [0x4000_0000, 0x8000_0000] as [UInt32] {
      let wild = connection.packet(.inbound, TCPFlags.rst, sequence: next &+ offset)
      #expect(connection.judge(wild) == .invalidConnectionState)
    }
    // Within the window it passes, and changes nothing: its receiver asks back.
    #expect(connection.judge(connection.packet(.inbound, TCPFlags.rst, sequence: next &+ 10)) == nil)
    #expect(connection.flow?.phase == .established)
    #expect(connection.judge(connection.packet(.inbound, TCPFlags.rst, sequence: next)) == nil)
    #expect(connection.flow?.phase == .reset && connection.flow?.segment == .closed)
    // It was a forgery after all: traffic goes on, and the flow with it.
    connection.send(.outbound, 100)
    #expect(connection.flow?.phase == .established && connection.flow?.segment == .established)
  }

  // MARK: Malformed

  @Test func cutHeadersAreRefused() {
    let gate = Gate(Self.allowAll)
    let connection = Connection(gate, opener: .outbound)
    for length in 0..<20 {
      let packet = PacketSketch(
        .outbound, .other(6), payload: Array(connection.packet(.outbound).bytes[20..<20 + length]))
      #expect(gate.out(packet) == .malformedPacket)
      var inbound = packet
      (inbound.source, inbound.destination) = (packet.destination, packet.source)
      #expect(gate.back(inbound) == .malformedInnerPacket)
    }
    for offset in [0, 4, 6, 15] as [UInt8] {
      var bytes = connection.packet(.outbound).bytes
      bytes[32] = offset << 4
      #expect(gate.verdict(bytes, .outbound).refusal == .malformedPacket)
    }
    // Options that run out of the header are no window scale, and no trap.
    var syn = connection.packet(.outbound, TCPFlags.syn).bytes
    syn.replaceSubrange(40..., with: [3, 200, 3, 3, 3, 3, 3, 3])
    #expect(gate.verdict(syn, .outbound).refusal == nil)
  }
}
