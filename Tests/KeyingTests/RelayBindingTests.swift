import Identity
import PacketIO
import Testing

@testable import Keying

/// What relays are told of SPIs, and that it moves nothing at the partner.
struct RelayBindingTests {
  private static let relay = Path(endpoint: Endpoint(address: IPAddress(v4: 0xC633_6409), port: 4500))
  private static let binding: [UInt16] = [65, 385, 705, 61505, 61697]

  /// The first one's partner can be found at a relay, too.
  private static func network(kem: Bool = false) -> KeyingNetwork {
    let network = RekeyTests.network(kem: kem)
    network.gateways[1].places.append(relay)
    network.join(0, 1) { partner in
      guard partner.name == "g1" else { return }
      partner.paths.append(relay)
      partner.relays = [relay]
    }
    return network
  }

  private func bindings(_ network: KeyingNetwork, since: Int = 0) -> [HIPPacket] {
    network.wire[since...].filter { $0.from == 0 }.compactMap { HIPPacket($0.bytes) }.filter {
      $0.kind == .update && $0.content(.hostID) != nil
    }
  }

  /// The newest SPI of an UPDATE of the first one, whose old one is the same.
  private func spi(_ packet: HIPPacket) -> UInt32? {
    ESPInfo(packet.contents(.espInfo).last).flatMap { $0.old == $0.new ? $0.new : nil }
  }

  private func inbound(_ network: KeyingNetwork) -> [UInt32] { network.gateways[0].inbound.keys.map { $0 & ~15 } }

