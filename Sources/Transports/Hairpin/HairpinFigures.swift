import PacketIO

/// What a hairpin link counts beside its two links.
struct HairpinFigures: BitwiseCopyable {
  /// Sealed packets to hairpins that are not open, from ports that are nobody's, and those there was no room for.
  var notOpen: UInt64 = 0
  var ofNoHairpin: UInt64 = 0
  var receiveQueueFull: UInt64 = 0
  var messagesFailed: UInt64 = 0
  var messagesIgnored: UInt64 = 0
  var losses: UInt64 = 0
  var refusals: UInt64 = 0

  func counters(_ sessions: HairpinSessions) -> [TransportCounter] {
    let open = sessions.entries.filter(\.session.isOpen).count
    let figures: [(String, UInt64)] = [
      ("hairpins", UInt64(sessions.count)), ("hairpins-open", UInt64(open)),
      ("hairpins-opened", sessions.entries.reduce(0) { $0 &+ $1.session.openings }),
      ("hairpin-losses", losses), ("hairpin-refusals", refusals), ("hairpin-not-open", notOpen),
      ("hairpin-strangers", ofNoHairpin), ("hairpin-queue-full", receiveQueueFull),
      ("messages-failed", messagesFailed), ("hairpin-messages-ignored", messagesIgnored),
    ]
    return figures.map { TransportCounter(name: $0.0, value: $0.1) }
      .marking(["hairpin-not-open"], as: .notSent)
      .marking(["hairpin-strangers", "hairpin-queue-full"], as: .notPassedOn)
  }
}
