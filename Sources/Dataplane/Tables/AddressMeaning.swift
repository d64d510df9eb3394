package import PacketIO

/// What an address is called on either side of a tunnel.
public struct AddressMeaning: Sendable, Equatable, Codable {
  /// Whose host it is.
  public enum Owner: String, Sendable, Codable { case here, peer }

  public var peer: String
  public var owner: Owner
  /// The host's own address, where it lives.
  public var real: String
  /// The one by which the other side knows it; nil: by none.
  public var known: String?

  public init(peer: String, owner: Owner, real: String, known: String?) {
    self.peer = peer
    self.owner = owner
    self.real = real
    self.known = known
  }
}

extension AddressPlan {
  /// Everything that `address` can mean, for each peer of the configuration that the plan was made of: a host of this
  /// side's LAN, by its own address or by the one that the peer knows; a host of the peer's, by the address known here
  /// or by its own.
  package func meanings(of address: IPAddress, _ configuration: Configuration) -> [AddressMeaning] {
    var meanings: [AddressMeaning] = []
    let isOwn = configuration.localPrefixes.contains { $0.contains(address) }
    for (peer, plan) in zip(configuration.peers, peers) {
      func add(_ owner: AddressMeaning.Owner, _ real: IPAddress, _ known: IPAddress?) {
        meanings.append(
          AddressMeaning(peer: peer.name, owner: owner, real: "\(real)", known: known.map { "\($0)" }))
      }
      if let known = AddressPlan.longest(plan.local, \.real, address)?.intermediate(of: address) {
        add(.here, address, known)
      } else if isOwn {
        add(.here, address, address)
      }
      if let real = AddressPlan.longest(plan.local, \.intermediate, address)?.real(of: address) {
        add(.here, real, address)
      }
      if let real = AddressPlan.longest(plan.remote, \.intermediate, address)?.real(of: address) {
        add(.peer, real, address)
      }
      if let known = AddressPlan.longest(plan.remote, \.real, address)?.intermediate(of: address) {
        add(.peer, address, known)
      } else if plan.unrouted.contains(where: { $0.contains(address) }) {
        add(.peer, address, nil)
      } else if AddressPlan.isRouted(address, to: plan, among: peers),
        !plan.remote.contains(where: { $0.intermediate.contains(address) })
      {
        add(.peer, address, address)
      }
    }
    return meanings
  }

  private static func longest(
    _ pairs: [PrefixPair], _ side: KeyPath<PrefixPair, Prefix>, _ address: IPAddress
  ) -> PrefixPair? {
    pairs.filter { $0[keyPath: side].contains(address) }.max { $0[keyPath: side].length < $1[keyPath: side].length }
  }

  /// Whether the longest prefix over the address is this peer's.
  private static func isRouted(_ address: IPAddress, to plan: Peer, among peers: [Peer]) -> Bool {
    func longest(_ plan: Peer) -> Int { plan.routes.filter { $0.contains(address) }.map(\.length).max() ?? -1 }
    let own = longest(plan)
    return own >= 0 && peers.allSatisfy { longest($0) <= own }
  }
}
