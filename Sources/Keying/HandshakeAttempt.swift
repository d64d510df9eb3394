import Identity
import PacketIO

/// A handshake that this side has begun.
enum HandshakeAttempt {
  case none
  /// Nobody has answered; it is tried again then.
  case waiting(until: MonotonicTime)
  /// I1-SENT.
  case asked(Asked)
  /// There is an R1, whose puzzle is worked on.
  case solving(Solving)
  /// I2-SENT.
  case answered(Answered)

  /// Nanoseconds for which the side with the smaller tag waits for an answer of its own before it answers too.
  private static let patience: UInt64 = 2_000_000_000

  /// It is tried again in half a minute or so.
  static func later(_ turn: inout KeyingTurn) -> HandshakeAttempt {
    .waiting(until: turn.now.adding(nanoseconds: turn.seconds(30, spread: 0.5)))
  }

  /// Whether an I1 is answered: of two who ask at once, the one with the greater tag is to answer (RFC 7401 §6.7). But
  /// if nothing comes of it, whoever can be reached answers.
  func allowsAnswer(isGreater: Bool, now: MonotonicTime) -> Bool {
    guard case .asked(let asked) = self, !isGreater else { return true }
    return now.nanoseconds(since: asked.began) > HandshakeAttempt.patience
  }

  /// Whether the partner's own handshake waits for this one: of two who have asked at once, the one with the smaller tag
  /// goes on (RFC 7401 §6.9). But if nothing comes of it, the partner's is taken.
  func precedesAnswers(isGreater: Bool, now: MonotonicTime) -> Bool {
    guard case .answered(let answered) = self, !isGreater else { return false }
    return now.nanoseconds(since: answered.since) <= HandshakeAttempt.patience
  }

  /// Whether the partner was asked to send under an SPI.
  func claims(_ spi: UInt32) -> Bool {
    if case .answered(let answered) = self { answered.terms.inboundSPI == spi } else { false }
  }

  /// When the first I1 went.
  var began: MonotonicTime? {
    switch self {
    case .none, .waiting: nil
    case .asked(let asked): asked.began
    case .solving(let solving): solving.began
    case .answered(let answered): answered.began
    }
  }

  /// When there is something to do though nothing comes.
  var deadline: MonotonicTime? {
    switch self {
    case .none: nil
    case .waiting(let until): until
    case .asked(let asked): asked.next?.at ?? asked.retry.next
    case .solving(let solving): solving.next
    case .answered(let answered): answered.retry.next
    }
  }

  struct Asked {
    let began: MonotonicTime
    /// Rounds over all paths.
    var retry: Retry
    /// The path that comes next, and when; nil: this round is over.
    var next: (path: Int, at: MonotonicTime)?

    /// Nanoseconds between two paths.
    private static let pathInterval: UInt64 = 100_000_000
    /// Rounds before a longer wait.
    private static let mostRounds = 5

    /// Sends what is due.
    /// - Returns: false: nobody has answered in all rounds.
    mutating func ask(_ partner: Partner, along paths: [Path], _ turn: inout KeyingTurn) -> Bool {
      if next == nil, retry.next <= turn.now {
        guard retry.tries < Asked.mostRounds else { return false }
        retry.again(now: turn.now)
        next = (0, turn.now)
      }
      while let (path, at) = next, at <= turn.now {
        if paths.indices.contains(path) { turn.send(partner.makeI1(), along: paths[path]) }
        next = path + 1 < paths.count ? (path + 1, at.adding(nanoseconds: Asked.pathInterval)) : nil
      }
      return true
    }
  }

  struct Solving {
    let began: MonotonicTime
    let r1: HIPPacket
    let path: Path
    let choice: Choice
    let peer: PublicHostIdentity
    /// With its solution, once there is one.
    private(set) var puzzle: PuzzleParameter
    /// Of the R1; nil: it has none.
    let counter: UInt64?
    private(set) var next: MonotonicTime
    private var start: UInt64
    private var tries = 0

