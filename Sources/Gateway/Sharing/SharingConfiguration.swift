public import Dataplane
public import PacketIO

/// How a LAN uses the gateway's own access to the base network, beside the tunnels: source address translation for
/// what its hosts begin, and ports of the gateway that lead to hosts of the LAN.
public struct SharingConfiguration: Sendable, Equatable {
  /// Who may send to a port that a LAN host's traffic has opened (RFC 4787 §5).
  public enum Filtering: String, Sendable, Codable, CaseIterable {
    /// Those addresses and ports that the host has sent to.
    case addressAndPort = "address-and-port"
    /// Everybody, as RFC 4787 REQ-8 recommends where applications matter most: UDP and TCP, ports from 1024.
    case endpointIndependent = "endpoint-independent"
  }

  /// A port of the gateway that leads to a host of the LAN.
  public struct Service: Sendable, Equatable {
    /// The protocols whose ports can be forwarded.
    public enum Transport: String, Sendable, Codable, CaseIterable { case tcp, udp }

    /// For people and counters, each once: 1 to 63 letters, digits, '-', '_' or '.'.
    public var name: String
    public var transport: Transport
    /// The port at the gateway's base addresses, 1 to 65535.
    public var port: UInt16
    /// The host and its port.
    public var target: Endpoint

    public init(name: String, transport: Transport, port: UInt16, target: Endpoint) {
      self.name = name
      self.transport = transport
      self.port = port
      self.target = target
    }
  }

  /// The interfaces that lead to the base network; one at least. They need not exist yet.
  public var interfaces: [String]
  /// Whose source addresses are translated; one at least.
  public var lan: [Prefix]
  public var services: [Service]
  public var filtering: Filtering

  public static let maximumServices = 1024

  public init(
    interfaces: [String], lan: [Prefix], services: [Service] = [], filtering: Filtering = .addressAndPort
  ) {
    self.interfaces = interfaces
    self.lan = lan
    self.services = services
    self.filtering = filtering
  }

  /// Prefixes of one family without those that others contain, which a set of nft's would refuse.
  static func outermost(_ prefixes: [Prefix], _ family: IPAddress.Family) -> [Prefix] {
    let own = prefixes.filter { $0.address.family == family }
    var kept: [Prefix] = []
    for prefix in own.sorted(by: { ($0.length, $0.description) < ($1.length, $1.description) })
    where !kept.contains(where: { $0.contains(prefix.address) }) { kept.append(prefix) }
    return kept
  }
}
