import Glibc
import PacketIO
import Transports

/// The identity relay's streams: a gateway has one in the clear and one that is encrypted, at most, for all its pairs, and
/// what it would say in datagrams is in the records of RFC 9329, byte for byte.
///
/// 1. `take` hears of strangers at the relay's ports, until one has enrolled (`adopt`). 2. `serve` reads one such stream
/// once, and cuts its records where what is to become of them changes, as `SharedPorts` does with trains. 3. Each run goes
/// to where its SPI leads, by the receiver's path (`RelayAddress.exit`). 4. Packets of handshakes and messages are as
/// those that come in datagrams.
enum SharedStreams {
  /// What became of something that a stranger has said.
  enum Hearing {
    case answered
    /// From now on the stream is a gateway's.
    case enrolled
    /// It is closed.
    case ended
    /// It is not for an identity relay.
    case other
  }

  /// Nanoseconds after which no stream's turn begins.
  private static let turnLimit: UInt64 = 2_000_000
  private static let leastBuffers = 64
  /// Messages of one stream that are looked at in its turn: each may cost a signature.
  private static let messagesPerTurn = 16
  /// Runs that what is read may become, or nearly; where there is room for fewer, less is read, because those beyond are
  /// sent by calls of their own.
  private static let mostRuns = 700
  private static let leastRead = 4 << 10
  /// Records that are looked at together.
  private static let recordsAtATime = 64

  // MARK: 1. Strangers

  /// Hears what somebody says at a port of the relay's who has not enrolled.
  /// - Parameter marked: with the four zero bytes.
  static func take(_ marked: PacketBytes, ofStranger place: Int, listen: Int, _ server: inout HairpinServer)
    -> Hearing
  {
    guard HairpinMessage.isOwn(marked.dropFirst(Superpacket.markerLength)) else {
      refuse(1, ofStranger: place, listen: listen, &server)
      return .answered
    }
    let bytes = marked.array()
    if case .hold = HairpinMessage(bytes) {
      refuse(1, ofStranger: place, listen: listen, &server)
      return .answered
    }
    guard case .enrol(let enrol) = EnrolmentMessage(bytes) else { return .other }
    let (remote, now) = (server.streams.table[place].remote.address, server.engine.clock.monotonic)
    guard server.identities?.admitsStranger(at: remote, byStream: true, now: now) == true else { return .answered }
    let path: RelayPath = server.streams.table[place].isEncrypted ? .tls : .tcp
    if let answer = enrolled(enrol, bytes, place, path, listen: listen, &server) {
      let record = StreamForwarding.record(answer)
      guard server.streams.table.send(place, record) == record.count else {
        server.identities?.places.leave(stream: Int32(truncatingIfNeeded: place))
        closeReplaced(&server)
        StrangerStreams.drop(place, &server)
        return .ended
      }
    }
    closeReplaced(&server)
    guard server.identities?.hasEnrolled(by: Int32(truncatingIfNeeded: place)) == true else { return .answered }
    adopt(place, path, listen: listen, &server)
    return .enrolled
  }

  private static func enrolled(
    _ enrol: EnrolmentMessage.Enrol, _ bytes: [UInt8], _ place: Int, _ path: RelayPath, listen: Int,
    _ server: inout HairpinServer
  ) -> [UInt8]? {
    let number = server.controls[listen].endpoint.port
    return server.identities?.answer(
      enrol, bytes, from: server.streams.table[place].remote, by: (Int32(truncatingIfNeeded: place), path),
      port: (listen, number), server.engine.clock)
  }

  /// Packets of somebody who has not enrolled; whoever has lost his enrolment does not know that, perhaps.
  static func refuse(_ packets: Int, ofStranger place: Int, listen: Int, _ server: inout HairpinServer) {
    server.identities?.count(.senderNotEnrolled, UInt64(clamping: packets))
    let now = server.engine.clock.monotonic
    // Who has a stream is where it comes from: no answer is too long for him.
    guard server.gateways.mayAsk(place, now: now),
      let question = server.identities?.who(
        server.streams.table[place].remote, port: server.controls[listen].endpoint.port, byStream: true, side: nil,
        length: EnrolmentMessage.whoLength, now: now)
    else { return }
    _ = server.streams.table.send(place, StreamForwarding.record(question))
  }

  private static func adopt(_ place: Int, _ path: RelayPath, listen: Int, _ server: inout HairpinServer) {
    server.streams.table.authenticate(place)
    TCPSocket.prepareStream(server.streams.table[place].descriptor, waits: false)
    server.ports[place] = .gateway(listen: listen)
    server.gateways.begin(place, path, now: server.engine.clock.monotonic)
    server.gateways.markReady(place)
  }

