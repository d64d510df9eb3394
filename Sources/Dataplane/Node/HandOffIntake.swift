import PacketIO

/// What other workers have handed to a node, on its way into the pipelines: as many packets of one kind as came one
/// after the other are worked on together.
struct HandOffIntake: ~Copyable {
  /// Hand-offs of one other worker that are taken at once, so that a busy one does not keep this worker from its own
  /// packets.
  static let limit = 512
  /// Bytes behind an opened packet, for a name in it that becomes longer.
  static let openedTail = 32

  enum Kind { case outbound, judged, opened, sealed }

  /// What is gathered; nil: nothing.
  private(set) var kind: Kind?
  /// Packets that are to be sealed, or opened.
  var packets: PacketBatch
  /// Where opened packets are collected, and how full it is.
  private var openedBuffer: BufferID?
  private var openedEnd = 0
  /// Whose hand-offs are being taken, and how many were.
  var sender = 0
  var taken = 0
  /// What waits next has to wait until what is gathered was worked on.
  var isFull = false
  /// Of the sealed packets that were gathered, some wait for room among the deliveries.
  var isHalfOpen = false
  /// More waits than was taken.
  var hasMore = false

  init(capacity: Int) { packets = PacketBatch(capacity: capacity) }

  /// Whether something of this kind can be gathered now.
  mutating func begin(_ kind: Kind) -> Bool {
    guard self.kind == nil || self.kind == kind, !packets.isFull else {
      isFull = true
      return false
    }
    self.kind = kind
    return true
  }

  /// Gathers a copy of a packet; false without a buffer.
  mutating func append(_ superpacket: Superpacket, _ bytes: PacketBytes, _ pool: BufferPool) -> Bool {
    guard let buffer = pool.take() else { return false }
    var copy = superpacket
    copy.buffer = buffer
    copy.offset = Int32(BufferPool.headroom)
    copy.length = Int32(truncatingIfNeeded: bytes.count)
    copy.bytes(in: pool).copy(bytes, to: 0)
    packets.append(copy)
    return true
  }

  /// A place for an opened packet among others, with room in front of each for the device's header, and behind each for
  /// a name that becomes longer. Nil, and full, when there is no more in the buffer.
  mutating func reserve(_ count: Int, _ pool: BufferPool) -> (buffer: BufferID, offset: Int)? {
    let room = BufferPool.headroom + count + HandOffIntake.openedTail
    if openedBuffer != nil, openedEnd + room > BufferPool.bufferSize {
      isFull = true
      return nil
    }
    if openedBuffer == nil {
      openedBuffer = pool.take()
      openedEnd = 0
    }
    guard let buffer = openedBuffer else { return nil }
    defer { openedEnd += (room + 63) & ~63 }
    return (buffer, openedEnd + BufferPool.headroom)
  }

  /// What was gathered is in the pipelines.
  mutating func end(_ pool: BufferPool) {
    kind = nil
    if let buffer = openedBuffer { pool.release(buffer) }
    openedBuffer = nil
  }
}
