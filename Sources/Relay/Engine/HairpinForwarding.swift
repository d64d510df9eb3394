import Glibc
import PacketIO
import Transports

/// The way of sealed packets through the proxy: from one side's socket to the other's, unexamined. Only a first word
/// of zero is looked for, which no sealed packet has (RFC 4303 §2.1) and every message of our own.
extension HairpinEngine {
  // MARK: Datagrams, handed over

  /// Forwards what came to a side without a limit.
  mutating func completeReceive(_ completion: Completion) {
    let side = HairpinEngine.place(completion.token)
    let message = io.message(completion)
    defer { if let message { io.pool.release(message.buffer) } }
    guard isCurrent(completion.token, marks[side].stream) else { return }
    if !completion.more {
      sides[side].isReceiving = false
      want(side)
    }
    guard let message else { return }
    charge(side, forward(message, side))
  }

  /// Books sealed bytes that a side handed in.
  private mutating func charge(_ side: Int, _ octets: Int) {
    guard octets > 0 else { return }
    sides[side].bucket.take(octets)
    spend(octets)
    let hairpin = side / 2
    usage[hairpin].bytes &+= UInt64(octets)
    usage[hairpin].lastData = clock.monotonic
    if usage[hairpin].bytes >= usage[hairpin].byteLimit { finish(hairpin, .bytes) }
  }

  // MARK: One batch

  /// Reads one batch of a side and forwards it; more is left for its next turn.
  mutating func serveSide(_ side: Int) {
    guard sides[side].isAllocated, sides[side].descriptor >= 0, !mustWait(side), let limit = allowance(side) else {
      return
    }
    charge(
      side, sides[side].encapsulation == .udp ? serveDatagrams(side, limit: limit) : serveStream(side, limit: limit))
  }

  /// - Returns: sealed bytes.
  private mutating func serveDatagrams(_ side: Int, limit: Int) -> Int {
    // What is laid out as records for a stream must fit there.
    let limit = sides[side ^ 1].encapsulation == .udp ? limit : min(limit, 7)
    if io.pull(sides[side].descriptor, limit: limit) {
      want(side)
    } else {
      schedule.markReady(side, priority: sides[side].priority)
    }
    var octets = 0
    for index in 0..<io.pulledCount {
      let message = io.pulledMessage(index)
      octets += forward(message, side)
      io.pool.release(message.buffer)
    }
    flush()
    return octets
  }

  /// Stages what is sealed of a message; answers what is not.
  /// - Returns: sealed bytes.
  private mutating func forward(_ message: HairpinIO.Message, _ side: Int) -> Int {
    guard sides[side].isProven, sides[side].name.equals(message.name) else {
      strange(message, side)
      return 0
    }
    guard !message.isTruncated else {
      statistics[.truncated] += 1
      return 0
    }
    sides[side].lastHeard = clock.monotonic
    let (bytes, size) = (message.bytes, message.segmentSize)
    var start = 0
    var octets = 0
    var offset = 0
    while offset < bytes.count {
      let length = min(size, bytes.count - offset)
      if length < 4 || bytes.loadNative(offset, as: UInt32.self) == 0 {
        octets += stage(message, from: start, to: offset, side)
        start = offset + length
        handle(bytes.slice(offset, length), side)
      }
      offset += length
    }
    return octets + stage(message, from: start, to: bytes.count, side)
  }

  private mutating func stage(
    _ message: HairpinIO.Message, from start: Int, to end: Int, _ side: Int
  ) -> Int {
    guard end > start else { return 0 }
    stage(
      ForwardBatch.Run(
        bytes: message.bytes.slice(start, end - start), buffer: message.buffer, segmentSize: message.segmentSize,
        trafficClass: message.trafficClass),
      side)
    return end - start
  }

  /// Puts a run behind those of the same side; those of another go first.
  mutating func stage(_ run: ForwardBatch.Run, _ side: Int) {
    if stagedSide != side { flush() }
    stagedSide = side
    guard batch.room > 0 else {
      return account(side, packets: run.packets, octets: 0, isTaken: false)
    }
    batch.stage(run, pool: io.pool)
  }

