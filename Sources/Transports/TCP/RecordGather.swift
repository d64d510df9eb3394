import Glibc
import PacketIO

/// Gather lists for sends: in front of each record's bytes, where they were sealed, two bytes of length from a table of
/// all lengths there are, so that nothing is copied and nothing is written between the records.
///
/// The kernel reads a list when the send is submitted and not later, so lists are kept until the next submission only.
@safe struct RecordGather: ~Copyable {
  /// Pieces of a send at most: Linux's UIO_MAXIOV.
  static let most = 1024

  private var vectors: FixedArray<iovec>
  private var headers: FixedArray<msghdr>
  /// All lengths in network byte order, by number, as far as they were used; behind them the stream prefix.
  private var constants: FixedArray<UInt8>
  private static let prefixOffset = (RecordFramer.longestRecord + 1) * RecordFramer.lengthBytes

  /// Announcements of runs, for each stream that of the send in flight.
  private var announcements: FixedArray<UInt8>
  /// Of the last list: bytes of its records, lengths included; bytes of the announcement in front of them, if any, and
  /// of what that announces, which later lists may have to finish.
  private(set) var run = (bytes: 0, announcement: 0, announced: 0)
  /// A run that has less is not worth a word.
  private static let leastRun = 32 << 10
  private let announcement: RunAnnouncement?
  private let announcementBytes: Int

  /// - Parameters:
  ///   - sends: lists that are kept; when there are as many, `needsSubmission`.
  ///   - announcing: streams on which runs may be announced, by place.
  ///   - announcement: how; nil: they are not.
  init(sends: Int, announcing: Int = 0, _ announcement: RunAnnouncement? = nil) {
    self.announcement = announcement
    announcementBytes = announcement.map { $0.length + RecordFramer.lengthBytes } ?? 0
    announcements = FixedArray(repeating: 0, count: announcing * announcementBytes)
    unsafe vectors = FixedArray(capacity: sends * 64 + RecordGather.most)
    unsafe headers = FixedArray(capacity: sends)
    constants = FixedArray(repeating: 0, count: RecordGather.prefixOffset + RecordFramer.prefix.count)
    for (index, byte) in RecordFramer.prefix.enumerated() { constants[RecordGather.prefixOffset + index] = byte }
  }

  /// No list more can be kept: submit, then `removeAll`.
  var needsSubmission: Bool {
    unsafe headers.isFull || vectors.capacity - vectors.count < RecordGather.most
  }

  mutating func removeAll() {
    unsafe headers.removeAll()
    unsafe vectors.removeAll()
  }

  /// Sends what waits for a stream, as much as one list takes; see `gather`.
  /// - Returns: false when nothing waits.
  mutating func send(
    _ queue: SendQueues.Queue, of queues: borrowing SendQueues, prefix: Int, announcing: Int?, left: Int,
    to place: Int, _ streams: inout StreamTable, token: Token, io: inout WorkerIO
  ) -> Bool {
    if needsSubmission {
      io.ring.submit()
      removeAll()
    }
    guard
      let message = unsafe gather(queue, of: queues, prefix: prefix, announcing: announcing, left: left, pool: io.pool)
    else { return false }
    unsafe streams.submitSend(place, message, token: token, ring: &io.ring)
    return true
  }

