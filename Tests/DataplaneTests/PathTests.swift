import PacketIO
import Testing

@testable import Dataplane

/// Where a peer is: only its newest authenticated packet tells.
@Suite struct PathTests {
  private let sketch = PacketSketch("10.1.0.1", "10.2.0.1", .other(50), payload: [1, 2, 3])

  private func datagram(_ sequence: UInt64) -> [UInt8] { SlowESP(Sites()).seal(sketch, sequence: sequence) }

  @Test func aPeerIsFoundByItsFirstPacketAndFollowedWhereverItGoes() {
    let beta = Sites().beta()
    let alpha = beta.peer("alpha")
    let answer = PacketSketch("10.2.0.1", "10.1.0.1", .other(50)).bytes
    #expect(alpha.value.path == nil)
    #expect(beta.seal(answer) == [])
    #expect(beta.drops == [.noPath: 1])
    for (step, path) in [3, 4, 4, 3].enumerated() {
      #expect(beta.open(datagram(UInt64(step + 1)), path: .path(path), now: .seconds(Double(10 + step))).count == 1)
      #expect(alpha.value.path == .path(path))
      #expect(alpha.value.lastHeard == .seconds(Double(10 + step)))
      #expect(beta.seal([TunPacket(answer)]).map(\.path) == [.path(path)])
    }
    #expect(beta.moved == ["alpha", "alpha", "alpha"])
  }

  @Test func whatIsNotNewestMovesNothing() {
    let beta = Sites().beta()
    let alpha = beta.peer("alpha")
    _ = beta.open(datagram(100), path: .path(1))
    #expect(alpha.value.path == .path(1))
    let elsewhere = Path.path(9)
    // Late, but never seen: delivered, and no more.
    #expect(beta.open(datagram(99), path: elsewhere).count == 1)
    // Replayed, altered, from nobody, cut off.
    #expect(beta.open(datagram(100), path: elsewhere) == [])
    var altered = datagram(101)
    altered[20] ^= 1
    #expect(beta.open(altered, path: elsewhere) == [])
    altered = datagram(101)
    altered[3] ^= 1
    #expect(beta.open(altered, path: elsewhere) == [])
    #expect(beta.open(Array(datagram(101).dropLast(4)), path: elsewhere) == [])
    // Another sequence number on an old packet.
    altered = datagram(100)
    altered[7] = 200
    #expect(beta.open(altered, path: elsewhere) == [])
    #expect(alpha.value.path == .path(1))
    #expect(beta.moved == ["alpha"])
    #expect(alpha.value.received.packets == 2)
  }

  /// What a peer may not say still proves where it is: a dummy packet does.
  @Test func anAuthenticPacketWithoutPayloadTellsThePath() {
    let beta = Sites().beta()
    _ = beta.open(SlowESP(Sites()).seal([], sequence: 1, nextHeader: 59), path: .path(7))
    #expect(beta.peer("alpha").value.path == .path(7))
    #expect(beta.drops == [.dummyPacket: 1])
  }

  @Test func everyPeerThatMovesIsNamed() {
    let star = Star(peers: 60)
    let hub = TestGateway(star.configuration, buffers: 200)
    #expect(hub.open((0..<60).map { Train(star.datagramFrom($0, sequence: 1), path: .path(99)) }).count == 60)
    #expect(hub.moved.sorted() == (0..<60).map { "peer-\($0)" }.sorted())
    hub.moved = []
    // Told once a move, and again at the next one.
    #expect(hub.open((0..<60).map { Train(star.datagramFrom($0, sequence: 2), path: .path(99)) }).count == 60)
    #expect(hub.moved == [])
    #expect(hub.open([Train(star.datagramFrom(5, sequence: 3), path: .path(98))]).count == 1)
    #expect(hub.moved == ["peer-5"])
  }

