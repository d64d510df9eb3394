package import PacketIO

/// Fragments of inner packets, each the end of one ESP packet's payload or the beginning of another's, until all
/// fragments of a packet are there (RFC 9347 §2.2.3). They belong together by sequence numbers that follow each other.
///
/// There is room for `capacity` ESP packets of all associations together, in which a packet of as many fragments fits.
/// Each holds a reference on the buffer it came in, for a second at most. When it is full, the oldest goes of the peer
/// that has most (`Shares`); a fragment that goes without its packet is counted.
package struct FragmentWindow: ~Copyable {
  package static let capacity = 32
  /// Nanoseconds for which a fragment waits for others: the lost packet timer of §2.2.3.
  package static let patience: UInt64 = 1_000_000_000
  /// Bytes of an IPv6 packet at most.
  private static let longestPacket = 65_575

  /// The fragments of one ESP packet.
  package struct Entry: BitwiseCopyable {
    /// Tells associations apart.
    package var association: UInt64
    /// The row of the peer it came from.
    package var peer: Int32
    package var sequence: UInt64
    package var buffer: BufferID
    package var trafficClass: UInt8
    /// The packet that began earlier goes on behind this ESP packet.
    package var continues = false
    /// Bytes in front that belong to a packet that began earlier, within the buffer; length -1: none do. 0 bytes that
    /// continue are a payload of padding between two fragments.
    package var frontOffset: Int32 = 0
    package var frontLength: Int32 = -1
    /// The first bytes of a packet that goes on in the next ESP packet; length 0: there are none.
    package var tailOffset: Int32 = 0
    package var tailLength: Int32 = 0
    package var since: MonotonicTime

    package init(
      association: UInt64, peer: Int32, sequence: UInt64, buffer: BufferID, trafficClass: UInt8, since: MonotonicTime
    ) {
      self.association = association
      self.peer = peer
      self.sequence = sequence
      self.buffer = buffer
      self.trafficClass = trafficClass
      self.since = since
    }

    /// Fragments in it that come to nothing when it goes.
    fileprivate var fragments: Int { (frontLength > 0 ? 1 : 0) &+ (tailLength > 0 ? 1 : 0) }
    fileprivate var isEmpty: Bool { frontLength < 0 && tailLength == 0 }
    fileprivate var holder: Holder { Holder(row: peer) }
  }

  package enum Assembly {
    /// Fragments are missing.
    case incomplete
    /// The buffer belongs to whom the memory was taken from.
    case packet(buffer: BufferID, offset: Int, length: Int, trafficClass: UInt8)
    case failed(DropReason)
  }

  private var entries = FixedArray<Entry>(capacity: capacity)
  private var held = Shares(.aggregationFragments, capacity: capacity)

  package init() {}

  /// Who has how many ESP packets here.
  package borrowing func shares() -> ShareReport { held.report() }

  package var isEmpty: Bool { entries.isEmpty }
  package var count: Int { entries.count }

  /// Whether anything of the association is waiting.
  package func holds(_ association: UInt64) -> Bool {
    for index in 0..<entries.count where entries[index].association == association { return true }
    return false
  }

  /// Takes an ESP packet's fragments and a reference on its buffer; the one at the end may come in a call of its own
  /// after the one in front. Returns how many older ones had to go.
  package mutating func insert(_ entry: Entry, pool: BufferPool) -> Int {
    if let index = find(entry.association, entry.sequence) {
      entries[index].tailOffset = entry.tailOffset
      entries[index].tailLength = entry.tailLength
      return 0
    }
    var lost = 0
    if entries.isFull { lost = makeRoom(for: entry.holder, pool: pool) }
    pool.retain(entry.buffer)
    entries.append(entry)
    held.add(to: entry.holder)
    return lost
  }

  /// Gives up the oldest of whoever has most. Returns how many fragments that were.
  private mutating func makeRoom(for holder: Holder, pool: BufferPool) -> Int {
    let loser = held.victim(for: holder)
    var index = 0
    while index < entries.count &- 1, entries[index].holder != loser { index &+= 1 }
    return remove(index..<index &+ 1, pool: pool)
  }

  /// Gives up what has waited too long. Returns how many fragments that were.
  package mutating func expire(now: MonotonicTime, pool: BufferPool) -> Int {
    var old = 0
    while old < entries.count, now.nanoseconds(since: entries[old].since) > FragmentWindow.patience { old &+= 1 }
    return remove(0..<old, pool: pool)
  }

  /// Gives up everything.
  package mutating func removeAll(pool: BufferPool) -> Int { remove(0..<entries.count, pool: pool) }

  /// Puts together the packet of which a fragment lies at the front, or at the end, of an ESP packet.
  package mutating func assemble(
    _ association: UInt64, _ sequence: UInt64, atFront: Bool, into spread: inout SpreadPackets, pool: BufferPool
  ) -> Assembly {
    var first = sequence
    if atFront {
      // Back to where it begins. A payload without a beginning that is not passed through is where it breaks off.
      repeat {
        first &-= 1
        guard let index = find(association, first) else { return .incomplete }
        if entries[index].tailLength > 0 { break }
        guard entries[index].frontLength >= 0, entries[index].continues else { return .incomplete }
      } while first != sequence
    }
    guard let start = find(association, first), entries[start].tailLength > 0 else { return .incomplete }
    var last = first
    var length = Int(entries[start].tailLength)
    repeat {
      last &+= 1
      guard let index = find(association, last), entries[index].frontLength >= 0 else { return .incomplete }
      length &+= Int(entries[index].frontLength)
      if !entries[index].continues { break }
    } while last != first
    return gather(association, first, last, length: length, into: &spread, pool: pool)
  }

  /// Copies the fragments together and lets go of them.
  private mutating func gather(
    _ association: UInt64, _ first: UInt64, _ last: UInt64, length: Int, into spread: inout SpreadPackets,
    pool: BufferPool
  ) -> Assembly {
    let isTooLong = length > FragmentWindow.longestPacket
    let target = isTooLong ? nil : spread.reserve(length, pool: pool)
    var offset = target?.offset ?? 0
    var trafficClass: UInt8 = 0
    var sequence = first
    while true {
      guard let index = find(association, sequence) else { break }
      let entry = entries[index]
      let (start, count) =
        sequence == first ? (entry.tailOffset, entry.tailLength) : (entry.frontOffset, entry.frontLength)
      if let target {
        pool.bytes(target.buffer).copy(pool.bytes(entry.buffer).slice(Int(start), Int(count)), to: offset)
      }
      offset &+= Int(count)
      // One congested fragment is enough (as RFC 3168 §5.3 has it for IP fragments).
      if sequence == first || entry.trafficClass & 3 == 3 { trafficClass = entry.trafficClass }
      if sequence == first { entries[index].tailLength = 0 } else { entries[index].frontLength = -1 }
      if sequence == last { break }
      sequence &+= 1
    }
    removeEmpty(pool: pool)
    guard !isTooLong else { return .failed(.malformedAggregate) }
    guard let target else { return .failed(.noBuffer) }
    return .packet(buffer: target.buffer, offset: target.offset, length: length, trafficClass: trafficClass)
  }

  private func find(_ association: UInt64, _ sequence: UInt64) -> Int? {
    for index in 0..<entries.count
    where entries[index].sequence == sequence && entries[index].association == association {
      return index
    }
    return nil
  }

  private mutating func remove(_ range: Range<Int>, pool: BufferPool) -> Int {
    guard !range.isEmpty else { return 0 }
    var lost = 0
    for index in range {
      lost &+= entries[index].fragments
      entries[index].frontLength = -1
      entries[index].tailLength = 0
    }
    removeEmpty(pool: pool)
    return lost
  }

  private mutating func removeEmpty(pool: BufferPool) {
    var kept = 0
    for index in 0..<entries.count {
      guard !entries[index].isEmpty else {
        pool.release(entries[index].buffer)
        held.give(from: entries[index].holder)
        continue
      }
      if kept < index { entries[kept] = entries[index] }
      kept &+= 1
    }
    while entries.count > kept { _ = entries.popLast() }
  }
}