  /// Of a path, a gateway has one stream: its newest.
  private static func closeReplaced(_ server: inout HairpinServer) {
    for place in server.identities?.places.takeReplaced() ?? [] {
      end(Int(truncatingIfNeeded: place), &server)
    }
  }

  // MARK: Ends

  static func end(_ place: Int, _ server: inout HairpinServer) {
    guard server.gateways.isOpen(place) else { return }
    server.gateways.end(place, pool: server.engine.io.pool)
    server.identities?.places.leave(stream: Int32(truncatingIfNeeded: place))
    server.streams.end(place, resets: false, &server.engine)
  }

  /// Closes streams that have failed, and has the others noticed that take no more.
  static func settle(_ server: inout HairpinServer) {
    for place in server.gateways.takeBlocked() where server.gateways.isOpen(place) {
      server.streams.pollWritable(place: place, &server.engine)
    }
    for place in server.gateways.takeFailed() { end(place, &server) }
  }

  /// Closes those that have said nothing for long, and with `all` the others, too.
  static func sweep(all: Bool = false, _ server: inout HairpinServer) {
    let seconds = server.identities?.options.silence ?? 0
    let gone =
      all
      ? server.gateways.open : server.gateways.silent(seconds: seconds, now: server.engine.clock.monotonic)
    for place in gone { end(place, &server) }
  }

  // MARK: 2. Reading

  /// Reads streams that have something, one after the other.
  static func serve(_ server: inout HairpinServer, _ read: () -> HairpinClock) {
    let begin = server.engine.clock.monotonic
    // Each once: who has more comes again in the next turn.
    for _ in 0..<server.gateways.readyCount {
      guard server.engine.io.pool.available >= leastBuffers, let place = server.gateways.takeReady() else { break }
      serve(place, &server)
      server.engine.flushShared()
      server.gateways.flush(&server.streams.table, now: server.engine.clock.monotonic)
      settle(&server)
      // What it sends belongs to its turn, and so does the time that takes.
      server.engine.io.ring.submit()
      server.engine.clock = read()
      if server.engine.clock.monotonic.nanoseconds(since: begin) >= turnLimit { break }
    }
  }

  private static func serve(_ place: Int, _ server: inout HairpinServer) {
    guard server.gateways.isOpen(place) else { return }
    let pool = server.engine.io.pool
    if let rest = server.gateways.takeRest(place) {
      forwardRecords(rest.buffer, from: rest.start, to: rest.end, place, &server)
      pool.release(rest.buffer)
      return server.gateways.markReady(place)
    }
    guard let buffer = pool.take() else { return server.gateways.markReady(place) }
    defer { pool.release(buffer) }
    let isWhole = server.engine.batch.room >= mostRuns && server.gateways.hasRoomForRest
    let room = isWhole ? pool.bytes(buffer).count - RecordCarry.front - RecordCarry.tailroom : leastRead
    let count = server.streams.table.receive(place, into: pool.bytes(buffer).slice(RecordCarry.front, room))
    guard count > 0 else {
      if count == -EAGAIN { return server.streams.pollReadable(place, &server.engine) }
      return count == -EINTR ? server.gateways.markReady(place) : end(place, &server)
    }
    server.gateways.heard(place, now: server.engine.clock.monotonic)
    join(buffer, count, place, &server)
    guard server.gateways.isOpen(place) else { return }
    if count == room { server.gateways.markReady(place) } else { server.streams.pollReadable(place, &server.engine) }
  }

  /// Joins what was read with what was begun before, and forwards what is whole of it.
  private static func join(_ buffer: BufferID, _ count: Int, _ place: Int, _ server: inout HairpinServer) {
    let pool = server.engine.io.pool
    let end = RecordCarry.front + count
    let framer = server.streams.table[place].framer
    switch server.streams.carries.join(
      &server.streams.table[place].carry, of: place, framer: framer, buffer: buffer, offset: RecordCarry.front,
      end: end, pool: pool)
    {
    case .inPlace(let offset): forwardRecords(buffer, from: offset, to: end, place, &server)
    case .whole(let whole, let from, let to, let next):
      forwardRecords(whole, from: from, to: to, place, &server)
      pool.release(whole)
      if server.gateways.isOpen(place) { forwardRecords(buffer, from: next, to: end, place, &server) }
    case .taken: break
    case .noRoom: SharedStreams.end(place, &server)
    }
  }

