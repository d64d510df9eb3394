import Identity
import PacketIO

/// The end (RFC 7401 §6.13, §6.14).
extension HostAssociation {
  /// Ends what there is: keys go at once, and the partner is told, of the reason too.
  mutating func close(because reason: Notice? = nil, _ turn: inout KeyingTurn) {
    endAttempt(&turn)
    guard let session else { return }
    let path = path ?? partner.paths.first
    let echo = turn.bytes(8)
    let packet = session.close(echo, because: reason, partner)
    forget(&turn)
    guard let path else { return }
    turn.send(packet, along: path)
    turn.farewell = Farewells.Farewell(packet, along: path, echo: echo, to: session.peer, now: turn.now)
  }

  mutating func takeClose(_ packet: HIPPacket, along path: Path, _ turn: inout KeyingTurn) {
    guard let session, packet.hasValidMAC(key: session.macKeys.received, suite: session.suite),
      packet.hasValidSignature(by: session.peer), let echo = packet.content(.echoRequestSigned),
      echo.count <= Session.longestEcho
    else { return }
    turn.send(session.packet(.closeAck, [(.echoResponseSigned, Array(echo))], partner), along: path)
    endAttempt(&turn)
    forget(&turn)
    let isIdle = NotificationParameter(packet.content(.notification))?.notice == .idle
    turn.report(isIdle ? .idle(partner: partner.name) : .closed(partner: partner.name))
    // Where sides part for want of traffic, traffic brings them together. Else the partner will ask when it is back, if
    // it can.
    attempt = isIdle || partner.idleClose != nil ? .none : .later(&turn)
  }
}
