import Transports

/// Tickets that were used, until they expire by themselves. Never forgets one before: when it is full, no new ticket
/// is taken.
struct TicketMemory {
  let capacity: Int
  private var uses: [HairpinNumber: HairpinUse] = [:]
  private var nextSweep: Int64 = .min

  init(capacity: Int, _ earlier: [HairpinUse] = []) {
    self.capacity = capacity
    for use in earlier { uses[use.number] = use }
  }

  var count: Int { uses.count }

  subscript(number: HairpinNumber) -> HairpinUse? { uses[number] }

  /// Whether one more would be remembered, beside `reserved` that are under way.
  mutating func hasRoom(reserved: Int, now: Int64) -> Bool {
    if uses.count + reserved >= capacity, now >= nextSweep {
      // All are looked at, so not more than once a second, however many ask.
      nextSweep = now + 1
      uses = uses.filter { Int64(clamping: $0.value.notAfter) >= now }
    }
    return uses.count + reserved < capacity
  }

  mutating func remember(_ use: HairpinUse) { uses[use.number] = use }
}
