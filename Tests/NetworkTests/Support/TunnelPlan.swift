import Dataplane
import Lab
import PacketIO
import TestSupport
import Transports

/// One of two gateways.
enum Side: String, CaseIterable, Sendable {
  case a, b

  var other: Side { self == .a ? .b : .a }
  /// Its address inside the tunnel.
  var inner4: String { self == .a ? "10.77.0.1" : "10.77.0.2" }
  var inner6: String { self == .a ? "fd77::1" : "fd77::2" }
  /// Its address outside, as `Topology.direct` has it.
  var outer4: String { self == .a ? "192.0.2.1" : "192.0.2.2" }
  var outer6: String { self == .a ? "2001:db8::1" : "2001:db8::2" }
  /// The SPI it sends under.
  var spi: UInt32 { self == .a ? 0x1001 : 0x2002 }
}

/// What two gateways of a test shall be; both ends follow from it.
struct TunnelPlan: Sendable {
  var topology = Topology.direct
  /// The nodes that are gateways.
  var nodes: [Side: String] = [.a: "a", .b: "b"]
  /// Where each is reached by the other; nil: the other waits until it hears from it.
  var paths: [Side: PacketIO.Endpoint?] = [.a: TunnelPlan.path(Side.a.outer4), .b: TunnelPlan.path(Side.b.outer4)]
  /// All paths by which each is reached, the best first, in place of `paths`.
  var lists: [Side: [ConfiguredPath]] = [:]
  /// Whether the paths are streams.
  var usesTCP = false
  var streamLimits = TCPTransport.Limits()
  /// Whether those are encrypted, and what the side that listens shows and does.
  var tls: TLSPlan?
  /// A folder of Unix sockets that are the path instead; nil: none.
  var unixTransports: String?
  /// Buffers that a transport which is added later lends to the kernel.
  var addedBuffers = 0
  var cipher = Cipher.aes128GCM
  var extended = true
  var implicitIV = false
  var copiesDSCP = false
  /// The sides that let small packets share ESP packets.
  var aggregates: Set<Side> = []
  var replayWindow = 2048
  /// What each side's own numbers begin with.
  var firstSequences: [Side: UInt64] = [:]
  var keyAge: UInt64 = 0
  /// The gateways have no keys until they have agreed upon some.
  var agreesUponKeys = false
  var mtu = 1400
  /// Whether the gateways measure what the path takes, with probes of their own.
  var measuresPath = true
  var raiseInterval = Duration.seconds(600)
  var keepAlive = Duration.zero
  var engine: CipherEngine?
  var offloads = TunOffloads.all
  var features = RingFeatures.all
  /// One where nothing is said.
  var workers: [Side: Int] = [:]
  /// Off where nothing is said.
  var firewalls: [Side: FirewallConfiguration] = [:]
  /// Inner prefixes of each side, beside its own addresses.
  var networks: [Side: [String]] = [:]

  static func path(_ address: String, port: UInt16 = 4500) -> PacketIO.Endpoint? {
    PacketIO.Endpoint(address.contains(":") ? "[\(address)]" : address, defaultPort: port)
  }

  /// The same over IPv6 outside.
  static var overIPv6: TunnelPlan {
    var plan = TunnelPlan()
    plan.paths = [.a: path(Side.a.outer6), .b: path(Side.b.outer6)]
    return plan
  }

  /// One stream, which `a` opens, over IPv4 or IPv6 outside.
  static func overTCP(isV4: Bool = true) -> TunnelPlan {
    var plan = TunnelPlan()
    plan.paths = [.b: path(isV4 ? Side.b.outer4 : Side.b.outer6)]
    plan.usesTCP = true
    return plan
  }

  /// The same inside TLS, on the port of HTTPS.
  static func overTLS(isV4: Bool = true, _ tls: TLSPlan = TLSPlan()) -> TunnelPlan {
    var plan = TunnelPlan()
    plan.paths = [.b: path(isV4 ? Side.b.outer4 : Side.b.outer6, port: 443)]
    plan.usesTCP = true
    plan.tls = tls
    return plan
  }

