import PacketIO

/// What is to be done for those who have not proved anything: it waits here in the order of its coming until the sides
/// have been served, and gets a share of the thread's time.
///
/// A turn in which something was forwarded gives a ninth of what that took, so a tenth of all; what was taken beyond, by a
/// signature, is owed by the next. So however many strangers there are, who was admitted keeps nine tenths of the relay.
struct StrangerWork: ~Copyable {
  enum Item: BitwiseCopyable, Equatable {
    /// Datagrams wait at a control port.
    case datagrams(listen: Int)
    /// A stream waits to be accepted there, or at a side's port of that mark.
    case arrivals(listen: Int)
    case sideArrivals(SideIndex, mark: UInt32)
    /// A stream has something to say.
    case stream(place: Int, number: UInt64)
  }

  /// Nanoseconds that a turn gives at least and at most, and where nothing was forwarded.
  private static let leastShare: Int64 = 50_000
  private static let mostShare: Int64 = 250_000
  private static let idleShare: Int64 = 100_000

  /// Each port and stream is here once at most.
  private var items: [Item] = []
  private var next = 0
  private var credit: Int64 = 0

  var isEmpty: Bool { next == items.count }
  var count: Int { items.count - next }

  mutating func append(_ item: Item) { items.append(item) }

  /// Takes out what is next; nil when there is nothing, or the time is used up.
  mutating func take() -> Item? {
    guard credit > 0, next < items.count else { return nil }
    defer {
      next += 1
      if next == items.count {
        items.removeAll(keepingCapacity: true)
        next = 0
      } else if next >= 1024 {
        items.removeFirst(next)
        next = 0
      }
    }
    return items[next]
  }

  /// Gives this turn's share.
  /// - Parameter forwarding: nanoseconds that forwarding has taken in it; nil: nothing was forwarded.
  mutating func grant(forwarding: UInt64?) {
    guard let forwarding else {
      credit = StrangerWork.idleShare
      return
    }
    let share = min(max(Int64(clamping: forwarding / 9), StrangerWork.leastShare), StrangerWork.mostShare)
    credit = min(credit, 0) + share
  }

  mutating func spend(_ nanoseconds: UInt64) { credit -= Int64(clamping: nanoseconds) }
}
