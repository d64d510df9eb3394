import Synchronization

/// Sequence numbers that a sender may use, because it is on record that they will not be used again.
///
/// A key that outlives a restart (manual keys) must not meet the same nonce twice (invariant 1). Whoever keeps
/// such a key writes a limit to stable storage first and raises the lease afterwards; a restart begins above
/// the limit last written. At the limit, sealing stops with a drop reason until the lease is raised.
public final class SequenceLease: Sendable, Equatable {
  private let value: Atomic<UInt64>

  /// - Parameter limit: the last sequence number that may be used.
  public init(limit: UInt64) { value = Atomic(limit) }

  /// The last sequence number that may be used now.
  public var limit: UInt64 { value.load(ordering: .relaxed) }

  /// Only ever raises.
  public func raise(to limit: UInt64) { value.max(limit, ordering: .relaxed) }

  public static func == (a: SequenceLease, b: SequenceLease) -> Bool { a === b }
}
