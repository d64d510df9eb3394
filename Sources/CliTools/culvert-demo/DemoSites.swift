import Dataplane
import Gateway
import Glibc
import Lab

/// The two sites of the demonstration: networks, configuration files, and the two gateway processes.
final class DemoSites {
  /// Traffic from a host to an address behind the other gateway.
  struct Trip {
    var from: String
    var to: String
    /// Of `to`.
    var address: String
  }

  static let trips = [
    Trip(from: "host-a", to: "host-b", address: "10.2.0.2"), Trip(from: "host-b", to: "host-a", address: "10.1.0.2"),
  ]
  static let tripsV6 = [
    Trip(from: "host-a", to: "host-b", address: "fd02::2"), Trip(from: "host-b", to: "host-a", address: "fd01::2"),
  ]

  static let diagram = """
       ┌─ site alpha ───────────────────────┐                ┌─ site beta ────────────────────────┐
       │  host-a                 gateway-a  │                │  gateway-b                 host-b  │
       │ ┌──────────┐  lan  ┌────────────┐  │   the wire     │  ┌────────────┐  lan  ┌──────────┐ │
       │ │ 10.1.0.2 ├───────┤  culvert0  ╞══╪════════════════╪══╡  culvert0  ├───────┤ 10.2.0.2 │ │
       │ │ fd01::2  │       │ 192.0.2.1  │  │ ESP in UDP/IP  │  │ 192.0.2.2  │       │ fd02::2  │ │
       │ └──────────┘       └────────────┘  │                │  └────────────┘       └──────────┘ │
       │  10.1.0.0/24, fd01::/64            │                │            10.2.0.0/24, fd02::/64  │
       └────────────────────────────────────┘                └────────────────────────────────────┘
    """

  let network: Network
  private let directory: TemporaryDirectory
  private let cipher: Cipher
  private var gateways: [ProcessHandle] = []

  init(cipher: Cipher) throws {
    self.cipher = cipher
    directory = try TemporaryDirectory()
    network = try Network(.routed)
  }

  /// Starts both gateways and waits until they have agreed upon keys.
  func start() throws {
    guard Tool.exists(DemoSites.culvert) else {
      throw LabError("there is no \(DemoSites.culvert); build it with 'swift build --product culvert'")
    }
    let gids = try DemoSites.names.map { try IdentityFile.create(.p256, at: "\(directory.path)/\($0).key").tag }
    for side in 0...1 {
      let file = try directory.write(
        "\(DemoSites.names[side]).yaml", configuration(side, partner: "\(gids[1 - side])"))
      gateways.append(
        try ProcessHandle(DemoSites.culvert, ["gateway", "--config", file], in: network[DemoSites.nodes[side]]))
    }
    for side in 0...1 {
      try gateways[side].waitUntil("gateway \(DemoSites.names[side]) has keys") { _ in
        (try? report(side))?.peers.allSatisfy { $0.keys?.state == .established } ?? false
      }
    }
  }

  /// What a gateway says of itself.
  func report(_ side: Int) throws -> GatewayReport { try ControlClient(path: control(side)).report() }

  /// Ends both gateways in good order.
  func stop() throws {
    for (side, gateway) in gateways.enumerated() {
      let status = gateway.terminate()
      guard status == .exited(0) else {
        throw LabError("gateway \(DemoSites.names[side]) ended badly (\(status)): \(gateway.lastLine ?? "")")
      }
    }
    gateways = []
  }

  func remove() {
    for gateway in gateways { gateway.terminate() }
    gateways = []
    network.remove()
    directory.remove()
  }

  /// Beside this program.
  private static let culvert: String = {
    let own = Tool.thisProgram
    return String(own[..<(own.lastIndex(of: "/") ?? own.startIndex)]) + "/culvert"
  }()
  private static let names = ["alpha", "beta"]
  private static let nodes = ["gateway-a", "gateway-b"]
  private func control(_ side: Int) -> String { "\(directory.path)/\(DemoSites.names[side]).sock" }

  private func configuration(_ side: Int, partner: String) -> String {
    let (own, far) = (side + 1, 2 - side)
    return """
      name: \(DemoSites.names[side])
      identity: \(DemoSites.names[side]).key
      listen: 4500
      interface:
        name: culvert0
        addresses: [10.\(own).0.254/32, "fd0\(own)::fe/128"]
        mtu: 1400
      control: \(control(side))
      state: \(directory.path)/state-\(DemoSites.names[side])
      firewall:
        rules:
          - {number: 10, name: partners may connect, protocol: tcp, direction: inbound, action: allow}
      peers:
        - name: \(DemoSites.names[1 - side])
          address: 192.0.2.\(far):4500
          prefixes: [10.\(far).0.0/24, "fd0\(far)::/64"]
          cipher: \(cipher.rawValue)
          gid: "\(partner)"

      """
  }

  /// How to look around, for as long as the sites stand.
  var invitation: String {
    """
    The sites stand until you press Ctrl-C. In another terminal, as root:
      ip netns exec \(network["host-a"].name) ping 10.2.0.2
      ip netns exec \(network["gateway-a"].name) ip route
      ip netns exec \(network["gateway-a"].name) tcpdump -ni wire
      \(DemoSites.culvert) show --control \(control(0))
      cat \(directory.path)/alpha.yaml
    """
  }
}
