import PacketIO
import Transports

/// Who may use the relay: cookies, tickets, proofs, and what is remembered of tickets that were used.
///
/// 1. A hello gets a challenge, from which nothing is kept. 2. Who returns its cookie and presents a genuine ticket, signed
/// with its side's key, gets a port (`judge`, `begin`). 3. Who returns the port's cookie and proves itself there has the
/// side (`answer(toSide:)`). Nothing is kept, and nothing longer than the request sent, before a cookie has come back and
/// both signatures are right.
struct Admission: ~Copyable {
  /// What is said to a message, and what its sender has shown by it.
  struct Answer {
    var bytes: [UInt8]
    var standing: Stream.Standing
    /// Who has the side from now on; see `settle`.
    var holder: Side.Holder?
    /// That a presented ticket has opened, or found open.
    var side: SideIndex?
  }

  /// Where a control port's messages come in.
  struct ControlAddress {
    /// Position of the listening address.
    var listen: Int
    /// The one that was spoken to.
    var address: IPAddress
    var port: UInt16
  }

  /// What a message to a control port comes to.
  enum Response {
    case answer(Answer)
    case decision(Decision, HairpinMessage.Present)
  }

  /// What a presented ticket comes to.
  enum Decision {
    case refused(HairpinReason)
    /// The side has a port of that kind already.
    case keeps(SideIndex)
    /// It is to be opened; `isNew`: with its hairpin.
    case opens(SideIndex, HairpinTicket, isNew: Bool)
  }

  let options: HairpinProxyOptions
  /// The hairpin that the next sweep begins with.
  private var sweepPlace = 0
  var hairpins: Hairpins
  private var tickets: TicketJudge
  let cookies: HairpinCookies
  /// Signatures take time; a flood of them must not take all of it.
  private var signatures: TokenBucket
  /// What strangers who know a port's token may say to such ports, all together. They are answered as they come.
  private var strangersAtPorts = TokenBucket(perSecond: 5000, burst: 500)
  var origins: OriginShares

  init(_ options: HairpinProxyOptions, cookies: HairpinCookies = HairpinCookies(), now: MonotonicTime) {
    self.options = options
    hairpins = Hairpins(capacity: max(options.hairpins, 1))
    tickets = TicketJudge(
      keys: options.publicKeys, name: options.name, memory: TicketMemory(capacity: options.tickets, options.uses))
    self.cookies = cookies
    signatures = TokenBucket(perSecond: options.signatures, burst: options.signatures)
    origins = OriginShares(messages: options.messagesPerOrigin, signatures: options.signaturesPerOrigin)
  }

  /// Tickets that are remembered as used.
  var remembered: Int { tickets.memory.count }

  // MARK: Control ports

  /// What a message to a control port comes to; nil: nothing is said.
  mutating func answer(
    _ bytes: [UInt8], _ sender: Endpoint, toControl control: ControlAddress, _ encapsulation: Encapsulation,
    under policy: RelayPolicy? = nil, _ state: inout EngineState
  ) -> Response? {
    let now = state.clock.monotonic
    guard origins.admitMessage(of: sender.address, byStream: encapsulation == .tcp, now: now) else {
      state.statistics[.tooManyStrangers] += 1
      return nil
    }
    switch HairpinMessage(bytes) {
    case .hello(let nonce, .zero):
      state.statistics[.hellos] += 1
      let challenge = challenge(nonce, sender, port: control.port, now: now)
      return .answer(Answer(bytes: challenge, standing: .unauthenticated))
    case .present(let present):
      return judge(present, sender, at: control, under: policy, &state).map { .decision($0, present) }
    default:
      state.statistics[.malformed] += 1
      return nil
    }
  }

  /// What is said to a presented ticket, when its side has a port or it is known why it has none.
  func answer(
    _ present: HairpinMessage.Present, _ outcome: Result<SideIndex, HairpinReason>, _ sender: Endpoint,
    _ state: inout EngineState
  ) -> Answer {
    switch outcome {
    case .success(let side):
      state.statistics[.accepted] += 1
      state.sides[side].holder.sequence = present.sequence
      let left = hairpins[side.hairpin].life.map { $0.lastSecond - state.clock.wall } ?? 0
      let accepted = HairpinMessage.accepted(
        nonce: present.nonce, token: state.sides[side].port.token, port: state.sides[side].port.number,
        silence: options.silence, secondsLeft: UInt32(clamping: left))
      return Answer(bytes: accepted.encoded, standing: .presented, side: side)
    case .failure(let reason):
      options.reports.onRefusal(HairpinRefusal(reason: reason, sender: sender, present))
      let refused = HairpinMessage.refused(nonce: present.nonce, reason: reason.rawValue)
      return Answer(bytes: refused.encoded, standing: .unauthenticated)
    }
  }

  /// What is said to a hello on a control port.
  func challenge(_ nonce: HairpinNumber, _ sender: Endpoint, port: UInt16, now: MonotonicTime) -> [UInt8] {
    HairpinMessage.challenge(nonce: nonce, cookie: cookies.cookie(sender, nonce: nonce, port: port, now: now)).encoded
  }

