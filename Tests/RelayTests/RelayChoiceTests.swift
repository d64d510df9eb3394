import Identity
import Keying
import PacketIO
import TestSupport
import Testing

@testable import Relay
@testable import Transports

/// Which of several relays two gateways come to use: two whole handshakes' ends and two relays, in memory.
@Suite struct RelayChoiceTests {
  /// Two gateways that reach each other by relays only.
  private final class Network {
    final class Relay {
      var relay: IdentityRelay
      let path: Path

      init(_ number: Int, _ gateways: [HostIdentity], load: Double, now: MonotonicTime) {
        var options = RelayOptions(identity: .generate(.ed25519))
        (options.gateways, options.pairs) = (4, 4)
        options.policy.allow(gateways[0].tag, gateways[1].tag)
        path = Path(endpoint: Endpoint(address: IPAddress(v4: 0xCB00_7101 + UInt32(number)), port: 4500))
        relay = IdentityRelay(
          options, cookies: HairpinCookies(secret: [UInt8](repeating: 7, count: 32)), now: now,
          random: SeededNumbers(seed: 1))
        relay.load.note(RelayLoad.Reading(at: now, busy: 0, bytes: 0), pairs: load)
      }
    }

    enum Event {
      case toRelay(Int, from: Int, [UInt8])
      case toGateway(Int, by: Int, [UInt8])
    }

    var clock = HairpinClock(monotonic: MonotonicTime(nanoseconds: 1 << 50), wall: 1_800_000_000)
    let identities = [HostIdentity.generate(.p256), HostIdentity.generate(.p256)]
    var relays: [Relay] = []
    var exchanges: [KeyExchange] = []
    /// By gateway: the relay that it was told to use.
    var chosen: [Int?] = [nil, nil]
    private var events: [(at: MonotonicTime, order: Int, what: Event)] = []
    private var order = 0

    /// - Parameters:
    ///   - loads: of the relays, the best of each gateway's list first.
    ///   - delays: nanoseconds to and from each.
    init(loads: [Double], delays: [UInt64]) {
      self.delays = delays
      for (number, load) in loads.enumerated() {
        relays.append(Relay(number, identities, load: load, now: clock.monotonic))
      }
      for number in 0..<2 {
        exchanges.append(KeyExchange(random: SeededNumbers(seed: UInt64(number) + 5)))
        let name = SocketName(endpoint(number))
        for relay in relays {
          _ = relay.relay.places.enrol(
            identities[number].publicIdentity,
            RelayAddress(name: name, port: 0, now: clock.monotonic), seen: endpoint(number),
            token: HairpinNumber(high: 1, low: UInt64(number)), sequence: 1)
        }
        var partner = Partner(
          name: "partner", local: identities[number], remote: identities[1 - number].tag, paths: relays.map(\.path))
        partner.relays = relays.map(\.path)
        exchanges[number].set(partner, now: clock.monotonic)
        act(number)
      }
    }

    private let delays: [UInt64]
    private func endpoint(_ gateway: Int) -> Endpoint {
      Endpoint(address: IPAddress(v4: 0xC000_0201 + UInt32(gateway)), port: 4500)
    }

    private func put(_ event: Event, after delay: UInt64) {
      order += 1
      events.append((clock.monotonic.adding(nanoseconds: delay), order, event))
    }

    private func act(_ gateway: Int) {
      for action in exchanges[gateway].takeActions() {
        switch action {
        case .send(let bytes, let path):
          guard let relay = relays.firstIndex(where: { $0.path == path }) else { continue }
          put(.toRelay(relay, from: gateway, bytes), after: delays[relay])
        case .usePath(let path, _): chosen[gateway] = relays.firstIndex { $0.path == path }
        default: break
        }
      }
    }

    private func deliver(_ event: Event) {
      switch event {
      case .toGateway(let gateway, let relay, let bytes):
        exchanges[gateway].receive(bytes, along: relays[relay].path, now: clock.monotonic)
        act(gateway)
      case .toRelay(let relay, let gateway, let bytes):
        let outcome = withBytes(bytes) { packet in
          withName(endpoint(gateway)) { relays[relay].relay.observe(packet, from: .datagram($0), clock) }
        }
        switch outcome {
        case .forward: put(.toGateway(1 - gateway, by: relay, bytes), after: delays[relay])
        case .drop(_, let answer?):
          put(.toGateway(gateway, by: relay, Array(answer.dropFirst(4))), after: delays[relay])
        case .drop, .wait: break
        }
      }
    }

    func run(seconds: Double) {
      let end = clock.monotonic.adding(seconds: seconds)
      while true {
        let packet = events.indices.min { (events[$0].at, events[$0].order) < (events[$1].at, events[$1].order) }
        let times = [packet.map { events[$0].at }] + exchanges.map(\.deadline) + relays.map { $0.relay.waiting.nextDue }
        guard let next = times.compactMap(\.self).min(), next <= end else { break }
        clock.monotonic = max(clock.monotonic, next)
        if let packet, events[packet].at <= next { deliver(events.remove(at: packet).what) }
        for number in exchanges.indices {
          exchanges[number].work(now: clock.monotonic)
          act(number)
        }
        for (number, relay) in relays.enumerated() {
          for (place, _, packet) in relay.relay.takeDue(clock) {
            let receiver = relay.relay.places[place].identity.tag == identities[0].tag ? 0 : 1
            put(.toGateway(receiver, by: number, Array(packet.dropFirst(4))), after: delays[number])
          }
        }
      }
      clock.monotonic = end
    }
  }

  /// The first R1 that verifies chooses, and it comes by the relay that is idle: though the other one stands first in the
  /// list, is asked a tenth of a second before, and is nearer. Where both are idle, or it is only a little busy, the first.
  @Test(
    arguments: [
      ([0.9, 0.1], 1), ([0.1, 0.9], 0), ([0.0, 0.0], 0), ([0.97, 0.2], 1), ([0.55, 0.0], 0), ([0.949, 0.93], 0),
    ] as [([Double], Int)])
  func theIdleRelayIsChosen(loads: [Double], expected: Int) {
    let network = Network(loads: loads, delays: [1_000_000, 10_000_000])
    network.run(seconds: 5)
    #expect(network.chosen[0] == expected || network.chosen[1] == expected, "\(network.chosen)")
    #expect(network.chosen.allSatisfy { $0 == nil || $0 == expected }, "\(network.chosen)")
    // The other one stands by, told already: what it refuses is handshakes.
    let other = network.relays[1 - expected]
    let isBound = other.relay.snapshot(network.clock).report.pairs.first?.isBound
    #expect(isBound == true, "\(loads)")
  }
}
