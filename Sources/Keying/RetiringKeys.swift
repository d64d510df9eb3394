import PacketIO

/// Keys that were replaced, and are accepted for a while: packets under them may be under way.
struct RetiringKeys {
  /// - base: the SPI of which all others are.
  private var entries: [(at: MonotonicTime, spis: [UInt32], base: UInt32)] = []

  /// Nanoseconds for which they are accepted.
  private static let overlap: UInt64 = 60_000_000_000
  /// Sets of keys; of more the oldest go before their time, so that a partner who wants new keys all the time takes no
  /// more memory than others.
  private static let most = 8

  var deadline: MonotonicTime? { entries.first?.at }

  mutating func add(_ spis: [UInt32], base: UInt32, now: MonotonicTime) {
    entries.append((now.adding(nanoseconds: RetiringKeys.overlap), spis, base))
    if entries.count > RetiringKeys.most { entries[entries.count - 1 - RetiringKeys.most].at = now }
  }

  /// All that a session accepts, also where a rekey was not over yet.
  mutating func add(allOf session: Session, _ turn: inout KeyingTurn) {
    if let rekey = session.rekey {
      if rekey.isInstalled {
        add(rekey.oldSPIs, base: rekey.oldInboundSPI, now: turn.now)
      } else {
        turn.spis.giveBack(rekey.own.spi, now: turn.now)
      }
    }
    add(session.inboundSPIs, base: session.inboundSPI, now: turn.now)
  }

  /// SPIs that are accepted no more; the pool has them back.
  mutating func takeDue(_ turn: inout KeyingTurn) -> [UInt32] {
    let due = entries.prefix { $0.at <= turn.now }
    entries.removeFirst(due.count)
    for entry in due { turn.spis.giveBack(entry.base, now: turn.now) }
    return due.flatMap(\.spis)
  }

  /// The same of all.
  mutating func takeAll(_ turn: inout KeyingTurn) -> [UInt32] {
    defer { entries = [] }
    for entry in entries { turn.spis.giveBack(entry.base, now: turn.now) }
    return entries.flatMap(\.spis)
  }
}
