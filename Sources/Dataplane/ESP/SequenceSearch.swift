/// Looks for a sender's numbers when packets of an association do not open, one after the other.
///
/// With extended sequence numbers the upper half is not on the wire. A receiver that has lost track of it, because it
/// lost its records, opens nothing for ever; so it tries other upper halves (RFC 4303 appendix A3). A sender that has
/// lost its own records begins below the window, and all it sends is refused; whether it is the sender, only opening
/// tells.
///
/// Of packets that fail in a row, every fourth is opened a second time, a copy of it, under another number. So an outsider
/// who makes packets up costs a quarter more than before, and nothing is lost by it.
struct SequenceSearch: BitwiseCopyable {
  /// Packets that fail in a row before anything else is tried.
  static let patience: UInt32 = 16
  /// Of so many packets, one is tried.
  static let stride: UInt32 = 4
  /// Upper halves ahead that are tried in turn.
  static let reach: UInt64 = 64

  /// Packets that were refused since the window last moved.
  private(set) var failures: UInt32 = 0
  /// The window's highest number when the last one was refused.
  private(set) var highest: UInt64 = 0
  /// Authentic packets below the window were among them, and it has been told.
  private(set) var isBehind = false

  var isOn: Bool { failures >= SequenceSearch.patience }

  /// - Parameter highest: the window's highest number.
  mutating func noteFailure(highest: UInt64) {
    if highest != self.highest {
      self.highest = highest
      failures = 0
    }
    failures = failures == .max ? SequenceSearch.patience : failures + 1
  }

  /// The number to try for a packet besides `inferred`, the one in reach of the window; nil: none this time.
  ///
  /// In turn: what lies below the window, then an upper half ahead.
  func candidate(inferred: UInt64, extended: Bool) -> UInt64? {
    guard isOn, failures & (SequenceSearch.stride - 1) == 0 else { return nil }
    let turn = UInt64(truncatingIfNeeded: failures / SequenceSearch.stride)
    if !extended { return inferred }
    guard turn & 1 == 1 else { return inferred > highest && inferred >> 32 > 0 ? inferred - 1 << 32 : inferred }
    let (ahead, overflow) = inferred.addingReportingOverflow((turn >> 1 % SequenceSearch.reach + 1) << 32)
    return overflow ? nil : ahead
  }

  /// An authentic packet lies below the window. True for the first.
  mutating func noteBehind() -> Bool {
    defer { isBehind = true }
    return !isBehind
  }

  /// A packet was accepted: both agree again.
  mutating func end() {
    failures = 0
    isBehind = false
  }
}

/// An association whose two ends do not agree on its numbers.
struct SequenceFinding: BitwiseCopyable {
  let row: Int32
  let spi: UInt32
  let what: SequenceDisagreement
  /// It was not told before.
  let isNews: Bool
}

/// What this side and a peer do not agree about.
public enum SequenceDisagreement: String, BitwiseCopyable, Sendable, Codable {
  /// The peer's packets are authentic, and their numbers were accepted before: the peer has lost its records, or
  /// somebody sends its old packets again.
  case peerWentBack = "peer-went-back"
  /// The peer says so of this side's packets.
  case peerRefusesOurs = "peer-refuses-ours"
  /// This side had lost track of the peer's numbers, and has found them again.
  case foundAgain = "found-again"
}
