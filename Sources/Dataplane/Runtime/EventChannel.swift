import Synchronization

/// Carries events from workers to the embedder. Bounded: a state event replaces the one about the same subject, so
/// none is lost and there are never more than subjects; of rate events at most `rateCapacity` wait, the rest is
/// counted as lost.
final class EventChannel: Sendable {
  private static let rateCapacity = 64

  private struct State {
    var waiting = EventQueue()
    var lost: UInt64 = 0
    var ended = false
    var reader: Reader?
    /// Calls of `next` so far; tells readers apart.
    var calls: UInt64 = 0

    /// Takes the reader out that waits; its caller resumes it when the lock is released.
    mutating func takeReader() -> CheckedContinuation<Event?, Never>? {
      defer { reader = nil }
      return reader?.continuation
    }
  }

  private struct Reader {
    let call: UInt64
    let continuation: CheckedContinuation<Event?, Never>
  }

  private let state = Mutex(State())

  var lost: UInt64 { state.withLock { $0.lost } }

  /// Somebody waits in `next`.
  var hasReader: Bool { state.withLock { $0.reader != nil } }

  func send(_ event: Event) {
    let reader = state.withLock { state -> CheckedContinuation<Event?, Never>? in
      guard !state.ended else { return nil }
      if let reader = state.takeReader() { return reader }
      if event.subject == nil, state.waiting.rateEvents >= EventChannel.rateCapacity {
        state.lost += 1
        return nil
      }
      state.waiting.append(event)
      return nil
    }
    reader?.resume(returning: event)
  }

  /// After the events that wait, the stream ends.
  func end() {
    let reader = state.withLock { state -> CheckedContinuation<Event?, Never>? in
      state.ended = true
      return state.takeReader()
    }
    reader?.resume(returning: nil)
  }

  /// The oldest event that waits, or the next one; nil at the end, when the task is cancelled, and while another
  /// reader waits.
  func next() async -> Event? {
    let call = state.withLock { state in
      state.calls += 1
      return state.calls
    }
    return await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let ready = state.withLock { state -> Event?? in
          if let event = state.waiting.popFirst() { return .some(event) }
          if state.ended || Task.isCancelled || state.reader != nil { return .some(nil) }
          state.reader = Reader(call: call, continuation: continuation)
          return nil
        }
        if let ready { continuation.resume(returning: ready) }
      }
    } onCancel: {
      let reader = state.withLock { state -> CheckedContinuation<Event?, Never>? in
        state.reader?.call == call ? state.takeReader() : nil
      }
      reader?.resume(returning: nil)
    }
  }
}

/// A dataplane's events in order, for one reader at a time; ends after `stop`.
public struct EventStream: AsyncSequence, Sendable {
  public typealias Element = Event

  let channel: EventChannel

  public struct Iterator: AsyncIteratorProtocol {
    let channel: EventChannel
    public mutating func next() async -> Event? { await channel.next() }
  }

  public func makeAsyncIterator() -> Iterator { Iterator(channel: channel) }
}
