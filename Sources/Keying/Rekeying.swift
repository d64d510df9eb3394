import Identity
import PacketIO

/// What each UPDATE of a rekey does; see `Rekey` for the order.
extension HostAssociation {
  /// Makes new keys, unless that is under way.
  mutating func beginRekey(_ turn: inout KeyingTurn) {
    guard let session, session.rekey == nil, session.isConfirmed else { return }
    startRekey(answering: nil, &turn)
  }

  /// Makes new keys under another SPI than those that are being made. Where the partner may have those, they are worn the
  /// next moment.
  mutating func beginRekeyAnew(_ turn: inout KeyingTurn) {
    guard let rekey = session?.rekey, !rekey.isInstalled else { return }
    abandonRekey(&turn)
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
      retry: Retry(first: Mobility.firstRetry, now: turn.now), oldSPIs: session.inboundSPIs,
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
    guard rekey.retry.tries < Mobility.mostTries else {
      // The partner may have lost its keys.
      abandonRekey(&turn)
      return begin(&turn)
    }
    rekey.retry.again(now: turn.now)
    session.rekey = rekey
    self.session = session
    // Along all paths: the one of before may be what fails.
    for path in allPaths {
      for packet in rekey.packets { turn.send(packet, along: path) }
    }
  }

  private mutating func abandonRekey(_ turn: inout KeyingTurn) {
    guard var session, let rekey = session.rekey else { return }
    if rekey.isInstalled {
      retiring.add(rekey.oldSPIs, base: rekey.oldInboundSPI, now: turn.now)
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
    let acknowledged = UpdateNumbers.numbers(packet.content(.ack))
    let number = UpdateNumbers.numbers(packet.content(.seq)).first
    let isNews =
      session.isNew(number) || acknowledged.contains(where: { session.awaits($0) || mobility.awaits($0) })
    let isAllowed = session.updates.takeOne(isNews: isNews, now: turn.now)
    self.session = session
    guard isAllowed, packet.hasValidSignature(by: session.peer) else { return }
    let isMove = packet.content(.locatorSet) != nil && packet.content(.diffieHellman) == nil
    // Where the handshake went: its first UPDATE, too, may have been held back.
    confirm(&turn)
    // Who says that it has moved has yet to show that it is there, and a repeat can come from anybody.
    if !isMove, !RelayBinding.isOne(packet), isNews { self.path = path }
    mobility.takeAcknowledgment(acknowledged, in: packet)
    binding.takeAcknowledgment(acknowledged)
    binding.heard(along: path, &turn)
    if let found = mobility.takeAnswer(packet) {
      self.path = found
      turn.actions.append(.usePath(found, partner: partner.name))
    }
    if !isMove, let number, let info = ESPInfo(packet.content(.espInfo)),
      let value = DiffieHellmanParameter(packet.content(.diffieHellman)), value.group == session.group.rawValue,
      info.new >= 256
    {
      return takeRekey(number, info, value, KEMPart(packet.content(.kemPart)), acknowledged, along: path, &turn)
    }
    takeAcknowledgment(acknowledged, &turn)
    guard let number, packet.content(.diffieHellman) == nil, var session = self.session else { return }
    if isMove {
      mobility.take(packet, number, along: path, &session, place, &turn)
    } else {
      turn.send(session.answer(to: packet, number, partner), along: path)
    }
    self.session = session
  }

  private mutating func takeRekey(
    _ number: UInt32, _ info: ESPInfo, _ value: DiffieHellmanParameter, _ piece: KEMPart?, _ acknowledged: [UInt32],
    along path: Path, _ turn: inout KeyingTurn
  ) {
    guard var session else { return }
    guard session.updatesTaken.isNew(number) else {
      // One more of what was taken: its acknowledgment was lost, or the rest of it is yet to come.
      takeAcknowledgment(acknowledged, &turn)
      if self.session?.rekey?.peer?.numbers.contains(number) != true || self.session?.rekey?.isInstalled == true {
        turn.send(session.acknowledgment(of: [number], partner), along: path)
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
    guard let isKey = piece.isKey(of: kem) else { return }
    if session?.rekey == nil {
      guard isKey else { return }
      startRekey(answering: Rekey.Half(numbers: [], spi: spi, publicValue: publicValue), &turn)
    }
    guard var session, var rekey = session.rekey else { return }
    let whole = rekey.take(piece, isKey: isKey, number, spi, publicValue, isGreater: isGreater)
    self.session?.rekey = rekey
    guard let whole else { return }
    let isGood = isKey ? rekey.encapsulate(to: whole, kem, &session) : rekey.open(whole)
    session.rekey = rekey
    self.session = session
    if isGood { install(acknowledged, &turn) } else { abandonRekey(&turn) }
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
    turn.actions.append(.installInbound(session.keys.inbound, partner: partner.name))
    binding.announce(&session, partner, except: path, &turn)
    self.session = session
    if isAnswer {
      sendRekey(acknowledging: peer.numbers, &turn)
    } else {
      acknowledge(peer.numbers, &turn)
    }
    takeAcknowledgment(acknowledged, &turn)
  }

  // MARK: 3. The new keys are used

  private mutating func takeAcknowledgment(_ numbers: [UInt32], _ turn: inout KeyingTurn) {
    guard session?.rekey?.isAcknowledged(by: numbers) == true else { return }
    useNewKeys(&turn)
    finishRekey(&turn)
  }

  mutating func useNewKeys(_ turn: inout KeyingTurn) {
    guard let session, let rekey = session.rekey, rekey.isInstalled, !rekey.isUsed,
      partner.postQuantum != .required || session.isPostQuantum
    else { return }
    self.session?.rekey?.isUsed = true
    turn.actions.append(.useOutbound(session.keys.outbound, partner: partner.name))
  }

  private mutating func finishRekey(_ turn: inout KeyingTurn) {
    guard let session, let rekey = session.rekey else { return }
    retiring.add(rekey.oldSPIs, base: rekey.oldInboundSPI, now: turn.now)
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
  /// When there is something to do though nothing comes.
  var deadline: MonotonicTime {
    guard let rekey else { return min(hardEnd, isConfirmed ? softEnd : lostAt) }
    return rekey.isAcknowledged ? hardEnd : min(hardEnd, rekey.retry.next)
  }

  /// Whether an UPDATE is no repeat.
  func isNew(_ number: UInt32?) -> Bool { number.map(updatesTaken.isNew) ?? false }

  /// Whether it is of a rekey that is under way.
  func awaits(_ number: UInt32) -> Bool { rekey?.own.numbers.contains(number) ?? false }

  /// What an UPDATE gets that wants nothing but an answer (RFC 7401 §6.12.1).
  mutating func answer(to packet: HIPPacket, _ number: UInt32, _ partner: Partner) -> [UInt8] {
    updatesTaken.note(number)
    let echo = packet.content(.echoRequestSigned).flatMap { $0.count <= Session.longestEcho ? Array($0) : nil }
    return acknowledgment(of: [number], echo: echo, partner)
  }

  /// Bytes; with more an answer would not get through everywhere.
  static let longestEcho = 512

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
