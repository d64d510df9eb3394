import Glibc
import Synchronization

/// What one worker hands another beside the bytes.
@frozen public struct Letter: BitwiseCopyable, Sendable {
  /// What is to be done with it, and a remark: the two workers agree on their meaning.
  public var kind: UInt8
  public var detail: UInt8
  public var isMarked: Bool
  /// The row of the peer it is from, in tables of this number.
  public var peer: Int32
  public var version: UInt32
  /// As in the sender's pool; buffer and offset mean nothing to others.
  public var superpacket: Superpacket

  public init(
    kind: UInt8, detail: UInt8 = 0, isMarked: Bool = false, peer: Int32 = -1, version: UInt32 = 0,
    superpacket: Superpacket
  ) {
    self.kind = kind
    self.detail = detail
    self.isMarked = isMarked
    self.peer = peer
    self.version = version
    self.superpacket = superpacket
  }
}

/// Copies of packets on their way from one thread to one other, in order. Its memory is set aside at the start; when
/// it is full, `post` refuses and the sender drops (invariant 5).
///
/// Records lie one behind the other in a circle of bytes: the length of the record, the letter, the packet. `posted`
/// and `taken` only grow, and are written by one side each.
@safe public final class Mailbox: Sendable {
  /// Bytes of the circle.
  public let capacity: Int
  private static let alignment = 64
  private static let letterOffset = 8
  private static let bodyOffset = 128

  /// Far apart, so that the two sides do not take each other's cache line.
  private struct Side: ~Copyable {
    let value = Atomic<Int>(0)
    private let padding: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0, 0)
  }

  private nonisolated(unsafe) let memory: UnsafeMutableRawPointer
  private let posted = Side()
  private let taken = Side()

  /// - Parameter capacity: bytes, a power of two, 262,144 or more: some superpackets, or a thousand packets.
  public init(capacity: Int) {
    precondition(capacity.nonzeroBitCount == 1 && capacity >= 1 << 18)
    self.capacity = capacity
    unsafe memory = .allocate(byteCount: capacity, alignment: Mailbox.alignment)
  }

  deinit { unsafe memory.deallocate() }

  /// Whether nothing waits.
  public var isEmpty: Bool { posted.value.load(ordering: .acquiring) == taken.value.load(ordering: .relaxed) }

  /// Copies a packet of 65,535 bytes at most into the box; on the sending thread. False when there is no room.
  public func post(_ letter: Letter, _ bytes: PacketBytes) -> Bool {
    let length = Mailbox.recordLength(bytes.count)
    var start = posted.value.load(ordering: .relaxed)
    let free = capacity &- (start &- taken.value.load(ordering: .acquiring))
    var place = start & (capacity &- 1)
    let rest = capacity &- place
    // A record lies in one piece: where there is no room before the end, the end is skipped.
    let skipped = rest < length ? rest : 0
    guard bytes.count <= 0xFFFF, free >= length &+ skipped else { return false }
    if skipped > 0 {
      unsafe memory.storeBytes(of: -1, toByteOffset: place, as: Int.self)
      start &+= skipped
      place = 0
    }
    unsafe memory.storeBytes(of: bytes.count, toByteOffset: place, as: Int.self)
    unsafe memory.storeBytes(of: letter, toByteOffset: place &+ Mailbox.letterOffset, as: Letter.self)
    unsafe memcpy(memory + place + Mailbox.bodyOffset, bytes.pointer, bytes.count)
    posted.value.store(start &+ length, ordering: .releasing)
    return true
  }

  /// Lends the oldest letter and its packet to `body`, and forgets both; on the receiving thread. False when nothing
  /// waits.
  public func take(_ body: (Letter, PacketBytes) -> Void) -> Bool {
    var start = taken.value.load(ordering: .relaxed)
    guard posted.value.load(ordering: .acquiring) != start else { return false }
    var place = start & (capacity &- 1)
    var count = unsafe memory.load(fromByteOffset: place, as: Int.self)
    if count < 0 {
      start &+= capacity &- place
      place = 0
      count = unsafe memory.load(fromByteOffset: 0, as: Int.self)
    }
    let letter = unsafe memory.load(fromByteOffset: place &+ Mailbox.letterOffset, as: Letter.self)
    unsafe body(letter, PacketBytes(memory + place + Mailbox.bodyOffset, count: count))
    taken.value.store(start &+ Mailbox.recordLength(count), ordering: .releasing)
    return true
  }

  private static func recordLength(_ count: Int) -> Int {
    (bodyOffset &+ count &+ alignment &- 1) & ~(alignment &- 1)
  }
}
