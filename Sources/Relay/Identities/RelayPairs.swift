import Identity
import PacketIO

/// What one gateway of a pair has bound: SPIs under which packets go to it.
struct RelaySide: BitwiseCopyable {
  /// SPIs of one side that count: the newest, and those before it for as long as they are used.
  static let mostSPIs = 4

  /// One of them.
  struct Binding: BitwiseCopyable {
    /// As `RelayTable` has it; zero: none.
    var key: UInt32 = 0
    var lastUsed = MonotonicTime(nanoseconds: 0)
  }

  /// The gateway's place.
  var place: Int32 = -1
  /// Which of the bindings was made last.
  var newest: Int32 = 0
  var bindings = (Binding(), Binding(), Binding(), Binding())
  /// Of what goes to it.
  var bucket: TokenBucket
  /// What went to it.
  var traffic = Side.Traffic()
  var lastWho = MonotonicTime(nanoseconds: 0)
  /// Tells a repeat of the last packet of its that was verified.
  var lastVerified = 0

  subscript(_ slot: Int) -> Binding {
    @inline(__always) get {
      switch slot & 3 {
      case 0: bindings.0
      case 1: bindings.1
      case 2: bindings.2
      default: bindings.3
      }
    }
    @inline(__always) set {
      switch slot & 3 {
      case 0: bindings.0 = newValue
      case 1: bindings.1 = newValue
      case 2: bindings.2 = newValue
      default: bindings.3 = newValue
      }
    }
  }

  var isBound: Bool { self[Int(truncatingIfNeeded: newest)].key != 0 }

  /// Where the next binding goes: to a free slot, or to that which was not used for longest. The newest stays.
  var nextSlot: Int {
    (0..<RelaySide.mostSPIs).filter { $0 != Int(truncatingIfNeeded: newest) || self[$0].key == 0 }
      .min { (self[$0].key != 0 ? 1 : 0, self[$0].lastUsed) < (self[$1].key != 0 ? 1 : 0, self[$1].lastUsed) } ?? 0
  }
}

/// Pairs that have met: two sides each, side by side, and the table that finds a side by SPI.
struct RelayPairs: ~Copyable {
  /// Seconds for which an SPI counts that is neither the newest nor used.
  static let rest: UInt64 = 120

  private(set) var sides: FixedArray<RelaySide>
  private var pairs: [RelayPolicy.Pair?]
  private var numbers: [RelayPolicy.Pair: Int] = [:]
  private var terms: [RelayPolicy.Terms?]
  /// By pair; asked where the whole relay has a limit.
  private(set) var priorities: FixedArray<UInt8>
  private var free: [Int]
  /// Which gateway has how many: half of what is left, or so many.
  private var shares: Shares
  private static let leastPairs = 16
  private(set) var table: RelayTable

  init(capacity: Int, now: MonotonicTime, using random: inout some RandomNumberGenerator) {
    sides = FixedArray(
      repeating: RelaySide(bucket: TokenBucket(bitRate: 0, now: now)), count: 2 * capacity)
    pairs = Array(repeating: nil, count: capacity)
    terms = Array(repeating: nil, count: capacity)
    priorities = FixedArray(zeroes: capacity)
    free = (0..<capacity).reversed()
    shares = Shares(.relayPairs, capacity: 2 * capacity, least: RelayPairs.leastPairs)
    table = RelayTable(capacity: 2 * RelaySide.mostSPIs * capacity, using: &random)
  }

  /// Which gateway has how many.
  func report() -> ShareReport { shares.report() }

  var capacity: Int { pairs.count }
  var count: Int { capacity - free.count }

  func number(of pair: RelayPolicy.Pair) -> Int? { numbers[pair] }
  subscript(_ number: Int) -> RelayPolicy.Pair? { pairs[number] }

  /// The side of the pair's gateway with that tag.
  static func side(_ number: Int, _ pair: RelayPolicy.Pair, of tag: HostIdentityTag) -> Int {
    2 * number + (tag == pair.smaller ? 0 : 1)
  }

  private static func holder(_ place: Int) -> Holder { Holder(row: Int32(truncatingIfNeeded: place)) }

