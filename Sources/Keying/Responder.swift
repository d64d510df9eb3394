import Identity
import KeyDerivation
import PacketIO

/// The side that is asked: what it says to everybody who may ask, and what it remembers of that, which is nothing.
///
/// 1. An I1 gets an R1 that was made and signed beforehand. Its #I is this I1's alone: random bytes, and a hash of them
///    with who asks from where, under a secret of the offer.
/// 2. An I2 shows by its #I that an R1 went to this sender at this address, and by #J that it has worked for it.
/// 3. Each #I is good once, and a Diffie-Hellman key that was used is offered to nobody else, so that no two
///    associations ever have the same keys.
struct Responder {
  /// Two who may ask each other.
  struct Pair: Hashable {
    let local: HostIdentityTag
    let remote: HostIdentityTag
  }

  /// What an R1 depends on but who asks.
  fileprivate struct Kind: Hashable {
    let local: HostIdentityTag
    let group: DiffieHellmanGroup
    let groups: [DiffieHellmanGroup]
    let suites: [ESPSuite]
    let kems: [UInt8]
    let difficulty: UInt8
    let isForeign: Bool
  }

  /// An R1 before it is anybody's, with what its answers are checked with.
  struct Offer {
    let counter: UInt64
    let key: DiffieHellmanKey
    let kems: [UInt8]
    fileprivate let kind: Kind
    fileprivate let template: R1Template
    fileprivate let secret: KeyMaterial
    fileprivate let made: MonotonicTime
    fileprivate var isUsed = false

    var difficulty: UInt8 { kind.difficulty }
  }

  private var offers: [UInt64: Offer] = [:]
  private var newest: [Kind: UInt64] = [:]
  private var counter: UInt64
  /// Random parts of #I that were accepted, by whom.
  private var accepted: [Pair: [(i: [UInt8], counter: UInt64)]] = [:]
  private var lastExpiry = MonotonicTime(nanoseconds: 0)
  private(set) var load = ResponderLoad()

  /// Nanoseconds for which an R1 is given out; it is answered for twice as long.
  private static let lifetime: UInt64 = 60_000_000_000
  /// A used key is replaced that often at most.
  private static let leastLifetime: UInt64 = 1_000_000_000
  /// Answers of one partner within the life of an offer; then it waits.
  private static let mostAccepted = 8
  private static let randomLength = 16

  /// - Parameter counter: where R1s begin to be counted.
  init(counter: UInt64) { self.counter = counter }

  /// Offers there are.
  var count: Int { offers.count }

  // MARK: 1. I1

  /// The R1 for an I1 of a partner; nil: none is due.
  mutating func answer(_ packet: HIPPacket, of partner: Partner, along path: Path, _ turn: inout KeyingTurn) -> [UInt8]?
  {
    let wanted = Array(packet.content(.dhGroupList) ?? [])
    guard let group = partner.offeredGroups.first(where: { wanted.contains($0.rawValue) }) else { return nil }
    load.settle(turn.now)
    let kind = Kind(
      local: partner.local.tag, group: group, groups: partner.offeredGroups, suites: partner.offeredSuites,
      kems: turn.settings.mechanisms(for: partner), difficulty: load.difficulty, isForeign: partner.isForeign)
    let offer = offer(kind, of: partner, &turn)
    // Nobody is to gain by asking in somebody else's name.
    guard partner.isForeign ? load.admitsForeign(turn.now) : packet.bytes.count >= offer.template.count else {
      return nil
    }
    let random = turn.bytes(Responder.randomLength)
    let i = puzzle(random, offer, Pair(local: packet.receiver, remote: packet.sender), path)
    return offer.template.filled(
      receiver: packet.sender, i: i, opaque: UInt16(truncatingIfNeeded: offer.counter))
  }

  /// #I.
  private func puzzle(_ random: [UInt8], _ offer: Offer, _ pair: Pair, _ path: Path) -> [UInt8] {
    var text = random + pair.remote.bytes + pair.local.bytes
    text.append(contentsOf: "\(path.endpoint)".utf8)
    let length = pair.local.suite?.hashLength ?? 32
    let hash = KeyedHash.hmacSHA256(text, key: offer.secret)
    // The longest #I has 48 bytes, and these are just as many.
    return random + hash.prefix(length - Responder.randomLength)
  }

  private mutating func offer(_ kind: Kind, of partner: Partner, _ turn: inout KeyingTurn) -> Offer {
    expire(turn.now)
    if let number = newest[kind], let offer = offers[number] {
      let age = turn.now.nanoseconds(since: offer.made)
      if age < (offer.isUsed ? Responder.leastLifetime : Responder.lifetime) { return offer }
    }
    counter &+= 1
    let key = turn.makeKey(kind.group)
    var secret = turn.bytes(32)
    var builder = HIPBuilder(r1From: kind.local)
    builder.append(.r1Counter, R1Counter.content(counter))
    let length = kind.local.suite?.hashLength ?? 32
    builder.append(
      .puzzle,
      PuzzleParameter(difficulty: kind.difficulty, opaque: 0, i: [UInt8](repeating: 0, count: length)).content)
    builder.append(.dhGroupList, kind.groups.map(\.rawValue))
    builder.append(.diffieHellman, DiffieHellmanParameter(key).content)
    builder.append(.hipCipher, NumberList.content([4, 2]))
    builder.append(.hostID, partner.local.publicIdentity.hostID)
    builder.append(.hitSuiteList, HostIdentitySuite.listed)
    builder.append(.transportFormatList, NumberList.content([HIPParameter.espTransform.rawValue]))
    builder.append(.espTransform, NumberList.content(kind.suites.map(\.number), reserved: 2))
    if !kind.kems.isEmpty { builder.append(.kemList, kind.kems) }
    builder.appendSignature2(by: partner.local)
    let offer = Offer(
      counter: counter, key: key, kems: kind.kems, kind: kind, template: R1Template(builder),
      secret: KeyMaterial(taking: &secret), made: turn.now)
    offers[counter] = offer
    newest[kind] = counter
    return offer
  }

