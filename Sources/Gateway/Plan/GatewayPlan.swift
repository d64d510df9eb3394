public import Dataplane
public import Identity
public import PacketIO
import Transports

/// What a gateway shall be, whoever says so: a file, or a control system. With the keys, but without where they came
/// from; nothing below the readers of files knows of one.
public struct GatewayPlan: Sendable, Equatable {
  /// Where the gateway takes sealed packets.
  public struct Listen: Sendable, Equatable, CustomStringConvertible {
    /// 1 to 65535.
    public var port: UInt16
    /// Nil: all addresses, of both families.
    public var address: IPAddress?

    /// "4500" or "192.0.2.1:4500".
    public var description: String {
      address.map { "\(Endpoint(address: $0, port: port))" } ?? "\(port)"
    }
  }

  /// The gateway's name: 1 to 63 letters, digits, '-', '_' or '.'.
  public var name: String
  /// Where it takes datagrams.
  public var listen = Listen(port: GatewayPlan.defaultPort, address: nil)
  /// Where it takes streams of sealed packets (RFC 9329); nil: nowhere, it only opens some.
  public var listenTCP: Listen?
  /// The same inside TLS; nil: nowhere.
  public var listenTLS: Listen?
  /// What is shown there.
  public var tls = PlannedTLS()
  /// Without the peers' prefixes among its routes; see `configuration`.
  public var interface = InterfaceConfiguration(source: .name("culvert0"))
  /// Path of the Unix socket that answers `culvert show`.
  public var control: String
  /// Directory of the records of used sequence numbers, which manual keys need.
  public var state: String
  /// Who this gateway is; nil: peers have manual keys, or share a secret with it.
  public var identity: HostIdentity?
  /// An identity is named, whatever became of it.
  var namesIdentity = false
  /// Whether other gateways have their records beside `state`, and may not share a key with this one.
  public var hasSiblings = false
  /// Nil: the fastest.
  public var engine: CipherEngine?
  /// Threads that carry packets.
  public var workers = 1
  /// On, with the default policy, unless something else is said.
  public var firewall = FirewallConfiguration(mode: .on)
  /// Nil: the base network is not shared.
  public var sharing: SharingConfiguration?
  /// Identity relays that this gateway enrols at, the best first, by each of their paths.
  var relays: [PlannedRelay] = []
  /// In the order in which they are shown.
  public var peers: [PlannedPeer] = []
  /// Prefixes of the network behind this gateway, which peers are told of.
  public var lan: [Prefix] = []
  /// More prefixes of this side, which peers are not told of; see `Configuration.ownPrefixes`.
  public var own: [Prefix] = []
  /// Where prefixes come from that stand for those that clash.
  public var intermediatePool = IntermediateSpace.defaultPool

  /// Where gateways listen when nothing else is said (RFC 3948).
  public static let defaultPort: UInt16 = 4500
  /// Where control sockets are when nothing else is said.
  public static let controlDirectory = "/run/culvert"
  /// Where each gateway has its directory of records when nothing else is said.
  public static let stateDirectory = "/var/lib/culvert"

  /// A gateway without peers, with sockets and records in the usual places.
  public init(name: String) {
    self.name = name
    control = "\(GatewayPlan.controlDirectory)/\(name).sock"
    state = "\(GatewayPlan.stateDirectory)/\(name)"
  }

  /// Keys are in it that outlive a start, so that their numbers must be remembered.
  public var hasManualKeys: Bool {
    peers.contains { $0.configuration.outbound != nil || !$0.configuration.inbound.isEmpty }
  }

  /// Tickets of all peers' paths through hairpin proxies.
  var hairpins: [PlannedHairpin] { peers.flatMap(\.hairpins) }

  /// What certificates have to be for, by where TLS streams lead.
  var certificateNames: [Endpoint: String] {
    let relays = relays.compactMap { relay in relay.certificateName.map { (relay.endpoint, $0) } }
    return peers.reduce(into: Dictionary(relays) { first, _ in first }) { names, peer in
      names.merge(peer.certificateNames) { first, _ in first }
    }
  }

  /// What is no mistake, but may not be meant, one line each.
  public var warnings: [String] {
    peers.map(\.configuration).flatMap { peer in
      peer.prefixes.flatMap { prefix in
        lan.filter { prefix.covers($0) && (prefix != $0 || peer.translation.mode == .fixed) }.map {
          "peer \(peer.name): \(prefix) covers this gateway's own \($0), from which the peer cannot send"
        }
      }
    }
  }

  /// What a gateway of this plan would do with a packet inside the tunnel, before it has heard from its peers but for
  /// their keys.
  /// - Throws: `ConfigurationError`.
  public func explain(_ packet: [UInt8]) throws -> Explanation {
    var configuration = configuration
    for (place, peer) in peers.enumerated() { peer.supposeKeys(place, in: &configuration.peers[place]) }
    return try Explanation(of: packet, under: configuration) { UDPTransport.overhead($0) }
  }

  /// What the dataplane is asked to do. Every prefix of a peer is routed into the device.
  public var configuration: Configuration {
    var interface = interface
    // The kernel makes these routes itself, with the addresses.
    var known = Set(interface.addresses.map { Prefix($0.address, length: $0.prefixLength) })
    interface.routes = (interface.routes + peers.flatMap(\.configuration.prefixes)).filter { known.insert($0).inserted }
    let listening = [listen.address, listenTCP?.address, listenTLS?.address].compactMap { $0 }.filter(\.isUnicast)
    return Configuration(
      interface: interface, peers: peers.map(\.configuration), name: name, localPrefixes: lan,
      ownPrefixes: own + listening.map { Prefix($0, length: $0.bitWidth) },
      intermediatePool: intermediatePool, firewall: firewall)
  }

  /// What the kernel's packet filter is asked to do; nil: nothing.
  var filterRuleset: FilterRuleset? {
    var device: String?
    if case .name(let name) = interface.source { device = name }
    if sharing == nil, device == nil { return nil }
    let own = interface.addresses.map { Prefix($0.address, length: $0.prefixLength) }
    return FilterRuleset(
      sharing, gateway: name, device: device, tunnel: own + interface.routes + peers.flatMap(\.configuration.prefixes),
      listen: listen.port, streams: [listenTCP, listenTLS].compactMap { $0?.port })
  }
}
