import Dataplane
import PacketIO
import Settings
import Testing

@testable import Gateway
@testable import culvert

/// Connection sharing in a gateway's file, and the ruleset that comes of it.
@Suite struct SharingFileTests {
  static let good = """
    name: alpha
    interface:
      addresses: [10.1.0.1/24]
    sharing:
      interface: [eth0, ppp0]
      lan: [192.168.1.0/24, 192.168.1.64/26, "fd00:1::/64"]
      filtering: endpoint-independent
      services:
        - { name: web, port: 8080, to: 192.168.1.10:80 }
        - { name: dns, protocol: udp, port: 53, to: "192.168.1.10:53" }
        - { name: web6, protocol: tcp, port: 8080, to: "[fd00:1::10]:80" }
    """

  private func parse(_ text: String) throws -> GatewayPlan { try GatewayFile.plan(text: text, path: "alpha.yaml") }

  @Test func readsEverySetting() throws {
    let file = try parse(Self.good)
    let expected = SharingConfiguration(
      interfaces: ["eth0", "ppp0"],
      lan: ["192.168.1.0/24", "192.168.1.64/26", "fd00:1::/64"].compactMap { Prefix($0) },
      services: [
        .init(
          name: "web", transport: .tcp, port: 8080, target: try #require(Endpoint("192.168.1.10:80", defaultPort: 0))),
        .init(
          name: "dns", transport: .udp, port: 53, target: try #require(Endpoint("192.168.1.10:53", defaultPort: 0))),
        .init(
          name: "web6", transport: .tcp, port: 8080, target: try #require(Endpoint("[fd00:1::10]:80", defaultPort: 0))),
      ], filtering: .endpointIndependent)
    #expect(file.sharing == expected)
    #expect(
      file.summary(of: "alpha.yaml").contains(
        "\n  sharing eth0 ppp0 with 192.168.1.0/24 192.168.1.64/26 fd00:1::/64, endpoint-in"))
    #expect(file.summary(of: "alpha.yaml").contains("\n  service dns: udp port 53 to 192.168.1.10:53\n"))
  }

  @Test(arguments: ["sharing: {interface: eth0}", "sharing: {interface: eth0, lan: []}"])
  func withoutALANThereIsNothingToShare(text: String) throws {
    let error = #expect(throws: FileProblems.self) { try parse("name: alpha\n\(text)") }
    #expect(error?.problems.count == 1 && error?.problems.first?.problem.hasPrefix("sharing: lan") == true)
  }

  @Test func aServiceLeavesTheGatewaysOwnPortsAlone() throws {
    let text = Self.good.replacing("name: alpha\n", with: "name: alpha\nlisten-tcp: 8080\n")
    let error = #expect(throws: FileProblems.self) { try parse(text) }
    // Of either IP version.
    #expect(
      error?.problems.map(\.problem)
        == [1, 3].map { "sharing: service \($0): port: 8080 is where the gateway itself listens" })
    let other = try parse(text.replacing("port: 8080", with: "port: 8081"))
    #expect(try #require(other.filterRuleset).installation.contains("tcp sport { 8080, 8081 } masquerade to : numgen"))
  }

  @Test func isOffWhereNothingIsSaid() throws {
    #expect(try parse("name: alpha").sharing == nil)
    #expect(try parse("name: alpha").filterRuleset?.shares == false)
    let least = try parse("name: alpha\nsharing: {interface: eth0, lan: 192.168.1.0/24}").sharing
    #expect(least?.filtering == .addressAndPort && least?.services == [])
    // The gateway's own LAN is meant where nothing else is said.
    let own = try parse("name: alpha\nlan: 192.168.7.0/24\nsharing: {interface: eth0}").sharing
    #expect(own?.lan == ["192.168.7.0/24"].compactMap { Prefix($0) })
  }

  /// What is replaced, what by, and what is said about it.
  static let cases: [(String, String, String, String)] = [
    ("  interface: [eth0, ppp0]\n", "", "sharing: interface is missing", "name the interface"),
    ("[eth0, ppp0]", "[]", "sharing: interface: there is none", "name one, or remove 'sharing'"),
    ("eth0", "culvert0", "sharing: interface: culvert0 is the tunnel's own", "name the interface"),
    ("eth0", "\"eth 0\"", "sharing: interface: 'eth 0' is not a device name", "use 1 to 15"),
    ("eth0", "'eth\"'", "sharing: interface: 'eth\"' is not a device name", "use 1 to 15"),
    (
      "192.168.1.0/24", "192.168.1.1/24", "sharing: lan: 192.168.1.1/24 has bits behind its length",
      "write 192.168.1.0/24"
    ),
    ("192.168.1.0/24", "0.0.0.0/0", "sharing: lan: 0.0.0.0/0 is no LAN's prefix", "write the LAN's own"),
    ("endpoint-independent", "open", "sharing: filtering: 'open' is unknown", "known are address-and-port"),
    ("filtering", "filterin", "sharing: no setting is called 'filterin'", "did you mean 'filtering'?"),
    ("name: web,", "", "sharing: service 1: name is missing", "give the service a name"),
    (
      "name: dns", "name: web", "sharing: service 2: name: 'web' is given twice, first on line 9", "choose another name"
    ),
    ("name: dns", "name: 'd\";'", "sharing: service 2: name: 'd\";' is not a name", "use 1 to 63"),
    ("protocol: udp", "protocol: icmp", "sharing: service 2: protocol: 'icmp' is unknown", "known are tcp, udp"),
    ("port: 53", "port: 0", "sharing: service 2: port: 0 is out of range", "write a port from 1 to 65535"),
    ("port: 53", "port: 4500", "sharing: service 2: port: 4500 is where the gateway itself listens", "choose another"),
    (
      "protocol: udp, port: 53", "port: 8080",
      "sharing: service 2: port: tcp port 8080 is forwarded twice for IPv4, first on line 9", "give each service"
    ),
    (
      "192.168.1.10:80", "192.168.1.10", "sharing: service 1: to: '192.168.1.10' is not an address with a port",
      "write an"
    ),
    (
      "192.168.1.10:80", "10.9.9.9:80", "sharing: service 1: to: 10.9.9.9 is in none of the prefixes under 'lan'",
      "add its"
    ),
    (
      "    - { name: web,", "    - 5\n    - { name: web,", "sharing: service 1: '5' stands where settings should",
      "write"
    ),
  ]

  @Test(arguments: cases.indices) func mistakesAreReported(number: Int) throws {
    let (old, new, problem, remedy) = Self.cases[number]
    try #require(Self.good.contains(old))
    let text = Self.good.replacing(old, with: new, maxReplacements: 1)
    let error = #expect(throws: FileProblems.self) { try parse(text) }
    #expect(error?.problems.count == 1, "\(error?.problems ?? [])")
    #expect(error?.problems.first?.problem == problem)
    #expect(error?.problems.first?.remedy.hasPrefix(remedy) == true, "\(String(describing: error?.problems.first))")
  }

  @Test func rulesetSaysWhatTheFileDoes() throws {
    let ruleset = try #require(try parse(Self.good).filterRuleset)
    #expect(ruleset.table == "culvert-alpha")
    let text = ruleset.installation
    #expect(text.hasPrefix("table inet culvert-alpha\ndelete table inet culvert-alpha\ntable inet culvert-alpha {\n"))
    #expect(ruleset.update.hasPrefix("flush table inet culvert-alpha\ntable inet culvert-alpha {\n"))
    let lines = Set(text.split(separator: "\n").map { $0.trimmingPrefix(while: { $0 == " " }) }.map(String.init))
    for line in [
      "meta nfproto ipv4 meta l4proto tcp tcp dport 8080 counter name service-web dnat ip to 192.168.1.10:80",
      "meta nfproto ipv6 meta l4proto tcp tcp dport 8080 counter name service-web6 dnat ip6 to [fd00:1::10]:80",
      // The inner of two prefixes goes without saying.
      "oifname { \"eth0\", \"ppp0\" } ip saddr { 192.168.1.0/24 } goto share4",
      "oifname { \"eth0\", \"ppp0\" } ip6 saddr { fd00:1::/64 } goto share6",
      // Neither the gateway's own port nor a service's can become a host's.
      "ip daddr { 10.1.0.0/24 } return",
    ] { #expect(lines.contains(line), "\(line)") }
    #expect(
      lines.contains { $0.hasPrefix("meta nfproto ipv4 meta l4proto udp udp sport { 4500 } masquerade to : numgen") })
    #expect(
      lines.contains { $0.hasPrefix("meta nfproto ipv4 meta l4proto tcp tcp sport { 8080 } masquerade to : numgen") })
    // With endpoint-independent filtering whoever knows a port may send to it.
    let open = "meta l4proto udp dnat ip to udp dport map @udp-inside"
    #expect(text.ranges(of: open).count == 2)
    let closed = try parse(Self.good.replacing("endpoint-independent", with: "address-and-port"))
    #expect(try #require(closed.filterRuleset).installation.ranges(of: open).count == 1)
  }

  @Test func showTellsOfIt() throws {
    let file = try parse(Self.good)
    var report = GatewayReport(file, from: "alpha.yaml", statistics: Figures(file).statistics)
    #expect(!report.text.contains("sharing"))
    report.sharing = SharingReport(try #require(file.sharing), try #require(file.filterRuleset))
    // Nothing of that name is in force here.
    #expect(report.text.contains("\n  nothing is shared: "))
    report.sharing?.problem = nil
    report.sharing?.connections = 1234
    report.sharing?.services[0].connections = 7
    #expect(
      report.text.contains("\n  sharing eth0 ppp0 with 192.168.1.0/24 192.168.1.64/26 fd00:1::/64, 1,234 connections"))
    #expect(report.text.contains("\n  web      tcp 8080  192.168.1.10:80            7\n"))
  }
}
