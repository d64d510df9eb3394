import PacketIO

/// What each peer has for itself alone, by what it is: so a peer is checked against all others without looking at them.
struct Claims: Sendable {
  /// Each with the name of its peer.
  private var spis: [UInt32: String] = [:]
  private var sendingKeys: [KeyFingerprint: String] = [:]
  private var receivingKeys: [KeyFingerprint: Int] = [:]
  /// What would be routed if nothing was negotiated.
  private var routes = PrefixIndex<String>()
  /// Intermediate prefixes that the configuration demands for peers' prefixes.
  private var spaces = PrefixIndex<String>()

  // MARK: Associations

  mutating func insert(_ peer: PeerConfiguration) {
    for association in peer.inbound {
      spis[association.spi] = peer.name
      receivingKeys[association.key.fingerprint, default: 0] += 1
    }
    for association in peer.allOutbound { sendingKeys[association.key.fingerprint] = peer.name }
    for pair in peer.translation.theirs { spaces[pair.intermediate] = peer.name }
  }

  mutating func remove(_ peer: PeerConfiguration) {
    for association in peer.inbound {
      spis[association.spi] = nil
      let key = association.key.fingerprint
      receivingKeys[key] = receivingKeys[key].flatMap { $0 > 1 ? $0 - 1 : nil }
    }
    for association in peer.allOutbound { sendingKeys[association.key.fingerprint] = nil }
    for pair in peer.translation.theirs { spaces[pair.intermediate] = nil }
  }

  /// Throws what stands against a peer that is not among these yet.
  func check(_ peer: PeerConfiguration) throws(ConfigurationError) {
    func problem(_ setting: String, _ problem: String, _ remedy: String, _ name: String) -> ConfigurationError {
      ConfigurationError(subject: .peer(name), setting: setting, problem: problem, remedy: remedy)
    }
    var own: Set<UInt32> = []
    var received: Set<KeyFingerprint> = []
    for association in peer.inbound {
      if let owner = own.insert(association.spi).inserted ? spis[association.spi] : peer.name {
        throw problem(
          "spi", "\(hex(association.spi)) is also received from peer \(owner)", "give each association its own SPI",
          peer.name)
      }
      received.insert(association.key.fingerprint)
    }
    var sent: Set<KeyFingerprint> = []
    for key in peer.allOutbound.map(\.key.fingerprint) {
      if let owner = sent.insert(key).inserted ? sendingKeys[key] : peer.name {
        throw problem(
          "key", "is also used for sending to peer \(owner)", "a key seals for one association only", peer.name)
      }
    }
    let bothWays =
      received.lazy.compactMap { sendingKeys[$0] }.first
      ?? (sent.contains { received.contains($0) || receivingKeys[$0] != nil } ? peer.name : nil)
    if let bothWays {
      throw problem(
        "key", "is used for sending and for receiving",
        "give each direction its own key, or both ends would repeat each other's nonces", bothWays)
    }
  }

  // MARK: Prefixes

  mutating func insert(_ routes: [Prefix], of peer: String) { for prefix in routes { self.routes[prefix] = peer } }

  mutating func remove(_ routes: [Prefix], of peer: String) {
    for prefix in routes where self.routes[prefix] == peer { self.routes[prefix] = nil }
  }

  /// Throws what stands against prefixes that would be routed to a peer which is among these but for its routes: whatever
  /// is routed to two peers, or could not be undone.
  func check(_ routes: [Prefix], of peer: PeerConfiguration, hasOwnPrefixes: Bool) throws(ConfigurationError) {
    for prefix in routes {
      if let owner = self.routes[prefix], owner != peer.name {
        throw ConfigurationError(
          subject: .peer(peer.name), setting: "prefixes", problem: "\(prefix) is also claimed by peer \(owner)",
          remedy: hasOwnPrefixes
            ? "leave it to one of them, or let the later one's translation be automatic"
            : "leave it to one of them, or give this gateway's localPrefixes, so that the gateways find another space")
      }
      if prefix.length == 0 { continue }
      if let space = first(in: spaces, overlapping: prefix, { $0 != prefix || $1 != peer.name }) {
        throw Claims.overlap(space, with: (prefix, peer.name))
      }
    }
    for pair in peer.translation.theirs {
      let space = (prefix: pair.intermediate, owner: peer.name)
      if let route = first(
        in: self.routes, overlapping: space.prefix, { $0.length > 0 && ($0 != space.prefix || $1 != peer.name) })
      {
        throw Claims.overlap(space, with: route)
      }
      if let other = first(in: spaces, overlapping: space.prefix, { $0 != space.prefix || $1 != peer.name }) {
        throw Claims.overlap(space, with: other)
      }
    }
  }

  private func first(
    in index: PrefixIndex<String>, overlapping prefix: Prefix, _ counts: (Prefix, String) -> Bool
  ) -> (prefix: Prefix, owner: String)? {
    var found: (Prefix, String)?
    index.forEach(overlapping: prefix) { other, owner in
      if counts(other, owner) { found = (other, owner) }
      return found == nil
    }
    return found
  }

  private static func overlap(
    _ space: (prefix: Prefix, owner: String), with other: (prefix: Prefix, owner: String)
  ) -> ConfigurationError {
    ConfigurationError(
      subject: .peer(space.owner), setting: "translation.theirs",
      problem: "\(space.prefix) overlaps \(other.prefix) of peer \(other.owner)", remedy: "choose a prefix that is free"
    )
  }
}

extension PeerConfiguration {
  /// All associations that something is sealed under. The first of the workers' may be the peer's.
  var allOutbound: [SecurityAssociationConfiguration] {
    guard let outbound else { return workerOutbound }
    let isShared = workerOutbound.first.map(outbound.isSameAssociation) ?? false
    return [outbound] + workerOutbound.dropFirst(isShared ? 1 : 0)
  }
}