  /// The handshake has gone straight: the relay that stands by is told once, signed, and the partner acknowledges.
  @Test(arguments: [false, true]) func aRelayThatStandsByIsTold(kem: Bool) throws {
    let network = Self.network(kem: kem)
    network.run(seconds: 20)
    #expect(network.areJoined(0, 1) && network.violations == [])
    let told = bindings(network)
    // With each keys that there were.
    #expect(told.count == (kem ? 2 : 1))
    for packet in told {
      #expect(Array(packet.types.drop { $0 == 65 }) == Array(Self.binding.dropFirst()))
      let key = try #require(packet.content(.hostID).flatMap { PublicHostIdentity(hostID: $0) })
      #expect(key.tag == packet.sender && packet.hasValidSignature(by: key))
    }
    #expect(inbound(network).contains(try #require(told.last.flatMap(spi))))
    let acknowledged = network.wire.filter { $0.from == 1 }.compactMap { HIPPacket($0.bytes)?.content(.ack) }
    for packet in told { #expect(acknowledged.contains { $0.elementsEqual(packet.content(.seq) ?? []) }) }
    #expect(network.gateways[1].found.values.allSatisfy { $0 != Self.relay })
  }

  @Test func newKeysAreTold() throws {
    let network = Self.network()
    network.run(seconds: 3)
    let before = network.wire.count
    network.act(0) { $0.rekey("g1", now: network.now) }
    network.run(seconds: 3)
    let told = bindings(network, since: before)
    #expect(told.count == 1)
    let spi = try #require(told.first.flatMap(spi))
    #expect(network.gateways[1].outbound["g0"].map { $0.spi & ~15 } == spi && network.violations == [])
  }

  /// A relay that was started anew; what is lost is said again, once a minute in the end.
  @Test(arguments: [0, 3, 100]) func aRelayIsToldAgain(losses: Int) {
    let network = Self.network()
    network.run(seconds: 3)
    let before = network.wire.count
    var left = losses
    network.judge = { from, _, packet in
      guard from == 0, packet.content(.hostID) != nil, left > 0 else { return [1_000_000] }
      left -= 1
      return []
    }
    network.act(0) { $0.announce(along: Self.relay, now: network.now) }
    network.run(seconds: 300)
    let told = bindings(network, since: before)
    // 0.3, 0.9, 2.1 … 76.5 s after the first, and then each minute.
    #expect(told.count == min(losses + 1, 12))
    #expect(Set(told.map { Array($0.content(.seq) ?? []) }).count == 1)
    #expect(network.areJoined(0, 1) && network.violations == [])
    // Another path is no relay's.
    let end = network.wire.count
    network.act(0) { $0.announce(along: KeyingNetwork.path(to: 1), now: network.now) }
    #expect(bindings(network, since: end).isEmpty)
  }

  /// Amid a rekey the partner seals under the keys of before until it hears that the new ones are accepted: a relay that has
  /// forgotten all is told of both.
  @Test(arguments: [false, true]) func amidARekeyARelayIsToldOfBothKeys(kem: Bool) throws {
    let network = Self.network(kem: kem)
    network.run(seconds: 20)
    let before = inbound(network)
    network.judge = { from, _, packet in from == 0 && packet.content(.ack) != nil ? [] : [1_000_000] }
    network.act(1) { $0.rekey("g0", now: network.now) }
    network.run(seconds: 0.1)
    let used = try #require(network.gateways[1].outbound["g0"]).spi & ~15
    #expect(before.contains(used), "it seals under the keys of before")
    let accepted = Set(inbound(network)).subtracting(before)
    #expect(accepted.count == 1, "and others are accepted")
    let end = network.wire.count
    network.act(0) { $0.announce(along: Self.relay, now: network.now) }
    let told = try #require(bindings(network, since: end).last)
    let spis = told.contents(.espInfo).compactMap { ESPInfo($0)?.new }
    #expect(Set(spis) == accepted.union([used]))
    network.judge = nil
    network.run(seconds: 20)
    #expect(network.areJoined(0, 1) && network.violations == [])
  }

  /// The other side is not enrolled there for a quarter of an hour: the relay is told all the same, as soon as what is said
  /// gets through, and not only with the next keys.
  @Test func aRelayIsToldHoweverLateThePartnerComes() {
    let network = Self.network()
    network.run(seconds: 3)
    let end = network.now.adding(seconds: 900)
    var passed = 0
    network.judge = { [unowned network] from, _, packet in
      guard from == 0, packet.content(.hostID) != nil else { return [1_000_000] }
      guard network.now >= end else { return [] }
      passed += 1
      return [1_000_000]
    }
    network.act(0) { $0.announce(along: Self.relay, now: network.now) }
    network.run(seconds: 900)
    #expect(passed == 0)
    network.run(seconds: 61)
    #expect(passed == 1)
    // It was acknowledged, so that is all.
    network.run(seconds: 300)
    #expect(passed == 1 && network.areJoined(0, 1) && network.violations == [])
  }

  /// The partner's own comes by the relay: so it is enrolled there, and hears this side's at once.
  @Test func thePartnersIsAnsweredWithThisSides() throws {
    let network = Self.network()
    network.gateways[0].places.append(Path(endpoint: Endpoint(address: IPAddress(v4: 0xC633_640A), port: 4500)))
    network.run(seconds: 3)
    var isCut = true
    network.judge = { from, _, packet in from == 0 && packet.content(.hostID) != nil && isCut ? [] : [1_000_000] }
    network.act(0) { $0.announce(along: Self.relay, now: network.now) }
    network.run(seconds: 150)
    // What the partner says to the relay, which hands it on.
    var partner = network.partner(0, of: 1)
    partner.paths.append(network.gateways[0].places[1])
    partner.relays = [network.gateways[0].places[1]]
    network.set(partner, at: 1)
    network.act(1) { $0.announce(along: partner.relays[0], now: network.now) }
    let packet = try #require(network.wire.last { $0.from == 1 && HIPPacket($0.bytes)?.content(.hostID) != nil })
    isCut = false
    let before = network.wire.count
    network.inject(packet.bytes, from: 1, to: 0, source: Self.relay)
    network.run(seconds: 0.1)
    #expect(bindings(network, since: before).count == 1)
    // Its acknowledgment came, so the next one of the partner's brings nothing.
    let end = network.wire.count
    network.run(seconds: 1)
    network.inject(packet.bytes, from: 1, to: 0, source: Self.relay)
    network.run(seconds: 100)
    #expect(bindings(network, since: end).isEmpty && network.violations == [])
  }

  /// Without keys there is nothing to be told: a handshake goes by the relay, at once.
  @Test func withoutKeysAHandshakeBegins() {
    let network = Self.network()
    network.gateways[1].isUp = false
    network.run(seconds: 60)
    let before = network.wire.count
    network.act(0) { $0.announce(along: Self.relay, now: network.now) }
    network.run(seconds: 0.2)
    #expect(network.wire[before...].contains { HIPPacket($0.bytes)?.kind == .i1 })
  }

  /// Nobody's word counts but the partner's: a binding with another MAC does nothing, a recorded one neither.
  @Test func recordedOnesMoveNothing() throws {
    let network = Self.network()
    network.run(seconds: 3)
    let packet = try #require(network.wire.last { HIPPacket($0.bytes)?.content(.hostID) != nil && $0.from == 0 })
    let before = network.gateways.map { $0.outbound.mapValues(\.spi) }
    for _ in 0..<5 {
      network.inject(packet.bytes, from: 0, to: 1, source: Self.relay)
      network.run(seconds: 1)
    }
    #expect(network.gateways.map { $0.outbound.mapValues(\.spi) } == before)
    #expect(network.gateways[1].found.values.allSatisfy { $0 != Self.relay } && network.violations == [])
  }
}
