package import PacketIO

/// A gateway's negotiations with all its peers: they share one table of what is taken, and what concerns all of them is
/// kept once. A message costs what its own negotiation costs, however many others there are.
///
/// Whoever owns this brings it the peers' control messages of types 16 to 31, sends what `poll` returns, and applies
/// the agreements of the peers that `takeChanges` names. Pure: no clock, no randomness of its own.
package struct AddressCoordination: Sendable {
  /// A control message to be sent.
  package struct Outgoing: Sendable, Equatable {
    package var peer: String
    package var type: UInt8
    package var body: [UInt8]
  }

  private struct Member: Sendable {
    var negotiation: AddressNegotiation
    /// What `surroundings` has of it.
    var use = Surroundings.Use()
    /// Where it stands among the deadlines.
    var deadline: MonotonicTime?
    var reported = AddressAgreement()
  }

  private var members: [String: Member] = [:]
  private var surroundings = Surroundings()
  private var deadlines = DeadlineQueue()
  private var changes: [String] = []
  private var changed: Set<String> = []

  package init() {}

  // MARK: The configuration

  /// Begins negotiations for the peers of a configuration, ends those with peers that are gone, and keeps the rest
  /// going.
  package mutating func update(
    _ configuration: Configuration, now: MonotonicTime, random: inout some RandomNumberGenerator
  ) {
    let next = Surroundings(configuration)
    let isOther =
      next.name != surroundings.name || next.local != surroundings.local || next.pool != surroundings.pool
    let hasOtherPrefixes = next.occupied != surroundings.occupied
    surroundings.follow(next)
    let plan = AddressPlan(configuration)
    var gone = Set(members.keys)
    for (peer, plan) in zip(configuration.peers, plan.peers) {
      guard let terms = AddressNegotiation.Terms(peer, claimed: plan.claimed) else { continue }
      gone.remove(peer.name)
      let begins = isOther || hasOtherPrefixes && members[peer.name]?.negotiation.dependsOnOccupied ?? false
      update(terms, isOtherBeginning: begins, now: now, random: &random)
    }
    for name in gone { end(name) }
  }

  /// Begins, changes or ends the negotiation with one peer; all else of the configuration stays.
  ///
  /// - Parameters:
  ///   - terms: nil: nothing is negotiated with it.
  ///   - prefixes: what the peer had and has of prefixes, in whatever mode.
  package mutating func update(
    _ peer: String, _ terms: AddressNegotiation.Terms?, prefixes: (old: [Prefix], new: [Prefix]), now: MonotonicTime,
    random: inout some RandomNumberGenerator
  ) {
    if prefixes.old != prefixes.new {
      surroundings.occupied.replace(
        prefixes.old.filter { $0.length > 0 }, by: prefixes.new.filter { $0.length > 0 })
      beginAgain(over: prefixes.old + prefixes.new, now: now, random: &random)
    }
    guard let terms else { return end(peer) }
    update(terms, isOtherBeginning: false, now: now, random: &random)
  }

  /// What was free is taken, or the other way round: whoever has a space there, or found none, looks anew.
  private mutating func beginAgain(
    over prefixes: [Prefix], now: MonotonicTime, random: inout some RandomNumberGenerator
  ) {
    guard prefixes.contains(where: { prefix in surroundings.pool.contains(where: prefix.overlaps) }) else { return }
    for member in members.values where member.negotiation.dependsOnOccupied {
      update(member.negotiation.terms, isOtherBeginning: true, now: now, random: &random)
    }
  }

  private mutating func update(
    _ terms: AddressNegotiation.Terms, isOtherBeginning: Bool, now: MonotonicTime,
    random: inout some RandomNumberGenerator
  ) {
    if let use = members[terms.peer]?.use {
      members[terms.peer]?.negotiation.update(
        terms, isOtherBeginning: isOtherBeginning, surroundings, use: use, now: now, random: &random)
    } else {
      members[terms.peer] = Member(negotiation: AddressNegotiation(terms, surroundings, now: now, random: &random))
      surroundings.members = members.count
    }
    settle(terms.peer)
  }

  private mutating func end(_ peer: String) {
    guard let member = members.removeValue(forKey: peer) else { return }
    surroundings.replace(member.use, by: Surroundings.Use())
    surroundings.members = members.count
    passOverOld()
  }

  // MARK: Messages and time

  /// Takes a control message; one from a peer that nothing is negotiated with is ignored.
  package mutating func receive(_ body: [UInt8], type: UInt8, from peer: String, now: MonotonicTime) {
    guard let use = members[peer]?.use else { return }
    members[peer]?.negotiation.receive(body, type: type, surroundings, use: use, now: now)
    settle(peer)
  }

  /// A peer has shown that it is there, or is at another place.
  package mutating func nudge(_ peer: String, now: MonotonicTime) {
    members[peer]?.negotiation.nudge(now: now)
    settle(peer)
  }

  /// What is to be sent now, in the order in which it was due.
  package mutating func poll(now: MonotonicTime) -> [Outgoing] {
    var messages: [Outgoing] = []
    while let due = deadlines.first, due.time <= now {
      deadlines.removeFirst()
      members[due.name]?.deadline = nil
      if let use = members[due.name]?.use,
        let body = members[due.name]?.negotiation.poll(surroundings, use: use, now: now)
      {
        messages.append(Outgoing(peer: due.name, type: AddressMessage.type, body: body))
      }
      settle(due.name)
    }
    return messages
  }

  /// When to call `poll` next; nil: after the next `receive` or `update`.
  package var nextDeadline: MonotonicTime? { deadlines.first?.time }

  /// After each call of a negotiation: what it uses, when it wants to be called, and whether there is news.
  private mutating func settle(_ peer: String) {
    guard let member = members[peer] else { return }
    let use = member.negotiation.use
    if use != member.use {
      surroundings.replace(member.use, by: use)
      members[peer]?.use = use
    }
    let deadline = member.negotiation.nextDeadline
    if deadline != member.deadline {
      members[peer]?.deadline = deadline
      if let deadline { deadlines.insert(DeadlineQueue.Entry(time: deadline, name: peer)) }
    }
    passOverOld()
    let agreement = member.negotiation.agreement
    if agreement != member.reported {
      members[peer]?.reported = agreement
      if changed.insert(peer).inserted { changes.append(peer) }
    }
  }

  /// Deadlines that were changed since do not count; and they are not to become more than those that do.
  private mutating func passOverOld() {
    while let first = deadlines.first, members[first.name]?.deadline != first.time { deadlines.removeFirst() }
    guard deadlines.count > 2 * members.count + 64 else { return }
    deadlines = DeadlineQueue(
      members.compactMap { name, member in member.deadline.map { DeadlineQueue.Entry(time: $0, name: name) } })
  }

  // MARK: How things stand

  /// Nothing is to be sent but, now and then, the question whether all is as it was.
  package var isIdle: Bool { members.values.allSatisfy(\.negotiation.isIdle) }

  /// As things stand with a peer; nil when nothing is negotiated with it.
  package func agreement(with peer: String) -> AddressAgreement? { members[peer]?.negotiation.agreement }

  /// As things stand with every peer that is negotiated with.
  package var agreements: [String: AddressAgreement] { members.mapValues(\.negotiation.agreement) }

  /// Who has how much of the pool.
  package var shares: [Statistics.Share] {
    [(IPAddress.Family.v4, SharedResource.addressPoolV4), (.v6, .addressPoolV6)].map { family, resource in
      Statistics.Share(
        resource, capacity: Surroundings.size(surroundings.pool, family),
        members.map {
          ($0, Surroundings.size($1.use.ofPool, family), $1.negotiation.refusals[family] ?? 0)
        })
    }
  }

  /// Messages that could not be read, over all peers.
  package var malformed: UInt64 { members.values.reduce(0) { $0 &+ $1.negotiation.malformed } }

  /// Peers whose agreement has changed since the last call.
  package mutating func takeChanges() -> [String] {
    defer { (changes, changed) = ([], []) }
    return changes
  }
}
