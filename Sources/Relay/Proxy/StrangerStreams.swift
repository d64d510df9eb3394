import Glibc
import PacketIO
import Transports

/// The port that a stream came to.
enum AcceptingPort: BitwiseCopyable, Equatable {
  case control(listen: Int)
  case side(SideIndex)
  /// A control port, of the identity relay; a gateway has enrolled by it.
  case gateway(listen: Int)
}

/// Streams that have yet to prove whose they are: accepted, read until they have, and closed when they take too long or
/// others need the room (`StreamTable`).
enum StrangerStreams {
  /// Bytes of the longest record that such a stream may send, with the prefix before it.
  private static let longestRecord = HairpinMessage.mostBytes + RecordFramer.lengthBytes + RecordFramer.prefix.count
  /// Bytes that are read of one at a time: each message may cost a signature. More where packets come before them.
  private static let readBytes = 2 * HairpinMessage.mostBytes
  private static let packetBytes = 8 << 10

  /// Whether what comes there may be a gateway's that has lost its enrolment: then packets of any size come before it
  /// enrols anew.
  private static func mayHavePackets(_ place: Int, _ server: borrowing HairpinServer) -> Bool {
    guard server.identities != nil, case .control = server.ports[place] else { return false }
    return true
  }

  // MARK: Accepting

  /// Accepts a stream at a control port; the next waits for its turn.
  static func accept(listen: Int, _ server: inout HairpinServer) {
    let arrival = server.controls[listen].listener.accept()
    switch arrival {
    case .stream, .vanished: server.strangers.append(.arrivals(listen: listen))
    case .nothing, .failed:
      server.controls[listen].listener.rest(hasFailed: arrival == .failed, now: server.engine.clock.monotonic)
    }
    if case .stream(let descriptor) = arrival { admit(descriptor, .control(listen: listen), &server) }
    if arrival == .failed { makeRoom(&server) }
  }

  /// The same at a side's port.
  static func accept(side: SideIndex, _ server: inout HairpinServer) {
    guard let arrival = server.engine.sides[side].port.listener?.accept() else { return }
    switch arrival {
    case .stream, .vanished:
      server.strangers.append(.sideArrivals(side, mark: server.engine.sides[side].port.mark))
    case .nothing, .failed:
      let now = server.engine.clock.monotonic
      server.engine.sides[side].port.listener?.rest(hasFailed: arrival == .failed, now: now)
      if arrival == .failed { server.pausedSides.append(side) } else { server.engine.accept(side) }
    }
    if case .stream(let descriptor) = arrival { admit(descriptor, .side(side), &server) }
    if arrival == .failed { makeRoom(&server) }
  }

  /// With no descriptor left, one that has not proved anything makes room.
  private static func makeRoom(_ server: inout HairpinServer) {
    if let place = server.streams.table.oldestOfMost { refuse(place, &server) }
  }

  private static func admit(_ descriptor: Int32, _ port: AcceptingPort, _ server: inout HairpinServer) {
    guard let remote = TCPSocket.remote(descriptor) else { return KernelSocket.close(descriptor) }
    if case .evict(let place) = server.streams.table.room(for: remote.address) { refuse(place, &server) }
    let deadline = server.engine.clock.monotonic.adding(nanoseconds: server.options.proofSeconds * 1_000_000_000)
    var isEncrypted = false
    if case .control(let listen) = port { isEncrypted = server.controls[listen].isEncrypted }
    guard
      let place = server.streams.table.accepted(
        descriptor, from: remote, isEncrypted: isEncrypted, deadline: deadline)
    else { return KernelSocket.close(descriptor) }
    server.ports[place] = port
    server.streams.pollReadable(place, &server.engine)
  }

  // MARK: Ends

  private static func refuse(_ place: Int, _ server: inout HairpinServer) {
    server.engine.statistics[.streamsRefused] += 1
    drop(place, &server)
  }

