/// Whom a share of something is accounted to.
public enum Holder: Hashable, Sendable, BitwiseCopyable {
  /// A peer that packets have authenticated: its row in the dataplane's tables, and 1; 0: nobody.
  case peer(UInt32)
  /// A stranger, by address: one IPv4 address, or a site of IPv6 (/56), which has as many addresses as it likes.
  case origin(IPAddress)
  /// Whoever is where this side has dialled, as long as nobody knows whose that is.
  case dialled(Endpoint)

  /// The peer of a row; -1: nobody.
  @inline(__always)
  package init(row: Int32) { self = .peer(UInt32(bitPattern: row &+ 1)) }

  /// The peer's row; -1: nobody's, or a stranger's.
  package var row: Int32 {
    guard case .peer(let number) = self else { return -1 }
    return Int32(bitPattern: number) &- 1
  }

  /// Whoever is at an address, as long as nobody knows better.
  package init(strangerAt address: IPAddress) {
    self = .origin(address.isV4 ? address : IPAddress(v6High: address.high & ~0xFF, low: 0))
  }
}

/// Who holds how much of one resource that all share, and who may have more: the one mechanism by which what a peer or a
/// stranger does costs the others nothing. A resource is shared by one of two rules:
///
/// - What cannot be taken back, as a buffer that is being sent from, goes by a dynamic threshold (A. Choudhury, E. Hahne,
///   "Dynamic queue length thresholds for shared-memory packet switches", 1998): a holder may have half as much as is
///   left, so one who takes all he can gets a third, two get a quarter each, and there is always something left
///   for the next (`take`). `least` is everybody's while there is any.
/// - What can be taken back, as a flow that has not answered, is there for whoever wants it until all is used; then the
///   one who holds most gives way (`victim`): who floods pushes out his own flood.
///
/// Who loses something so is counted. A rate, as of messages that are looked into, is a resource of which all is given
/// back with each tick (`removeAll`).
package struct Shares: ~Copyable {
  package let resource: SharedResource
  package let capacity: Int
  /// What each holder may have though less is left.
  package let least: Int
  /// What each may have though more is left.
  package let most: Int
  package private(set) var used = 0
  /// How often somebody did not get, or keep, what he wanted.
  package private(set) var refused: UInt64 = 0
  /// By a peer's number, as far as any was used.
  private var peers: [Row] = []
  private var others: [Holder: Row] = [:]
  /// Who holds most, or an eighth less than he who does, and what he held when that was looked for.
  private var top: Holder?
  private var topHeld = 0

  private struct Row: BitwiseCopyable {
    var held: Int32 = 0
    var refused: UInt64 = 0
  }

  /// - Parameter capacity: of what is shared, in the resource's unit, to 2³¹ - 1.
  package init(_ resource: SharedResource, capacity: Int, least: Int = 1, most: Int = .max) {
    self.resource = resource
    self.most = most
    self.capacity = min(max(capacity, 0), Int(Int32.max))
    self.least = min(least, self.capacity)
  }

  /// What a holder has.
  package borrowing func held(by holder: Holder) -> Int {
    switch holder {
    case .peer(let number): number < peers.count ? Int(peers[Int(number)].held) : 0
    case .origin, .dialled: Int(others[holder]?.held ?? 0)
    }
  }

  // MARK: What cannot be taken back

  /// Whether a holder may have so much more.
  package borrowing func mayTake(_ amount: Int = 1, for holder: Holder) -> Bool {
    let held = held(by: holder)
    return held + amount <= most
      && Shares.mayHave(amount, beside: held, left: capacity - used, least: least)
  }

  /// The dynamic threshold, for who keeps other books.
  package static func mayHave(_ amount: Int, beside held: Int, left: Int, least: Int) -> Bool {
    amount <= left && held + amount <= max(left / 2, least)
  }

  /// Gives a holder so much more, where it may have it; else counts that it may not.
  package mutating func take(_ amount: Int = 1, for holder: Holder) -> Bool {
    guard mayTake(amount, for: holder) else {
      refuse(holder)
      return false
    }
    add(amount, to: holder)
    return true
  }

  // MARK: What can be taken back

  package var isFull: Bool { used >= capacity }

  /// Who gives something back when all is used and a holder wants one more: himself, unless another has more than he
  /// would have then. It is counted as that one's loss.
  package mutating func victim(for holder: Holder) -> Holder {
    let loser = mostly(than: held(by: holder) + 1) ?? holder
    refuse(loser)
    return loser
  }

  /// One who holds more than so much, of those who hold most.
  private mutating func mostly(than held: Int) -> Holder? {
    let now = top.map { self.held(by: $0) } ?? 0
    if now < topHeld - topHeld / 8 || now == 0 { (top, topHeld) = largest() }
    guard let top, self.held(by: top) > held else { return nil }
    return top
  }

  /// Looks at all holders.
  private borrowing func largest() -> (Holder?, Int) {
    var best: (holder: Holder?, held: Int) = (nil, 0)
    for (number, row) in peers.enumerated() where Int(row.held) > best.held {
      best = (.peer(UInt32(truncatingIfNeeded: number)), Int(row.held))
    }
    for (holder, row) in others where Int(row.held) > best.held { best = (holder, Int(row.held)) }
    return best
  }

  // MARK: Books

  /// A holder has so much more.
  package mutating func add(_ amount: Int = 1, to holder: Holder) {
    used += amount
    let held = change(holder) { $0.held &+= Int32(truncatingIfNeeded: amount) }
    if held > topHeld { (top, topHeld) = (holder, held) }
  }

  /// A holder gives back so much.
  package mutating func give(_ amount: Int = 1, from holder: Holder) {
    used -= amount
    change(holder) { $0.held &-= Int32(truncatingIfNeeded: amount) }
  }

  /// What is one's is another's from now on: it has turned out who he is.
  package mutating func move(_ amount: Int, from old: Holder, to new: Holder) {
    guard amount != 0, old != new else { return }
    give(amount, from: old)
    add(amount, to: new)
  }

  /// Counts that a holder did not get, or keep, what it wanted.
  package mutating func refuse(_ holder: Holder) {
    refused &+= 1
    change(holder) { $0.refused &+= 1 }
  }

  /// All is given back; of peers it stays known who was refused.
  package mutating func removeAll() {
    guard used > 0 else { return }
    used = 0
    for index in peers.indices { peers[index].held = 0 }
    others = [:]
    (top, topHeld) = (nil, 0)
  }

  @discardableResult
  private mutating func change(_ holder: Holder, _ body: (inout Row) -> Void) -> Int {
    switch holder {
    case .peer(let number):
      let place = Int(number)
      while peers.count <= place { peers.append(Row()) }
      body(&peers[place])
      return Int(peers[place].held)
    case .origin, .dialled:
      var row = others[holder] ?? Row()
      body(&row)
      // Strangers are many: who holds nothing is forgotten.
      others[holder] = row.held > 0 ? row : nil
      return Int(row.held)
    }
  }

  /// For whoever asks who holds what: those first who hold most.
  package borrowing func report(most: Int = 16) -> ShareReport {
    var holders: [ShareReport.Part] = []
    for (number, row) in peers.enumerated() where row.held > 0 || row.refused > 0 {
      holders.append(
        ShareReport.Part(
          holder: .peer(UInt32(truncatingIfNeeded: number)), held: Int(row.held), refused: row.refused))
    }
    for (holder, row) in others {
      holders.append(ShareReport.Part(holder: holder, held: Int(row.held), refused: row.refused))
    }
    holders.sort { ($0.held, $0.refused) > ($1.held, $1.refused) }
    return ShareReport(
      resource: resource, capacity: capacity, used: used, refused: refused, holders: Array(holders.prefix(most)))
  }
}

