package import PacketIO

/// A gateway's negotiations with all its peers: they share one table of what is taken.
///
/// Whoever owns this brings it the peers' control messages of types 16 to 31, sends what `poll` returns, and applies
/// `agreements` when `takeChanges` names peers. Pure: no clock, no randomness of its own.
package struct AddressCoordination: Sendable {
  /// A control message to be sent.
  package struct Outgoing: Sendable, Equatable {
    package var peer: String
    package var type: UInt8
    package var body: [UInt8]
  }

  private var negotiations: [String: AddressNegotiation] = [:]
  /// In the order of the configuration.
  private var names: [String] = []
  private var reported: [String: AddressAgreement] = [:]
  private var changes: [String] = []

  package init() {}

  /// Begins negotiations for the peers of a configuration, ends those with peers that are gone, and keeps the rest
  /// going.
  package mutating func update(
    _ configuration: Configuration, now: MonotonicTime, random: inout some RandomNumberGenerator
  ) {
    let plan = AddressPlan(configuration)
    let before = negotiations
    negotiations = [:]
    names = []
    for (index, peer) in configuration.peers.enumerated() {
      guard let terms = AddressPlan.terms(configuration, plan, peer: index) else { continue }
      names.append(peer.name)
      negotiations[peer.name] = before[peer.name]
      let others = others(than: peer.name)
      if negotiations[peer.name] == nil {
        negotiations[peer.name] = AddressNegotiation(terms, others: others, now: now, random: &random)
      } else {
        negotiations[peer.name]?.update(terms, others: others, now: now, random: &random)
      }
      noteChange(peer.name)
    }
    for name in before.keys where negotiations[name] == nil { reported[name] = nil }
  }

  /// Takes a control message; one from a peer that nothing is negotiated with is ignored.
  package mutating func receive(_ body: [UInt8], type: UInt8, from peer: String, now: MonotonicTime) {
    guard negotiations[peer] != nil else { return }
    let others = others(than: peer)
    negotiations[peer]?.receive(body, type: type, others: others, now: now)
    noteChange(peer)
  }

  /// A peer has shown that it is there, or is at another place.
  package mutating func nudge(_ peer: String, now: MonotonicTime) { negotiations[peer]?.nudge(now: now) }

  /// What is to be sent now.
  package mutating func poll(now: MonotonicTime) -> [Outgoing] {
    var messages: [Outgoing] = []
    for name in names {
      if let body = negotiations[name]?.poll(now: now) {
        messages.append(Outgoing(peer: name, type: AddressMessage.type, body: body))
      }
      noteChange(name)
    }
    return messages
  }

  /// When to call `poll` next; nil: after the next `receive` or `update`.
  package var nextDeadline: MonotonicTime? { negotiations.values.compactMap(\.nextDeadline).min() }

  /// Nothing is to be sent but, now and then, the question whether all is as it was.
  package var isIdle: Bool { negotiations.values.allSatisfy(\.isIdle) }

  /// As things stand with every peer that is negotiated with.
  package var agreements: [String: AddressAgreement] { negotiations.mapValues(\.agreement) }

  /// Messages that could not be read, over all peers.
  package var malformed: UInt64 { negotiations.values.reduce(0) { $0 &+ $1.malformed } }

  /// Peers whose agreement has changed since the last call.
  package mutating func takeChanges() -> [String] {
    defer { changes = [] }
    return changes
  }

  private mutating func noteChange(_ peer: String) {
    guard let agreement = negotiations[peer]?.agreement, agreement != reported[peer] ?? AddressAgreement() else {
      return
    }
    reported[peer] = agreement
    if !changes.contains(peer) { changes.append(peer) }
  }

  private func others(than peer: String) -> AddressNegotiation.Others {
    var others = AddressNegotiation.Others()
    for (name, negotiation) in negotiations where name != peer {
      let used = negotiation.used
      others.spaces += used.spaces
      others.asTheyAre += used.asTheyAre
    }
    return others
  }
}
