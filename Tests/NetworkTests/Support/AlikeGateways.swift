import Dataplane
import Foundation
import Gateway
import Glibc
import Lab
import PacketIO
import Testing

/// Gateways of `AlikeSites` as operators run them: from files, with `culvert`.
final class AlikeGateways: Sendable {
  let network: Network
  private let directory: TemporaryDirectory
  private let count: Int

  init(_ count: Int) async throws {
    self.count = count
    directory = try TemporaryDirectory()
    for site in 1...count {
      for other in 1...count where other > site {
        try directory.write("secret-\(site)-\(other)", await GatewaySite.makeSecret())
      }
    }
    network = try await blocking { try Network(AlikeSites.topology(count)) }
    for site in 1...count { try write(site) }
  }

  func host(_ site: Int) -> Namespace { network["host-\(site)"] }
  private func control(_ site: Int) -> String { "\(directory.path)/run/site-\(site).sock" }

  /// Writes a gateway's file anew.
  /// - Parameters:
  ///   - lan: prefixes that it announces, and that it lets each peer have.
  ///   - peerSettings: lines of each peer, indented by four.
  func write(
    _ site: Int, lan: [String] = AlikeSites.lan, theirs: [String] = AlikeSites.lan, peerSettings: String = ""
  ) throws {
    func list(_ prefixes: [String]) -> String { prefixes.map { "\"\($0)\"" }.joined(separator: ", ") }
    let peers = (1...count).filter { $0 != site }.map { other in
      """
        - name: site-\(other)
          address: \(AlikeSites.wireAddress(of: other, towards: site))
          prefixes: [\(list(["10.77.0.\(other)/32", "fd77::\(other)/128"] + theirs))]
          secret: secret-\(min(site, other))-\(max(site, other))
      \(peerSettings)
      """
    }
    try directory.write(
      "site-\(site).yaml",
      """
      name: site-\(site)
      interface: {name: culvert0, addresses: [10.77.0.\(site)/32, "fd77::\(site)/128"], mtu: 1400}
      lan: [\(list(lan))]
      control: run/site-\(site).sock
      state: state-\(site)
      firewall:
        rules:
          - {number: 10, name: the lab, direction: inbound, action: allow}
      peers:
      \(peers.joined(separator: "\n"))
      """)
  }

  func start(_ site: Int) async throws -> ProcessHandle {
    let (namespace, path) = (network["gateway-\(site)"], directory.path)
    return try await blocking {
      let process = try ProcessHandle(
        Program.path, ["gateway", "--config", "\(path)/site-\(site).yaml"], in: namespace)
      try process.waitUntil("it ran", timeout: 20) { $0.output.contains("gateway runs") }
      return process
    }
  }

  func reload(_ site: Int) async throws {
    let outcome = try await Program.run(["reload", "--control", control(site)])
    #expect(outcome.status == .exited(0), "\(outcome.lines)")
  }

  /// What `culvert` says when it is asked so.
  func ask(_ site: Int, _ words: [String]) async throws -> String {
    let outcome = try await Program.run(words + ["--control", control(site)])
    #expect(outcome.status == .exited(0), "\(outcome.lines)")
    return outcome.lines.joined(separator: "\n")
  }

  /// What is translated between a gateway and a peer, as `culvert show` tells programs.
  func translation(_ site: Int, with other: Int) async throws -> Statistics.Translation? {
    let text = try await ask(site, ["show", "--json"])
    let report = try JSONDecoder().decode(GatewayReport.self, from: Data(text.utf8))
    return report.statistics.peers.first { $0.name == "site-\(other)" }?.translation
  }

  /// Waits until both gateways of a pair have the same spaces for these prefixes.
  /// - Returns: by which the first knows the second's, in order.
  @discardableResult func waitForSpaces(
    _ site: Int, _ other: Int, _ prefixes: [String] = AlikeSites.lan, sourceLocation: SourceLocation = #_sourceLocation
  ) async throws -> [String] {
    var known: [[String]] = []
    let isAgreed = try await eventually(within: 30) {
      known = []
      for (knower, owner) in [(site, other), (other, site)] {
        let here = try await translation(knower, with: owner)?.theirs ?? []
        let there = try await translation(owner, with: knower)?.knownAs ?? []
        guard here == there, Set(here.map(\.real.description)) == Set(prefixes) else { return false }
        known.append(
          prefixes.compactMap { prefix in here.first { $0.real.description == prefix } }
            .map(\.intermediate.description))
      }
      return true
    }
    try #require(isAgreed, "\(site) and \(other) have not agreed", sourceLocation: sourceLocation)
    return known[0]
  }

  /// Of a host in a space.
  static func address(of host: String, in space: String, of prefix: String) throws -> String {
    let (real, intermediate) = (try #require(Prefix(prefix)), try #require(Prefix(space)))
    let pair = PrefixPair(real: real, intermediate: intermediate)
    let address = try #require(IPAddress(host))
    let known = try #require(pair.intermediate(of: address))
    return "\(known)"
  }
}
