import Glibc
import PacketIO
import Transports

/// The relay's TCP sides: records of RFC 9329 in both directions.
///
/// 1. `serve` reads a side's stream once; 2. `forwardRecords` passes on the records that are whole, and the beginning of
/// the next is carried; 3. `put` sends them to the partner's stream, or `flush` what was staged to a datagram side; runs of
/// records that a gateway announces go another way (`RunForwarding`).
///
/// What a stream does not take at once waits in the side's queue, `StreamSpace.bytes` at most; its partner then is not
/// read, so that the rest waits with it. When nothing moves for half a second, the partner is read again and its packets
/// dropped, so that a slow reader never keeps a partner from being served.
struct StreamForwarding: ~Copyable {
  /// A receiver that takes nothing for so long loses packets.
  private static let slowness: UInt64 = 500_000_000
  /// Buffers in which beginnings of records may be kept; the others are copied.
  private static let heldBuffers = 64

  /// All streams, those that have not proved anything among them.
  var table: StreamTable
  var carries: RecordCarry
  var pipes = PipePool()
  let space = StreamSpace()

  /// - Parameter certificate: what encrypted streams are shown; nil: there are none.
  init(_ options: HairpinProxyOptions, _ certificate: TLSContext? = nil) {
    let sides = 2 * max(options.hairpins, 1)
    let unauthenticated = max(options.unprovenStreams, 1)
    // Of an identity relay, a gateway may have one in the clear and one that is encrypted.
    let gateways = 2 * (options.relay?.gateways ?? 0)
    // A side has one stream, and those that have yet to prove themselves are counted for themselves.
    table = StreamTable(
      capacity: sides + gateways + unauthenticated + options.handedOn,
      limits: StreamTable.Limits(
        unauthenticated: unauthenticated, perOrigin: options.unprovenStreamsPerOrigin, evictsWithinOrigin: true),
      dials: false,
      encryption: certificate.map {
        StreamEncryption(server: $0, handshakes: options.tls.handshakes, webServer: options.tls.webServer)
      })
    carries = RecordCarry(
      heldLimit: StreamForwarding.heldBuffers, stashLimit: table.capacity * (RecordFramer.longestRecord + 1))
  }

  // MARK: The ring's part

  /// What a completion for a stream carries.
  func token(_ kind: RelayIO.Kind, _ place: Int) -> Token { Engine.token(kind, place, mark: table[place].number) }

  /// Whose completion it is; nil: the stream has gone.
  func place(_ token: Token) -> Int? {
    let place = Engine.place(token)
    return table[place].isConnected && Engine.isCurrent(token, mark: table[place].number) ? place : nil
  }

  /// Has a stream served when it can be read.
  mutating func pollReadable(_ place: Int, _ engine: inout Engine) {
    table.pollReadable(place, token: token(.streamReadable, place), ring: &engine.io.ring)
  }

  private mutating func pollReadable(_ side: SideIndex, _ engine: inout Engine) {
    if let place = engine.sides[side].stream.place { pollReadable(place, &engine) }
  }

  /// Has what waits for a stream sent when it takes something.
  mutating func pollWritable(_ side: SideIndex, _ engine: inout Engine) {
    if let place = engine.sides[side].stream.place { pollWritable(place: place, &engine) }
  }

  mutating func pollWritable(place: Int, _ engine: inout Engine) {
    table.pollWritable(place, token: token(.streamWritable, place), ring: &engine.io.ring)
  }

  // MARK: Ends

  /// Closes a stream, whosever it is.
  mutating func end(_ place: Int, resets: Bool, _ engine: inout Engine) {
    if table[place].isReceiving { engine.io.cancel(token(.streamReadable, place)) }
    if table[place].isSending { engine.io.cancel(token(.streamWritable, place)) }
    // A poll holds the stream.
    engine.io.ring.submit()
    carries.drop(&table[place].carry, of: place, pool: engine.io.pool)
    // What an encrypted one was answered is to arrive.
    if resets, !table[place].isEncrypted { TCPSocket.resetOnClose(table[place].descriptor) }
    table.beginClosing(place)
    table.release(place)
  }

  /// A side's stream is gone; its port stays, and its gateway may come back.
  mutating func close(_ side: SideIndex, _ engine: inout Engine) {
    guard let place = engine.sides[side].stream.place else { return }
    end(place, resets: false, &engine)
    engine.sides[side].stream.place = nil
    engine.sides[side].holder.isProven = false
    engine.sides[side].stream.queue.removeAll()
    engine.sides[side].stream.delayed = []
    engine.state.schedule.remove(side.place)
    RunForwarding.end(side, &self, &engine)
    // Its partner may have waited for it.
    engine.state.reconsider(side.partner)
  }

