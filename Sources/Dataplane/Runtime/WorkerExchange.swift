import PacketIO
import Synchronization

/// What several workers have in common: the boxes by which they hand each other packets, and where each can be woken.
/// Between any two of them there is one box each way.
final class WorkerExchange: Sendable {
  /// What a letter brings.
  enum Kind {
    /// A packet from the TUN device, for the owner of its flow.
    static let outbound: UInt8 = 0
    /// One that the owner's firewall has let pass, for worker 0 to seal.
    static let judged: UInt8 = 1
    /// A packet that was opened, for the owner of its flow to judge and deliver.
    static let opened: UInt8 = 2
    /// Sealed packets, for the worker that has their association.
    static let sealed: UInt8 = 3
    /// A control message of the type `detail`, for worker 0.
    static let control: UInt8 = 4
    /// The peer has answered under the worker's own association.
    static let answer: UInt8 = 5
  }

  /// Of a direction between two workers: the receiver was told of letters it has not looked for yet.
  private final class Notice: Sendable {
    let isGiven = Atomic<Bool>(false)
    let box: Mailbox

    init(capacity: Int) { box = Mailbox(capacity: capacity) }
  }

  private final class Place: Sendable {
    let ring = Atomic<Int32>(-1)
  }

  /// Bytes of letters that wait for a worker at most, of all others together; what does not fit is dropped.
  static let inbox = 1 << 22

  let workers: [Worker]
  private let notices: [Notice?]
  private let places: [Place]

  init(_ workers: [Worker]) {
    self.workers = workers
    places = workers.map { _ in Place() }
    let count = workers.count
    notices = (0..<count * count).map {
      $0 / count == $0 % count ? nil : Notice(capacity: WorkerExchange.inbox / count)
    }
  }

  var count: Int { workers.count }

  /// The worker's ring takes messages from now on, or no more (-1).
  func enlist(_ worker: Int, ring: Int32) { places[worker].ring.store(ring, ordering: .sequentiallyConsistent) }

  /// -1: there is none.
  func ring(of worker: Int) -> Int32 { places[worker].ring.load(ordering: .sequentiallyConsistent) }

  func box(from sender: Int, to receiver: Int) -> Mailbox? { notices[sender * count + receiver]?.box }

  /// True when the receiver has to be told that there are letters.
  func claimNotice(from sender: Int, to receiver: Int) -> Bool {
    notices[sender * count + receiver]?.isGiven.exchange(true, ordering: .sequentiallyConsistent) == false
  }

  /// The receiver looks now; whatever is posted later needs another notice.
  func clearNotice(from sender: Int, to receiver: Int) {
    notices[sender * count + receiver]?.isGiven.store(false, ordering: .sequentiallyConsistent)
  }
}

/// What worker 0 tells the others of a peer: its path, and what it takes.
struct PathUpdate: Sendable, Equatable {
  var peer: Int
  /// Nil: there is none.
  var path: Path?
  /// Bytes of the largest sealed packet that the path takes.
  var sealedLimit: Int
  /// The peer has said that it takes several packets in one.
  var takesAggregates = false
}

/// What a worker tells worker 0 of a peer: when packets were last sent and heard.
struct PeerActivity: Sendable {
  var peer: Int
  var lastSent: MonotonicTime
  var lastHeard: MonotonicTime?
  /// By `path`.
  var lastHeardHere: MonotonicTime
  var path: Path?
}

/// Whether a peer takes packets under an association that it may not have: the question is asked under it, and only
/// whoever has it can answer. So a gateway that was not told of its partner's workers gets everything from worker 0.
struct AssociationCheck: Sendable {
  private static let firstInterval: UInt64 = 100_000_000
  private static let longestInterval: UInt64 = 30_000_000_000
  private static let liveInterval: UInt64 = 500_000_000
  /// Questions without an answer after which the association is not used any more.
  static let patience = 4

  private(set) var isLive = false
  private var unanswered = 0
  private var interval = firstInterval
  private var next = MonotonicTime(nanoseconds: 0)

  init() {}

  /// Whether a question is to be sent now. Call several times a second.
  /// - Parameter isActive: there are packets for the peer.
  mutating func poll(isActive: Bool, now: MonotonicTime) -> Bool {
    guard isActive, now >= next else { return false }
    if isLive, unanswered >= AssociationCheck.patience {
      isLive = false
      interval = AssociationCheck.firstInterval
    }
    next = now.adding(nanoseconds: isLive ? AssociationCheck.liveInterval : interval)
    if !isLive { interval = min(interval * 2, AssociationCheck.longestInterval) }
    unanswered += 1
    return true
  }

  /// The peer has answered.
  mutating func answer() {
    // When to ask next was set for a peer that may not answer.
    if !isLive { next = MonotonicTime(nanoseconds: 0) }
    isLive = true
    unanswered = 0
    interval = AssociationCheck.firstInterval
  }
}
