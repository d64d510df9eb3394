import Identity
import PacketIO
import Transports

/// The identity relay, without socket, clock or thread: what becomes of everything that comes to its port.
///
/// 1. A message of the protocol's own enrols a gateway, or is a sign of its life (`answer`).
/// 2. A packet of a handshake passes between two gateways that have enrolled and may meet. What binds an SPI is looked at
///    only when the sender has signed it (`observe`).
/// 3. A sealed packet goes where its SPI was bound to, when it comes from where that one's partner has enrolled (`route`).
///    It is not looked into: nothing here could.
/// 4. What nobody uses any more, or no rule allows, is let go of (`sweep`).
struct IdentityRelay: ~Copyable {
  /// What becomes of a packet of a handshake.
  enum Outcome: Equatable {
    /// To the gateway at that place.
    case forward(Int)
    /// It goes later: `takeDue` has it then.
    case wait
    /// Nowhere; something may be said to its sender.
    case drop(RelayDrop, answer: [UInt8]?)
  }

  /// What becomes of a sealed packet.
  enum Route: Equatable {
    case forward(side: Int, slot: Int, place: Int)
    /// Nowhere.
    /// - Parameter side: that it would go to; nil: nobody's.
    case unknown(RelayDrop, side: Int?)
  }

  /// Notices in a second: that a pair is not allowed, an SPI taken, the relay busy. Of one gateway, and of all.
  private static let noticesOfOne = 10
  private static let noticesPerSecond = 200
  /// What those may have who may not have enrolled: messages that are looked at, and questions to them.
  private struct StrangerShare {
    var messages = TokenBucket(perSecond: 5000, burst: 1000)
    var questions = TokenBucket(perSecond: 200, burst: 200)
  }

  /// What is checked of all in a second. What comes by datagrams may be forged, and leaves a part of it to streams.
  private struct SignatureShare {
    var all: TokenBucket
    var ofDatagrams: TokenBucket

    init(perSecond: UInt64) {
      all = TokenBucket(perSecond: perSecond, burst: 2 * perSecond)
      ofDatagrams = TokenBucket(perSecond: perSecond / 4 * 3, burst: perSecond / 2 * 3)
    }
  }

  /// Messages that one with a wrong signature costs besides, where it comes by a stream.
  private static let wrongSignature = 9

  /// Shortest sealed packet: SPI, sequence number, and what is least behind them (RFC 4303 §2).
  static let leastSealed = 24

  let options: RelayOptions
  private(set) var policy: RelayPolicy
  var places: RelayPlaces
  var pairs: RelayPairs
  var enrolment: RelayEnrolment
  private(set) var tickets: RelayTickets
  private var signatures: SignatureShare
  private var notices = Shares(.relayNotices, capacity: noticesPerSecond, most: noticesOfOne)
  private var noticesBegan: MonotonicTime
  private var bandwidth: RelayBandwidth
  var load: RelayLoad
  private(set) var waiting = RelayWaiting()
  /// Who comes by a stream is where he says: a flood of datagrams with made-up senders takes nothing from him.
  private var strangersByDatagrams = StrangerShare()
  private var strangersByStreams = StrangerShare()
  private var random: any RandomNumberGenerator
  /// The pair and the place that the next sweep begins with.
  private var sweepPair = 0
  private var sweepPlace = 0
  var statistics = RelayStatistics()

  init(
    _ options: RelayOptions, cookies: HairpinCookies, now: MonotonicTime,
    random: any RandomNumberGenerator = SystemRandomNumberGenerator()
  ) {
    self.options = options
    policy = options.policy
    var random = random
    places = RelayPlaces(capacity: max(options.gateways, 2))
    pairs = RelayPairs(capacity: max(options.pairs, 1), now: now, using: &random)
    enrolment = RelayEnrolment(options, cookies: cookies)
    tickets = RelayTickets(keys: options.ticketKeys, name: options.name, capacity: pairs.capacity)
    signatures = SignatureShare(perSecond: options.signatures)
    load = RelayLoad(bitRate: options.bandwidth)
    bandwidth = RelayBandwidth(bitRate: options.bandwidth, gateways: places.capacity, now: now)
    noticesBegan = now
    self.random = random
  }

  /// Who has how many pairs and notices, by the gateways' places.
  func shares() -> [ShareReport] { [pairs.report(), notices.report()] }

  mutating func count(_ drop: RelayDrop, _ count: UInt64 = 1) { statistics[drop] &+= count }

