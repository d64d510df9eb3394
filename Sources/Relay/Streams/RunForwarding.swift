import Glibc
import PacketIO
import Transports

/// Runs of records that a gateway announces, from its stream to its partner's: the kernel moves them through a pipe, and
/// they are never in the process. Where no pipe is to be had they are copied.
///
/// 1. `begin` takes an announcement; 2. `passFirst` passes what was read together with it; 3. `serve` moves the rest;
/// 4. `finish` has the stream read as before. A partner's stream that takes nothing of a run for `stallLimit` is closed:
/// inside a run nothing can be dropped, and its sender must be served again. A stream that ends inside its run takes the
/// partner's with it, which is inside a record; what is left of a run whose receiver has gone is dropped and counted.
enum RunForwarding {
  /// Bytes of the record that announces a run.
  static let runRecord = HairpinMessage.runLength + RecordFramer.lengthBytes
  /// Bytes of messages of our own that wait for a run's end at most.
  static let delayedBytes = 1024
  /// Shorter runs than gateways announce count as messages: each costs as much as a long one.
  private static let freeBytes: UInt64 = 16 << 10
  /// Less than the second and a half in which a gateway that gets no answer to its holds gives up: those wait behind the
  /// run, and the sender is to stay.
  private static let stallLimit: UInt64 = 1_000_000_000

  // MARK: Beginning

  static func isRun(_ message: PacketBytes) -> Bool {
    guard HairpinMessage.mayBeRun(message), case .run? = HairpinMessage(message.array()) else { return false }
    return true
  }

  /// Begins a run, where the partner has a stream and there is room for what waits for it; else its records are read like
  /// any others.
  /// - Parameter read: bytes that were read together with the announcement.
  static func begin(
    _ message: PacketBytes, _ side: SideIndex, read: Int, _ streams: borrowing StreamForwarding, _ engine: inout Engine
  ) -> Bool {
    let partner = side.partner
    guard engine.sides[partner].port.encapsulation == .tcp, engine.sides[partner].holder.isProven,
      let receiver = engine.sides[partner].stream.place, let sender = engine.sides[side].stream.place,
      streams.table.isPlain(receiver), streams.table.isPlain(sender),
      engine.sides[partner].stream.queue.count + read <= StreamSpace.bytes,
      case .run(let bytes, let packets)? = HairpinMessage(message.array()),
      bytes >= freeBytes || engine.state.admitsMessage(of: side)
    else { return false }
    engine.sides[side].stream.run = AnnouncedRun(
      bytes: Int(bytes), packets: Int(packets), stream: streams.table[receiver].number)
    return true
  }

  /// Whether a run on its way to this side's stream has begun and is not over.
  static func isInside(_ side: SideIndex, _ streams: borrowing StreamForwarding, _ engine: borrowing Engine) -> Bool {
    guard let place = engine.sides[side].stream.place else { return false }
    let run = engine.sides[side.partner].stream.run
    return run.isPartial && run.stream == streams.table[place].number
  }

  /// The place of the stream for which a side's run is; nil: it has gone.
  private static func receiver(_ side: SideIndex, _ streams: borrowing StreamForwarding, _ engine: borrowing Engine)
    -> Int?
  {
    guard let place = engine.sides[side.partner].stream.place,
      engine.sides[side].stream.run.stream == streams.table[place].number
    else { return nil }
    return place
  }

  /// Books bytes of a run that have left the stream.
  /// - Returns: bytes that are charged: all, because how many of them are lengths nobody has looked at.
  private static func book(_ side: SideIndex, _ count: Int, isTaken: Bool?, _ engine: inout Engine) -> Int {
    let run = engine.sides[side].stream.run
    let packets = run.packets(in: run.bytes - run.left) - run.packets(in: run.bytes - run.left - count)
    engine.state.account(side, packets: UInt64(clamping: packets), octets: count, isTaken: isTaken)
    engine.sides[side].holder.lastHeard = engine.clock.monotonic
    return count
  }