  /// What a presented ticket comes to; nil: nothing is said.
  /// - Parameter policy: of the identity relay beside; its denials go before tickets that name GIDs.
  mutating func judge(
    _ present: HairpinMessage.Present, _ sender: Endpoint, at control: ControlAddress, under policy: RelayPolicy? = nil,
    _ state: inout EngineState
  ) -> Decision? {
    guard cookies.isValid(present.cookie, sender, nonce: present.nonce, port: control.port, now: state.clock.monotonic)
    else {
      state.statistics[.badCookie] += 1
      return nil
    }
    // What is no ticket costs no signature.
    guard let signed = PresentedTicket(present.ticket, present.end) else {
      Admission.count(.malformed, &state.statistics)
      return .refused(.malformed)
    }
    guard mayCheckSignature(of: sender, &state) else { return nil }
    let decision = decide(present, signed, at: control, under: policy, state)
    if case .refused(let reason) = decision { Admission.count(reason, &state.statistics) }
    return decision
  }

  private mutating func decide(
    _ present: HairpinMessage.Present, _ signed: PresentedTicket, at control: ControlAddress,
    under policy: RelayPolicy?, _ state: borrowing EngineState
  ) -> Decision {
    let ticket = signed.ticket
    let open = hairpins.place(ticket.number)
    let refusal = tickets.judge(
      signed, encapsulation: present.encapsulation, end: present.end, now: state.clock.wall, isLive: open != nil,
      reserved: hairpins.count)
    if let refusal { return .refused(refusal) }
    if let pair = signed.pair, policy?.denies(pair) == true { return .refused(.notAllowed) }
    // A genuine number with other contents: a control system's mistake, or worse.
    if let open, hairpins[open].life?.ticket != ticket { return .refused(.used) }
    let proof = HairpinMessage.proof(of: present, ticket: ticket.number)
    guard signed.isEndorsed, signed.key.verifies(present.signature, of: proof) else { return .refused(.forged) }
    // What was said before what is known of the side: recorded, and sent once more, or by a clock that went back.
    if let open, present.sequence < state.sides[SideIndex(hairpin: open, present.end)].holder.sequence {
      return .refused(.outdated)
    }
    guard let place = open ?? begin(ticket, state.clock) else { return .refused(.full) }
    hairpins[place].life?.endorse(signed, at: present.end)
    let side = SideIndex(hairpin: place, present.end)
    let port = state.sides[side].port
    // Its holder comes back: the same port again, unless it asks for another kind, or elsewhere.
    if port.isAllocated, port.encapsulation == present.encapsulation, Int(port.listen) == control.listen,
      port.address == control.address
    {
      return .keeps(side)
    }
    return .opens(side, ticket, isNew: open == nil)
  }

  /// Takes a place for a ticket's hairpin; its sides' rows are the caller's to make.
  mutating func begin(_ ticket: HairpinTicket, _ clock: HairpinClock) -> Int? {
    hairpins.begin(
      ticket, earlier: tickets.memory[ticket.number], silence: UInt64(options.silence), clock)
  }

  /// A decision that could not be carried out after all.
  static func count(_ reason: HairpinReason, _ statistics: inout HairpinStatistics) {
    switch reason {
    case .forged: statistics[.refusedForged] += 1
    case .expired: statistics[.refusedExpired] += 1
    case .used: statistics[.refusedUsed] += 1
    default: statistics[.refusedOther] += 1
    }
  }

  private mutating func mayCheckSignature(of sender: Endpoint, _ state: inout EngineState) -> Bool {
    let now = state.clock.monotonic
    if origins.admitSignature(of: sender.address, now: now), signatures.takeOne(now: now) { return true }
    state.statistics[.tooManySignatures] += 1
    return false
  }

  // MARK: Sides' ports

  /// A message to a side's port that is no sealed packet.
  /// - Parameter isHolder: it came from the proven address.
  /// - Returns: what is answered, to the same address.
  mutating func answer(
    _ bytes: [UInt8], _ sender: Endpoint, toSide side: SideIndex, isHolder: Bool, _ state: inout EngineState
  ) -> Answer? {
    let port = state.sides[side].port
    let now = state.clock.monotonic
    let partnerIsThere = state.sides[side.partner].holder.isProven
    guard isHolder || admitsStranger(sender, byStream: port.encapsulation == .tcp, now: now) else {
      state.statistics[.tooManyStrangers] += 1
      return nil
    }
    switch HairpinMessage(bytes) {
    case .hello(let nonce, let token) where token == port.token:
      // Who does not know the token gets nothing: to a port scan the port looks as if nobody used it.
      state.statistics[.challenges] += 1
      return Answer(bytes: challenge(nonce, sender, port: port.number, now: now), standing: .presented)
    case .prove(let prove) where prove.token == port.token:
      guard cookies.isValid(prove.cookie, sender, nonce: prove.nonce, port: port.number, now: now) else {
        state.statistics[.badCookie] += 1
        return nil
      }
      let welcome = HairpinMessage.welcome(nonce: prove.nonce, partnerIsThere: partnerIsThere).encoded
      let holder = state.sides[side].holder
      // Its gateway has not got the answer, most likely. On UDP that says nothing new, so no signature is needed.
      if holder.isProven, prove.sequence == holder.sequence, port.encapsulation == .udp,
        holder.name.equals(SocketName(sender))
      {
        return Answer(bytes: welcome, standing: .presented)
      }
      // Older than the last: an address that was left behind cannot take the hairpin back.
      guard prove.sequence > holder.sequence else {
        state.statistics[.refusedOther] += 1
        return Answer(
          bytes: HairpinMessage.refused(nonce: prove.nonce, reason: HairpinReason.outdated.rawValue).encoded,
          standing: .unauthenticated)
      }
      guard mayCheckSignature(of: sender, &state), isProof(prove, side, &state) else { return nil }
      return Answer(
        bytes: welcome, standing: .authenticated,
        holder: Side.Holder(isProven: true, name: SocketName(sender), sequence: prove.sequence, lastHeard: now))
    case .hold(let nonce) where isHolder:
      state.statistics[.holds] += 1
      return Answer(
        bytes: HairpinMessage.held(nonce: nonce, partnerIsThere: partnerIsThere).encoded, standing: .authenticated)
    default:
      state.statistics[isHolder ? .malformed : .stranger] += 1
      return nil
    }
  }