  // MARK: 1. Enrolments

  /// What is answered to an enrolment; nil: nothing.
  /// - Parameters:
  ///   - stream: the place and the kind of the stream by which it came; nil: it was a datagram.
  ///   - port: position of the listening address, and its number.
  mutating func answer(
    _ enrol: EnrolmentMessage.Enrol, _ message: [UInt8], from sender: Endpoint,
    by stream: (place: Int32, path: RelayPath)? = nil, port: (index: Int, number: UInt16),
    _ clock: HairpinClock
  ) -> [UInt8]? {
    let decision = enrolment.judge(
      enrol, message, from: sender, port: port.number, policy: policy, tickets: tickets, clock)
    switch decision {
    case .refused(let drop, let answer):
      count(drop)
      return answer
    case .genuine(let identity, let shown):
      enrolment.charge(signatures: tickets.take(shown, wall: clock.wall), to: sender.address)
      guard policy.names(identity.tag) || tickets.names(identity.tag, at: clock.wall) else {
        count(.enrolmentNotAllowed)
        return enrolment.refusal(enrol, .notAllowed)
      }
      let address =
        stream.map { RelayAddress(stream: $0.place, path: $0.path) }
        ?? RelayAddress(name: SocketName(sender), port: port.index, now: clock.monotonic)
      return take(enrol, of: identity, from: sender, at: address)
    }
  }

  private mutating func take(
    _ enrol: EnrolmentMessage.Enrol, of identity: PublicHostIdentity, from sender: Endpoint, at address: RelayAddress
  ) -> [UInt8]? {
    if let known = places.place(of: identity.tag) {
      let last = places[known].sequence
      // Said once more, because the answer was lost. From elsewhere it is a copy, which moves nothing.
      let isRepeat = enrol.sequence == last && places.addresses[known].has(address)
      guard enrol.sequence > last || isRepeat else {
        count(.enrolmentOutdated)
        return enrolment.older(enrol, identity.tag, than: last)
      }
    }
    let token = token(of: identity.tag)
    guard places.enrol(identity, address, seen: sender, token: token, sequence: enrol.sequence) != nil else {
      count(.enrolmentBusy)
      return enrolment.refusal(enrol, .full)
    }
    statistics.enrolments += 1
    return enrolment.welcome(enrol, identity.tag, token: token, seen: sender, load: load.byte)
  }

  /// The one that it has, by whatever path, or a new one. So a token that has changed tells that all else was forgotten.
  private mutating func token(of tag: HostIdentityTag) -> HairpinNumber {
    places.place(of: tag).map { places[$0].token } ?? .random(using: &random)
  }

  /// What is answered to a sign of life; nil: it is of nobody who has enrolled, or from elsewhere.
  /// - Parameter stream: by which it came; nil: it was a datagram.
  mutating func answerHold(
    _ nonce: HairpinNumber, from sender: Endpoint, by stream: Int32? = nil, now: MonotonicTime
  ) -> [UInt8]? {
    guard let place = places.place(holding: nonce),
      stream.map({ places.addresses[place].isAt(.stream($0)) })
        ?? places.addresses[place].has(RelayAddress(name: SocketName(sender), port: 0, now: now))
    else {
      count(.senderNotEnrolled)
      return nil
    }
    guard places[place].proven.takeOne(now: now) else {
      count(.tooManyStrangers)
      return nil
    }
    if stream == nil { places.heard(place, now: now) }
    statistics.holds += 1
    return HairpinMessage.held(nonce: nonce, partnerIsThere: false).encoded
  }

  // MARK: 2. Handshakes

