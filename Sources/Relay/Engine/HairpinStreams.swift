import Glibc
import PacketIO
import Transports

/// The proxy's TCP sides: records of RFC 9329 in both directions.
///
/// A record is forwarded when it is whole; runs of records that a gateway announces go another way (`HairpinRuns.swift`).
/// What a stream's receiver does not take at once waits in `pendings`, `StreamSpace.bytes` at most; its sender then is not
/// read, so that the rest waits with it. When nothing moves for half a second, the sender is read again and its packets dropped,
/// so that a slow reader never keeps a partner from being heard.
extension HairpinEngine {
  /// A receiver that takes nothing for so long loses packets.
  private static let slowness: UInt64 = 500_000_000

  /// The stream is gone; its port stays, and its gateway may come back.
  mutating func closeStream(_ side: Int) {
    guard sides[side].descriptor >= 0 else { return }
    if sides[side].isPolled { io.cancel(HairpinEngine.token(.readable, side, marks[side].stream)) }
    if sides[side].isWatched { io.cancel(HairpinEngine.token(.writable, side, marks[side].stream)) }
    io.ring.submit()
    KernelSocket.close(sides[side].descriptor)
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

  static func record(_ message: [UInt8]) -> [UInt8] {
    var record: [UInt8] = []
    record.append(number: UInt16(message.count + RecordFramer.lengthBytes))
    return record + message
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
      let sent = TCPSocket.send(sides[side].descriptor, pendings[side])
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
    let sent = TCPSocket.send(sides[side].descriptor, bytes)
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
