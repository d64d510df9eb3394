import PacketIO
import Transports

/// Streams by which gateways are enrolled at an identity relay: what waits for each, and which are to be read.
///
/// All pairs of a gateway share its stream, so a sender is never made to wait for a receiver. What a receiver does not
/// take at once waits here, `mostWaiting` bytes at most and within what all may have together; when it has taken nothing
/// for half a second, or there is no more room, what is for it is dropped. Nobody else loses anything.
///
/// Records for one stream are laid out one behind the other, and sent when some for another come, or at the end of a batch.
struct GatewayStreams: ~Copyable {
  /// One stream's.
  struct Row {
    /// A gateway has enrolled by it.
    var isOpen = false
    var path = RelayPath.tcp
    /// What it has not taken yet.
    var queue = ByteQueue()
    /// When it last took something of that.
    var progress = MonotonicTime(nanoseconds: 0)
    var lastHeard = MonotonicTime(nanoseconds: 0)
    /// When its other end was last asked who he is.
    var lastAsked = MonotonicTime(nanoseconds: 0)
    /// It is on the list of those that are to be read.
    var isReady = false
    var rest: Rest?
  }

  /// Records that were read of a stream and wait for its next turn; it holds the buffer.
  struct Rest: BitwiseCopyable {
    let buffer: BufferID
    let start: Int
    let end: Int
  }

  /// How often a receiver had more waiting than it may.
  private(set) var refused: UInt64 = 0

  /// Bytes that wait for one stream, and for all together: of what is left of these, one may have half.
  static let mostWaiting = 1 << 20
  static let mostInAll = 64 << 20
  /// Buffers of which a rest may wait: the pool is everybody's.
  private static let mostRests = 32
  /// A receiver that takes nothing for so long loses packets.
  private static let slowness: UInt64 = 500_000_000
  /// Bytes that are laid out before they are sent; and those of records that are worth to be sent from where they lie.
  private static let mostStaged = 128 << 10
  private static let largeEnough = 8 << 10

  /// By their places in the table of all streams, as far as any was used.
  private(set) var rows: [Row] = []
  private var ready: [Int] = []
  private var nextReady = 0
  private var rests = 0
  private(set) var waiting = 0
  private let space = StreamSpace()
  private var stagedFor = -1
  private var staged = 0
  /// Streams for which something waits: it is to be noticed when they take more.
  private var blocked: [Int] = []
  /// Streams of which a send has failed: they are to be closed.
  private var failed: [Int] = []

  // MARK: Which there are

  func isOpen(_ place: Int) -> Bool { place < rows.count && rows[place].isOpen }
  func path(_ place: Int) -> RelayPath { place < rows.count ? rows[place].path : .tcp }

  /// Places of all that are open.
  var open: [Int] { rows.indices.filter { rows[$0].isOpen } }

  private mutating func makeRow(_ place: Int) {
    while rows.count <= place { rows.append(Row()) }
  }

  mutating func begin(_ place: Int, _ path: RelayPath, now: MonotonicTime) {
    makeRow(place)
    let wasReady = rows[place].isReady
    rows[place] = Row(isOpen: true, path: path, lastHeard: now, isReady: wasReady)
  }

  /// Forgets a stream, with what waits for it and of it.
  mutating func end(_ place: Int, pool: BufferPool) {
    guard place < rows.count else { return }
    if let rest = takeRest(place) { pool.release(rest.buffer) }
    waiting -= rows[place].queue.count
    if stagedFor == place { (stagedFor, staged) = (-1, 0) }
    let wasReady = rows[place].isReady
    rows[place] = Row(isReady: wasReady)
  }

  mutating func heard(_ place: Int, now: MonotonicTime) { rows[place].lastHeard = now }

  /// Streams that have said nothing for so many seconds.
  func silent(seconds: UInt16, now: MonotonicTime) -> [Int] {
    open.filter { now.nanoseconds(since: rows[$0].lastHeard) > UInt64(truncatingIfNeeded: seconds) * 1_000_000_000 }
  }

  /// Whether the other end may be asked who he is: once a second.
  mutating func mayAsk(_ place: Int, now: MonotonicTime) -> Bool {
    makeRow(place)
    guard now.nanoseconds(since: rows[place].lastAsked) >= 1_000_000_000 else { return false }
    rows[place].lastAsked = now
    return true
  }

  // MARK: Which are to be read

  var hasReady: Bool { nextReady < ready.count }
  var readyCount: Int { ready.count - nextReady }

  mutating func markReady(_ place: Int) {
    guard isOpen(place), !rows[place].isReady else { return }
    rows[place].isReady = true
    ready.append(place)
  }

  /// The one that has waited for longest.
  mutating func takeReady() -> Int? {
    guard hasReady else { return nil }
    let place = ready[nextReady]
    nextReady += 1
    if nextReady == ready.count || nextReady >= 1024 {
      ready.removeFirst(nextReady)
      nextReady = 0
    }
    rows[place].isReady = false
    return place
  }

