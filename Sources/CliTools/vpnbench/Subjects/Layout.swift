import ArgumentParser
import Lab

/// What a scenario measures over.
enum Layout: String, CaseIterable, ExpressibleByArgument {
  /// Two machines that talk to each other: `Topology.direct`.
  case local
  /// Two hosts behind two gateways that forward: `Topology.routed`.
  case routed

  /// Beside the gateways' wire, there is a machine where both may meet.
  var topology: Topology {
    var topology: Topology = self == .local ? .direct : .routed
    topology.nodes.append(Layout.proxy)
    for (side, gateway) in gateways.enumerated() {
      topology.wires.append(
        Topology.Wire(
          .init(gateway, "proxy", ["\(Layout.proxyWires[side].gateway)/24"]),
          .init(Layout.proxy, "gateway\(side)", ["\(Layout.proxyWires[side].proxy)/24"])))
    }
    return topology
  }
  static let proxy = "proxy"
  /// Addresses at both ends of each gateway's wire to the proxy.
  static let proxyWires = [("198.51.100.1", "198.51.100.9"), ("203.0.113.1", "203.0.113.9")].map {
    (gateway: $0.0, proxy: $0.1)
  }
  /// Where the tunnel's ends run.
  var gateways: [String] { self == .local ? ["a", "b"] : ["gateway-a", "gateway-b"] }
  /// Who talks through it.
  var hosts: [String] { self == .local ? ["a", "b"] : ["host-a", "host-b"] }
}

/// The IP version of what goes through the tunnels. What goes between them is always IPv4.
enum Family: String, CaseIterable, ExpressibleByArgument {
  case four = "4"
  case six = "6"
}

/// The addresses that one subject has, different from those of all others: they stand side by side.
///
/// ```
/// local:   10.N.0.1 ═══ tunnel ═══ 10.N.0.2
/// routed:  10.N.1.2 ── 10.N.1.1, 10.N.0.1 ═══ tunnel ═══ 10.N.0.2, 10.N.2.1 ── 10.N.2.2
/// ```
/// With IPv6 it is fd00:N:0::1 instead of 10.N.0.1, and so on.
struct SubjectPlan {
  let layout: Layout
  let family: Family
  /// N, from 20 to 199.
  let number: Int
  /// Bytes of the largest packet inside.
  let mtu: Int

  /// - Parameter net: 0: the tunnel's own; 1 and 2: the LANs; 8 and 9: by what the ends are known, where translated.
  private func address(_ net: Int, _ host: Int) -> String {
    family == .four ? "10.\(number).\(net).\(host)" : "fd00:\(number):\(net)::\(host)"
  }

  /// Bits of an address.
  var addressLength: Int { family == .four ? 32 : 128 }
  private var netLength: Int { family == .four ? 24 : 64 }
  private var nodad: String { family == .four ? "" : " nodad" }

  /// The tunnel device's address at one end, without its length.
  /// - Parameter side: 0 or 1.
  func tunnelAddress(_ side: Int) -> String { address(0, side + 1) }

  /// The same with the length of the prefix that is on-link with it.
  func tunnelPrefix(_ side: Int) -> String { "\(address(0, side + 1))/\(netLength)" }

  /// All that lies behind one end.
  func prefix(_ side: Int) -> String {
    layout == .local ? "\(address(0, side + 1))/\(addressLength)" : lan(side)
  }

  /// The LAN behind one end, where there is one.
  func lan(_ side: Int) -> String { net(side + 1) }

  private func net(_ net: Int) -> String {
    family == .four ? "10.\(number).\(net).0/24" : "fd00:\(number):\(net)::/64"
  }

  /// The address of whom packets are sent to.
  var destination: String { layout == .local ? address(0, 2) : address(2, 2) }

  /// By which the other end knows what lies behind this one, where a subject translates: as large as that.
  func knownPrefix(_ side: Int) -> String {
    switch (layout, family) {
    case (.local, _): "\(address(8, side + 1))/\(addressLength)"
    case (.routed, .four): net(side + 8)
    // The same sum as the real prefix, so that hosts keep the rest of their addresses (RFC 6296 §3.1).
    case (.routed, .six): "fd00:\(side + 1):\(number)::/64"
    }
  }

  /// The destination as it is known then.
  var knownDestination: String {
    switch (layout, family) {
    case (.local, _): address(8, 2)
    case (.routed, .four): address(9, 2)
    case (.routed, .six): "fd00:2:\(number)::2"
    }
  }

  /// The end's address on the wire between the ends.
  static func wire(_ side: Int) -> String { "192.0.2.\(side + 1)" }

  /// Gives hosts and gateways their addresses on the LANs, and the hosts their routes; nothing where there are none.
  /// - Parameter isTranslated: the other LAN is known by another prefix.
  func addHosts(_ network: Network, isTranslated: Bool = false) throws {
    guard layout == .routed else { return }
    for side in 0...1 {
      let own = address(side + 1, 2)
      let gateway = address(side + 1, 1)
      try network[layout.gateways[side]].ip(["addr add \(gateway)/\(netLength) dev lan\(nodad)"])
      try network[layout.hosts[side]].ip([
        "addr add \(own)/\(netLength) dev lan\(nodad)",
        "route add \(isTranslated ? knownPrefix(1 - side) : lan(1 - side)) via \(gateway) src \(own) mtu \(mtu)",
      ])
    }
  }

  /// Sends what is for the other LAN into a tunnel's device, once that is up, where there is a LAN.
  /// - Parameter process: who makes the device.
  func addRoute(_ network: Network, _ side: Int, device: String, of process: ProcessHandle) throws {
    guard layout == .routed else { return }
    let namespace = network[layout.gateways[side]]
    try process.waitUntil("bringing \(device) up") { _ in
      (try? namespace.ip(["route add \(lan(1 - side)) dev \(device)"])) != nil
    }
  }

  /// Gives a tunnel's device its address, size and route, for programs that leave that to others.
  /// - Parameter process: who makes the device.
  func configure(_ network: Network, _ side: Int, device: String, of process: ProcessHandle) throws {
    let namespace = network[layout.gateways[side]]
    try process.waitUntil("making \(device)") { _ in
      (try? namespace.ip(["link set \(device) mtu \(mtu) up"])) != nil
    }
    try namespace.ip(["addr add \(tunnelPrefix(side)) dev \(device)\(nodad)"])
    try addRoute(network, side, device: device, of: process)
  }
}
