import Glibc
import PacketIO
import Synchronization

/// A thread that runs an actor's jobs one after the other: signatures take their time, and are to take it neither from
/// packet threads nor from tasks of the embedder.
final class KeyThread: SerialExecutor {
  private struct State {
    var jobs: [UnownedJob] = []
    var isEnded = false
  }

  private let state = Mutex(State())
  private let work: Semaphore

  /// Less important than threads that carry packets.
  private static let niceness: Int32 = 5

  init() {
    work = Semaphore()
    let status = startThread { [self] in
      // Of this thread alone; where it is refused, all goes on as it is.
      _ = setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, KeyThread.niceness)
      run()
    }
    precondition(status == 0, "no thread can be started: raise the limit (ulimit -u)")
  }

  /// The executor, as actors name theirs.
  @safe var unowned: UnownedSerialExecutor { unsafe asUnownedSerialExecutor() }

  func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    state.withLock { $0.jobs.append(job) }
    work.signal()
  }

  /// The thread goes once all is done.
  func end() {
    state.withLock { $0.isEnded = true }
    work.signal()
  }

  private func run() {
    while true {
      work.wait()
      let (jobs, isEnded) = state.withLock { state in
        defer { state.jobs = [] }
        return (state.jobs, state.isEnded)
      }
      for job in jobs { unsafe job.runSynchronously(on: asUnownedSerialExecutor()) }
      if isEnded, jobs.isEmpty { return }
    }
  }
}

/// The C library's counting semaphore.
@safe private final class Semaphore: @unchecked Sendable {
  private let semaphore: UnsafeMutablePointer<sem_t>

  init() {
    unsafe semaphore = .allocate(capacity: 1)
    unsafe sem_init(semaphore, 0, 0)
  }

  deinit {
    unsafe sem_destroy(semaphore)
    unsafe semaphore.deallocate()
  }

  func signal() { unsafe sem_post(semaphore) }
  func wait() { while unsafe sem_wait(semaphore) != 0 {} }
}
