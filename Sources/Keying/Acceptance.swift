import Identity
import KeyDerivation
import PacketIO

/// The side that is asked, once it knows by whom (RFC 7401 §6.7, §6.9).
extension HostAssociation {
  /// What is checked from the cheapest to the dearest: partner and shape are known, then address, offer and puzzle,
  /// whether it is the first, whose key it is, the signature, Diffie-Hellman, the MAC.
  mutating func takeI2(_ packet: HIPPacket, along path: Path, _ responder: inout Responder, _ turn: inout KeyingTurn) {
    if let lastAnswer, lastAnswer.i2 == packet.bytes { return turn.send(lastAnswer.r2, along: path) }
    if attempt.precedesAnswers(isGreater: isGreater, now: turn.now) { return }
    guard let (offer, solution) = responder.offer(packet, of: partner, along: path, &turn) else { return }
    guard responder.mayAccept(solution, of: pair) else {
      if session == nil, responder.isFull(pair) { fail(.tooOften, &turn) }
      return
    }
    guard let peer = partner.identity(in: packet), let value = DiffieHellmanParameter(packet.content(.diffieHellman)),
      value.group == offer.key.group.rawValue, let info = ESPInfo(packet.content(.espInfo)), info.new >= 256,
      responder.mayVerify(turn.now), packet.hasValidSignature(by: peer)
    else { return }
    guard let terms = Session.Terms(packet, peer, offer, solution, info, partner, &turn) else {
      let refusal = Session.Terms.refusal(packet, partner)
      notices.send(refusal, to: partner, along: path, &turn)
      return fail(refusal == .blockedByPolicy ? .notPostQuantum : .nothingInCommon, &turn)
    }
    guard let shared = offer.key.agree(with: value.value) else {
      return turn.spis.giveBack(terms.inboundSPI, now: turn.now)
    }
    let keymat = Keymat(
      secret: partner.mixed(shared), salt: terms.salt, between: (partner.local.tag, partner.remote), terms.suite)
    var session = Session(terms, keymat, partner: partner, &turn)
    guard packet.hasValidMAC(key: session.macKeys.received, suite: session.suite) else {
      return turn.spis.giveBack(terms.inboundSPI, now: turn.now)
    }
    responder.accept(solution, offer, of: pair)
    session.duration = 0
    self.path = path

    let r2 = partner.makeR2(session)
    // The answer tells the partner that it may send, so it goes once that can be opened.
    adopt(session, &turn)
    lastAnswer = (packet.bytes, r2)
    turn.send(r2, along: path)
  }
}

extension Session {
  /// Whether KEYMAT has all keys from there.
  static func isRoom(from index: Int, for terms: Terms) -> Bool {
    index + 2 * 16 * terms.espSuite.cipher.keyMaterialLength <= 1984
  }
}
