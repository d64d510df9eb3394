package import PacketIO
import Synchronization

/// Sequence numbers that a sender may use, because it is on record that they will not be used again.
///
/// A key that outlives a restart (manual keys) must not meet the same nonce twice (invariant 1). Whoever keeps
/// such a key writes a limit to stable storage first and raises the lease afterwards; a restart begins above
/// the limit last written. At the limit, sealing stops with a drop reason until the lease is raised.
///
/// In the other direction the lease tells how far the numbers are, without anybody having to ask a worker.
public final class SequenceLease: Sendable, Equatable {
  private let value: Atomic<UInt64>
  private let mark = Atomic<UInt64>(0)
  private let mirror: SharedWords.Word?

  /// - Parameter limit: the last sequence number that may be used.
  public init(limit: UInt64) {
    value = Atomic(limit)
    mirror = nil
  }

  /// - Parameter mirror: where `used` is to be found also when the process has been killed.
  package init(limit: UInt64, mirror: SharedWords.Word?) {
    value = Atomic(limit)
    self.mirror = mirror
  }

  /// The last sequence number that may be used now.
  public var limit: UInt64 { value.load(ordering: .relaxed) }

  /// Only ever raises.
  public func raise(to limit: UInt64) { value.max(limit, ordering: .relaxed) }

  /// The last number that was used, or the highest that was accepted; 0: none yet. While packets flow it may lag behind
  /// by `lag`; it is exact once the association is out of force, or the dataplane has stopped.
  public var used: UInt64 { mark.load(ordering: .relaxed) }

  /// Numbers of one association that may be used before `used` follows. Of what was accepted it knows before that is
  /// delivered.
  public static let lag: UInt64 = 16

  /// Only ever raises.
  package func note(used: UInt64) {
    mark.max(used, ordering: .relaxed)
    mirror?.raise(to: used)
  }

  public static func == (a: SequenceLease, b: SequenceLease) -> Bool { a === b }
}