  /// A stream has proved to be a side's, in the place of an earlier one.
  mutating func adopt(_ place: Int, _ side: SideIndex, _ engine: inout Engine) {
    close(side, &engine)
    table.authenticate(place)
    engine.sides[side].holder.isProven = true
    engine.sides[side].stream.place = place
    TCPSocket.prepareStream(table[place].descriptor, waits: false)
    engine.state.markReady(side)
  }

  // MARK: Reading

  /// Whether what this side brings would have to wait; it is looked at again when its partner takes something.
  func mustWait(_ side: SideIndex, _ engine: inout Engine) -> Bool {
    let partner = side.partner
    guard engine.sides[partner].port.encapsulation == .tcp, !engine.sides[partner].stream.queue.isEmpty,
      engine.sides[partner].holder.isProven
    else { return false }
    let slow = engine.sides[partner].stream.progress.adding(nanoseconds: StreamForwarding.slowness)
    guard engine.clock.monotonic < slow else { return false }
    engine.state.park(side, until: slow)
    return true
  }

  /// Reads a side's stream once and forwards its whole records.
  /// - Returns: sealed bytes.
  mutating func serve(_ side: SideIndex, limit: Int, _ engine: inout Engine, _ admission: inout Admission) -> Int {
    if engine.sides[side].stream.run.isOpen { return RunForwarding.serve(side, limit: limit, &self, &engine) }
    guard let place = engine.sides[side].stream.place else { return 0 }
    guard let buffer = engine.io.pool.take() else {
      engine.state.markReady(side)
      return 0
    }
    defer { engine.io.pool.release(buffer) }
    let bytes = engine.io.pool.bytes(buffer)
    let carried = table[place].carry.length
    // Behind a run comes the next, most likely: no byte of it is to be read here.
    let isExpectant = engine.sides[side].stream.expectsRun && carried < RunForwarding.runRecord
    let most = bytes.count - RecordCarry.front - RecordCarry.tailroom
    let room =
      isExpectant
      ? RunForwarding.runRecord - carried
      : min(EngineState.bytes(ofMessages: limit), most, engine.sides[side].stream.readLimit)
    let count = table.receive(place, into: bytes.slice(RecordCarry.front, room))
    guard count > 0 else {
      if count == -EAGAIN { pollReadable(place, &engine) }
      if count == -EINTR { engine.state.markReady(side) }
      if count != -EAGAIN && count != -EINTR { close(side, &engine) }
      return 0
    }
    engine.sides[side].holder.lastHeard = engine.clock.monotonic
    let octets = forward(buffer, from: RecordCarry.front, to: RecordCarry.front + count, side, &engine, &admission)
    guard engine.sides[side].stream.place == place else { return octets }
    if count == room || engine.sides[side].stream.run.isOpen {
      engine.state.markReady(side)
    } else {
      pollReadable(place, &engine)
    }
    return octets
  }

  /// Joins what was read with what was begun before, and forwards what is whole of it.
  private mutating func forward(
    _ buffer: BufferID, from start: Int, to end: Int, _ side: SideIndex, _ engine: inout Engine,
    _ admission: inout Admission
  ) -> Int {
    guard let place = engine.sides[side].stream.place else { return 0 }
    let pool = engine.io.pool
    switch carries.join(
      &table[place].carry, of: place, framer: table[place].framer, buffer: buffer, offset: start, end: end,
      pool: pool)
    {
    case .inPlace(let offset):
      return forwardRecords(buffer, from: offset, to: end, side, &engine, &admission)
    case .whole(let whole, let from, let to, let next):
      var octets = forwardRecords(whole, from: from, to: to, behind: end - next, side, &engine, &admission)
      pool.release(whole)
      guard engine.sides[side].stream.place == place else { return octets }
      var offset = next
      // It may have been the announcement of a run.
      if engine.sides[side].stream.run.isOpen {
        octets += RunForwarding.passFirst(
          pool.bytes(buffer).slice(offset, end - offset), side, &offset, &self, &engine)
      }
      return octets + forwardRecords(buffer, from: offset, to: end, side, &engine, &admission)
    case .taken: return 0
    case .noRoom:
      close(side, &engine)
      return 0
    }
  }

