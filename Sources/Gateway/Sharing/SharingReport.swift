import Dataplane

/// How a running gateway shares the base network, as of one moment.
public struct SharingReport: Codable, Sendable, Equatable {
  /// A forwarded port.
  public struct Service: Codable, Sendable, Equatable {
    public var name: String
    public var transport: String
    public var port: UInt16
    /// "192.168.1.10:80".
    public var target: String
    /// Begun since the rules were put in force.
    public var connections: UInt64
  }

  /// The table of the kernel's packet filter.
  public var table: String
  public var interfaces: [String]
  public var lan: [String]
  public var filtering: SharingConfiguration.Filtering
  /// What the LAN's hosts have begun, as long as the table is there.
  public var connections: UInt64
  /// Packets.
  public var refused: UInt64
  public var services: [Service]
  /// Why nothing is shared at the moment, though it should be.
  public var problem: String?

  init(_ sharing: SharingConfiguration, _ ruleset: FilterRuleset) {
    var counters: [String: UInt64] = [:]
    do {
      try ruleset.checkForwarding()
      counters = try KernelFilter.counters(ruleset.table)
    } catch {
      problem = "\(error)"
    }
    table = ruleset.table
    interfaces = sharing.interfaces
    lan = sharing.lan.map(\.description)
    filtering = sharing.filtering
    connections = counters["shared"] ?? 0
    refused = counters["refused"] ?? 0
    services = sharing.services.map { service in
      Service(
        name: service.name, transport: service.transport.rawValue, port: service.port, target: "\(service.target)",
        connections: counters[FilterRuleset.counter(service)] ?? 0)
    }
  }
}
