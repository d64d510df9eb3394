import Dataplane
import Lab
import PacketIO
import Testing
import Transports

/// Sites that all have the same network, each a host behind a gateway, and wires between all gateways:
/// ```
///            192.168.1.0/24, fd01::/64                        192.168.1.0/24, fd01::/64
/// host-1 .2 ─────────── .1 gateway-1 ═══ 198.51.100.0/24 ═══ gateway-2 .1 ─────────── .2 host-2
///                              ╚═══════ gateway-3 ═══════╝
///                                       .1 ─── .2 host-3
/// ```
/// Behind host N, a router as well, is deep-N: in its site's network, 192.168.1.128/25 and fd01::1:0/112.
/// On its device, gateway N has the addresses 10.77.0.N and fd77::N, which are nobody else's.
struct AlikeSites: Sendable {
  static let lan = ["192.168.1.0/24", "fd01::/64"]
  static let host4 = "192.168.1.2"
  static let host6 = "fd01::2"
  static let deep4 = "192.168.1.130"
  static let deep6 = "fd01::1:2"

  let count: Int
  let network: Network
  private let gateways: [Dataplane]

  /// - Parameter configure: changes what a gateway would be configured with; its number from 1.
  static func with(
    _ count: Int, offloads: TunOffloads = .all,
    _ configure: @escaping @Sendable (Int, inout Configuration) -> Void = { _, _ in },
    _ body: (AlikeSites) async throws -> Void
  ) async throws {
    let network = try await blocking { try Network(topology(count)) }
    defer { network.remove() }
    var gateways: [Dataplane] = []
    do {
      for site in 1...count {
        let gateway = try await network["gateway-\(site)"].inside {
          var configuration = configuration(of: site, among: Array(1...count), offloads: offloads)
          configure(site, &configuration)
          return try Dataplane(configuration, transports: [UDPTransport()])
        }
        gateways.append(gateway)
      }
      try await body(AlikeSites(count: count, network: network, gateways: gateways))
    } catch {
      for gateway in gateways { await gateway.stop() }
      throw error
    }
    for gateway in gateways { await gateway.stop() }
  }

  func gateway(_ site: Int) -> Dataplane { gateways[site - 1] }
  func host(_ site: Int) -> Namespace { network["host-\(site)"] }

  /// Every two sites that differ.
  var pairs: [(from: Int, to: Int)] {
    (1...count).flatMap { from in (1...count).filter { $0 != from }.map { (from, $0) } }
  }

  // MARK: What the gateways have agreed upon

  /// The address by which `knower` knows a host of `owner`; nil: none.
  func address(of host: String, at owner: Int, knownAt knower: Int) async throws -> String? {
    let host = try #require(IPAddress(host))
    let peer = await gateway(knower).statistics().peers.first { $0.name == "site-\(owner)" }
    let spaces = peer?.translation?.theirs ?? []
    return spaces.lazy.compactMap { PrefixPair(real: $0.real, intermediate: $0.intermediate).intermediate(of: host) }
      .first.map { "\($0)" }
  }

  /// Waits until every site knows every other's hosts by some address, of both families.
  /// - Parameter sites: those that are waited for; nil: all.
  func waitForSpaces(among sites: [Int]? = nil, within seconds: Double = 15) async throws {
    for (knower, owner) in pairs where sites.map({ $0.contains(knower) && $0.contains(owner) }) ?? true {
      for host in [AlikeSites.host4, AlikeSites.host6] {
        let isKnown = try await eventually(within: seconds) {
          // The owner is the last to know.
          guard let address = try await address(of: host, at: owner, knownAt: knower) else { return false }
          return try await isTranslated(host, at: owner, as: address, for: knower)
        }
        try #require(isKnown, "site \(knower) has no space for \(host) of site \(owner)")
      }
    }
  }