  /// What becomes of a packet of a handshake.
  /// - Parameters:
  ///   - packet: without the four zero bytes.
  mutating func observe(_ packet: PacketBytes, from source: RelaySource, _ clock: HairpinClock) -> Outcome {
    let now = clock.monotonic
    guard let header = HIPHeader.peek(packet) else { return drop(.malformed) }
    guard let sender = places.place(of: header.sender), places.addresses[sender].isEnrolled else {
      return drop(.senderNotEnrolled)
    }
    guard places.addresses[sender].isAt(source) else { return drop(.foreignSource) }
    let isByStream = source.stream != nil
    guard mayBeLookedAt(header.kind, of: sender, isByStream: isByStream, now) else { return drop(.tooManySignatures) }
    if !isByStream { places.heard(sender, now: now) }
    let pair = RelayPolicy.Pair(header.sender, header.receiver)
    guard let terms = terms(pair, at: clock.wall) else {
      pass(header.kind, of: sender, isByStream: isByStream, now)
      return drop(.notAllowed, notice(.blockedByPolicy, [], to: sender, now: now))
    }
    guard let receiver = places.place(of: header.receiver), places.addresses[receiver].isEnrolled else {
      pass(header.kind, of: sender, isByStream: isByStream, now)
      return drop(.receiverNotEnrolled)
    }
    let meeting = Meeting(pair: pair, terms: terms, header: header, sender: sender, receiver: receiver)
    let shown = look(at: packet, meeting, isByStream: isByStream, now)
    if case .wrong(let reason) = shown { return drop(reason) }
    guard admits(packet.count + Superpacket.markerLength, meeting, isProven: isByStream || shown != .nothing, now: now)
    else { return drop(.overBandwidth) }
    if header.kind == .i1 {
      if let late = hold(packet, meeting, by: places.addresses[sender].path(of: source), now) { return late }
    } else if case .signed(let claims, let mark) = shown, !claims.isEmpty {
      // An end takes nothing away: what is not used any more goes by itself, and a late CLOSE of keys before these would
      // take those of now.
      if let refused = bind(claims, meeting, mark, now) { return refused }
    }
    statistics.forwardedHandshakes += 1
    return .forward(receiver)
  }

  /// GIDs are no secret, and datagrams say whatever address they like: until a signature is right, one is charged to where it
  /// seems to come from, and takes nothing of what the gateway may say. A stream is its gateway's.
  private mutating func mayBeLookedAt(
    _ kind: HIPPacketKind, of sender: Int, isByStream: Bool, _ now: MonotonicTime
  ) -> Bool {
    if isByStream { return places[sender].proven.takeOne(now: now) }
    return kind.mayBind ? places[sender].forged.takeOne(now: now) : places[sender].unproven.takeOne(now: now)
  }

  /// A datagram that may bind something is no forgery: what was charged for that is given back.
  private mutating func clear(_ sender: Int, isSigned: Bool, _ now: MonotonicTime) -> Bool {
    places[sender].forged.take(-1)
    return isSigned ? places[sender].proven.takeOne(now: now) : places[sender].unproven.takeOne(now: now)
  }

  /// Nobody looks at its signature: it counts as what has none.
  private mutating func pass(_ kind: HIPPacketKind, of sender: Int, isByStream: Bool, _ now: MonotonicTime) {
    if !isByStream, kind.mayBind { _ = clear(sender, isSigned: false, now) }
  }

  /// Two that may meet, and what one of them says.
  private struct Meeting {
    let pair: RelayPolicy.Pair
    let terms: RelayPolicy.Terms
    let header: HIPHeader
    /// Places.
    let sender: Int
    let receiver: Int
  }

  /// On which terms two gateways may meet now. Nil: they may not.
  func terms(_ pair: RelayPolicy.Pair, at wall: Int64) -> RelayPolicy.Terms? {
    tickets.terms(pair, under: policy, at: wall)
  }

  /// Whether the pair's bandwidth lets a packet of its handshakes pass. What it has is missing for data then.
  private mutating func admits(_ bytes: Int, _ meeting: Meeting, isProven: Bool, now: MonotonicTime) -> Bool {
    let bitRate = meeting.terms.bandwidth
    guard
      bandwidth.admitsHandshake(
        bytes, from: meeting.sender, to: meeting.receiver, isProven: isProven, bitRate: bitRate, now: now)
    else { return false }
    if bitRate > 0, let number = pairs.number(of: meeting.pair) {
      pairs.with(RelayPairs.side(number, meeting.pair, of: meeting.header.receiver)) { $0.bucket.take(bytes) }
    }
    return true
  }

  /// Lets an I1 wait, or refuses it, where the relay is busy: of several relays the one that is not is to be chosen.
  private mutating func hold(_ packet: PacketBytes, _ meeting: Meeting, by path: RelayPath, _ now: MonotonicTime)
    -> Outcome?
  {
    let header = meeting.header
    switch load.verdict(isBound: pairs.number(of: meeting.pair) != nil, using: &random) {
    case .forward: return nil
    case .refuse: return drop(.refusedBusy, notice(.busy, [], to: meeting.sender, now: now))
    case .wait(let nanoseconds):
      let entry = RelayWaiting.Entry(
        sender: header.sender, receiver: header.receiver, path: path, packet: [0, 0, 0, 0] + packet.array(),
        due: now.adding(nanoseconds: nanoseconds))
      guard let dropped = waiting.add(entry) else { return .wait }
      return dropped == .waitsAlready ? drop(dropped) : waitInstead(dropped)
    }
  }

