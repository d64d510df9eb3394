import PacketIO

/// Why a packet may pass or may not: a rule, by its place among the enabled ones, or a part of the policy.
package struct FirewallGround: RawRepresentable, BitwiseCopyable, Sendable, Hashable {
  package let rawValue: Int32
  @inline(__always) package init(rawValue: Int32) { self.rawValue = rawValue }

  /// The packet was not judged by rules: it contradicts its own flow, or has none.
  package static let none = FirewallGround(rawValue: -7)
  /// Mode `tunnelOnly`: partners' traffic passes.
  package static let tunnelOnly = FirewallGround(rawValue: -6)
  package static let accessList = FirewallGround(rawValue: -5)
  /// The default policy.
  package static let outboundTraffic = FirewallGround(rawValue: -4)
  package static let ping = FirewallGround(rawValue: -3)
  package static let traceroute = FirewallGround(rawValue: -2)
  package static let refused = FirewallGround(rawValue: -1)

  static let fixed: [FirewallGround] = [
    .none, .tunnelOnly, .accessList, .outboundTraffic, .ping, .traceroute, .refused,
  ]
  /// Where its counters are.
  @inline(__always) var place: Int { Int(rawValue) &+ 7 }
  /// A rule's place; nil for the rest.
  package var rule: Int? { rawValue >= 0 ? Int(rawValue) : nil }

  /// What it is called in statistics and logs; a rule is called by its number and name.
  package var name: String {
    switch self {
    case .none: "state"
    case .tunnelOnly: "tunnel-only"
    case .accessList: "access-list"
    case .outboundTraffic: "default: outbound"
    case .ping: "default: ping"
    case .traceroute: "default: traceroute"
    case .refused: "default: refused"
    default: "rule"
    }
  }
}

