import PacketIO
import Transports

/// How long a hairpin may go on.
struct HairpinLife {
  /// Seconds a hairpin may wait for the first proof from either side.
  static let unprovenSeconds: UInt64 = 30

  let ticket: HairpinTicket
  /// Seconds since 1970 of the ticket's first use, on whatever earlier run of the proxy that was.
  let started: Int64
  /// Seconds without a word from a side after which it is gone.
  let silence: UInt64
  private let created: MonotonicTime
  /// Of a ticket that names GIDs: whom, and the newest key that each has presented.
  private(set) var pair: RelayPolicy.Pair?
  private var endorsed: [HairpinEnd: HairpinPublicKey] = [:]
  private(set) var provenEnds: Set<HairpinEnd> = []
  private var bothProven: MonotonicTime?

  init(_ ticket: HairpinTicket, started: Int64, silence: UInt64, now: MonotonicTime) {
    self.ticket = ticket
    self.started = started
    self.silence = silence
    created = now
  }

  /// By which a side proves itself.
  func key(of end: HairpinEnd) -> HairpinPublicKey? { ticket[end].key ?? endorsed[end] }

  /// A side's gateway has presented the ticket, and vouches for a key.
  mutating func endorse(_ presented: PresentedTicket, at end: HairpinEnd) {
    guard presented.pair != nil else { return }
    pair = presented.pair
    endorsed[end] = presented.key
  }

  mutating func proved(_ end: HairpinEnd, now: MonotonicTime) {
    provenEnds.insert(end)
    if provenEnds.count == 2, bothProven == nil { bothProven = now }
  }

  /// The last second at which it may run.
  var lastSecond: Int64 {
    let last = Int64(clamping: ticket.notAfter)
    return ticket.lifetime == 0 ? last : min(last, started + Int64(ticket.lifetime) - 1)
  }

  /// Why it is over; nil: it goes on.
  /// - Parameters:
  ///   - bytes: sealed bytes in both directions, earlier runs included.
  ///   - lastData: when a sealed packet came last.
  ///   - heard: when each side was heard last, for those that have proved themselves.
  func verdict(
    _ clock: HairpinClock, bytes: UInt64, lastData: MonotonicTime, heard: (HairpinEnd) -> MonotonicTime
  ) -> HairpinReason? {
    if clock.wall > lastSecond { return .lifetime }
    if !ticket.isOpen(at: clock.wall) { return .window }
    if ticket.byteLimit > 0, bytes >= ticket.byteLimit { return .bytes }
    let second: UInt64 = 1_000_000_000
    if provenEnds.isEmpty {
      let hasWaited = clock.monotonic.nanoseconds(since: created)
      return hasWaited >= HairpinLife.unprovenSeconds * second ? .failed : nil
    }
    if ticket.idle > 0, let bothProven {
      let since = max(lastData, bothProven)
      if clock.monotonic.nanoseconds(since: since) >= UInt64(ticket.idle) * second { return .idle }
    }
    for end in provenEnds where clock.monotonic.nanoseconds(since: heard(end)) >= silence * second {
      return .partnerGone
    }
    return nil
  }
}
