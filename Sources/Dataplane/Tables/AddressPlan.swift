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
    var earlier: Set<Prefix> = []
    for peer in configuration.peers {
      peers.append(
        AddressPlan.plan(
          peer, agreements[peer.name] ?? AddressAgreement(), local: configuration.localPrefixes,
          isTaken: earlier.contains))
      earlier.formUnion(peer.claimedPrefixes)
    }
    let routes = Set(peers.flatMap(\.routes))
    interface = AddressPlan.interface(configuration.interface, peers, isRouted: routes.contains)
  }

  init(peers: [Peer], interface: InterfaceConfiguration) {
    self.peers = peers
    self.interface = interface
  }

  /// The device, with the routes that follow from the peers' plans.
  ///
  /// - Parameters:
  ///   - peers: those not all of whose prefixes are routed as they are, at least; in the configuration's order.
  ///   - isRouted: whether a prefix leads to any peer.
  static func interface(
    _ configured: InterfaceConfiguration, _ peers: [Peer], isRouted: (Prefix) -> Bool
  ) -> InterfaceConfiguration {
    var interface = configured
    // The kernel must not send into the tunnel what is not routed there, and has to what is known under another name.
    let replaced = Set(peers.flatMap(\.unrouted) + peers.flatMap { $0.remote.map(\.real) })
    var known = Set(interface.addresses.map { Prefix($0.address, length: $0.prefixLength) })
    interface.routes =
      (interface.routes.filter { !replaced.contains($0) || isRouted($0) }
      + peers.flatMap { $0.remote.map(\.intermediate) }).filter { known.insert($0).inserted }
    return interface
  }

  /// One peer's part.
  /// - Parameter isTaken: a peer that comes before it has the prefix.
  static func plan(
    _ peer: PeerConfiguration, _ agreement: AddressAgreement, local: [Prefix], isTaken: (Prefix) -> Bool
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
    if negotiates { plan.claimed = peer.prefixes.filter(isTaken) }
    for prefix in peer.prefixes where !plan.remote.contains(where: { $0.real == prefix }) {
      let clashes = negotiates && (isTaken(prefix) || local.contains { $0.covers(prefix) })
      if clashes || gone.contains(prefix) {
        plan.unrouted.append(prefix)
      } else {
        plan.routes.append(prefix)
      }
    }
    plan.routes += plan.remote.map(\.intermediate)
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

extension AddressNegotiation.Terms {
  /// Nil where nothing is negotiated.
  /// - Parameter claimed: as `AddressPlan` has it.
  package init?(_ peer: PeerConfiguration, claimed: [Prefix]) {
    guard peer.translation.mode == .automatic else { return nil }
    self.init()
    self.peer = peer.name
    knownAs = peer.translation.knownAs
    theirs = peer.translation.theirs
    permitted = peer.prefixes
    self.claimed = claimed
  }
}

extension PrefixTranslation {
  /// Nil when nothing is translated for a peer.
  init?(_ plan: AddressPlan.Peer, _ configuration: TranslationConfiguration) {
    let remote = configuration.mode == .oneSided ? plan.remote : []
    guard !plan.local.isEmpty || !remote.isEmpty else { return nil }
    self.init(local: plan.local, remote: remote, dnsPort: configuration.dnsPort)
  }
}

extension Surroundings {
  /// What a configuration gives; nothing is in use yet.
  package init(_ configuration: Configuration) {
    self.init()
    name = configuration.name
    local = configuration.localPrefixes
    pool = configuration.intermediatePool
    let device = configuration.interface
    occupied = PrefixBag(
      (device.addresses.map { Prefix($0.address, length: $0.prefixLength) } + device.routes
        + configuration.peers.flatMap(\.prefixes)).filter { $0.length > 0 })
  }
}
