import Identity
import PacketIO

/// What each UPDATE of a rekey does; see `Rekey` for the order.
extension HostAssociation {
  /// Tries before the handshake is made anew.
  private static let mostTries = 8

  /// Makes new keys, unless that is under way.
  mutating func beginRekey(_ turn: inout KeyingTurn) {
    guard let session, session.rekey == nil, session.isConfirmed else { return }
    startRekey(answering: nil, &turn)
  }

  // MARK: 1. Its own UPDATE

  /// - Parameter peer: what the peer has sent, if it was the first.
  private mutating func startRekey(answering peer: Rekey.Half?, _ turn: inout KeyingTurn) {
    guard var session else { return }
    let spi = turn.spis.take(&turn.random, now: turn.now)
    let key = turn.makeKey(session.group)
    var rekey = Rekey(
      began: turn.now, key: key, own: Rekey.Half(numbers: [], spi: spi, publicValue: key.publicValue),
      retry: Retry(first: 300_000_000, now: turn.now), oldSPIs: session.inboundSPIs,
      oldInboundSPI: session.inboundSPI, oldOutboundSPI: session.outboundSPI)
    rekey.peer = peer
    if peer == nil, let mechanism = turn.settings.mechanism(session.kem) {
      let (publicKey, open) = mechanism.makeKey()
      rekey.openCiphertext = open
      rekey.own.pieces = KEMPart.cut(publicKey, mechanism.mechanism)
    }
    rekey.own.numbers = session.takeNumbers(max(rekey.own.pieces.count, 1))
    session.rekey = rekey
    self.session = session
    // Whoever answers sends when it can open what its UPDATE will bring.
    if peer == nil { sendRekey(&turn) }
  }

  private mutating func sendRekey(acknowledging numbers: [UInt32] = [], _ turn: inout KeyingTurn) {
    guard var session, var rekey = session.rekey, let path = path ?? partner.paths.first else { return }
    rekey.packets = session.packets(of: rekey, acknowledging: numbers, partner)
    session.rekey = rekey
    self.session = session
    for packet in rekey.packets { turn.send(packet, along: path) }
  }

  mutating func repeatRekey(_ turn: inout KeyingTurn) {
    guard var session, var rekey = session.rekey else { return }
    guard rekey.retry.tries < HostAssociation.mostTries else {
      // The partner may have lost its keys.
      abandonRekey(&turn)
      return begin(&turn)
    }
    rekey.retry.again(now: turn.now)
    session.rekey = rekey
    self.session = session
    // Along all paths: the one of before may be what fails.
    for path in Set([path].compactMap(\.self) + partner.paths) {
      for packet in rekey.packets { turn.send(packet, along: path) }
    }
  }

  private mutating func abandonRekey(_ turn: inout KeyingTurn) {
    guard var session, let rekey = session.rekey else { return }
    if rekey.isInstalled {
      retire(rekey.oldSPIs, base: rekey.oldInboundSPI, &turn)
    } else {
      turn.spis.giveBack(rekey.own.spi, now: turn.now)
    }
    session.rekey = nil
    session.postpone(&turn)
    self.session = session
  }

  private mutating func acknowledge(_ numbers: [UInt32], _ turn: inout KeyingTurn) {
    guard let session, let path = path ?? partner.paths.first else { return }
    turn.send(session.acknowledgment(of: numbers, partner), along: path)
  }

  // MARK: The peer's

  mutating func takeUpdate(_ packet: HIPPacket, along path: Path, _ turn: inout KeyingTurn) {
    guard var session, packet.hasValidMAC(key: session.macKeys.received, suite: session.suite) else { return }
    let isAllowed = session.updates.takeOne(now: turn.now)
    self.session = session
    guard isAllowed, packet.hasValidSignature(by: session.peer) else { return }
    self.path = path
    confirm(&turn)
    let acknowledged = UpdateNumbers.numbers(packet.content(.ack))
    if let number = UpdateNumbers.numbers(packet.content(.seq)).first, let info = ESPInfo(packet.content(.espInfo)),
      let value = DiffieHellmanParameter(packet.content(.diffieHellman)), value.group == session.group.rawValue,
      info.new >= 256
    {
      takeRekey(number, info, value, KEMPart(packet.content(.kemPart)), acknowledged, &turn)
    } else {
      takeAcknowledgment(acknowledged, &turn)
    }
  }

  private mutating func takeRekey(
    _ number: UInt32, _ info: ESPInfo, _ value: DiffieHellmanParameter, _ piece: KEMPart?, _ acknowledged: [UInt32],
    _ turn: inout KeyingTurn
  ) {
    guard var session else { return }
    guard session.updatesTaken.isNew(number) else {
      // One more of what was taken: its acknowledgment was lost, or the rest of it is yet to come.
      takeAcknowledgment(acknowledged, &turn)
      if self.session?.rekey?.peer?.numbers.contains(number) != true || self.session?.rekey?.isInstalled == true {
        acknowledge([number], &turn)
      }
      return
    }
    guard info.old == session.outboundSPI else { return }
    // Another one than that which this side has answered: the peer has the answer.
    if let rekey = session.rekey, rekey.isInstalled {
      takeAcknowledgment(rekey.own.numbers, &turn)
      guard let settled = self.session else { return }
      session = settled
    }
    session.updatesTaken.note(number)
    self.session = session
    let spi = partner.isForeign ? info.new : info.new & ~15

    guard let kem = turn.settings.mechanism(session.kem), let piece else {
      guard session.kem == nil || session.isPostQuantum else { return }
      let half = Rekey.Half(numbers: [number], spi: spi, publicValue: value.value)
      if session.rekey == nil {
        startRekey(answering: half, &turn)
      } else {
        self.session?.rekey?.peer = half
      }
      // Both have begun: the peer's is the answer, whether it says so or not.
      return install(acknowledged, &turn)
    }
    take(piece, number, spi, value.value, kem, acknowledged, &turn)
  }

