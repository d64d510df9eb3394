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
      var commands: [String] = []
      for wire in topology.wires {
        for (end, other) in [(wire.a, wire.b), (wire.b, wire.a)] where end.node == node {
          commands += Network.commands(
            end, isHostsRouter: topology.routers.contains(node) && !topology.routers.contains(other.node))
        }
      }
      try self[node].ip(commands + topology.routes.filter { $0.node == node }.map(Network.command))
    }
  }

  /// - Parameter isHostsRouter: whether the other end is a host for which this one forwards.
  private static func commands(_ end: Topology.End, isHostsRouter: Bool) -> [String] {
    // Without link-local addresses the kernel has nothing to say on the wire of its own accord. But it asks for the
    // neighbour of a packet that it forwards from none other (RFC 4861 §7.2.2).
    (isHostsRouter ? [] : ["link set \(end.interface) addrgenmode none"]) + ["link set \(end.interface) up"]
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
