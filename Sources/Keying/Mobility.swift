import Identity
import PacketIO

/// Where the two sides of a session say that they are (RFC 8046 §3.2), on both ends of saying so.
///
/// 1. A side that has moved sends an UPDATE with its locators along all paths that it knows, again and again.
/// 2. Its partner acknowledges, and asks with a number that nobody can guess: where the UPDATE came from, and at the
///    locators.
/// 3. The answer to that, which is signed, shows that the side is there.
///
/// Where nobody has answered yet there may be a victim. So no more bytes go to such addresses than have come in the
/// UPDATEs that name them (RFC 8046 §5.6). That pays for no second question, should the first or its answer be lost: so
/// the side that has moved goes on with step 1 until it is acknowledged without being asked.
struct Mobility {
  /// With whom, and where that is known to be.
  struct Place {
    let partner: Partner
    /// Where the partner was last.
    let usual: Path?
    let all: [Path]

    var isByRelay: Bool { usual.map { partner.relays.contains($0) } ?? false }

    /// Somebody vouches for the address.
    func isKnown(_ path: Path) -> Bool { path == usual || partner.paths.contains(path) }
  }

  private struct Announcement {
    let number: UInt32
    let packet: [UInt8]
    var retry: Retry
  }

  /// A place where the partner may be.
  private struct Check {
    let path: Path
    /// Nil: it has not been asked there for want of credit.
    var asked: Asked?

    struct Asked {
      let number: UInt32
      let nonce: [UInt8]
      let packet: [UInt8]
    }
  }

  /// This side's, as long as the partner has not acknowledged them.
  private var untold: LocatorSet?
  private var announcement: Announcement?
  private var checks: [Check] = []
  /// The partner's newest locators, by the number of their UPDATE.
  private var newest: UInt32 = 0
  /// The partner has not been heard where it was, nor does it say that it is there still.
  private var isAway = false
  /// Bytes that may go to where nobody has answered.
  private var credit = 0
  /// Places of the partner that the dataplane has not been told of, and when it last was told of some.
  private var untried: [Path] = []
  private var lastLocated: MonotonicTime?

  /// Locators, and where UPDATEs of theirs came from.
  private static let mostChecks = LocatorSet.most + 2
  /// What a whole packet may bring is enough for what answers it.
  private static let mostCredit = 2 * HIPPacket.longest
  /// Nanoseconds between such words: the dataplane probes each place, and there may be a victim.
  private static let leastInterval: UInt64 = 1_000_000_000
  /// Tries of an UPDATE.
  static let mostTries = 8
  /// Nanoseconds to the second one; doubled each time.
  static let firstRetry: UInt64 = 300_000_000

  /// There is another session, in which nothing was said yet.
  mutating func restart() {
    let (untold, lastLocated) = (untold, lastLocated)
    self = Mobility()
    self.untold = untold
    self.lastLocated = lastLocated
  }

  /// What was sent under such a number awaits its answer.
  func awaits(_ number: UInt32) -> Bool {
    announcement?.number == number || checks.contains { $0.asked?.number == number }
  }

  // MARK: 1. This side moves

  /// This side is elsewhere from now on. It is told when the partner has the keys.
  mutating func move(to locators: LocatorSet) { untold = locators }

  /// Relays see this side elsewhere than before: a partner that they lead to is told, once there are keys.
  static func introduce(_ association: inout HostAssociation, _ turn: inout KeyingTurn) {
    guard var session = association.session, session.isConfirmed, !association.partner.relays.isEmpty,
      let reflexive = turn.reflexive
    else { return }
    // Newer than what it may have yet to say of a move.
    association.mobility.move(to: reflexive)
    association.mobility.announce(&session, association.place, &turn)
    association.session = session
  }

  /// Tells the partner what it has not been told: where this side has moved to, or else where relays see it.
  mutating func announce(_ session: inout Session, _ place: Place, _ turn: inout KeyingTurn) {
    if untold == nil, !place.partner.relays.isEmpty { untold = turn.reflexive }
    guard let untold else { return }
    let number = session.takeNumbers(1)[0]
    let packet = session.announcement(of: untold, number, place.partner)
    announcement = Announcement(
      number: number, packet: packet, retry: Retry(first: Mobility.firstRetry, now: turn.now))
    for path in place.all { turn.send(packet, along: path) }
  }

  /// The partner may know.
  mutating func takeAcknowledgment(_ numbers: [UInt32], in packet: HIPPacket) {
    guard let announcement, numbers.contains(announcement.number) else { return }
    guard packet.content(.echoRequestSigned) == nil else { return }
    untold = nil
    self.announcement = nil
  }

  // MARK: 2. The partner moves

  /// - Parameter path: where that came from, which counts beside the locators: an address translator may be between.
  mutating func take(
    _ packet: HIPPacket, _ number: UInt32, along path: Path, _ session: inout Session, _ place: Place,
    _ turn: inout KeyingTurn
  ) {
    guard let info = ESPInfo(packet.content(.espInfo)), info.old == info.new,
      let set = LocatorSet(packet.content(.locatorSet), port: path.endpoint.port)
    else { return }
    credit = min(credit + packet.bytes.count, Mobility.mostCredit)
    session.updatesTaken.note(number)
    if number > newest {
      begin(number, set, along: path, place, &turn)
    } else if number == newest, isAway {
      add(path, place)
    }
    if path == place.usual { isAway = false }
    let isNewest = number == newest
    let isAsked = isNewest && ask(along: path, number, &session, place, &turn)
    if !isAsked {
      let acknowledgment = session.acknowledgment(of: [number], place.partner)
      if pay(acknowledgment, path, place) { turn.send(acknowledgment, along: path) }
    }
    // By a relay it is where it was; what its UPDATE has paid for is for probes.
    if isNewest, !place.isByRelay { askElsewhere(than: path, number, &session, place, &turn) }
    locate(place, &turn)
  }

