public import Dataplane
import Glibc
import KeyAgreement
import PacketIO
import Transports

/// A running gateway, as of one moment.
public struct GatewayReport: Codable, Sendable, Equatable {
  /// What the plan says of a peer, beside what the statistics do.
  public struct Peer: Codable, Sendable, Equatable {
    public var name: String
    public var prefixes: [String]
    /// Seconds; 0: never.
    public var keepAlive: Double
    /// By what packets go there: "udp", "tcp", "tls", "udp-hairpin", "relay"; nil while there is no path. Whether the
    /// peer has shown that it is there, its statistics say.
    public var pathKind: String?
    /// Nil where there is one path or none, and before one works.
    public var reach: ReachFinding?
    /// Why keys of this peer are not used, and what to do about it.
    public var refusedKeys: [String] = []
    /// What proxies said last of hairpins to this peer that are not open: which, and why.
    public var refusedHairpins: [String] = []
    /// What keys there are; nil: manual ones.
    public var keys: KeyReport?
  }

  public var name: String
  /// Its GID; nil: it has no identity.
  public var identity: String?
  /// The process's number.
  public var process: Int32
  /// Where the plan came from: the file's path, absolute.
  public var configurationFile: String
  /// "4500" or "192.0.2.1:4500".
  public var listen: String
  /// The same for streams (RFC 9329); nil: it takes none.
  public var listenTCP: String?
  /// The same inside TLS.
  public var listenTLS: String?
  /// On the device, with their prefix lengths.
  public var addresses: [String]
  public var mtu: Int
  /// Prefixes of the network behind the gateway.
  public var lan: [String]
  public var peers: [Peer]
  public var statistics: Statistics
  /// Identity relays that it enrols at; nil: none.
  public var relays: [RelayStatus]?
  /// What translates this gateway's addresses, as far as relays show it; nil: they show nothing.
  public var translators: [TranslatorFinding]?
  /// Nil: the base network is not shared.
  public var sharing: SharingReport?

  /// - Parameter source: what operators call where the plan came from.
  init(
    _ plan: GatewayPlan, from source: String, statistics: Statistics, sharing: SharingReport? = nil,
    refusals: [SequenceKeeper.Refusal] = [], hairpins: HairpinTransport? = nil, keys: [String: KeyStatus] = [:],
    relays: [RelayStatus] = [], translators: [TranslatorFinding] = [],
    now: MonotonicTime = .current()
  ) {
    identity = plan.identity.map { "\($0.tag)" }
    name = plan.name
    process = getpid()
    configurationFile = source
    listen = "\(plan.listen)"
    listenTCP = plan.listenTCP.map { "\($0)" }
    listenTLS = plan.listenTLS.map { "\($0)" }
    addresses = plan.interface.addresses.map { "\($0.address)/\($0.prefixLength)" }
    mtu = plan.interface.mtu
    lan = plan.lan.map(\.description)
    peers = plan.peers.map { peer in
      let name = peer.configuration.name
      let figures = statistics.peers.first { $0.name == name }
      return Peer(
        name: name, prefixes: peer.configuration.prefixes.map(\.description),
        keepAlive: peer.configuration.keepAliveInterval.inSeconds,
        pathKind: figures.flatMap { plan.kind($0) }, reach: figures.flatMap { ReachFinding($0) },
        refusedKeys: refusals.filter { $0.peer == name }.map { "\($0.reason)" },
        refusedHairpins: peer.hairpins.compactMap { planned in
          hairpins?.reason(planned.entry).map { "hairpin at \(planned.place): \($0)" }
        }, keys: keys[name].map { KeyReport($0, now: now) })
    }
    self.statistics = statistics
    self.relays = relays.isEmpty ? nil : relays
    self.translators = translators.isEmpty ? nil : translators
    self.sharing = sharing
  }
}

extension GatewayPlan {
  /// Of the path that a peer's traffic takes, as paths are called in files. One that was learned is of the kind of its
  /// transport.
  fileprivate func kind(_ peer: Statistics.Peer) -> String? {
    guard let transport = peer.transport, let endpoint = peer.path else { return nil }
    if let name = peer.pathName, name != PathChange.learned { return name }
    if relays.contains(where: { $0.endpoint == endpoint }) { return PathReader.relayName }
    return switch UInt8(clamping: transport) {
    case TransportPlace.datagrams: "udp"
    case TransportPlace.streams: "tcp"
    case TransportPlace.encryptedStreams: "tls"
    default: "hairpin"
    }
  }
}
