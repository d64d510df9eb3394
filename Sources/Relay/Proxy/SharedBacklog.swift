import PacketIO

/// What has come to the identity relay's ports by datagrams and waits for the next turn.
///
/// Who has each small packet go elsewhere than the one before makes a run of each, thousands in what the kernel hands over
/// at once. So a turn looks at no more than some, and streams and sides are never far. Nothing is lost: no more can wait
/// than the kernel has buffers for, and what it has none for stays in the socket.
struct SharedBacklog {
  /// Runs after which a turn looks at no more. What is left of the batch is for streams and hairpins.
  private static let runsPerTurn = ForwardBatch.capacity / 4

  private var waiting: [Completion] = []
  /// Runs that this turn has made.
  var runs = 0

  var isEmpty: Bool { waiting.isEmpty }

  /// Begins a turn.
  /// - Returns: what has waited, in order; it comes before anything else.
  mutating func begin() -> [Completion] {
    runs = 0
    guard !waiting.isEmpty else { return [] }
    defer { waiting = [] }
    return waiting
  }

  /// Whether it waits: this turn has done enough.
  mutating func takes(_ completion: Completion) -> Bool {
    guard runs >= SharedBacklog.runsPerTurn else { return false }
    waiting.append(completion)
    return true
  }
}
