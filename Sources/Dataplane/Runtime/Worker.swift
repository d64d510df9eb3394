import Glibc
import PacketIO
import Synchronization

/// A worker as other threads see it: a thread that runs a `WorkerLoop`, and the requests that wait for it.
final class Worker: Sendable {
  /// What other threads ask of a worker; answered between two turns.
  enum Request {
    /// Told true once it is in force, false when the worker stops before.
    case take(Transition, Adoption)
    case report(CheckedContinuation<WorkerReport?, Never>)
    /// What is known of the peer of a row; answered nil when there is none.
    case peerReport(Int, CheckedContinuation<PeerReport?, Never>)
    /// What would become of a packet; answered nil when the worker stops before.
    case explain([UInt8], CheckedContinuation<Explanation?, Never>)
    /// Answered whether the capture has begun; there is one at a time.
    case capture(PacketCapture, CheckedContinuation<Bool, Never>)
    case endCapture(PacketCapture)
    /// A control message for the peer of a row, if it is still the same peer. May be lost, like any packet.
    case send(AddressCoordination.Outgoing, row: Int, serial: UInt64)
    /// The peer of a row, if it is still the same, has answered by a path.
    case follow(Path, row: Int, serial: UInt64)
    /// The peer of a row, if it is still the same, says that it is at a path.
    case consider(Path, credit: Int, row: Int, serial: UInt64)
    /// Peers are to know where this side is.
    case announce
    /// A message to be sent along its path. May be lost, like any packet.
    case message(PathMessage)
    /// One more transport. Answered whether it is open.
    case open(any Transport, CheckedContinuation<Result<Void, any Error>, Never>)
    /// The transport that was opened last, because another worker could not open it.
    case closeLast
    /// Answered with the last figures when everything is closed.
    case stop(CheckedContinuation<WorkerReport?, Never>?)
  }

  private struct Requests {
    var waiting: [Request] = []
    /// The thread has ended: nobody will answer.
    var closed = false
  }

  private let requests = Mutex(Requests())
  private let waker: Waker
  /// The descriptor of the ring by which other workers can wake this one; -1: there is none.
  let ring = Atomic<Int32>(-1)

  init() throws { waker = try Waker() }

  /// Opens everything in the calling thread's network namespace, and starts the thread, which inherits it. The
  /// thread ends after `stop`.
  /// - Parameters:
  ///   - workers: all of the gateway, and the queues between them; nil: there is this one.
  func start(
    device: TunDevice, transports: [any Transport], tables: Snapshot, events: EventChannel, messages: MessageChannel,
    addresses: AddressInbox, workers: [Worker], queues: HandOffQueues?, options: Dataplane.Options
  ) throws {
    let loop = StateCell(
      try WorkerLoop(
        device: device, transports: transports, tables: tables,
        surroundings: WorkerLoop.Surroundings(
          events: events, messages: messages, addresses: addresses, workers: workers, wakeDescriptor: waker.descriptor),
        queues: queues, options: options))
    let status = startThread { loop.reference.value.run(self) }
    guard status == 0 else {
      throw SystemError("start a worker thread", errno: status, remedy: "raise the limit of threads (ulimit -u)")
    }
  }

  /// Has the worker look around, though nobody asks for anything.
  func wake() { waker.wake() }

  /// False when the worker has stopped: the request will not be answered.
  func post(_ request: Request) -> Bool {
    let accepted = requests.withLock { requests in
      if !requests.closed { requests.waiting.append(request) }
      return !requests.closed
    }
    if accepted { waker.wake() }
    return accepted
  }

  /// The requests that wait. With `closing`, no more are accepted.
  func takeRequests(closing: Bool = false) -> [Request] {
    requests.withLock { requests in
      if closing { requests.closed = true }
      defer { requests.waiting.removeAll() }
      return requests.waiting
    }
  }
}
