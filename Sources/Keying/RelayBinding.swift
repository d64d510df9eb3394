import Identity
import PacketIO

/// What this side tells relays: under which SPI it takes packets of a partner, and with which key it signs that.
///
/// A relay learns SPIs from handshakes and rekeys that pass it. One that these do not pass, or that was started anew, is
/// told by an UPDATE along its path, with ESP_INFO (old and new SPI the same; amid a rekey two of them), SEQ and HOST_ID (RFC
/// 8046 §4.3 foresees that for middleboxes). It goes on to the partner, whose acknowledgment shows that the path is open.
///
/// A relay passes nothing to who is not enrolled, and learns nothing from it. So it is said again, once a minute in the
/// end, for as long as nobody has acknowledged it; and at once when the partner shows, by the same relay, that it is there.
struct RelayBinding {
  private struct Announcement {
    let path: Path
    let number: UInt32
    let packet: [UInt8]
    var retry: Retry
  }

  private var announcements: [Announcement] = []

  /// Nanoseconds between tries in the end.
  private static let longestRetry: UInt64 = 60_000_000_000

  /// Tells the relays of a partner of new keys, but for that whose path is named, because it knows.
  mutating func announce(_ session: inout Session, _ partner: Partner, except known: Path?, _ turn: inout KeyingTurn) {
    // Those of the keys before.
    announcements = []
    for path in partner.relays where path != known { announce(along: path, &session, partner, &turn) }
  }

  /// Tells one relay; anew, if it was being told already.
  mutating func announce(
    along path: Path, _ session: inout Session, _ partner: Partner, _ turn: inout KeyingTurn
  ) {
    let number = session.takeNumbers(1)[0]
    let packet = session.binding(number, partner)
    announcements.removeAll { $0.path == path }
    announcements.append(
      Announcement(
        path: path, number: number, packet: packet, retry: RelayBinding.retry(turn)))
    turn.send(packet, along: path)
  }

  private static func retry(_ turn: KeyingTurn) -> Retry {
    Retry(first: Mobility.firstRetry, longest: longestRetry, now: turn.now)
  }

  /// The partner was heard along a relay's path: what is to be said there gets through now, perhaps.
  mutating func heard(along path: Path, _ turn: inout KeyingTurn) {
    for place in announcements.indices
    where announcements[place].path == path && announcements[place].retry.tries > 1 {
      announcements[place].retry = RelayBinding.retry(turn)
      turn.send(announcements[place].packet, along: path)
    }
  }

  /// A relay knows this side from now on: it is told what it is to bind, or a handshake goes along its path at once.
  static func announce(along path: Path, of association: inout HostAssociation, _ turn: inout KeyingTurn) {
    guard association.partner.relays.contains(path) else { return }
    if var session = association.session, session.isConfirmed {
      association.binding.announce(along: path, &session, association.partner, &turn)
      association.session = session
      return
    }
    switch association.attempt {
    // What was asked before has not come through.
    case .waiting, .asked: association.restart(&turn)
    case .none, .solving, .answered: break
    }
  }

  /// Whether an UPDATE is said to a relay that stands by: the partner is where it was.
  static func isOne(_ packet: HIPPacket) -> Bool {
    packet.content(.hostID) != nil && packet.content(.diffieHellman) == nil
  }

  mutating func takeAcknowledgment(_ numbers: [UInt32]) {
    announcements.removeAll { numbers.contains($0.number) }
  }

  /// There is another session, or none.
  mutating func restart() { announcements = [] }

  var deadline: MonotonicTime? { announcements.map(\.retry.next).min() }

  /// Says again what has no answer: a partner that has not enrolled yet hears nothing of it.
  mutating func work(_ partner: Partner, _ turn: inout KeyingTurn) {
    announcements.removeAll { !partner.relays.contains($0.path) }
    for place in announcements.indices where announcements[place].retry.next <= turn.now {
      announcements[place].retry.again(now: turn.now)
      turn.send(announcements[place].packet, along: announcements[place].path)
    }
  }
}

extension Session {
  fileprivate func binding(_ number: UInt32, _ partner: Partner) -> [UInt8] {
    // Amid a rekey the partner may not know yet that the new keys are accepted. The newest comes last.
    let old = rekey.flatMap { $0.isInstalled ? $0.oldInboundSPI : nil }
    let index = KeymatIndex.traffic(suite, cipher: terms.cipher)
    let infos = [old, inboundSPI].compactMap(\.self).map { ESPInfo(index: index, old: $0, new: $0).content }
    return packet(
      .update,
      infos.map { (.espInfo, $0) } + [
        (.seq, UpdateNumbers.content([number])), (.hostID, partner.local.publicIdentity.hostID),
      ], partner)
  }
}
