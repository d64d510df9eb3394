import Foundation
import PacketIO
import Testing

@testable import Dataplane
@testable import Gateway
@testable import KeyAgreement
@testable import Keying
@testable import culvert

/// What `show` and `check` print.
@Suite struct GatewayTextTests {
  /// A gateway with an identity and three peers, of which one has an address: with manual keys, with a secret, and with
  /// an identity.
  private static func plan() throws -> GatewayPlan {
    let directory = NSTemporaryDirectory() + "culvert-text-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    for name in ["out", "in"] { try KeyFile.create(.key(.aes128GCM), at: "\(directory)/\(name).key") }
    try KeyFile.create(.secret, at: "\(directory)/gamma.secret")
    for name in ["alpha", "delta"] { _ = try IdentityFile.create(.p256, at: "\(directory)/\(name).pem") }
    return try GatewayFile.plan(
      text: """
        name: alpha
        identity: alpha.pem
        interface: {name: culvert7, addresses: [10.1.0.1/24, "fd00:1::1/64"]}
        peers:
          - name: beta
            address: "[2001:db8::2]:4502"
            prefixes: [10.2.0.0/24]
            send: {spi: 0x1001, key: out.key}
            receive: {spi: 0x1002, key: in.key}
          - {name: gamma, prefixes: [10.3.0.0/24], secret: gamma.secret}
          - {name: delta, prefixes: [10.4.0.0/24], key: delta.pem.pub, cipher: aes-256-gcm}
        """, path: "\(directory)/alpha.yaml")
  }

  @Test func textShowsEverythingThatIsNotZero() throws {
    let plan = try Self.plan()
    var statistics = Statistics(
      [], uptime: 3725, interface: "culvert7", offloads: ["checksum", "tcp4"], engine: "openssl", lostEvents: 0)
    statistics.outbound = TrafficCount(packets: 1000, bytes: 1_000_000)
    statistics.outboundDrops = [DropCount(reason: .noRoute, packets: 3), DropCount(reason: .noPath, packets: 0)]
    for peer in plan.peers.map(\.configuration) {
      statistics.peers.append(
        Statistics.Peer(
          name: peer.name, path: peer.path?.endpoint, transport: peer.path.map { Int($0.transport) },
          pathName: peer.paths.first?.name, isPathVerified: true, sent: TrafficCount(), received: TrafficCount(),
          lastHeard: peer.path == nil ? nil : 2,
          associations: peer.inbound.map { inbound in
            Statistics.Association(
              direction: .inbound, spi: 0x1002, cipher: inbound.cipher, extendedSequenceNumbers: true,
              implicitIV: false, sequence: 0, packets: 0, bytes: 0, drops: [DropCount(reason: .replayed, packets: 7)])
          }))
    }
    let text = GatewayReport(plan, from: "alpha.yaml", statistics: statistics).text
    let lines = text.split(separator: "\n").map(String.init)
    #expect(lines.first == "alpha on culvert7, up 1 h 2 min")
    #expect(lines.dropFirst().first == "  GID \(try #require(plan.identity).tag)")
    #expect(text.contains("from the device    1,000  1.00 MB"))
    #expect(lines.contains { $0.contains("beta") && $0.contains("[2001:db8::2]:4502") && $0.contains("2 s ago") })
    #expect(lines.contains { $0.contains("gamma") && $0.contains("unknown") && $0.contains("never") })
    #expect(lines.contains { $0.hasPrefix("  beta   udp   [2001:db8::2]:4502  yes") })
    #expect(lines.contains { $0.contains("from beta") && $0.contains("0x1002") && $0.hasSuffix("replayed 7") })
    #expect(lines.contains { $0.contains("outbound") && $0.contains("no-route") && $0.hasSuffix("3") })
    #expect(!text.contains("no-path"))
    #expect(lines.allSatisfy { !$0.hasSuffix(" ") })
  }

  /// `show --shares`: every resource that there is, with whoever holds some of it, and of which transport.
  @Test func sharesTextShowsEveryResource() throws {
    var statistics = Statistics([], uptime: 1, interface: "culvert7", offloads: [], engine: "openssl", lostEvents: 0)
    statistics.shares = SharedResource.allCases.enumerated().map { number, resource in
      Statistics.Share(resource, capacity: 1000 + number, [("beta", 10, 2_000), ("192.0.2.7", 0, 0)])
    }
    let text = GatewayReport(try Self.plan(), from: "alpha.yaml", statistics: statistics).sharesText
    let lines = text.split(separator: "\n").map { $0.split(separator: /\ {2,}/).map(String.init) }
    for (number, resource) in SharedResource.allCases.enumerated() {
      #expect(lines.contains([resource.rawValue, "10", Figure.count(UInt64(1000 + number)), "beta", "10", "2,000"]))
    }
    #expect(lines.count == SharedResource.allCases.count + 2, "\(text)")
  }

