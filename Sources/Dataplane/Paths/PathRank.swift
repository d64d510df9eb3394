/// Where a path stands among those of its peer.
struct PathRank: Sendable {
  /// Its place in the list; nil: learned.
  private(set) var place: Int?
  private(set) var originates: Bool
  /// It leads to a relay.
  private(set) var isRelayed: Bool
  /// Its place in the peer's list, as the peer says.
  var partnerRank: UInt8?
  /// Where it is learned and relays lead to the peer: the first of those in the list.
  var relayPlace: Int?

  init(_ path: ConfiguredPath, at place: Int?) {
    self.place = place
    originates = path.originates
    isRelayed = path.isRelayed
  }

  /// Lower is better: the list's order, and of equal ones the listed before the learned. What is learned of a peer that
  /// relays lead to comes before those, in the peer's order.
  var order: Int {
    let rank = Int(partnerRank ?? ProbeMessage.unlisted)
    return place.map { $0 * 512 } ?? relayPlace.map { $0 * 512 - 256 + rank } ?? (rank * 512 + 256)
  }

  /// It is in that place of the list from now on.
  mutating func list(_ path: ConfiguredPath, at place: Int) {
    self.place = place
    originates = path.originates
    isRelayed = path.isRelayed
  }
}
