import PacketIO
import Settings
import Testing

@testable import Dataplane
@testable import Gateway
@testable import culvert

/// What a gateway's file says of networks that clash, and what is said about them.
@Suite struct TranslationFileTests {
  private static let good = """
    name: alpha
    interface: {name: culvert7, addresses: [10.77.0.1/32]}
    lan: [192.168.1.0/24, "fd01::/64"]
    intermediate-pool: [100.112.0.0/16, "fd99::/48"]
    peers:
      - name: beta
        prefixes: [10.77.0.2/32, 192.168.1.0/24, "fd01::/64"]
        secret: alpha-delta.secret
        translation:
          known-as: {192.168.1.0/24: 100.112.7.0/24}
          theirs:
            192.168.1.0/24: 100.112.8.0/24
            "fd01::/64": "fd99:0:0:1::/64"
          dns-port: 5353
      - name: gamma
        prefixes: 10.2.0.0/16
        secret: gamma.secret
        translation: one-sided
    """

  private func workshop() throws -> Workshop {
    let workshop = try Workshop()
    try workshop.usualKeys()
    try workshop.key("gamma.secret", 32, seed: 9)
    return workshop
  }

  @Test func readsEverySetting() throws {
    let configuration = try workshop().parse(Self.good).configuration
    func prefix(_ text: String) throws -> Prefix { try #require(Prefix(text)) }
    #expect(configuration.name == "alpha")
    #expect(configuration.localPrefixes == [try prefix("192.168.1.0/24"), try prefix("fd01::/64")])
    #expect(configuration.intermediatePool == [try prefix("100.112.0.0/16"), try prefix("fd99::/48")])
    let beta = configuration.peers[0].translation
    #expect(beta.mode == .automatic && beta.dnsPort == 5353)
    let here = try prefix("192.168.1.0/24")
    #expect(beta.knownAs == [PrefixPair(real: here, intermediate: try prefix("100.112.7.0/24"))])
    #expect(
      beta.theirs == [
        PrefixPair(real: here, intermediate: try prefix("100.112.8.0/24")),
        PrefixPair(real: try prefix("fd01::/64"), intermediate: try prefix("fd99:0:0:1::/64")),
      ])
    #expect(configuration.peers[1].translation == TranslationConfiguration(mode: .oneSided))
    try configuration.validate(transports: 1, engine: .openSSL)
  }

  @Test func withoutThemNothingIsAnnounced() throws {
    let configuration = try GatewayFile.plan(text: "name: alpha", path: "alpha.yaml").configuration
    #expect(configuration.localPrefixes.isEmpty)
    #expect(configuration.intermediatePool == IntermediateSpace.defaultPool)
  }

  struct Case: Sendable {
    let old: String
    let new: String
    let problem: String

    init(_ old: String, _ new: String, _ problem: String) { (self.old, self.new, self.problem) = (old, new, problem) }
  }

