public import Dataplane
import Foundation
public import PacketIO
import Transports

/// A gateway's configuration file, read and checked, with the keys it names.
public struct GatewayFile: Sendable, Equatable {
  /// Where the gateway takes sealed packets.
  public struct Listen: Sendable, Equatable, CustomStringConvertible {
    public var port: UInt16
    /// Nil: all addresses, of both families.
    public var address: IPAddress?

    public var description: String {
      address.map { "\(Endpoint(address: $0, port: port))" } ?? "\(port)"
    }
  }

  /// A peer, with the files its keys came from.
  public struct Peer: Sendable, Equatable {
    public var configuration: PeerConfiguration
    public var sendKeyFile: String
    public var receiveKeyFile: String
    /// Tickets of its paths through hairpin proxies.
    var hairpins: [HairpinUse]
  }

  /// As it was given; problems are reported under it.
  public let path: String
  public let name: String
  public let listen: Listen
  /// Where it takes streams of sealed packets (RFC 9329); nil: nowhere, it only opens some.
  public let listenTCP: Listen?
  /// Whether peers can open paths to this gateway.
  public let reach: Reach
  /// As written; the peers' prefixes are not among its routes. See `configuration`.
  public let interface: InterfaceConfiguration
  /// Path of the Unix socket that answers `culvert show`.
  public let control: String
  /// Directory of the records of used sequence numbers.
  public let state: String
  /// False: `state` is the usual directory, and other gateways have theirs beside it.
  public let stateIsExplicit: Bool
  /// Nil: the fastest.
  public let engine: CipherEngine?
  /// Threads that carry packets.
  public let workers: Int
  /// On, with the default policy, where the file does not mention it.
  public let firewall: FirewallConfiguration
  /// Nil: the base network is not shared.
  public let sharing: SharingConfiguration?
  public let peers: [Peer]
  /// Prefixes of the network behind this gateway, which peers are told of.
  public let lan: [Prefix]
  /// Where prefixes come from that stand for those that clash.
  public let intermediatePool: [Prefix]

  public static let defaultPort: UInt16 = 4500
  /// Places in a gateway's list of transports.
  static let datagramTransport: UInt8 = 0
  static let streamTransport: UInt8 = 1
  static let hairpinTransport: UInt8 = 2
  public static let controlDirectory = "/run/culvert"
  public static let stateDirectory = "/var/lib/culvert"

  /// Reads the file, and the key files it names relative to it.
  /// - Throws: `FileProblems`.
  public init(contentsOf path: String) throws(FileProblems) {
    let bytes: [UInt8]
    do throws(SystemError) {
      let file = try Descriptor(open: path, O_RDONLY | O_NONBLOCK)
      guard file.status.isRegular else { throw SystemError(path, errno: EINVAL) }
      bytes = try file.readAll(limit: Setting.largestFile)
    } catch {
      throw FileProblems([
        FileProblem(file: path, problem: "cannot be read: \(error.reason)", remedy: "give the path of a gateway's file")
      ])
    }
    guard bytes.count <= Setting.largestFile, let text = String(validating: bytes, as: UTF8.self) else {
      throw FileProblems([
        FileProblem(file: path, problem: "is not a text file", remedy: "save it as UTF-8, below 16 MiB")
      ])
    }
    try self.init(text: text, path: path)
  }

  /// Reads the text of a file that stands, or would stand, at `path`.
  /// - Throws: `FileProblems`.
  public init(text: String, path: String) throws(FileProblems) {
    let root: Setting
    do {
      root = try Setting(parsing: text, file: path)
    } catch {
      throw FileProblems([error])
    }
    let problems = ProblemList(file: path)
    let reader = GatewayFileReader(root, path: path, problems: problems)
    let name = reader.name()
    listen = reader.listen()
    listenTCP = reader.listenTCP()
    reach = reader.reach()
    interface = reader.interface()
    engine = reader.engine()
    workers = reader.workers()
    firewall = reader.firewall()
    let place = name ?? "NAME"
    control = reader.path("control") ?? "\(GatewayFile.controlDirectory)/\(place).sock"
    stateIsExplicit = reader.has("state")
    state = reader.path("state") ?? "\(GatewayFile.stateDirectory)/\(place)"
    lan = reader.lan()
    sharing = reader.sharing(device: interface, lan: lan, listen: listen.port, listenTCP: listenTCP?.port)
    intermediatePool = reader.intermediatePool()
    peers = reader.peers(
      ownName: name, listen: listen, reach: reach, interface: interface, lan: lan, workers: workers)
    reader.checkMTU(interface, peers: peers)
    reader.checkControl(control)
    self.name = place
    self.path = path
    try problems.throwIfAny()
  }

  var hairpins: [HairpinUse] { peers.flatMap(\.hairpins) }

  /// What a gateway of this file would do with a packet inside the tunnel, before it has heard from its peers.
  /// - Throws: `ConfigurationError`.
  public func explain(_ packet: [UInt8]) throws -> Explanation {
    try Explanation(of: packet, under: configuration) { UDPTransport.overhead($0) }
  }

  /// What the dataplane is asked to do. Every prefix of a peer is routed into the device.
  public var configuration: Configuration {
    var interface = interface
    // The kernel makes these routes itself, with the addresses.
    var known = Set(interface.addresses.map { Prefix($0.address, length: $0.prefixLength) })
    interface.routes = (interface.routes + peers.flatMap(\.configuration.prefixes)).filter { known.insert($0).inserted }
    return Configuration(
      interface: interface, peers: peers.map(\.configuration), name: name, localPrefixes: lan,
      intermediatePool: intermediatePool, firewall: firewall)
  }

  /// What the kernel's packet filter is asked to do; nil: nothing.
  var sharingRuleset: SharingRuleset? {
    guard let sharing else { return nil }
    let own = interface.addresses.map { Prefix($0.address, length: $0.prefixLength) }
    return SharingRuleset(
      sharing, gateway: name, tunnel: own + interface.routes + peers.flatMap(\.configuration.prefixes),
      listen: listen.port, listenTCP: listenTCP?.port)
  }
}