  /// Passes what of a run was read together with its announcement; `offset` moves behind it.
  /// - Returns: sealed bytes.
  static func passFirst(
    _ rest: PacketBytes, _ side: SideIndex, _ offset: inout Int, _ streams: inout StreamForwarding,
    _ engine: inout Engine
  ) -> Int {
    let count = min(rest.count, engine.sides[side].stream.run.left)
    offset += count
    engine.sides[side].stream.run.left -= count
    let isTaken = count == 0 || append(rest.slice(0, count), to: side.partner, &streams, &engine)
    let octets = book(side, count, isTaken: isTaken, &engine)
    finish(side, &streams, &engine)
    return octets
  }

  /// Sends bytes of a run behind what waits; `begin` has seen to it that there is room.
  private static func append(
    _ bytes: PacketBytes, to side: SideIndex, _ streams: inout StreamForwarding, _ engine: inout Engine
  ) -> Bool {
    guard !engine.sides[side].stream.queue.isEmpty else { return streams.put(bytes, to: side, &engine) }
    engine.sides[side].stream.queue.append(bytes)
    return true
  }

  // MARK: Moving

  /// Moves more of a run.
  /// - Returns: sealed bytes.
  static func serve(_ side: SideIndex, limit: Int, _ streams: inout StreamForwarding, _ engine: inout Engine) -> Int {
    let partner = side.partner
    guard let sender = engine.sides[side].stream.place else { return 0 }
    guard let receiver = receiver(side, streams, engine) else { return discard(side, &streams, &engine) }
    // `mustWait` lets it through after a while: then it is the receiver that goes.
    guard engine.sides[partner].stream.queue.isEmpty else {
      stall(side, &streams, &engine)
      return 0
    }
    if engine.sides[side].stream.run.pipe == nil { engine.sides[side].stream.run.pipe = streams.pipes.take() }
    guard let pipe = engine.sides[side].stream.run.pipe else { return copy(side, limit: limit, &streams, &engine) }
    var octets = 0
    var budget = EngineState.bytes(ofMessages: limit)
    var isDrained = false
    while true {
      let inPipe = engine.sides[side].stream.run.inPipe
      if inPipe > 0 {
        let moved = streams.table.move(receiver, outOfPipe: pipe.output, inPipe)
        guard moved > 0 || moved == -EAGAIN else {
          streams.close(partner, &engine)
          return octets
        }
        if moved > 0 {
          engine.sides[partner].stream.progress = engine.clock.monotonic
          engine.sides[side].stream.run.inPipe -= moved
        }
        if engine.sides[side].stream.run.inPipe > 0 {
          stall(side, &streams, &engine)
          return octets
        }
      }
      guard engine.sides[side].stream.run.left > 0 else { break }
      guard budget > 0 else {
        engine.state.markReady(side)
        break
      }
      let wanted = min(engine.sides[side].stream.run.left, budget)
      // After less than was asked for the stream is empty, most likely: the poll says at once when it is not.
      let count = isDrained ? -Int(EAGAIN) : streams.table.move(sender, intoPipe: pipe.input, wanted)
      if count == -EAGAIN {
        streams.pollReadable(sender, &engine)
        break
      }
      guard count > 0 else {
        streams.close(side, &engine)
        return octets
      }
      isDrained = count < wanted
      // A stall is counted from here.
      engine.sides[partner].stream.progress = engine.clock.monotonic
      engine.sides[side].stream.run.left -= count
      engine.sides[side].stream.run.inPipe += count
      budget -= count
      octets += book(side, count, isTaken: true, &engine)
    }
    releasePipe(side, &streams, &engine)
    finish(side, &streams, &engine)
    return octets
  }

  /// The receiver takes nothing now: waits until it does, or has had its time.
  private static func stall(_ side: SideIndex, _ streams: inout StreamForwarding, _ engine: inout Engine) {
    let partner = side.partner
    let end = engine.sides[partner].stream.progress.adding(nanoseconds: RunForwarding.stallLimit)
    guard engine.clock.monotonic < end else {
      engine.statistics[.streamsStalled] += 1
      return streams.close(partner, &engine)
    }
    streams.pollWritable(partner, &engine)
    engine.state.park(side, until: end)
  }

