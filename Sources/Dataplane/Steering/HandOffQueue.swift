import Glibc
package import PacketIO
import Synchronization

/// Hand-offs on their way from one worker to one other, in order: copies of packets, and messages. Its memory is set
/// aside at the start; when it is full, or a holder has his share of it (`Shares`), `post` refuses and the sender drops
/// (invariant 5).
///
/// Records lie one behind the other in a circle of bytes: the length of the record, whose it is, the hand-off, the packet.
/// `posted` and `taken` only grow, and are written by one side each.
@safe package final class HandOffQueue: Sendable {
  /// Bytes of the circle.
  package let capacity: Int
  private static let alignment = 64
  private static let holderOffset = 8
  private static let headOffset = holderOffset + MemoryLayout<Holder>.stride
  private static let bodyOffset = 128

  /// Far apart, so that the two sides do not take each other's cache line.
  private struct Side: ~Copyable {
    let value = Atomic<Int>(0)
    private let padding: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0, 0)
  }

  private nonisolated(unsafe) let memory: UnsafeMutableRawPointer
  private let posted = Side()
  private let taken = Side()
  /// Who has how many bytes of it, and how far what was taken has been given back; the sending thread's.
  private nonisolated(unsafe) let books: StateCell<Books>
  /// The receiver was told of what it has not looked for yet.
  private let isAnnounced = Atomic<Bool>(false)

  private var book: StateReference<Books> { unsafe books.reference }

  private struct Books: ~Copyable {
    var held: Shares
    var settled = 0
  }

  /// - Parameter capacity: bytes, a power of two, 262,144 or more: some superpackets, or a thousand packets.
  package init(capacity: Int) {
    precondition(capacity.nonzeroBitCount == 1 && capacity >= 1 << 18)
    precondition(MemoryLayout<HandOff>.size <= HandOffQueue.bodyOffset - HandOffQueue.headOffset)
    self.capacity = capacity
    unsafe books = StateCell(
      Books(held: Shares(.handOffs, capacity: capacity, least: HandOffQueue.recordLength(0xFFFF))))
    unsafe memory = .allocate(byteCount: capacity, alignment: HandOffQueue.alignment)
  }

  deinit { unsafe memory.deallocate() }

  /// Whether nothing waits.
  package var isEmpty: Bool { posted.value.load(ordering: .acquiring) == taken.value.load(ordering: .relaxed) }

  /// True when the receiver has to be told that something waits; on the sending thread.
  package func announce() -> Bool { !isAnnounced.exchange(true, ordering: .sequentiallyConsistent) }

  /// The receiver looks now; whatever is posted later is to be announced again.
  package func clearAnnouncement() { isAnnounced.store(false, ordering: .sequentiallyConsistent) }

  /// Who has how many bytes; on the sending thread.
  func shares() -> ShareReport {
    settle()
    return book.value.held.report()
  }

  /// Gives back what was taken since. Its records are as they were written, because nobody else writes, and none is
  /// written over before this has been here.
  /// - Returns: up to where.
  @discardableResult
  private func settle() -> Int {
    let end = taken.value.load(ordering: .acquiring)
    while book.value.settled != end {
      let place = book.value.settled & (capacity &- 1)
      let count = unsafe memory.load(fromByteOffset: place, as: Int.self)
      guard count >= 0 else {
        book.value.settled &+= capacity &- place
        continue
      }
      let holder = unsafe memory.load(fromByteOffset: place &+ HandOffQueue.holderOffset, as: Holder.self)
      let length = HandOffQueue.recordLength(count)
      book.value.held.give(length, from: holder)
      book.value.settled &+= length
    }
    return end
  }

  /// Copies a message, or a packet of 65,535 bytes at most, into the queue; on the sending thread. False when there is
  /// no room, or the holder of a packet has his share.
  package func post(_ handOff: HandOff, _ bytes: PacketBytes? = nil, of holder: Holder = Holder(row: -1)) -> Bool {
    let settled = settle()
    let count = bytes?.count ?? 0
    let length = HandOffQueue.recordLength(count)
    var start = posted.value.load(ordering: .relaxed)
    let free = capacity &- (start &- settled)
    var place = start & (capacity &- 1)
    let rest = capacity &- place
    // A record lies in one piece: where there is no room before the end, the end is skipped.
    let skipped = rest < length ? rest : 0
    guard count <= 0xFFFF, free >= length &+ skipped,
      bytes == nil || book.value.held.mayTake(length, for: holder)
    else {
      book.value.held.refuse(holder)
      return false
    }
    book.value.held.add(length, to: holder)
    if skipped > 0 {
      unsafe memory.storeBytes(of: -1, toByteOffset: place, as: Int.self)
      start &+= skipped
      place = 0
    }
    unsafe memory.storeBytes(of: count, toByteOffset: place, as: Int.self)
    unsafe memory.storeBytes(of: holder, toByteOffset: place &+ HandOffQueue.holderOffset, as: Holder.self)
    unsafe memory.storeBytes(of: handOff, toByteOffset: place &+ HandOffQueue.headOffset, as: HandOff.self)
    if let bytes { unsafe memcpy(memory + place + HandOffQueue.bodyOffset, bytes.pointer, count) }
    posted.value.store(start &+ length, ordering: .releasing)
    return true
  }

  /// Lends the oldest hand-off and its packet to `body` and, if that says true, forgets both; on the receiving thread.
  /// False when nothing was taken.
  package func take(_ body: (HandOff, PacketBytes) -> Bool) -> Bool {
    var start = taken.value.load(ordering: .relaxed)
    guard posted.value.load(ordering: .acquiring) != start else { return false }
    var place = start & (capacity &- 1)
    var count = unsafe memory.load(fromByteOffset: place, as: Int.self)
    if count < 0 {
      start &+= capacity &- place
      place = 0
      count = unsafe memory.load(fromByteOffset: 0, as: Int.self)
    }
    let handOff = unsafe memory.load(fromByteOffset: place &+ HandOffQueue.headOffset, as: HandOff.self)
    let bytes = unsafe PacketBytes(memory + place + HandOffQueue.bodyOffset, count: count)
    guard body(handOff, bytes) else { return false }
    taken.value.store(start &+ HandOffQueue.recordLength(count), ordering: .releasing)
    return true
  }

  /// Bytes that a packet of so many takes.
  static func recordLength(_ count: Int) -> Int {
    (bodyOffset &+ count &+ alignment &- 1) & ~(alignment &- 1)
  }
}

/// The queues between a gateway's workers: between any two of them one each way.
package final class HandOffQueues: Sendable {
  /// Bytes that wait for a worker at most, of all others together, of which one peer may have a third; what does
  /// not fit is dropped.
  static let inbox = 1 << 24

  package let workers: Int
  private let queues: [HandOffQueue?]

  package init(workers: Int) {
    self.workers = workers
    queues = (0..<workers * workers).map {
      $0 / workers == $0 % workers ? nil : HandOffQueue(capacity: HandOffQueues.inbox / workers)
    }
  }

  /// Nil: from a worker to itself.
  func queue(from sender: Int, to receiver: Int) -> HandOffQueue? { queues[sender * workers + receiver] }
}
