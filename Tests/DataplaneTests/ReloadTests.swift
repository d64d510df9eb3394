import PacketIO
import Testing

@testable import Dataplane

/// What survives a change of the configuration, and what must not: `Snapshot` and `SequenceMemory`, as a worker uses
/// them between two batches.
@Suite struct ReloadTests {
  private let packet = PacketSketch("10.1.0.1", "10.2.0.1", .other(50), payload: [1, 2, 3]).bytes

  private func sequence(_ gateway: TestGateway) -> [UInt64] { gateway.seal(packet).map { bigEndian($0[4..<8]) } }

  private func without(_ configuration: Configuration, _ change: (inout PeerConfiguration) -> Void) -> Configuration {
    var configuration = configuration
    change(&configuration.peers[0])
    return configuration
  }

  @Test func whatIsInForceChangesNothing() {
    let sites = Sites()
    let alpha = sites.alpha()
    let beta = sites.beta()
    for round in 0..<5 {
      alpha.adopt(sites.alphaConfiguration)
      beta.adopt(sites.betaConfiguration)
      let sealed = alpha.seal(packet)
      #expect(bigEndian(sealed[0][4..<8]) == UInt64(round + 1))
      #expect(beta.open(sealed[0], path: .path(5)) == [packet])
      beta.adopt(sites.betaConfiguration)
      #expect(beta.open(sealed[0]) == [])
      #expect(beta.peer("alpha").value.path == .path(5))
    }
    #expect(beta.drops == [.replayed: 5])
    #expect(beta.moved == ["alpha"])
    #expect(beta.peer("alpha").value.received.packets == 5)
    #expect(alpha.peer("beta").value.sent.packets == 5)
    #expect(alpha.outboundAssociation("beta")?.value.packets == 5)
  }

  @Test func anotherKeyStartsAfresh() {
    var sites = Sites()
    let alpha = sites.alpha()
    let beta = sites.beta()
    let before = (0..<3).flatMap { _ in alpha.seal(packet) }
    #expect(beta.open(before[2]) == [packet])
    sites.key = 7
    alpha.adopt(sites.alphaConfiguration)
    beta.adopt(sites.betaConfiguration)
    #expect(beta.open(before[0]) == [], "the old key still opens")
    #expect(beta.drops == [.authenticationFailed: 1])
    let after = alpha.seal(packet)
    #expect(bigEndian(after[0][4..<8]) == 1)
    #expect(beta.open(after[0]) == [packet])
  }

  /// Every way in which a key can leave and come back: the sender never repeats a number.
  @Test(arguments: ["removed", "peer removed", "other key", "other SPI", "other peer", "other kind", "lower start"])
  func aKeyThatReturnsRepeatsNoNumber(how: String) {
    let sites = Sites()
    let alpha = sites.alpha()
    let original = sites.alphaConfiguration
    #expect(sequence(alpha) == [1])
    #expect(sequence(alpha) == [2])
    func expectContinues(_ configuration: Configuration, from first: UInt64) {
      alpha.adopt(configuration)
      #expect(sequence(alpha) == [first])
    }
    switch how {
    case "removed":
      alpha.adopt(without(original) { $0.outbound = nil })
      #expect(sequence(alpha) == [])
    case "peer removed":
      alpha.adopt(Configuration(interface: original.interface))
      #expect(sequence(alpha) == [])
    case "other key":
      expectContinues(without(original) { $0.outbound = Sites(key: 9).association }, from: 1)
    case "other SPI":
      // Another association under the same key: the nonces are the same ones.
      expectContinues(without(original) { $0.outbound?.spi = 0x7777 }, from: 3)
      expectContinues(original, from: 4)
      return
    case "other peer":
      expectContinues(without(original) { $0.name = "gamma" }, from: 3)
      expectContinues(original, from: 4)
      return
    case "other kind":
      // What is authenticated differs, but the nonce does not.
      expectContinues(without(original) { $0.outbound?.extendedSequenceNumbers = false }, from: 3)
      expectContinues(without(original) { $0.outbound?.implicitIV = true }, from: 4)
      expectContinues(original, from: 5)
      return
    default:
      expectContinues(without(original) { $0.outbound?.firstSequence = 1 }, from: 3)
      return
    }
    expectContinues(original, from: 3)
    // Once more, after some time away.
    for _ in 0..<3 { alpha.adopt(without(original) { $0.outbound = nil }) }
    expectContinues(original, from: 4)
  }

