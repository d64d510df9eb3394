package import PacketIO

/// How far a flow has come.
package enum FlowPhase: UInt8, BitwiseCopyable, Sendable, CaseIterable {
  /// Only the side that began it has been heard.
  case opening = 0
  /// The other side has answered.
  case answered = 1
  /// The side that began it has heard the answer: it is who it says it is.
  case established = 2
  /// TCP: both sides have sent FIN.
  case closing = 3
  /// TCP: and both were acknowledged.
  case closed = 4
  /// TCP: one side has reset it.
  case reset = 5
}

/// What kinds of flow are told apart.
package enum FlowKind: UInt8, BitwiseCopyable, Sendable, CaseIterable {
  case tcp = 0, udp = 1, icmp = 2, other = 3
}

/// Where a flow is kept; decides what may push it out.
package enum FlowSegment: UInt8, BitwiseCopyable, Sendable {
  case free = 0
  /// Not established; begun by this side, or by a partner. Newer ones push out the oldest.
  case pendingOutbound = 1
  case pendingInbound = 2
  /// Ends by time alone.
  case established = 3
  /// Over, kept for stragglers; pushed out when an established flow needs the place.
  case closed = 4
}

/// A flow: two neighbouring cache lines, of which the first has what every packet needs.
package struct Flow: BitwiseCopyable {
  package var key: FlowKey
  /// The key's hash.
  var tag: UInt32
  /// In ticks of `FlowClock`.
  package var lastSeen: UInt32
  /// Of the policy that judged it last.
  package var version: UInt32
  package var ground: FirewallGround
  package var phase: FlowPhase
  package var kind: FlowKind
  package var segment: FlowSegment
  package var opener: TrafficDirection
  /// TCP: its beginning was not seen, so its windows are unknown and not enforced (RFC 6092 REC-32).
  package var isLoose: Bool
  /// TCP only.
  var connection: TCPConnection
  var link = FlowTable.Link()
  /// Up to 128 bytes, so that flows begin where lines do.
  private let padding: (UInt64, UInt64) = (0, 0)

  /// A flow that begins.
  init(
    _ key: FlowKey, tag: UInt32, at ticks: UInt32, version: UInt32, ground: FirewallGround, kind: FlowKind,
    opener: TrafficDirection, isLoose: Bool, connection: TCPConnection
  ) {
    self.key = key
    self.tag = tag
    lastSeen = ticks
    self.version = version
    self.ground = ground
    phase = .opening
    self.kind = kind
    segment = opener == .outbound ? .pendingOutbound : .pendingInbound
    self.opener = opener
    self.isLoose = isLoose
    self.connection = connection
  }
}

/// Time in ticks of 2²⁶ ns (67 ms), of which 32 bits last for nine years.
enum FlowClock {
  static let shift: UInt64 = 26

  @inline(__always)
  static func ticks(_ now: MonotonicTime) -> UInt32 { UInt32(truncatingIfNeeded: now.nanoseconds &>> shift) }

  /// Ticks of a timeout, rounded up.
  static func ticks(seconds: Int) -> UInt32 {
    UInt32(clamping: (UInt64(max(seconds, 0)) * 1_000_000_000) >> shift + 1)
  }
}

