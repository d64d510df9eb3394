import Foundation
import PacketIO
import Testing

@testable import Dataplane
@testable import Gateway
@testable import culvert

/// What `show` and `check` print.
@Suite struct GatewayTextTests {
  /// A gateway with two peers, of which one has an address, and with a secret for each.
  private static func plan() throws -> GatewayPlan {
    let directory = NSTemporaryDirectory() + "culvert-text-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    for name in ["beta", "gamma"] { try KeyFile.create(.secret, at: "\(directory)/\(name).secret") }
    return try GatewayFile.plan(
      text: """
        name: alpha
        interface: {name: culvert7, addresses: [10.1.0.1/24, "fd00:1::1/64"]}
        peers:
          - {name: beta, address: "[2001:db8::2]:4502", prefixes: [10.2.0.0/24], secret: beta.secret}
          - {name: gamma, prefixes: [10.3.0.0/24], secret: gamma.secret}
        """, path: "\(directory)/alpha.yaml")
  }

  @Test func textShowsEverythingThatIsNotZero() throws {
    let plan = try Self.plan()
    var statistics = Statistics(
      [], uptime: 3725, interface: "culvert7", offloads: ["checksum", "tcp4"], engine: "openssl", lostEvents: 0)
    statistics.outbound = TrafficCount(packets: 1000, bytes: 1_000_000)
    statistics.outboundDrops = [DropCount(reason: .noRoute, packets: 3), DropCount(reason: .noPath, packets: 0)]
    for peer in plan.peers.map(\.configuration) {
      let inbound = try #require(peer.inbound.first)
      statistics.peers.append(
        Statistics.Peer(
          name: peer.name, path: peer.path.map { "\($0.endpoint)" }, sent: TrafficCount(), received: TrafficCount(),
          lastHeard: peer.path == nil ? nil : 2,
          associations: [
            Statistics.Association(
              direction: .inbound, spi: 0x1002, cipher: inbound.cipher, extendedSequenceNumbers: true,
              implicitIV: false, sequence: 0, packets: 0, bytes: 0, drops: [DropCount(reason: .replayed, packets: 7)])
          ]))
    }
    let text = GatewayReport(plan, from: "alpha.yaml", statistics: statistics).text
    let lines = text.split(separator: "\n").map(String.init)
    #expect(lines.first == "alpha on culvert7, up 1 h 2 min")
    #expect(text.contains("from the device    1,000  1.00 MB"))
    #expect(lines.contains { $0.contains("beta") && $0.contains("[2001:db8::2]:4502") && $0.contains("2 s ago") })
    #expect(lines.contains { $0.contains("gamma") && $0.contains("unknown") && $0.contains("never") })
    #expect(lines.contains { $0.contains("from beta") && $0.contains("0x1002") && $0.hasSuffix("replayed 7") })
    #expect(lines.contains { $0.contains("outbound") && $0.contains("no-route") && $0.hasSuffix("3") })
    #expect(!text.contains("no-path"))
    #expect(lines.allSatisfy { !$0.hasSuffix(" ") })
  }

  @Test func summaryNamesThePeersAndNoKey() throws {
    let plan = try Self.plan()
    let summary = plan.summary(of: "alpha.yaml")
    #expect(summary.hasPrefix("alpha.yaml: OK\n  gateway alpha on culvert7, 10.1.0.1/24 fd00:1::1/64"))
    let spi = String(try #require(plan.peers[0].configuration.outbound).spi, radix: 16)
    #expect(summary.contains("beta   [2001:db8::2]:4502  aes-128-gcm  0x\(spi)"))
    for peer in plan.peers {
      let key = try #require(peer.configuration.outbound).key.hexadecimal
      #expect(!summary.contains(key.prefix(8)))
    }
  }

  @Test func summaryWarnsOfPrefixesThatCoverTheLAN() throws {
    var plan = try Self.plan()
    #expect(!plan.summary(of: "alpha.yaml").contains("warning"))
    plan.lan = [Prefix("10.1.0.0/16")!, Prefix("fd00:1::/64")!]
    plan.peers[0].configuration.prefixes = [Prefix("10.0.0.0/8")!, Prefix("10.1.7.0/24")!]
    #expect(
      plan.summary(of: "alpha.yaml").hasSuffix(
        "\n  warning: peer beta: 10.0.0.0/8 covers this gateway's own 10.1.0.0/16, from which the peer cannot send"))
  }
}