  private mutating func waitInstead(_ dropped: RelayDrop) -> Outcome {
    count(dropped)
    return .wait
  }

  /// What has waited long enough, and where it goes: as at the beginning, if both are still there and may meet.
  mutating func takeDue(_ clock: HairpinClock) -> [(place: Int, path: RelayPath, packet: [UInt8])] {
    waiting.takeDue(now: clock.monotonic).compactMap { entry in
      guard terms(entry.pair, at: clock.wall) != nil else {
        count(.notAllowed)
        return nil
      }
      guard let place = places.place(of: entry.receiver), places.addresses[place].isEnrolled else {
        count(.receiverNotEnrolled)
        return nil
      }
      statistics.forwardedHandshakes += 1
      return (place, entry.path, entry.packet)
    }
  }

  /// What a packet has to say to the relay.
  private enum Shown: Equatable {
    /// It is between the two, or was said before.
    case nothing
    /// Its sender has signed that it takes packets under those SPIs, or ends something.
    case signed([UInt32], mark: Int)
    case wrong(RelayDrop)
  }

  private mutating func look(at packet: PacketBytes, _ meeting: Meeting, isByStream: Bool, _ now: MonotonicTime)
    -> Shown
  {
    guard meeting.header.kind.mayBind else { return .nothing }
    let shown = verify(packet, meeting, isByStream: isByStream, now)
    switch shown {
    // Who may say much may not have much looked at for nothing.
    case .wrong(.badSignature) where isByStream: places[meeting.sender].proven.take(IdentityRelay.wrongSignature)
    case .wrong(.tooManySignatures) where !isByStream: places[meeting.sender].forged.take(-1)
    default: break
    }
    if isByStream { return shown }
    if case .wrong = shown { return shown }
    return clear(meeting.sender, isSigned: shown != .nothing, now) ? shown : .wrong(.tooManySignatures)
  }

  /// Looks at a packet that may bind something.
  private mutating func verify(
    _ packet: PacketBytes, _ meeting: Meeting, isByStream: Bool, _ now: MonotonicTime
  ) -> Shown {
    let bytes = packet.array()
    guard let parsed = HIPPacket(bytes), parsed.unknownCritical == nil else { return .wrong(.malformed) }
    let claims = parsed.contents(.espInfo).compactMap { RelayTable.key(ofESPInfo: $0) }
    guard !claims.isEmpty || meeting.header.kind == .close else { return .nothing }
    let mark = RelayPairs.mark(bytes)
    if let number = pairs.number(of: meeting.pair) {
      let side = RelayPairs.side(number, meeting.pair, of: meeting.header.sender)
      // Said once more, on its way anew: it was right, and has bound what it binds.
      if pairs.sides[side].lastVerified == mark, claims.allSatisfy({ pairs.find($0)?.side == side }) { return .nothing }
    }
    guard isByStream || signatures.ofDatagrams.takeOne(now: now), signatures.all.takeOne(now: now) else {
      return .wrong(.tooManySignatures)
    }
    guard parsed.hasValidSignature(by: places[meeting.sender].identity) else { return .wrong(.badSignature) }
    return .signed(claims, mark: mark)
  }

  /// - Returns: why the packet does not pass; nil: it does.
  private mutating func bind(_ claims: [UInt32], _ meeting: Meeting, _ mark: Int, _ now: MonotonicTime) -> Outcome? {
    // All or nothing: a packet whose second SPI is taken does not pass, so its first is not to be bound either.
    let known = pairs.number(of: meeting.pair)
    for key in claims {
      if let held = pairs.find(key)?.side,
        held != known.map({ RelayPairs.side($0, meeting.pair, of: meeting.header.sender) })
      {
        return drop(.spiTaken, notice(.spiTaken, RelayNotice.spi(key), to: meeting.sender, now: now))
      }
    }
    let number: Int
    do throws(RelayDrop) {
      if let known { number = known } else { number = try open(meeting, now) }
    } catch {
      return drop(error, notice(.busy, [], to: meeting.sender, now: now))
    }
    let side = RelayPairs.side(number, meeting.pair, of: meeting.header.sender)
    for key in claims {
      switch pairs.bind(key, side, now: now, replaced: &statistics.unbound) {
      case .made: statistics.bound += 1
      case .known: break
      case .taken, .full: return drop(.full, notice(.busy, [], to: meeting.sender, now: now))
      }
    }
    pairs.with(side) { $0.lastVerified = mark }
    return nil
  }