  /// Whether a rest may wait.
  var hasRoomForRest: Bool { rests < GatewayStreams.mostRests }

  /// Has what is left of a read wait.
  mutating func keep(_ rest: Rest, of place: Int, pool: BufferPool) {
    pool.retain(rest.buffer)
    rows[place].rest = rest
    rests += 1
    markReady(place)
  }

  /// What waits of a stream; the caller releases its buffer.
  mutating func takeRest(_ place: Int) -> Rest? {
    guard let rest = rows[place].rest else { return nil }
    rows[place].rest = nil
    rests -= 1
    return rest
  }

  // MARK: Sending

  /// Whether a receiver may have so many bytes more.
  mutating func mayTake(_ bytes: Int, _ place: Int, now: MonotonicTime) -> Bool {
    guard isOpen(place) else { return false }
    let waits = rows[place].queue.count
    if waits == 0 { return true }
    let most = min(GatewayStreams.mostWaiting, (GatewayStreams.mostInAll - waiting) / 2 + waits)
    if waits + bytes <= most, now.nanoseconds(since: rows[place].progress) < GatewayStreams.slowness { return true }
    refused &+= 1
    return false
  }

  /// Lays out datagrams as records, for a stream that may take them.
  mutating func stage(_ run: ForwardBatch.Run, to place: Int, _ table: inout StreamTable, now: MonotonicTime) {
    for segment in run.segments {
      let record = segment.length + RecordFramer.lengthBytes
      makeRoom(record, for: place, &table, now: now)
      let output = space.output
      output.store16(UInt16(truncatingIfNeeded: record), staged)
      output.copy(run.bytes.slice(segment.start, segment.length), to: staged + RecordFramer.lengthBytes)
      staged += record
    }
  }

  /// Takes records as they are, their lengths included.
  mutating func stage(records: PacketBytes, to place: Int, _ table: inout StreamTable, now: MonotonicTime) {
    if records.count >= GatewayStreams.largeEnough {
      flush(&table, now: now)
      return put(records, to: place, &table, now: now)
    }
    makeRoom(records.count, for: place, &table, now: now)
    space.output.copy(records, to: staged)
    staged += records.count
  }

  /// A message of the relay's own; few are said, and they go behind what waits.
  mutating func say(_ message: [UInt8], to place: Int, _ table: inout StreamTable, now: MonotonicTime) {
    guard isOpen(place), rows[place].queue.count < 2 * GatewayStreams.mostWaiting else { return }
    let record = StreamForwarding.record(message)
    makeRoom(record.count, for: place, &table, now: now)
    space.output.copy(record, to: staged)
    staged += record.count
  }

  private mutating func makeRoom(_ bytes: Int, for place: Int, _ table: inout StreamTable, now: MonotonicTime) {
    if stagedFor != place || staged + bytes > GatewayStreams.mostStaged { flush(&table, now: now) }
    stagedFor = place
  }

  /// Sends what is laid out.
  mutating func flush(_ table: inout StreamTable, now: MonotonicTime) {
    let (place, bytes) = (stagedFor, staged)
    (stagedFor, staged) = (-1, 0)
    guard bytes > 0, isOpen(place) else { return }
    put(space.output.slice(0, bytes), to: place, &table, now: now)
  }

  private mutating func put(_ bytes: PacketBytes, to place: Int, _ table: inout StreamTable, now: MonotonicTime) {
    var sent = 0
    if rows[place].queue.isEmpty {
      sent = table.send(place, bytes)
      guard sent >= 0 else {
        failed.append(place)
        return
      }
      // A stall is counted from here.
      rows[place].progress = now
    }
    if sent < bytes.count {
      rows[place].queue.append(bytes.dropFirst(sent))
      waiting += bytes.count - sent
    }
    note(place, table)
  }

  private mutating func note(_ place: Int, _ table: borrowing StreamTable) {
    if !rows[place].queue.isEmpty || table.hasSealed(place) { blocked.append(place) }
  }

  /// The stream takes something.
  mutating func push(_ place: Int, _ table: inout StreamTable, now: MonotonicTime) {
    guard isOpen(place) else { return }
    guard !rows[place].queue.isEmpty else {
      if table.flush(place) { note(place, table) } else { failed.append(place) }
      return
    }
    let (before, sealed) = (rows[place].queue.count, table.sealedBytes(place))
    let sent = rows[place].queue.send(to: place, &table)
    guard sent >= 0 else { return failed.append(place) }
    waiting -= before - rows[place].queue.count
    if sent > 0 || table.sealedBytes(place) < sealed { rows[place].progress = now }
    note(place, table)
  }

  /// Streams that take no more now.
  mutating func takeBlocked() -> [Int] {
    guard !blocked.isEmpty else { return [] }
    defer { blocked = [] }
    return blocked
  }

  /// Streams that are to be closed.
  mutating func takeFailed() -> [Int] {
    guard !failed.isEmpty else { return [] }
    defer { failed = [] }
    return failed
  }
}