  /// - Parameter places: of the smaller and of the greater tag.
  /// - Throws: why it has none: there is no room, or not for one of the two.
  mutating func open(
    _ pair: RelayPolicy.Pair, _ terms: RelayPolicy.Terms, places: (Int, Int), now: MonotonicTime
  ) throws(RelayDrop) -> Int {
    guard !free.isEmpty else { throw .full }
    let holders = [places.0, places.1].map(RelayPairs.holder)
    guard holders.allSatisfy({ shares.mayTake(for: $0) }), let number = free.popLast() else { throw .tooManyPairs }
    for holder in holders { shares.add(to: holder) }
    pairs[number] = pair
    numbers[pair] = number
    for (side, place) in [(2 * number, places.0), (2 * number + 1, places.1)] {
      sides[side] = RelaySide(bucket: TokenBucket(bitRate: 0, now: now))
      sides[side].place = Int32(truncatingIfNeeded: place)
    }
    set(number, terms, now: now)
    return number
  }

  /// What holds for the pair; where it is what held before, nothing changes. Figures stay.
  mutating func set(_ number: Int, _ terms: RelayPolicy.Terms, now: MonotonicTime) {
    guard self.terms[number] != terms else { return }
    self.terms[number] = terms
    priorities[number] = min(terms.priority, 7)
    for side in [2 * number, 2 * number + 1] { sides[side].bucket = TokenBucket(bitRate: terms.bandwidth, now: now) }
  }

  /// Nothing of the pair is bound any more.
  /// - Returns: how many associations were.
  @discardableResult mutating func close(_ number: Int) -> Int {
    guard let pair = pairs[number] else { return 0 }
    let before = table.count
    for side in [2 * number, 2 * number + 1] {
      for slot in 0..<RelaySide.mostSPIs { remove(side, slot) }
    }
    for side in [2 * number, 2 * number + 1] {
      shares.give(from: RelayPairs.holder(Int(truncatingIfNeeded: sides[side].place)))
    }
    numbers[pair] = nil
    pairs[number] = nil
    terms[number] = nil
    free.append(number)
    return before - table.count
  }

  private mutating func remove(_ side: Int, _ slot: Int) {
    let key = sides[side][slot].key
    guard key != 0 else { return }
    table.remove(key)
    sides[side][slot] = RelaySide.Binding()
  }

  // MARK: Bindings

  enum Claim: Equatable { case made, known, taken, full }

  /// A side's gateway takes packets under an SPI from now on.
  /// - Parameter replaced: one more when another one had to go.
  mutating func bind(_ key: UInt32, _ side: Int, now: MonotonicTime, replaced: inout UInt64) -> Claim {
    if let held = table[key] {
      guard held >> 2 == side else { return .taken }
      return .known
    }
    let slot = sides[side].nextSlot
    if sides[side][slot].key != 0 {
      remove(side, slot)
      replaced += 1
    }
    guard table.insert(key, side << 2 | slot) else { return .full }
    // What was the newest until now rests from now on.
    sides[side][Int(truncatingIfNeeded: sides[side].newest)].lastUsed = now
    sides[side][slot] = RelaySide.Binding(key: key, lastUsed: now)
    sides[side].newest = Int32(truncatingIfNeeded: slot)
    return .made
  }

  /// The side that packets under the SPI go to, and which of its bindings it is; nil: nobody's.
  @inline(__always) func find(_ key: UInt32) -> (side: Int, slot: Int)? {
    guard let found = table[key] else { return nil }
    return (found >> 2, found & 3)
  }

  /// Packets have gone to a side.
  @inline(__always) mutating func used(_ side: Int, _ slot: Int, packets: UInt64, bytes: Int, now: MonotonicTime) {
    sides[side][slot].lastUsed = now
    sides[side].traffic.packets &+= packets
    sides[side].traffic.bytes &+= UInt64(truncatingIfNeeded: bytes)
  }

  /// The row of a side, to be changed.
  mutating func with<R>(_ side: Int, _ body: (inout RelaySide) -> R) -> R { body(&sides[side]) }

  /// Lets go of what neither is the newest nor was used for long.
  /// - Returns: how many.
  mutating func retire(_ number: Int, now: MonotonicTime) -> Int {
    let before = table.count
    for side in [2 * number, 2 * number + 1] {
      for slot in 0..<RelaySide.mostSPIs
      where slot != Int(truncatingIfNeeded: sides[side].newest) && sides[side][slot].key != 0 {
        if now.nanoseconds(since: sides[side][slot].lastUsed) >= RelayPairs.rest * 1_000_000_000 { remove(side, slot) }
      }
    }
    return before - table.count
  }
}
