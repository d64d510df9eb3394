import PacketIO
import Settings
import Testing

@testable import Dataplane
@testable import Gateway
@testable import culvert

/// The firewall in a gateway's file, and the access lists of its peers.
@Suite struct FirewallFileTests {
  @Test func readsEverySetting() throws {
    let workshop = try Workshop()
    try workshop.usualKeys()
    let firewall = try workshop.parse(Workshop.good).configuration.firewall
    #expect(firewall.mode == .on && firewall.logsRefusals)
    #expect(firewall.flowCapacity == 1000 && firewall.pendingCapacity == 500)
    let expected = [
      FirewallRule(
        number: 20, name: "web", protocol: .tcp, direction: .inbound, source: Prefix("10.2.0.0/24"),
        destination: Prefix("10.1.0.10"), destinationPorts: 443...443, action: .allow, logs: true),
      FirewallRule(number: 10, isEnabled: false, protocol: .number(47), action: .deny),
      FirewallRule(
        number: 30, protocol: .udp, destination: Prefix("fd00:2::/64"), sourcePorts: 1000...2000, action: .deny),
      FirewallRule(number: 40, protocol: .icmp, action: .allow),
    ]
    #expect(firewall.rules == expected)
  }

  @Test func readsAccessLists() throws {
    let workshop = try Workshop()
    try workshop.usualKeys()
    let peers = try workshop.parse(Workshop.good).configuration.peers
    #expect(peers.map { $0.access == nil } == [true, true, false])
    let expected = [
      AccessEntry(hosts: try #require(Prefix("10.1.0.5"))),
      AccessEntry(
        hosts: try #require(Prefix("10.1.0.16/28")), direction: .inbound, protocol: .tcp, ports: 8000...8100),
      AccessEntry(hosts: try #require(Prefix("fd00:1::/64")), direction: .outbound),
    ]
    #expect(peers[2].access == expected)
  }

  /// A gateway has its firewall on unless its file says otherwise; the library has not.
  @Test func isOnByDefault() throws {
    for text in ["name: alpha", "name: alpha\nfirewall:", "name: alpha\nfirewall: {rules: []}"] {
      let firewall = try GatewayFile.plan(text: text, path: "alpha.yaml").configuration.firewall
      #expect(firewall == FirewallConfiguration(mode: .on))
    }
    for mode in FirewallConfiguration.Mode.allCases {
      let text = "name: alpha\nfirewall: {mode: \(mode.rawValue)}"
      #expect(try GatewayFile.plan(text: text, path: "alpha.yaml").configuration.firewall.mode == mode)
    }
    #expect(Configuration(interface: InterfaceConfiguration(source: .name("x"))).firewall.mode == .off)
  }

  @Test func anEmptyAccessListIsNotNone() throws {
    let workshop = try Workshop()
    try workshop.usualKeys()
    let text = Workshop.good.replacing("      - 10.1.0.5\n", with: "").replacing(
      "access:", with: "access: []\n    keep-alive: 1\n    #")
    let lines = text.split(separator: "\n").filter { !$0.contains("hosts:") }.joined(separator: "\n")
    #expect(try workshop.parse(lines).configuration.peers[2].access == [])
  }

  /// Where a good rule is spoiled: the text that is replaced, what by, and what is said about it.
  struct Case: Sendable, CustomTestStringConvertible {
    let old: String
    let new: String
    let problem: String
    let remedy: String
    var testDescription: String { "\(old) → \(new)" }

    init(_ old: String, _ new: String, _ problem: String, _ remedy: String) {
      (self.old, self.new, self.problem, self.remedy) = (old, new, problem, remedy)
    }
  }

  static let cases: [Case] = [
    Case("mode: on", "mode: maybe", "firewall: mode: 'maybe' is unknown", "known are on, tunnel-only, off"),
    Case("mode: on", "mode: tunnel_only", "firewall: mode: 'tunnel_only' is unknown", "did you mean 'tunnel-only'?"),
    Case("flows: 1000", "flows: 0", "firewall: flows: 0 is out of range", "write flows from 1 to 8388608"),
    Case(
      "log-refusals: true", "log-refusals: 2", "firewall: log-refusals: '2' is not true or false", "write true or false"
    ),
    Case(
      "log-refusals:", "log_refusals:", "firewall: no setting is called 'log_refusals'", "did you mean 'log-refusals'?"),
    Case("number: 40", "number: 0", "firewall: rule 0: number: 0 is out of range", "write a number from 1 to"),
    Case("number: 40", "number: x", "firewall: rule 4: number: 'x' is not a whole number", "write a number from 1 to"),
    Case("{ number: 40, ", "{ ", "firewall: rule 4: number is missing", "rules are judged by ascending number"),
    Case(
      "number: 40", "number: 30", "firewall: rule 30: number: 30 is given twice, first on line 55",
      "give each rule a number of its own"),
    Case(
      "direction: both, action: allow", "direction: both", "firewall: rule 40: action is missing", "write allow or deny"
    ),
    Case(
      "action: allow }", "action: permit }", "firewall: rule 40: action: 'permit' is unknown", "known are allow, deny"),
    Case(
      "both, action", "sideways, action", "firewall: rule 40: direction: 'sideways' is unknown", "known are inbound"),
    Case(
      "protocol: icmp", "protocol: 256", "firewall: rule 40: protocol: '256' is not a protocol", "write any, tcp, udp"),
    Case(
      "protocol: icmp", "protocl: icmp", "firewall: rule 40: no setting is called 'protocl'", "did you mean 'protocol'?"
    ),
    Case(
      "1000-2000", "2000-1000", "firewall: rule 30: source-ports: '2000-1000' is not a range of ports", "write a port"),
    Case("1000-2000", "1-65536", "firewall: rule 30: source-ports: '1-65536' is not a range of ports", "write a port"),
    Case("1000-2000", "1-2-3", "firewall: rule 30: source-ports: '1-2-3' is not a range of ports", "write a port"),
    Case("1000-2000", "+1-2", "firewall: rule 30: source-ports: '+1-2' is not a range of ports", "write a port"),
    Case(
      "protocol: udp, source-ports", "protocol: 47, source-ports",
      "firewall: rule 30: source-ports: the protocol has no ports", "remove them, or choose tcp or udp"),
    Case(
      "destination: \"fd00:2::/64\"", "source: 10.0.0.0/8, destination: \"fd00:2::/64\"",
      "firewall: rule 30: destination: fd00:2::/64 is of another IP version than the source, 10.0.0.0/8",
      "make one rule for each version"),
    Case(
      "source: any", "source: 10.2.0.1/24", "firewall: rule 10: source: 10.2.0.1/24 has bits behind its length",
      "write 10.2.0.0/24"),
    Case(
      "source: any", "source: everybody", "firewall: rule 10: source: 'everybody' is not a prefix",
      "write an address, or an address and a length"),
    Case(
      "- 10.1.0.5", "- 10.1.0.5/24", "peer delta: access: 10.1.0.5/24 has bits behind its length", "write 10.1.0.0/24"),
    Case("- 10.1.0.5", "- web", "peer delta: access: 'web' is not a prefix", "write an address and a length"),
    Case("hosts: 10.1.0.16/28, ", "", "peer delta: access: hosts is missing", "name addresses of this side"),
    Case("hosts: 10.1.0.16/28", "hosts: any", "peer delta: access: hosts: 'any' is not a prefix", "write an address"),
    Case(
      "protocol: tcp, ports", "protocol: icmp, ports", "peer delta: access: ports: the protocol has no ports",
      "remove them, or choose tcp or udp"),
    Case("ports: 8000-8100", "port: 8000", "peer delta: access: no setting is called 'port'", "did you mean 'ports'?"),
  ]

  @Test(arguments: cases) func isReportedOnItsLine(_ item: Case) throws {
    let workshop = try Workshop()
    try workshop.usualKeys()
    try #require(Workshop.good.contains(item.old))
    let text = Workshop.good.replacing(item.old, with: item.new, maxReplacements: 1)
    let error = #expect(throws: FileProblems.self) { try workshop.parse(text) }
    let problem = try #require(error?.problems.first)
    #expect(error?.problems.count == 1, "\(error?.problems ?? [])")
    #expect(problem.problem == item.problem)
    #expect(problem.remedy.hasPrefix(item.remedy), "\(problem.remedy)")
    // On the line where the first difference is, or where the rule begins that lacks something.
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    let line = try #require(problem.line)
    #expect(lines[line - 1].contains(item.new) || item.problem.contains("missing"), "line \(line): \(lines[line - 1])")
  }

  @Test(arguments: ["rules: 5", "rules: {number: 5}"]) func rulesThatAreNoList(text: String) throws {
    let error = #expect(throws: FileProblems.self) {
      try GatewayFile.plan(text: "name: a\nfirewall:\n  \(text)", path: "a.yaml")
    }
    #expect(error?.problems.first?.line == 3)
    #expect(error?.problems.first?.remedy == "begin each rule with '- number: '")
  }

  @Test func tooManyRules() throws {
    let rules = (1...4097).map { "    - {number: \($0), action: deny}" }.joined(separator: "\n")
    let error = #expect(throws: FileProblems.self) {
      try GatewayFile.plan(text: "name: a\nfirewall:\n  rules:\n\(rules)", path: "a.yaml")
    }
    #expect(error?.problems.map(\.problem) == ["firewall: rules: there are 4097 rules"])
  }

  @Test func showListsRulesAndFlows() throws {
    let workshop = try Workshop()
    try workshop.usualKeys()
    let file = try workshop.parse(Workshop.good)
    var figures = Figures(file)
    figures.statistics.firewall = Statistics.Firewall(
      mode: .on,
      rules: [.init(number: 20, name: "web", action: .allow, traffic: TrafficCount(packets: 1234, bytes: 5_000_000))],
      grounds: [.init(name: "default: refused", traffic: TrafficCount(packets: 7, bytes: 420))],
      establishedFlows: 12, pendingFlows: 3, closedFlows: 1, flowCapacity: 65536, pendingCapacity: 16384, opened: 100,
      expired: 80, evicted: 4, overflowed: 0)
    let text = GatewayReport(file, from: "alpha.yaml", statistics: figures.statistics).text
    #expect(text.contains("  firewall on, 12 flows of 65,536 established, 3 pending, 1 closed\n"))
    #expect(text.contains("4 flows were pushed out"))
    #expect(text.contains("  rule 20           allow     1,234  5.00 MB  web\n"))
    #expect(text.contains("  default: refused                7    420 B\n"))
    // What a socket says is only said.
    figures.statistics.firewall?.pendingFlows = -3
    #expect(GatewayReport(file, from: "alpha.yaml", statistics: figures.statistics).text.contains(" 0 pending"))
    figures.statistics.firewall?.mode = .off
    #expect(GatewayReport(file, from: "alpha.yaml", statistics: figures.statistics).text.contains("  firewall off\n"))
    #expect(file.summary(of: "alpha.yaml").contains("\n  firewall on, 3 rules\n"))
  }
}