  /// A key or a ciphertext, or half of one.
  private mutating func take(
    _ piece: KEMPart, _ number: UInt32, _ spi: UInt32, _ publicValue: [UInt8], _ kem: any KeyEncapsulation,
    _ acknowledged: [UInt32], _ turn: inout KeyingTurn
  ) {
    let isKey = piece.bytes.count * Int(piece.parts) == kem.keyLength
    guard piece.mechanism == UInt16(kem.mechanism), piece.parts == KEMPart.parts,
      (1...KEMPart.parts).contains(piece.part),
      isKey || piece.bytes.count * Int(piece.parts) == kem.ciphertextLength
    else { return }
    if session?.rekey == nil {
      guard isKey else { return }
      startRekey(answering: Rekey.Half(numbers: [], spi: spi, publicValue: publicValue), &turn)
    } else if isKey, session?.rekey?.openCiphertext != nil {
      // Both have begun: the key of the side with the greater tag is taken.
      guard !isGreater else { return }
      session?.rekey?.openCiphertext = nil
      session?.rekey?.own.pieces = []
      session?.rekey?.peer = nil
    }
    if session?.rekey?.peer?.spi != spi || session?.rekey?.peer?.publicValue != publicValue {
      session?.rekey?.peer = Rekey.Half(numbers: [], spi: spi, publicValue: publicValue)
    }
    guard session?.rekey?.peer?.pieces.contains(where: { $0.part == piece.part }) == false else { return }
    session?.rekey?.peer?.numbers.append(number)
    session?.rekey?.peer?.pieces.append(piece)
    guard var rekey = session?.rekey, let peer = rekey.peer, peer.pieces.count == Int(KEMPart.parts) else { return }
    let whole = peer.pieces.sorted { $0.part < $1.part }.flatMap(\.bytes)
    rekey.peer?.pieces.sort { $0.part < $1.part }
    if isKey {
      guard let (ciphertext, secret) = kem.encapsulate(to: whole) else { return abandonRekey(&turn) }
      rekey.encapsulated = secret
      rekey.own.pieces = KEMPart.cut(ciphertext, kem.mechanism)
      rekey.own.numbers = session?.takeNumbers(rekey.own.pieces.count) ?? []
    } else {
      guard let secret = rekey.openCiphertext?(whole) else { return abandonRekey(&turn) }
      rekey.encapsulated = secret
    }
    session?.rekey = rekey
    install(acknowledged, &turn)
  }

  // MARK: 2. Both halves are there

  private mutating func install(_ acknowledged: [UInt32], _ turn: inout KeyingTurn) {
    guard var session, let rekey = session.rekey, let peer = rekey.peer, !rekey.isInstalled else { return }
    guard let shared = rekey.key.agree(with: peer.publicValue) else { return abandonRekey(&turn) }
    let secret = session.secret(of: rekey, peer, shared, partner)
    let isAnswer = rekey.packets.isEmpty || rekey.encapsulated != nil && rekey.openCiphertext == nil
    session.renew(
      secret: secret, inboundSPI: rekey.own.spi, outboundSPI: peer.spi,
      isPostQuantum: session.isPostQuantum || rekey.encapsulated != nil, partner: partner, &turn)
    session.rekey?.isInstalled = true
    self.session = session
    turn.actions.append(.installInbound(session.keys.inbound, partner: partner.name))
    if isAnswer {
      sendRekey(acknowledging: peer.numbers, &turn)
    } else {
      acknowledge(peer.numbers, &turn)
    }
    takeAcknowledgment(acknowledged, &turn)
  }

  // MARK: 3. The new keys are used

  private mutating func takeAcknowledgment(_ numbers: [UInt32], _ turn: inout KeyingTurn) {
    guard let rekey = session?.rekey, rekey.isInstalled, rekey.own.numbers.allSatisfy(numbers.contains) else { return }
    session?.rekey?.isAcknowledged = true
    useNewKeys(&turn)
    finishRekey(&turn)
  }

  mutating func useNewKeys(_ turn: inout KeyingTurn) {
    guard let session, let rekey = session.rekey, rekey.isInstalled, !rekey.isUsed else { return }
    self.session?.rekey?.isUsed = true
    turn.actions.append(.useOutbound(session.keys.outbound, partner: partner.name))
  }

  private mutating func finishRekey(_ turn: inout KeyingTurn) {
    guard let session, let rekey = session.rekey else { return }
    retire(rekey.oldSPIs, base: rekey.oldInboundSPI, &turn)
    self.session?.rekey = nil
    failures = 0
    // The first may be what a tunnel that is to be post-quantum has waited for.
    if session.rekeys == 1, partner.postQuantum == .required {
      toldFailure = nil
      turn.report(.established(partner: partner.name, session.report))
    } else {
      turn.report(.rekeyed(partner: partner.name, session.report))
    }
  }
}

extension Session {
  mutating func takeNumbers(_ count: Int) -> [UInt32] {
    defer { nextUpdate &+= UInt32(truncatingIfNeeded: count) }
    return (0..<count).map { nextUpdate &+ UInt32(truncatingIfNeeded: $0) }
  }
}

extension KEMPart {
  static let parts: UInt8 = 2

  /// Halves, so that no packet is too large for any path.
  static func cut(_ bytes: [UInt8], _ mechanism: UInt8) -> [KEMPart] {
    let half = bytes.count / 2
    return [bytes[..<half], bytes[half...]].enumerated().map { place, piece in
      KEMPart(mechanism: UInt16(mechanism), part: UInt8(place + 1), parts: parts, bytes: Array(piece))
    }
  }
}
