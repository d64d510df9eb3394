import CLinux
import Glibc
import Synchronization

/// A thread for one closure, and the closure's result.
///
/// The lab uses threads of its own because a network namespace belongs to a thread: one that has entered a
/// namespace must never go back to a pool.
public final class LabThread<Value: Sendable>: Sendable {
  private enum State {
    case running([CheckedContinuation<Value, any Error>])
    case finished(Result<Value, any Error>)
  }
  private let state = Mutex(State.running([]))
  private let done = Latch()

  /// Starts at once.
  /// - Parameters:
  ///   - namespace: entered before `body` runs; nil: the caller's.
  ///   - name: shown by `ps -L`, 15 characters at most.
  public init(in namespace: Namespace? = nil, name: String = "lab", _ body: @escaping @Sendable () throws -> Value) {
    let run: @Sendable () -> Void = { [self] in
      finish(
        Result {
          try namespace?.enter()
          return try body()
        })
    }
    let code = startThread(name: name, run)
    if code != 0 {
      finish(.failure(LabError.system("start a thread", code, remedy: "raise the limit of processes (ulimit -u)")))
    }
  }

  private func finish(_ result: Result<Value, any Error>) {
    let waiting = state.withLock { state -> [CheckedContinuation<Value, any Error>] in
      guard case .running(let waiting) = state else { return [] }
      state = .finished(result)
      return waiting
    }
    for continuation in waiting { continuation.resume(with: result) }
    done.open()
  }

  /// The result if there is one already.
  public var finished: Result<Value, any Error>? {
    state.withLock { if case .finished(let result) = $0 { result } else { nil } }
  }

  /// Blocks the calling thread until the closure has returned.
  public func join() throws -> Value {
    while true {
      if let result = finished { return try result.get() }
      done.wait()
    }
  }

  /// Suspends until the closure has returned.
  public var value: Value {
    get async throws {
      try await withCheckedThrowingContinuation { continuation in
        let result = state.withLock { state -> Result<Value, any Error>? in
          switch state {
          case .finished(let result): return result
          case .running(let waiting):
            state = .running(waiting + [continuation])
            return nil
          }
        }
        if let result { continuation.resume(with: result) }
      }
    }
  }
}

/// Opens once, for everybody who waits, now or later.
@safe final class Latch: Sendable {
  private let word = Atomic<UInt32>(0)

  func open() {
    word.store(1, ordering: .releasing)
    // Every waiter passes the token on to the next.
    unsafe _ = sem_post(semaphore)
  }

  func wait() {
    while word.load(ordering: .acquiring) == 0 { unsafe _ = sem_wait(semaphore) }
    unsafe _ = sem_post(semaphore)
  }

  private nonisolated(unsafe) let semaphore: UnsafeMutablePointer<sem_t>

  init() {
    unsafe semaphore = .allocate(capacity: 1)
    unsafe semaphore.initialize(to: sem_t())
    unsafe sem_init(semaphore, 0, 0)
  }

  deinit {
    unsafe sem_destroy(semaphore)
    unsafe semaphore.deallocate()
  }
}

private final class ThreadBody: Sendable {
  let name: String
  let run: @Sendable () -> Void
  init(_ name: String, _ run: @escaping @Sendable () -> Void) {
    self.name = name
    self.run = run
  }
}

/// A detached thread that runs `body`. Returns an errno, 0 when it runs.
func startThread(name: String, _ body: @escaping @Sendable () -> Void) -> Int32 {
  var attributes = pthread_attr_t()
  unsafe pthread_attr_init(&attributes)
  defer { unsafe pthread_attr_destroy(&attributes) }
  unsafe pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
  var thread = pthread_t()
  let argument = unsafe Unmanaged.passRetained(ThreadBody(name, body))
  let code = unsafe pthread_create(
    &thread, &attributes,
    { argument in
      guard let argument = unsafe argument else { return nil }
      let body = unsafe Unmanaged<ThreadBody>.fromOpaque(argument).takeRetainedValue()
      unsafe culvert_set_thread_name(String(body.name.prefix(15)))
      body.run()
      return nil
    }, argument.toOpaque())
  if code != 0 { unsafe argument.release() }
  return code
}

/// Lets threads share a value that cannot be copied, such as an atomic.
final class Shared<Value: ~Copyable & Sendable>: Sendable {
  let value: Value
  init(_ value: consuming Value) { self.value = value }
}
