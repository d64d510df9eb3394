import Identity
import KeyDerivation
import PacketIO

// What each packet of a handshake is made of.

extension Partner {
  /// Not shorter than the R1 that is to answer it, so that nobody gains by asking in another's name.
  func makeI1() -> [UInt8] {
    var builder = HIPBuilder(.i1, from: local.tag, to: remote)
    builder.append(.dhGroupList, offeredGroups.map(\.rawValue))
    if !isForeign {
      let value = (offeredGroups.map(\.publicLength).max() ?? 32) - 32
      let missing = R1Length.longest(of: remote.suite) + value - builder.finish().count - 4
      builder.append(.pad, [UInt8](repeating: 0, count: max(missing, 0)))
    }
    return builder.finish()
  }

  /// - Parameter counter: that of the R1; nil: it had none.
  func makeI2(
    _ terms: Session.Terms, _ solution: PuzzleParameter, counter: UInt64?, _ key: DiffieHellmanKey,
    macKey: KeyMaterial
  ) -> [UInt8] {
    var builder = HIPBuilder(.i2, from: local.tag, to: remote)
    builder.append(.espInfo, ESPInfo(index: terms.index, old: 0, new: terms.inboundSPI).content)
    if let counter { builder.append(.r1Counter, R1Counter.content(counter)) }
    builder.append(.solution, solution.content)
    builder.append(.diffieHellman, DiffieHellmanParameter(key).content)
    builder.append(.hipCipher, NumberList.content([terms.cipher]))
    builder.append(.hostID, local.publicIdentity.hostID)
    builder.append(.transportFormatList, NumberList.content([HIPParameter.espTransform.rawValue]))
    builder.append(.espTransform, NumberList.content([terms.espSuite.number], reserved: 2))
    if let kem = terms.kem { builder.append(.kemList, [kem]) }
    if !isForeign { builder.append(.workers, WorkerCount.content(terms.workers.local)) }
    builder.appendMAC(key: macKey, suite: terms.suite)
    builder.appendSignature(by: local)
    return builder.finish()
  }

  func makeR2(_ session: Session) -> [UInt8] {
    let index = KeymatIndex.traffic(session.suite, cipher: session.terms.cipher)
    var builder = HIPBuilder(.r2, from: local.tag, to: remote)
    builder.append(.espInfo, ESPInfo(index: index, old: 0, new: session.inboundSPI).content)
    if !isForeign { builder.append(.workers, WorkerCount.content(session.workers.local)) }
    builder.appendMAC2(key: session.macKeys.sent, suite: session.suite, hostID: local.publicIdentity.hostID)
    builder.appendSignature(by: local)
    return builder.finish()
  }

  /// The key in a packet, if it is the partner's.
  func identity(in packet: HIPPacket) -> PublicHostIdentity? {
    if let known = remoteIdentity, Array(packet.content(.hostID) ?? []) == known.hostID { return known }
    guard let hostID = packet.content(.hostID), let identity = PublicHostIdentity(hostID: hostID),
      identity.tag == remote
    else { return nil }
    return identity
  }

  /// What keys are made of, with a secret that only the two know.
  func mixed(_ shared: KeyMaterial) -> KeyMaterial { mix.map { KeyMaterial(joining: [shared, $0]) } ?? shared }
}

extension Session.Terms {
  /// What an I2 has chosen, if it may.
  init?(
    _ packet: HIPPacket, _ peer: PublicHostIdentity, _ offer: Responder.Offer, _ solution: PuzzleParameter,
    _ info: ESPInfo, _ partner: Partner, _ turn: inout KeyingTurn
  ) {
    let ciphers = NumberList.numbers(packet.content(.hipCipher))
    guard let suite = partner.local.tag.suite, ciphers.count == 1, let cipher = ciphers.first,
      cipher == 4 || cipher == 2,
      let number = NumberList.numbers(packet.content(.espTransform), reserved: 2).first,
      let espSuite = ESPSuite(number: number), partner.offeredSuites.contains(espSuite)
    else { return nil }
    let kem = packet.content(.kemList)?.first
    guard kem.map(offer.kems.contains) ?? (partner.postQuantum != .required) else { return nil }
    let index = max(KeymatIndex.traffic(suite, cipher: cipher), Int(info.index))
    self.init(
      suite: suite, espSuite: espSuite, group: offer.key.group, kem: kem, peer: peer, isInitiator: false,
      salt: solution.i + solution.j, cipher: cipher,
      workers: (turn.settings.workers, WorkerCount.value(packet.content(.workers))), inboundSPI: 0,
      outboundSPI: partner.isForeign ? info.new : info.new & ~15, index: index)
    guard Session.isRoom(from: index, for: self) else { return nil }
    inboundSPI = turn.spis.take(&turn.random, now: turn.now)
  }
}

