import Foundation
import Gateway
import Identity
import PacketIO
import Relay
import Settings
import Testing

@testable import culvert_relay

/// An identity relay's settings: what they mean, and that each mistake is named on its line.
@Suite struct IdentityRelayFileTests {
  private let directory: String
  private let tags = (0..<4).map { _ in HostIdentity.generate(.ed25519).tag }

  init() throws {
    directory = NSTemporaryDirectory() + "culvert-identity-relay-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    try write("relay.key", .p256, mode: 0o600)
    try write("open.key", .p256, mode: 0o644)
    try write("large.key", .rsa2048, mode: 0o600)
    try "pairs: [{between: [\"\(tags[0])\", \"\(tags[1])\"]}]".write(
      toFile: "\(directory)/good.yaml", atomically: true, encoding: .utf8)
    try HostIdentity.generate(.p256).publicIdentity.pem.write(
      toFile: "\(directory)/relay.key.pub", atomically: true, encoding: .utf8)
    try TicketFiles.createSigningKey(at: "\(directory)/control.key")
    try "pears: []".write(toFile: "\(directory)/bad.yaml", atomically: true, encoding: .utf8)
  }

  private func write(_ name: String, _ kind: HostIdentity.Kind, mode: Int) throws {
    let text = HostIdentity.generate(kind).pem().withBytes { Data($0) }
    let path = "\(directory)/\(name)"
    try #require(
      FileManager.default.createFile(atPath: path, contents: text, attributes: [.posixPermissions: mode]))
  }

  private func read(_ text: String) throws -> RelayFile {
    defer { try? FileManager.default.removeItem(atPath: directory) }
    var text = text
    for (number, tag) in tags.enumerated() { text = text.replacing("GID\(number)", with: "\"\(tag)\"") }
    try text.write(toFile: "\(directory)/relay.yaml", atomically: true, encoding: .utf8)
    return try RelayFile(contentsOf: "\(directory)/relay.yaml")
  }

  @Test func readsEverySetting() throws {
    let file = try read(
      """
      identity: relay.key
      gateways: 10
      relay-pairs: 20
      silence: 60
      bandwidth: 1G
      control: relay.sock
      groups:
        offices: [GID0, GID1]
        plants: [GID2]
        others: [GID3]
      pairs:
        - {groups: [offices, plants], priority: 5}
        - {groups: offices, until: 1000}
        - {between: [GID2, GID3], bandwidth: 100M, windows: [08:00-18:00, "22:00-24:00"]}
      """)
    let relay = try #require(file.options.relay)
    #expect(relay.gateways == 10 && relay.pairs == 20 && relay.silence == 60 && relay.bandwidth == 1_000_000_000)
    #expect(file.control == "\(directory)/relay.sock")
    let policy = relay.policy
    #expect(policy.terms(tags[0], tags[2], at: 0)?.priority == 5)
    #expect(policy.terms(tags[0], tags[1], at: 1000) != nil && policy.terms(tags[0], tags[1], at: 1001) == nil)
    #expect(policy.terms(tags[2], tags[3], at: 10 * 3600)?.bandwidth == 100_000_000)
    #expect(policy.terms(tags[3], tags[2], at: 19 * 3600) == nil)
    #expect(policy.terms(tags[3], tags[2], at: 23 * 3600) != nil)
    #expect(policy.terms(tags[0], tags[3], at: 0) == nil && policy.names(tags[3]))
  }

  /// Whatever else the file says: a denial goes before pairs and groups.
  @Test func whoIsDeniedMeetsNobody() throws {
    let file = try read(
      """
      identity: relay.key
      deny:
        - GID3
        - between: [GID0, GID1]
      groups: {all: [GID0, GID1, GID2, GID3]}
      pairs:
        - {groups: [all]}
        - {between: [GID0, GID1]}
      """)
    let policy = try #require(file.options.relay?.policy)
    #expect(policy.terms(tags[0], tags[1], at: 0) == nil && policy.terms(tags[2], tags[3], at: 0) == nil)
    #expect(policy.terms(tags[0], tags[2], at: 0) != nil && policy.names(tags[0]) && !policy.names(tags[3]))
  }

  @Test func thePolicyMayBeAFileOfItsOwn() throws {
    let file = try read("identity: relay.key\npolicy: good.yaml")
    #expect(file.options.relay?.policy.terms(tags[1], tags[0], at: 0) != nil)
    #expect(file.options.publicKeys.isEmpty)
  }

  @Test(
    arguments: [
      ("identity: none.key\npairs: []", 1, "identity: DIR/none.key cannot be read"),
      ("identity: open.key\npairs: []", 1, "identity: others can read DIR/open.key"),
      ("identity: large.key\npairs: []", 1, "identity: its answers would be longer than what they answer"),
      ("identity: good.yaml\npairs: []", 1, "identity: others can read DIR/good.yaml"),
      ("identity: relay.key.pub\npairs: []", 1, "identity: DIR/relay.key.pub holds the public half only"),
      (
        "identity: control.key\npairs: []", 1,
        "identity: DIR/control.key holds another kind of key, and no identity"
      ),
      (
        "identity: relay.key\npolicy-key: relay.key.pub\npolicy-updates: updates", 2,
        "policy-key: DIR/relay.key.pub holds no control system's key"
      ),
      (
        "identity: relay.key\npolicy-key: control.key\npolicy-updates: updates", 2,
        "policy-key: DIR/control.key holds the private half, which the control system alone is to have"
      ),
      ("identity: relay.key", 1, "pairs is missing"),
      ("identity: relay.key\npairs: [{between: [GID0]}]", 2, "pairs: between: there are 1 GIDs"),
      ("identity: relay.key\npairs: [{between: [GID0, GID0]}]", 2, "pairs: between: it is the same gateway twice"),
      ("identity: relay.key\npairs: [{between: [GID0, x]}]", 2, "pairs: between: 'x' is not a GID"),
      (
        "identity: relay.key\npairs: [{groups: [a, b]}]", 2,
        "pairs: groups: there is no such group, or there are too many rules"
      ),
      ("identity: relay.key\npairs: [{priority: 8, between: [GID0, GID1]}]", 2, "pairs: priority: 8 is out of range"),
      (
        "identity: relay.key\npairs: [{windows: 9, between: [GID0, GID1]}]", 2,
        "pairs: windows: '9' is not a time of day"
      ),
      ("identity: relay.key\npairs: [{}]", 2, "pairs: between is missing"),
      ("identity: relay.key\npairs: []\ndeny: x", 3, "deny: 'x' stands where a list should"),
      ("identity: relay.key\npairs: []\ndeny: [x]", 3, "deny: 'x' is not a GID"),
      ("identity: relay.key\npairs: []\ndeny: [{between: [GID0]}]", 3, "deny: between: there are 1 GIDs"),
      ("identity: relay.key\npairs: []\ndeny: [{}]", 3, "deny: between is missing"),
      ("identity: relay.key\ngroups: [a]\npairs: []", 2, "groups: a list stands where groups should"),
      ("identity: relay.key\npolicy: good.yaml\npairs: []", 3, "pairs: stands beside 'policy'"),
      ("identity: relay.key\npolicy: bad.yaml", 2, "policy: DIR/bad.yaml:1: no setting is called 'pears'"),
      ("public-key: a\npairs: []", 2, "pairs: the relay has no identity"),
    ] as [(String, Int, String)])
  func eachMistakeIsNamedOnItsLine(_ text: String, _ line: Int, _ problem: String) throws {
    let error = #expect(throws: FileProblems.self) { try read(text) }
    let found = error?.problems.first { $0.problem.replacing(directory, with: "DIR") == problem }
    #expect(found?.line == line, "\(error.map { "\($0)" } ?? "")")
    #expect(found?.remedy.isEmpty == false)
  }
}