  @Test func aKeyThatReturnsBeginsWhereItIsTold() {
    let original = Sites().alphaConfiguration
    let alpha = TestGateway(original)
    #expect(sequence(alpha) == [1])
    alpha.adopt(without(original) { $0.outbound = nil })
    // A record on disk may know more than the memory, or less.
    alpha.adopt(without(original) { $0.outbound?.firstSequence = 100 })
    #expect(sequence(alpha) == [100])
    alpha.adopt(without(original) { $0.outbound = nil })
    alpha.adopt(without(original) { $0.outbound?.firstSequence = 50 })
    #expect(sequence(alpha) == [101])
  }

  /// The receiver's side of the same: nothing is accepted twice.
  @Test(arguments: ["removed", "peer removed", "other peer", "other window", "other key"])
  func aKeyThatReturnsAcceptsNothingTwice(how: String) {
    let sites = Sites()
    let alpha = sites.alpha()
    let beta = sites.beta()
    let original = sites.betaConfiguration
    let sealed = (0..<200).flatMap { _ in alpha.seal(packet) }
    for index in [0, 50, 150] { #expect(beta.open(sealed[index]) == [packet]) }
    switch how {
    case "removed": beta.adopt(without(original) { $0.inbound = [] })
    case "peer removed": beta.adopt(Configuration(interface: original.interface))
    case "other peer": beta.adopt(without(original) { $0.name = "gamma" })
    case "other window": beta.adopt(without(original) { $0.inbound[0].replayWindow = 64 })
    default: beta.adopt(without(original) { $0.inbound[0].key = Sites(key: 9).keyMaterial })
    }
    beta.adopt(original)
    for index in [0, 50, 150] { #expect(beta.open(sealed[index]) == []) }
    #expect(beta.drops[.replayed] == 3)
    #expect(beta.open(sealed[151]) == [packet])
  }

  /// Under another SPI an old packet is not authentic, so the numbers may begin anew.
  @Test func theSameKeyUnderAnotherSPIIsAnotherAssociation() {
    let sites = Sites()
    let beta = sites.beta()
    var association = sites.association
    #expect(beta.open(SlowESP(association).seal(packet, sequence: 50, nextHeader: 4)) == [packet])
    association.spi = 0x7777
    beta.adopt(without(sites.betaConfiguration) { $0.inbound = [association] })
    #expect(beta.open(SlowESP(association).seal(packet, sequence: 1, nextHeader: 4)) == [packet])
  }

  @Test func aNewLeaseCountsAtOnce() {
    let sites = Sites(lease: SequenceLease(limit: 2))
    let alpha = sites.alpha()
    #expect((0..<3).flatMap { _ in sequence(alpha) } == [1, 2])
    var next = sites
    next.lease = SequenceLease(limit: 3)
    alpha.adopt(next.alphaConfiguration)
    #expect((0..<3).flatMap { _ in sequence(alpha) } == [3])
    // The old one has nothing to say any more.
    sites.lease?.raise(to: 100)
    #expect(sequence(alpha) == [])
    next.lease?.raise(to: 4)
    #expect((0..<3).flatMap { _ in sequence(alpha) } == [4])
    next.lease = nil
    alpha.adopt(next.alphaConfiguration)
    #expect((0..<3).flatMap { _ in sequence(alpha) } == [5, 6, 7])
    next.lease = SequenceLease(limit: 6)
    alpha.adopt(next.alphaConfiguration)
    #expect(sequence(alpha) == [])
  }

  /// Old and new association side by side: nothing is lost while keys change.
  @Test func keysChangeWithoutALoss() {
    let sites = Sites()
    var new = Sites(key: 9)
    new.path = sites.path
    let alpha = sites.alpha()
    let beta = sites.beta()
    var newAssociation = new.association
    newAssociation.spi = 0xA1A1_0009
    var underway = alpha.seal(packet)
    beta.adopt(without(sites.betaConfiguration) { $0.inbound.append(newAssociation) })
    underway += alpha.seal(packet)
    alpha.adopt(without(sites.alphaConfiguration) { $0.outbound = newAssociation })
    underway += alpha.seal(packet)
    #expect(underway.map { bigEndian($0[4..<8]) } == [1, 2, 1])
    for datagram in underway.reversed() { #expect(beta.open(datagram) == [packet]) }
    beta.adopt(without(sites.betaConfiguration) { $0.inbound = [newAssociation] })
    #expect(beta.open(underway[0]) == [])
    #expect(beta.open(alpha.seal(packet)[0]) == [packet])
    #expect(beta.drops == [.unknownSPI: 1])
  }

  @Test func aConfiguredPathWinsOnlyWhenItChanges() {
    let sites = Sites()
    let configuration = sites.betaConfiguration
    let beta = TestGateway(without(configuration) { $0.path = .path(1) })
    let alpha = beta.peer("alpha")
    _ = beta.open(sites.alpha().seal(packet)[0], path: .path(5))
    beta.adopt(without(configuration) { $0.path = .path(1) })
    #expect(alpha.value.path == .path(5), "the peer had moved, and was moved back")
    beta.adopt(without(configuration) { $0.path = .path(2) })
    #expect(alpha.value.path == .path(2))
    beta.adopt(without(configuration) { $0.path = nil })
    #expect(alpha.value.path == nil)
  }

  /// Peers are known by name: their places in the list do not matter.
  @Test func peersChangePlaces() {
    let star = Star(peers: 6)
    let hub = TestGateway(star.configuration)
    for peer in 0..<6 {
      #expect(hub.open(star.datagramFrom(peer, sequence: 10), path: .path(50 + peer)).count == 1)
      #expect(hub.seal(star.packetTo(peer)).count == 1)
    }
    var shuffled = star.configuration
    shuffled.peers.swapAt(0, 5)
    shuffled.peers.remove(at: 2)
    shuffled.peers.swapAt(1, 3)
    hub.adopt(shuffled)
    for peer in [0, 1, 3, 4, 5] {
      #expect(hub.open(star.datagramFrom(peer, sequence: 10)) == [])
      #expect(hub.open(star.datagramFrom(peer, sequence: 11), path: .path(50 + peer)).count == 1)
      let trains = hub.seal([TunPacket(star.packetTo(peer))])
      #expect(trains.map(\.path) == [.path(50 + peer)])
      #expect(trains.datagrams.map { bigEndian($0[0..<8]) } == [UInt64(star.outbound(peer).spi) << 32 | 2])
      #expect(hub.peer("peer-\(peer)").value.received.packets == 2)
    }
    #expect(hub.seal(star.packetTo(2)) == [])
    #expect(hub.open(star.datagramFrom(2, sequence: 12)) == [])
    #expect(hub.drops == [.replayed: 5, .noRoute: 1, .unknownSPI: 1])
  }

  @Test func aPrefixThatChangesHandsDoesSoAtOnce() {
    let star = Star(peers: 2)
    let hub = TestGateway(star.configuration)
    var swapped = star.configuration
    (swapped.peers[0].prefixes, swapped.peers[1].prefixes) = (swapped.peers[1].prefixes, swapped.peers[0].prefixes)
    hub.adopt(swapped)
    #expect(hub.seal([TunPacket(star.packetTo(0))]).map(\.path) == [.path(1)])
    #expect(hub.open(star.datagramFrom(0, sequence: 1)) == [])
    #expect(hub.drops == [.spoofedSource: 1])
  }

  /// Many SPIs that fall on the same places of the table are told apart, and strangers are not found.
  @Test func everySPIIsFound() {
    var numbers = SeededNumbers(seed: 11)
    for count in [1, 2, 8, 9, 300] {
      var configuration = Star(peers: 1).configuration
      let spis = Set((0..<count).map { _ in UInt32.random(in: 256...UInt32.max, using: &numbers) })
      configuration.peers[0].inbound = spis.map {
        SecurityAssociationConfiguration(spi: $0, cipher: .aes128GCM, key: Sites().keyMaterial)
      }
      let tables = Snapshot(configuration, sealing: .by(.openSSL), now: .seconds(1))
      for spi in spis { #expect(tables.association(spi)?.spi == spi) }
      for _ in 0..<1000 {
        let stranger = UInt32.random(in: 0...UInt32.max, using: &numbers)
        #expect((tables.association(stranger) != nil) == spis.contains(stranger))
      }
    }
  }
}
