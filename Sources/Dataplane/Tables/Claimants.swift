import PacketIO

/// Which peers have a prefix, and in which order: the first keeps it where this gateway has prefixes of its own.
struct Claimants: Sendable {
  private struct Claimant: Sendable {
    let peer: String
    let order: Int
    /// It is not for later peers.
    let keeps: Bool
  }

  private var owners: [Prefix: [Claimant]] = [:]

  mutating func insert(_ peer: PeerConfiguration, order: Int) {
    let kept = peer.claimedPrefixes
    for prefix in peer.prefixes {
      owners[prefix, default: []].append(Claimant(peer: peer.name, order: order, keeps: kept.contains(prefix)))
    }
  }

  mutating func remove(_ peer: PeerConfiguration) {
    for prefix in peer.prefixes {
      owners[prefix]?.removeAll { $0.peer == peer.name }
      if owners[prefix]?.isEmpty == true { owners[prefix] = nil }
    }
  }

  /// Whether a peer that comes before `order` has it.
  func isTaken(_ prefix: Prefix, before order: Int) -> Bool {
    owners[prefix]?.contains { $0.keeps && $0.order < order } ?? false
  }

  func peers(_ prefix: Prefix) -> [String] { (owners[prefix] ?? []).map(\.peer) }
}

extension PeerConfiguration {
  /// Prefixes that are not for later peers, but for those that the configuration knows by others. Whether or not one is
  /// in use just now, so that nothing depends on who came first.
  var claimedPrefixes: [Prefix] {
    translation.theirs.isEmpty
      ? prefixes : prefixes.filter { prefix in !translation.theirs.contains { $0.real == prefix } }
  }
}