  /// Sends what is staged to the other side.
  mutating func flush() {
    guard batch.staged > 0 else { return }
    let side = stagedSide
    let partner = side ^ 1
    guard sides[partner].isProven else {
      account(side, packets: batch.stagedPackets, octets: 0, isTaken: nil)
      return batch.unstage(pool: io.pool)
    }
    guard sides[partner].encapsulation == .udp else { return flushAsRecords(side) }
    let sent = batch.send(
      sides[partner].descriptor, to: sides[partner].name,
      sender: HairpinEngine.token(.send, side, marks[side].port).value, ring: &io.ring)
    account(side, packets: sent.packets, octets: Int(sent.bytes), isTaken: true)
  }

  /// Takes back from the books what was not taken after all.
  mutating func completeSend(_ index: Int, _ result: Int32) {
    let sender = Token(owner: 0, kind: 0, value: batch.sender(index))
    let side = HairpinEngine.place(sender)
    let isCurrent = isCurrent(sender, marks[side].port)
    let failed = batch.complete(
      index, result: result, open: isCurrent ? sides[side ^ 1].descriptor : -1, pool: io.pool)
    guard failed.packets > 0 else { return }
    statistics[.forwardedPackets] &-= failed.packets
    statistics[.forwardedBytes] &-= failed.bytes
    statistics[.notTaken] &+= failed.packets
    guard isCurrent else { return }
    sides[side].packets &-= failed.packets
    sides[side].bytes &-= failed.bytes
    sides[side].dropped &+= failed.packets
  }

  /// Lays the staged runs out as records and sends them to a stream.
  private mutating func flushAsRecords(_ side: Int) {
    let output = space.output
    var end = 0
    var packets: UInt64 = 0
    var octets = 0
    for index in 0..<batch.staged {
      let run = batch.run(index)
      var offset = 0
      while offset < run.bytes.count {
        let length = min(run.segmentSize, run.bytes.count - offset)
        if end + length + RecordFramer.lengthBytes > output.count {
          account(side, packets: packets, octets: octets, isTaken: put(output.slice(0, end), to: side ^ 1))
          (end, packets, octets) = (0, 0, 0)
        }
        output.store16(UInt16(truncatingIfNeeded: length + RecordFramer.lengthBytes), end)
        output.copy(run.bytes.slice(offset, length), to: end + RecordFramer.lengthBytes)
        end += length + RecordFramer.lengthBytes
        packets += 1
        octets += length
        offset += length
      }
    }
    batch.unstage(pool: io.pool)
    account(side, packets: packets, octets: octets, isTaken: put(output.slice(0, end), to: side ^ 1))
  }

  /// What a proven gateway says that is no sealed packet.
  mutating func handle(_ bytes: PacketBytes, _ side: Int) {
    // The one byte that keeps a mapping of an address translator alive (RFC 3948 §2.3).
    if bytes.count == 1, bytes[0] == 0xFF { return }
    guard bytes.count <= HairpinMessage.mostBytes else {
      statistics[.malformed] += 1
      return
    }
    let sender = sides[side].name.endpoint
    if let answer = answer(bytes.array(), sender, side: side, isHolder: true) { tell(side, answer) }
  }

  /// What somebody says on a port without having proved anything.
  private mutating func strange(_ message: HairpinIO.Message, _ side: Int) {
    guard message.bytes.count <= HairpinMessage.mostBytes, message.segmentSize >= message.bytes.count,
      let sender = SocketName.endpoint(message.name)
    else {
      statistics[.stranger] += UInt64((message.bytes.count + message.segmentSize - 1) / message.segmentSize)
      return
    }
    // What is staged came from the address that is proven now, and this may change it.
    if let answer = answer(message.bytes.array(), sender, side: side, isHolder: false) {
      _ = UDPSocket.send(sides[side].descriptor, answer, to: SocketName(sender))
    }
  }
}