  /// Makes one list of the queue's records, as many as fit, behind what is left of the prefix.
  ///
  /// - Parameters:
  ///   - prefix: bytes of the stream prefix that have yet to go.
  ///   - announcing: the stream's place, where a long run is to be announced. A message then ends the list, because
  ///     nobody looks into a run.
  ///   - left: bytes of an announced run that have yet to go, where the list ends; 0: there is none.
  /// - Returns: a `struct msghdr`; nil when there is nothing to send. `needsSubmission` must be false.
  @unsafe mutating func gather(
    _ queue: SendQueues.Queue, of queues: borrowing SendQueues, prefix: Int, announcing: Int? = nil,
    left: Int = 0, pool: BufferPool
  ) -> UnsafePointer<msghdr>? {
    let first = unsafe vectors.count
    run = (0, 0, 0)
    if announcing != nil { unsafe vectors.append(iovec(iov_base: nil, iov_len: 0)) }
    if prefix > 0 { constant(RecordGather.prefixOffset + RecordFramer.prefix.count - prefix, prefix) }
    var index = queues.first(of: queue)
    var skip = queue.skip
    while let node = index, left == 0 || run.bytes < left {
      let train = queues.train(node)
      let isMessage = announcing != nil && queues.isMessage(node)
      if isMessage, run.bytes > 0 { break }
      guard unsafe gatherTrain(train, skip: skip, from: first, pool: pool) else { break }
      if isMessage {
        run = (0, 0, 0)
        break
      }
      skip = 0
      index = queues.next(after: node)
    }
    guard unsafe vectors.count > first + (announcing == nil ? 0 : 1) else {
      if announcing != nil { _ = unsafe vectors.popLast() }
      return nil
    }
    if let announcing, run.bytes >= RecordGather.leastRun {
      let whole = wholeRun(queue, of: queues)
      if whole.bytes >= run.bytes { unsafe announce(whole, announcing, first) }
    }
    var header = unsafe msghdr()
    unsafe header.msg_iov = vectors.pointer + first
    unsafe header.msg_iovlen = vectors.count - first
    unsafe headers.append(header)
    return unsafe UnsafePointer(headers.pointer + headers.count - 1)
  }

  /// False when not all of the train fitted.
  @unsafe private mutating func gatherTrain(
    _ train: Superpacket, skip: Int, from first: Int, pool: BufferPool
  ) -> Bool {
    let bytes = train.bytes(in: pool)
    let size = Int(train.segmentSize)
    let step = size + Int(train.gap)
    let record = size + RecordFramer.lengthBytes
    var gone = skip % record
    var offset = skip / record * step
    while offset < bytes.count {
      guard unsafe RecordGather.most - (vectors.count - first) >= 2 else { return false }
      let length = min(size, bytes.count - offset)
      let front = max(RecordFramer.lengthBytes - gone, 0)
      if front > 0 {
        let whole = length + RecordFramer.lengthBytes
        let place = whole * RecordFramer.lengthBytes
        // Always the same bytes, so a send in flight does not mind.
        constants[place] = UInt8(truncatingIfNeeded: whole >> 8)
        constants[place + 1] = UInt8(truncatingIfNeeded: whole)
        constant(place + RecordFramer.lengthBytes - front, front)
      }
      let sent = max(gone - RecordFramer.lengthBytes, 0)
      let rest = bytes.slice(offset + sent, length - sent)
      unsafe vectors.append(iovec(iov_base: rest.pointer, iov_len: rest.count))
      run.bytes += front + rest.count
      gone = 0
      offset += step
    }
    return true
  }

  /// What waits up to the first message, also what no longer fits into this send: an announcement for each send is one
  /// read more for the other end.
  private func wholeRun(
    _ queue: SendQueues.Queue, of queues: borrowing SendQueues
  ) -> (bytes: Int, packets: Int) {
    var run = (bytes: 0, packets: 0)
    var skip = queue.skip
    var index = queues.first(of: queue)
    while let node = index {
      let train = queues.train(node)
      let bytes = train.recordBytes - skip
      guard !queues.isMessage(node), run.bytes + bytes <= announcement?.longestRun ?? 0 else { break }
      run.bytes += bytes
      run.packets += train.datagrams - skip / (Int(train.segmentSize) + RecordFramer.lengthBytes)
      skip = 0
      index = queues.next(after: node)
    }
    return run
  }

  @unsafe private mutating func announce(_ whole: (bytes: Int, packets: Int), _ place: Int, _ first: Int) {
    guard let announcement else { return }
    let offset = place * announcementBytes
    announcements[offset] = UInt8(truncatingIfNeeded: announcementBytes >> 8)
    announcements[offset + 1] = UInt8(truncatingIfNeeded: announcementBytes)
    for (index, byte) in announcement.message(whole.bytes, whole.packets).enumerated() {
      announcements[offset + RecordFramer.lengthBytes + index] = byte
    }
    unsafe vectors[first] = iovec(
      iov_base: announcements.pointer + offset, iov_len: announcementBytes)
    run.announcement = announcementBytes
    run.announced = whole.bytes
  }

  private mutating func constant(_ offset: Int, _ count: Int) {
    unsafe vectors.append(iovec(iov_base: constants.pointer + offset, iov_len: count))
  }
}
