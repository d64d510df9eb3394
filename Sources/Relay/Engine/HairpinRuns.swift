import Glibc
import PacketIO
import Transports

/// Runs of records that a gateway announces, from its stream to its partner's: the kernel moves them through a pipe, and
/// they are never in the process. Where no pipe is to be had they are copied.
///
/// A partner's stream that takes nothing of a run for `patience` is closed: inside a run nothing can be dropped, and its
/// sender must be heard again. A stream that ends inside its run takes the partner's with it, which is inside a record;
/// what is left of a run whose receiver has gone is dropped and counted.
extension HairpinEngine {
  /// Bytes of the record that announces a run.
  static let runRecord = HairpinMessage.runLength + RecordFramer.lengthBytes
  /// Bytes of messages of our own that wait for a run's end at most.
  static let lateBytes = 1024
  /// Less than the second and a half in which a gateway that gets no answer to its holds gives up: those wait behind the
  /// run, and the sender is to stay.
  private static let patience: UInt64 = 1_000_000_000

  func isRun(_ message: PacketBytes) -> Bool {
    guard message.count == HairpinMessage.runLength, case .run? = HairpinMessage(message.array()) else { return false }
    return true
  }

  /// Begins a run, where the partner has a stream and there is room for what waits for it; else its records are read like
  /// any others.
  /// - Parameter read: bytes that were read together with the announcement.
  mutating func beginRun(_ message: PacketBytes, _ side: Int, read: Int) -> Bool {
    let partner = side ^ 1
    guard sides[partner].encapsulation == .tcp, sides[partner].isProven, sides[partner].descriptor >= 0,
      pendings[partner].count + read <= StreamSpace.bytes,
      case .run(let bytes, let packets)? = HairpinMessage(message.array())
    else { return false }
    announced[side] = AnnouncedRun(bytes: Int(bytes), packets: Int(packets), stream: marks[partner].stream)
    return true
  }

  /// Whether a run on its way to this side's stream has begun and is not over.
  func isInsideRun(_ side: Int) -> Bool {
    announced[side ^ 1].isPartial && announced[side ^ 1].stream == marks[side].stream
  }

  private func hasReceiver(_ side: Int) -> Bool {
    sides[side ^ 1].descriptor >= 0 && announced[side].stream == marks[side ^ 1].stream
  }

  /// Books bytes of a run that have left the stream.
  /// - Returns: sealed bytes.
  private mutating func book(_ side: Int, _ count: Int, isTaken: Bool?) -> Int {
    let run = announced[side]
    let before = run.amount(run.bytes - run.left - count)
    let after = run.amount(run.bytes - run.left)
    let octets = after.octets - before.octets
    account(side, packets: UInt64(clamping: after.packets - before.packets), octets: octets, isTaken: isTaken)
    sides[side].lastHeard = clock.monotonic
    return octets
  }

  /// Passes what of a run was read together with its announcement; `offset` moves behind it.
  /// - Returns: sealed bytes.
  mutating func passFirst(_ rest: PacketBytes, _ side: Int, _ offset: inout Int) -> Int {
    let count = min(rest.count, announced[side].left)
    offset += count
    announced[side].left -= count
    let isTaken = count == 0 || append(rest.slice(0, count), to: side ^ 1)
    let octets = book(side, count, isTaken: isTaken)
    finishRun(side)
    return octets
  }

  /// Sends bytes of a run behind what waits; `beginRun` has seen to it that there is room.
  private mutating func append(_ bytes: PacketBytes, to side: Int) -> Bool {
    guard !pendings[side].isEmpty else { return put(bytes, to: side) }
    pendings[side] += bytes.array()
    return true
  }

  /// Moves more of a run.
  /// - Returns: sealed bytes.
  mutating func serveRun(_ side: Int, limit: Int) -> Int {
    let partner = side ^ 1
    guard hasReceiver(side) else { return discard(side) }
    // `mustWait` lets it through after a while: then it is the receiver that goes.
    guard pendings[partner].isEmpty else { return stall(side) }
    if announced[side].pipe == nil { announced[side].pipe = pipes.take() }
    guard let pipe = announced[side].pipe else { return copyRun(side, limit: limit) }
    var octets = 0
    var budget = limit * 16_384
    var isDrained = false
    while true {
      if announced[side].inPipe > 0 {
        let moved = HairpinPipes.move(pipe.output, sides[partner].descriptor, announced[side].inPipe)
        guard moved > 0 || moved == -EAGAIN || moved == -EINTR else {
          closeStream(partner)
          return octets
        }
        if moved > 0 {
          sides[partner].progress = clock.monotonic
          announced[side].inPipe -= moved
        }
        if announced[side].inPipe > 0 {
          _ = stall(side)
          return octets
        }
      }
      guard announced[side].left > 0 else { break }
      guard budget > 0 else {
        schedule.markReady(side, priority: sides[side].priority)
        break
      }
      let wanted = min(announced[side].left, budget)
      // After less than was asked for the stream is empty, most likely: the poll says at once when it is not.
      let count = isDrained ? -Int(EAGAIN) : HairpinPipes.move(sides[side].descriptor, pipe.input, wanted)
      if count == -EAGAIN {
        poll(side)
        break
      }
      guard count > 0 else {
        closeStream(side)
        return octets
      }
      isDrained = count < wanted
      // A stall is counted from here.
      if announced[side].inPipe == 0 { sides[partner].progress = clock.monotonic }
      announced[side].left -= count
      announced[side].inPipe += count
      budget -= count
      octets += book(side, count, isTaken: true)
    }
    releasePipe(side)
    finishRun(side)
    return octets
  }

