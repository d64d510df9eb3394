public import PacketIO

/// What an embedder may want to know without asking.
public enum Event: Sendable, Equatable {
  // State events: of each subject the newest is kept and cannot be lost.
  case started(interface: String, engine: String, offloads: TunOffloads, refusedOffloads: TunOffloads)
  case configurationApplied(peers: Int)
  /// An authenticated packet moved the peer's path.
  case pathChanged(peer: String, path: Path)
  /// The association is close to the end of its sequence numbers, or past it (`remaining` 0).
  case sequenceNumbersRunningOut(peer: String, spi: UInt32, remaining: UInt64)
  case stopped

  // Rate events: dropped, and counted, when the reader is slow.
  case transportError(transport: Int, path: Path, error: SystemError)
}
