package import PacketIO

/// What may be sent to where a peer was heard before it has answered there: no more bytes than have come from there
/// within the second (credit-based authorization, RFC 8046 §5.6). So nothing is lost while a peer whose address
/// translator has changed is asked, and whoever has a copy of its packets sent from a victim's address gets no more there
/// than that cost.
package struct PathCredit: BitwiseCopyable, Sendable {
  /// Nanoseconds.
  static let interval: UInt64 = 1_000_000_000

  package let path: Path
  private var bytes: Int32 = 0
  private var since: MonotonicTime

  package init(_ path: Path, now: MonotonicTime) {
    self.path = path
    since = now
  }

  /// - Parameter bytes: so many have come, all or the first of them authentic.
  package mutating func earn(_ count: Int32, now: MonotonicTime) {
    refresh(now)
    let (sum, overflows) = bytes.addingReportingOverflow(count)
    bytes = overflows ? Int32.max : sum
  }

  /// False: there is not credit for so many.
  package mutating func pay(_ count: Int32, now: MonotonicTime) -> Bool {
    refresh(now)
    guard bytes >= count else { return false }
    bytes &-= count
    return true
  }

  private mutating func refresh(_ now: MonotonicTime) {
    if now.nanoseconds(since: since) >= PathCredit.interval { (bytes, since) = (0, now) }
  }
}

/// What may go to places of which the peer has only said that it is there, all together: no more bytes than have come from
/// the peer. So nobody has a victim asked more than that costs him.
struct NamedCredit: Sendable {
  /// Bytes of a sealed probe at most.
  private static let probe = 96
  private static let most = 8192

  private var bytes = 0
  private var seen: UInt64 = 0

  mutating func earn(_ count: Int) { bytes = min(bytes + min(max(count, 0), NamedCredit.most), NamedCredit.most) }

  /// A probe has come from the peer, or an answer: one more may go.
  mutating func noteProbe() { earn(NamedCredit.probe) }

  /// So many bytes of packets have come from the peer since the start.
  mutating func look(_ received: UInt64) {
    if received > seen { earn(Int(clamping: received - seen)) }
    seen = received
  }

  /// For one probe. False: there is not credit for it.
  mutating func pay() -> Bool {
    guard bytes >= NamedCredit.probe else { return false }
    bytes -= NamedCredit.probe
    return true
  }
}
