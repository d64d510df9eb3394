public import PacketIO

/// All that a dataplane shall do: a plain value, validated as a whole before any of it takes effect.
public struct Configuration: Sendable, Equatable {
  public var interface: InterfaceConfiguration
  public var peers: [PeerConfiguration]
  /// What this gateway is called by its peers. Intermediate address spaces are derived from it.
  public var name: String
  /// Prefixes of the LAN behind this gateway, 16 at most, which peers are told of. A peer's prefix that overlaps them
  /// is known here by an intermediate prefix.
  ///
  /// Where there are any, packets are sealed only if they come from here, or from another peer; where there are none,
  /// from anywhere.
  public var localPrefixes: [Prefix]
  /// More prefixes of this side, which peers are not told of: the addresses where it listens, say; and where peers
  /// reach others through this gateway, those (0.0.0.0/0 for the Internet).
  ///
  /// They, `localPrefixes` and the device's addresses are never a peer's source, unless the peer has a longer prefix.
  public var ownPrefixes: [Prefix]
  /// Where intermediate prefixes come from; a peer's proposals outside are refused.
  public var intermediatePool: [Prefix]
  /// Off, unless it is set: an embedder may have a firewall of its own. A gateway's file has it on.
  public var firewall: FirewallConfiguration

  public init(
    interface: InterfaceConfiguration, peers: [PeerConfiguration] = [], name: String = "", localPrefixes: [Prefix] = [],
    ownPrefixes: [Prefix] = [], intermediatePool: [Prefix] = IntermediateSpace.defaultPool,
    firewall: FirewallConfiguration = FirewallConfiguration()
  ) {
    self.interface = interface
    self.peers = peers
    self.name = name
    self.localPrefixes = localPrefixes
    self.ownPrefixes = ownPrefixes
    self.intermediatePool = intermediatePool
    self.firewall = firewall
  }
}

/// A partner: which virtual addresses lie behind it, how to reach it, and under which keys.
public struct PeerConfiguration: Sendable, Equatable {
  /// Unique; shown in statistics and events.
  public var name: String
  /// Virtual prefixes that are routed to this peer, and from which alone it may send.
  public var prefixes: [Prefix]
  /// The paths to the peer, the best first, `ConfiguredPath.listCapacity` at most. None: wait until an authenticated packet
  /// tells. With one path or none, an authenticated packet from another address moves the path there; with more, all
  /// are measured and the best that works is taken.
  public var paths: [ConfiguredPath]
  /// Associations under which packets from this peer are accepted; several while keys change.
  public var inbound: [SecurityAssociationConfiguration]
  /// The association under which packets to this peer are sealed; nil: they are dropped.
  public var outbound: SecurityAssociationConfiguration?
  /// Where this gateway has several workers: the associations under which each seals once the peer answers under its
  /// own, one for each worker in order; until then, and where there are none, worker 0 seals for all under `outbound`,
  /// which may be the first of them.
  public var workerOutbound: [SecurityAssociationConfiguration]
  /// Time without a packet to the peer after which a keep-alive holds the path open, a day at most; zero: never.
  public var keepAliveInterval: Duration
  /// What is done about prefixes that both sides have.
  public var translation: TranslationConfiguration
  /// What the peer may reach, and what may reach it; nil: everything that the rules allow. It holds in every mode of
  /// the firewall but `off`. Within it the rules decide.
  public var access: [AccessEntry]?
  /// Small packets that are there together share an ESP packet (RFC 9347), once the peer has said that it takes such;
  /// and such are taken from the peer.
  public var aggregates: Bool
  /// Bytes of the largest IP packet that is sent to the peer, outer headers included, 576 to 65535, where a path is known
  /// to take no more; nil: found out. On paths that take packets of any size, as streams, it means nothing.
  public var mtu: Int?
  /// Its associations come and go by `installInbound`, `installOutbound` and `retireInbound`, as two sides agree upon them:
  /// a whole configuration leaves those that there are, whatever it says itself.
  public var negotiatesKeys: Bool

  /// - Parameter path: a path in front of the others; for a peer that has one only, all that is needed.
  public init(
    name: String, prefixes: [Prefix], path: Path? = nil, paths: [ConfiguredPath] = [],
    inbound: [SecurityAssociationConfiguration] = [],
    outbound: SecurityAssociationConfiguration? = nil, workerOutbound: [SecurityAssociationConfiguration] = [],
    keepAliveInterval: Duration = .seconds(20),
    translation: TranslationConfiguration = TranslationConfiguration(), access: [AccessEntry]? = nil,
    aggregates: Bool = false, mtu: Int? = nil, negotiatesKeys: Bool = false
  ) {
    self.name = name
    self.prefixes = prefixes
    self.paths = path.map { [ConfiguredPath(path: $0)] + paths } ?? paths
    self.inbound = inbound
    self.outbound = outbound
    self.workerOutbound = workerOutbound
    self.keepAliveInterval = keepAliveInterval
    self.translation = translation
    self.access = access
    self.aggregates = aggregates
    self.mtu = mtu
    self.negotiatesKeys = negotiatesKeys
  }

  /// The first path's path. Setting it leaves that one path, or none.
  public var path: Path? {
    get { paths.first?.path }
    set { paths = newValue.map { [ConfiguredPath(path: $0)] } ?? [] }
  }

  /// With the associations that were agreed upon, if it is a peer with which that is done, and was one.
  func keepingAssociations(of before: PeerConfiguration?) -> PeerConfiguration {
    guard negotiatesKeys else { return self }
    var peer = self
    let kept = before?.negotiatesKeys == true ? before : nil
    peer.inbound = kept?.inbound ?? inbound
    peer.outbound = kept?.outbound ?? outbound
    peer.workerOutbound = kept?.workerOutbound ?? workerOutbound
    return peer
  }
}
