import Identity
import PacketIO

/// The side that is asked, once it knows by whom (RFC 7401 §6.7, §6.9).
extension HostAssociation {
  /// Nanoseconds for which the side with the smaller tag waits for an answer of its own before it answers too.
  private static let patience: UInt64 = 2_000_000_000

  /// Whether an I1 is answered: of two who ask at once, the one with the greater tag is to answer (RFC 7401 §6.7). But
  /// if nothing comes of it, whoever can be reached answers.
  func answersI1(_ now: MonotonicTime) -> Bool {
    guard case .asked(let asked) = attempt, !isGreater else { return true }
    return now.nanoseconds(since: asked.began) > HostAssociation.patience
  }

  /// What is checked from the cheapest to the dearest: partner and shape are known, then address, offer and puzzle,
  /// whether it is the first, whose key it is, the signature, Diffie-Hellman, the MAC.
  mutating func takeI2(_ packet: HIPPacket, along path: Path, _ responder: inout Responder, _ turn: inout KeyingTurn) {
    if let lastAnswer, lastAnswer.i2 == packet.bytes { return turn.send(lastAnswer.r2, along: path) }
    // Of two who have asked at once, the one with the smaller tag goes on (RFC 7401 §6.9).
    if case .answered = attempt, !isGreater { return }
    guard let (offer, solution) = responder.offer(packet, of: partner, along: path, &turn),
      responder.mayAccept(solution, of: pair),
      let peer = partner.identity(in: packet), let value = DiffieHellmanParameter(packet.content(.diffieHellman)),
      value.group == offer.key.group.rawValue, let info = ESPInfo(packet.content(.espInfo)), info.new >= 256,
      responder.mayVerify(turn.now), packet.hasValidSignature(by: peer)
    else { return }
    guard let terms = Session.Terms(packet, peer, offer, solution, info, partner, &turn) else {
      return fail(.nothingInCommon, &turn)
    }
    guard let shared = offer.key.agree(with: value.value) else { return }
    let secret = partner.mixed(shared)
    var session = Session(terms, secret: secret, partner: partner, &turn)
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
