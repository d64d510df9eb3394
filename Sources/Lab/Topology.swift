/// Machines and the wires between them, as data.
public struct Topology: Sendable, Equatable {
  /// One plug of a wire.
  public struct End: Sendable, Equatable {
    public var node: String
    /// The interface's name, 15 characters at most.
    public var interface: String
    /// With prefix lengths: "192.0.2.1/24".
    public var addresses: [String]
    public init(_ node: String, _ interface: String, _ addresses: [String]) {
      self.node = node
      self.interface = interface
      self.addresses = addresses
    }
  }

  /// A pair of virtual Ethernet interfaces.
  public struct Wire: Sendable, Equatable {
    public var a: End
    public var b: End
    /// Bytes of the largest IP packet.
    public var mtu: Int
    public init(_ a: End, _ b: End, mtu: Int = 1500) {
      self.a = a
      self.b = b
      self.mtu = mtu
    }
  }

  public struct Route: Sendable, Equatable {
    public var node: String
    /// "10.2.0.0/24", "default" or "::/0".
    public var prefix: String
    /// The next hop's address.
    public var via: String
    public init(_ node: String, _ prefix: String, via: String) {
      self.node = node
      self.prefix = prefix
      self.via = via
    }
  }

  public var nodes: [String]
  public var wires: [Wire]
  public var routes: [Route]
  /// Nodes that forward packets from one interface to another.
  public var routers: Set<String>

  public init(nodes: [String], wires: [Wire], routes: [Route] = [], routers: Set<String> = []) {
    self.nodes = nodes
    self.wires = wires
    self.routes = routes
    self.routers = routers
  }
}

extension Topology {
  /// Two machines and one wire, with documentation addresses (RFC 5737, RFC 3849):
  /// ```
  /// a ── 192.0.2.1, 2001:db8::1 ═══ wire ═══ 192.0.2.2, 2001:db8::2 ── b
  /// ```
  public static let direct = Topology(
    nodes: ["a", "b"],
    wires: [
      Wire(End("a", "wire", ["192.0.2.1/24", "2001:db8::1/64"]), End("b", "wire", ["192.0.2.2/24", "2001:db8::2/64"]))
    ])

  /// Two sites, each a host behind a gateway, and one wire between the gateways; hosts know only their gateway, and
  /// gateways only each other, so that what reaches the other site went through a tunnel:
  /// ```
  /// host-a ── 10.1.0.0/24 ── gateway-a ═══ 192.0.2.0/24 ═══ gateway-b ── 10.2.0.0/24 ── host-b
  ///     .2                .1           .1              .2           .1                .2
  /// ```
  public static let routed = Topology(
    nodes: ["host-a", "gateway-a", "gateway-b", "host-b"],
    wires: [
      Wire(
        End("host-a", "lan", ["10.1.0.2/24", "fd01::2/64"]), End("gateway-a", "lan", ["10.1.0.1/24", "fd01::1/64"])),
      Wire(
        End("gateway-a", "wire", ["192.0.2.1/24", "2001:db8::1/64"]),
        End("gateway-b", "wire", ["192.0.2.2/24", "2001:db8::2/64"])),
      Wire(
        End("gateway-b", "lan", ["10.2.0.1/24", "fd02::1/64"]), End("host-b", "lan", ["10.2.0.2/24", "fd02::2/64"])),
    ],
    routes: [
      Route("host-a", "default", via: "10.1.0.1"), Route("host-a", "::/0", via: "fd01::1"),
      Route("host-b", "default", via: "10.2.0.1"), Route("host-b", "::/0", via: "fd02::1"),
    ],
    routers: ["gateway-a", "gateway-b"])
}
