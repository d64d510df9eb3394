/// Where a path stands among those of its peer.
struct PathRank: Sendable {
  /// Its place in the list; nil: learned.
  private(set) var place: Int?
  private(set) var originates: Bool
  /// It leads to a relay.
  private(set) var isRelayed: Bool
  /// Its place in the peer's list, as the peer says.
  var partnerRank: UInt8?
  /// Its order where it is learned and relays lead to the peer.
  var foundOrder: Int?

  init(_ path: ConfiguredPath, at place: Int?) {
    self.place = place
    originates = path.originates
    isRelayed = path.isRelayed
  }

  /// Lower is better: the list's order, and of equal ones the listed before the learned. What is learned of a peer that
  /// relays lead to comes before those.
  var order: Int { place.map { $0 * 2 } ?? foundOrder ?? Int(partnerRank ?? ProbeMessage.unlisted) * 2 + 1 }

  /// It is in that place of the list from now on.
  mutating func list(_ path: ConfiguredPath, at place: Int) {
    self.place = place
    originates = path.originates
    isRelayed = path.isRelayed
  }
}
