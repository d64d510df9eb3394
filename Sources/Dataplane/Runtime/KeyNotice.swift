import Synchronization

/// What whoever agrees upon keys has to know of a peer with `negotiatesKeys`.
public enum KeyNotice: Sendable, Equatable {
  /// The first packet was opened under an ephemeral association: the peer has its key. Told once.
  case opened(peer: String, spi: UInt32)
  /// There was a packet for the peer and no key. Told ten times a second at most.
  case wanted(peer: String)
  /// For three seconds packets went to the peer, also such as it has to answer, and nothing came back. Told again after
  /// as long.
  case silent(peer: String)
  /// What was sealed under an ephemeral association has come to a soft limit. Told once.
  case worn(peer: String, spi: UInt32)
}

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
