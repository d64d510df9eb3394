import PacketIO
import Testing

@testable import Dataplane

/// Messages between the two ends: sealed like packets, and never seen by hosts.
@Suite struct ControlMessageTests {
  private let sites = Sites()

  private func message(_ type: UInt8, _ body: [UInt8], version: UInt8 = 1, length: Int? = nil) -> [UInt8] {
    be32(0x4355_4C56) + [version, type] + be16(UInt16(length ?? body.count)) + body
  }

  @Test func whatOneEndSaysTheOtherHears() {
    let alpha = sites.alpha()
    let beta = sites.beta()
    for (size, body) in [(0, []), (0, [1, 2, 3]), (1000, [9]), (1400, [UInt8](repeating: 7, count: 1024))]
      as [(Int, [UInt8])]
    {
      let train = alpha.sealControl(type: 5, body: body, to: "beta", size: size)
      #expect(train.map(\.datagrams.count) == [1] && train.map(\.path) == [sites.path])
      let sealed = train[0].bytes
      // The largest that is not larger than asked for, and as small as possible otherwise.
      #expect(size == 0 ? sealed.count == 34 + 8 + body.count + (2 - body.count) & 3 : size - 3...size ~= sealed.count)
      #expect(SlowESP(sites).open(sealed)?.nextHeader == 59)
      #expect(beta.open(train).isEmpty)
      #expect(beta.controls == [ControlMessageSeen(type: 5, body: body)])
      beta.controls = []
      // Not twice.
      #expect(beta.open(train).isEmpty && beta.controls.isEmpty)
    }
    #expect(beta.drops == [.replayed: 4])
    #expect(beta.inbound.controlReceived == 4 && alpha.outbound.controlSent == 4)
    #expect(beta.peer("alpha").value.received == TrafficCount())
    #expect(alpha.outbound.counters.arrived == TrafficCount())
    #expect(alpha.outboundAssociation("beta")?.value.next == 5)
  }

  @Test func whereNothingCanBeSent() {
    for change in [
      { $0.outbound = nil }, { $0.path = nil }, { $0.outbound?.lease = SequenceLease(limit: 0) },
      { $0.outbound?.firstSequence = UInt64.max },
    ] as [(inout PeerConfiguration) -> Void] {
      var configuration = sites.alphaConfiguration
      change(&configuration.peers[0])
      let alpha = TestGateway(configuration)
      #expect(alpha.sealControl(type: 1, body: [], to: "beta") == [])
      #expect(alpha.drops == [:] && alpha.outbound.controlSent == 0)
    }
    #expect(sites.alpha(buffers: 2).sealControl(type: 1, body: [], to: "beta") == [])
    #expect(sites.alpha().sealControl(type: 1, body: [], to: "beta", size: 65_600) == [])
    // Along a path that the peer has not got (yet).
    var configuration = sites.alphaConfiguration
    configuration.peers[0].path = nil
    let trains = TestGateway(configuration).sealControl(type: 1, body: [], to: "beta", along: .path(9))
    #expect(trains.map(\.path) == [.path(9)])
  }

  /// What is not understood is a dummy packet, as it would be to anybody else (RFC 4303 §2.6).
  @Test func whatIsNoMessageIsADummy() {
    let strange: [[UInt8]] = [
      [], [1, 2, 3, 4], message(1, [1]).dropLast(2), message(1, [1], version: 2), message(1, [1, 2], length: 3),
      message(1, [UInt8](repeating: 0, count: 1025)), [0] + message(1, [1]), message(1, [], length: 65535),
    ]
    let beta = sites.beta()
    for (index, payload) in strange.enumerated() {
      #expect(beta.open(SlowESP(sites).seal(payload, sequence: UInt64(index + 1), nextHeader: 59)) == [])
    }
    #expect(beta.controls.isEmpty)
    #expect(beta.drops == [.dummyPacket: strange.count])
    // Padding behind the body, and types to come.
    #expect(beta.open(SlowESP(sites).seal(message(200, [1]) + [9, 9, 9], sequence: 50, nextHeader: 59)) == [])
    #expect(beta.controls == [ControlMessageSeen(type: 200, body: [1])])
  }

  /// More than are looked into for one peer: dropped and counted, and the rest of the train arrives.
  @Test func aFloodOfMessages() {
    let beta = sites.beta()
    let esp = SlowESP(sites)
    let packet = PacketSketch("10.1.0.1", "10.2.0.1", .other(50), payload: [1, 2, 3])
    var datagrams = (1...100).map { esp.seal(message(1, [7, 7, 7, 7, 7, 7]), sequence: $0, nextHeader: 59) }
    datagrams.append(esp.seal(packet, sequence: 101))
    #expect(beta.open(.joining(datagrams, limit: 128)).flatMap(\.packets) == [packet.bytes])
    #expect(beta.controls.count == 48)
    #expect(beta.drops == [.controlLimit: 52])
  }

  /// Between packets of a train, a message takes nothing with it.
  @Test func amongPackets() {
    let alpha = sites.alpha()
    let beta = sites.beta()
    let packet = PacketSketch("10.1.0.1", "10.2.0.1", .other(50), payload: [1, 2, 3, 4]).bytes
    let datagrams =
      alpha.seal(packet) + alpha.sealControl(type: 1, body: [1, 2, 3, 4, 5, 6, 7, 8], to: "beta", size: 60).datagrams
      + alpha.seal(packet)
    #expect(beta.open(.joining(datagrams)).flatMap(\.packets) == [packet, packet])
    #expect(beta.controls.map(\.body) == [[1, 2, 3, 4, 5, 6, 7, 8]])
  }
}
