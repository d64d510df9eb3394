import Dispatch
import Glibc
import Synchronization

/// Turns signals into a sequence; their usual effect on the process is off while this exists.
package final class SignalWatch {
  /// The signals' numbers as they come; the newest sixteen wait.
  package let signals: AsyncStream<Int32>
  /// Finish it to end the sequence.
  package let continuation: AsyncStream<Int32>.Continuation
  private let sources: [any DispatchSourceSignal]

  /// From now on these signals do nothing else.
  package init(_ numbers: [Int32]) {
    let (stream, continuation) = AsyncStream.makeStream(of: Int32.self, bufferingPolicy: .bufferingNewest(16))
    signals = stream
    self.continuation = continuation
    sources = numbers.map { number in
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler { continuation.yield(number) }
      source.resume()
      return source
    }
  }

  deinit {
    for source in sources { source.cancel() }
  }
}

/// Notes that somebody wants this program to end, SIGINT or SIGTERM, instead of ending it at once.
package final class InterruptWatch: Sendable {
  private final class Flag: Sendable {
    let isSet = Atomic(false)
  }
  private let flag = Flag()
  private let watch: Task<Void, Never>

  /// Begins to listen.
  package init() {
    watch = Task { [flag] in
      for await _ in SignalWatch([SIGINT, SIGTERM]).signals { flag.isSet.store(true, ordering: .relaxed) }
    }
  }

  deinit { watch.cancel() }

  /// Whether one of the signals has come.
  package var wasInterrupted: Bool { flag.isSet.load(ordering: .relaxed) }
}