/// Access lists, rules and default policy, compiled: the part of the tables that the firewall needs.
///
/// Sendable because nothing changes after the initialiser.
package final class FirewallPolicy: @unchecked Sendable {
  /// What the policy says about a flow that begins.
  struct Judgement: BitwiseCopyable {
    var refusal: DropReason?
    var ground: FirewallGround
    var logs = false
  }

  /// The rules, compiled, which hang on no peer.
  final class Rules: @unchecked Sendable {
    /// What of a rule matters once it has matched.
    struct Consequence: BitwiseCopyable {
      var allows: Bool
      var logs: Bool
    }

    let configuration: FirewallConfiguration
    /// The enabled ones, in order.
    let enabled: [FirewallRule]
    let set: RuleSet
    let consequences: FixedArray<Consequence>

    init(_ configuration: FirewallConfiguration) {
      self.configuration = configuration
      enabled =
        configuration.mode == .on ? configuration.rules.filter(\.isEnabled).sorted { $0.number < $1.number } : []
      set = RuleSet(enabled)
      var consequences = FixedArray<Consequence>(capacity: enabled.count)
      for rule in enabled { consequences.append(Consequence(allows: rule.action == .allow, logs: rule.logs)) }
      self.consequences = consequences
    }
  }

  /// UDP ports of classic traceroute probes.
  static let traceroutePorts: ClosedRange<UInt16> = 33434...33534

  let rules: Rules
  /// Whether there is anything to judge at all.
  package let isActive: Bool
  /// Grows with each policy that may judge a flow differently: flows judged under another one are judged again.
  package let version: UInt32
  private let routes: RouteTable
  /// This side's prefixes are known; else whatever no other peer has is this side's.
  private let isClosed: Bool
  /// By the peer's row; nil: no access list. Empty where nobody has one.
  private let accessLists: FixedArray<StateReference<RuleSet>?>
  private let cells: [StateCell<RuleSet>]

  /// Compiles a validated configuration; what follows from the same is taken from `previous`.
  ///
  /// - Parameters:
  ///   - routes: to the peers' rows, by prefixes by which their hosts are known here.
  ///   - isClosed: what of the rest is this side's is among them too.
  ///   - lists: the peers' access lists.
  ///   - rows: there are at most.
  ///   - judgesAnew: some flow may be judged differently.
  init(
    _ configuration: FirewallConfiguration, routes: RouteTable, isClosed: Bool,
    lists: [(row: Int, list: StateCell<RuleSet>)], rows: Int, previous: FirewallPolicy?, judgesAnew: Bool
  ) {
    let known = previous?.rules
    rules = known?.configuration == configuration ? known ?? Rules(configuration) : Rules(configuration)
    // Zero is no version, so that nothing was ever judged under it.
    version = max((previous?.version ?? 0) &+ (judgesAnew ? 1 : 0), 1)
    self.routes = routes
    self.isClosed = isClosed
    isActive =
      switch configuration.mode {
      case .on: true
      case .tunnelOnly: !lists.isEmpty
      case .off: false
      }
    var accessLists = FixedArray<StateReference<RuleSet>?>(repeating: nil, count: lists.isEmpty ? 0 : rows)
    for (row, list) in lists { accessLists[row] = list.reference }
    self.accessLists = accessLists
    cells = lists.map(\.list)
  }

  var configuration: FirewallConfiguration { rules.configuration }
  var enabledRules: [FirewallRule] { rules.enabled }

  /// The row of the peer that has `address`.
  func peer(of address: IPAddress) -> Int? { routes.lookup(address).map { Int($0) } }

  /// Whether an error about a packet of a flow may come from `source`: from the peer that the packet went to, or from
  /// this side, of which not all addresses may be known.
  func mayReport(_ source: IPAddress, _ flow: FlowKey, _ direction: TrafficDirection) -> Bool {
    let sender = peer(of: source)
    if direction == .inbound { return sender == peer(of: flow.remote) }
    return sender == nil || !isClosed || sender == peer(of: flow.local)
  }

  /// Whether a host that a partner sends to from `remote` is this side's.
  private func isOwn(_ address: IPAddress, toward remote: IPAddress) -> Bool {
    guard address.isHost else { return false }
    switch routes.owner(address) {
    case .own: return true
    case .nobody: return !isClosed
    // A prefix as wide as 0.0.0.0/0 covers this side too.
    case .peer(let row): return !isClosed && routes.lookup(remote) == row
    }
  }

  /// Judges the first packet of a flow, or a packet that belongs to none. In this order: access list, rules,
  /// default policy.
  @inline(never)
  func judge(_ opening: FlowOpening) -> Judgement {
    if !accessLists.isEmpty, let peer = peer(of: opening.remote), peer < accessLists.count,
      let list = accessLists[peer],
      list.value.firstMatch(opening) == nil
    {
      return Judgement(refusal: .accessList, ground: .accessList, logs: configuration.logsRefusals)
    }
    guard configuration.mode == .on else { return Judgement(refusal: nil, ground: .tunnelOnly) }
    if let place = rules.set.firstMatch(opening) {
      let consequence = rules.consequences[place]
      return Judgement(
        refusal: consequence.allows ? nil : .firewallRule,
        ground: FirewallGround(rawValue: Int32(truncatingIfNeeded: place)), logs: consequence.logs)
    }
    return defaultJudgement(opening)
  }

  /// Source A's: this side may begin TCP, UDP and ICMP; a partner may ping and trace routes to its hosts. Replies, among them
  /// those of name servers, and the ICMP errors that a probe provokes, pass with the flow they belong to.
  private func defaultJudgement(_ opening: FlowOpening) -> Judgement {
    let isICMP = opening.transport == (opening.isV4 ? IPProtocol.icmp : IPProtocol.icmpV6)
    switch opening.direction {
    case .outbound:
      if opening.hasPorts || isICMP { return Judgement(refusal: nil, ground: .outboundTraffic) }
    case .inbound:
      guard isOwn(opening.destination, toward: opening.source) else { break }
      if isICMP, opening.icmpType == (opening.isV4 ? ICMP.echoRequest : ICMP.echoRequestV6) {
        return Judgement(refusal: nil, ground: .ping)
      }
      if opening.transport == IPProtocol.udp, FirewallPolicy.traceroutePorts.contains(opening.destinationPort) {
        return Judgement(refusal: nil, ground: .traceroute)
      }
    }
    return Judgement(refusal: .firewallDefault, ground: .refused, logs: configuration.logsRefusals)
  }

  /// Whether a partner with that address is limited by an access list.
  @inline(__always)
  func hasAccessList(_ remote: IPAddress) -> Bool {
    guard !accessLists.isEmpty, let peer = peer(of: remote), peer < accessLists.count else { return false }
    return accessLists[peer] != nil
  }
}
