import Glibc
import PacketIO

/// What waits for each stream of a link, and how far it has gone.
///
/// 1. `append` queues a train; 2. `flush` makes one gathered send of what waits for each stream that has something, of
/// which one is in flight at a time, because two could overtake each other; 3. `complete` takes what has gone out of the
/// queue.
struct StreamSends: ~Copyable {
  /// One stream's.
  struct Row: BitwiseCopyable {
    var queue = SendQueues.Queue()
    /// Bytes of the stream prefix that have yet to go.
    var prefix = 0
    /// Bytes of an announcement in front of the send in flight, and of the announced run that have yet to go.
    var announcement = 0
    var announced = 0
    /// It is on the list of those that have something to send.
    var isReady = false
  }

  /// Gather lists between two submissions at most.
  private static let gathers = 128

  private var rows: FixedArray<Row>
  private var queues: SendQueues
  private var gather: RecordGather
  /// Whether runs of records are announced, for an end that need not look at them.
  private let announcesRuns: Bool
  /// Streams that may have something to send since the last look.
  private var ready: FixedArray<Int32>

  /// - Parameters:
  ///   - trains: in all queues together.
  ///   - trainsPerStream: in one.
  init(streams: Int, trains: Int, trainsPerStream: Int, announcement: RunAnnouncement?) {
    announcesRuns = announcement != nil
    gather = RecordGather(sends: StreamSends.gathers, announcing: announcesRuns ? streams : 0, announcement)
    queues = SendQueues(capacity: trains, trainsPerStream: trainsPerStream)
    rows = FixedArray(repeating: Row(), count: streams)
    ready = FixedArray(capacity: streams)
  }

  func shares() -> ShareReport { queues.shares() }

  func isEmpty(_ place: Int) -> Bool { rows[place].queue.isEmpty }

  /// A stream begins.
  mutating func begin(_ place: Int, isOriginator: Bool) {
    rows[place] = Row()
    rows[place].prefix = isOriginator ? RecordFramer.prefix.count : 0
  }

  // MARK: Sending

  /// False when the queue is full; nothing is taken then.
  mutating func append(_ train: Superpacket, to place: Int, isMessage: Bool, _ streams: borrowing StreamTable) -> Bool {
    guard queues.append(train, to: &rows[place].queue, of: streams[place].holder, isMessage: isMessage) else {
      return false
    }
    if !rows[place].isReady, !streams[place].isSending, streams[place].state == .open {
      rows[place].isReady = true
      ready.append(Int32(truncatingIfNeeded: place))
    }
    return true
  }

  /// - Parameter token: what the completion of a send to the stream at a place carries.
  mutating func flush(_ streams: inout StreamTable, io: inout WorkerIO, token: (Int) -> Token) {
    for index in 0..<ready.count {
      let place = Int(ready[index])
      rows[place].isReady = false
      submit(place, &streams, token: token(place), io: &io)
    }
    ready.removeAll()
  }

  /// Sends what waits for one stream, unless a send is in flight.
  mutating func submit(_ place: Int, _ streams: inout StreamTable, token: Token, io: inout WorkerIO) {
    guard streams[place].isConnected, !streams[place].isSending else { return }
    // What was sealed stands for what the queue still has.
    if streams.submitSealed(place, token: token, ring: &io.ring) { return }
    guard streams[place].state == .open else { return }
    let row = rows[place]
    // In the middle of a record, or of a run, there is no place for an announcement.
    let isBetween = row.prefix == 0 && row.announced == 0 && queues.isBetweenRecords(row.queue)
    let isSent = gather.send(
      row.queue, of: queues, prefix: row.prefix, announcing: announcesRuns && isBetween ? place : nil,
      left: row.announced, to: place, &streams, token: token, io: &io)
    guard isSent, gather.run.announcement > 0 else { return }
    rows[place].announcement = gather.run.announcement
    rows[place].announced = gather.run.announced
  }

  /// - Returns: why the stream cannot go on, a positive errno; nil: it can.
  mutating func complete(_ place: Int, result: Int32, pool: BufferPool, figures: inout TCPFigures) -> Int32? {
    guard result > 0 else {
      // Nothing has gone, so nothing was announced.
      if rows[place].announcement > 0 { (rows[place].announcement, rows[place].announced) = (0, 0) }
      if [-EAGAIN, -EINTR].contains(result) { return nil }
      return result < 0 ? -result : EPIPE
    }
    // The kernel cuts a send only where the stream ends.
    guard Int(result) >= rows[place].announcement else { return EPIPE }
    advance(place, by: Int(result), pool: pool, figures: &figures)
    return nil
  }

  private mutating func advance(_ place: Int, by sent: Int, pool: BufferPool, figures: inout TCPFigures) {
    var bytes = sent
    let prefix = min(rows[place].prefix, bytes)
    rows[place].prefix -= prefix
    bytes -= prefix + rows[place].announcement
    rows[place].announcement = 0
    rows[place].announced = max(rows[place].announced - bytes, 0)
    figures.sends &+= 1
    while let node = queues.advance(&rows[place].queue, by: &bytes) {
      if node.isMessage {
        figures.messagesSent &+= 1
      } else {
        figures.sentTrains &+= 1
        figures.sentDatagrams &+= UInt64(node.train.datagrams)
      }
      pool.release(node.train.buffer)
    }
  }

  // MARK: End

  /// What waited for a stream that has ended is lost.
  mutating func discard(_ place: Int, pool: BufferPool, figures: inout TCPFigures) {
    while let node = queues.removeFirst(of: &rows[place].queue) {
      if node.isMessage { figures.messagesFailed &+= 1 } else { figures.sendLost &+= UInt64(node.train.datagrams) }
      pool.release(node.train.buffer)
    }
  }
}
