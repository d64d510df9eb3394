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
      let peer = identity(in: packet), let value = DiffieHellmanParameter(packet.content(.diffieHellman)),
      value.group == offer.key.group.rawValue, let info = ESPInfo(packet.content(.espInfo)), info.new >= 256,
      responder.mayVerify(turn.now), packet.hasValidSignature(by: peer)
    else { return }
    guard let terms = accepted(packet, peer, offer, solution, info, &turn) else {
      return fail(.nothingInCommon, &turn)
    }
    guard let shared = offer.key.agree(with: value.value) else { return }
    let secret = mixed(shared)
    var session = Session(terms, secret: secret, partner: partner, &turn)
    guard packet.hasValidMAC(key: session.macKeys.received, suite: session.suite) else {
      return turn.spis.giveBack(terms.inboundSPI, now: turn.now)
    }
    responder.accept(solution, offer, of: pair)
    session.duration = 0
    self.path = path

    var builder = HIPBuilder(.r2, from: partner.local.tag, to: partner.remote)
    builder.append(
      .espInfo,
      ESPInfo(index: KeymatIndex.traffic(terms.suite, cipher: terms.cipher), old: 0, new: terms.inboundSPI).content)
    if !partner.isForeign { builder.append(.workers, WorkerCount.content(turn.settings.workers)) }
    builder.appendMAC2(
      key: session.macKeys.sent, suite: session.suite, hostID: partner.local.publicIdentity.hostID)
    builder.appendSignature(by: partner.local)
    let r2 = builder.finish()
    // The answer tells the partner that it may send, so it goes once that can be opened.
    adopt(session, &turn)
    lastAnswer = (packet.bytes, r2)
    turn.send(r2, along: path)
  }

  /// What an I2 has chosen, if it may.
  private func accepted(
    _ packet: HIPPacket, _ peer: PublicHostIdentity, _ offer: Responder.Offer, _ solution: PuzzleParameter,
    _ info: ESPInfo, _ turn: inout KeyingTurn
  ) -> Session.Terms? {
    let ciphers = NumberList.numbers(packet.content(.hipCipher))
    guard let suite = partner.local.tag.suite, ciphers.count == 1, let cipher = ciphers.first,
      cipher == 4 || cipher == 2,
      let number = NumberList.numbers(packet.content(.espTransform), reserved: 2).first,
      let espSuite = ESPSuite(number: number), partner.offeredSuites.contains(espSuite)
    else { return nil }
    let kem = packet.content(.kemList)?.first
    guard kem.map(offer.kems.contains) ?? (partner.postQuantum != .required) else { return nil }
    let index = max(KeymatIndex.traffic(suite, cipher: cipher), Int(info.index))
    let terms = Session.Terms(
      suite: suite, espSuite: espSuite, group: offer.key.group, kem: kem, peer: peer, isInitiator: false,
      salt: solution.i + solution.j, cipher: cipher,
      workers: (turn.settings.workers, WorkerCount.value(packet.content(.workers))),
      inboundSPI: turn.spis.take(&turn.random, now: turn.now),
      outboundSPI: partner.isForeign ? info.new : info.new & ~15,
      index: index)
    return Session.isRoom(from: index, for: terms) ? terms : nil
  }
}

extension Session {
  /// Whether KEYMAT has all keys from there.
  static func isRoom(from index: Int, for terms: Terms) -> Bool {
    index + 2 * 16 * terms.espSuite.cipher.keyMaterialLength <= 1984
  }
}
