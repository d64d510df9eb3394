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
  static func receive(_ completion: Completion, _ server: inout HairpinServer) {
    let message = server.engine.io.message(completion)
    let pool = server.engine.io.pool
    defer { if let message { pool.release(message.buffer) } }
    guard let side = server.engine.side(completion.token) else { return }
    if !completion.more {
      server.engine.sides[side].receive.isArmed = false
      server.engine.receive(side)
    }
    guard let message else { return }
    server.charge(side, server.forward(message, side))
  }

  /// Reads one batch of a side and forwards it; more is left for its next turn.
  /// - Returns: sealed bytes.
  static func serve(_ side: SideIndex, limit: Int, _ server: inout HairpinServer) -> Int {
    let isToDatagrams = server.engine.sides[side.partner].port.encapsulation == .udp
    let limit = isToDatagrams ? limit : min(limit, messagesOfRecords)
    if server.engine.io.pull(server.engine.sides[side].port.socket, limit: limit) {
      server.engine.receive(side)
    } else {
      server.engine.state.markReady(side)
    }
    var octets = 0
    for index in 0..<server.engine.io.pulledCount {
      let message = server.engine.io.pulledMessage(index)
      octets += server.forward(message, side)
      server.engine.io.pool.release(message.buffer)
    }
    server.streams.flush(&server.engine)
    return octets
  }
}

extension HairpinHost where Self: ~Copyable {
  /// A message that came to a side's datagram port.
  /// - Returns: sealed bytes.
  mutating func forward(_ message: RelayIO.Message, _ side: SideIndex) -> Int {
    guard state.sides[side].holder.isProven, state.sides[side].holder.name.equals(message.name) else {
      answerOther(message, side)
      return 0
    }
    guard !message.isTruncated else {
      state.statistics[.truncated] += 1
      return 0
    }
    state.sides[side].holder.lastHeard = state.clock.monotonic
    var start = 0
    var octets = 0
    for segment in message.segments {
      guard Self.isForRelay(message.bytes.slice(segment.start, segment.length)) else { continue }
      octets += stage(message, from: start, to: segment.start, side)
      start = segment.start + segment.length
      answerHolder(message.bytes.slice(segment.start, segment.length), side)
    }
    return octets + stage(message, from: start, to: message.bytes.count, side)
  }

  @inline(__always)
  private static func isForRelay(_ bytes: PacketBytes) -> Bool {
    guard bytes.count >= Superpacket.markerLength else { return true }
    return bytes.loadNative(0, as: UInt32.self) == 0
      && HairpinMessage.isOwn(bytes.dropFirst(Superpacket.markerLength))
  }

  private mutating func stage(_ message: RelayIO.Message, from start: Int, to end: Int, _ side: SideIndex) -> Int {
    guard end > start else { return 0 }
    stage(
      ForwardBatch.Run(
        bytes: message.bytes.slice(start, end - start), buffer: message.buffer, segmentSize: message.segmentSize,
        trafficClass: message.trafficClass),
      side)
    return end - start
  }

  /// What a proven gateway says that is no sealed packet.
  private mutating func answerHolder(_ bytes: PacketBytes, _ side: SideIndex) {
    // The one byte that keeps a mapping of an address translator alive (RFC 3948 §2.3).
    if bytes.count == 1, bytes[0] == 0xFF { return }
    guard bytes.count <= HairpinMessage.mostBytes else {
      state.statistics[.malformed] += 1
      return
    }
    guard state.admitsMessage(of: side) else { return }
    let name = state.sides[side].holder.name
    let answer = decide { $0.answer(bytes.array(), name.endpoint, toSide: side, isHolder: true, &$1) }
    if let answer { _ = say(answer.bytes, from: side, to: name) }
  }

  /// What somebody says on a port without having proved anything.
  private mutating func answerOther(_ message: RelayIO.Message, _ side: SideIndex) {
    // Who does not know the port's token is not read: a flood of such costs little more than the kernel's part of it.
    guard message.bytes.count <= HairpinMessage.mostBytes, message.segmentSize >= message.bytes.count,
      HairpinMessage.names(state.sides[side].port.token, message.bytes),
      let sender = SocketName.endpoint(message.name)
    else {
      state.statistics[.stranger] += UInt64((message.bytes.count + message.segmentSize - 1) / message.segmentSize)
      return
    }
    let answer = decide { $0.answer(message.bytes.array(), sender, toSide: side, isHolder: false, &$1) }
    if let answer, say(answer.bytes, from: side, to: SocketName(sender)) { decide { $0.settle(answer, side, &$1) } }
  }
}
