public import PacketIO

/// What a dataplane has done since it started, as of one moment.
///
/// Packets are counted as segments: a superpacket of 45 counts 45. Always `outbound.packets ==` those sealed plus
/// those dropped outbound, and `arrived.packets ==` those delivered, dropped inbound or
/// taken as control messages (invariant 4). And the last step: what was sealed was sent by a transport, or is in one of its
/// counters of losses (`notSent`); packets that share one are counted there as one.
public struct Statistics: Sendable, Equatable, Codable {
  /// One peer's figures, in inner packets.
  public struct Peer: Sendable, Equatable, Codable {
    public var name: String
    /// Where sealed packets go now; nil while unknown.
    public var path: Endpoint?
    /// The place of its transport in the embedder's list.
    public var transport: Int?
    /// As the configuration has the path; "learned" where the peer was heard on no listed one.
    public var pathName: String?
    /// The peer has shown that it is there: by an answer to a number that nobody else could know, or by a stream.
    public var isPathVerified = false
    public var sent: TrafficCount
    public var received: TrafficCount
    /// Bytes of the largest IP packet outside that the path takes as far as is known; nil where there is no limit.
    public var pathMTU: Int?
    /// What that rests on: only by probes is it confirmed.
    public var pathMTUSource: PathMTUSource?
    /// Seconds to the peer and back, smoothed; nil while unmeasured.
    public var roundTrip: Double?
    /// Probes sent, and those answered: the difference is loss, or size.
    public var probesSent: UInt64 = 0
    public var probesAnswered: UInt64 = 0
    /// Seconds since the last authenticated packet; nil: none yet.
    public var lastHeard: Double?
    /// The ways to the peer, the list's first; more than one where there is a choice.
    public var paths: [Candidate] = []
    /// Why traffic takes the path it takes, and seconds since when; nil where there is no choice.
    public var pathReason: PathReason?
    public var pathAge: Double?
    /// How often traffic has changed paths.
    public var pathChanges: UInt64 = 0
    public var associations: [Association]
    /// What is translated for this peer; nil while nothing is.
    public var translation: Translation?
  }

  /// One path to a peer among which traffic has a choice, and what is known of it.
  public struct Candidate: Sendable, Equatable, Codable {
    /// As the configuration has it; "learned" where the peer was heard on no listed path.
    public var name: String
    /// The transport's place in the embedder's list, and where on it.
    public var transport: Int
    public var path: Endpoint
    public var state: PathState
    /// Seconds in that state.
    public var stateAge: Double
    /// The peer's traffic takes this one.
    public var isUsed: Bool
    /// Seconds, smoothed (RFC 6298 §2); nil while unmeasured.
    public var roundTrip: Double?
    /// Share of the newest probes, 32 at most, that came to nothing, 0 to 1; nil while unmeasured.
    public var loss: Double?
    public var probesSent: UInt64
    public var probesAnswered: UInt64
    /// As of `Peer`.
    public var pathMTU: Int?
    public var pathMTUSource: PathMTUSource?
    /// This side's address as the peer sees it; behind an address translator, another than its own.
    public var seenAs: Endpoint?
    /// The peer was heard here before this side had sent anything here.
    public var isOpenedByPeer: Bool
  }

  /// The prefixes by which a peer and this side know each other, and how much has been translated.
  public struct Translation: Sendable, Equatable, Codable {
    /// Two prefixes of one length.
    public struct Space: Sendable, Equatable, Codable {
      public var real: Prefix
      public var intermediate: Prefix
    }

    /// This side's prefixes, and as what the peer knows them.
    public var knownAs: [Space]
    /// The peer's prefixes, and as what they are known here.
    public var theirs: [Space]
    /// The peer's prefixes that are not reachable: something else has their addresses, or they were taken back.
    public var unrouted: [Prefix]
    /// Why prefixes are not reachable, or not yet, as text.
    public var failures: [String]
    public var packets: TranslationCount
  }

  /// One association's figures; a direction's sum is the peer's.
  public struct Association: Sendable, Equatable, Codable {
    /// Seen from this gateway.
    public enum Direction: String, Sendable, Codable { case inbound, outbound }
    public var direction: Direction
    public var spi: UInt32
    public var cipher: Cipher
    public var extendedSequenceNumbers: Bool
    public var implicitIV: Bool
    /// Outbound: the last number used, 0 at first. Inbound: the highest accepted.
    public var sequence: UInt64
    public var packets: UInt64
    public var bytes: UInt64
    public var drops: [DropCount]
    /// What the two ends do not agree about, now.
    public var disagreement: SequenceDisagreement?
  }

  /// One of several workers' part in the traffic.
  public struct Worker: Sendable, Equatable, Codable {
    public var outbound: TrafficCount
    public var sealed: TrafficCount
    public var arrived: TrafficCount
    public var delivered: TrafficCount
    /// Superpackets, packets and messages that it gave to other workers.
    public var handedOver: UInt64
    public var freeBuffers: Int
  }

  /// What a transport counts, under its own names.
  public struct TransportStatistics: Sendable, Equatable, Codable {
    public var index: Int
    public var counters: [TransportCounter]
  }

