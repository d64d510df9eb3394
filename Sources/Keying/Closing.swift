import Identity
import PacketIO

/// The end (RFC 7401 §6.13, §6.14).
extension HostAssociation {
  /// Nanoseconds between the two CLOSEs: the first may be lost, and nobody waits for the answer.
  private static let repetition: UInt64 = 500_000_000

  /// Ends what there is: keys go at once, and the partner is told.
  mutating func close(_ turn: inout KeyingTurn) {
    attempt = .none
    guard let session else { return }
    let path = path ?? partner.paths.first
    let packet = session.packet(.close, .echoRequestSigned, turn.bytes(8), partner)
    forget(&turn)
    guard let path else { return }
    turn.send(packet, along: path)
    closing = (packet, path, turn.now.adding(nanoseconds: HostAssociation.repetition))
  }

  mutating func takeClose(_ packet: HIPPacket, along path: Path, _ turn: inout KeyingTurn) {
    guard let session, packet.hasValidMAC(key: session.macKeys.received, suite: session.suite),
      packet.hasValidSignature(by: session.peer), let echo = packet.content(.echoRequestSigned)
    else { return }
    turn.send(session.packet(.closeAck, .echoResponseSigned, Array(echo), partner), along: path)
    forget(&turn)
    turn.report(.closed(partner: partner.name))
    // It will ask when it is back; this is for the case that nobody else does.
    attempt = .waiting(until: turn.now.adding(nanoseconds: turn.seconds(30, spread: 0.5)))
  }
}
