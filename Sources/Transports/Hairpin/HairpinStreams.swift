import CLinux
import Glibc
import PacketIO

/// The proxy's TCP sides, and streams that have yet to prove whose they are: records of RFC 9329 in both directions.
///
/// A record is forwarded when it is whole; runs of records that a gateway announces go another way (`HairpinRuns.swift`).
/// What a stream's receiver does not take at once waits in `pendings`, `StreamSpace.bytes` at most; its sender then is not
/// read, so that the rest waits with it. When nothing moves for half a second, the sender is read again and its packets dropped,
/// so that a slow reader never keeps a partner from being heard.
extension HairpinEngine {
  /// A stream that has not proved anything: to a control port, or to a side's port.
  struct Stranger: BitwiseCopyable {
    var descriptor: Int32 = -1
    /// -1: it came to the control port.
    var side: Int32 = -1
    /// Tells completions for this stream from those of earlier ones.
    var number: UInt32 = 0
    var listen: UInt8 = 0
    var sender = Path.none.endpoint
    var framer = RecordFramer(isOriginator: false)
    var deadline = MonotonicTime(nanoseconds: 0)
  }

  /// Bytes that a stranger may send without their making a message.
  private static let strangerBytes = 2 * HairpinMessage.mostBytes
  /// A receiver that takes nothing for so long loses packets.
  private static let slowness: UInt64 = 500_000_000

  // MARK: Strangers

  /// Has streams to a side's port accepted.
  mutating func accept(_ side: Int) {
    io.accept(sides[side].listener, token: HairpinEngine.token(HairpinIO.Kind.accept, side, marks[side].port))
  }

  /// - Parameters:
  ///   - side: -1: it came to a control port; -2: to a port that is gone.
  ///   - listen: the listening address.
  mutating func completeAccept(_ completion: Completion, side: Int, listen: Int) {
    if !completion.more, side > -2 {
      // No descriptor left, for one: one that has not proved anything makes room, and the rest waits a moment.
      let hasFailed = completion.result < 0
      if hasFailed { dropOldestStranger() }
      if side < 0, controls.indices.contains(listen) {
        controls[listen].isAccepting = false
        isHeldUp = isHeldUp || hasFailed
      } else if side >= 0 {
        if hasFailed { heldUp.append(side) } else { accept(side) }
      }
    }
    guard completion.result >= 0 else { return }
    guard side > -2, let sender = TCPSocket.remote(completion.result) else {
      return HairpinSocket.close(completion.result)
    }
    if freeStrangers.isEmpty { dropOldestStranger() }
    guard let place = freeStrangers.popLast().map({ Int($0) }) else {
      return HairpinSocket.close(completion.result)
    }
    strangers[place] = Stranger(
      descriptor: completion.result, side: Int32(side), number: strangers[place].number &+ 1,
      listen: UInt8(truncatingIfNeeded: listen), sender: sender,
      deadline: clock.monotonic.adding(nanoseconds: options.proofSeconds * 1_000_000_000))
    hear(stranger: place)
  }

  private static func token(stranger place: Int, _ number: UInt32) -> Token {
    token(HairpinIO.Kind.stranger, place, number)
  }

  /// Waits for what a stranger says next.
  private mutating func hear(stranger place: Int) {
    io.pollReadable(
      strangers[place].descriptor, token: HairpinEngine.token(stranger: place, strangers[place].number))
  }

  private mutating func dropOldestStranger() {
    var oldest: Int?
    for place in 0..<strangers.count where strangers[place].descriptor >= 0 {
      if oldest.map({ strangers[place].deadline < strangers[$0].deadline }) ?? true { oldest = place }
    }
    guard let oldest else { return }
    statistics[.streamsRefused] += 1
    drop(stranger: oldest)
  }

  /// Closes those that had their time.
  mutating func sweepStrangers() {
    for place in 0..<strangers.count where strangers[place].descriptor >= 0 {
      guard clock.monotonic >= strangers[place].deadline else { continue }
      statistics[.streamsTooSlow] += 1
      drop(stranger: place)
    }
  }

  /// A side's port goes, and who came to it.
  mutating func dropStrangers(of side: Int) {
    for place in 0..<strangers.count where strangers[place].descriptor >= 0 && strangers[place].side == side {
      drop(stranger: place)
    }
  }

