public import Dataplane
import Foundation
import Glibc

/// A question to a running gateway: one line of JSON, `{"request":"statistics"}`.
public struct ControlRequest: Codable, Sendable, Equatable {
  public enum Kind: String, Codable, Sendable, CaseIterable {
    /// Answered with a `GatewayReport`.
    case statistics
    /// Reads the configuration file again, as SIGHUP does; answered when it is in force.
    case reload
    /// What `address` is called on either side of each tunnel; answered with meanings.
    case map
    /// What would become of `packet`; answered with an explanation.
    case explain
    /// Packets as they pass. After the reply, which is an error or empty, the bytes of a pcapng file follow until the
    /// connection ends.
    case capture
    /// Keys of all associations, in the form tshark reads.
    case keys
  }

  public var request: Kind
  /// With `map`: an address, as text.
  public var address: String?
  /// With `explain`: an IP packet inside the tunnel, in base64.
  public var packet: String?
  /// With `capture`.
  public var capture: CaptureOptions?

  public init(
    _ request: Kind, address: String? = nil, packet: [UInt8]? = nil, capture: CaptureOptions? = nil
  ) {
    self.request = request
    self.address = address
    self.capture = capture
    self.packet = packet.map { Data($0).base64EncodedString() }
  }

  /// Bytes of the longest line that is read: the largest packet, as text.
  static let longest = 1 << 17
}

/// What a capture shall have.
public struct CaptureOptions: Codable, Sendable, Equatable {
  public var inner: Bool
  public var outer: Bool
  /// Packets; nil: until the connection ends.
  public var count: Int?
  /// Bytes kept of each packet; nil: all.
  public var snapLength: Int?
  /// Nil: all peers.
  public var peer: String?

  public init(inner: Bool, outer: Bool, count: Int? = nil, snapLength: Int? = nil, peer: String? = nil) {
    self.inner = inner
    self.outer = outer
    self.count = count
    self.snapLength = snapLength
    self.peer = peer
  }
}

/// The answer: one line of JSON with either a result or an error.
public struct ControlReply: Codable, Sendable, Equatable {
  /// What went wrong, for the operator.
  public var error: String?
  public var report: GatewayReport?
  public var meanings: [AddressMeaning]?
  public var explanation: Explanation?
  /// Lines of the file that tells tshark keys.
  public var keys: [String]?

  public init(
    error: String? = nil, report: GatewayReport? = nil, meanings: [AddressMeaning]? = nil,
    explanation: Explanation? = nil, keys: [String]? = nil
  ) {
    self.keys = keys
    self.error = error
    self.report = report
    self.meanings = meanings
    self.explanation = explanation
  }
}

/// A running gateway, as of one moment.
public struct GatewayReport: Codable, Sendable, Equatable {
  /// What the configuration file says of a peer, beside what the statistics do.
  public struct Peer: Codable, Sendable, Equatable {
    public var name: String
    public var prefixes: [String]
    /// Seconds; 0: never.
    public var keepAlive: Double
    /// Nil where there is one path or none, and before one works.
    public var reach: ReachFinding?
  }

  public var name: String
  public var process: Int32
  public var configurationFile: String
  /// "4500" or "192.0.2.1:4500".
  public var listen: String
  /// The same for streams (RFC 9329); nil: it takes none.
  public var listenTCP: String?
  /// On the device, with their prefix lengths.
  public var addresses: [String]
  public var mtu: Int
  /// Prefixes of the network behind the gateway.
  public var lan: [String]
  public var peers: [Peer]
  public var statistics: Statistics
  /// Nil: the base network is not shared.
  public var sharing: SharingReport?

  init(_ file: GatewayFile, statistics: Statistics, sharing: SharingReport? = nil) {
    name = file.name
    process = getpid()
    configurationFile = URL(fileURLWithPath: file.path).path
    listen = "\(file.listen)"
    listenTCP = file.listenTCP.map { "\($0)" }
    addresses = file.interface.addresses.map { "\($0.address)/\($0.prefixLength)" }
    mtu = file.interface.mtu
    lan = file.lan.map(\.description)
    peers = file.peers.map { peer in
      let name = peer.configuration.name
      return Peer(
        name: name, prefixes: peer.configuration.prefixes.map(\.description),
        keepAlive: peer.configuration.keepAliveInterval,
        reach: statistics.peers.first { $0.name == name }.flatMap { ReachFinding($0) })
    }
    self.statistics = statistics
    self.sharing = sharing
  }
}
