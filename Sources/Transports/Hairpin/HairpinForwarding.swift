import Glibc
import PacketIO

/// The way of sealed packets through the proxy: from one side's socket to the other's, unexamined. Only a first word
/// of zero is looked for, which no sealed packet has (RFC 4303 §2.1) and every message of our own.
extension HairpinEngine {
  /// Reads one batch of a side and forwards it; more is left for its next turn.
  mutating func serveSide(_ side: Int) {
    guard sides[side].isAllocated, sides[side].descriptor >= 0, !mustWait(side), let limit = allowance(side) else {
      return
    }
    let octets = sides[side].road == .udp ? serveDatagrams(side, limit: limit) : serveStream(side, limit: limit)
    sides[side].bucket.take(octets)
    spend(octets)
    let hairpin = side / 2
    usage[hairpin].bytes &+= UInt64(octets)
    if octets > 0 { usage[hairpin].lastData = clock.monotonic }
    if usage[hairpin].bytes >= usage[hairpin].byteLimit { finish(hairpin, .bytes) }
  }

  /// - Returns: sealed bytes.
  private mutating func serveDatagrams(_ side: Int, limit: Int) -> Int {
    // What is laid out as records for a stream must fit there.
    let limit = sides[side ^ 1].road == .udp ? limit : min(limit, 7)
    let count = batch.receive(sides[side].descriptor, limit: limit)
    guard count > 0 else {
      // Errors of earlier sends surface here too; only an empty socket is one that will speak up again.
      if count != -EAGAIN { schedule.markReady(side, priority: sides[side].priority) }
      return 0
    }
    if count == limit { schedule.markReady(side, priority: sides[side].priority) }
    var octets = 0
    for index in 0..<count { octets += forward(index, side) }
    flush(side)
    return octets
  }

  /// Stages what is sealed of a message; answers what is not.
  /// - Returns: sealed bytes.
  private mutating func forward(_ index: Int, _ side: Int) -> Int {
    let message = batch.message(index)
    guard sides[side].isProven, batch.isFrom(sides[side].name, index) else {
      strange(index, message, side)
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
    _ message: ForwardBatch.Message, from start: Int, to end: Int, _ side: Int
  ) -> Int {
    guard end > start else { return 0 }
    batch.stage(
      message.bytes.slice(start, end - start), segmentSize: message.segmentSize, trafficClass: message.trafficClass)
    if batch.isFull { flush(side) }
    return end - start
  }

  /// Sends what is staged to the other side.
  mutating func flush(_ side: Int) {
    guard batch.staged > 0 else { return }
    let partner = side ^ 1
    guard sides[partner].isProven else {
      account(side, packets: batch.stagedPackets, octets: 0, isTaken: nil)
      return batch.unstage()
    }
    guard sides[partner].road == .udp else { return flushAsRecords(side) }
    let sent = batch.send(sides[partner].descriptor, to: sides[partner].name)
    sides[side].packets &+= sent.packets
    sides[side].bytes &+= sent.bytes
    sides[side].dropped &+= sent.failedPackets
    statistics[.forwardedPackets] &+= sent.packets
    statistics[.forwardedBytes] &+= sent.bytes
    statistics[.notTaken] &+= sent.failedPackets
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
        if end + length + RecordFramer.lengthBytes > StreamSpace.half {
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
    batch.unstage()
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
  private mutating func strange(_ index: Int, _ message: ForwardBatch.Message, _ side: Int) {
    guard message.bytes.count <= HairpinMessage.mostBytes, message.segmentSize >= message.bytes.count else {
      statistics[.stranger] += UInt64((message.bytes.count + message.segmentSize - 1) / message.segmentSize)
      return
    }
    let sender = batch.sender(index)
    // What is staged came from the address that is proven now, and this may change it.
    if let answer = answer(message.bytes.array(), sender, side: side, isHolder: false) {
      _ = HairpinSocket.send(sides[side].descriptor, answer, to: SocketName(sender))
    }
  }
}
