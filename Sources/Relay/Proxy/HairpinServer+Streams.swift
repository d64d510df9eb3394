import Glibc
import PacketIO
import Transports

/// The port that a stream came to.
enum AcceptingPort: BitwiseCopyable, Equatable {
  case control(listen: Int)
  case side(SideIndex)
}

/// Streams that have yet to prove whose they are: accepted, read until they have, and closed when they take too long or
/// others need the room (`StreamTable`).
extension HairpinServer {
  /// Bytes of the longest record that such a stream may send, with the prefix before it.
  private static let longestRecord = HairpinMessage.mostBytes + RecordFramer.lengthBytes + RecordFramer.prefix.count
  /// Bytes that are read of one at a time.
  private static let readBytes = 2 * HairpinMessage.mostBytes

  // MARK: Accepting

  /// Accepts a stream at a control port; the next waits for its turn.
  mutating func acceptStream(listen: Int) {
    let arrival = controls[listen].listener.accept()
    switch arrival {
    case .stream, .vanished: strangers.append(.arrivals(listen: listen))
    case .nothing, .failed: controls[listen].listener.rest(hasFailed: arrival == .failed, now: engine.clock.monotonic)
    }
    if case .stream(let descriptor) = arrival { admit(descriptor, .control(listen: listen)) }
    if arrival == .failed { makeRoom() }
  }

  /// The same at a side's port.
  mutating func acceptStream(side: SideIndex) {
    guard let arrival = engine.sides[side].port.listener?.accept() else { return }
    switch arrival {
    case .stream, .vanished: strangers.append(.sideArrivals(side, mark: engine.sides[side].port.mark))
    case .nothing, .failed:
      engine.sides[side].port.listener?.rest(hasFailed: arrival == .failed, now: engine.clock.monotonic)
      if arrival == .failed { pausedSides.append(side) } else { engine.accept(side) }
    }
    if case .stream(let descriptor) = arrival { admit(descriptor, .side(side)) }
    if arrival == .failed { makeRoom() }
  }

  /// With no descriptor left, one that has not proved anything makes room.
  private mutating func makeRoom() {
    if let place = streams.table.oldestOfMost { refuse(place) }
  }

  private mutating func admit(_ descriptor: Int32, _ port: AcceptingPort) {
    guard let remote = TCPSocket.remote(descriptor) else { return KernelSocket.close(descriptor) }
    if case .evict(let place) = streams.table.room(for: remote.address) { refuse(place) }
    let deadline = engine.clock.monotonic.adding(nanoseconds: options.proofSeconds * 1_000_000_000)
    guard let place = streams.table.accepted(descriptor, from: remote, deadline: deadline) else {
      return KernelSocket.close(descriptor)
    }
    ports[place] = port
    streams.pollReadable(place, &engine)
  }

  // MARK: Ends

  private mutating func refuse(_ place: Int) {
    engine.statistics[.streamsRefused] += 1
    drop(unauthenticated: place)
  }

  private mutating func malformed(_ place: Int) {
    engine.statistics[.streamsMalformed] += 1
    drop(unauthenticated: place)
  }

  /// Closes those that had their time.
  mutating func sweepUnauthenticated() {
    while let place = streams.table.expired(engine.clock.monotonic) {
      engine.statistics[.streamsTooSlow] += 1
      drop(unauthenticated: place)
    }
  }

  /// A side's port goes, and who came to it.
  mutating func dropUnauthenticated(of side: SideIndex) {
    for place in streams.table.allUnauthenticated where ports[place] == .side(side) { drop(unauthenticated: place) }
  }

  mutating func drop(unauthenticated place: Int) { streams.end(place, resets: true, &engine) }

  // MARK: What they say

