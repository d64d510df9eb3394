import PacketIO
import Testing

@testable import Keying

/// Where relays see a side, and who is told.
struct IntroductionTests {
  private static let relay = Path(endpoint: Endpoint(address: IPAddress(v4: 0xC633_6409), port: 4500))
  private static let seen = Endpoint(address: IPAddress(v4: 0xCB00_7109), port: 4500)

  private static func network(hasRelay: Bool = true, _ before: (KeyingNetwork) -> Void = { _ in }) -> KeyingNetwork {
    let network = RekeyTests.network()
    before(network)
    network.join(0, 1) { partner in
      if hasRelay { partner.relays = partner.paths }
    }
    network.run(seconds: 3)
    return network
  }

  private func introduce(_ network: KeyingNetwork, at places: [Endpoint] = [seen]) {
    network.act(0) { $0.set(reflexive: places, now: network.now) }
    network.run(seconds: 1)
  }

  /// It is told once, tries that place, and goes on where it was.
  @Test func aPartnerBehindARelayIsTold() {
    let network = Self.network()
    let found = network.gateways[1].found
    introduce(network)
    #expect(network.gateways[1].located["g0"] == [Path(endpoint: Self.seen)])
    #expect(network.gateways[1].found == found)
    network.run(seconds: 200)
    #expect(network.gateways[1].timesLocated == 1 && network.gateways[0].timesLocated == 0)
    #expect(network.gateways[1].found == found && network.violations == [])
  }

  @Test func whoeverHasNoRelayIsNotTold() {
    let network = Self.network(hasRelay: false)
    introduce(network)
    #expect(network.gateways[1].timesLocated == 0 && network.violations == [])
  }

  /// What is known before there are keys is told when there are, and to a partner that was started anew.
  @Test func newKeysAreToldOf() {
    let network = Self.network { introduce($0) }
    #expect(network.gateways[1].located["g0"] == [Path(endpoint: Self.seen)])
    var partner = network.partner(0, of: 1)
    partner.relays = partner.paths
    network.restart(1, with: [partner])
    network.run(seconds: 10)
    #expect(network.areJoined(0, 1) && network.gateways[1].timesLocated == 2 && network.violations == [])
  }

  /// It has moved, and nobody was told before a relay sees it again: then that is told, and not what was known before.
  @Test func afterAMove() {
    let network = Self.network()
    network.judge = { _, _, _ in [] }
    let own = Endpoint(address: IPAddress(v4: 0x0A00_0007), port: 4500)
    network.act(0) { $0.move(to: [own], now: network.now) }
    network.run(seconds: 0.1)
    network.judge = { _, _, _ in [1_000_000] }
    introduce(network, at: [Self.seen, own])
    network.run(seconds: 3)
    #expect(network.gateways[1].located["g0"]?.contains(Path(endpoint: Self.seen)) == true)
    #expect(network.violations == [])
  }

  /// A relay that sees it nowhere any more: nobody is told.
  @Test func nowhere() {
    let network = Self.network {
      introduce($0)
      introduce($0, at: [])
    }
    #expect(network.gateways[1].timesLocated == 0 && network.violations == [])
  }
}
