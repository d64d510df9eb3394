import PacketIO
import Transports

/// What a relay's engine knows and counts, without a kernel: the sides' rows, who is served next, how much may pass, and
/// the time.
struct EngineState: ~Copyable {
  /// Bytes of one message on average, for what a bandwidth lets in.
  private static let messageBytes = 16_384

  var schedule: Schedule
  var sides: Sides
  /// The whole relay's bandwidth.
  private var total: TokenBucket
  var statistics = HairpinStatistics()
  var clock: HairpinClock

  init(_ options: HairpinProxyOptions, clock: HairpinClock) {
    let hairpins = max(options.hairpins, 1)
    self.clock = clock
    schedule = Schedule(capacity: 2 * hairpins)
    sides = Sides(hairpins: hairpins, now: clock.monotonic)
    total = TokenBucket(bitRate: options.bandwidth, now: clock.monotonic)
  }

  // MARK: Who is served next

  /// A side has something to read, or may have.
  mutating func markReady(_ side: SideIndex) { schedule.markReady(side.place, priority: sides[side].priority) }

  /// What a side waited for has changed: it is looked at again.
  mutating func reconsider(_ side: SideIndex) {
    guard sides[side].port.isAllocated else { return }
    schedule.remove(side.place)
    markReady(side)
  }

  mutating func park(_ side: SideIndex, until time: MonotonicTime) {
    schedule.park(side.place, until: time, priority: sides[side].priority)
  }

  /// The next side whose turn it is; nil when there is none.
  mutating func nextSide() -> SideIndex? {
    guard total.available(now: clock.monotonic) > 0 else { return nil }
    return schedule.next().map { SideIndex(place: $0) }
  }

  /// How long the next wait may be, in nanoseconds.
  mutating func waitLimit(_ limit: UInt64) -> UInt64 {
    let now = clock.monotonic
    var limit = limit
    if schedule.readyCount > 0 {
      limit = total.available(now: now) > 0 ? 0 : min(limit, total.opens(now: now).nanoseconds(since: now))
    }
    if let wake = schedule.nextWake { limit = min(limit, wake.nanoseconds(since: now)) }
    return limit
  }

  // MARK: How much may pass

  /// How many messages a side may hand in now; nil: none, and it is parked.
  mutating func allowance(_ side: SideIndex) -> Int? {
    guard sides[side].bucket.isLimited || total.isLimited else { return RelayIO.pullCapacity }
    let now = clock.monotonic
    let own = sides[side].bucket.available(now: now)
    guard own > 0 else {
      park(side, until: sides[side].bucket.opens(now: now))
      return nil
    }
    // A message may be a train of 64 KiB, or a packet of a hundred bytes. Too many are repaid by waiting.
    return min(RelayIO.pullCapacity, max(1, min(own, total.available(now: now)) / EngineState.messageBytes))
  }

  /// Bytes of a stream that go with so many messages.
  static func bytes(ofMessages count: Int) -> Int { count * messageBytes }

  /// Whether what comes from a datagram side is forwarded as it comes: nothing has to be decided about it.
  func mayPush(_ side: SideIndex) -> Bool {
    let partner = side.partner
    return !sides[side].bucket.isLimited && !total.isLimited
      && !(sides[partner].port.isAllocated && sides[partner].port.encapsulation == .tcp)
  }

  /// Whether one more message of a side's gateway is looked at; else it is dropped and counted.
  mutating func admitsMessage(of side: SideIndex) -> Bool {
    if sides[side].messages.takeOne(now: clock.monotonic) { return true }
    statistics[.tooManyMessages] += 1
    return false
  }

  /// Takes sealed bytes that a side handed in from its bandwidth and the whole relay's.
  mutating func spend(_ octets: Int, _ side: SideIndex) {
    sides[side].bucket.take(octets)
    total.take(octets)
  }

  /// Counts sealed packets from a side.
  /// - Parameter isTaken: nil: the partner is not there.
  mutating func account(_ side: SideIndex, packets: UInt64, octets: Int, isTaken: Bool?) {
    if isTaken == true {
      sides[side].traffic.packets &+= packets
      sides[side].traffic.bytes &+= UInt64(clamping: octets)
      statistics[.forwardedPackets] &+= packets
      statistics[.forwardedBytes] &+= UInt64(clamping: octets)
    } else {
      sides[side].traffic.dropped &+= packets
      statistics[isTaken == nil ? .noPartner : .notTaken] &+= packets
    }
  }

  // MARK: Ports

  /// Fresh rows for both sides of a hairpin.
  mutating func begin(_ hairpin: Int, _ ticket: HairpinTicket) {
    for end in HairpinEnd.allCases {
      let side = SideIndex(hairpin: hairpin, end)
      let (mark, isUnarmed) = (sides[side].port.mark, sides[side].receive.isUnarmed)
      sides[side] = Side(
        priority: ticket.priority,
        bucket: TokenBucket(bitRate: ticket.bandwidth, burst: UInt64(ticket.burst), now: clock.monotonic),
        now: clock.monotonic)
      sides[side].port.mark = mark
      sides[side].receive.isUnarmed = isUnarmed
    }
  }

  /// A side has a port, and its gateway has yet to prove itself there.
  mutating func open(
    _ side: SideIndex, _ encapsulation: Encapsulation, _ number: UInt16, at address: IPAddress, listen: Int,
    token: HairpinNumber
  ) {
    sides[side].port = Side.Port(
      isAllocated: true, encapsulation: encapsulation, number: number, listen: UInt8(truncatingIfNeeded: listen),
      address: address, token: token, mark: sides[side].port.mark)
    sides[side].holder.isProven = false
    sides[side].holder.lastHeard = clock.monotonic
  }

  /// A side's port is closed; its figures stay.
  mutating func close(_ side: SideIndex) {
    schedule.remove(side.place)
    // On the list it stays, if it is there.
    sides[side].receive = Side.Receive(isUnarmed: sides[side].receive.isUnarmed)
    let port = sides[side].port
    sides[side].port = Side.Port(
      encapsulation: port.encapsulation, number: port.number, listen: port.listen, token: port.token,
      mark: port.mark &+ 1)
    sides[side].holder.isProven = false
  }
}