  static let cases = [
    Case("lan: [192.168.1.0/24", "lan: [192.168.1.0/24, 192.168.1.128/25", "lan: 192.168.1.128/25 overlaps"),
    Case("lan: [192.168.1.0/24,", "lan: [224.0.0.0/8, 192.168.1.0/24,", "lan: 224.0.0.0/8 has no hosts' addresses"),
    Case("pool: [100.112.0.0/16", "pool: [0.0.0.0/0", "intermediate-pool: 0.0.0.0/0 has no hosts' addresses"),
    Case("translation: one-sided", "translation: onesided", "peer gamma: translation: 'onesided' is unknown"),
    Case("dns-port: 5353", "dns-port: 65536", "peer beta: translation: dns-port: 65536 is out of range"),
    Case("dns-port", "dnsport", "peer beta: translation: no setting is called 'dnsport'"),
    Case(
      "{192.168.1.0/24: 100.112.7.0/24}", "{192.168.2.0/24: 100.112.7.0/24}",
      "peer beta: translation: known-as: 192.168.2.0/24 is not in this gateway's 'lan'"),
    Case(
      "100.112.7.0/24", "100.112.7.0/25",
      "peer beta: translation: known-as: 192.168.1.0/24 and 100.112.7.0/25 are not of the same size"),
    Case(
      "100.112.7.0/24", "100.112.7.1/24", "peer beta: translation: known-as: what stands for 192.168.1.0/24 is not a"),
    Case(
      "100.112.7.0/24", "224.112.7.0/24", "peer beta: translation: known-as: 224.112.7.0/24 has no hosts' addresses"),
    Case(
      "100.112.7.0/24", "100.112.8.0/24",
      "peer beta: translation: theirs: 100.112.8.0/24 overlaps 100.112.8.0/24 on line"
    ),
    Case(
      "100.112.7.0/24", "192.168.1.0/24",
      "peer beta: translation: known-as: 192.168.1.0/24 overlaps 192.168.1.0/24 of this gateway's 'lan'"),
    Case(
      "        192.168.1.0/24: 100.112.8.0/24", "        192.168.3.0/24: 100.112.8.0/24",
      "peer beta: translation: theirs: 192.168.3.0/24 is not among the peer's prefixes"),
    Case(
      "{192.168.1.0/24: 100.112.7.0/24}", "[192.168.1.0/24]",
      "peer beta: translation: known-as: a list stands where pairs of prefixes should"),
  ]

  @Test(arguments: cases) func isReportedOnItsLine(_ item: Case) throws {
    let workshop = try workshop()
    try #require(Self.good.contains(item.old))
    let text = Self.good.replacing(item.old, with: item.new, maxReplacements: 1)
    let error = #expect(throws: FileProblems.self) { try workshop.parse(text) }
    let problem = try #require(error?.problems.first)
    #expect(error?.problems.count == 1, "\(error?.problems ?? [])")
    #expect(problem.problem.hasPrefix(item.problem), "\(problem.problem)")
    #expect(!problem.remedy.isEmpty)
    #expect(problem.line != nil)
  }

  @Test func whatAnAddressIsCalledFollowsFromTheSpaces() throws {
    let file = try workshop().parse(Self.good)
    func map(_ address: String) throws -> String {
      let plan = AddressPlan(file.configuration)
      let meanings = plan.meanings(of: try #require(IPAddress(address)), file.configuration)
      return AddressText.text(address, meanings, gateway: file.name)
    }
    #expect(
      try map("192.168.1.5") == """
        beta knows 192.168.1.5 as 100.112.7.5
        192.168.1.5 of beta is known here as 100.112.8.5
        gamma knows 192.168.1.5 as it is
        """)
    #expect(try map("100.112.7.5") == "100.112.7.5 is what beta calls 192.168.1.5 of alpha")
    #expect(try map("100.112.8.5") == "100.112.8.5 is beta's host 192.168.1.5")
    #expect(try map("10.2.3.4") == "10.2.3.4 is gamma's, and is known as it is")
    #expect(try map("8.8.8.8") == "8.8.8.8 is neither in the network of alpha nor routed to a peer")
  }

  @Test func showNamesSpacesAndReasons() throws {
    let file = try workshop().parse(Self.good)
    var figures = Figures(file)
    let pair = try #require(file.configuration.peers[0].translation.theirs.first)
    var count = TranslationCount()
    (count.sent, count.received, count.dnsRewritten, count.dnsSigned) = (1234, 5, 6, 7)
    figures.statistics.peers[0].translation = Statistics.Translation(
      knownAs: [], theirs: [.init(real: pair.real, intermediate: pair.intermediate)],
      unrouted: [try #require(Prefix("10.3.0.0/16"))], failures: ["10.3.0.0/16 (theirs): too bad"],
      packets: count)
    let text = GatewayReport(file, from: "alpha.yaml", statistics: figures.statistics).text
    #expect(text.contains("network 192.168.1.0/24 fd01::/64"))
    for words in [
      "beta's here  192.168.1.0/24  100.112.8.0/24", "beta's here  10.3.0.0/16     not reachable",
      "beta: 10.3.0.0/16 (theirs): too bad", "1,234",
    ] {
      #expect(text.contains(words), "\(words) in \(text)")
    }
  }
}