  static func forwardRecords(
    _ buffer: BufferID, from start: Int, to end: Int, _ place: Int, _ server: inout HairpinServer
  ) {
    let bytes = server.engine.io.pool.bytes(buffer).slice(0, end)
    var offset = start
    var messages = 0
    while true {
      if messages >= messagesPerTurn, offset < end, server.gateways.hasRoomForRest {
        let rest = GatewayStreams.Rest(buffer: buffer, start: offset, end: end)
        return server.gateways.keep(rest, of: place, pool: server.engine.io.pool)
      }
      switch server.streams.table[place].framer.next(bytes, &offset, most: recordsAtATime) {
      case .packets(let first, let length, let size, let count):
        let records = Records(bytes: bytes, buffer: buffer, first: first, length: length, size: size, count: count)
        take(records, place, &server)
      case .message(let begin, let length):
        let marked = bytes.slice(begin - Superpacket.markerLength, length + Superpacket.markerLength)
        takeMarked(marked, record: bytes.slice(begin - recordFront, length + recordFront), buffer, place, &server)
        messages += 1
        guard server.gateways.isOpen(place) else { return }
      case .keepAlive: continue
      case .tooShort: server.identities?.count(.malformed)
      case .incomplete(let needed): return keep(buffer, from: offset, to: end, needed: needed, place, &server)
      case .fault:
        server.engine.statistics[.streamsMalformed] += 1
        return SharedStreams.end(place, &server)
      }
    }
  }

  /// Bytes in front of what follows the four zero ones: these, and the length.
  private static let recordFront = Superpacket.markerLength + RecordFramer.lengthBytes

  private static func keep(
    _ buffer: BufferID, from start: Int, to end: Int, needed: Int, _ place: Int, _ server: inout HairpinServer
  ) {
    guard end > start else { return }
    // Numbers that no side of a hairpin has.
    let holder = Holder(row: Int32(truncatingIfNeeded: server.engine.sides.count + place))
    let isKept = server.streams.carries.keep(
      &server.streams.table[place].carry, of: place, holder: holder, buffer: buffer, offset: start,
      length: end - start, needed: needed, mayHold: true, pool: server.engine.io.pool)
    if !isKept { SharedStreams.end(place, &server) }
  }

  // MARK: 3. Sealed packets

  /// Records of sealed packets of one size, of which the last may be shorter.
  private struct Records {
    let bytes: PacketBytes
    let buffer: BufferID
    /// Where the first packet begins, and bytes from there to the end of the last, lengths between them included.
    let first: Int
    let length: Int
    let size: Int
    let count: Int

    /// Where a packet begins.
    func start(_ index: Int) -> Int { first + index * (size + RecordFramer.lengthBytes) }
    /// Where packets up to that one end.
    func end(_ index: Int) -> Int { index < count ? start(index) - RecordFramer.lengthBytes : first + length }
  }

  private static func take(_ records: Records, _ place: Int, _ server: inout HairpinServer) {
    guard records.size >= IdentityRelay.leastSealed else {
      server.identities?.count(.malformed, UInt64(clamping: records.count))
      return
    }
    // The last may be shorter than the others.
    var count = records.count
    if records.end(count) - records.start(count - 1) < IdentityRelay.leastSealed {
      server.identities?.count(.malformed)
      count -= 1
    }
    var index = 0
    while index < count {
      let spi = records.bytes.load32(records.start(index))
      var next = index + 1
      while next < count, records.bytes.load32(records.start(next)) >> 4 == spi >> 4 { next += 1 }
      forward(records, index..<next, spi, place, &server)
      index = next
    }
  }

  private static func forward(
    _ records: Records, _ range: Range<Int>, _ spi: UInt32, _ place: Int, _ server: inout HairpinServer
  ) {
    let packets = UInt64(truncatingIfNeeded: range.count)
    let source = RelaySource.stream(Int32(truncatingIfNeeded: place))
    switch server.identities?.route(spi, from: source) {
    case .unknown(let drop, _): server.identities?.count(drop, packets)
    case .forward(let side, let slot, let receiver):
      let now = server.engine.clock.monotonic
      let start = records.start(range.lowerBound)
      let length = records.end(range.upperBound) - start
      let bytes = length - (range.count - 1) * RecordFramer.lengthBytes
      guard server.identities?.admits(bytes, to: side, now: now) == true else {
        server.identities?.dropped(side, packets, .overBandwidth)
        return
      }
      let path = server.gateways.path(place)
      var failed = ForwardBatch.Amount(packets: packets, bytes: UInt64(clamping: bytes))
      switch server.identities?.places.addresses[receiver].exit(beside: path) {
      case .stream(let stream):
        let whole = records.bytes.slice(start - RecordFramer.lengthBytes, length + RecordFramer.lengthBytes)
        if server.gateways.mayTake(whole.count, stream, now: now) {
          server.gateways.stage(records: whole, to: stream, &server.streams.table, now: now)
          failed = ForwardBatch.Amount()
        }
      case .datagrams: failed = stageTrains(records, range, to: receiver, of: side, &server)
      case nil: break
      }
      server.identities?.forwarded(side, slot, by: path, packets: packets, bytes: bytes, now: now)
      if failed.packets > 0 { server.identities?.notTaken(side, packets: failed.packets, bytes: failed.bytes) }
    case nil: break
    }
  }