  private mutating func admitsStranger(_ sender: Endpoint, byStream: Bool, now: MonotonicTime) -> Bool {
    origins.admitMessage(of: sender.address, byStream: byStream, now: now) && strangersAtPorts.takeOne(now: now)
  }

  /// Who was welcomed has the side, once the answer is on its way.
  mutating func settle(_ answer: Answer, _ side: SideIndex, _ state: inout EngineState) {
    guard let holder = answer.holder else { return }
    state.sides[side].holder = holder
    hairpins[side.hairpin].life?.proved(side.end, now: holder.lastHeard)
    state.statistics[.proved] += 1
  }

  private func isProof(_ prove: HairpinMessage.Prove, _ side: SideIndex, _ state: inout EngineState) -> Bool {
    guard let life = hairpins[side.hairpin].life else { return false }
    let proof = HairpinMessage.proof(
      of: prove, end: side.end, encapsulation: state.sides[side].port.encapsulation, ticket: life.ticket.number)
    if life.key(of: side.end)?.verifies(prove.signature, of: proof) == true { return true }
    state.statistics[.refusedForged] += 1
    return false
  }

  // MARK: Ends

  /// Looks at some hairpins, at most `count` of all: which of them are over, and why.
  /// - Parameter policy: of the identity relay beside.
  mutating func sweep(
    _ count: Int, under policy: RelayPolicy?, _ state: borrowing EngineState
  ) -> [(place: Int, reason: HairpinReason)] {
    var over: [(place: Int, reason: HairpinReason)] = []
    for _ in 0..<min(count, hairpins.capacity) {
      let place = sweepPlace
      sweepPlace = place + 1 < hairpins.capacity ? place + 1 : 0
      guard hairpins[place].isOpen else { continue }
      let first = state.sides[SideIndex(hairpin: place, .first)].holder.lastHeard
      let second = state.sides[SideIndex(hairpin: place, .second)].holder.lastHeard
      var verdict = hairpins.verdict(place, state.clock) { $0 == .first ? first : second }
      if let pair = hairpins[place].life?.pair, policy?.denies(pair) == true { verdict = .notAllowed }
      if let verdict { over.append((place, verdict)) }
    }
    return over
  }

  /// Counts sealed bytes against a hairpin's limit.
  /// - Returns: why it is over, if it is.
  mutating func charge(_ octets: Int, _ side: SideIndex, now: MonotonicTime) -> HairpinReason? {
    let place = side.hairpin
    hairpins[place].bytes &+= UInt64(octets)
    hairpins[place].lastData = now
    return hairpins[place].bytes >= hairpins[place].byteLimit ? .bytes : nil
  }

  /// Ends a hairpin whose ports are closed: remembers its ticket, leaves a record, and gives the place back.
  mutating func finish(_ place: Int, _ reason: HairpinReason, _ state: inout EngineState) {
    guard let life = hairpins[place].life else { return }
    let ticket = life.ticket
    // A hairpin that nobody ever used leaves its ticket as it was.
    if !life.provenEnds.isEmpty {
      let use = HairpinUse(
        number: ticket.number, notAfter: ticket.notAfter, isSpent: !reason.leavesTicketUsable,
        bytes: hairpins[place].bytes, started: life.started)
      tickets.memory.remember(use)
      options.reports.onUse(use)
    }
    state.statistics[.ended] += 1
    let started = hairpins[place].started
    hairpins.remove(place)
    let first = state.sides[SideIndex(hairpin: place, .first)].traffic
    let second = state.sides[SideIndex(hairpin: place, .second)].traffic
    options.reports.onRecord(
      HairpinRecord(
        ticket: ticket.number, first: ticket.first.name, second: ticket.second.name, firstPackets: first.packets,
        firstBytes: first.bytes, secondPackets: second.packets, secondBytes: second.bytes,
        dropped: first.dropped + second.dropped, started: started, ended: state.clock.wall, reason: reason))
  }
}
