import Dataplane
import Glibc
import PacketIO
import Testing

@testable import Gateway
@testable import Lab

/// A gateway that shares the base network with two hosts, each on a wire of its own, and two machines in the base
/// network, of which one has two addresses:
/// ```
/// one: 192.168.1.11 ─┐
///                    gateway: 198.51.100.1 ── 198.51.100.2, .3: server
/// two: 192.168.2.12 ─┘
/// ```
struct SharedLAN: Sendable {
  static let outside = "198.51.100.1"
  static let servers = ["198.51.100.2", "198.51.100.3"]
  static let hosts = ["192.168.1.11", "192.168.2.12"]

  let network: Network
  var one: Namespace { network["one"] }
  var two: Namespace { network["two"] }
  var gateway: Namespace { network["gateway"] }
  var server: Namespace { network["server"] }

  static let topology = Topology(
    nodes: ["one", "two", "gateway", "server"],
    wires: [
      .init(
        .init("one", "lan", ["192.168.1.11/24", "fd00:1::11/64"]),
        .init("gateway", "lan1", ["192.168.1.1/24", "fd00:1::1/64"])),
      .init(
        .init("two", "lan", ["192.168.2.12/24", "fd00:2::12/64"]),
        .init("gateway", "lan2", ["192.168.2.1/24", "fd00:2::1/64"])),
      .init(
        .init("server", "wire", ["198.51.100.2/24", "198.51.100.3/24", "2001:db8:1::2/64"]),
        .init("gateway", "base", ["198.51.100.1/24", "2001:db8:1::1/64"])),
    ],
    routes: [
      .init("one", "default", via: "192.168.1.1"), .init("one", "::/0", via: "fd00:1::1"),
      .init("two", "default", via: "192.168.2.1"), .init("two", "::/0", via: "fd00:2::1"),
    ],
    routers: ["gateway"])

  static let sharing = SharingConfiguration(
    interfaces: ["base"], lan: [Prefix("192.168.0.0/16"), Prefix("fd00::/16")].compactMap { $0 })

  /// Makes the network and puts the rules in force, without a gateway's process.
  static func with(
    _ sharing: SharingConfiguration? = SharedLAN.sharing, _ body: (SharedLAN) async throws -> Void
  ) async throws {
    let network = try await blocking { try Network(topology) }
    defer { network.remove() }
    let lan = SharedLAN(network: network)
    if let sharing {
      let ruleset = FilterRuleset(sharing, gateway: "test", device: "culvert0", tunnel: [], listen: 4500)
      try await lan.nft(ruleset.installation)
    }
    try await body(lan)
  }

  func nft(_ text: String) async throws {
    let gateway = gateway
    _ = try await blocking { try Tool.run("nft", ["-f", "-"], input: text, in: gateway) }
  }

  /// The tables of our packet filter.
  func tables() async throws -> [String] {
    let gateway = gateway
    return try await blocking {
      try Tool.run("nft", ["list", "tables"], in: gateway).split(separator: "\n").map(String.init)
    }
  }

  /// Seconds that the kernel still remembers a flow for; nil: it does not.
  /// - Parameter words: of its line in the kernel's table.
  func remaining(_ words: String...) async throws -> Int? {
    let table = try await gateway.inside { System.readFile("/proc/thread-self/net/nf_conntrack") ?? "" }
    let line = table.split(separator: "\n").first { line in
      let parts = line.split(separator: " ").map(String.init)
      return words.allSatisfy(parts.contains)
    }
    return line.flatMap { Int($0.split(separator: " ")[4]) }
  }

  /// Sends from a host's socket to a server's, and back.
  /// - Returns: who the server saw; nil when the way there or back was closed.
  func ask(_ talker: Talker, _ server: Talker, at place: Place, size: Int = 4) async throws -> Place? {
    talker.send([UInt8](repeating: 7, count: size), to: place)
    guard let (bytes, from) = try await server.receive(), bytes.count == size else { return nil }
    server.send(bytes, to: from)
    guard let answer = try await talker.receive(), answer.from == place, answer.bytes == bytes else { return nil }
    return from
  }
}
