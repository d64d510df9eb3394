import Glibc
import PacketIO

/// A socket that listens: the ring says when a stream waits, and it is accepted by a plain call when strangers have their
/// turn. What the relay has no time for waits in the kernel's backlog.
struct PolledListener: BitwiseCopyable {
  /// Nanoseconds before a listener that failed is polled again.
  private static let pause: UInt64 = 100_000_000

  let descriptor: Int32
  /// It is polled, or has something and waits for its turn.
  private var isBusy = false
  private var notBefore = MonotonicTime(nanoseconds: 0)

  init(_ descriptor: Int32) { self.descriptor = descriptor }

  /// Has the ring say when a stream waits, unless it does or has to wait.
  /// - Returns: whether it does now.
  @discardableResult
  mutating func poll(now: MonotonicTime, token: Token, ring: inout Ring) -> Bool {
    guard !isBusy, now >= notBefore else { return isBusy }
    isBusy = true
    ring.pollReadable(RingFile(descriptor), token: token)
    return true
  }

  /// It is to be polled again: nothing waits any more, or none can be accepted.
  mutating func rest(hasFailed: Bool, now: MonotonicTime) {
    isBusy = false
    if hasFailed { notBefore = now.adding(nanoseconds: PolledListener.pause) }
  }

  /// What waited.
  enum Arrival: Equatable {
    case stream(Int32)
    /// It has gone again.
    case vanished
    case nothing
    /// None can be accepted, most likely for want of descriptors.
    case failed
  }

  /// Accepts one stream, without waiting.
  func accept() -> Arrival {
    let descriptor = TCPSocket.accept(self.descriptor)
    if descriptor >= 0 { return .stream(descriptor) }
    switch descriptor {
    case -EAGAIN: return .nothing
    case -ECONNABORTED, -EINTR: return .vanished
    default: return .failed
    }
  }

  /// Closes; a poll holds the port until it was cancelled or completes.
  func close() {
    TCPSocket.shutDown(descriptor)
    KernelSocket.close(descriptor)
  }
}
