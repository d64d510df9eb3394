import Glibc
import PacketIO

/// The receives of all streams of a link: they share a ring of buffers, of which the kernel takes one when something
/// has arrived, so that a silent stream holds none. Where the kernel has no such rings, it is asked when there is
/// something, and then read.
struct StreamReads: ~Copyable {
  /// What a stream brought, or what is left of it; holds a reference.
  struct Read: BitwiseCopyable {
    let place: Int32
    let number: UInt64
    let buffer: BufferID
    var offset: Int
    let end: Int
  }

  /// What a completion brought.
  enum Arrival: BitwiseCopyable {
    case bytes(BufferID, count: Int)
    /// Nothing; the stream goes on.
    case nothing
    /// The stream has ended, with a positive errno.
    case ended(Int32)
  }

  private let group: UInt16
  private let capacity: Int
  /// Bytes in front of what the kernel receives, beside `RecordCarry.front`.
  private let margin: Int
  /// Made with the first stream.
  private var buffers: BufferRing?
  private let usesRing: Bool
  /// Streams that wait for a receive.
  private var unarmed: FixedArray<Int32>
  /// Reads that wait, in order, because the batch was full: a ring of places. No more can wait than there are buffers.
  private var backlog: FixedArray<Read>
  private var head = 0
  private var waiting = 0
  /// A completion is on its way with which the backlog goes on.
  var isResuming = false

  /// - Parameter margin: see `StreamTable.sealedMargin`.
  init(group: UInt16, capacity: Int, streams: Int, margin: Int, io: borrowing WorkerIO) {
    self.margin = margin
    self.group = group
    self.capacity = capacity
    usesRing = io.ring.features.contains(.multishotReceive)
    unarmed = FixedArray(capacity: streams)
    let nothing = Read(place: 0, number: 0, buffer: 0, offset: 0, end: 0)
    backlog = FixedArray(repeating: nothing, count: io.pool.count)
  }

  /// Gives the kernel buffers.
  mutating func topUp(io: inout WorkerIO) {
    guard usesRing else { return }
    if buffers == nil { buffers = BufferRing(&io.ring, group: group, capacity: capacity) }
    guard let buffers else { return }
    while buffers.held < buffers.capacity, let id = io.pool.take() {
      buffers.offer(id, StreamReads.room(io.pool.bytes(id)).dropFirst(margin))
    }
  }

  /// Has the stream's receive armed at the end of the turn.
  mutating func receive(_ place: Int, _ streams: inout StreamTable) {
    guard !streams[place].isUnarmed else { return }
    streams[place].isUnarmed = true
    unarmed.append(Int32(truncatingIfNeeded: place))
  }

  /// - Parameter token: what the completions of the stream at a place carry.
  mutating func arm(_ streams: inout StreamTable, io: inout WorkerIO, token: (Int) -> Token) {
    guard !unarmed.isEmpty, buffers.map({ $0.held > 0 }) ?? (io.pool.available > 0) else { return }
    for index in 0..<unarmed.count {
      let place = Int(unarmed[index])
      streams[place].isUnarmed = false
      guard streams[place].isConnected, !streams[place].isReceiving else { continue }
      streams.submitReceive(place, group: buffers?.group, token: token(place), ring: &io.ring)
    }
    unarmed.removeAll()
  }

  /// What a completion of a receive brought; the caller owns the buffer that comes with bytes.
  mutating func accept(
    _ completion: Completion, at place: Int, _ streams: inout StreamTable, io: borrowing WorkerIO
  ) -> Arrival {
    streams[place].isReceiving = completion.more
    if let buffers {
      var result = Int(completion.result)
      if let buffer = completion.buffer {
        buffers.taken()
        result = streams.opened(place, result, StreamReads.room(io.pool.bytes(buffer)), now: io.now)
      }
      return arrival(result, completion.buffer, io)
    }
    guard completion.result >= 0 else { return arrival(Int(completion.result), nil, io) }
    // Readable, and no buffer: it is asked again.
    guard let buffer = io.pool.take() else { return .nothing }
    let room = StreamReads.room(io.pool.bytes(buffer))
    let received = streams.receiveSealed(place, into: room.dropFirst(margin))
    return arrival(streams.opened(place, received, room, now: io.now), buffer, io)
  }

  /// Where what a stream brings lies in a buffer.
  private static func room(_ bytes: PacketBytes) -> PacketBytes {
    bytes.slice(RecordCarry.front, bytes.count - RecordCarry.front - RecordCarry.tailroom)
  }

  private func arrival(_ result: Int, _ buffer: BufferID?, _ io: borrowing WorkerIO) -> Arrival {
    if result > 0, let buffer { return .bytes(buffer, count: result) }
    if let buffer { io.pool.release(buffer) }
    if result == 0 { return .ended(ECONNRESET) }
    // ENOBUFS: the kernel's buffers ran dry.
    let passing = [ENOBUFS, ECANCELED, EAGAIN, EINTR]
    return passing.contains(Int32(-result)) ? .nothing : .ended(Int32(-result))
  }

  // MARK: Backlog

  var hasBacklog: Bool { waiting > 0 }
  var firstOfBacklog: Read? { waiting > 0 ? backlog[head] : nil }

  mutating func putBack(_ read: Read) {
    backlog[(head + waiting) % backlog.capacity] = read
    waiting += 1
  }

  mutating func replaceFirst(_ read: Read) { backlog[head] = read }

  mutating func removeFirst() {
    head = (head + 1) % backlog.capacity
    waiting -= 1
  }

  mutating func close(io: inout WorkerIO) {
    while let read = firstOfBacklog {
      io.pool.release(read.buffer)
      removeFirst()
    }
  }
}