  /// Without a pipe.
  private static func copy(_ side: SideIndex, limit: Int, _ streams: inout StreamForwarding, _ engine: inout Engine)
    -> Int
  {
    guard let read = read(side, limit: EngineState.bytes(ofMessages: limit), &streams, &engine) else { return 0 }
    defer { engine.io.pool.release(read.buffer) }
    let isTaken = streams.put(engine.io.pool.bytes(read.buffer).slice(0, read.count), to: side.partner, &engine)
    let octets = book(side, read.count, isTaken: isTaken, &engine)
    finish(side, &streams, &engine)
    return octets
  }

  /// The receiver is gone.
  private static func discard(_ side: SideIndex, _ streams: inout StreamForwarding, _ engine: inout Engine) -> Int {
    guard let read = read(side, limit: .max, &streams, &engine) else { return 0 }
    engine.io.pool.release(read.buffer)
    let octets = book(side, read.count, isTaken: nil, &engine)
    finish(side, &streams, &engine)
    return octets
  }

  /// Takes bytes of a run; the caller owns the buffer. Nil when there are none.
  private static func read(
    _ side: SideIndex, limit: Int, _ streams: inout StreamForwarding, _ engine: inout Engine
  ) -> (buffer: BufferID, count: Int)? {
    guard let place = engine.sides[side].stream.place else { return nil }
    guard let buffer = engine.io.pool.take() else {
      engine.state.markReady(side)
      return nil
    }
    let bytes = engine.io.pool.bytes(buffer)
    let room = min(limit, engine.sides[side].stream.run.left, bytes.count)
    let count = streams.table.receive(place, into: bytes.slice(0, room))
    guard count > 0 else {
      engine.io.pool.release(buffer)
      if count == -EAGAIN {
        streams.pollReadable(place, &engine)
      } else if count != -EINTR {
        streams.close(side, &engine)
      }
      if count == -EINTR { engine.state.markReady(side) }
      return nil
    }
    engine.sides[side].stream.run.left -= count
    engine.state.markReady(side)
    return (buffer, count)
  }

  // MARK: The end

  /// When all of a run has gone, the stream is read as before, and our own messages go.
  private static func finish(_ side: SideIndex, _ streams: inout StreamForwarding, _ engine: inout Engine) {
    let run = engine.sides[side].stream.run
    guard run.isOpen, run.left == 0, run.inPipe == 0 else { return }
    let hadReceiver = receiver(side, streams, engine) != nil
    engine.statistics[.runs] += hadReceiver ? 1 : 0
    releasePipe(side, &streams, &engine)
    engine.sides[side].stream.run = AnnouncedRun()
    guard engine.sides[side].stream.place != nil else { return }
    engine.sides[side].stream.expectsRun = true
    engine.state.markReady(side)
    let partner = side.partner
    guard hadReceiver, !engine.sides[partner].stream.delayed.isEmpty else { return }
    let messages = engine.sides[partner].stream.delayed
    engine.sides[partner].stream.delayed = []
    engine.sides[partner].stream.queue.append(messages)
    streams.push(partner, &engine)
  }

  private static func releasePipe(_ side: SideIndex, _ streams: inout StreamForwarding, _ engine: inout Engine) {
    guard let pipe = engine.sides[side].stream.run.pipe else { return }
    streams.pipes.give(pipe, isEmpty: engine.sides[side].stream.run.inPipe == 0)
    engine.sides[side].stream.run.pipe = nil
  }

  /// A side's stream has ended: a run from it never ends, and what is in the pipe of one to it goes nowhere.
  static func end(_ side: SideIndex, _ streams: inout StreamForwarding, _ engine: inout Engine) {
    let partner = side.partner
    let mustFollow = engine.sides[side].stream.run.isPartial && receiver(side, streams, engine) != nil
    releasePipe(side, &streams, &engine)
    engine.sides[side].stream.run = AnnouncedRun()
    engine.sides[side].stream.expectsRun = false
    if engine.sides[partner].stream.run.inPipe > 0 {
      releasePipe(partner, &streams, &engine)
      engine.sides[partner].stream.run.inPipe = 0
      finish(partner, &streams, &engine)
    }
    if mustFollow { streams.close(partner, &engine) }
  }
}