  mutating func drop(stranger place: Int) {
    io.cancel(HairpinEngine.token(stranger: place, strangers[place].number))
    io.ring.submit()
    TCPSocket.resetOnClose(strangers[place].descriptor)
    HairpinSocket.close(strangers[place].descriptor)
    forget(stranger: place)
  }

  private mutating func forget(stranger place: Int) {
    strangers[place].descriptor = -1
    strangers[place].number &+= 1
    strangerBytes[place] = []
    freeStrangers.append(Int32(place))
  }

  /// Reads what a stranger says.
  mutating func serveStranger(_ place: Int) {
    guard strangers[place].descriptor >= 0 else { return }
    let earlier = strangerBytes[place]
    let space = self.space.input
    space.copy(earlier, to: 0)
    let count = TCPSocket.receive(
      strangers[place].descriptor, into: space.slice(earlier.count, HairpinEngine.strangerBytes))
    if count == -EAGAIN || count == -EINTR { return hear(stranger: place) }
    guard count > 0 else {
      HairpinSocket.close(strangers[place].descriptor)
      return forget(stranger: place)
    }
    let bytes = space.slice(0, earlier.count + count)
    var offset = 0
    while true {
      switch strangers[place].framer.next(bytes, &offset, most: 1) {
      case .message(let start, let length):
        let begin = start - Superpacket.markerLength
        guard offset - begin <= HairpinMessage.mostBytes else { return malformed(place) }
        if hear(bytes.slice(begin, length + Superpacket.markerLength).array(), stranger: place) {
          return adopt(place, rest: bytes.dropFirst(offset).array())
        }
        guard strangers[place].descriptor >= 0 else { return }
      case .keepAlive: continue
      case .incomplete:
        let rest = bytes.dropFirst(offset).array()
        guard rest.count <= HairpinEngine.strangerBytes else { return malformed(place) }
        strangerBytes[place] = rest
        return hear(stranger: place)
      default: return malformed(place)
      }
    }
  }

  private mutating func malformed(_ place: Int) {
    statistics[.streamsMalformed] += 1
    drop(stranger: place)
  }

  /// Answers a stranger's message.
  /// - Returns: whether it has proved itself.
  private mutating func hear(_ bytes: [UInt8], stranger place: Int) -> Bool {
    let stranger = strangers[place]
    let side = Int(stranger.side)
    let proofs = statistics[.proved]
    let answer =
      side < 0
      ? answer(bytes, stranger.sender, listen: Int(stranger.listen), encapsulation: .tcp)
      : answer(bytes, stranger.sender, side: side, isHolder: false)
    // Who says what nobody answers has no business here.
    guard let answer, HairpinSocket.sendStream(stranger.descriptor, HairpinEngine.record(answer)) else {
      drop(stranger: place)
      return false
    }
    return statistics[.proved] != proofs
  }

  static func record(_ message: [UInt8]) -> [UInt8] {
    var record: [UInt8] = []
    record.append(number: UInt16(message.count + RecordFramer.lengthBytes))
    return record + message
  }

  /// Makes a stranger's stream its side's, in the place of an earlier one.
  private mutating func adopt(_ place: Int, rest: [UInt8]) {
    let stranger = strangers[place]
    let side = Int(stranger.side)
    closeStream(side)
    forget(stranger: place)
    sides[side].isProven = true
    sides[side].descriptor = stranger.descriptor
    sides[side].framer = stranger.framer
    carries[side] = rest
    HairpinSocket.prepareStream(stranger.descriptor)
    schedule.markReady(side, priority: sides[side].priority)
  }

  // MARK: Sides

  /// The stream is gone; its port stays, and its gateway may come back.
  mutating func closeStream(_ side: Int) {
    guard sides[side].descriptor >= 0 else { return }
    if sides[side].isPolled { io.cancel(HairpinEngine.token(HairpinIO.Kind.readable, side, marks[side].stream)) }
    if sides[side].isWatched { io.cancel(HairpinEngine.token(HairpinIO.Kind.writable, side, marks[side].stream)) }
    io.ring.submit()
    HairpinSocket.close(sides[side].descriptor)
    marks[side].stream &+= 1
    sides[side].descriptor = -1
    sides[side].isProven = false
    sides[side].isPolled = false
    sides[side].isWatched = false
    carries[side] = []
    pendings[side] = []
    late[side] = []
    schedule.remove(side)
    endRun(side)
    // Its partner may have waited for it.
    guard sides[side ^ 1].isAllocated else { return }
    schedule.remove(side ^ 1)
    schedule.markReady(side ^ 1, priority: sides[side ^ 1].priority)
  }

