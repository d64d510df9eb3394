import Synchronization

/// Carries events from workers to the embedder. Bounded: a state event replaces the one about the same subject, so
/// none is lost and there are never more than subjects; of rate events at most `rateCapacity` wait, the rest is
/// counted as lost.
final class EventChannel: Sendable {
  private static let rateCapacity = 64

  private struct State {
    var waiting: [Event] = []
    var rateEvents = 0
    var lost: UInt64 = 0
    var ended = false
    var reader: CheckedContinuation<Event?, Never>?
  }

  private let state = Mutex(State())

  var lost: UInt64 { state.withLock { $0.lost } }

  func send(_ event: Event) {
    let reader = state.withLock { state -> CheckedContinuation<Event?, Never>? in
      guard !state.ended else { return nil }
      if let reader = state.reader {
        state.reader = nil
        return reader
      }
      if let subject = event.subject {
        state.waiting.removeAll { $0.subject == subject }
      } else if state.rateEvents >= EventChannel.rateCapacity {
        state.lost += 1
        return nil
      } else {
        state.rateEvents += 1
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
      defer { state.reader = nil }
      return state.reader
    }
    reader?.resume(returning: nil)
  }

  func next() async -> Event? {
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let ready = state.withLock { state -> Event?? in
          if !state.waiting.isEmpty {
            let event = state.waiting.removeFirst()
            if event.subject == nil { state.rateEvents -= 1 }
            return .some(event)
          }
          if state.ended || Task.isCancelled || state.reader != nil { return .some(nil) }
          state.reader = continuation
          return nil
        }
        if let ready { continuation.resume(returning: ready) }
      }
    } onCancel: {
      let reader = state.withLock { state -> CheckedContinuation<Event?, Never>? in
        defer { state.reader = nil }
        return state.reader
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
