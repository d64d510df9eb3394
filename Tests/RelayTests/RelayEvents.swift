import Identity
import PacketIO
import TestSupport

@testable import Relay
@testable import Transports

/// A control system that sends its policy to all relays, by updates that get there as it happens.
struct PolicyControl {
  let authority: HairpinPrivateKey
  /// Who wants to talk to whom; what is allowed is among it.
  var partnerships: [RelayModel.Pair] = []
  var allowed: Set<RelayModel.Pair> = []
  /// Of the last update to each relay.
  private var numbers: [UInt64]

  init(relays: Int, _ random: inout SeededNumbers) {
    guard let key = HairpinPrivateKey.generate(using: &random) else { preconditionFailure("the library makes no key") }
    authority = key
    numbers = Array(repeating: 0, count: relays)
  }

  /// The next update to a relay.
  mutating func next(_ relay: Int, removed: Set<RelayModel.Pair>, added: Set<RelayModel.Pair>, isWhole: Bool)
    -> RelayModel.Update
  {
    let before = numbers[relay]
    numbers[relay] += 1
    if isWhole || before == 0 { return RelayModel.Update(number: before + 1, since: nil, allowed: allowed) }
    return RelayModel.Update(number: before + 1, since: before, removed: removed, allowed: added)
  }

  func isCurrent(_ number: UInt64, of relay: Int) -> Bool { number == numbers[relay] }
}

/// What happens to relays and gateways, until it is quiet.
extension RelaySimulation {
  /// Seconds of quiet after which all is as it is to be.
  static let patience = 20.0

  /// Runs all of it.
  func run() {
    changePolicy(to: Set(control.partnerships.filter { _ in random.chance(plan.allowed) }), within: 0)
    weather = Weather(
      loss: random.below(150), repetition: random.below(100), replay: random.below(30),
      delay: 1_000_000 + UInt64(random.below(40_000_000)), spread: 1 + UInt64(random.below(100_000_000)))
    for _ in 0..<plan.events {
      let time = UInt64(random.below(Int(plan.seconds * 1e9)))
      put(.change { $0.disturb() }, after: time)
    }
    run(seconds: plan.seconds)
    calm()
    var waited = 0.0
    while waited < RelaySimulation.patience, !obstacles.isEmpty {
      run(seconds: 0.5)
      waited += 0.5
    }
    say("connected after \(waited) s of quiet")
    for obstacle in obstacles { fail("after \(waited) s of quiet \(obstacle)") }
    // And so it stays, but for keys that take the place of others at that moment.
    run(seconds: 3)
    for _ in 0..<4 where !obstacles.isEmpty { run(seconds: 0.5) }
    for obstacle in obstacles { fail("not any more: \(obstacle)") }
    for leak in leaks { fail(leak) }
  }

  private func disturb() {
    let gateway = random.below(gateways.count)
    let relay = random.below(relays.count)
    switch random.below(12) {
    case 0...2: move(gateway, isKnown: random.chance(500))
    case 3...4:
      say("gateway \(gateway) stops")
      gateways[gateway].isUp = false
      after(upTo: plan.outage) { simulation in
        guard !simulation.gateways[gateway].isUp else { return }
        simulation.say("gateway \(gateway) starts")
        simulation.begin(gateway)
      }
    case 5:
      say("relay \(relay) stops")
      relays[relay].isUp = false
      after(upTo: plan.outage) { simulation in
        guard !simulation.relays[relay].isUp else { return }
        simulation.say("relay \(relay) starts")
        simulation.restartRelay(relay)
      }
    case 6...7:
      let link = Link(gateway: gateway, relay: relay)
      say("no packet passes between gateway \(gateway) and relay \(relay)")
      weather.cuts.insert(link)
      after(upTo: plan.outage) { $0.weather.cuts.remove(link) }
    default:
      var allowed = control.allowed
      for _ in 0...random.below(4) {
        let pair = control.partnerships[random.below(control.partnerships.count)]
        if allowed.remove(pair) == nil { allowed.insert(pair) }
      }
      changePolicy(to: allowed, within: 8)
    }
  }

  private func after(upTo seconds: Int, _ change: @escaping (RelaySimulation) -> Void) {
    put(.change(change), after: UInt64(random.below(seconds * 1_000_000_000)))
  }

  /// Updates get to each relay at their own time, so in any order, and some twice.
  private func changePolicy(to allowed: Set<RelayModel.Pair>, within seconds: Int) {
    let (removed, added) = (control.allowed.subtracting(allowed), allowed.subtracting(control.allowed))
    control.allowed = allowed
    say("the policy removes \(removed.sorted()) and allows \(added.sorted())")
    for relay in relays.indices {
      let update = control.next(relay, removed: removed, added: added, isWhole: random.chance(400))
      for _ in 0..<(random.chance(300) ? 2 : 1) {
        put(
          .update(relay, update, signed(update, for: relay)), after: UInt64(random.below(seconds * 1_000_000_000 + 1)))
      }
    }
  }

  private func signed(_ update: RelayModel.Update, for relay: Int) -> [UInt8] {
    func pair(_ pair: RelayModel.Pair) -> RelayPolicy.Pair {
      RelayPolicy.Pair(gateways[pair.a].identity.tag, gateways[pair.b].identity.tag)
    }
    let written = PolicyUpdate(
      for: relays[relay].identity.tag, number: update.number, update.since.map { .changes(since: $0) } ?? .whole,
      removed: update.removed.map(pair), allowed: update.allowed.map { PolicyUpdate.Rule(pair($0)) })
    return SignedPolicyUpdate(signing: written, with: control.authority)?.bytes ?? []
  }

  /// From now on nothing happens but what is under way: everybody is up, links lose nothing, and relays that have missed an
  /// update get a whole policy.
  private func calm() {
    say("quiet")
    weather = Weather(delay: weather.delay, spread: weather.spread)
    for number in gateways.indices where !gateways[number].isUp { begin(number) }
    for number in relays.indices {
      if !relays[number].isUp { restartRelay(number) }
      guard !control.isCurrent(relays[number].book.number, of: number) else { continue }
      let update = control.next(number, removed: [], added: [], isWhole: true)
      put(.update(number, update, signed(update, for: number)), after: 0)
    }
  }
}