  /// Whether the gateway of `owner` translates a host of its own for `knower`.
  private func isTranslated(_ host: String, at owner: Int, as known: String, for knower: Int) async throws -> Bool {
    let host = try #require(IPAddress(host))
    let peer = await gateway(owner).statistics().peers.first { $0.name == "site-\(knower)" }
    let spaces = peer?.translation?.knownAs ?? []
    return spaces.contains {
      PrefixPair(real: $0.real, intermediate: $0.intermediate).intermediate(of: host).map { "\($0)" } == known
    }
  }

  // MARK: Configuration

  static func key(from: Int, to: Int) -> SecurityAssociationConfiguration {
    let bytes = (0..<20).map { UInt8(truncatingIfNeeded: $0 * 7 + from * 50 + to) }
    return SecurityAssociationConfiguration(
      spi: UInt32(0x1000 + from * 16 + to), cipher: .aes128GCM, key: KeyMaterial(bytes))
  }

  static func configuration(of site: Int, among sites: [Int], offloads: TunOffloads = .all) -> Configuration {
    let peers = sites.filter { $0 != site }.map { other in
      PeerConfiguration(
        name: "site-\(other)",
        prefixes: (["10.77.0.\(other)/32", "fd77::\(other)/128"] + lan).compactMap { Prefix($0) },
        path: PacketIO.Endpoint(wireAddress(of: other, towards: site), defaultPort: 4500).map { Path(endpoint: $0) },
        inbound: [key(from: other, to: site)], outbound: key(from: site, to: other), keepAliveInterval: .zero)
    }
    let addresses = ["10.77.0.\(site)", "fd77::\(site)"].compactMap { IPAddress($0) }
    return Configuration(
      interface: InterfaceConfiguration(
        source: .name("culvert0"), addresses: addresses.map { InterfaceAddress($0, prefixLength: $0.bitWidth) },
        routes: Array(Set(peers.flatMap(\.prefixes))), offloads: offloads),
      peers: peers, name: "site-\(site)", localPrefixes: lan.compactMap { Prefix($0) })
  }

  /// 198.51.100.0/24 in pieces of four addresses, one for each two gateways.
  static func wireAddress(of site: Int, towards other: Int) -> String {
    let wire = min(site, other) * 4 + max(site, other)
    return "198.51.100.\(wire * 4 + (site < other ? 1 : 2))"
  }

  static func topology(_ count: Int) -> Topology {
    var wires: [Topology.Wire] = []
    var routes: [Topology.Route] = []
    for site in 1...count {
      wires.append(
        Topology.Wire(
          .init("host-\(site)", "lan", ["\(host4)/24", "\(host6)/64"]),
          .init("gateway-\(site)", "lan", ["192.168.1.1/24", "fd01::1/64"])))
      wires.append(
        Topology.Wire(
          .init("deep-\(site)", "lan", ["\(deep4)/25", "\(deep6)/112"]),
          .init("host-\(site)", "deep", ["192.168.1.129/25", "fd01::1:1/112"])))
      for (node, via4, via6) in [("host", "192.168.1.1", "fd01::1"), ("deep", "192.168.1.129", "fd01::1:1")] {
        routes.append(Topology.Route("\(node)-\(site)", "default", via: via4))
        routes.append(Topology.Route("\(node)-\(site)", "::/0", via: via6))
      }
      routes.append(Topology.Route("gateway-\(site)", "192.168.1.128/25", via: host4))
      routes.append(Topology.Route("gateway-\(site)", "fd01::1:0/112", via: host6))
      for other in 1..<max(site, 1) {
        let name = "wire\(other)\(site)"
        wires.append(
          Topology.Wire(
            .init("gateway-\(other)", name, ["\(wireAddress(of: other, towards: site))/30"]),
            .init("gateway-\(site)", name, ["\(wireAddress(of: site, towards: other))/30"])))
      }
    }
    let routers = (1...count).flatMap { ["host-\($0)", "gateway-\($0)"] }
    return Topology(
      nodes: routers + (1...count).map { "deep-\($0)" }, wires: wires, routes: routes, routers: Set(routers))
  }
}