  private mutating func expire(_ now: MonotonicTime) {
    guard now.nanoseconds(since: lastExpiry) >= Responder.leastLifetime else { return }
    lastExpiry = now
    // Its key is zeroed with it.
    offers = offers.filter { now.nanoseconds(since: $0.value.made) < 2 * Responder.lifetime }
    newest = newest.filter { offers[$0.value] != nil }
    for (pair, entries) in accepted {
      let living = entries.filter { offers[$0.counter] != nil }
      accepted[pair] = living.isEmpty ? nil : living
    }
  }

  // MARK: 2. I2

  /// The offer that an I2 answers, if it has come from where the R1 went to and the puzzle is solved.
  mutating func offer(
    _ packet: HIPPacket, of partner: Partner, along path: Path, _ turn: inout KeyingTurn
  ) -> (offer: Offer, solution: PuzzleParameter)? {
    expire(turn.now)
    guard let suite = packet.receiver.suite,
      let solution = PuzzleParameter(packet.content(.solution), length: suite.hashLength, isSolution: true),
      let number = R1Counter.value(packet.content(.r1Counter)), let offer = offers[number],
      offer.kind.local == packet.receiver, solution.opaque == UInt16(truncatingIfNeeded: number)
    else { return nil }
    let pair = Pair(local: packet.receiver, remote: packet.sender)
    let own = puzzle(Array(solution.i.prefix(Responder.randomLength)), offer, pair, path)
    guard isEqualInConstantTime(own, solution.i), solution.difficulty == offer.difficulty,
      Puzzle.isSolved(
        difficulty: offer.difficulty, i: solution.i, initiator: pair.remote, responder: pair.local, j: solution.j,
        suite: suite)
    else { return nil }
    load.noteSolution(turn.now)
    return (offer, solution)
  }

  // MARK: 3. Once

  /// Whether a partner's answer may be accepted now.
  func mayAccept(_ solution: PuzzleParameter, of pair: Pair) -> Bool {
    let entries = accepted[pair] ?? []
    return entries.count < Responder.mostAccepted && !entries.contains { $0.i == solution.i }
  }

  /// Whether the partner has to wait.
  func isFull(_ pair: Pair) -> Bool { accepted[pair]?.count ?? 0 >= Responder.mostAccepted }

  mutating func accept(_ solution: PuzzleParameter, _ offer: Offer, of pair: Pair) {
    accepted[pair, default: []].append((solution.i, offer.counter))
    offers[offer.counter]?.isUsed = true
  }

  /// Whether there is time for another signature.
  mutating func mayVerify(_ now: MonotonicTime) -> Bool { load.mayVerify(now) }
}

/// How hard puzzles are, and how much time goes into what strangers send.
struct ResponderLoad {
  /// Bits (RFC 7401 §4.1.2).
  private(set) var difficulty: UInt8 = 0
  private var second = MonotonicTime(nanoseconds: 0)
  private var solutions = 0
  private var signatures = TokenBucket(perSecond: 2500, burst: 500)
  private var foreign = TokenBucket(perSecond: 10, burst: 10)

  /// Good answers a second from which on they cost something.
  private static let calm = 200
  private static let first: UInt8 = 10
  private static let step: UInt8 = 2
  static let last: UInt8 = 20

  mutating func noteSolution(_ now: MonotonicTime) {
    solutions += 1
    settle(now)
  }

  /// What the last second, or the seconds since, have shown.
  mutating func settle(_ now: MonotonicTime) {
    guard now.nanoseconds(since: second) >= 1_000_000_000 else { return }
    let passed = now.nanoseconds(since: second) / 1_000_000_000
    second = now
    if solutions > ResponderLoad.calm * Int(clamping: passed) {
      difficulty = difficulty == 0 ? ResponderLoad.first : min(difficulty + ResponderLoad.step, ResponderLoad.last)
    } else {
      let eased = UInt64(ResponderLoad.step) * passed
      difficulty = UInt64(difficulty) >= UInt64(ResponderLoad.first) + eased ? difficulty - UInt8(clamping: eased) : 0
    }
    solutions = 0
  }

  mutating func mayVerify(_ now: MonotonicTime) -> Bool { signatures.takeOne(now: now) }
  mutating func admitsForeign(_ now: MonotonicTime) -> Bool { foreign.takeOne(now: now) }
}

extension HostIdentitySuite {
  /// As HIT_SUITE_LIST has them: the best first, each in the upper four bits (RFC 7401 §5.2.10).
  static let listed: [UInt8] = [HostIdentitySuite.ecdsa, .edDSA, .rsa].map { $0.rawValue << 4 }
}