  /// - Parameter behind: bytes that were read behind these, and come next.
  /// - Returns: sealed bytes.
  mutating func forwardRecords(
    _ buffer: BufferID, from start: Int, to end: Int, behind: Int = 0, _ side: SideIndex, _ engine: inout Engine,
    _ admission: inout Admission
  ) -> Int {
    guard let place = engine.sides[side].stream.place else { return 0 }
    let bytes = engine.io.pool.bytes(buffer).slice(0, end)
    var offset = start
    var octets = 0
    // Records from here on have yet to go; those before a message go before it is answered.
    var run = start
    var packets = 0
    while true {
      let record = offset
      switch table[place].framer.next(bytes, &offset, most: 64) {
      case .packets(let first, let length, let size, let count):
        octets += length - (count - 1) * RecordFramer.lengthBytes
        packets += count
        engine.sides[side].stream.expectsRun = false
        if engine.sides[side.partner].port.encapsulation == .udp {
          stageRecords(bytes, buffer, first, length, size, count, side, &engine)
        }
      case .message(let begin, let length) where !HairpinMessage.isOwn(bytes.slice(begin, length)):
        // Of gateways among each other: a record like others.
        let size = length + Superpacket.markerLength
        octets += size
        packets += 1
        engine.sides[side].stream.expectsRun = false
        if engine.sides[side.partner].port.encapsulation == .udp {
          stageRecords(bytes, buffer, begin - Superpacket.markerLength, size, size, 1, side, &engine)
        }
      case .message(let begin, let length):
        passRecords(bytes, run, record, packets, side, &engine)
        let message = bytes.slice(begin - Superpacket.markerLength, length + Superpacket.markerLength)
        if RunForwarding.isRun(message),
          RunForwarding.begin(message, side, read: bytes.count - offset + behind, self, &engine)
        {
          octets += RunForwarding.passFirst(bytes.dropFirst(offset), side, &offset, &self, &engine)
        } else if !RunForwarding.isRun(message) {
          answer(message, side, &engine, &admission)
        }
        (run, packets) = (offset, 0)
        guard engine.sides[side].stream.place == place else { return octets }
      case .keepAlive, .tooShort:
        passRecords(bytes, run, record, packets, side, &engine)
        (run, packets) = (offset, 0)
      case .incomplete(let needed):
        passRecords(bytes, run, offset, packets, side, &engine)
        if needed > RunForwarding.runRecord { engine.sides[side].stream.expectsRun = false }
        keep(buffer, from: offset, to: end, needed: needed, place, side, &engine)
        return octets
      case .fault:
        passRecords(bytes, run, record, packets, side, &engine)
        engine.statistics[.streamsMalformed] += 1
        close(side, &engine)
        return octets
      }
    }
  }

  private mutating func keep(
    _ buffer: BufferID, from start: Int, to end: Int, needed: Int, _ place: Int, _ side: SideIndex,
    _ engine: inout Engine
  ) {
    guard end > start, engine.sides[side].stream.place == place else { return }
    let isKept = carries.keep(
      &table[place].carry, of: place, holder: Holder(row: Int32(truncatingIfNeeded: side.place)), buffer: buffer,
      offset: start, length: end - start, needed: needed, mayHold: true, pool: engine.io.pool)
    if !isKept { close(side, &engine) }
  }

  /// What a proven gateway says that is no sealed packet.
  private mutating func answer(
    _ message: PacketBytes, _ side: SideIndex, _ engine: inout Engine, _ admission: inout Admission
  ) {
    guard message.count <= HairpinMessage.mostBytes else {
      engine.statistics[.malformed] += 1
      return
    }
    guard engine.state.admitsMessage(of: side) else { return }
    let sender = engine.sides[side].holder.name.endpoint
    if let answer = admission.answer(message.array(), sender, toSide: side, isHolder: true, &engine.state) {
      putMessage(answer.bytes, to: side, &engine)
    }
  }

