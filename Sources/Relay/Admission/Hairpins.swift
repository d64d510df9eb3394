import PacketIO
import Transports

/// A hairpin that is open, or waits for its gateways.
struct Hairpin {
  /// What forwarding needs to know.
  var isOpen = false
  /// Sealed bytes of both directions, those of earlier runs of the proxy included.
  var bytes: UInt64 = 0
  var byteLimit: UInt64 = .max
  var lastData = MonotonicTime(nanoseconds: 0)
  /// The rest; nil: it is not open.
  var life: HairpinLife?
  /// Seconds since 1970 of its first use in this run.
  var started: Int64 = 0
}

/// All hairpins by their places, and by their tickets' numbers.
struct Hairpins: ~Copyable {
  private var rows: FixedArray<Hairpin>
  private var free: FixedArray<Int32>
  private var byNumber: [HairpinNumber: Int] = [:]

  init(capacity: Int) {
    rows = FixedArray(repeating: Hairpin(), count: capacity)
    free = FixedArray(capacity: capacity)
    for place in stride(from: capacity - 1, through: 0, by: -1) { free.append(Int32(truncatingIfNeeded: place)) }
  }

  var capacity: Int { rows.count }
  var count: Int { byNumber.count }
  /// Tickets' numbers of all.
  var numbers: [HairpinNumber] { Array(byNumber.keys) }

  func place(_ number: HairpinNumber) -> Int? { byNumber[number] }

  subscript(_ place: Int) -> Hairpin {
    @inline(__always) _read { yield rows[place] }
    @inline(__always) _modify { yield &rows[place] }
  }

  /// - Parameter earlier: what is remembered of the ticket.
  mutating func begin(_ ticket: HairpinTicket, earlier: HairpinUse?, silence: UInt64, _ clock: HairpinClock) -> Int? {
    guard let place = free.popLast().map(Int.init) else { return nil }
    rows[place] = Hairpin(
      isOpen: true, bytes: earlier?.bytes ?? 0, byteLimit: ticket.byteLimit == 0 ? .max : ticket.byteLimit,
      lastData: clock.monotonic,
      life: HairpinLife(ticket, started: earlier?.started ?? clock.wall, silence: silence, now: clock.monotonic),
      started: clock.wall)
    byNumber[ticket.number] = place
    return place
  }

  /// Why a hairpin is over; nil: it goes on, or is none.
  /// - Parameter heard: when each side was heard last.
  func verdict(_ place: Int, _ clock: HairpinClock, heard: (HairpinEnd) -> MonotonicTime) -> HairpinReason? {
    guard rows[place].isOpen else { return nil }
    return rows[place].life?.verdict(clock, bytes: rows[place].bytes, lastData: rows[place].lastData, heard: heard)
  }

  mutating func remove(_ place: Int) {
    guard let life = rows[place].life else { return }
    byNumber[life.ticket.number] = nil
    rows[place] = Hairpin()
    free.append(Int32(truncatingIfNeeded: place))
  }
}