  /// The transports of a gateway, in the order in which paths name them.
  func transports(of side: Side) -> [any Transport] {
    if let unixTransports {
      return [
        UnixTransport(own: "\(unixTransports)/\(side.rawValue)", other: "\(unixTransports)/\(side.other.rawValue)")
      ]
    }
    if let tls { return [UDPTransport(), tls.transport(of: side)] }
    if usesTCP || !lists.isEmpty { return [UDPTransport(), TCPTransport(limits: streamLimits)] }
    return [measuresPath ? UDPTransport() : UnmeasuredTransport()]
  }

  /// Reproducible, and different for each side, cipher and `keyAge`.
  func keyBytes(_ side: Side) -> [UInt8] {
    var random = SplitMix64(seed: UInt64(side.spi) << 32 | keyAge << 8 | UInt64(cipher.rawValue.utf8.count))
    return (0..<cipher.keyMaterialLength).map { _ in UInt8(truncatingIfNeeded: random.next()) }
  }

  /// The SPI under which `side` sends.
  func spi(_ side: Side) -> UInt32 { side.spi + UInt32(keyAge) << 16 }

  /// What `side` sends under.
  func association(from side: Side) -> SecurityAssociationConfiguration {
    SecurityAssociationConfiguration(
      spi: spi(side), cipher: cipher, key: KeyMaterial(keyBytes(side)), extendedSequenceNumbers: extended,
      implicitIV: implicitIV, copiesDSCP: copiesDSCP, replayWindow: replayWindow,
      firstSequence: firstSequences[side] ?? 1)
  }

  /// What the workers of `side` send under, where it has several.
  func workerAssociations(from side: Side) -> [SecurityAssociationConfiguration] {
    let count = workers[side] ?? 1
    guard count > 1 else { return [] }
    return (0..<count).compactMap { worker in
      let secret = KeyMaterial([UInt8](repeating: UInt8(truncatingIfNeeded: keyAge), count: 32))
      let derived = StaticAssociations(
        secret: secret, local: side.rawValue, remote: side.other.rawValue, cipher: cipher, worker: worker)
      var association = association(from: side)
      (association.spi, association.key) = (derived.outbound.spi, derived.outbound.key)
      return association
    }
  }

  private func prefixes(_ side: Side) -> [Prefix] {
    ["\(side.inner4)/32", "\(side.inner6)/128"].compactMap { Prefix($0) }
      + (networks[side] ?? []).compactMap { Prefix($0) }
  }

  func peer(_ side: Side) -> PeerConfiguration {
    PeerConfiguration(
      name: side.rawValue, prefixes: prefixes(side),
      paths: lists[side]
        ?? (paths[side] ?? nil).map { [ConfiguredPath(path: Path(transport: usesTCP ? 1 : 0, endpoint: $0))] } ?? [],
      inbound: agreesUponKeys ? [] : [association(from: side)] + workerAssociations(from: side),
      outbound: agreesUponKeys ? nil : association(from: side.other),
      workerOutbound: agreesUponKeys ? [] : workerAssociations(from: side.other), keepAliveInterval: keepAlive,
      negotiatesKeys: agreesUponKeys)
  }

  func configuration(of side: Side) -> Configuration {
    let addresses = [
      IPAddress(side.inner4).map { InterfaceAddress($0, prefixLength: 32) },
      IPAddress(side.inner6).map { InterfaceAddress($0, prefixLength: 128) },
    ]
    var partner = peer(side.other)
    partner.aggregates = aggregates.contains(side)
    return Configuration(
      interface: InterfaceConfiguration(
        source: .name(TunnelPlan.device), addresses: addresses.compactMap { $0 }, routes: prefixes(side.other),
        mtu: mtu,
        offloads: offloads),
      peers: [partner], firewall: firewalls[side] ?? FirewallConfiguration())
  }

  static let device = "culvert0"
}
