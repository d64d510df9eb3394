package import PacketIO

/// The beginnings of records whose rest has not come yet, from one read of a stream to the next.
///
/// A read's last record usually continues in the next read: its beginning is left in its buffer, and copied in front of
/// what comes next, where there is room for that. What is long, or comes in many pieces, is put together in the first
/// piece's buffer. Either way a record is copied once at most. Buffers that are kept so are few; where no more may be
/// kept, and for streams that are not authenticated, beginnings are copied to memory of their size, which is bounded too.
/// Both are shared by holder (`Shares`), and strangers have a store of their own, so that whoever begins records and
/// does not end them loses his own streams.
package struct RecordCarry: ~Copyable {
  /// The beginning of one stream's record.
  package struct Part: BitwiseCopyable {
    enum Place: BitwiseCopyable { case none, buffer, stash }
    fileprivate var place = Place.none
    fileprivate var buffer: BufferID = 0
    fileprivate var offset = 0
    /// Bytes there are, and bytes the whole has as far as is known.
    package fileprivate(set) var length = 0
    fileprivate var needed = 0
    fileprivate var holder = Holder.peer(0)
    /// Some of it was copied here.
    fileprivate var isCopied = false
    package init() {}
  }

  /// What became of a read.
  package enum Joined: BitwiseCopyable {
    /// It is to be read from `offset`, which may have moved to the front.
    case inPlace(offset: Int)
    /// What began before is whole, in a buffer whose reference passes to the caller; the read goes on at `offset`.
    case whole(buffer: BufferID, from: Int, to: Int, offset: Int)
    /// All of it belongs to what began before, which is not whole yet.
    case taken
    /// There is no room; the stream cannot go on.
    case noRoom
  }

  /// Bytes in front of a read, of which all but the pool's headroom are for a beginning.
  package static let front = 4096
  /// Bytes that stay free at a buffer's end.
  package static let tailroom = 64

  private var held: Shares
  private var stashes: [Int: [UInt8]] = [:]
  private var stashed: Shares
  private var strangers: Shares
  /// Bytes that each may have while there are any: two records of the longest kind, of a stranger one probe.
  private static let leastStash = 128 << 10
  private static let leastOfStranger = 2048

  /// - Parameters:
  ///   - heldLimit: buffers that may be kept.
  ///   - stashLimit: bytes that may be kept elsewhere; for strangers a quarter of that besides.
  package init(heldLimit: Int, stashLimit: Int) {
    held = Shares(.heldBuffers, capacity: heldLimit)
    stashed = Shares(.pendingRecords, capacity: stashLimit, least: RecordCarry.leastStash)
    strangers = Shares(
      .pendingRecordsOfStrangers, capacity: stashLimit / 4, least: RecordCarry.leastOfStranger)
  }

  /// Who has how much.
  package func shares() -> [ShareReport] { [held.report(), stashed.report(), strangers.report()] }

  /// Keeps `length` bytes at `offset` of `buffer`, of which the caller keeps its reference; the stream's part is empty.
  ///
  /// - Parameters:
  ///   - stream: tells streams apart.
  ///   - needed: bytes that the whole has.
  ///   - holder: whose stream it is.
  ///   - mayHold: whether the buffer itself may be kept.
  /// - Returns: false when there is no room for this holder.
  package mutating func keep(
    _ part: inout Part, of stream: Int, holder: Holder, buffer: BufferID, offset: Int, length: Int, needed: Int,
    mayHold: Bool, pool: BufferPool
  ) -> Bool {
    part.length = length
    part.needed = needed
    part.isCopied = false
    part.holder = holder
    if mayHold, held.take(for: holder) {
      pool.retain(buffer)
      part.place = .buffer
      part.buffer = buffer
      part.offset = offset
      return true
    }
    guard takeStash(length, holder) else {
      part = Part()
      return false
    }
    stashes[stream] = pool.bytes(buffer).slice(offset, length).array()
    part.place = .stash
    return true
  }

  /// Brings together what began before with a read, which lies at `offset` to `end` of `buffer` and has `front` bytes
  /// free before it.
  package mutating func join(
    _ part: inout Part, of stream: Int, framer: RecordFramer, buffer: BufferID, offset: Int, end: Int, pool: BufferPool
  ) -> Joined {
    guard part.place != .none else { return .inPlace(offset: offset) }
    if end - offset >= part.needed - part.length, part.length <= offset - BufferPool.headroom,
      part.place == .stash || !part.isCopied
    {
      let start = offset - part.length
      let target = pool.bytes(buffer)
      if part.place == .buffer {
        target.copy(pool.bytes(part.buffer).slice(part.offset, part.length), to: start)
      } else if let bytes = stashes[stream] {
        target.copy(bytes, to: start)
      }
      drop(&part, of: stream, pool: pool)
      return .inPlace(offset: start)
    }
    var offset = offset
    while offset < end {
      let count = min(end - offset, part.needed - part.length)
      guard extend(&part, of: stream, with: pool.bytes(buffer).slice(offset, count), pool: pool) else { return .noRoom }
      offset += count
      // Only now its length is known, perhaps, or that it is wrong.
      part.needed = needed(part, of: stream, framer, pool)
      if part.length >= part.needed { return handOver(&part, of: stream, next: offset, pool: pool) }
    }
    return .taken
  }

  private mutating func extend(
    _ part: inout Part, of stream: Int, with bytes: PacketBytes, pool: BufferPool
  ) -> Bool {
    if part.place == .stash {
      guard takeStash(bytes.count, part.holder) else { return false }
      stashes[stream, default: []] += bytes.array()
    } else {
      if part.offset + part.needed + RecordCarry.tailroom > BufferPool.bufferSize {
        guard let fresh = pool.take() else { return false }
        pool.bytes(fresh).copy(pool.bytes(part.buffer).slice(part.offset, part.length), to: BufferPool.headroom)
        pool.release(part.buffer)
        part.buffer = fresh
        part.offset = BufferPool.headroom
      }
      pool.bytes(part.buffer).copy(bytes, to: part.offset + part.length)
    }
    part.length += bytes.count
    part.isCopied = true
    return true
  }

  private mutating func takeStash(_ bytes: Int, _ holder: Holder) -> Bool {
    if case .origin = holder { strangers.take(bytes, for: holder) } else { stashed.take(bytes, for: holder) }
  }

  private func needed(_ part: Part, of stream: Int, _ framer: RecordFramer, _ pool: BufferPool) -> Int {
    if part.place == .buffer { return framer.needed(pool.bytes(part.buffer).slice(part.offset, part.length)) }
    return framer.needed(stashes[stream] ?? [])
  }

  private mutating func handOver(_ part: inout Part, of stream: Int, next: Int, pool: BufferPool) -> Joined {
    var buffer = part.buffer
    var start = part.offset
    let length = part.length
    if part.place == .buffer {
      pool.retain(buffer)
    } else {
      guard let fresh = pool.take() else { return .noRoom }
      buffer = fresh
      start = BufferPool.headroom
      pool.bytes(fresh).copy(stashes[stream] ?? [], to: start)
    }
    drop(&part, of: stream, pool: pool)
    return .whole(buffer: buffer, from: start, to: start + length, offset: next)
  }

  /// Forgets what a stream has begun.
  package mutating func drop(_ part: inout Part, of stream: Int, pool: BufferPool) {
    if part.place == .buffer {
      held.give(from: part.holder)
      pool.release(part.buffer)
    } else if part.place == .stash, case let bytes = stashes.removeValue(forKey: stream)?.count ?? 0 {
      if case .origin = part.holder {
        strangers.give(bytes, from: part.holder)
      } else {
        stashed.give(bytes, from: part.holder)
      }
    }
    part = Part()
  }
}