  /// Whether what this side says would have to wait; it is looked at again when its partner takes something.
  mutating func mustWait(_ side: Int) -> Bool {
    let partner = side ^ 1
    guard sides[partner].encapsulation == .tcp, !pendings[partner].isEmpty, sides[partner].isProven else {
      return false
    }
    let slow = sides[partner].progress.adding(nanoseconds: HairpinEngine.slowness)
    guard clock.monotonic < slow else { return false }
    schedule.park(side, until: slow, priority: sides[side].priority)
    return true
  }

  /// A side's stream takes something: what waits for it may go.
  mutating func pushPending(_ side: Int) {
    guard sides[side].descriptor >= 0 else { return }
    if !pendings[side].isEmpty {
      let sent = HairpinSocket.sendSome(sides[side].descriptor, pendings[side])
      guard sent >= 0 else { return closeStream(side) }
      if sent > 0 { sides[side].progress = clock.monotonic }
      pendings[side].removeFirst(sent)
      guard pendings[side].isEmpty else { return watch(side: side) }
    }
    guard sides[side ^ 1].isAllocated else { return }
    schedule.remove(side ^ 1)
    schedule.markReady(side ^ 1, priority: sides[side ^ 1].priority)
  }

  /// Sends whole records to a side's stream.
  /// - Returns: false when they were dropped.
  mutating func put(_ bytes: PacketBytes, to side: Int) -> Bool {
    guard sides[side].descriptor >= 0, pendings[side].isEmpty else { return false }
    let sent = HairpinSocket.sendSome(sides[side].descriptor, bytes)
    guard sent >= 0 else {
      closeStream(side)
      return false
    }
    if sent < bytes.count {
      pendings[side] = bytes.dropFirst(sent).array()
      sides[side].progress = clock.monotonic
      watch(side: side)
    }
    return true
  }

  /// Sends a message of our own, behind what waits; inside a run it has no place, and waits for its end.
  mutating func putMessage(_ message: [UInt8], to side: Int) {
    let record = HairpinEngine.record(message)
    if isInsideRun(side) {
      if late[side].count < HairpinEngine.lateBytes { late[side] += record }
    } else if pendings[side].isEmpty {
      space.output.copy(record, to: 0)
      _ = put(space.output.slice(0, record.count), to: side)
    } else if pendings[side].count < StreamSpace.bytes {
      pendings[side] += record
    }
  }

  /// Reads a side's stream once and forwards its whole records.
  /// - Returns: sealed bytes.
  mutating func serveStream(_ side: Int, limit: Int) -> Int {
    if announced[side].isOpen { return serveRun(side, limit: limit) }
    guard let buffer = io.pool.take() else {
      schedule.markReady(side, priority: sides[side].priority)
      return 0
    }
    defer { io.pool.release(buffer) }
    let input = io.pool.bytes(buffer)
    let carried = carries[side].count
    input.copy(carries[side], to: 0)
    // Behind a run comes the next, most likely: no byte of it is to be read here.
    let isExpectant = sides[side].expectsRun && carried < HairpinEngine.runRecord
    let room = isExpectant ? HairpinEngine.runRecord - carried : min(limit * 16_384, input.count - carried)
    let count = TCPSocket.receive(sides[side].descriptor, into: input.slice(carried, room))
    guard count > 0 else {
      if count == -EAGAIN { poll(side) }
      if count == -EINTR { schedule.markReady(side, priority: sides[side].priority) }
      if count != -EAGAIN && count != -EINTR { closeStream(side) }
      return 0
    }
    sides[side].lastHeard = clock.monotonic
    let octets = forwardRecords(input.slice(0, carried + count), buffer, side)
    guard sides[side].descriptor >= 0 else { return octets }
    if count == room || announced[side].isOpen {
      schedule.markReady(side, priority: sides[side].priority)
    } else {
      poll(side)
    }
    return octets
  }