  /// Reads what such a stream says.
  mutating func serveUnauthenticated(_ place: Int) {
    let pool = engine.io.pool
    guard let buffer = pool.take() else { return streams.pollReadable(place, &engine) }
    defer { pool.release(buffer) }
    let room = pool.bytes(buffer).slice(RecordCarry.front, HairpinServer.readBytes)
    let count = streams.table.receive(place, into: room)
    if count == -EAGAIN || count == -EINTR { return streams.pollReadable(place, &engine) }
    guard count > 0 else { return streams.end(place, resets: false, &engine) }
    let end = RecordCarry.front + count
    let stream = streams.table[place]
    switch streams.carries.join(
      &streams.table[place].carry, of: place, framer: stream.framer, buffer: buffer, offset: RecordCarry.front,
      end: end, pool: pool)
    {
    case .inPlace(let offset): _ = answerRecords(buffer, from: offset, to: end, place, stream.number)
    case .whole(let whole, let from, let to, let next):
      let goesOn = answerRecords(whole, from: from, to: to, place, stream.number)
      pool.release(whole)
      if goesOn {
        _ = answerRecords(buffer, from: next, to: end, place, stream.number)
      } else if streams.table.isCurrent(place, stream.number), case .side(let side) = ports[place] {
        charge(side, streams.forwardRecords(buffer, from: next, to: end, side, &engine, &admission))
      }
    case .taken: streams.pollReadable(place, &engine)
    case .noRoom: drop(unauthenticated: place)
    }
  }

  /// Answers the messages from `start` to `end`, until the stream has proved itself; what comes then is its side's.
  /// - Returns: whether it is still the same stream, without a proof.
  private mutating func answerRecords(
    _ buffer: BufferID, from start: Int, to end: Int, _ place: Int, _ number: UInt64
  ) -> Bool {
    let bytes = engine.io.pool.bytes(buffer).slice(0, end)
    var offset = start
    while true {
      switch streams.table[place].framer.next(bytes, &offset, most: 1) {
      case .message(let begin, let length):
        let marked = bytes.slice(begin - Superpacket.markerLength, length + Superpacket.markerLength)
        guard marked.count <= HairpinMessage.mostBytes else {
          malformed(place)
          return false
        }
        let standing = answer(marked.array(), place)
        guard streams.table.isCurrent(place, number) else { return false }
        if standing == .authenticated, case .side(let side) = ports[place] {
          streams.adopt(place, side, &engine)
          charge(side, streams.forwardRecords(buffer, from: offset, to: end, side, &engine, &admission))
          return false
        }
      case .keepAlive: continue
      case .incomplete(let needed):
        return keep(needed: needed, buffer, from: offset, to: end, place)
      case .packets, .tooShort, .fault:
        malformed(place)
        return false
      }
    }
  }

  /// Keeps the beginning of a record until the rest comes.
  private mutating func keep(needed: Int, _ buffer: BufferID, from start: Int, to end: Int, _ place: Int) -> Bool {
    guard needed <= HairpinServer.longestRecord else {
      malformed(place)
      return false
    }
    if end > start {
      let isKept = streams.carries.keep(
        &streams.table[place].carry, of: place, holder: streams.table[place].holder, buffer: buffer, offset: start,
        length: end - start, needed: needed, mayHold: false, pool: engine.io.pool)
      guard isKept else {
        drop(unauthenticated: place)
        return false
      }
    }
    streams.pollReadable(place, &engine)
    return true
  }

  /// Answers a message; who says what nobody answers has no business here.
  private mutating func answer(_ bytes: [UInt8], _ place: Int) -> Stream.Standing {
    let remote = streams.table[place].remote
    let number = streams.table[place].number
    let answer: Admission.Answer?
    switch ports[place] {
    case .control(let listen):
      let local = TCPSocket.local(streams.table[place].descriptor)?.address
      answer = self.answer(bytes, remote, toControl: listen, at: local, .tcp)
    case .side(let side): answer = admission.answer(bytes, remote, toSide: side, isHolder: false, &engine)
    }
    // What was answered may have closed the port that it came to.
    guard streams.table.isCurrent(place, number) else { return .unauthenticated }
    guard let answer else {
      drop(unauthenticated: place)
      return .unauthenticated
    }
    let record = StreamForwarding.record(answer.bytes)
    guard streams.table.send(place, record) == record.count else {
      drop(unauthenticated: place)
      return .unauthenticated
    }
    if case .side(let side) = ports[place] { admission.settle(answer, side, &engine) }
    if answer.standing == .presented { streams.table.present(place) }
    return answer.standing
  }
}