  private mutating func open(_ meeting: Meeting, _ now: MonotonicTime) throws(RelayDrop) -> Int {
    let (sender, receiver) = (meeting.sender, meeting.receiver)
    let ordered = meeting.header.sender == meeting.pair.smaller ? (sender, receiver) : (receiver, sender)
    let number = try pairs.open(meeting.pair, meeting.terms, places: ordered, now: now)
    for place in [sender, receiver] { places[place].pairs += 1 }
    return number
  }

  private mutating func drop(_ reason: RelayDrop, _ answer: [UInt8]? = nil) -> Outcome {
    count(reason)
    return .drop(reason, answer: answer)
  }

  /// A notice to a gateway that is enrolled, at that place. Who causes many silences nobody else.
  private mutating func notice(_ kind: RelayNotice, _ data: [UInt8], to place: Int, now: MonotonicTime) -> [UInt8]? {
    if now.nanoseconds(since: noticesBegan) >= 1_000_000_000 {
      notices.removeAll()
      noticesBegan = now
    }
    guard notices.take(for: Holder(row: Int32(truncatingIfNeeded: place))) else { return nil }
    statistics.notices += 1
    return [0, 0, 0, 0] + kind.packet(data, from: options.identity, to: places[place].identity.tag)
  }

  // MARK: 3. Sealed packets

  @inline(__always) private func place(of side: Int) -> Int {
    Int(truncatingIfNeeded: pairs.sides[side].place)
  }

  /// Where packets under an SPI go that come from there.
  @inline(__always) func route(_ spi: UInt32, from source: RelaySource) -> Route {
    guard let key = RelayTable.key(spi) else { return .unknown(.malformed, side: nil) }
    guard let (side, slot) = pairs.find(key) else { return .unknown(.unknownSPI, side: nil) }
    let sender = places.addresses[place(of: side ^ 1)]
    guard sender.isEnrolled else { return .unknown(.senderNotEnrolled, side: side) }
    guard sender.isAt(source) else { return .unknown(.foreignSource, side: side) }
    let place = place(of: side)
    guard places.addresses[place].isEnrolled else { return .unknown(.receiverNotEnrolled, side: side) }
    return .forward(side: side, slot: slot, place: place)
  }

  /// Whether the bandwidth of the pair and of the whole relay lets so many bytes to a side, which are taken from it then.
  @inline(__always) mutating func admits(_ bytes: Int, to side: Int, now: MonotonicTime) -> Bool {
    guard pairs.sides[side].bucket.isLimited || bandwidth.isLimited else { return true }
    let sender = place(of: side ^ 1)
    guard bandwidth.admits(bytes, of: sender, priority: pairs.priorities[side >> 1], now: now) else { return false }
    let isAdmitted = pairs.with(side) { row in
      guard row.bucket.available(now: now) > 0 else { return false }
      row.bucket.take(bytes)
      return true
    }
    if isAdmitted { bandwidth.take(bytes, of: sender, now: now) }
    return isAdmitted
  }

  /// Books packets that go to a side.
  /// - Parameter path: by which they have come.
  @inline(__always)
  mutating func forwarded(
    _ side: Int, _ slot: Int, by path: RelayPath = .udp, packets: UInt64, bytes: Int, now: MonotonicTime
  ) {
    pairs.used(side, slot, packets: packets, bytes: bytes, now: now)
    if path == .udp { places.heard(place(of: side ^ 1), now: now) }
    statistics.forwardedPackets &+= packets
    statistics.forwardedBytes &+= UInt64(truncatingIfNeeded: bytes)
  }

  /// Books packets to a side that were dropped.
  mutating func dropped(_ side: Int, _ packets: UInt64, _ drop: RelayDrop) {
    count(drop, packets)
    pairs.with(side) { $0.traffic.dropped &+= packets }
  }

  /// Takes back from the books what the kernel has not taken after all.
  /// - Parameter side: that it went to; nil: it was of a handshake.
  mutating func notTaken(_ side: Int?, packets: UInt64, bytes: UInt64) {
    count(.notTaken, packets)
    guard let side else {
      statistics.forwardedHandshakes &-= packets
      return
    }
    statistics.forwardedPackets &-= packets
    statistics.forwardedBytes &-= bytes
    pairs.with(side) { row in
      row.traffic.packets &-= packets
      row.traffic.bytes &-= bytes
      row.traffic.dropped &+= packets
    }
  }

