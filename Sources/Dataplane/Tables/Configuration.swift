public import PacketIO

/// All that a dataplane shall do: a plain value, validated as a whole before any of it takes effect.
public struct Configuration: Sendable, Equatable {
  public var interface: InterfaceConfiguration
  public var peers: [PeerConfiguration]
  /// What this gateway is called by its peers. Intermediate address spaces are derived from it.
  public var name: String
  /// Prefixes of the LAN behind this gateway, 16 at most, which peers are told of. A peer's prefix that overlaps them
  /// is known here by an intermediate prefix.
  public var localPrefixes: [Prefix]
  /// Where intermediate prefixes come from; a peer's proposals outside are refused.
  public var intermediatePool: [Prefix]
  /// Off, unless it is set: an embedder may have a firewall of its own. A gateway's file has it on.
  public var firewall: FirewallConfiguration

  public init(
    interface: InterfaceConfiguration, peers: [PeerConfiguration] = [], name: String = "", localPrefixes: [Prefix] = [],
    intermediatePool: [Prefix] = IntermediateSpace.defaultPool,
    firewall: FirewallConfiguration = FirewallConfiguration()
  ) {
    self.interface = interface
    self.peers = peers
    self.name = name
    self.localPrefixes = localPrefixes
    self.intermediatePool = intermediatePool
    self.firewall = firewall
  }
}

/// The TUN device. Only `addresses`, `routes` and `mtu` may change while a dataplane runs.
public struct InterfaceConfiguration: Sendable, Equatable {
  /// Where the device comes from.
  public enum Source: Sendable, Equatable {
    /// Creates the device, or attaches to a persistent one, by name (1 to 15 characters).
    case name(String)
    /// Takes over an open TUN queue. It must have been set up with `IFF_TUN | IFF_NO_PI | IFF_VNET_HDR`.
    case descriptor(Int32)
  }

  public var source: Source
  /// This gateway's own addresses on the device, each with the length of its on-link prefix.
  public var addresses: [InterfaceAddress]
  /// Prefixes the kernel shall send into the device, beside the on-link ones.
  public var routes: [Prefix]
  /// Bytes of the largest inner packet, 1280 to 65535 (576 where no IPv6 is used).
  public var mtu: Int
  /// Offloads to ask the kernel for; those that fail their self-test at start are left out and reported.
  public var offloads: TunOffloads

  public init(
    source: Source, addresses: [InterfaceAddress] = [], routes: [Prefix] = [], mtu: Int = 1400,
    offloads: TunOffloads = .all
  ) {
    self.source = source
    self.addresses = addresses
    self.routes = routes
    self.mtu = mtu
    self.offloads = offloads
  }
}

/// An address on the device and the length of the prefix that is on-link with it, 1 to 32 or 128.
public struct InterfaceAddress: Sendable, Hashable {
  public var address: IPAddress
  public var prefixLength: Int
  public init(_ address: IPAddress, prefixLength: Int) {
    self.address = address
    self.prefixLength = prefixLength
  }
}

/// Work the kernel leaves to us or takes from us at the TUN device.
public struct TunOffloads: OptionSet, Sendable, Hashable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  /// Partial checksums; all others need it.
  public static let checksum = TunOffloads(rawValue: 1)
  public static let tcp4 = TunOffloads(rawValue: 2)
  public static let tcp6 = TunOffloads(rawValue: 4)
  public static let udp4 = TunOffloads(rawValue: 8)
  public static let udp6 = TunOffloads(rawValue: 16)
  public static let all: TunOffloads = [.checksum, .tcp4, .tcp6, .udp4, .udp6]
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
  /// own, one for each worker in order; until then, and where there are none, worker 0 seals for all under `outbound`.
  public var workerOutbound: [SecurityAssociationConfiguration]
  /// Seconds without a packet to the peer after which a keep-alive holds the path open; 0: never.
  public var keepAliveInterval: Double
  /// What is done about prefixes that both sides have.
  public var translation: TranslationConfiguration
  /// What the peer may reach, and what may reach it; nil: everything that the rules allow. It holds in every mode of
  /// the firewall but `off`. Within it the rules decide.
  public var access: [AccessEntry]?
  /// Small packets that are there together share an ESP packet (RFC 9347), once the peer has said that it takes such;
  /// and such are taken from the peer.
  public var aggregates: Bool

  /// - Parameter path: a path in front of the others; for a peer that has one only, all that is needed.
  public init(
    name: String, prefixes: [Prefix], path: Path? = nil, paths: [ConfiguredPath] = [],
    inbound: [SecurityAssociationConfiguration] = [],
    outbound: SecurityAssociationConfiguration? = nil, workerOutbound: [SecurityAssociationConfiguration] = [],
    keepAliveInterval: Double = 20,
    translation: TranslationConfiguration = TranslationConfiguration(), access: [AccessEntry]? = nil,
    aggregates: Bool = false
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
  }

  /// The first path's path. Setting it leaves that one path, or none.
  public var path: Path? {
    get { paths.first?.path }
    set { paths = newValue.map { [ConfiguredPath(path: $0)] } ?? [] }
  }
}