  /// What the firewall let through and refused, and what it remembers.
  public struct Firewall: Sendable, Equatable, Codable {
    /// An enabled rule and what it decided: all packets of the flows it allowed, or those it denied.
    public struct Rule: Sendable, Equatable, Codable {
      public var number: Int
      public var name: String
      public var action: FirewallRule.Action
      public var traffic: TrafficCount
    }

    /// What was decided by something else than a rule, under its name.
    public struct Ground: Sendable, Equatable, Codable {
      public var name: String
      public var traffic: TrafficCount
    }

    public var mode: FirewallConfiguration.Mode
    /// In order. Bytes are counted as packets cross the device, the headers of a superpacket once.
    public var rules: [Rule]
    /// Those that occurred.
    public var grounds: [Ground]
    /// Flows that are established, that are not yet, and that are over but not forgotten.
    public var establishedFlows: Int
    public var pendingFlows: Int
    public var closedFlows: Int
    public var flowCapacity: Int
    /// Of either side.
    public var pendingCapacity: Int
    /// Since the start: flows begun, forgotten after their time, pushed out by newer ones while pending or over; and
    /// how often an established flow found no room and stayed pending.
    public var opened: UInt64
    public var expired: UInt64
    public var evicted: UInt64
    public var overflowed: UInt64
  }

  /// Seconds since the start.
  public var uptime: Double
  public var interface: String
  /// Offloads that passed their self-test, by name.
  public var offloads: [String]
  /// "multi-buffer" or "openssl".
  public var engine: String
  /// Read from the TUN device.
  public var outbound: TrafficCount
  /// Sealed and handed to a transport.
  public var sealed: TrafficCount
  /// ESP packets taken from transports; one that brought several packets counts as those.
  public var arrived: TrafficCount
  /// Written to the TUN device.
  public var delivered: TrafficCount
  public var outboundDrops: [DropCount]
  public var inboundDrops: [DropCount]
  /// Control messages to peers, beside `sealed`, and from peers, among `arrived`.
  public var controlSent: UInt64 = 0
  public var controlReceived: UInt64 = 0
  /// Small packets that shared ESP packets.
  public var aggregation = AggregationCount()
  /// Nil before the first report.
  public var firewall: Firewall?
  public var peers: [Peer]
  public var transports: [TransportStatistics]
  /// Events that found the stream full.
  public var lostEvents: UInt64
  /// Messages (`Dataplane.messages`) that were dropped because their reader was too slow.
  public var lostMessages: UInt64
  /// Messages that their reader has not wanted.
  public var unwantedMessages: UInt64
  /// Buffers in all and free, each `BufferPool.bufferSize` bytes.
  public var buffers: Int
  public var freeBuffers: Int
  /// Empty where there is one.
  public var workers: [Worker] = []
  /// Who holds how much of what peers and strangers share.
  public var shares: [Share] = []

  /// Sealed packets that transports were given and did not send, for whatever reason.
  public var notSent: UInt64 {
    transports.flatMap(\.counters).reduce(0) { $0 + ($1.loss == .notSent ? $1.value : 0) }
  }
}

extension Statistics {
  /// - Parameters:
  ///   - reports: of all workers; empty: nothing is known.
  ///   - records: of the peers, in order.
  init(
    _ reports: [WorkerReport], records: [PeerRecord] = [], uptime: Double, interface: String, offloads: [String],
    engine: String, lostEvents: UInt64,
    lostMessages: UInt64 = 0, unwantedMessages: UInt64 = 0
  ) {
    self.uptime = uptime
    self.interface = interface
    self.offloads = offloads
    self.engine = engine
    self.lostEvents = lostEvents
    self.lostMessages = lostMessages
    self.unwantedMessages = unwantedMessages
    let report = WorkerReport(merging: reports)
    if reports.count > 1 { workers = reports.map(Worker.init) }
    outbound = report?.outbound ?? TrafficCount()
    sealed = report?.sealed ?? TrafficCount()
    arrived = report?.arrived ?? TrafficCount()
    delivered = report?.delivered ?? TrafficCount()
    outboundDrops = report?.outboundDrops ?? []
    inboundDrops = report?.inboundDrops ?? []
    controlSent = report?.controlSent ?? 0
    controlReceived = report?.controlReceived ?? 0
    aggregation = report?.aggregation ?? AggregationCount()
    firewall = report?.firewall
    var figures: [UInt64: [PeerReport]] = [:]
    for peer in reports.flatMap(\.peers) { figures[peer.serial, default: []].append(peer) }
    // A change may have come between two workers' reports.
    peers = records.compactMap { Peer(figures[$0.serial] ?? [], $0) }
    transports = report?.transports ?? []
    shares = report?.shares ?? []
    buffers = report?.buffers ?? 0
    freeBuffers = report?.freeBuffers ?? 0
  }
}

extension TunOffloads {
  /// The names of the members, as statistics show them.
  public var names: [String] {
    [(TunOffloads.checksum, "checksum"), (.tcp4, "tcp4"), (.tcp6, "tcp6"), (.udp4, "udp4"), (.udp6, "udp6")]
      .filter { contains($0.0) }.map { $0.1 }
  }
}
