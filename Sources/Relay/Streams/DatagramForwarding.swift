import PacketIO
import Transports

/// The relay's UDP sides: sealed packets from one side's socket to the other's, unexamined. Only a first word of zero is
/// looked for, which no sealed packet has (RFC 4303 §2.1) and every message has: those of gateways among each other, as
/// of a key exchange, are forwarded too.
///
/// 1. `receive` takes what the kernel hands over of a side without a limit, `serve` reads one batch of another;
/// 2. `forward` stages what is sealed of a message, and answers what is not.
enum DatagramForwarding {
  /// Messages that are laid out as records for a stream at a time: they must fit into its space.
  private static let messagesOfRecords = 7

  /// Takes a completion of a side's multishot receive.
  /// - Returns: the side and its sealed bytes; nil: the port has gone, or nothing came.
  static func receive(
    _ completion: Completion, _ engine: inout Engine, _ streams: inout StreamForwarding, _ admission: inout Admission
  ) -> (side: SideIndex, octets: Int)? {
    let message = engine.io.message(completion)
    let pool = engine.io.pool
    defer { if let message { pool.release(message.buffer) } }
    guard let side = engine.side(completion.token) else { return nil }
    if !completion.more {
      engine.sides[side].receive.isArmed = false
      engine.receive(side)
    }
    guard let message else { return nil }
    return (side, forward(message, side, &engine, &streams, &admission))
  }

  /// Reads one batch of a side and forwards it; more is left for its next turn.
  /// - Returns: sealed bytes.
  static func serve(
    _ side: SideIndex, limit: Int, _ engine: inout Engine, _ streams: inout StreamForwarding,
    _ admission: inout Admission
  ) -> Int {
    let isToDatagrams = engine.sides[side.partner].port.encapsulation == .udp
    let limit = isToDatagrams ? limit : min(limit, messagesOfRecords)
    if engine.io.pull(engine.sides[side].port.socket, limit: limit) {
      engine.receive(side)
    } else {
      engine.markReady(side)
    }
    var octets = 0
    for index in 0..<engine.io.pulledCount {
      let message = engine.io.pulledMessage(index)
      octets += forward(message, side, &engine, &streams, &admission)
      engine.io.pool.release(message.buffer)
    }
    streams.flush(&engine)
    return octets
  }

  private static func forward(
    _ message: RelayIO.Message, _ side: SideIndex, _ engine: inout Engine, _ streams: inout StreamForwarding,
    _ admission: inout Admission
  ) -> Int {
    guard engine.sides[side].holder.isProven, engine.sides[side].holder.name.equals(message.name) else {
      answerOther(message, side, &engine, &admission)
      return 0
    }
    guard !message.isTruncated else {
      engine.statistics[.truncated] += 1
      return 0
    }
    engine.sides[side].holder.lastHeard = engine.clock.monotonic
    var start = 0
    var octets = 0
    for segment in message.segments {
      guard isForRelay(message.bytes.slice(segment.start, segment.length)) else { continue }
      octets += stage(message, from: start, to: segment.start, side, &engine, &streams)
      start = segment.start + segment.length
      answerHolder(message.bytes.slice(segment.start, segment.length), side, &engine, &admission)
    }
    return octets + stage(message, from: start, to: message.bytes.count, side, &engine, &streams)
  }

  @inline(__always)
  private static func isForRelay(_ bytes: PacketBytes) -> Bool {
    guard bytes.count >= Superpacket.markerLength else { return true }
    return bytes.loadNative(0, as: UInt32.self) == 0
      && HairpinMessage.isOwn(bytes.dropFirst(Superpacket.markerLength))
  }

  private static func stage(
    _ message: RelayIO.Message, from start: Int, to end: Int, _ side: SideIndex, _ engine: inout Engine,
    _ streams: inout StreamForwarding
  ) -> Int {
    guard end > start else { return 0 }
    streams.stage(
      ForwardBatch.Run(
        bytes: message.bytes.slice(start, end - start), buffer: message.buffer, segmentSize: message.segmentSize,
        trafficClass: message.trafficClass),
      side, &engine)
    return end - start
  }

  /// What a proven gateway says that is no sealed packet.
  private static func answerHolder(
    _ bytes: PacketBytes, _ side: SideIndex, _ engine: inout Engine, _ admission: inout Admission
  ) {
    // The one byte that keeps a mapping of an address translator alive (RFC 3948 §2.3).
    if bytes.count == 1, bytes[0] == 0xFF { return }
    guard bytes.count <= HairpinMessage.mostBytes else {
      engine.statistics[.malformed] += 1
      return
    }
    guard engine.admitsMessage(of: side) else { return }
    let name = engine.sides[side].holder.name
    if let answer = admission.answer(bytes.array(), name.endpoint, toSide: side, isHolder: true, &engine) {
      _ = UDPSocket.send(engine.sides[side].port.socket, answer.bytes, to: engine.sides[side].holder.name)
    }
  }

  /// What somebody says on a port without having proved anything.
  private static func answerOther(
    _ message: RelayIO.Message, _ side: SideIndex, _ engine: inout Engine, _ admission: inout Admission
  ) {
    // Who does not know the port's token is not read: a flood of such costs little more than the kernel's part of it.
    guard message.bytes.count <= HairpinMessage.mostBytes, message.segmentSize >= message.bytes.count,
      HairpinMessage.names(engine.sides[side].port.token, message.bytes),
      let sender = SocketName.endpoint(message.name)
    else {
      engine.statistics[.stranger] += UInt64((message.bytes.count + message.segmentSize - 1) / message.segmentSize)
      return
    }
    if let answer = admission.answer(message.bytes.array(), sender, toSide: side, isHolder: false, &engine),
      UDPSocket.send(engine.sides[side].port.socket, answer.bytes, to: SocketName(sender)) == 0
    {
      admission.settle(answer, side, &engine)
    }
  }
}