extension Session.Terms {
  /// What is wrong with what an I2 has chosen.
  static func refusal(_ packet: HIPPacket, _ partner: Partner) -> Notice {
    if !NumberList.numbers(packet.content(.hipCipher)).elementsEqual([4]) { return .invalidCipher }
    let suite = NumberList.numbers(packet.content(.espTransform), reserved: 2).first.flatMap { ESPSuite(number: $0) }
    return suite.map(partner.offeredSuites.contains) == true ? .blockedByPolicy : .invalidESPTransform
  }
}

extension Session {
  /// An authentic packet.
  func packet(_ kind: HIPPacketKind, _ parameters: [(HIPParameter, [UInt8])], _ partner: Partner) -> [UInt8] {
    var builder = HIPBuilder(kind, from: partner.local.tag, to: partner.remote)
    for (type, content) in parameters { builder.append(type, content) }
    return finished(&builder, partner)
  }

  /// - Parameter reason: what the partner is told beside.
  func close(_ echo: [UInt8], because reason: Notice?, _ partner: Partner) -> [UInt8] {
    let why = reason.map { [(HIPParameter.notification, NotificationParameter($0).content)] } ?? []
    return packet(.close, why + [(.echoRequestSigned, echo)], partner)
  }

  /// - Parameter echo: what was asked beside.
  func acknowledgment(of numbers: [UInt32], echo: [UInt8]? = nil, _ partner: Partner) -> [UInt8] {
    packet(
      .update,
      [(.ack, UpdateNumbers.content(numbers))] + [echo.map { (.echoResponseSigned, $0) }].compactMap(\.self), partner)
  }

  /// This side's half of a rekey: an UPDATE for each of its numbers.
  func packets(of rekey: Rekey, acknowledging numbers: [UInt32], _ partner: Partner) -> [[UInt8]] {
    rekey.own.numbers.enumerated().map { place, number in
      var builder = HIPBuilder(.update, from: partner.local.tag, to: partner.remote)
      builder.append(.espInfo, ESPInfo(index: 0, old: rekey.oldInboundSPI, new: rekey.own.spi).content)
      builder.append(.seq, UpdateNumbers.content([number]))
      if !numbers.isEmpty { builder.append(.ack, UpdateNumbers.content(numbers)) }
      builder.append(
        .diffieHellman, DiffieHellmanParameter(group: group.rawValue, value: rekey.own.publicValue).content)
      if !partner.isForeign { builder.append(.workers, WorkerCount.content(workers.local)) }
      if rekey.own.pieces.indices.contains(place) { builder.append(.kemPart, rekey.own.pieces[place].content) }
      return finished(&builder, partner)
    }
  }

  private func finished(_ builder: inout HIPBuilder, _ partner: Partner) -> [UInt8] {
    builder.appendMAC(key: macKeys.sent, suite: suite)
    builder.appendSignature(by: partner.local)
    return builder.finish()
  }

  /// What new keys are made of (RFC 7402 §7); with an encapsulation agreed upon also of its secret, of the keys before,
  /// and of all that was said.
  func secret(of rekey: Rekey, _ peer: Rekey.Half, _ shared: KeyMaterial, _ partner: Partner) -> KeyMaterial {
    guard kem != nil else { return partner.mixed(shared) }
    let own = rekey.own.transcript(old: rekey.oldInboundSPI)
    let theirs = peer.transcript(old: rekey.oldOutboundSPI)
    var hash = suite.hash(isInitiator ? own + theirs : theirs + own)
    let parts = [rekey.encapsulated, shared, partner.mix, chain, KeyMaterial(taking: &hash)]
    return KeyMaterial(joining: parts.compactMap(\.self))
  }
}

/// Bytes of R1s.
enum R1Length {
  /// Of those that partners with a suite send, with all lists they can have and a Diffie-Hellman value of 32 bytes.
  static func longest(of suite: HostIdentitySuite?) -> Int {
    switch suite {
    case .edDSA: 320
    // With a key of P-384.
    case .ecdsa: 480
    case .rsa, nil: 1008
    }
  }
}
