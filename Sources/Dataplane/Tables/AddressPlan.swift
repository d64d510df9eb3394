import PacketIO

/// What a configuration and the agreements with peers come to: which prefixes are routed to whom, and what is
/// translated.
///
/// Where this gateway has prefixes of its own and a peer is in automatic mode, a prefix of the peer that lies inside
/// an own one needs an intermediate prefix, and is not routed until it has one. So does one that is also an earlier
/// peer's: the first in the configuration keeps it, so that a peer that is added behind the others takes nothing from
/// them. Otherwise things are as configured, and of prefixes inside each other the longest wins.
package struct AddressPlan: Sendable, Equatable {
  package struct Peer: Sendable, Equatable {
    /// Prefixes that lead to the peer, and that its packets must come from.
    package var routes: [Prefix] = []
    /// Own prefixes, translated for this peer.
    package var local: [PrefixPair] = []
    /// The peer's prefixes as they are known here.
    package var remote: [PrefixPair] = []
    /// Configured prefixes that are not routed, because something has the addresses already or the peer took them back.
    package var unrouted: [Prefix] = []
    /// The peer's prefixes that are an earlier peer's as well: what overlaps them is not known as it is.
    var claimed: [Prefix] = []
  }

  /// In the order of the configuration.
  package var peers: [Peer] = []
  /// The device, with the routes that follow from the peers' spaces.
  package var interface: InterfaceConfiguration

  package init(_ configuration: Configuration, agreements: [String: AddressAgreement] = [:]) {
    interface = configuration.interface
    var earlier: Set<Prefix> = []
    for peer in configuration.peers {
      peers.append(
        AddressPlan.plan(
          peer, agreements[peer.name] ?? AddressAgreement(), local: configuration.localPrefixes, earlier: &earlier))
    }
    // The kernel must not send into the tunnel what is not routed there, and has to what is known under another name.
    let replaced = Set(peers.flatMap(\.unrouted) + peers.flatMap { $0.remote.map(\.real) })
    let kept = Set(peers.flatMap(\.routes))
    var known = Set(interface.addresses.map { Prefix($0.address, length: $0.prefixLength) })
    interface.routes =
      (interface.routes.filter { kept.contains($0) || !replaced.contains($0) }
      + peers.flatMap { $0.remote.map(\.intermediate) }).filter { known.insert($0).inserted }
  }

  private static func plan(
    _ peer: PeerConfiguration, _ agreement: AddressAgreement, local: [Prefix], earlier: inout Set<Prefix>
  ) -> Peer {
    let translation = peer.translation
    var plan = Peer(local: translation.knownAs, remote: translation.theirs)
    let isAutomatic = translation.mode == .automatic
    if isAutomatic {
      // Demanded spaces are in an agreement as well; one that the peer has refused is not.
      if !agreement.local.isEmpty { plan.local = agreement.localPairs }
      let settled = Set(agreement.remote.map(\.prefix))
      plan.remote = agreement.remotePairs + translation.theirs.filter { !settled.contains($0.real) }
    }
    let gone = agreement.remote.filter { isAutomatic && $0.isUnreachable }.map(\.prefix)
    let negotiates = isAutomatic && !local.isEmpty
    if negotiates { plan.claimed = peer.prefixes.filter(earlier.contains) }
    for prefix in peer.prefixes where !plan.remote.contains(where: { $0.real == prefix }) {
      let clashes = negotiates && (earlier.contains(prefix) || local.contains { $0.covers(prefix) })
      if clashes || gone.contains(prefix) {
        plan.unrouted.append(prefix)
      } else {
        plan.routes.append(prefix)
      }
    }
    plan.routes += plan.remote.map(\.intermediate)
    // Whether or not one is in use just now, so that nothing depends on who came first.
    earlier.formUnion(peer.prefixes.filter { prefix in !translation.theirs.contains { $0.real == prefix } })
    return plan
  }
}

extension AddressAgreement.Space {
  /// Nobody is to be sent there.
  fileprivate var isUnreachable: Bool {
    switch state {
    case .refused, .withdrawn: true
    case .pending, .asIs, .known: false
    }
  }
}