  /// To a datagram side: the records become a train, moved together where they lie.
  private mutating func stageRecords(
    _ bytes: PacketBytes, _ buffer: BufferID, _ first: Int, _ length: Int, _ size: Int, _ count: Int,
    _ side: SideIndex, _ engine: inout Engine
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
        side, &engine)
      record += taken
    }
  }

  /// To a stream: the records as they are. To a datagram side: what was staged.
  private mutating func passRecords(
    _ bytes: PacketBytes, _ start: Int, _ end: Int, _ packets: Int, _ side: SideIndex, _ engine: inout Engine
  ) {
    guard packets > 0 else { return }
    guard engine.sides[side.partner].port.encapsulation == .tcp else { return flush(&engine) }
    let octets = end - start - packets * RecordFramer.lengthBytes
    let isTaken =
      engine.sides[side.partner].holder.isProven
      ? put(bytes.slice(start, end - start), to: side.partner, &engine) : nil
    engine.state.account(side, packets: UInt64(packets), octets: octets, isTaken: isTaken)
  }

  // MARK: Sending

  /// Puts a run behind those of the same side; those of another go first.
  mutating func stage(_ run: ForwardBatch.Run, _ side: SideIndex, _ engine: inout Engine) {
    if engine.stagedSide != side { flush(&engine) }
    engine.flushShared()
    engine.stagedSide = side
    guard engine.batch.room > 0 else {
      return engine.state.account(side, packets: run.packets, octets: 0, isTaken: false)
    }
    engine.batch.stage(run, pool: engine.io.pool)
  }

  /// Sends what is staged to the other side.
  mutating func flush(_ engine: inout Engine) {
    guard engine.stagedShared == nil, engine.batch.staged > 0, let side = engine.stagedSide else { return }
    guard engine.sides[side.partner].holder.isProven else {
      engine.state.account(side, packets: engine.batch.stagedPackets, octets: 0, isTaken: nil)
      return engine.batch.unstage(pool: engine.io.pool)
    }
    if engine.sides[side.partner].port.encapsulation == .udp {
      engine.sendStaged(from: side)
    } else {
      flushAsRecords(side, &engine)
    }
  }

  /// Lays the staged runs out as records and sends them to a stream.
  private mutating func flushAsRecords(_ side: SideIndex, _ engine: inout Engine) {
    let output = space.output
    var end = 0
    var packets: UInt64 = 0
    var octets = 0
    for index in 0..<engine.batch.staged {
      let run = engine.batch.run(index)
      for segment in run.segments {
        if end + segment.length + RecordFramer.lengthBytes > output.count {
          let isTaken = put(output.slice(0, end), to: side.partner, &engine)
          engine.state.account(side, packets: packets, octets: octets, isTaken: isTaken)
          (end, packets, octets) = (0, 0, 0)
        }
        output.store16(UInt16(truncatingIfNeeded: segment.length + RecordFramer.lengthBytes), end)
        output.copy(run.bytes.slice(segment.start, segment.length), to: end + RecordFramer.lengthBytes)
        end += segment.length + RecordFramer.lengthBytes
        packets += 1
        octets += segment.length
      }
    }
    engine.batch.unstage(pool: engine.io.pool)
    let isTaken = put(output.slice(0, end), to: side.partner, &engine)
    engine.state.account(side, packets: packets, octets: octets, isTaken: isTaken)
  }

  /// A side's stream takes something: what waits for it may go.
  mutating func push(_ side: SideIndex, _ engine: inout Engine) {
    guard let place = engine.sides[side].stream.place else { return }
    if !engine.sides[side].stream.queue.isEmpty {
      let sealed = table.sealedBytes(place)
      let sent = engine.sides[side].stream.queue.send(to: place, &table)
      guard sent >= 0 else { return close(side, &engine) }
      if sent > 0 || table.sealedBytes(place) < sealed {
        engine.sides[side].stream.progress = engine.clock.monotonic
      }
      guard engine.sides[side].stream.queue.isEmpty else { return pollWritable(side, &engine) }
    }
    guard table.flush(place) else { return close(side, &engine) }
    if table.hasSealed(place) { pollWritable(side, &engine) }
    engine.state.reconsider(side.partner)
  }

  /// Sends whole records to a side's stream.
  /// - Returns: false when they were dropped.
  mutating func put(_ bytes: PacketBytes, to side: SideIndex, _ engine: inout Engine) -> Bool {
    guard let place = engine.sides[side].stream.place, engine.sides[side].stream.queue.isEmpty else { return false }
    let sent = table.send(place, bytes)
    guard sent >= 0 else {
      close(side, &engine)
      return false
    }
    if sent < bytes.count {
      engine.sides[side].stream.queue.append(bytes.dropFirst(sent))
      engine.sides[side].stream.progress = engine.clock.monotonic
    }
    if sent < bytes.count || table.hasSealed(place) { pollWritable(side, &engine) }
    return true
  }

  /// Sends a message of our own, behind what waits; inside a run it has no place, and waits for its end.
  mutating func putMessage(_ message: [UInt8], to side: SideIndex, _ engine: inout Engine) {
    let record = StreamForwarding.record(message)
    if RunForwarding.isInside(side, self, engine) {
      if engine.sides[side].stream.delayed.count < RunForwarding.delayedBytes {
        engine.sides[side].stream.delayed += record
      }
    } else if engine.sides[side].stream.queue.isEmpty {
      space.output.copy(record, to: 0)
      _ = put(space.output.slice(0, record.count), to: side, &engine)
    } else if engine.sides[side].stream.queue.count < StreamSpace.bytes {
      engine.sides[side].stream.queue.append(record)
    }
  }

  /// A message as a record.
  static func record(_ message: [UInt8]) -> [UInt8] {
    var record: [UInt8] = []
    record.append(number: UInt16(message.count + RecordFramer.lengthBytes))
    return record + message
  }
}
