/// A topology that was built: one namespace for each node.
public final class Network: Sendable {
  public let topology: Topology
  private let namespaces: [String: Namespace]

  /// Builds namespaces, wires, addresses and routes; all of it is removed again when any of it fails.
  public init(_ topology: Topology) throws {
    self.topology = topology
    var namespaces: [String: Namespace] = [:]
    for node in topology.nodes { namespaces[node] = try Namespace(node) }
    self.namespaces = namespaces
    for wire in topology.wires {
      try Tool.ip([
        "link", "add", wire.a.interface, "netns", self[wire.a.node].name, "mtu", "\(wire.mtu)", "type", "veth",
        "peer", "name", wire.b.interface, "netns", self[wire.b.node].name, "mtu", "\(wire.mtu)",
      ])
    }
    for node in topology.nodes {
      if topology.routers.contains(node) {
        try self[node].set("net.ipv4.ip_forward", "1")
        try self[node].set("net.ipv6.conf.all.forwarding", "1")
      }
      let ends = topology.wires.flatMap { [$0.a, $0.b] }.filter { $0.node == node }
      try self[node].ip(
        ends.flatMap(Network.commands) + topology.routes.filter { $0.node == node }.map(Network.command))
    }
  }

  private static func commands(_ end: Topology.End) -> [String] {
    ["link set \(end.interface) up"]
      + end.addresses.map { "addr add \($0) dev \(end.interface)" + ($0.contains(":") ? " nodad" : "") }
  }

  private static func command(_ route: Topology.Route) -> String {
    "route add \(route.prefix) via \(route.via)"
  }

  /// The namespace of a node of the topology.
  public subscript(_ node: String) -> Namespace {
    guard let namespace = namespaces[node] else { preconditionFailure("the topology has no node \(node)") }
    return namespace
  }

  /// Deletes all namespaces with what is in them.
  public func remove() {
    for node in topology.nodes.reversed() { namespaces[node]?.remove() }
  }
}