/// What peers and strangers share.
public enum SharedResource: String, Sendable, Codable, CaseIterable {
  /// Places for streams; streams.
  case streams
  /// What waits to be sent by streams; trains of packets.
  case sendQueues = "send-queues"
  /// Buffers that hold records whose rest has not come; buffers.
  case heldBuffers = "held-buffers"
  /// Memory for such records where no buffer may be kept; bytes.
  case pendingRecords = "pending-records"
  /// The same, of those whom no packet has authenticated; bytes.
  case pendingRecordsOfStrangers = "pending-records-of-strangers"
  /// Flows that are not established, by who has begun them; flows.
  case pendingFlowsOutbound = "pending-flows-outbound"
  case pendingFlowsInbound = "pending-flows-inbound"
  /// Flows that are established or closed; flows.
  case flows
  /// Datagrams that come in fragments; datagrams.
  case fragments
  /// ESP packets that hold fragments of inner packets (RFC 9347); packets.
  case aggregationFragments = "aggregation-fragments"
  /// Control messages that are looked into, in 0.1 s; messages.
  case controlMessages = "control-messages"
  /// Messages of address negotiation that are looked into, in 0.1 s; messages.
  case negotiation
  /// What is said of packets that were sent before, in 0.1 s; messages.
  case refusals
  /// Moves of peers' paths to addresses that have not answered, in 0.1 s; moves.
  case pathMoves = "path-moves"
  /// Packets on their way from one worker to another; bytes.
  case handOffs = "hand-offs"
  /// What senders are told of packets too big for a path, in 0.1 s; messages.
  case sizeMessages = "too-big-messages"
  /// Lines that firewall rules ask for, in two seconds; lines.
  case firewallLog = "firewall-log"
  /// What partners have of the pool for intermediate prefixes; addresses of IPv4, and /96s of IPv6.
  case addressPoolV4 = "address-pool-v4"
  case addressPoolV6 = "address-pool-v6"
  /// Packets of key agreement that are looked at, by whose they say that they are; packets, of what may come at once.
  case handshakes
  /// Pairs that are bound at an identity relay, counted for both gateways; pairs.
  case relayPairs = "relay-pairs"
  /// What an identity relay says to gateways of its own accord, in a second; messages.
  case relayNotices = "relay-notices"
}

/// Who holds how much of a resource, as of one moment.
public struct ShareReport: Sendable, Equatable {
  /// What one holds, and how often it was refused more.
  public struct Part: Sendable, Equatable {
    public var holder: Holder
    public var held: Int
    public var refused: UInt64
  }
  public var resource: SharedResource
  /// What there is of it, and what is held by all.
  public var capacity: Int
  public var used: Int
  /// How often somebody was refused more, since the start.
  public var refused: UInt64
  /// Those who hold most, 16 at most.
  public var holders: [Part]
}

extension ShareReport {
  /// Another store of the same resource: both as one.
  package mutating func add(_ other: ShareReport) {
    capacity += other.capacity
    used += other.used
    refused &+= other.refused
    for part in other.holders {
      if let place = holders.firstIndex(where: { $0.holder == part.holder }) {
        holders[place].held += part.held
        holders[place].refused &+= part.refused
      } else {
        holders.append(part)
      }
    }
    holders.sort { ($0.held, $0.refused) > ($1.held, $1.refused) }
  }
}