  /// Whether a message of somebody who may not have enrolled is looked at.
  mutating func admitsStranger(at address: IPAddress, byStream: Bool, now: MonotonicTime) -> Bool {
    if enrolment.admitsMessage(of: address, byStream: byStream, now: now),
      byStream ? strangersByStreams.messages.takeOne(now: now) : strangersByDatagrams.messages.takeOne(now: now)
    {
      return true
    }
    count(.tooManyStrangers)
    return false
  }

  /// Asks the sender of a packet, so many bytes long, who he is: for each side once a second. Nil: he is not asked.
  mutating func who(
    _ sender: Endpoint, port: UInt16, byStream: Bool = false, side: Int?, length: Int, now: MonotonicTime
  ) -> [UInt8]? {
    guard length >= EnrolmentMessage.whoLength else { return nil }
    if let side {
      guard now.nanoseconds(since: pairs.sides[side].lastWho) >= 1_000_000_000 else { return nil }
      pairs.with(side) { $0.lastWho = now }
    }
    guard
      byStream ? strangersByStreams.questions.takeOne(now: now) : strangersByDatagrams.questions.takeOne(now: now)
    else { return nil }
    statistics.notices += 1
    return enrolment.who(sender, port: port, now: now, using: &random)
  }

  // MARK: 4. Ends

  /// Another policy is in force. Nothing of a pair that it does not allow passes any more.
  /// - Returns: what is said to whom, by place.
  mutating func set(_ policy: RelayPolicy, _ clock: HairpinClock) -> [(place: Int, notice: [UInt8])] {
    self.policy = policy
    tickets.forget(deniedBy: policy)
    return (0..<pairs.capacity).flatMap { review($0, clock) }
  }

  /// Looks at a part of all pairs and gateways: a twentieth, so all of them within a second when it is done twenty times.
  /// - Returns: what is said to whom, by place.
  mutating func sweep(_ clock: HairpinClock) -> [(place: Int, notice: [UInt8])] {
    var said: [(place: Int, notice: [UInt8])] = []
    for _ in 0..<(pairs.capacity + 19) / 20 {
      said += review(sweepPair, clock)
      sweepPair = sweepPair + 1 < pairs.capacity ? sweepPair + 1 : 0
    }
    let patience = UInt64(truncatingIfNeeded: options.silence) * 1_000_000_000
    for _ in 0..<(places.capacity + 19) / 20 {
      let address = places.addresses[sweepPlace]
      if address.takesDatagrams, clock.monotonic.nanoseconds(since: address.lastHeard) > patience {
        places.expire(sweepPlace)
      }
      sweepPlace = sweepPlace + 1 < places.capacity ? sweepPlace + 1 : 0
    }
    statistics.enrolled = places.enrolled
    statistics.pairs = pairs.count
    statistics.associations = pairs.table.count
    statistics.load = load.share
    return said
  }

  /// Measures how busy the relay is.
  /// - Parameter busy: nanoseconds for which its thread has worked since the start.
  mutating func measure(busy: UInt64, now: MonotonicTime) {
    load.note(
      RelayLoad.Reading(at: now, busy: busy, bytes: statistics.forwardedBytes),
      pairs: Double(pairs.count) / Double(pairs.capacity))
  }

  private mutating func review(_ number: Int, _ clock: HairpinClock) -> [(place: Int, notice: [UInt8])] {
    guard let pair = pairs[number] else { return [] }
    let ends = [2 * number, 2 * number + 1].map { place(of: $0) }
    guard let terms = terms(pair, at: clock.wall) else {
      close(number, ends)
      return ends.compactMap { place in
        guard places.addresses[place].isEnrolled else { return nil }
        return notice(.blockedByPolicy, [], to: place, now: clock.monotonic).map { (place, $0) }
      }
    }
    pairs.set(number, terms, now: clock.monotonic)
    statistics.unbound += UInt64(truncatingIfNeeded: pairs.retire(number, now: clock.monotonic))
    if ends.allSatisfy({ !places.addresses[$0].isEnrolled }) { close(number, ends) }
    return []
  }

  private mutating func close(_ number: Int, _ ends: [Int]) {
    statistics.unbound += UInt64(truncatingIfNeeded: pairs.close(number))
    for place in ends {
      places[place].pairs -= 1
      places.release(place)
    }
  }
}
