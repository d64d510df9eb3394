package import PacketIO

/// Two gateways come to terms about the prefixes by which they know each other's LANs: one side of one pair, as a pure
/// state machine over messages.
///
/// Both sides run the same machine, and each plays two parts. For its own prefixes it is the owner: it offers each as
/// it is, or under an intermediate prefix where it sees that the peer has, or uses, the same one. For the peer's it is
/// the knower: it judges every offer, accepts, or asks for another, most often with a proposal. The owner translates
/// what was accepted, the knower routes it. An owner that runs out of proposals abandons the offer and says why.
///
/// Every message holds the sender's whole position (`AddressMessage`), so nothing hangs on one of them. A side repeats
/// its message, less and less often, until the peer has seen its last revision. Sessions tell a peer that has started
/// anew from one that has not. When a new session is first heard of, the own revision goes up, so that only somebody
/// who is in that session now can confirm it: a late message of an old session cannot pass for the current one.
///
/// A side that has no prefixes and whose configuration demands no spaces speaks when spoken to. When all is said, a
/// side with prefixes of its own asks every five minutes whether the peer still thinks so; every half a minute where
/// one of them has a space at a peer that would not speak first after a restart. A peer that never answers changes
/// nothing, and is asked about once a minute; by a side without prefixes only a few times.
package struct AddressNegotiation: Sendable {
  /// What the configuration says of the peer; what it says for all peers is in `Surroundings`.
  package struct Terms: Sendable, Equatable {
    /// The peer's name, from which, with this gateway's, proposals are derived.
    package var peer = ""
    /// Spaces that the configuration demands: for this side's prefixes, and for the peer's.
    package var knownAs: [PrefixPair] = []
    package var theirs: [PrefixPair] = []
    /// What the peer may offer: these, and parts of them.
    package var permitted: [Prefix] = []
    /// What the peer's prefixes must not overlap to be known as they are, beside this side's own and other peers'.
    package var claimed: [Prefix] = []

    package init() {}
  }

  private struct Offer {
    var prefix: Prefix
    var kind = AddressMessage.Offer.Kind.asIs
    /// What the peer has said last.
    var state = AddressAgreement.State.pending
    /// Proposals that the peer has turned down.
    var tried: [Prefix] = []
  }

  /// What is remembered of a prefix of the peer, over its sessions.
  private struct Memory {
    var accepted: Prefix?
    /// What was proposed last, until the peer takes it up or not.
    var proposal: Prefix?
    /// Proposals that the peer did not take up.
    var tried: [Prefix] = []
  }

  private static let mostAttempts = 16
  private static let mostHints = 16
  /// Nanoseconds: between two messages at least; until the first repetition; between two repetitions at most.
  private static let pace: UInt64 = 100_000_000
  private static let firstInterval: UInt64 = 1_000_000_000
  private static let longestInterval: UInt64 = 60_000_000_000
  /// Nanoseconds after which a peer is asked whether all is as it was.
  private static let refreshInterval: UInt64 = 300_000_000_000
  /// The same for a peer that has no prefixes, so says nothing by itself, and knows own ones by other names.
  private static let shortRefreshInterval: UInt64 = 30_000_000_000
  /// Messages without an answer after which the peer counts as silent: about half a minute.
  private static let silence = 5

  package private(set) var terms: Terms

  private var session: UInt64
  private var revision: UInt32 = 1
  /// The revision at which the offers changed last: verdicts on older ones say nothing.
  private var offersRevision: UInt32 = 1
  private var offers: [Offer] = []
  private var verdicts: [AddressMessage.Verdict] = []

  private var peerSession: UInt64 = 0
  private var peerRevision: UInt32 = 0
  /// The last own revision that the peer has seen.
  private var confirmed: UInt32 = 0
  private var peerOffers: [AddressMessage.Offer] = []
  private var peerOccupied: [Prefix] = []
  private var memory: [Prefix: Memory] = [:]

  private var deadline: MonotonicTime?
  private var lastSent: MonotonicTime?
  private var interval = AddressNegotiation.firstInterval
  private var unanswered = 0
  private var owesReply = false
  /// The peer has been asked again and has not answered yet.
  private var isRefreshing = false

  /// Messages that could not be read.
  package private(set) var malformed: UInt64 = 0
  /// Spaces that the peer wanted of the pool, and has no room for there, by family.
  private(set) var refusals: [IPAddress.Family: UInt64] = [:]

  /// - Parameters:
  ///   - surroundings: as of now.
  ///   - random: a session number is drawn from it.
  package init(
    _ terms: Terms, _ surroundings: Surroundings, now: MonotonicTime, random: inout some RandomNumberGenerator
  ) {
    self.terms = terms
    session = .random(in: 1 ... .max, using: &random)
    updateOffers(Around(surroundings, use: Surroundings.Use()))
    if !isPassive { schedule(now) }
  }

  /// What the negotiation finds around it during a call.
  private struct Around {
    let surroundings: Surroundings
    /// What is there of its own.
    let use: Surroundings.Use

    init(_ surroundings: Surroundings, use: Surroundings.Use) {
      self.surroundings = surroundings
      self.use = use
    }
  }

  // MARK: From outside

  /// Takes a control message of the peer.
  ///
  /// - Parameters:
  ///   - surroundings: as of now.
  ///   - use: what is there of this negotiation's.
  package mutating func receive(
    _ body: [UInt8], type: UInt8, _ surroundings: Surroundings, use: Surroundings.Use, now: MonotonicTime
  ) {
    guard type == AddressMessage.type, let message = AddressMessage(body) else {
      malformed &+= 1
      return
    }
    // Not one's own, thrown back.
    guard message.session != session else { return }
    let around = Around(surroundings, use: use)
    let isNewSession = message.session != peerSession
    if isNewSession { begin(session: message.session) }
    guard message.revision >= peerRevision else { return }

    let isNews = message.revision > peerRevision
    let knowsThisSession = message.peerSession == session
    peerRevision = message.revision
    peerOffers = message.offers
    peerOccupied = message.occupied
    if knowsThisSession, message.seen <= revision {
      confirmed = max(confirmed, message.seen)
      isRefreshing = false
    }
    if knowsThisSession, message.seen >= offersRevision { take(message.verdicts, around) }
    if isNews { updateOffers(around) }
    settle(around)
    if isNews { interval = AddressNegotiation.firstInterval }
    unanswered = 0
    if isNews || message.wantsReply || !knowsThisSession { owesReply = true }
    if owesReply || !isConfirmed { schedule(now) } else { deadline = nil }
  }

  /// The message that is due, if one is. Parameters as of `receive`.
  package mutating func poll(_ surroundings: Surroundings, use: Surroundings.Use, now: MonotonicTime) -> [UInt8]? {
    guard let due = nextDeadline, due <= now else { return nil }
    if deadline == nil { isRefreshing = true }
    lastSent = now
    owesReply = false
    let isConfirmed = isConfirmed
    deadline = isConfirmed ? nil : now.adding(nanoseconds: interval)
    if !isConfirmed {
      interval = min(interval * 2, AddressNegotiation.longestInterval)
      unanswered = min(unanswered + 1, AddressNegotiation.silence)
      // Somebody who has nothing to offer waits to be asked.
      if isUnanswered, offers.isEmpty { deadline = nil }
    }
    let message = AddressMessage(
      wantsReply: !isConfirmed, session: session, peerSession: peerSession, revision: revision, seen: peerRevision,
      offers: offers.map { AddressMessage.Offer(prefix: $0.prefix, kind: $0.kind) }, verdicts: verdicts,
      occupied: hints(Around(surroundings, use: use)))
    return message.encoded()
  }

  /// When `poll` has something next; nil: only after something else has happened.
  package var nextDeadline: MonotonicTime? {
    deadline ?? (offers.isEmpty ? nil : lastSent?.adding(nanoseconds: refreshInterval))
  }

  private var refreshInterval: UInt64 {
    let isTranslated = offers.contains { if case .proposed = $0.kind { true } else { false } }
    return isTranslated && peerOffers.isEmpty
      ? AddressNegotiation.shortRefreshInterval : AddressNegotiation.refreshInterval
  }

  /// There is nothing to say before the peer has said something.
  private var isPassive: Bool {
    peerSession == 0 && offers.isEmpty && terms.knownAs.isEmpty && terms.theirs.isEmpty
  }

  /// Nothing is to be sent but, now and then, the question whether all is as it was.
  package var isIdle: Bool { deadline == nil }

  /// The configuration has changed. What was agreed stays where it still can.
  ///
  /// - Parameters:
  ///   - isOtherBeginning: what it says for all peers has changed, too; false: nothing happens where the terms are
  ///     the same.
  ///   - surroundings: as of now.
  ///   - use: what is there of this negotiation's.
  ///   - random: for a session number: to the peer, other terms are another beginning.
  package mutating func update(
    _ terms: Terms, isOtherBeginning: Bool, _ surroundings: Surroundings, use: Surroundings.Use, now: MonotonicTime,
    random: inout some RandomNumberGenerator
  ) {
    guard isOtherBeginning || terms != self.terms else { return }
    let around = Around(surroundings, use: use)
    self.terms = terms
    session = .random(in: 1 ... .max, using: &random)
    confirmed = 0
    forgetFailures()
    updateOffers(around)
    // Also where the offers stay the same: a verdict on them may not.
    revision &+= 1
    offersRevision = revision
    settle(around)
    interval = AddressNegotiation.firstInterval
    if !isPassive { schedule(now) }
  }

  /// Something hangs on which prefixes are free: a space that was found or asked for, or that there was none.
  package var dependsOnOccupied: Bool {
    !memory.isEmpty || !terms.knownAs.isEmpty || !terms.theirs.isEmpty
      || offers.contains { $0.kind != .asIs && $0.kind != .withdrawn || !$0.tried.isEmpty }
      || verdicts.contains { $0.kind != .asIs }
  }

  /// The peer has shown that it is there: time to ask, if it did not answer before.
  package mutating func nudge(now: MonotonicTime) {
    guard !isConfirmed, deadline != nil || isUnanswered else { return }
    interval = AddressNegotiation.firstInterval
    schedule(now)
  }

  /// Nothing was heard from the peer for half a minute, though it was asked.
  private var isUnanswered: Bool { unanswered >= AddressNegotiation.silence }

  /// As things stand. Spaces that the configuration demands are in it from the start, unless the peer refuses them.
  package var agreement: AddressAgreement {
    var agreement = AddressAgreement(isUnanswered: isUnanswered && !offers.isEmpty)
    for offer in offers where offer.kind != .withdrawn {
      var state = offer.state
      if state == .pending, let pin = terms.knownAs.first(where: { $0.real == offer.prefix }) {
        state = .known(pin.intermediate)
      }
      agreement.local.append(AddressAgreement.Space(prefix: offer.prefix, state: state))
    }
    for (index, offer) in peerOffers.enumerated() {
      agreement.remote.append(AddressAgreement.Space(prefix: offer.prefix, state: state(of: offer, index)))
    }
    return agreement
  }

  /// What this pair uses, or talks about: not for others.
  package var use: Surroundings.Use {
    var used = Surroundings.Use()
    var spaces = (terms.knownAs + terms.theirs).map(\.intermediate)
    for offer in offers { if case .proposed(let intermediate) = offer.kind { spaces.append(intermediate) } }
    for memory in memory.values { spaces += [memory.accepted, memory.proposal].compactMap(\.self) }
    used.spaces = spaces
    for offer in peerOffers {
      if case .proposed(let intermediate) = offer.kind, memory[offer.prefix]?.accepted == intermediate {
        used.ofPool.append(intermediate)
      }
    }
    for verdict in verdicts where verdict.kind == .asIs { used.asTheyAre.append(peerOffers[verdict.offer].prefix) }
    return used
  }

  // MARK: Sessions and timing

  private var isConfirmed: Bool { peerSession != 0 && confirmed == revision && !isRefreshing }

  private mutating func begin(session: UInt64) {
    peerSession = session
    peerRevision = 0
    confirmed = 0
    revision &+= 1
    forgetFailures()
  }

  /// What failed under other circumstances may succeed now.
  private mutating func forgetFailures() {
    for index in offers.indices {
      offers[index].tried = []
      if case .abandoned = offers[index].kind {
        offers[index].kind = .asIs
        offersChanged()
      }
      if case .refused = offers[index].state { offers[index].state = .pending }
    }
    for prefix in memory.keys { memory[prefix]?.tried = [] }
  }

  private mutating func schedule(_ now: MonotonicTime) {
    let earliest = lastSent?.adding(nanoseconds: AddressNegotiation.pace) ?? now
    let time = max(now, earliest)
    deadline = min(deadline ?? time, time)
  }

  /// Prefixes in use here that proposals may come upon.
  private func hints(_ around: Around) -> [Prefix] {
    let most = AddressNegotiation.mostHints
    var hints: [Prefix] = []
    func add(_ prefixes: [Prefix]) {
      for prefix in prefixes where hints.count < most && !hints.contains(prefix) { hints.append(prefix) }
    }
    let known =
      around.surroundings.pool
      + peerOffers.compactMap { if case .proposed(let prefix) = $0.kind { prefix } else { nil } }
    for part in known { add(around.surroundings.occupied.all(overlapping: part, limit: most)) }
    for part in known {
      add(around.surroundings.spaces.all(overlapping: part, without: around.use.spaces, limit: most))
    }
    add(around.surroundings.local.filter { prefix in known.contains { $0.overlaps(prefix) } })
    return hints
  }

  /// Brings the own position up to date with what is known now; a change of it is a new revision.
  private mutating func settle(_ around: Around) {
    let before = verdicts
    judge(around)
    if verdicts != before { revision &+= 1 }
  }

  // MARK: As owner

  /// Makes the offers those of the configured prefixes. Prefixes that are gone stay as withdrawn.
  private mutating func updateOffers(_ around: Around) {
    let before = offers
    let wanted = around.surroundings.local.prefix(AddressMessage.mostOffers)
    for index in offers.indices where !wanted.contains(offers[index].prefix) {
      offers[index] = Offer(prefix: offers[index].prefix, kind: .withdrawn, state: .withdrawn)
    }
    for prefix in wanted {
      let place = offers.firstIndex { $0.prefix == prefix }
      var offer = place.map { offers[$0] } ?? Offer(prefix: prefix)
      if offer.kind == .withdrawn { offer = Offer(prefix: prefix) }
      let pin = terms.knownAs.first { $0.real == prefix }?.intermediate
      if case .abandoned = offer.kind {
        // Until something else is different, nothing comes of trying again.
      } else if let pin {
        if offer.kind != .proposed(pin) { offer = Offer(prefix: prefix, kind: .proposed(pin)) }
      } else if offer.kind == .asIs, offer.state == .pending, clashesAtPeer(prefix),
        let first = candidate(for: offer, around)
      {
        offer.kind = .proposed(first)
        offer.state = .pending
      } else if case .proposed(let intermediate) = offer.kind,
        blockers(of: offer, around).first(overlapping: intermediate) != nil
      {
        offer = Offer(prefix: prefix)
        if clashesAtPeer(prefix), let other = candidate(for: offer, around) { offer.kind = .proposed(other) }
      }
      if let place { offers[place] = offer } else { offers.append(offer) }
    }
    while offers.count > AddressMessage.mostOffers, let old = offers.firstIndex(where: { $0.kind == .withdrawn }) {
      offers.remove(at: old)
    }
    if !offers.elementsEqual(before, by: { $0.prefix == $1.prefix && $0.kind == $1.kind }) { offersChanged() }
  }

  private mutating func offersChanged() {
    revision &+= 1
    offersRevision = revision
  }

  /// A prefix that the peer has itself will not do there: no need to wait for its verdict.
  private func clashesAtPeer(_ prefix: Prefix) -> Bool {
    peerOffers.contains { $0.kind != .withdrawn && $0.prefix.overlaps(prefix) }
  }

  /// What the intermediate prefix of an offer must not overlap at this side.
  private func blockers(of offer: Offer, _ around: Around) -> Blockers {
    var own = around.surroundings.local + peerOffers.map(\.prefix)
    own += terms.theirs.map(\.intermediate) + memory.values.compactMap(\.accepted)
    for other in offers where other.prefix != offer.prefix {
      if case .proposed(let intermediate) = other.kind { own.append(intermediate) }
    }
    return Blockers(surroundings: around.surroundings, use: around.use, own: own)
  }

  private func candidate(for offer: Offer, avoiding more: [Prefix] = [], _ around: Around) -> Prefix? {
    var blockers = blockers(of: offer, around)
    blockers.own += peerOccupied + offer.tried + more
    return IntermediateSpace.candidate(
      for: offer.prefix, owner: around.surroundings.name, knower: terms.peer, pool: around.surroundings.pool,
      obstacle: blockers.first(overlapping:))
  }

  /// Takes the peer's verdicts on the current offers.
  private mutating func take(_ verdicts: [AddressMessage.Verdict], _ around: Around) {
    var isChanged = false
    for verdict in verdicts where offers.indices.contains(verdict.offer) {
      let kind = offers[verdict.offer].kind
      switch (kind, verdict.kind) {
      case (.asIs, .asIs): offers[verdict.offer].state = .asIs
      case (.proposed(let intermediate), .accepted): offers[verdict.offer].state = .known(intermediate)
      case (.asIs, .another(let failure, let proposal, let isOnlyOne)),
        (.proposed, .another(let failure, let proposal, let isOnlyOne)):
        offerAnother(verdict.offer, failure, proposal, isOnlyOne: isOnlyOne, around)
        isChanged = true
      case (.asIs, .refused(let failure)), (.proposed, .refused(let failure)):
        offers[verdict.offer].state = .refused(failure)
      default: break
      }
    }
    if isChanged { offersChanged() }
  }

  private mutating func offerAnother(
    _ index: Int, _ failure: NegotiationFailure, _ proposal: Prefix?, isOnlyOne: Bool, _ around: Around
  ) {
    var offer = offers[index]
    if case .proposed(let intermediate) = offer.kind { offer.tried.append(intermediate) }
    offer.state = .pending
    func abandon(_ failure: NegotiationFailure) {
      offer.kind = .abandoned(failure)
      offer.state = .refused(failure)
    }
    if terms.knownAs.contains(where: { $0.real == offer.prefix }) {
      abandon(NegotiationFailure(.pinned, conflict: failure.conflict))
    } else if offer.tried.count >= AddressNegotiation.mostAttempts {
      abandon(NegotiationFailure(.exhausted, conflict: failure.conflict))
    } else {
      var obstacle: Prefix?
      if let proposal, proposal.length == offer.prefix.length, proposal.address.family == offer.prefix.address.family,
        IntermediateSpace.isUsable(proposal), !offer.tried.contains(proposal)
      {
        obstacle = blockers(of: offer, around).first(overlapping: proposal)
        if obstacle == nil { offer.kind = .proposed(proposal) }
      } else {
        obstacle = failure.conflict ?? offer.prefix
      }
      if obstacle != nil {
        if isOnlyOne {
          abandon(NegotiationFailure(.pinned, conflict: obstacle))
        } else if let next = candidate(for: offer, avoiding: failure.conflict.map { [$0] } ?? [], around) {
          offer.kind = .proposed(next)
        } else {
          abandon(NegotiationFailure(.noSpace))
        }
      }
    }
    offers[index] = offer
  }

  // MARK: As knower

  /// Judges the peer's offers as of its last message.
  private mutating func judge(_ around: Around) {
    verdicts = []
    memory = memory.filter { entry in peerOffers.contains { $0.prefix == entry.key && $0.kind != .withdrawn } }
    for (index, offer) in peerOffers.enumerated() {
      if let kind = verdict(on: offer, around) { verdicts.append(AddressMessage.Verdict(offer: index, kind: kind)) }
    }
  }

  private mutating func verdict(on offer: AddressMessage.Offer, _ around: Around) -> AddressMessage.Verdict.Kind? {
    let prefix = offer.prefix
    switch offer.kind {
    case .withdrawn, .abandoned: return nil
    case .asIs, .proposed: break
    }
    guard terms.permitted.contains(where: { $0.covers(prefix) }) else {
      return .refused(NegotiationFailure(.notPermitted))
    }
    guard IntermediateSpace.isUsable(prefix) else { return .refused(NegotiationFailure(.unusable)) }
    if let pin = terms.theirs.first(where: { $0.real == prefix })?.intermediate {
      if offer.kind == .proposed(pin) { return accept(pin, prefix) }
      return .another(NegotiationFailure(.pinned, conflict: pin), proposal: pin, isOnlyOne: true)
    }
    guard case .proposed(let intermediate) = offer.kind else {
      let obstacle =
        (around.surroundings.local + terms.claimed).first(where: prefix.overlaps)
        ?? around.surroundings.asTheyAre.first(overlapping: prefix, without: around.use.asTheyAre)
      guard let obstacle else {
        memory[prefix] = nil
        return .asIs
      }
      return another(prefix, NegotiationFailure(.occupied, conflict: obstacle), around)
    }
    guard intermediate.length == prefix.length, IntermediateSpace.isUsable(intermediate) else {
      return another(prefix, NegotiationFailure(.unusable), insteadOf: intermediate, around)
    }
    if let obstacle = blockers(ofPeers: prefix, around).first(overlapping: intermediate) {
      return another(prefix, NegotiationFailure(.occupied, conflict: obstacle), insteadOf: intermediate, around)
    }
    // A peer must not be able to draw traffic for just any part of the world to itself.
    guard around.surroundings.pool.contains(where: { $0.covers(intermediate) }) else {
      return another(prefix, NegotiationFailure(.outsidePool), insteadOf: intermediate, around)
    }
    if memory[prefix]?.accepted != intermediate {
      guard around.surroundings.mayTake(intermediate, beside: around.use) else {
        refusals[intermediate.address.family, default: 0] &+= 1
        return .refused(NegotiationFailure(.noSpace))
      }
    }
    return accept(intermediate, prefix)
  }

  private mutating func accept(_ intermediate: Prefix, _ prefix: Prefix) -> AddressMessage.Verdict.Kind {
    memory[prefix] = Memory(accepted: intermediate, proposal: nil, tried: memory[prefix]?.tried ?? [])
    return .accepted
  }

  private mutating func another(
    _ prefix: Prefix, _ failure: NegotiationFailure, insteadOf offered: Prefix? = nil, _ around: Around
  ) -> AddressMessage.Verdict.Kind {
    var entry = memory[prefix] ?? Memory()
    var blockers = blockers(ofPeers: prefix, around)
    // The peer has had the proposal and offers something else.
    if let offered, let proposal = entry.proposal, proposal != offered {
      entry.tried.append(proposal)
      entry.proposal = nil
    }
    guard entry.tried.count < AddressNegotiation.mostAttempts else {
      memory[prefix] = entry
      return .refused(NegotiationFailure(.exhausted, conflict: failure.conflict))
    }
    // First what was agreed on before, then what was proposed before.
    let remembered = [entry.accepted, entry.proposal].compactMap(\.self).first { known in
      known != offered && !entry.tried.contains(known) && blockers.first(overlapping: known) == nil
    }
    blockers.own += peerOccupied + entry.tried
    let proposal =
      remembered
      ?? IntermediateSpace.candidate(
        for: prefix, owner: terms.peer, knower: around.surroundings.name, pool: around.surroundings.pool,
        obstacle: blockers.first(overlapping:))
    entry.accepted = entry.accepted == proposal ? proposal : nil
    entry.proposal = proposal
    memory[prefix] = entry
    return .another(failure, proposal: proposal, isOnlyOne: false)
  }

  /// What the intermediate prefix of a peer's prefix must not overlap at this side.
  private func blockers(ofPeers prefix: Prefix, _ around: Around) -> Blockers {
    var blockers = around.surroundings.local + peerOffers.map(\.prefix)
    blockers += terms.theirs.filter { $0.real != prefix }.map(\.intermediate) + terms.knownAs.map(\.intermediate)
    for (other, entry) in memory where other != prefix {
      if let accepted = entry.accepted { blockers.append(accepted) }
    }
    // Both may have thought of the same prefix for opposite purposes. One of them has to give way.
    if session < peerSession {
      for offer in offers { if case .proposed(let intermediate) = offer.kind { blockers.append(intermediate) } }
    }
    return Blockers(surroundings: around.surroundings, use: around.use, own: blockers)
  }

  private func state(of offer: AddressMessage.Offer, _ index: Int) -> AddressAgreement.State {
    switch offer.kind {
    case .withdrawn: return .withdrawn
    case .abandoned(let failure): return .refused(failure)
    case .asIs, .proposed: break
    }
    switch verdicts.first(where: { $0.offer == index })?.kind {
    case .asIs: return .asIs
    case .accepted:
      if case .proposed(let intermediate) = offer.kind { return .known(intermediate) }
      return .pending
    case .refused(let failure): return .refused(failure)
    case .another, nil:
      if let pin = terms.theirs.first(where: { $0.real == offer.prefix }) { return .known(pin.intermediate) }
      return .pending
    }
  }
}
