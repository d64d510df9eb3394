import Foundation
import Gateway
import Glibc
import Lab
import Testing

/// Two gateways behind address translators that let nothing in, and identity relays between them, all from files.
final class IdentityRelaySite: Sendable {
  /// A relay of the site: who it is, and the port that it listens on.
  struct Relay: Sendable {
    let name: String
    let gid: String
    let port: Int
  }

  let site: HairpinSite
  let identities: [Side: GatewaySite.Identity]
  let relays: [Relay]
  /// By which paths each gateway is to reach the relays: "udp", "tcp", "tls".
  let paths: [Side: [String]]

  var network: Network { site.network }
  var folder: String { site.directory.path }

  /// - Parameters:
  ///   - count: of relays.
  ///   - isV4: by which family each gateway reaches them.
  ///   - paths: by which paths, of each side; UDP where nothing is said.
  ///   - passes: what each translator lets out, in words of nft; nil: everything.
  ///   - mapping: how each maps, in words of nft; nil: a port stays what it is.
  ///   - routes: whether there is a straight way from one translator to the other.
  ///   - rules: what stands there in place of a translator.
  init(
    relays count: Int = 1, isV4: (Bool, Bool) = (true, true), paths: [Side: [String]] = [:],
    passes: [Side: String] = [:], mapping: [Side: String] = [:], routes: Bool = false, rules: [Side: String] = [:]
  ) async throws {
    let rules = Side.allCases.map {
      ("nat-\($0)", rules[$0] ?? IdentityRelaySite.translator(passes[$0] ?? "", mapping[$0] ?? ""))
    }
    site = try await HairpinSite(routes: routes, rules: Dictionary(uniqueKeysWithValues: rules))
    self.paths = paths
    identities = try await GatewaySite.makeIdentities()
    var relays: [Relay] = []
    for number in 0..<count {
      let name = "relay-\(number)"
      let gid = try await IdentityRelaySite.makeIdentity("\(site.directory.path)/\(name).key")
      relays.append(Relay(name: name, gid: gid, port: 4600 + number))
    }
    self.relays = relays
    for relay in relays { try write(relay, pairs: [(identities[.a]?.gid ?? "", identities[.b]?.gid ?? "")]) }
    for (side, identity) in identities {
      try site.directory.write("\(side).key", identity.pem)
      try site.directory.write("\(side).yaml", gateway(side, isV4: side == .a ? isV4.0 : isV4.1))
    }
  }

  private static func translator(_ passes: String, _ mapping: String) -> String {
    """
    table inet site {
      chain out { type nat hook postrouting priority 100; oifname "wan" masquerade \(mapping); }
      chain in { type filter hook input priority 0; iifname "wan" meta l4proto udp ct state new drop; }
      chain through {
        type filter hook forward priority 0; policy drop;
        iifname "lan" \(passes) accept
        ct state established,related accept
      }
    }
    """
  }

  /// Makes a private key's file.
  /// - Returns: the GID.
  static func makeIdentity(_ path: String) async throws -> String {
    let outcome = try await Program.run(["keygen", "--identity", path])
    #expect(outcome.status == .exited(0), "\(outcome.lines)")
    let words = outcome.lines.last?.split(separator: " ").map(String.init) ?? []
    try #require(words.count == 3 && words[0] == "GID")
    return words[1]
  }

  /// Writes a relay's file.
  /// - Parameter more: settings beside the usual ones.
  func write(_ relay: Relay, pairs: [(String, String)], more: String = "") throws {
    let more = paths.values.joined().contains("tls") ? "listen-tls: 443\n\(more)" : more
    let rules = pairs.map { "  - {between: [\"\($0.0)\", \"\($0.1)\"]}" }.joined(separator: "\n")
    try site.directory.write(
      "\(relay.name).yaml",
      """
      listen: ["0.0.0.0:\(relay.port)", "[::]:\(relay.port)"]
      identity: \(relay.name).key
      control: \(relay.name).sock
      \(more.split(separator: "\n").joined(separator: "\n"))
      pairs:
      \(rules)
      """)
  }

  /// - Parameter direct: paths to the other side beside those through relays, and better.
  func gateway(_ side: Side, isV4: Bool, key: String? = nil, direct: [String] = []) -> String {
    let address =
      side == .a ? (isV4 ? "192.0.2.9" : "[2001:db8:1::9]") : (isV4 ? "198.51.100.9" : "[2001:db8:2::9]")
    let list = relays.map { relay in
      let paths = (paths[side] ?? ["udp"]).map { "\($0): \"\(address):\($0 == "tls" ? 443 : relay.port)\"" }
      return "  - {gid: \"\(relay.gid)\", \(paths.joined(separator: ", "))}"
    }.joined(separator: "\n")
    return """
      name: \(side)
      identity: \(key ?? "\(side).key")
      interface: {name: \(TunnelPlan.device), addresses: [\(side.inner4)/32, "\(side.inner6)/128"]}
      control: \(side).sock
      state: state-\(side)
      firewall: {rules: [{number: 10, name: everything, action: allow}]}
      relays:
      \(list)
      peers:
        - name: \(side.other)
          gid: "\(identities[side.other]?.gid ?? "")"
          paths: [\((direct + ["relay"]).joined(separator: ", "))]
          prefixes: [\(side.other.inner4)/32, "\(side.other.inner6)/128"]
      """
  }

  func start(_ relay: Relay) async throws -> ProcessHandle {
    let (file, namespace) = ("\(folder)/\(relay.name).yaml", network["relay"])
    return try await blocking {
      let process = try ProcessHandle(Program.relay, ["--config", file], in: namespace)
      try process.waitUntil("it ran", timeout: 10) { $0.output.contains("relay runs") }
      return process
    }
  }

  func start(_ side: Side) async throws -> ProcessHandle {
    let (file, namespace) = ("\(folder)/\(side).yaml", network[side.rawValue])
    return try await blocking {
      let process = try ProcessHandle(Program.path, ["gateway", "--config", file], in: namespace)
      try process.waitUntil("it ran", timeout: 20) { $0.output.contains("gateway runs") }
      return process
    }
  }

  /// What `culvert-relay show` says.
  func show(_ relay: Relay, json: Bool = false, shares: Bool = false) async throws -> [String] {
    let control = "\(folder)/\(relay.name).sock"
    let flags = (json ? ["--json"] : []) + (shares ? ["--shares"] : [])
    return try await blocking {
      let process = try ProcessHandle(Program.relay, ["show", "--control", control] + flags)
      defer { process.terminate() }
      let status = try process.wait(timeout: 10)
      #expect(status == .exited(0), "\(process.output)")
      return process.output.split(separator: "\n").map(String.init)
    }
  }

  /// One of its figures.
  func counter(_ name: String, _ relay: Relay) async throws -> Int {
    let text = try await show(relay, json: true).joined()
    let fields = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
    return (fields?["counters"] as? [String: Int])?[name] ?? 0
  }

  func report(_ side: Side) async throws -> GatewayReport {
    let shown = try await Program.run(["show", "--control", "\(folder)/\(side).sock", "--json"])
    #expect(shown.status == .exited(0), "\(shown.lines)")
    return try JSONDecoder().decode(GatewayReport.self, from: Data(shown.lines.joined(separator: "\n").utf8))
  }

  func isReached(from side: Side, within seconds: Double) async throws -> Bool {
    var ping = Pings(from: network[side.rawValue], to: side.other.inner4)
    ping.patience = 0.2
    return try await eventually(within: seconds) { [ping] in try await ping.run([0]).isEmpty }
  }
}
