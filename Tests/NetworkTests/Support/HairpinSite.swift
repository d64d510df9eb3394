import Dataplane
import Foundation
import Gateway
import Glibc
import Lab
import PacketIO
import Testing
import Transports

/// Two gateways, each behind an address translator that lets nothing in, and a relay that both can reach:
/// ```
/// a ── nat-a ═══ 192.0.2.0/24, 2001:db8:1::/64 ═══ relay ═══ 198.51.100.0/24, 2001:db8:2::/64 ═══ nat-b ── b
/// ```
final class HairpinSite: Sendable {
  let network: Network
  let directory: TemporaryDirectory

  static let topology = Topology(
    nodes: ["a", "nat-a", "relay", "nat-b", "b"],
    wires: [
      Topology.Wire(
        .init("a", "wire", ["10.1.0.2/24", "fd01::2/64"]), .init("nat-a", "lan", ["10.1.0.1/24", "fd01::1/64"])),
      Topology.Wire(
        .init("nat-a", "wan", ["192.0.2.1/24", "2001:db8:1::1/64"]),
        .init("relay", "wire-a", ["192.0.2.9/24", "2001:db8:1::9/64"])),
      Topology.Wire(
        .init("relay", "wire-b", ["198.51.100.9/24", "2001:db8:2::9/64"]),
        .init("nat-b", "wan", ["198.51.100.1/24", "2001:db8:2::1/64"])),
      Topology.Wire(
        .init("nat-b", "lan", ["10.2.0.1/24", "fd02::1/64"]), .init("b", "wire", ["10.2.0.2/24", "fd02::2/64"])),
    ],
    routes: [
      .init("a", "default", via: "10.1.0.1"), .init("a", "::/0", via: "fd01::1"),
      .init("b", "default", via: "10.2.0.1"), .init("b", "::/0", via: "fd02::1"),
    ],
    routers: ["nat-a", "nat-b"])

  private static let translator = """
    table inet site {
      chain out { type nat hook postrouting priority 100; oifname "wan" masquerade; }
      chain through {
        type filter hook forward priority 0; policy drop;
        iifname "lan" accept
        ct state established,related accept
      }
    }
    """

  /// Whether translators can be had; says so when not.
  static let isPossible: Bool = {
    guard Program.exists, Tool.exists("nft"), Tool.exists(Program.relay) else {
      print("SKIPPED: tests of hairpins between translators: they need nft, culvert and culvert-relay")
      return false
    }
    return true
  }()

  /// Makes the network, the signing key and the relay's file.
  ///
  /// - Parameters:
  ///   - routes: whether the relay's machine is a router too, so that there is a straight way.
  ///   - rules: what stands between; nil: nothing.
  init(routes: Bool = false, rules: [String: String?] = ["nat-a": translator, "nat-b": translator]) async throws {
    var topology = HairpinSite.topology
    if routes {
      topology.routers.insert("relay")
      topology.routes += [
        .init("nat-a", "default", via: "192.0.2.9"), .init("nat-b", "default", via: "198.51.100.9"),
        .init("relay", "10.1.0.0/24", via: "192.0.2.1"), .init("relay", "10.2.0.0/24", via: "198.51.100.1"),
      ]
    }
    let network = try await blocking { [topology] in try Network(topology) }
    self.network = network
    directory = try TemporaryDirectory()
    for (node, rules) in rules {
      guard let rules else { continue }
      try await blocking { _ = try Tool.run("nft", ["-f", "-"], input: rules, in: network[node]) }
    }
    try await culvert(["ticket", "keygen", "\(directory.path)/control.key"])
    try directory.write(
      "relay.yaml",
      """
      listen: ["0.0.0.0:4501", "[::]:4501"]
      public-key: control.key.pub
      records: records.jsonl
      used-tickets: used
      """)
  }

  @discardableResult func culvert(_ arguments: [String]) async throws -> Program.Outcome {
    let outcome = try await Program.run(arguments)
    #expect(outcome.status == .exited(0), "\(outcome.lines)")
    return outcome
  }

  func startRelay() async throws -> ProcessHandle {
    let (file, namespace) = ("\(directory.path)/relay.yaml", network["relay"])
    return try await blocking {
      let relay = try ProcessHandle(Program.relay, ["--config", file], in: namespace)
      try relay.waitUntil("it ran", timeout: 10) { $0.output.contains("relay runs") }
      return relay
    }
  }

  /// Issues a ticket and returns both sides' files.
  /// - Parameter isV4: by which family each reaches the relay.
  func issue(isV4: (Bool, Bool), _ more: [String] = []) async throws -> [Side: HairpinTicketFile] {
    let proxies = [
      isV4.0 ? "192.0.2.9:4501" : "[2001:db8:1::9]:4501", isV4.1 ? "198.51.100.9:4501" : "[2001:db8:2::9]:4501",
    ]
    try await culvert(
      [
        "ticket", "--key", "\(directory.path)/control.key", "--between", "a,b", "--proxy",
        proxies.joined(separator: ","),
        "--out", directory.path, "--force",
      ] + more)
    return [
      .a: try HairpinTicketFile(path: "\(directory.path)/a-b.a.ticket"),
      .b: try HairpinTicketFile(path: "\(directory.path)/a-b.b.ticket"),
    ]
  }

  /// A gateway whose only path is the hairpin.
  func gateway(_ side: Side, _ file: HairpinTicketFile, _ path: Encapsulation) async throws -> Dataplane {
    var configuration = TunnelPlan().configuration(of: side)
    configuration.peers[0].path = file.path(path, transport: 1)
    return try await network[side.rawValue].inside { [configuration] in
      try Dataplane(
        configuration, transports: [UDPTransport(), HairpinTransport([.init(file, path)])],
        options: Dataplane.Options())
    }
  }

  /// Lines that the relay left.
  var records: [String] {
    let text = (try? String(contentsOfFile: "\(directory.path)/records.jsonl", encoding: .utf8)) ?? ""
    return text.split(separator: "\n").map(String.init)
  }
}
