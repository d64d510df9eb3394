import Glibc
package import PacketIO

/// A socket that listens, and whether the ring accepts on it. When it cannot, it is left alone for a moment.
package struct StreamListener: BitwiseCopyable {
  /// What a completion brought.
  package enum Arrival: Equatable {
    /// The descriptor of a stream.
    case stream(Int32)
    /// There was one and is not any more, or the listener closes.
    case nothing
    /// None can be accepted, most likely for want of descriptors.
    case failed
  }

  /// Nanoseconds before a listener that failed is armed again.
  package static let pause: UInt64 = 100_000_000

  package let descriptor: Int32
  private let file: RingFile
  private var isArmed = false
  private var notBefore = MonotonicTime(nanoseconds: 0)

  /// - Parameter file: the descriptor as the ring knows it, where that has been told.
  package init(_ descriptor: Int32, file: RingFile? = nil) {
    self.descriptor = descriptor
    self.file = file ?? RingFile(descriptor)
  }

  /// Has the ring accept, unless it does or has to wait.
  /// - Returns: whether the ring accepts now.
  @discardableResult
  package mutating func arm(now: MonotonicTime, token: Token, ring: inout Ring) -> Bool {
    guard !isArmed, now >= notBefore else { return isArmed }
    isArmed = true
    ring.accept(file, multishot: ring.features.contains(.multishotReceive), token: token)
    return true
  }

  /// Takes a completion of it.
  package mutating func complete(_ completion: Completion, now: MonotonicTime) -> Arrival {
    isArmed = completion.more
    guard completion.result < 0 else { return .stream(completion.result) }
    guard ![-ECANCELED, -ECONNABORTED, -EINTR, -EAGAIN].contains(completion.result) else { return .nothing }
    notBefore = now.adding(nanoseconds: StreamListener.pause)
    return .failed
  }

  /// Closes; a pending accept holds the port until it was cancelled or completes.
  package func close(ring: inout Ring) {
    TCPSocket.shutDown(descriptor)
    ring.detach(file)
    KernelSocket.close(descriptor)
  }
}
