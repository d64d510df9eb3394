import PacketIO

@testable import Dataplane

/// What befalls a network: links, translators, operators and attackers, all at random.
struct Weather {
  /// Nanoseconds between two events, on average.
  var interval: UInt64 = 100_000_000
  /// The gateway whose address may change. Two that change at once would lose each other.
  var roaming: Int? = 0
  /// Whether operators change keys and peers, and gateways are started anew.
  var hasOperators = true
  var hasAttackers = true

  func begin(_ network: Network) { plan(network) }

  private func plan(_ network: Network) {
    let wait = interval / 2 + network.numbers.next() % interval
    network.clock.plan(
      .step { network in
        guard network.trafficGoesOn, !network.isCalm else { return }
        befall(network)
        plan(network)
      }, after: wait)
  }

  private func befall(_ network: Network) {
    let count = network.plan.gateways
    let gateway = network.numbers.below(count)
    let other = (gateway + 1 + network.numbers.below(count - 1)) % count
    if network.hairpins != nil, network.numbers.chance(500) { return befallRelay(network, gateway) }
    switch network.numbers.below(20) {
    case 0..<9: shake(network, gateway, other)
    case 9, 10:
      if let place = network.internet.translators.keys.sorted().randomElement(using: &network.numbers) {
        network.internet.translators[place]?.rebind()
      }
    case 11: if let roaming { network.move(roaming, interface: network.numbers.below(network.plan.interfaces)) }
    case 12, 13: if hasAttackers { for _ in 0..<5 { network.replay() } }
    case 14: if hasAttackers { network.invent() }
    default: if hasOperators { operate(network, gateway, other) }
    }
  }

  private func befallRelay(_ network: Network, _ gateway: Int) {
    let place = Place(gateway: gateway, interface: network.plan.interfaces)
    switch network.numbers.below(10) {
    case 0:
      network.stopRelay(isOrderly: network.numbers.chance(500))
      network.clock.plan(.step { $0.startRelay() }, after: UInt64(network.numbers.below(1_000_000_000)))
    case 1:
      if network.internet.translators[place] != nil {
        network.internet.translators[place]?.rebind()
      } else {
        network.move(gateway, interface: place.interface)
      }
    default: shake(network, gateway, network.plan.relay, interface: place.interface)
    }
  }

  private func shake(_ network: Network, _ gateway: Int, _ other: Int, interface: Int? = nil) {
    var faults = Link.Faults()
    func roll(_ likelihood: Int, _ limit: Int) -> Int {
      network.numbers.chance(likelihood) ? 1 + network.numbers.below(limit) : 0
    }
    faults.delay = 200_000 + UInt64(network.numbers.below(40_000_000))
    faults.jitter = UInt64(roll(400, 8_000_000))
    faults.lost = roll(400, 200)
    faults.duplicated = roll(400, 100)
    faults.corrupted = roll(300, 50)
    faults.late = roll(300, 50)
    faults.isUp = !network.numbers.chance(120)
    if network.numbers.chance(150) { faults.mtu = 1280 + network.numbers.below(220) }
    let interface = interface ?? network.numbers.below(network.plan.interfaces)
    network.note(.weather, gateway, other: other)
    if network.numbers.chance(500) {
      network.internet.change(gateway, other, interface: interface) { $0 = faults }
    } else {
      let link = network.internet.link(from: gateway, to: other, interface: interface)
      network.internet.links[link].faults = faults
    }
  }

  private func operate(_ network: Network, _ gateway: Int, _ other: Int) {
    switch network.numbers.below(6) {
    case 0: restart(network, gateway)
    case 1:
      let extra = network.numbers.below(10)
      if let place = network.operators[gateway].extras.firstIndex(of: extra) {
        network.operators[gateway].extras.remove(at: place)
      } else {
        network.operators[gateway].extras.append(extra)
      }
      network.note(.changedPeers, gateway)
      network.perform { try $0.reload(gateway) }
    case 2:
      network.note(.reloaded, gateway)
      network.perform { try $0.reload(gateway) }
    case 3: changePeer(network, gateway, other)
    default: rekey(network, gateway, other)
    }
  }

  private func restart(_ network: Network, _ gateway: Int) {
    network.stop(gateway)
    let downtime = UInt64(network.numbers.below(300_000_000))
    network.clock.plan(
      .step { network in
        if !network.gateways[gateway].isUp { network.perform { try $0.start(gateway) } }
      }, after: downtime)
  }

  /// A gateway forgets a peer, or its keys, or knows both again. Of several workers one would know it before the other.
  private func changePeer(_ network: Network, _ gateway: Int, _ peer: Int) {
    guard network.plan.workers(gateway) == 1 else { return }
    if network.operators[gateway].absent.remove(peer) == nil, network.operators[gateway].unsealed.remove(peer) == nil {
      if network.numbers.chance(500) {
        network.operators[gateway].absent.insert(peer)
      } else {
        network.operators[gateway].unsealed.insert(peer)
      }
    }
    network.note(.changedPeers, gateway)
    network.perform { try $0.reload(gateway) }
  }

  /// One side of a tunnel changes keys: forward, or back to one that was used before.
  private func rekey(_ network: Network, _ from: Int, _ to: Int) {
    network.note(.rekeyed, from, other: to)
    let accepted = network.operators[to].inbound[from] ?? []
    let newest = accepted.max() ?? 0
    switch network.numbers.below(4) {
    case 0:
      network.operators[to].inbound[from] = Array((accepted + [newest + 1]).suffix(3))
      network.perform { try $0.reload(to) }
    case 1, 2:
      network.operators[from].outbound[to] = newest
      network.perform { try $0.reload(from) }
    default:
      let returning = network.numbers.below(newest + 1)
      network.operators[to].inbound[from] = Array(Set(accepted.suffix(2) + [returning])).sorted()
      network.perform { try $0.reload(to) }
    }
  }
}
