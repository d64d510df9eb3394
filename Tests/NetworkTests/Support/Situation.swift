import Foundation
import Gateway
import Lab
import Testing

/// What lies between a gateway and the network that all share.
enum Situation: String, CaseIterable, Sendable {
  /// A router.
  case open
  /// A translator of IPv4 that lets in only answers, as the following are, and keeps ports (RFC 4787 §4.1).
  case endpointIndependent = "endpoint-independent"
  /// It takes another port for each address that is sent to.
  case addressDependent = "address-dependent"
  /// It takes another port for each address and port.
  case symmetric
  /// It lets out nothing but HTTPS.
  case httpsOnly = "TCP 443 only"
  /// A router for IPv6 alone.
  case v6Only = "IPv6 only"

  var hasIPv4: Bool { self != .v6Only }
  /// Where that is, others can open a path to the gateway.
  private var hasIPv6: Bool { self == .open || self == .v6Only }

  /// In words of nft, for the router of that side.
  func rules(_ side: Side) -> String {
    let mapping: String
    var passes = ""
    switch self {
    case .open: return ""
    case .v6Only:
      return "table ip site { chain through { type filter hook forward priority 0; policy drop; }; }"
    case .endpointIndependent: mapping = "masquerade"
    case .addressDependent:
      mapping = """
        meta l4proto udp ip daddr \(side.relay4) masquerade to :40001
            oifname "wan" meta l4proto udp masquerade to :40002
            oifname "wan" masquerade
        """
    case .symmetric: mapping = "masquerade fully-random"
    case .httpsOnly: (mapping, passes) = ("masquerade", "tcp dport 443")
    }
    return """
      table ip site {
        chain out {
          type nat hook postrouting priority 100;
          oifname "wan" \(mapping)
        }
        chain in { type filter hook input priority 0; iifname "wan" meta l4proto udp ct state new drop; }
        chain through {
          type filter hook forward priority 0; policy drop;
          iifname "lan" \(passes) accept
          ct state established,related accept
        }
      }
      table ip6 site { chain through { type filter hook forward priority 0; policy drop; }; }
      """
  }

  /// By what packets a gateway in this situation is to send to one in another, in the end.
  func kinds(to other: Situation) -> Set<String> {
    switch (self, other) {
    case (.open, .httpsOnly), (.httpsOnly, .open): ["tls"]
    case (.open, _), (_, .open), (.endpointIndependent, .endpointIndependent), (.v6Only, .v6Only): ["udp"]
    case (.httpsOnly, _): ["relay-tls"]
    // What comes by TLS leaves the relay by TLS where it can.
    case (_, .httpsOnly): ["relay", "relay-tls"]
    default: ["relay"]
    }
  }

  /// Whether the relay sees a gateway in this situation, on that side, as it should be seen.
  func explains(_ seen: String, _ side: Side) -> Bool {
    let translated = (side == .a ? "192.0.2.1:" : "198.51.100.1:")
    switch self {
    case .open: return seen == "\(side.lan4):4500"
    case .v6Only: return seen == "[\(side.lan6)]:4500"
    case .endpointIndependent: return seen == translated + "4500"
    case .addressDependent: return seen == translated + "40001"
    case .symmetric: return seen.hasPrefix(translated) && !seen.hasSuffix(":4500")
    case .httpsOnly: return false
    }
  }

  /// Whether two gateways, in the first and in the second situation, send by the packets that they should.
  static func expect(_ kinds: [String?], _ situations: [Situation]) -> Bool {
    let (a, b) = (situations[0], situations[1])
    return zip(kinds, [a.kinds(to: b), b.kinds(to: a)]).allSatisfy { kind, expected in
      kind.map { expected.contains($0) } ?? false
    }
  }

  /// Direct paths to a gateway in this situation, on that side, from one in another.
  func paths(_ side: Side, from other: Situation) -> [String] {
    guard self == .open || self == .v6Only else { return [] }
    let addresses = [
      hasIPv4 && other.hasIPv4 ? side.lan4 : nil, hasIPv6 && other.hasIPv6 ? "[\(side.lan6)]" : nil,
    ].compactMap(\.self)
    guard let first = addresses.first else { return [] }
    return addresses.map { "udp: \"\($0):4500\"" } + ["tcp: \"\(first):4500\"", "tls: \"\(first):443\""]
  }
}

extension Side {
  /// Where the gateway of a `HairpinSite` is, behind its router.
  var lan4: String { self == .a ? "10.1.0.2" : "10.2.0.2" }
  var lan6: String { self == .a ? "fd01::2" : "fd02::2" }
  /// Where it finds the relay.
  var relay4: String { self == .a ? "192.0.2.9" : "198.51.100.9" }
}

extension IdentityRelaySite {
  /// Each gateway has every path to the other that there may be. Of two relays `a` reaches the second one by IPv6.
  convenience init(relays count: Int = 1, situations: [Situation]) async throws {
    let ends = Array(zip(Side.allCases, situations))
    // There is one port of HTTPS.
    let paths = count == 1 ? ["udp", "tcp", "tls"] : ["udp"]
    try await self.init(
      relays: count, isV4: (situations[0].hasIPv4, situations[1].hasIPv4),
      paths: Dictionary(uniqueKeysWithValues: ends.map { ($0.0, paths) }), routes: true,
      rules: Dictionary(uniqueKeysWithValues: ends.map { ($0.0, $0.1.rules($0.0)) }))
    for (side, situation) in ends {
      let other = situations[side == .a ? 1 : 0]
      try site.directory.write(
        "\(side).yaml",
        "listen-tcp: 4500\nlisten-tls: 443\n"
          + gateway(side, isV4: situation.hasIPv4, direct: other.paths(side.other, from: situation))
          .replacing("192.0.2.9:4601", with: "[2001:db8:1::9]:4601"))
    }
    for (node, routes) in [
      ("nat-a", ["::/0 via 2001:db8:1::9"]), ("nat-b", ["::/0 via 2001:db8:2::9"]),
      ("relay", ["fd01::/64 via 2001:db8:1::1", "fd02::/64 via 2001:db8:2::1"]),
    ] {
      let namespace = network[node]
      try await blocking { try namespace.ip(routes.map { "route add \($0)" }) }
    }
  }

  func startBoth() async throws -> [ProcessHandle] {
    async let a = start(.a)
    async let b = start(.b)
    return [try await a, try await b]
  }

  /// By what packets each sends to the other.
  func kinds() async throws -> [String?] {
    [try await report(.a).peers.first?.pathKind, try await report(.b).peers.first?.pathKind]
  }
}
