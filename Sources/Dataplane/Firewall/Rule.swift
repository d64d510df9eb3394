import PacketIO

/// A rule of the firewall: which flows it speaks of, and whether they may be. Everything left open matches.
public struct FirewallRule: Sendable, Equatable {
  /// What happens to a flow that matches.
  public enum Action: String, Sendable, Codable, CaseIterable { case allow, deny }

  /// Who begins the flow; its replies go with it.
  public enum Direction: String, Sendable, Codable, CaseIterable {
    /// A partner.
    case inbound
    /// This side.
    case outbound
    case both

    @inline(__always)
    func covers(_ direction: TrafficDirection) -> Bool {
      self == .both || (self == .outbound) == (direction == .outbound)
    }
  }

  /// Rules are judged by ascending number, and the first that matches decides. 1 or greater, each once.
  public var number: Int
  /// For people; may be empty.
  public var name: String
  /// A rule that is not enabled is kept and ignored.
  public var isEnabled: Bool
  public var `protocol`: FirewallProtocol
  public var direction: Direction
  /// Nil: any address.
  public var source: Prefix?
  public var destination: Prefix?
  /// Nil: any port. With ports a rule speaks of TCP and UDP only.
  public var sourcePorts: ClosedRange<UInt16>?
  public var destinationPorts: ClosedRange<UInt16>?
  public var action: Action
  /// Reports flows it allows, and packets it denies, as events, rate-limited. Both are always counted.
  public var logs: Bool

  public init(
    number: Int, name: String = "", isEnabled: Bool = true, protocol: FirewallProtocol = .any,
    direction: Direction = .both, source: Prefix? = nil, destination: Prefix? = nil,
    sourcePorts: ClosedRange<UInt16>? = nil, destinationPorts: ClosedRange<UInt16>? = nil, action: Action,
    logs: Bool = false
  ) {
    self.number = number
    self.name = name
    self.isEnabled = isEnabled
    self.protocol = `protocol`
    self.direction = direction
    self.source = source
    self.destination = destination
    self.sourcePorts = sourcePorts
    self.destinationPorts = destinationPorts
    self.action = action
    self.logs = logs
  }
}

/// The transport protocol a rule speaks of.
public enum FirewallProtocol: Sendable, Hashable {
  case any, tcp, udp
  /// ICMP with IPv4, ICMPv6 with IPv6. Errors that belong to a known flow pass with it, whatever the rules say.
  case icmp
  /// By its number (IANA).
  case number(UInt8)

  /// Whether a packet of protocol `number` is meant.
  func covers(_ number: UInt8, isV4: Bool) -> Bool {
    switch self {
    case .any: true
    case .tcp: number == IPProtocol.tcp
    case .udp: number == IPProtocol.udp
    case .icmp: number == (isV4 ? IPProtocol.icmp : IPProtocol.icmpV6)
    case .number(let own): number == own
    }
  }

  /// Whether all its packets have ports.
  var hasPorts: Bool {
    switch self {
    case .tcp, .udp, .number(IPProtocol.tcp), .number(IPProtocol.udp): true
    case .any, .icmp, .number: false
    }
  }
}

/// A line of a partner's access list: hosts of this side that the partner may reach, or that may reach it.
public struct AccessEntry: Sendable, Equatable {
  /// Addresses of this side.
  public var hosts: Prefix
  /// `inbound`: the partner may begin flows to `hosts`. `outbound`: `hosts` may begin flows to the partner.
  public var direction: FirewallRule.Direction
  public var `protocol`: FirewallProtocol
  /// Ports of whoever is reached; nil: any. With ports the entry speaks of TCP and UDP only.
  public var ports: ClosedRange<UInt16>?

  public init(
    hosts: Prefix, direction: FirewallRule.Direction = .both, protocol: FirewallProtocol = .any,
    ports: ClosedRange<UInt16>? = nil
  ) {
    self.hosts = hosts
    self.direction = direction
    self.protocol = `protocol`
    self.ports = ports
  }

  /// The entry as rules, one for each direction.
  func rules(from number: Int) -> [FirewallRule] {
    var rules: [FirewallRule] = []
    if direction != .outbound {
      rules.append(
        FirewallRule(
          number: number, protocol: `protocol`, direction: .inbound, destination: hosts, destinationPorts: ports,
          action: .allow))
    }
    if direction != .inbound {
      rules.append(
        FirewallRule(
          number: number + rules.count, protocol: `protocol`, direction: .outbound, source: hosts,
          destinationPorts: ports, action: .allow))
    }
    return rules
  }
}

extension FirewallRule {
  /// Whether the rule speaks of the flow: slow, and what `RuleSet` must agree with.
  package func matches(_ opening: FlowOpening) -> Bool {
    guard isEnabled, direction.covers(opening.direction), `protocol`.covers(opening.transport, isV4: opening.isV4)
    else { return false }
    if let source, !source.contains(opening.source) { return false }
    if let destination, !destination.contains(opening.destination) { return false }
    if sourcePorts != nil || destinationPorts != nil {
      guard opening.hasPorts else { return false }
      if let sourcePorts, !sourcePorts.contains(opening.sourcePort) { return false }
      if let destinationPorts, !destinationPorts.contains(opening.destinationPort) { return false }
    }
    return true
  }
}
