import Lab
import Synchronization

/// A transfer that goes on while something happens to its path, and when its bytes arrived.
final class RunningTransfer: Sendable {
  private let thread: LabThread<BulkTransfer.Result>
  private let progress: Progress

  private final class Progress: Sendable {
    let moments = Mutex<[(time: Double, bytes: UInt64)]>([])
    let isStopped = Atomic<Bool>(false)
  }

  /// - Parameters:
  ///   - seconds: how long the sender goes on, unless it is stopped.
  ///   - patience: seconds without a byte after which it fails.
  init(from: Namespace, to: Namespace, address: String, seconds: Double, patience: Double = 20) {
    var transfer = BulkTransfer(from: from, to: to, address: address, amount: .seconds(seconds))
    transfer.verifies = true
    transfer.warmUp = 0
    transfer.patience = patience
    transfer.reportInterval = 0.05
    let progress = Progress()
    self.progress = progress
    transfer.isOver = { progress.isStopped.load(ordering: .relaxed) }
    thread = LabThread { [transfer] in
      try transfer.run(progress: { now in
        progress.moments.withLock { $0.append((monotonicSeconds(), now.bytes)) }
      })
    }
  }

  /// Seconds between the two arrivals that lie furthest apart, of those after `start`, to about 50 ms.
  func longestStall(since start: Double) -> Double {
    let moments = progress.moments.withLock { $0 }
    var last = start
    var bytes = moments.last { $0.time <= start }?.bytes ?? 0
    var longest = 0.0
    for moment in moments where moment.time > start {
      longest = max(longest, moment.time - last)
      if moment.bytes > bytes {
        (last, bytes) = (moment.time, moment.bytes)
      }
    }
    return longest
  }

  /// Bytes that have arrived, as of a moment ago.
  var bytes: UInt64 { progress.moments.withLock { $0.last?.bytes ?? 0 } }

  /// Ends it before its time.
  func stop() async throws -> BulkTransfer.Result {
    progress.isStopped.store(true, ordering: .relaxed)
    return try await finish()
  }

  /// Waits for the end.
  func finish() async throws -> BulkTransfer.Result { try await thread.value }
}