  private static func malformed(_ place: Int, _ server: inout HairpinServer) {
    server.engine.statistics[.streamsMalformed] += 1
    drop(place, &server)
  }

  /// Closes those that had their time.
  static func sweep(_ server: inout HairpinServer) {
    while let place = server.streams.table.expired(server.engine.clock.monotonic) {
      server.engine.statistics[.streamsTooSlow] += 1
      drop(place, &server)
    }
  }

  /// A side's port goes, and who came to it.
  static func drop(of side: SideIndex, _ server: inout HairpinServer) {
    for place in server.streams.table.allUnauthenticated where server.ports[place] == .side(side) {
      drop(place, &server)
    }
  }

  static func drop(_ place: Int, resets: Bool = true, _ server: inout HairpinServer) {
    server.web.forget(place, ring: &server.engine.io.ring)
    server.streams.end(place, resets: resets, &server.engine)
  }

  /// The stream takes what was sealed for it.
  static func push(_ place: Int, _ server: inout HairpinServer) {
    if server.web.serves(place) { return RelayWeb.goOn(place, &server) }
    guard server.streams.table.flush(place) else { return drop(place, &server) }
    if server.streams.table.hasSealed(place) { server.streams.pollWritable(place: place, &server.engine) }
  }

  // MARK: What they say

  /// Reads what such a stream says.
  static func serve(_ place: Int, _ server: inout HairpinServer) {
    if server.web.holdsBack(place) { return }
    let pool = server.engine.io.pool
    guard let buffer = pool.take() else { return server.streams.pollReadable(place, &server.engine) }
    defer { pool.release(buffer) }
    let room = pool.bytes(buffer).slice(RecordCarry.front, mayHavePackets(place, server) ? packetBytes : readBytes)
    let count = server.streams.table.receive(place, into: room)
    // A handshake has something to say, which the kernel does not take yet.
    if server.streams.table.hasSealed(place) { server.streams.pollWritable(place: place, &server.engine) }
    if count == -EAGAIN || count == -EINTR { return server.streams.pollReadable(place, &server.engine) }
    guard count > 0 else { return drop(place, resets: false, &server) }
    if server.web.serves(place) { return RelayWeb.take(place, room.slice(0, count), &server) }
    let end = RecordCarry.front + count
    let stream = server.streams.table[place]
    switch server.streams.carries.join(
      &server.streams.table[place].carry, of: place, framer: stream.framer, buffer: buffer,
      offset: RecordCarry.front, end: end, pool: pool)
    {
    case .inPlace(let offset): _ = answerRecords(buffer, from: offset, to: end, place, stream.number, &server)
    case .whole(let whole, let from, let to, let next):
      let goesOn = answerRecords(whole, from: from, to: to, place, stream.number, &server)
      pool.release(whole)
      if goesOn {
        _ = answerRecords(buffer, from: next, to: end, place, stream.number, &server)
      } else if server.streams.table.isCurrent(place, stream.number) {
        forward(buffer, from: next, to: end, place, &server)
      }
    case .taken: server.streams.pollReadable(place, &server.engine)
    case .noRoom: drop(place, &server)
    }
  }

  /// What came behind a proof is the side's, or the gateway's.
  private static func forward(
    _ buffer: BufferID, from start: Int, to end: Int, _ place: Int, _ server: inout HairpinServer
  ) {
    switch server.ports[place] {
    case .side(let side):
      server.charge(
        side, server.streams.forwardRecords(buffer, from: start, to: end, side, &server.engine, &server.admission))
    case .gateway: SharedStreams.forwardRecords(buffer, from: start, to: end, place, &server)
    case .control: break
    }
  }