  /// Other locators than before: what was asked about those is of no interest any more.
  private mutating func begin(
    _ number: UInt32, _ set: LocatorSet, along path: Path, _ place: Place, _ turn: inout KeyingTurn
  ) {
    newest = number
    checks = []
    let paths = set.endpoints.map { Path(transport: turn.settings.datagramTransport, endpoint: $0) }
    // Where a relay is says nothing of where the partner is.
    isAway = !paths.contains { $0 == place.usual } && !place.isByRelay
    for path in [path] + paths { add(path, place) }
    untried = paths.filter { $0 != place.usual }
  }

  /// What is held back by its interval goes when the interval is over.
  private mutating func locate(_ place: Place, _ turn: inout KeyingTurn) {
    guard !untried.isEmpty, nextLocating ?? turn.now <= turn.now else { return }
    turn.actions.append(.located(untried, credit: credit, partner: place.partner.name))
    (untried, credit) = ([], 0)
    lastLocated = turn.now
  }

  private var nextLocating: MonotonicTime? { lastLocated?.adding(nanoseconds: Mobility.leastInterval) }

  private mutating func add(_ path: Path, _ place: Place) {
    guard path != place.usual, checks.count < Mobility.mostChecks, !checks.contains(where: { $0.path == path })
    else { return }
    checks.append(Check(path: path))
  }

  /// False: nothing may go there, for want of credit.
  private mutating func pay(_ packet: [UInt8], _ path: Path, _ place: Place) -> Bool {
    if place.isKnown(path) { return true }
    guard credit >= packet.count else { return false }
    credit -= packet.count
    return true
  }

  /// Acknowledges by asking, at a place that is to be asked; again what was asked there before.
  /// - Returns: false: nothing was sent.
  private mutating func ask(
    along path: Path, _ number: UInt32, _ session: inout Session, _ place: Place, _ turn: inout KeyingTurn
  ) -> Bool {
    guard let index = checks.firstIndex(where: { $0.path == path }) else { return false }
    if let asked = checks[index].asked {
      guard pay(asked.packet, path, place) else { return false }
      turn.send(asked.packet, along: path)
      return true
    }
    let nonce = turn.bytes(8)
    let own = session.nextUpdate
    let packet = session.question(own, nonce, acknowledging: number, place.partner)
    guard pay(packet, path, place) else { return false }
    _ = session.takeNumbers(1)
    checks[index].asked = Check.Asked(number: own, nonce: nonce, packet: packet)
    turn.send(packet, along: path)
    return true
  }

  /// As far as there is credit.
  private mutating func askElsewhere(
    than path: Path, _ number: UInt32, _ session: inout Session, _ place: Place, _ turn: inout KeyingTurn
  ) {
    let others = checks.filter { $0.path != path }
    for other in (others.filter { $0.asked == nil } + others.filter { $0.asked != nil }).map(\.path) {
      guard ask(along: other, number, &session, place, &turn) else { return }
    }
  }

  // MARK: 3. The partner answers

  /// Where the partner is to be found from now on; nil: that is not answered here, or it has not gone away.
  mutating func takeAnswer(_ packet: HIPPacket) -> Path? {
    guard let nonce = packet.content(.echoResponseSigned).map({ Array($0) }),
      let index = checks.firstIndex(where: { $0.asked?.nonce == nonce })
    else { return nil }
    let found = checks.remove(at: index).path
    defer { isAway = false }
    return isAway ? found : nil
  }

  // MARK: Time

  var deadline: MonotonicTime? {
    let locating = untried.isEmpty ? nil : nextLocating
    return [announcement?.retry.next, locating].compactMap(\.self).min()
  }

  /// Says again what has no answer.
  /// - Returns: false: the partner has acknowledged nothing for long, and may have lost its keys.
  mutating func work(_ place: Place, _ turn: inout KeyingTurn) -> Bool {
    locate(place, &turn)
    guard var announcement, announcement.retry.next <= turn.now else { return true }
    guard announcement.retry.tries < Mobility.mostTries else {
      // A handshake shows where this side is as well.
      untold = nil
      self.announcement = nil
      return false
    }
    announcement.retry.again(now: turn.now)
    self.announcement = announcement
    for path in place.all { turn.send(announcement.packet, along: path) }
    return true
  }
}

extension Session {
  /// SPIs stay as they are (RFC 8046 §3.2.1).
  private var unchanged: [UInt8] {
    ESPInfo(index: KeymatIndex.traffic(suite, cipher: terms.cipher), old: inboundSPI, new: inboundSPI).content
  }

  fileprivate func announcement(of locators: LocatorSet, _ number: UInt32, _ partner: Partner) -> [UInt8] {
    packet(
      .update,
      [
        (.espInfo, unchanged), (.locatorSet, locators.content(spi: inboundSPI, isForeign: partner.isForeign)),
        (.seq, UpdateNumbers.content([number])),
      ], partner)
  }

  fileprivate func question(
    _ number: UInt32, _ nonce: [UInt8], acknowledging other: UInt32, _ partner: Partner
  ) -> [UInt8] {
    packet(
      .update,
      [
        (.espInfo, unchanged), (.seq, UpdateNumbers.content([number])), (.ack, UpdateNumbers.content([other])),
        (.echoRequestSigned, nonce),
      ], partner)
  }
}
