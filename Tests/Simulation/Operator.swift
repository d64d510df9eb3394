import PacketIO

@testable import Dataplane

/// Who looks after a gateway: what its configuration is at the moment.
struct Operator {
  let plan: Plan
  let gateway: Int
  /// By peer, where both meet.
  let hairpins: [Int: Path]
  /// The generation of keys that each peer is sealed for with, and those that are accepted.
  var outbound: [Int: Int] = [:]
  var inbound: [Int: [Int]] = [:]
  /// Peers without any traffic, which come and go and with them the order of all peers.
  var extras: [Int] = []
  /// Peers that are not configured for now, and those that nothing can be sealed for.
  var absent: Set<Int> = []
  var unsealed: Set<Int> = []
  /// False: its hosts have moved to another LAN, which no peer expects.
  var hasLAN = true
  /// Numbers that must not be used again, as a state file has them, by SPI.
  var used: [UInt32: UInt64] = [:]
  var accepted: [UInt32: UInt64] = [:]

  init(_ plan: Plan, gateway: Int, hairpins: [Int: Path]) {
    self.plan = plan
    self.hairpins = hairpins
    self.gateway = gateway
    for peer in 0..<plan.gateways where peer != gateway {
      outbound[peer] = 0
      inbound[peer] = [0]
    }
  }

  /// All that the gateway seals and opens under.
  var tunnels: [Plan.Tunnel] {
    outbound.keys.sorted().flatMap { peer in
      tunnels(gateway, peer, outbound[peer] ?? 0)
        + (inbound[peer] ?? []).flatMap { tunnels(peer, gateway, $0) }
    }
  }

  private func tunnels(_ from: Int, _ to: Int, _ generation: Int) -> [Plan.Tunnel] {
    let workers = plan.workers(from)
    return [Plan.Tunnel(from: from, to: to, generation: generation, worker: nil)]
      + (workers == 1 ? [] : (0..<workers).map { .init(from: from, to: to, generation: generation, worker: $0) })
  }

  func configuration() throws -> Configuration {
    var peers = try outbound.keys.sorted().filter { !absent.contains($0) }.map(peer)
    for extra in extras {
      let other = PeerConfiguration(
        name: "extra \(extra)", prefixes: [Prefix("10.\(100 + extra).0.0/16")!],
        path: Path(endpoint: Endpoint(address: IPAddress(v4: 0xC633_6401), port: 4500)))
      peers.insert(other, at: extra % (peers.count + 1))
    }
    var firewall = FirewallConfiguration()
    if plan.hasFirewall {
      firewall = FirewallConfiguration(
        mode: .on,
        rules: [
          FirewallRule(
            number: 1, protocol: .udp, direction: .inbound, destinationPorts: Plan.refusedPort...Plan.refusedPort,
            action: .deny), FirewallRule(number: 2, action: .allow),
        ])
    }
    return Configuration(
      interface: InterfaceConfiguration(source: .name("none"), mtu: plan.mtu), peers: peers,
      name: Plan.name(gateway), localPrefixes: localPrefixes,
      ownPrefixes: plan.isWide ? plan.prefixes(gateway) : [], firewall: firewall)
  }

  private var localPrefixes: [Prefix] {
    guard plan.alike.contains(gateway) else { return [] }
    return hasLAN ? plan.prefixes(gateway) : [Prefix("172.31.9.0/24")!]
  }

  private func peer(_ peer: Int) throws -> PeerConfiguration {
    let own = try tunnels(gateway, peer, outbound[peer] ?? 0).map { try numbered($0, used) }
    var paths: [ConfiguredPath] = []
    let hairpin = hairpins[peer]
    if !plan.unlisted.contains(peer), hairpin == nil || !plan.meetsOnlyThere {
      paths = (0..<plan.interfaces).map {
        ConfiguredPath(
          name: "interface \($0)",
          path: Path(
            transport: UInt8($0), endpoint: Plan.address(Place(gateway: peer, interface: $0))))
      }
    }
    if let hairpin { paths.append(ConfiguredPath(name: "relay", path: hairpin)) }
    return PeerConfiguration(
      name: Plan.name(peer), prefixes: plan.prefixes(of: peer, at: gateway), paths: paths,
      inbound: try (inbound[peer] ?? []).flatMap { tunnels(peer, gateway, $0) }.map { try numbered($0, accepted) },
      outbound: unsealed.contains(peer) ? nil : own[0],
      workerOutbound: unsealed.contains(peer) ? [] : Array(own.dropFirst()), keepAliveInterval: plan.keepAliveInterval,
      aggregates: plan.aggregates)
  }

  private func numbered(
    _ tunnel: Plan.Tunnel, _ last: [UInt32: UInt64]
  ) throws -> SecurityAssociationConfiguration {
    var association = try plan.association(tunnel)
    if let last = last[association.spi] { association.firstSequence = max(association.firstSequence, last + 1) }
    return association
  }
}
