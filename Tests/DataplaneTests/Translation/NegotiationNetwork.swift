import PacketIO

@testable import Dataplane

/// Gateways that negotiate over links that lose, duplicate and reorder, on a clock of its own, from one seed.
/// Only the negotiations, for hours; what comes of them in whole gateways is seen in `Tests/Simulation`.
struct NegotiationNetwork {
  struct Gateway {
    var configuration: Configuration
    var coordination = AddressCoordination()
    var sent = 0
  }

  private struct Flight {
    var time: MonotonicTime
    var from: String
    var to: String
    var type: UInt8
    var body: [UInt8]
  }

  var gateways: [String: Gateway] = [:]
  var now = MonotonicTime(nanoseconds: 1_000_000_000)
  var numbers: SeededNumbers
  /// Of 1000 messages.
  var lost = 0
  var duplicated = 0
  /// Nanoseconds under way at most; the least is a millisecond.
  var longestDelay: UInt64 = 1_000_000
  /// Gateways that no message reaches or leaves, as if the peer's program did not know such messages.
  var deaf: Set<String> = []
  var longestBody = 0
  var trace = false
  private var flights: [Flight] = []

  init(seed: UInt64) { numbers = SeededNumbers(seed: seed) }

  mutating func add(_ name: String, lan: [String], peers: [(String, [String])], pool: [String]? = nil) {
    let peers = peers.map { name, prefixes in PeerConfiguration(name: name, prefixes: prefixes.map { Prefix($0)! }) }
    let configuration = Configuration(
      interface: InterfaceConfiguration(source: .name("t")), peers: peers, name: name,
      localPrefixes: lan.map { Prefix($0)! },
      intermediatePool: pool?.map { Prefix($0)! } ?? IntermediateSpace.defaultPool)
    apply(name, configuration)
  }

  /// Starts a gateway, or gives it another configuration.
  mutating func apply(_ name: String, _ configuration: Configuration) {
    var gateway = gateways[name] ?? Gateway(configuration: configuration)
    gateway.configuration = configuration
    gateway.coordination.update(configuration, now: now, random: &numbers)
    gateways[name] = gateway
  }

  /// Forgets everything but the configuration.
  mutating func restart(_ name: String) {
    gateways[name]?.coordination = AddressCoordination()
    apply(name, gateways[name]!.configuration)
  }

  /// Lets time pass until all are silent but for asking now and then, or that many seconds have gone.
  /// - Returns: whether they are.
  mutating func run(seconds: Double) -> Bool {
    let end = now.adding(seconds: seconds)
    while !isIdle, step(until: end) {}
    return isIdle
  }

  /// Lets that much time pass.
  mutating func pass(seconds: Double) {
    let end = now.adding(seconds: seconds)
    while step(until: end) {}
  }

  private var isIdle: Bool { flights.isEmpty && gateways.values.allSatisfy(\.coordination.isIdle) }

  /// False when nothing happens until then.
  private mutating func step(until end: MonotonicTime) -> Bool {
    let next = (gateways.values.compactMap(\.coordination.nextDeadline) + flights.map(\.time)).min()
    guard let next, next <= end else {
      now = end
      return false
    }
    now = max(now, next)
    deliver()
    for name in gateways.keys.sorted() {
      for message in gateways[name]!.coordination.poll(now: now) {
        gateways[name]!.sent += 1
        longestBody = max(longestBody, message.body.count)
        if trace { print(now.nanoseconds / 1_000_000, name, message.peer, AddressMessage(message.body) as Any) }
        send(Flight(time: now, from: name, to: message.peer, type: message.type, body: message.body))
      }
    }
    return true
  }

  private mutating func send(_ flight: Flight) {
    guard !deaf.contains(flight.from), !deaf.contains(flight.to), gateways[flight.to] != nil else { return }
    let copies = Int.random(in: 0..<1000, using: &numbers) < duplicated ? 2 : 1
    for _ in 0..<copies where Int.random(in: 0..<1000, using: &numbers) >= lost {
      var copy = flight
      copy.time = now.adding(nanoseconds: .random(in: 1_000_000...longestDelay, using: &numbers))
      flights.append(copy)
    }
  }

  private mutating func deliver() {
    let due = flights.filter { $0.time <= now }.sorted { $0.time < $1.time }
    flights.removeAll { $0.time <= now }
    for flight in due {
      gateways[flight.to]!.coordination.receive(flight.body, type: flight.type, from: flight.from, now: now)
    }
  }

  // MARK: What came of it

  func agreement(_ name: String, with peer: String) -> AddressAgreement {
    gateways[name]?.coordination.agreements[peer] ?? AddressAgreement()
  }

  /// How `knower` knows the prefix of `owner`.
  func known(_ prefix: String, of owner: String, by knower: String) -> AddressAgreement.State? {
    agreement(knower, with: owner).remote.first { $0.prefix == Prefix(prefix)! }?.state
  }

  /// What is wrong with the outcome; empty when all is well.
  var faults: [String] {
    var faults: [String] = []
    for (name, gateway) in gateways {
      for peer in gateway.configuration.peers.map(\.name) where gateways[peer] != nil {
        let here = agreement(name, with: peer)
        let there = agreement(peer, with: name)
        for space in here.local {
          let seen = there.remote.first { $0.prefix == space.prefix }?.state
          if seen != space.state {
            faults.append("\(name)'s \(space.prefix) is \(space.state), at \(peer) \(seen as Any)")
          }
          if space.state == .pending { faults.append("\(name)'s \(space.prefix) for \(peer) is not settled") }
        }
      }
      faults += overlaps(name, gateway)
    }
    return faults
  }

  /// At one gateway, what it knows of different peers is apart, and apart from its LAN; intermediate prefixes are apart
  /// from everything.
  private func overlaps(_ name: String, _ gateway: Gateway) -> [String] {
    var faults: [String] = []
    let plan = AddressPlan(gateway.configuration, agreements: gateway.coordination.agreements)
    var known = gateway.configuration.localPrefixes.map { ($0, "its LAN") }
    for (peer, plan) in zip(gateway.configuration.peers, plan.peers) {
      var prefixes = plan.remote.map(\.intermediate)
      for space in agreement(name, with: peer.name).remote where space.state == .asIs { prefixes.append(space.prefix) }
      for prefix in prefixes {
        for (other, owner) in known where other.overlaps(prefix) {
          faults.append("\(name) knows \(prefix) as \(peer.name)'s, and \(other) as \(owner)")
        }
        known.append((prefix, "\(peer.name)'s"))
      }
      for prefix in plan.routes where gateway.configuration.localPrefixes.contains(where: { $0.covers(prefix) }) {
        faults.append("\(name) routes \(prefix) to \(peer.name), which is its own")
      }
    }
    for (index, first) in plan.peers.enumerated() {
      for second in plan.peers.dropFirst(index + 1) {
        // Who has no prefixes takes what it gets, and must not be configured so.
        for prefix in first.routes where second.routes.contains(prefix) && !gateway.configuration.localPrefixes.isEmpty
        {
          faults.append("\(name) routes \(prefix) twice")
        }
        for pair in first.remote where second.routes.contains(where: pair.intermediate.overlaps) {
          faults.append("\(name) routes into \(pair)")
        }
        for pair in second.remote where first.routes.contains(where: pair.intermediate.overlaps) {
          faults.append("\(name) routes into \(pair)")
        }
      }
    }
    return faults
  }
}