    /// Puzzles beyond are not worked on.
    private static let hardest = ResponderLoad.last
    /// Enough for the hardest, but for one time in fifty.
    private static let mostTries = 1 << 22
    /// In one go: some milliseconds, after which others have their turn.
    private static let triesAtOnce = 1 << 12

    /// Nil: it has no puzzle, or one that is too hard.
    init?(
      _ r1: HIPPacket, along path: Path, began: MonotonicTime, _ choice: Choice, _ peer: PublicHostIdentity,
      _ partner: Partner, _ turn: inout KeyingTurn
    ) {
      guard let puzzle = PuzzleParameter(r1.content(.puzzle), length: peer.suite.hashLength, isSolution: false),
        puzzle.difficulty <= Solving.hardest
      else { return nil }
      counter = R1Counter.value(r1.content(.r1Counter))
      guard counter != nil || partner.isForeign && r1.content(.r1Counter) == nil else { return nil }
      (self.began, self.r1, self.path, self.choice, self.peer) = (began, r1, path, choice, peer)
      self.puzzle = puzzle
      next = turn.now
      start = turn.random.next()
    }

    /// Works for a while.
    /// - Returns: whether that is over; without a solution in the puzzle it has come to nothing.
    mutating func work(_ partner: Partner, now: MonotonicTime) -> Bool {
      let solution = Puzzle.solve(
        difficulty: puzzle.difficulty, i: puzzle.i, initiator: partner.local.tag, responder: partner.remote,
        suite: peer.suite, from: start, tries: Solving.triesAtOnce)
      puzzle.j = solution ?? []
      start &+= UInt64(truncatingIfNeeded: Solving.triesAtOnce)
      tries += Solving.triesAtOnce
      // What is due at once would be done at once.
      next = now.adding(nanoseconds: 1)
      return solution != nil || tries >= Solving.mostTries
    }
  }

  struct Answered {
    let began: MonotonicTime
    /// When the first I2 went.
    let since: MonotonicTime
    let packet: [UInt8]
    let path: Path
    var retry: Retry
    let terms: Session.Terms
    /// From its beginning.
    let keymat: Keymat
    let macKeys: (sent: KeyMaterial, received: KeyMaterial)
    private static let longestRetry: UInt64 = 4_000_000_000

    /// HOST_ID as the R1 has it, which HIP_MAC_2 covers.
    let hostID: [UInt8]

    /// Answers an R1.
    /// - Returns: nil: its Diffie-Hellman value is none.
    init?(_ solved: Solving, _ partner: Partner, _ turn: inout KeyingTurn) {
      let (choice, peer, solution) = (solved.choice, solved.peer, solved.puzzle)
      let key = turn.makeKey(choice.group)
      guard let shared = key.agree(with: choice.publicValue) else { return nil }
      let salt = solution.i + solution.j
      var keymat = Keymat(
        secret: partner.mixed(shared), salt: salt, between: (partner.local.tag, partner.remote), peer.suite)
      self.keymat = keymat
      macKeys = Session.macKeys(
        &keymat, peer.suite, choice.cipher, isGreater: partner.local.tag > partner.remote)
      terms = Session.Terms(
        suite: peer.suite, espSuite: choice.espSuite, group: choice.group, kem: choice.kem, peer: peer,
        isInitiator: true, salt: salt, cipher: choice.cipher, workers: (turn.settings.workers, 1),
        inboundSPI: turn.spis.take(&turn.random, now: turn.now), outboundSPI: 0, index: keymat.index)
      packet = partner.makeI2(terms, solution, counter: solved.counter, key, macKey: macKeys.sent)
      began = solved.began
      since = turn.now
      path = solved.path
      // An answer that is under way longer than that is not to be overtaken by the next try.
      let wait = min(2 * turn.now.nanoseconds(since: began), Answered.longestRetry)
      retry = Retry(first: max(500_000_000, wait), longest: Answered.longestRetry, now: turn.now)
      hostID = Array(solved.r1.content(.hostID) ?? [])
    }
  }
}
