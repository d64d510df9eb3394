import Identity
import PacketIO

/// What identity relays say (docs/RELAY.md): each signs with a key that its GID is the hash of, and says a few things a
/// second at most, so no more are looked at.
struct RelayVoices {
  private struct Voice {
    var reading = TokenBucket(perSecond: 10, burst: 10)
    var told: Notice?
  }

  private var voices: [HostIdentityTag: Voice] = [:]

  /// - Parameter relays: GIDs.
  mutating func set(_ relays: [HostIdentityTag]) {
    voices = Dictionary(relays.map { ($0, voices[$0] ?? Voice()) }) { first, _ in first }
  }

  func knows(_ relay: HostIdentityTag) -> Bool { voices[relay] != nil }

  /// - Returns: what a relay has said, and whether it has not said so last; nil: it was not the relay.
  mutating func take(_ packet: HIPPacket, now: MonotonicTime) -> (said: NotificationParameter, isNews: Bool)? {
    guard let said = NotificationParameter(packet.content(.notification)), let hostID = packet.content(.hostID),
      voices[packet.sender]?.reading.takeOne(now: now) == true,
      let identity = PublicHostIdentity(hostID: hostID), identity.tag == packet.sender,
      packet.hasValidSignature(by: identity)
    else { return nil }
    defer { voices[packet.sender]?.told = said.notice }
    return (said, voices[packet.sender]?.told != said.notice)
  }

  /// The SPI that another pair of gateways has at a relay; its last four bits are zero.
  static func takenSPI(_ said: NotificationParameter) -> UInt32? {
    guard said.notice == .spiTaken else { return nil }
    var reader = ByteReader(said.data[...])
    return reader.number(UInt32.self).map { $0 & ~15 }
  }
}

extension HostAssociation {
  /// Whether this side takes packets under an SPI, or has asked the partner to send under it.
  func claims(_ spi: UInt32) -> Bool {
    attempt.claims(spi) || session?.inboundSPI == spi || session?.rekey?.own.spi == spi
  }

  /// Another pair has an SPI of this side's at a relay: it makes do with another one.
  mutating func leave(_ spi: UInt32, _ turn: inout KeyingTurn) {
    if attempt.claims(spi) { return restart(&turn) }
    guard let session else { return }
    if let rekey = session.rekey, rekey.own.spi == spi { return beginRekeyAnew(&turn) }
    if session.isConfirmed { return beginRekey(&turn) }
    // The relay has kept the R2.
    forget(&turn)
    begin(&turn)
  }
}