/// All flows, in memory that is set aside at start; most of it is touched only as it is needed.
///
/// An open hash table of places (8 bytes each, at most two thirds full) leads to flows (128 bytes each), so that a
/// look-up reads one cache line or two of the former and one of the latter, and TCP its neighbour. Flows are in one of
/// four segments: new ones in the pending segment of the side that began them, established ones, closed ones.
///
/// When a pending segment is full, a new flow pushes out its oldest: whoever floods, pushes out the flood, at most
/// others that began at his side just before. When the established segment is full, the oldest closed flow makes room
/// for the next; without one, the flow stays pending and goes to the end of the queue with every packet. Nothing
/// pushes out an established flow.
package struct FlowTable: ~Copyable {
  struct Queue: BitwiseCopyable {
    var first: Int32 = -1
    var last: Int32 = -1
    var count = 0
  }

  struct Link: BitwiseCopyable {
    var previous: Int32 = -1
    var next: Int32 = -1
  }

  /// What happened to flows since the start.
  package struct Counts: BitwiseCopyable, Sendable, Equatable {
    package var opened: UInt64 = 0
    /// Pushed out by newer ones while pending, or closed.
    package var evicted: UInt64 = 0
    package var expired: UInt64 = 0
    /// Times that an established flow found no place among the others.
    package var overflowed: UInt64 = 0
  }

  package let flowCapacity: Int
  package let pendingCapacity: Int
  package private(set) var counts = Counts()
  /// The flows; those in segment `free` mean nothing.
  package var flows: FixedArray<Flow>
  /// Tag above, place + 1 below; 0: nothing.
  private var slots: FixedArray<UInt64>
  private let mask: Int
  private let hash: FlowHash
  /// By segment; of the established only the count.
  private var queues = FixedArray<Queue>(repeating: Queue(), count: 5)
  private var hand = 0

  /// - Parameters:
  ///   - flowCapacity: established and closed flows.
  ///   - pendingCapacity: flows of either side that are not established, 1 or more; 0 for a table that is not used.
  package init(flowCapacity: Int, pendingCapacity: Int, hash: FlowHash) {
    self.flowCapacity = flowCapacity
    self.pendingCapacity = pendingCapacity
    self.hash = hash
    let capacity = flowCapacity + 2 * pendingCapacity
    flows = FixedArray(capacity: capacity)
    var size = 2
    while size < capacity * 3 / 2 { size *= 2 }
    slots = FixedArray(zeroes: size)
    mask = size - 1
  }

  /// Flows in a segment.
  package borrowing func count(_ segment: FlowSegment) -> Int { queues[Int(segment.rawValue)].count }

  /// Bytes set aside.
  package var memory: Int {
    flows.capacity * MemoryLayout<Flow>.stride + slots.count * 8
  }

  // MARK: Finding

  @inline(__always)
  borrowing func tag(_ key: FlowKey) -> UInt32 { hash.hash(key) }

  /// The flow's place; -1 when there is none.
  @inline(__always)
  package borrowing func find(_ key: FlowKey, tag: UInt32) -> Int {
    var slot = Int(tag) & mask
    while true {
      let entry = slots[slot]
      if entry == 0 { return -1 }
      if UInt32(truncatingIfNeeded: entry &>> 32) == tag {
        let place = Int(entry & 0xFFFF_FFFF) &- 1
        if flows[place].key == key { return place }
      }
      slot = (slot &+ 1) & mask
    }
  }

  // MARK: Fetching ahead

  /// Fetches the place where the search for a key begins.
  @inline(__always)
  borrowing func fetchSlot(tag: UInt32) { slots.prefetch(Int(tag) & mask) }

  /// Fetches the flow that is found there, most likely the right one.
  ///
  /// - Parameter whole: with the second half, which only TCP needs.
  @inline(__always)
  borrowing func fetchFlow(tag: UInt32, whole: Bool) {
    var slot = Int(tag) & mask
    // Neighbours lie on the same line, or the next.
    for _ in 0..<4 {
      let entry = slots[slot]
      if entry == 0 { return }
      if UInt32(truncatingIfNeeded: entry &>> 32) == tag {
        let place = Int(entry & 0xFFFF_FFFF) &- 1
        flows.prefetch(place, bytes: whole ? 128 : 64)
        return
      }
      slot = (slot &+ 1) & mask
    }
  }

  // MARK: Coming and going

  /// Adds a flow to the pending segment of who began it; its key must not be in the table.
  @discardableResult
  mutating func insert(_ flow: Flow) -> Int {
    let queue = Int(flow.segment.rawValue)
    if queues[queue].count >= pendingCapacity {
      remove(Int(queues[queue].first))
      counts.evicted &+= 1
    }
    let free = queues[Int(FlowSegment.free.rawValue)].first
    let place: Int
    if free >= 0 {
      place = Int(free)
      unlink(place, from: .free)
      flows[place] = flow
    } else {
      place = flows.count
      flows.append(flow)
    }
    enqueue(place, to: flow.segment)
    var slot = Int(flow.tag) & mask
    while slots[slot] != 0 { slot = (slot &+ 1) & mask }
    slots[slot] = UInt64(flow.tag) &<< 32 | UInt64(truncatingIfNeeded: place &+ 1)
    counts.opened &+= 1
    return place
  }

  /// Forgets a flow.
  mutating func remove(_ place: Int) {
    var hole = Int(flows[place].tag) & mask
    while slots[hole] & 0xFFFF_FFFF != UInt64(truncatingIfNeeded: place &+ 1) { hole = (hole &+ 1) & mask }
    // What follows moves up, so far as that does not take it in front of where its search begins.
    var slot = hole
    while true {
      slot = (slot &+ 1) & mask
      let entry = slots[slot]
      if entry == 0 { break }
      let home = Int(entry &>> 32) & mask
      if (slot &- home) & mask >= (slot &- hole) & mask {
        slots[hole] = entry
        hole = slot
      }
    }
    slots[hole] = 0
    let segment = flows[place].segment
    if segment == .established {
      queues[Int(segment.rawValue)].count &-= 1
    } else {
      unlink(place, from: segment)
    }
    flows[place].segment = .free
    enqueue(place, to: .free, front: true)
  }

  /// Forgets all flows.
  mutating func removeAll() {
    for place in 0..<flows.count where flows[place].segment != .free { remove(place) }
  }

  // MARK: Between segments

  /// Takes a pending or closed flow among the established ones, where there is room.
  @inline(never)
  mutating func establish(_ place: Int) {
    let segment = flows[place].segment
    if segment == .closed {
      unlink(place, from: .closed)
    } else {
      let closed = Int(FlowSegment.closed.rawValue)
      if count(.established) &+ queues[closed].count >= flowCapacity {
        guard queues[closed].count > 0 else {
          unlink(place, from: segment)
          enqueue(place, to: segment)
          counts.overflowed &+= 1
          return
        }
        remove(Int(queues[closed].first))
        counts.evicted &+= 1
      }
      unlink(place, from: segment)
    }
    flows[place].segment = .established
    queues[Int(FlowSegment.established.rawValue)].count &+= 1
  }

  /// Lets an established flow, which is over, be pushed out. One that never was established stays where it is.
  @inline(never)
  mutating func close(_ place: Int) {
    guard flows[place].segment == .established else { return }
    queues[Int(FlowSegment.established.rawValue)].count &-= 1
    flows[place].segment = .closed
    enqueue(place, to: .closed)
  }

  private mutating func enqueue(_ place: Int, to segment: FlowSegment, front: Bool = false) {
    let queue = Int(segment.rawValue)
    let this = Int32(truncatingIfNeeded: place)
    if front {
      flows[place].link = Link(previous: -1, next: queues[queue].first)
      if queues[queue].first >= 0 {
        flows[Int(queues[queue].first)].link.previous = this
      } else {
        queues[queue].last = this
      }
      queues[queue].first = this
    } else {
      flows[place].link = Link(previous: queues[queue].last, next: -1)
      if queues[queue].last >= 0 { flows[Int(queues[queue].last)].link.next = this } else { queues[queue].first = this }
      queues[queue].last = this
    }
    queues[queue].count &+= 1
  }

  private mutating func unlink(_ place: Int, from segment: FlowSegment) {
    let queue = Int(segment.rawValue)
    let link = flows[place].link
    if link.previous >= 0 { flows[Int(link.previous)].link.next = link.next } else { queues[queue].first = link.next }
    if link.next >= 0 {
      flows[Int(link.next)].link.previous = link.previous
    } else {
      queues[queue].last = link.previous
    }
    queues[queue].count &-= 1
  }

  // MARK: Time

  /// Whether a flow's time is over. The table keeps it until the sweep comes by, but nobody may use it.
  @inline(__always)
  static func isExpired(_ flow: Flow, ticks: UInt32, timeouts: borrowing FixedArray<UInt32>) -> Bool {
    ticks &- flow.lastSeen > timeouts[Int(flow.kind.rawValue) &* 8 &+ Int(flow.phase.rawValue)]
  }

  /// Looks at the next `count` places and forgets what has expired there. Going round all of them every minute or so
  /// is enough: an expired flow is refused before it is forgotten.
  mutating func sweep(_ count: Int, ticks: UInt32, timeouts: borrowing FixedArray<UInt32>) {
    for _ in 0..<min(count, flows.count) {
      if hand >= flows.count { hand = 0 }
      if flows[hand].segment != .free, FlowTable.isExpired(flows[hand], ticks: ticks, timeouts: timeouts) {
        remove(hand)
        counts.expired &+= 1
      }
      hand &+= 1
    }
  }

  /// Ticks by kind and phase.
  static func timeouts(_ seconds: FirewallTimeouts) -> FixedArray<UInt32> {
    var table = FixedArray<UInt32>(repeating: 0, count: FlowKind.allCases.count * 8)
    for kind in FlowKind.allCases {
      for phase in FlowPhase.allCases {
        let value =
          switch (kind, phase) {
          case (.tcp, .established): seconds.tcpEstablished
          case (.tcp, _): seconds.tcpTransitory
          case (.udp, .opening): seconds.udpUnanswered
          case (.udp, _): seconds.udp
          case (.icmp, _): seconds.icmpQuery
          case (.other, _): seconds.other
          }
        table[Int(kind.rawValue) * 8 + Int(phase.rawValue)] = FlowClock.ticks(seconds: value)
      }
    }
    return table
  }
}