  /// The records become trains, moved together where they lie.
  /// - Returns: what was not taken, as far as is known by now.
  private static func stageTrains(
    _ records: Records, _ range: Range<Int>, to receiver: Int, of side: Int, _ server: inout HairpinServer
  ) -> ForwardBatch.Amount {
    let most = max(1, min(ForwardBatch.mostSegments, ForwardBatch.mostBytes / records.size))
    var index = range.lowerBound
    var failed = ForwardBatch.Amount()
    while index < range.upperBound {
      let next = min(index + most, range.upperBound)
      let start = records.start(index)
      var end = start
      for packet in index..<next {
        let from = records.start(packet)
        let size = records.end(packet + 1) - from
        if packet > index { records.bytes.copy(records.bytes.slice(from, size), to: end) }
        end += size
      }
      let run = ForwardBatch.Run(
        bytes: records.bytes.slice(start, end - start), buffer: records.buffer,
        segmentSize: min(records.size, end - start), trafficClass: 0)
      let refused = SharedPorts.stage(datagrams: run, to: receiver, of: side, &server)
      failed.packets += refused.packets
      failed.bytes += refused.bytes
      index = next
    }
    return failed
  }

  // MARK: 4. Handshakes and messages

  /// - Parameter record: the same with its length in front.
  private static func takeMarked(
    _ marked: PacketBytes, record: PacketBytes, _ buffer: BufferID, _ place: Int, _ server: inout HairpinServer
  ) {
    let unmarked = marked.dropFirst(Superpacket.markerLength)
    if HairpinMessage.isOwn(unmarked) { return answerOwn(marked, place, &server) }
    let now = server.engine.clock.monotonic
    let source = RelaySource.stream(Int32(truncatingIfNeeded: place))
    switch server.identities?.observe(unmarked, from: source, server.engine.clock) {
    case .forward(let receiver):
      let run = ForwardBatch.Run(bytes: marked, buffer: buffer, segmentSize: marked.count, trafficClass: 0)
      let failed = SharedPorts.stage(handshake: run, to: receiver, beside: server.gateways.path(place), &server)
      if failed.packets > 0 { server.identities?.notTaken(nil, packets: failed.packets, bytes: failed.bytes) }
    case .drop(_, let answer):
      if let answer { server.gateways.say(answer, to: place, &server.streams.table, now: now) }
    case .wait, nil: break
    }
  }

  private static func answerOwn(_ marked: PacketBytes, _ place: Int, _ server: inout HairpinServer) {
    guard marked.count <= EnrolmentMessage.mostEnrol, case .gateway(let listen) = server.ports[place] else {
      server.identities?.count(.malformed)
      return
    }
    let now = server.engine.clock.monotonic
    let bytes = marked.array()
    let remote = server.streams.table[place].remote
    var answer: [UInt8]?
    if case .hold(let nonce) = HairpinMessage(bytes) {
      let held = server.identities?.answerHold(
        nonce, from: remote, by: Int32(truncatingIfNeeded: place), now: now)
      answer = held ?? nil
    } else if server.identities?.admitsStranger(at: remote.address, byStream: true, now: now) != true {
      return
    } else if case .hello(let nonce, .zero) = HairpinMessage(bytes) {
      answer = server.admission.challenge(nonce, remote, port: server.controls[listen].endpoint.port, now: now)
    } else if case .enrol(let enrol) = EnrolmentMessage(bytes) {
      // A stream has one gateway.
      let stream = Int32(truncatingIfNeeded: place)
      guard server.identities?.isStream(stream, ofKey: enrol.identity.hostIdentity) == true else {
        return end(place, &server)
      }
      answer = enrolled(enrol, bytes, place, server.gateways.path(place), listen: listen, &server)
      closeReplaced(&server)
    } else {
      server.identities?.count(.malformed)
    }
    if let answer { server.gateways.say(answer, to: place, &server.streams.table, now: now) }
  }
}
