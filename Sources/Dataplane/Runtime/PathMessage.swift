public import PacketIO
import Synchronization

/// What gateways say to each other beside sealed packets, as in a key exchange: bytes that come and go behind four zero
/// ones (RFC 3948 §2.2, RFC 9329 §3), which are not part of it.
public struct PathMessage: Sendable, Equatable {
  /// Bytes of the longest one: less than a datagram or a record has.
  public static let longest = 65_000

  /// Where it came from, or is to go to.
  public var path: Path
  public var bytes: [UInt8]

  public init(path: Path, bytes: [UInt8]) {
    self.path = path
    self.bytes = bytes
  }
}

/// Carries messages from workers to whoever reads them, bounded; and what else workers have to tell those who agree upon
/// keys.
final class MessageChannel: Sendable {
  /// Messages that wait at most.
  static let capacity = 256

  let notices = KeyNoticeChannel()
  /// Whoever reads, and which messages it wants.
  private struct Reader {
    let continuation: AsyncStream<PathMessage>.Continuation
    let isWanted: @Sendable (PacketBytes, Path) -> Bool
  }

  private let reader = Mutex<Reader?>(nil)
  private let isRead = Atomic(false)
  private let dropped = Atomic<UInt64>(0)
  private let refused = Atomic<UInt64>(0)

  /// Whether somebody reads.
  var isOpen: Bool { isRead.load(ordering: .relaxed) }

  /// Messages that found no room.
  var lost: UInt64 { dropped.load(ordering: .relaxed) }

  /// Messages that whoever reads has not wanted.
  var unwanted: UInt64 { refused.load(ordering: .relaxed) }

  /// The messages from now on; the stream before ends.
  func open(_ isWanted: @escaping @Sendable (PacketBytes, Path) -> Bool) -> AsyncStream<PathMessage> {
    let (stream, continuation) = AsyncStream<PathMessage>.makeStream(
      bufferingPolicy: .bufferingOldest(MessageChannel.capacity))
    let earlier = reader.withLock { reader in
      defer { reader = Reader(continuation: continuation, isWanted: isWanted) }
      return reader
    }
    isRead.store(true, ordering: .relaxed)
    earlier?.continuation.finish()
    return stream
  }

  func put(_ bytes: PacketBytes, from path: Path) {
    let reader = reader.withLock { $0 }
    guard let reader, reader.isWanted(bytes, path) else {
      refused.add(1, ordering: .relaxed)
      return
    }
    switch reader.continuation.yield(PathMessage(path: path, bytes: bytes.array())) {
    case .enqueued: return
    // Whoever read has gone.
    case .terminated: isRead.store(false, ordering: .relaxed)
    default: break
    }
    dropped.add(1, ordering: .relaxed)
  }

  func close() {
    isRead.store(false, ordering: .relaxed)
    notices.close()
    reader.withLock { $0.take() }?.continuation.finish()
  }
}
