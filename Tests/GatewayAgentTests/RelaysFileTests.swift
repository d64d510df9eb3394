import Host
import Identity
import PacketIO
import Settings
import Testing

@testable import Dataplane
@testable import Gateway

/// What a gateway's file says of identity relays, and of the paths to them.
@Suite struct RelaysFileTests {
  private let workshop: Workshop
  private let tags = (0..<3).map { _ in HostIdentity.generate(.ed25519).tag }

  init() throws {
    workshop = try Workshop()
    _ = try IdentityFile.create(.p256, at: workshop.file("alpha.key"))
  }

  private func plan(_ relays: String, listen: String = "4500") throws -> GatewayPlan {
    let text = """
      name: alpha
      identity: alpha.key
      listen: \(listen)
      relays:
      \(relays)
      peers:
        - name: beta
          gid: GID2
          paths: [udp: 192.0.2.7, relay]
          prefixes: [10.2.0.0/24]
      """
    return try workshop.parse(
      tags.enumerated().reduce(text) { $0.replacing("GID\($1.offset)", with: "\"\($1.element)\"") })
  }

  /// A relay stands in the list once for each path, UDP first, and so do the peers' paths.
  @Test func eachKindIsAPath() throws {
    let plan = try plan(
      """
        - {gid: GID0, tcp: 192.0.2.9:443, udp: "192.0.2.9"}
        - {tcp: "[2001:db8::9]", gid: GID1, tls: 192.0.2.10, name: relay.example.org}
        - {tls: "192.0.2.11:8443", gid: GID2}
      """)
    #expect(plan.relays.map(\.gid) == [tags[0], tags[0], tags[1], tags[1], tags[2]])
    #expect(plan.relays.map(\.kind) == [.udp, .tcp, .tcp, .tls, .tls])
    #expect(
      plan.relays.map { "\($0.endpoint)" }
        == ["192.0.2.9:4500", "192.0.2.9:443", "[2001:db8::9]:4500", "192.0.2.10:443", "192.0.2.11:8443"])
    #expect(plan.relays.map(\.path.transport) == [0, 1, 1, 2, 2])
    #expect(plan.certificateNames == [plan.relays[3].endpoint: "relay.example.org"])
    let peer = try #require(plan.peers.first)
    #expect(
      peer.configuration.paths.map(\.name) == ["udp", "relay", "relay-tcp", "relay-tcp", "relay-tls", "relay-tls"])
    #expect(peer.keys?.partner.relays == plan.relays.map(\.path))
    #expect(peer.keys?.partner.paths.count == 6)
  }

  @Test(
    arguments: [
      ("  - {gid: GID0}", 5, "relays: udp is missing"),
      ("  - {udp: 192.0.2.9}", 5, "relays: gid is missing"),
      (
        "  - {gid: GID0, udp: 192.0.2.9, name: a.org}", 5,
        "relays: name: there is no 'tls' whose certificate could be for it"
      ),
      ("  - {gid: GID0, tls: 192.0.2.9, name: a b}", 5, "relays: name: 'a b' is not a host's name"),
      ("  - {gid: GID0, tcp: somewhere}", 5, "relays: tcp: 'somewhere' is a host's name"),
      ("  - {gid: GID0, tcp: 224.0.0.1}", 5, "relays: tcp: 224.0.0.1 is no host's address"),
      (
        "  - {gid: GID0, tcp: 192.0.2.9}\n  - {gid: GID1, tcp: 192.0.2.9}", 6,
        "relays: GID1 is listed twice, or its address"
      ),
      ("  - {gid: GID0, udp: \"[2001:db8::9]\"}", 5, "relays: udp: cannot be reached from 192.0.2.1:4500"),
    ] as [(String, Int, String)])
  func eachMistakeIsNamedOnItsLine(_ relays: String, _ line: Int, _ problem: String) throws {
    let listen = problem.contains("reached") ? "192.0.2.1:4500" : "4500"
    let error = #expect(throws: FileProblems.self) { try plan(relays, listen: listen) }
    let text = tags.enumerated().reduce(problem) { $0.replacing("GID\($1.offset)", with: "\($1.element)") }
    let found = error?.problems.first { $0.problem == text }
    #expect(found?.line == line, "\(error.map { "\($0)" } ?? "")")
    #expect(found?.remedy.isEmpty == false)
  }

  /// A stream leaves by any address: only datagrams have to fit where this gateway listens.
  @Test func aStreamNeedsNoListener() throws {
    let relays = try plan("  - {gid: GID0, tcp: \"[2001:db8::9]\"}", listen: "192.0.2.1:4500").relays
    #expect(relays.count == 1)
  }
}
