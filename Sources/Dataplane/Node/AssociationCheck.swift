import PacketIO

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