  /// Answers the messages from `start` to `end`, until the stream has proved itself; what comes then is its side's.
  /// - Returns: whether it is still the same stream, without a proof.
  private static func answerRecords(
    _ buffer: BufferID, from start: Int, to end: Int, _ place: Int, _ number: UInt64, _ server: inout HairpinServer
  ) -> Bool {
    let bytes = server.engine.io.pool.bytes(buffer).slice(0, end)
    var offset = start
    while true {
      switch server.streams.table[place].framer.next(bytes, &offset, most: 1) {
      case .message(let begin, let length):
        let marked = bytes.slice(begin - Superpacket.markerLength, length + Superpacket.markerLength)
        if case .control(let listen) = server.ports[place], server.identities != nil {
          switch SharedStreams.take(marked, ofStranger: place, listen: listen, &server) {
          case .answered: continue
          case .ended: return false
          case .enrolled:
            SharedStreams.forwardRecords(buffer, from: offset, to: end, place, &server)
            return false
          case .other: break
          }
        }
        guard marked.count <= HairpinMessage.mostBytes else {
          malformed(place, &server)
          return false
        }
        let standing = answer(marked.array(), place, &server)
        guard server.streams.table.isCurrent(place, number) else { return false }
        if standing == .authenticated, case .side(let side) = server.ports[place] {
          server.streams.adopt(place, side, &server.engine)
          forward(buffer, from: offset, to: end, place, &server)
          return false
        }
      case .keepAlive: continue
      case .incomplete(let needed):
        return keep(needed: needed, buffer, from: offset, to: end, place, &server)
      case .packets(_, _, _, let count):
        if case .control(let listen) = server.ports[place], server.identities != nil {
          SharedStreams.refuse(count, ofStranger: place, listen: listen, &server)
          continue
        }
        malformed(place, &server)
        return false
      case .fault(.badPrefix) where server.streams.table[place].isEncrypted:
        // Not of ours: a browser, or who looks at the port.
        RelayWeb.begin(place, bytes.dropFirst(offset), &server)
        return false
      case .tooShort, .fault:
        malformed(place, &server)
        return false
      }
    }
  }

  /// Keeps the beginning of a record until the rest comes.
  private static func keep(
    needed: Int, _ buffer: BufferID, from start: Int, to end: Int, _ place: Int, _ server: inout HairpinServer
  ) -> Bool {
    guard needed <= longestRecord || mayHavePackets(place, server) else {
      malformed(place, &server)
      return false
    }
    if end > start {
      let holder = server.streams.table[place].holder
      let isKept = server.streams.carries.keep(
        &server.streams.table[place].carry, of: place, holder: holder, buffer: buffer, offset: start,
        length: end - start, needed: needed, mayHold: false, pool: server.engine.io.pool)
      guard isKept else {
        drop(place, &server)
        return false
      }
    }
    server.streams.pollReadable(place, &server.engine)
    return true
  }

  /// Answers a message; who says what nobody answers has no business here.
  private static func answer(_ bytes: [UInt8], _ place: Int, _ server: inout HairpinServer) -> Stream.Standing {
    let remote = server.streams.table[place].remote
    let number = server.streams.table[place].number
    let answer: Admission.Answer?
    switch server.ports[place] {
    case .control(let listen), .gateway(let listen):
      let local = TCPSocket.local(server.streams.table[place].descriptor)?.address
      answer = server.answer(bytes, remote, toControl: listen, at: local, .tcp)
    case .side(let side):
      answer = server.admission.answer(bytes, remote, toSide: side, isHolder: false, &server.engine.state)
    }
    // What was answered may have closed the port that it came to.
    guard server.streams.table.isCurrent(place, number) else { return .unauthenticated }
    guard let answer else {
      drop(place, &server)
      return .unauthenticated
    }
    let record = StreamForwarding.record(answer.bytes)
    guard server.streams.table.send(place, record) == record.count else {
      drop(place, &server)
      return .unauthenticated
    }
    if case .side(let side) = server.ports[place] { server.admission.settle(answer, side, &server.engine.state) }
    if answer.standing == .presented { server.streams.table.present(place) }
    // It goes on where it is: who comes by TLS may not get anywhere else.
    if let side = answer.side, server.streams.table[place].isEncrypted { server.ports[place] = .side(side) }
    return answer.standing
  }
}
