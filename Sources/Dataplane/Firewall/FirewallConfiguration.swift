/// Which packets may pass between this side and its partners, and how much is remembered of those that did.
///
/// The firewall always sees this side's own addresses. A packet that belongs to a known flow passes; one that begins
/// a flow is judged by the partner's access list, then by the rules in order of their numbers, then by the default
/// policy: outbound TCP, UDP and ICMP pass, inbound ping and traceroute pass, everything else is refused. Replies,
/// and the ICMP errors a flow provokes, pass with their flow.
public struct FirewallConfiguration: Sendable, Equatable {
  /// How much of it is at work.
  public enum Mode: String, Sendable, Codable, CaseIterable {
    /// Access lists, rules and default policy.
    case on
    /// Traffic with partners passes without rules; access lists hold.
    case tunnelOnly = "tunnel-only"
    /// Everything passes, and nothing is remembered.
    case off
  }

  public var mode: Mode
  /// In any order; they are judged by ascending number. `maximumRules` at most.
  public var rules: [FirewallRule]
  /// Reports what an access list or the default policy refuses as events, rate-limited; a rule has its own switch.
  public var logsRefusals: Bool
  /// Flows that can be established at once, 1 to 8,388,608. When so many are, further ones still pass, but stay among
  /// those a flood can push out. Fixed while a dataplane runs.
  public var flowCapacity: Int
  /// Flows begun by each side that are not established yet, 1 to 4,194,304; a new one pushes out the oldest. Fixed
  /// while a dataplane runs.
  public var pendingCapacity: Int
  public var timeouts: FirewallTimeouts

  /// Rules that a configuration may have, enabled or not.
  public static let maximumRules = 4096

  public init(
    mode: Mode = .off, rules: [FirewallRule] = [], logsRefusals: Bool = false, flowCapacity: Int = 65_536,
    pendingCapacity: Int = 16_384, timeouts: FirewallTimeouts = FirewallTimeouts()
  ) {
    self.mode = mode
    self.rules = rules
    self.logsRefusals = logsRefusals
    self.flowCapacity = flowCapacity
    self.pendingCapacity = pendingCapacity
    self.timeouts = timeouts
  }
}

/// Seconds without a packet after which a flow is forgotten. The smallest values that are accepted are the RFCs'.
public struct FirewallTimeouts: Sendable, Equatable {
  /// No reply has come; 120 or more (RFC 4787 REQ-5).
  public var udpUnanswered = 120
  /// 120 or more, 300 advised (RFC 4787 REQ-5, RFC 6092 REC-14).
  public var udp = 300
  /// 7440 or more (RFC 5382 REQ-5, RFC 6092 REC-35).
  public var tcpEstablished = 7440
  /// While a connection opens or closes, and after a reset; 240 or more (RFC 5382 REQ-5, RFC 7857 §2).
  public var tcpTransitory = 240
  /// 60 or more (RFC 5508 REQ-2).
  public var icmpQuery = 60
  /// All other protocols; 120 or more, 300 advised (RFC 6092 REC-12).
  public var other = 300

  public init() {}
}
