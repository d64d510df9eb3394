public import PacketIO
public import Transports

/// What a hairpin proxy is told when it starts.
public struct HairpinProxyOptions: Sendable {
  /// Where tickets are presented, each for UDP and TCP; ports for gateways are allocated on the same addresses.
  public var listen: [Endpoint]
  /// The same inside TLS 1.3.
  public var tls = HairpinTLSOptions()
  /// Control systems whose tickets are accepted.
  public var publicKeys: [HairpinPublicKey]
  /// By which tickets name this proxy; others are refused. Empty: only tickets that name none are for it.
  public var name = ""
  /// Ports that may be allocated.
  public var ports: ClosedRange<UInt16> = 20_000...59_999
  /// Hairpins at a time; more are refused. Each takes a socket a side, and a listener for a TCP side.
  public var hairpins = 1024
  /// Tickets remembered as used, those of open hairpins included; when it is full, new tickets are refused.
  public var tickets = 65_536
  /// Bits a second of sealed packets of all hairpins together; 0: no limit. When there is more, priorities decide.
  public var bandwidth: UInt64 = 0
  /// Seconds without a word from a side after which it is gone.
  public var silence: UInt16 = 120
  /// Streams that may be open without having proved anything.
  public var unprovenStreams = 256
  /// The same from one address, of IPv6 from one /64: for one more, the oldest of them is closed.
  public var unprovenStreamsPerOrigin = 32
  /// Seconds that a stream may take to prove itself.
  public var proofSeconds: UInt64 = 5
  /// Signatures that are checked in a second; what is above is dropped, and its sender tries again.
  public var signatures: UInt64 = 2000
  /// The same for one address; for one /64 of IPv6, and for one /56 four times as many.
  public var signaturesPerOrigin: UInt64 = 100
  /// Messages in a second that are looked at for one such origin, until it has proved itself: a few for each ticket of a
  /// gateway, and of its neighbours behind the same translator.
  public var messagesPerOrigin: UInt64 = 1000
  /// What makes it an identity relay as well, on the same ports; nil: it is none.
  public var relay: RelayOptions?
  /// What earlier runs remembered; see `HairpinProxyReports.onUse`.
  public var uses: [HairpinUse] = []
  /// Who is told what becomes of tickets and hairpins.
  public var reports = HairpinProxyReports()

  /// What of the kernel's ring may be used; a test narrows it to see an older kernel.
  package var allowedFeatures = RingFeatures.all

  /// Files that all hairpins need: four each where both sides are TCP, a listener and a stream for each; two where both
  /// are UDP.
  var openFiles: Int { 4 * hairpins + otherFiles }
  /// Streams that are handed on to a web server.
  var handedOn: Int { tls.webServer == nil ? 0 : WebHandOn.most }
  /// Control ports, streams without a proof, of gateways that have enrolled and of a web server's visitors, pipes, and what
  /// the program has open besides.
  private var otherFiles: Int {
    2 * listen.count + tls.listen.count + unprovenStreams + 2 * (relay?.gateways ?? 0) + 2 * handedOn + 256
  }

  /// Says, in one line, how many hairpins fit when so many files may be open; nil when all do.
  public func shortage(openFiles limit: Int) -> String? {
    guard limit < openFiles else { return nil }
    let left = max(limit - otherFiles, 0)
    return "\(limit) files may be open, enough for \(min(left / 4, hairpins)) hairpins over TCP and "
      + "\(min(left / 2, hairpins)) over UDP, of \(hairpins) configured; raise the hard limit "
      + "(LimitNOFILE in the unit, or ulimit -Hn), or configure fewer"
  }

  public init(listen: [Endpoint], publicKeys: [HairpinPublicKey]) {
    self.listen = listen
    self.publicKeys = publicKeys
  }
}