  @Test func summaryNamesThePeersAndNoKey() throws {
    let plan = try Self.plan()
    let summary = plan.summary(of: "alpha.yaml")
    #expect(summary.hasPrefix("alpha.yaml: OK\n  gateway alpha on culvert7, 10.1.0.1/24 fd00:1::1/64"))
    #expect(summary.contains("fd00:1::1/64, GID \(try #require(plan.identity).tag)\n"))
    #expect(summary.contains("beta   [2001:db8::2]:4502  aes-128-gcm  manual, 0x1001 out, 0x1002 in"))
    for (peer, cipher) in zip(plan.peers.dropFirst(), ["any        ", "aes-256-gcm"]) {
      let tag = try #require(peer.keys).partner.remote
      let address = "unknown" + String(repeating: " ", count: 11)
      #expect(summary.contains("\(peer.configuration.name)  \(address)  \(cipher)  agreed, GID \(tag)"))
    }
    let outbound = try #require(plan.peers[0].configuration.outbound)
    let inbound = try #require(plan.peers[0].configuration.inbound.first)
    let mix = try #require(plan.peers[1].keys?.partner.mix)
    for key in [outbound.key, inbound.key, mix] { #expect(!summary.contains(key.hexadecimal.prefix(8))) }
  }

  /// Of peers with manual keys nothing is agreed upon.
  @Test func textShowsHowKeysStand() throws {
    let plan = try Self.plan()
    let statistics = Statistics([], uptime: 1, interface: "culvert7", offloads: [], engine: "openssl", lostEvents: 0)
    let partners = plan.peers.compactMap(\.keys?.partner)
    let now = MonotonicTime(nanoseconds: 7_000_000_000_000)
    let session = SessionReport(
      suite: ESPSuite(.aes256GCM, implicitIV: true), group: .x25519, isPostQuantum: true, duration: 0.01, rekeys: 2,
      since: MonotonicTime(nanoseconds: now.nanoseconds - 61_000_000_000),
      nextRekey: now.adding(nanoseconds: 2_940_000_000_000))
    /// What stands in the table, but for what is empty.
    func lines(_ statuses: [KeyStatus], now: MonotonicTime = now) -> [[String]] {
      let keys = Dictionary(uniqueKeysWithValues: zip(partners.map(\.name), statuses))
      let report = GatewayReport(plan, from: "alpha.yaml", statistics: statistics, keys: keys, now: now)
      #expect(report.peers.map { $0.keys == nil } == [true, false, false])
      let lines = report.text.split(separator: "\n").map(String.init)
      let first = lines.firstIndex { $0.hasPrefix("  KEYS WITH") } ?? lines.endIndex
      return lines[first...].prefix(3).map { $0.split(separator: /\ {2,}/).map(String.init) }
    }
    let waiting = lines([KeyStatus(partners[0], nil, nil), KeyStatus(partners[1], session, nil)])
    #expect(
      waiting == [
        ["KEYS WITH", "STATE", "SUITE", "GROUP", "POST-QUANTUM", "AGE", "NEXT REKEY", "GID"],
        ["gamma", "connecting", "\(partners[0].remote)"],
        [
          "delta", "established", "aes-256-gcm implicit-iv", "x25519", "yes", "1 min 1 s", "in 49 min 0 s",
          "\(partners[1].remote)",
        ],
      ])
    var awaiting = session
    (awaiting.isPostQuantum, awaiting.awaitsPostQuantum) = (false, true)
    #expect(lines([KeyStatus(partners[0], nil, nil), KeyStatus(partners[1], awaiting, nil)])[2][4] == "pending")
    // A failure from before the keys is none any more; a rekey that is due is made now.
    let later = session.nextRekey.adding(nanoseconds: 1)
    let failed = lines(
      [KeyStatus(partners[0], nil, .noAnswer), KeyStatus(partners[1], session, .noAnswer)], now: later)
    #expect(failed[1] == ["gamma", "failed: no answer", "\(partners[0].remote)"])
    #expect(failed[2].contains("established") && failed[2].contains("now"))
    let idle = KeyStatus(partners[0], nil, .noAnswer, isIdle: true)
    #expect(lines([idle, KeyStatus(partners[1], session, nil)])[1][1] == "idle")
    let text = GatewayReport(plan, from: "alpha.yaml", statistics: statistics).text
    #expect(text.hasPrefix("alpha on culvert7, up 1 s\n  GID \(try #require(plan.identity).tag)\n"))
    #expect(!text.contains("KEYS WITH"))
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