/// How one peer and this gateway know each other's LANs. Each gateway translates its own prefixes, and routes the
/// other's intermediate ones; see `PrefixTranslation`.
public struct TranslationConfiguration: Sendable, Equatable {
  /// Who sees to it that there are spaces where prefixes clash.
  public enum Mode: String, Sendable, CaseIterable {
    /// The two gateways, by negotiation; the spaces given here are demanded and in force from the start.
    case automatic
    /// Whoever configures both gateways alike; there are the spaces given here and no others.
    case fixed
    /// This gateway alone, for a peer that cannot translate: it translates the peer's prefixes too.
    case oneSided = "one-sided"
  }

  public var mode: Mode
  /// This gateway's prefixes and the intermediate ones by which the peer knows them.
  public var knownAs: [PrefixPair]
  /// The peer's prefixes and the intermediate ones by which they are known here, in place of the peer's `prefixes`.
  public var theirs: [PrefixPair]
  /// UDP port of name servers, whose messages are rewritten where they name translated hosts; 0: they are not.
  public var dnsPort: UInt16

  public init(
    mode: Mode = .automatic, knownAs: [PrefixPair] = [], theirs: [PrefixPair] = [], dnsPort: UInt16 = 53
  ) {
    self.mode = mode
    self.knownAs = knownAs
    self.theirs = theirs
    self.dnsPort = dnsPort
  }
}

/// One direction of an ESP tunnel (RFC 4301 §4.4.2). An association is known by SPI and key: while both stay
/// the same its sequence numbers and replay window live on through every change of the configuration.
public struct SecurityAssociationConfiguration: Sendable, Equatable {
  /// Security parameters index, 256 or greater (RFC 4303 §2.1).
  public var spi: UInt32
  public var cipher: Cipher
  /// Key, then 4 bytes of salt: `cipher.keyMaterialLength` bytes.
  public var key: KeyMaterial
  /// 64-bit extended sequence numbers (RFC 4303 §2.2.1).
  public var extendedSequenceNumbers: Bool
  /// The IV is the sequence number and is not sent (RFC 8750).
  public var implicitIV: Bool
  /// Outbound: the outer packets carry the inner ones' DSCP (RFC 2983 §3.1); ECN is always carried (RFC 6040).
  public var copiesDSCP: Bool
  /// Inbound: packets of the anti-replay window, 64 to 8192 in whole words of 64 (RFC 6479).
  public var replayWindow: Int
  /// Outbound: the first sequence number used, 1 unless the key was in use before. Inbound: numbers below it
  /// are refused as replays.
  public var firstSequence: UInt64
  /// Outbound: sequence numbers up to which sealing is allowed; raised while traffic flows. Inbound: where the highest
  /// number accepted is noted; its limit means nothing. See `SequenceLease`.
  public var lease: SequenceLease?

  public init(
    spi: UInt32, cipher: Cipher, key: KeyMaterial, extendedSequenceNumbers: Bool = true, implicitIV: Bool = false,
    copiesDSCP: Bool = false, replayWindow: Int = 2048, firstSequence: UInt64 = 1, lease: SequenceLease? = nil
  ) {
    self.spi = spi
    self.cipher = cipher
    self.key = key
    self.extendedSequenceNumbers = extendedSequenceNumbers
    self.implicitIV = implicitIV
    self.copiesDSCP = copiesDSCP
    self.replayWindow = replayWindow
    self.firstSequence = firstSequence
    self.lease = lease
  }

  /// Two descriptions of one association; its counters' starting points do not matter once it runs.
  public func isSameAssociation(as other: SecurityAssociationConfiguration) -> Bool {
    spi == other.spi && cipher == other.cipher && key == other.key
      && extendedSequenceNumbers == other.extendedSequenceNumbers && implicitIV == other.implicitIV
      && copiesDSCP == other.copiesDSCP && replayWindow == other.replayWindow
  }
}