  private mutating func forwardRecords(_ bytes: PacketBytes, _ buffer: BufferID, _ side: Int) -> Int {
    var offset = 0
    var octets = 0
    // Records from here on have yet to go; those before a message go before it is answered.
    var run = 0
    var packets = 0
    while true {
      let start = offset
      switch sides[side].framer.next(bytes, &offset, most: 64) {
      case .packets(let first, let length, let size, let count):
        octets += length - (count - 1) * RecordFramer.lengthBytes
        packets += count
        sides[side].expectsRun = false
        if sides[side ^ 1].encapsulation == .udp { stageRecords(bytes, buffer, first, length, size, count, side) }
      case .message(let begin, let length):
        passRun(bytes, run, start, packets, side)
        let message = bytes.slice(begin - Superpacket.markerLength, length + Superpacket.markerLength)
        if message.count == HairpinMessage.runLength, beginRun(message, side, read: bytes.count - offset) {
          octets += passFirst(bytes.dropFirst(offset), side, &offset)
        } else if !isRun(message) {
          handle(message, side)
        }
        (run, packets) = (offset, 0)
        guard sides[side].descriptor >= 0 else { return octets }
      case .keepAlive, .tooShort:
        passRun(bytes, run, start, packets, side)
        (run, packets) = (offset, 0)
      case .incomplete(let needed):
        passRun(bytes, run, offset, packets, side)
        if needed > HairpinEngine.runRecord { sides[side].expectsRun = false }
        carries[side] = bytes.dropFirst(offset).array()
        return octets
      case .fault:
        passRun(bytes, run, start, packets, side)
        statistics[.streamsMalformed] += 1
        closeStream(side)
        return octets
      }
    }
  }

  /// To a datagram side: the records become a train, moved together where they lie.
  private mutating func stageRecords(
    _ bytes: PacketBytes, _ buffer: BufferID, _ first: Int, _ length: Int, _ size: Int, _ count: Int, _ side: Int
  ) {
    let step = size + RecordFramer.lengthBytes
    let most = max(1, min(64, 65_000 / size))
    var record = 0
    while record < count {
      let start = first + record * step
      let taken = min(most, count - record)
      var end = start
      for index in 0..<taken {
        let from = first + (record + index) * step
        let size = min(size, first + length - from)
        if index > 0 { bytes.copy(bytes.slice(from, size), to: end) }
        end += size
      }
      stage(
        ForwardBatch.Run(bytes: bytes.slice(start, end - start), buffer: buffer, segmentSize: size, trafficClass: 0),
        side)
      record += taken
    }
  }

  /// To a stream: the records as they are. To a datagram side: what was staged.
  private mutating func passRun(_ bytes: PacketBytes, _ start: Int, _ end: Int, _ packets: Int, _ side: Int) {
    guard packets > 0 else { return }
    guard sides[side ^ 1].encapsulation == .tcp else { return flush() }
    let octets = end - start - packets * RecordFramer.lengthBytes
    account(side, packets: UInt64(packets), octets: octets, isTaken: passes(bytes.slice(start, end - start), side))
  }

  private mutating func passes(_ bytes: PacketBytes, _ side: Int) -> Bool? {
    sides[side ^ 1].isProven ? put(bytes, to: side ^ 1) : nil
  }

  /// - Parameter isTaken: nil: the partner is not there.
  mutating func account(_ side: Int, packets: UInt64, octets: Int, isTaken: Bool?) {
    if isTaken == true {
      sides[side].packets &+= packets
      sides[side].bytes &+= UInt64(clamping: octets)
      statistics[.forwardedPackets] &+= packets
      statistics[.forwardedBytes] &+= UInt64(clamping: octets)
    } else {
      sides[side].dropped &+= packets
      statistics[isTaken == nil ? .noPartner : .notTaken] &+= packets
    }
  }
}

/// Memory in which records are laid out for sending, and strangers are heard: one for the whole proxy.
@safe struct StreamSpace: ~Copyable {
  static let bytes = 512 << 10
  private static let inputBytes = 8192
  private let memory = FixedArray<UInt8>(repeating: 0, count: StreamSpace.bytes + StreamSpace.inputBytes)

  var output: PacketBytes { unsafe PacketBytes(UnsafeMutableRawPointer(memory.pointer), count: StreamSpace.bytes) }
  var input: PacketBytes {
    unsafe PacketBytes(UnsafeMutableRawPointer(memory.pointer) + StreamSpace.bytes, count: StreamSpace.inputBytes)
  }
}
