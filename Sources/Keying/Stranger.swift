public import Identity
public import PacketIO

/// Somebody who is no partner and asks for a handshake, or answers in a partner's place. Nothing of it is proved:
/// who has seen a GID can write it, and a datagram's address too.
public struct Stranger: Sendable, Hashable {
  /// Who it says it is, by the packet or by the key that it shows.
  public var gid: HostIdentityTag
  /// Whom it asks for.
  public var wanted: HostIdentityTag
  /// Where the packet came from.
  public var path: Path

  public init(gid: HostIdentityTag, wanted: HostIdentityTag, path: Path) {
    self.gid = gid
    self.wanted = wanted
    self.path = path
  }
}

extension Stranger {
  /// Whoever has answered in a partner's place, by the key that it shows.
  init(answering packet: HIPPacket, along path: Path) {
    let shown = packet.content(.hostID).flatMap { PublicHostIdentity(hostID: $0) }
    self.init(gid: shown?.tag ?? packet.sender, wanted: packet.receiver, path: path)
  }
}

/// Which strangers were told of: each is news once, and so are few of one origin.
struct Strangers {
  private struct Origin {
    var known: [Stranger] = []
    var last: MonotonicTime
  }

  private var origins: [Holder: Origin] = [:]
  /// Of these, the one that has been silent for longest makes room.
  private static let capacity = 64
  private static let mostOfOne = 4
  /// Nanoseconds of silence after which it is news again.
  private static let memory: UInt64 = 3_600_000_000_000

  mutating func isNews(_ stranger: Stranger, now: MonotonicTime) -> Bool {
    let holder = Holder(strangerAt: stranger.path.endpoint.address)
    var origin = origins[holder] ?? Origin(last: now)
    if now.nanoseconds(since: origin.last) > Strangers.memory { origin.known = [] }
    origin.last = now
    defer { origins[holder] = origin }
    // Another port is no other stranger: a translator may give one to each packet.
    let isKnown = origin.known.contains { $0.gid == stranger.gid && $0.wanted == stranger.wanted }
    guard !isKnown, origin.known.count < Strangers.mostOfOne else { return false }
    if origins[holder] == nil, origins.count >= Strangers.capacity,
      let oldest = origins.min(by: { $0.value.last < $1.value.last })?.key
    {
      origins[oldest] = nil
    }
    origin.known.append(stranger)
    return true
  }
}
