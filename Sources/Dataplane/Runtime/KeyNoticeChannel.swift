import Synchronization

/// Carries notices from workers to whoever agrees upon keys. Not bounded: there are no more than there are keys, and
/// a few a second for each peer.
final class KeyNoticeChannel: Sendable {
  private let reader = Mutex<AsyncStream<KeyNotice>.Continuation?>(nil)

  /// The notices from now on; the stream before ends.
  func open() -> AsyncStream<KeyNotice> {
    let (stream, continuation) = AsyncStream<KeyNotice>.makeStream(bufferingPolicy: .unbounded)
    let earlier = reader.withLock { reader in
      defer { reader = continuation }
      return reader
    }
    earlier?.finish()
    return stream
  }

  func put(_ notice: KeyNotice) { _ = reader.withLock { $0?.yield(notice) } }

  func close() { reader.withLock { $0.take() }?.finish() }
}
