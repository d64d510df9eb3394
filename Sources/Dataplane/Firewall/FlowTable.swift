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
  /// Not established; begun by this side, or by a partner. Newer ones push out the oldest of whoever has most.
  case pendingOutbound = 1
  case pendingInbound = 2
  /// Ends by time, or when all places are taken and its peer has more of them than another that wants one.
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
  /// The row of the peer at its other end; -1: nobody's.
  let peer: Int32
  /// Up to 128 bytes, so that flows begin where lines do.
  private let padding: (UInt32, UInt32, UInt32) = (0, 0, 0)

  /// A flow that begins.
  init(
    _ key: FlowKey, tag: UInt32, peer: Int32, at ticks: UInt32, version: UInt32, ground: FirewallGround,
    kind: FlowKind, opener: TrafficDirection, isLoose: Bool, connection: TCPConnection
  ) {
    self.key = key
    self.tag = tag
    self.peer = peer
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
/// The flows of each peer are in queues of their own, and places are shared by peer (`Shares`). When a pending segment is
/// full, a new flow pushes out the oldest of the peer that has most there: whoever floods, pushes out his flood. When the
/// established segment is full, the next flow pushes out the oldest closed one of the peer that has most, or, if that is
/// another peer, an established one. Where a peer would have to push out its own established flows, the new one stays
/// pending and goes to the end of the queue with every packet.
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
  /// Places that nobody uses.
  private var free = Queue()
  /// Four for each peer, by row and segment; the first four are for flows of nobody.
  private var queues: [Queue] = []
  /// By segment: pending outbound, pending inbound, established and closed together.
  private var pendingOutbound: Shares
  private var pendingInbound: Shares
  private var lasting: Shares
  private var establishedCount = 0
  private var hand = 0

  /// - Parameters:
  ///   - flowCapacity: established and closed flows.
  ///   - pendingCapacity: flows of either side that are not established, 1 or more; 0 for a table that is not used.
  package init(flowCapacity: Int, pendingCapacity: Int, hash: FlowHash) {
    self.flowCapacity = flowCapacity
    self.pendingCapacity = pendingCapacity
    self.hash = hash
    pendingOutbound = Shares(.pendingFlowsOutbound, capacity: pendingCapacity)
    pendingInbound = Shares(.pendingFlowsInbound, capacity: pendingCapacity)
    lasting = Shares(.flows, capacity: flowCapacity)
    let capacity = flowCapacity + 2 * pendingCapacity
    flows = FixedArray(capacity: capacity)
    var size = 2
    while size < capacity * 3 / 2 { size *= 2 }
    slots = FixedArray(zeroes: size)
    mask = size - 1
  }

  /// Flows in a segment.
  package borrowing func count(_ segment: FlowSegment) -> Int {
    switch segment {
    case .free: free.count
    case .pendingOutbound: pendingOutbound.used
    case .pendingInbound: pendingInbound.used
    case .established: establishedCount
    case .closed: lasting.used - establishedCount
    }
  }

  /// Who has how many flows.
  package borrowing func shares() -> [ShareReport] {
    [lasting.report(), pendingOutbound.report(), pendingInbound.report()]
  }

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
    makeRoom(in: flow.segment, for: flow.peer)
    let place: Int
    if free.first >= 0 {
      place = Int(free.first)
      FlowTable.unlink(place, from: &free, &flows)
      flows[place] = flow
    } else {
      place = flows.count
      flows.append(flow)
    }
    enter(place, flow.segment)
    var slot = Int(flow.tag) & mask
    while slots[slot] != 0 { slot = (slot &+ 1) & mask }
    slots[slot] = UInt64(flow.tag) &<< 32 | UInt64(truncatingIfNeeded: place &+ 1)
    counts.opened &+= 1
    return place
  }

  /// When a pending segment is full, the oldest flow there goes of whoever has most.
  private mutating func makeRoom(in segment: FlowSegment, for peer: Int32) {
    guard count(segment) >= pendingCapacity else { return }
    let loser =
      segment == .pendingOutbound
      ? pendingOutbound.victim(for: Holder(row: peer)) : pendingInbound.victim(for: Holder(row: peer))
    let oldest = first(of: loser.row, segment)
    guard oldest >= 0 else { return }
    remove(oldest)
    counts.evicted &+= 1
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
    leave(place)
    flows[place].segment = .free
    FlowTable.link(place, to: &free, &flows, front: true)
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
    if segment != .closed, lasting.isFull, !makeRoom(for: flows[place].peer) {
      // To the end of its queue.
      leave(place)
      enter(place, segment)
      counts.overflowed &+= 1
      return
    }
    leave(place)
    enter(place, .established)
  }

  /// Pushes out a flow among those that are established or closed. False: none that this peer may push out.
  private mutating func makeRoom(for peer: Int32) -> Bool {
    let loser = lasting.victim(for: Holder(row: peer)).row
    var oldest = first(of: loser, .closed)
    if oldest < 0, loser != peer { oldest = first(of: loser, .established) }
    guard oldest >= 0 else { return false }
    remove(oldest)
    counts.evicted &+= 1
    return true
  }

  /// Lets an established flow, which is over, be pushed out. One that never was established stays where it is.
  @inline(never)
  mutating func close(_ place: Int) {
    guard flows[place].segment == .established else { return }
    leave(place)
    enter(place, .closed)
  }

  // MARK: Queues

  private static func queue(_ peer: Int32, _ segment: FlowSegment) -> Int {
    (Int(peer) + 1) * 4 + Int(segment.rawValue) - 1
  }

  /// The oldest flow of a peer in a segment; -1: none.
  private borrowing func first(of peer: Int32, _ segment: FlowSegment) -> Int {
    let queue = FlowTable.queue(peer, segment)
    return queue < queues.count ? Int(queues[queue].first) : -1
  }

  /// Puts a flow at the end of its peer's queue of a segment.
  private mutating func enter(_ place: Int, _ segment: FlowSegment) {
    flows[place].segment = segment
    let (peer, holder) = (flows[place].peer, Holder(row: flows[place].peer))
    let queue = FlowTable.queue(peer, segment)
    while queues.count <= queue { queues.append(Queue()) }
    FlowTable.link(place, to: &queues[queue], &flows)
    switch segment {
    case .free: break
    case .pendingOutbound: pendingOutbound.add(to: holder)
    case .pendingInbound: pendingInbound.add(to: holder)
    case .established:
      establishedCount &+= 1
      lasting.add(to: holder)
    case .closed: lasting.add(to: holder)
    }
  }

  /// Takes a flow out of the queue where it is.
  private mutating func leave(_ place: Int) {
    let (segment, holder) = (flows[place].segment, Holder(row: flows[place].peer))
    FlowTable.unlink(place, from: &queues[FlowTable.queue(flows[place].peer, segment)], &flows)
    switch segment {
    case .free: break
    case .pendingOutbound: pendingOutbound.give(from: holder)
    case .pendingInbound: pendingInbound.give(from: holder)
    case .established:
      establishedCount &-= 1
      lasting.give(from: holder)
    case .closed: lasting.give(from: holder)
    }
  }

  private static func link(_ place: Int, to queue: inout Queue, _ flows: inout FixedArray<Flow>, front: Bool = false) {
    let this = Int32(truncatingIfNeeded: place)
    if front {
      flows[place].link = Link(previous: -1, next: queue.first)
      if queue.first >= 0 { flows[Int(queue.first)].link.previous = this } else { queue.last = this }
      queue.first = this
    } else {
      flows[place].link = Link(previous: queue.last, next: -1)
      if queue.last >= 0 { flows[Int(queue.last)].link.next = this } else { queue.first = this }
      queue.last = this
    }
    queue.count &+= 1
  }

  private static func unlink(_ place: Int, from queue: inout Queue, _ flows: inout FixedArray<Flow>) {
    let link = flows[place].link
    if link.previous >= 0 { flows[Int(link.previous)].link.next = link.next } else { queue.first = link.next }
    if link.next >= 0 { flows[Int(link.next)].link.previous = link.previous } else { queue.last = link.previous }
    queue.count &-= 1
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