  /// With several paths no packet moves the path by itself: the worker hears of the newest authentic one and nobody
  /// else.
  @Test func withSeveralPathsThePathSelectionDecides() {
    var configuration = Sites().betaConfiguration
    configuration.peers[0].paths = [ConfiguredPath(path: .path(1)), ConfiguredPath(path: .path(2))]
    let beta = TestGateway(configuration)
    let alpha = beta.peer("alpha")
    #expect(beta.open(datagram(100), path: .path(1), now: .seconds(3)).count == 1)
    #expect(alpha.value.path == .path(1) && alpha.value.heardBy == nil && alpha.value.lastHeardHere == .seconds(3))
    #expect(beta.moved == [])
    var altered = datagram(101)
    altered[20] ^= 1
    #expect(beta.open(altered, path: .path(2)) == [])
    #expect(beta.open(datagram(99), path: .path(2)).count == 1)
    #expect(beta.open(datagram(100), path: .path(2)) == [])
    #expect(alpha.value.heardBy == nil && beta.moved == [])
    #expect(beta.open(datagram(102), path: .path(2), now: .seconds(4)).count == 1)
    #expect(alpha.value.path == .path(1) && alpha.value.heardBy == .path(2))
    #expect(alpha.value.lastHeardHere == .seconds(3) && alpha.value.lastHeard == .seconds(4))
    #expect(beta.moved == ["alpha"])
  }

  /// Probes go by every path and say nothing of the path.
  @Test func aProbeMovesNothing() {
    let beta = Sites().beta()
    let probe = ProbeMessage(number: 7, tieBreaker: 9, rank: 1, isUsed: true)
    let message = Sites().alpha().sealControl(type: ControlMessage.Kind.probe, body: probe.body, to: "beta")
    #expect(beta.open(message.map { Train($0.bytes, path: .path(8)) }).isEmpty)
    #expect(beta.controls.map(\.body) == [probe.body] && beta.moved == [])
    #expect(beta.peer("alpha").value.path == nil && beta.peer("alpha").value.lastHeard != nil)
  }

  /// A move and back within a batch is one report.
  @Test func aPeerIsNamedOnceABatch() {
    let beta = Sites().beta()
    _ = beta.open((1...6).map { Train(datagram($0), path: .path(Int($0 % 2))) })
    #expect(beta.moved == ["alpha"])
    #expect(beta.peer("alpha").value.path == .path(0))
  }

  /// An inner source is judged against the peer that sealed it, whoever else owns it.
  @Test func nobodySpeaksForAnother() {
    let star = Star(peers: 3)
    let hub = TestGateway(star.configuration)
    let sources = [Star.address(1), "10.9.9.9", "10.1.0.1", "0.0.0.0", "255.255.255.255", "fd00:2::1", "::", "fe80::1"]
    for (index, source) in sources.enumerated() {
      let sketch = PacketSketch(source, source.contains(":") ? "fd00:1::1" : "10.1.0.1", .other(50))
      #expect(hub.open(SlowESP(star.inbound(0)).seal(sketch, sequence: UInt64(index + 1)), path: .path(0)) == [])
    }
    #expect(hub.drops == [.spoofedSource: sources.count])
    #expect(hub.peer("peer-0").value.received == TrafficCount())
    #expect(hub.peer("peer-1").value.received == TrafficCount())
    #expect(hub.peer("peer-1").value.lastHeard == nil)
  }

  /// A train in which peers alternate: the remembered last source is the right peer's.
  @Test func peersAlternateWithinATrain() {
    let star = Star(peers: 2)
    let hub = TestGateway(star.configuration)
    var datagrams: [[UInt8]] = []
    for index in 0..<20 {
      let sketch = PacketSketch(Star.address(index / 2 % 2), "10.1.0.1", .other(50), payload: [UInt8(index), 0])
      datagrams.append(SlowESP(star.inbound(index % 2)).seal(sketch, sequence: UInt64(index + 1)))
    }
    let delivered = hub.open([Train(datagrams.flatMap { $0 }, segmentSize: datagrams[0].count)]).flatMap(\.packets)
    #expect(delivered.map { SlowPacket($0).bytes[20] } == [0, 3, 4, 7, 8, 11, 12, 15, 16, 19])
    #expect(hub.drops == [.spoofedSource: 10])
  }
}