  /// The receiver takes nothing now: waits until it does, or has had its time.
  private mutating func stall(_ side: Int) -> Int {
    let partner = side ^ 1
    let end = sides[partner].progress.adding(nanoseconds: HairpinEngine.patience)
    guard clock.monotonic < end else {
      statistics[.streamsStalled] += 1
      closeStream(partner)
      return 0
    }
    watch(side: partner)
    schedule.park(side, until: end, priority: sides[side].priority)
    return 0
  }

  /// Without a pipe.
  private mutating func copyRun(_ side: Int, limit: Int) -> Int {
    guard let bytes = readRun(side, limit: limit * 16_384) else { return 0 }
    defer { io.pool.release(bytes.buffer) }
    let isTaken = put(io.pool.bytes(bytes.buffer).slice(0, bytes.count), to: side ^ 1)
    let octets = book(side, bytes.count, isTaken: isTaken)
    finishRun(side)
    return octets
  }

  /// The receiver is gone.
  private mutating func discard(_ side: Int) -> Int {
    guard let bytes = readRun(side, limit: .max) else { return 0 }
    io.pool.release(bytes.buffer)
    let octets = book(side, bytes.count, isTaken: nil)
    finishRun(side)
    return octets
  }

  /// Takes bytes of a run; the caller owns the buffer. Nil when there are none.
  private mutating func readRun(_ side: Int, limit: Int) -> (buffer: BufferID, count: Int)? {
    guard let buffer = io.pool.take() else {
      schedule.markReady(side, priority: sides[side].priority)
      return nil
    }
    let bytes = io.pool.bytes(buffer)
    let room = min(limit, announced[side].left, bytes.count)
    let count = TCPSocket.receive(sides[side].descriptor, into: bytes.slice(0, room))
    guard count > 0 else {
      io.pool.release(buffer)
      if count == -EAGAIN { poll(side) } else if count != -EINTR { closeStream(side) }
      if count == -EINTR { schedule.markReady(side, priority: sides[side].priority) }
      return nil
    }
    announced[side].left -= count
    schedule.markReady(side, priority: sides[side].priority)
    return (buffer, count)
  }

  /// When all of a run has gone, the stream is read as before, and our own messages go.
  private mutating func finishRun(_ side: Int) {
    guard announced[side].isOpen, announced[side].left == 0, announced[side].inPipe == 0 else { return }
    let hadReceiver = hasReceiver(side)
    statistics[.runs] += hadReceiver ? 1 : 0
    releasePipe(side)
    announced[side] = AnnouncedRun()
    guard sides[side].descriptor >= 0 else { return }
    sides[side].expectsRun = true
    schedule.markReady(side, priority: sides[side].priority)
    let partner = side ^ 1
    guard hadReceiver, !late[partner].isEmpty else { return }
    let messages = late[partner]
    late[partner] = []
    pendings[partner] += messages
    pushPending(partner)
  }

  private mutating func releasePipe(_ side: Int) {
    guard let pipe = announced[side].pipe else { return }
    pipes.give(pipe, isEmpty: announced[side].inPipe == 0)
    announced[side].pipe = nil
  }

  /// A side's stream has ended: a run from it never ends, and what is in the pipe of one to it goes nowhere.
  mutating func endRun(_ side: Int) {
    let partner = side ^ 1
    let mustFollow = announced[side].isPartial && hasReceiver(side)
    releasePipe(side)
    announced[side] = AnnouncedRun()
    sides[side].expectsRun = false
    if announced[partner].inPipe > 0 {
      releasePipe(partner)
      announced[partner].inPipe = 0
      finishRun(partner)
    }
    if mustFollow { closeStream(partner) }
  }
}
