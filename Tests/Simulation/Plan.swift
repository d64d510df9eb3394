import PacketIO
import TestSupport

@testable import Dataplane

/// What a network is to be: how many gateways, and what each is told. Gateway 3 has the LANs 10.3.0.0/16 and
/// fd00:3::/32 behind it, a host .1 or ::1 in each, and at interface 1 the address 198.18.1.4.
struct Plan {
  var gateways = 2
  var interfaces = 1
  /// Of each gateway, in turn: a power of two.
  var workers = [1]
  /// Gateways whose device takes and gives joined packets; nil: every other one.
  var joins: Set<Int>?
  var aggregates = false
  var hasFirewall = false
  /// Each gateway gives its last peer everything that is nobody else's, and knows what is its own.
  var isWide = false
  /// Each generation of keys has another cipher, form of sequence numbers and window.
  var variesKeys = false
  /// Gateways whose addresses nobody is told: they are heard.
  var unlisted: Set<Int> = []
  /// Gateways that answer no probes. What they seal that is smaller than hosts' packets is lost, so these have 200 bytes or
  /// more.
  var silent: Set<Int> = []
  /// Places that have a translator in front of them.
  var translators: [Place: Translator.Kind] = [:]
  var translatorLifetime: UInt64 = 60_000_000_000
  /// Pairs of gateways that meet at a relay, and whether they know no other path to each other.
  var hairpins: [Hairpin] = []
  var meetsOnlyThere = true
  /// Gateways that have one LAN, 192.168.1.0/24, and negotiate about it.
  var alike: Set<Int> = []
  /// Bytes of the largest packet inside.
  var mtu = 1400
  /// Nanoseconds after which a path is asked again whether it takes more.
  var mtuRaiseInterval = PathMTU.raiseInterval
  /// Packets a second that the hosts behind each gateway send.
  var rate = 1000
  /// What they send, in bytes, and how often of a thousand times it is something that must not arrive.
  var sizes = [60, 60, 200, 600, 1300]
  var forbidden = 40
  var keepAliveInterval = Duration.seconds(20)

  /// What two gateways have a ticket for.
  struct Hairpin {
    var first: Int
    var second: Int
    /// Bits a second each way; 0: no limit.
    var bandwidth: UInt64 = 0
  }

  static let refusedPort: UInt16 = 9

  /// Hairpins have a transport of their own, behind the others; the relay is numbered behind the gateways.
  var hairpinTransport: UInt8 { UInt8(interfaces) }
  var relay: Int { gateways }

  func workers(_ gateway: Int) -> Int { workers[gateway % workers.count] }
  func joins(_ gateway: Int) -> Bool { joins?.contains(gateway) ?? (gateway % 2 == 1) }
  static func name(_ gateway: Int) -> String { "g\(gateway)" }

  /// Where a gateway is at first.
  static func address(_ place: Place, moves: Int = 0) -> Endpoint {
    let host = UInt32(place.gateway + 1 + 20 * moves)
    return Endpoint(address: IPAddress(v4: 0xC612_0000 | UInt32(place.interface) << 8 | host), port: 4500)
  }

  func translator(_ place: Place) -> Translator? {
    translators[place].map {
      let address = IPAddress(v4: 0xCB00_7000 | UInt32(place.interface) << 8 | UInt32(place.gateway + 1))
      return Translator(address: address, kind: $0, lifetime: translatorLifetime)
    }
  }

  // MARK: Inside

  static let commonLAN = Prefix("192.168.1.0/24")!

  func prefixes(_ gateway: Int) -> [Prefix] {
    alike.contains(gateway) ? [Plan.commonLAN] : [Prefix("10.\(gateway).0.0/16")!, Prefix("fd00:\(gateway)::/32")!]
  }

  /// What a peer of a gateway's has by its configuration.
  func prefixes(of peer: Int, at gateway: Int) -> [Prefix] {
    let last = gateways - 1 == gateway ? gateways - 2 : gateways - 1
    return prefixes(peer) + (isWide && peer == last ? [Prefix("0.0.0.0/0")!, Prefix("::/0")!] : [])
  }

  func host(_ gateway: Int, _ shape: Packet.Shape = .udp) -> IPAddress {
    if alike.contains(gateway) { return IPAddress(v4: 0xC0A8_0101) }
    if shape == .udp { return IPAddress(v4: 0x0A00_0001 | UInt32(gateway) << 16) }
    return IPAddress("fd00:\(gateway)::1")!
  }

  // MARK: Keys

  /// An association: of two gateways' keys, for the worker that seals; nil: the one that there always is.
  struct Tunnel: Hashable {
    var from: Int
    var to: Int
    var generation: Int
    var worker: Int?
  }

  func association(_ tunnel: Tunnel) throws -> SecurityAssociationConfiguration {
    let varies = variesKeys
    let generation = tunnel.generation
    let cipher: Cipher = varies && generation % 2 == 1 ? .chacha20Poly1305 : .aes128GCM
    let derived = StaticAssociations(
      secret: KeyMaterial([UInt8](repeating: UInt8(truncatingIfNeeded: generation), count: 32)),
      local: Plan.name(tunnel.from), remote: Plan.name(tunnel.to), cipher: cipher, worker: tunnel.worker)
    return SecurityAssociationConfiguration(
      spi: derived.outbound.spi, cipher: cipher, key: derived.outbound.key,
      extendedSequenceNumbers: !varies || generation % 3 != 2, implicitIV: varies && generation % 4 == 3,
      replayWindow: varies && generation % 2 == 1 ? 512 : 2048,
      // Some cross the boundary of 32 bits.
      firstSequence: varies && generation % 3 == 0 ? (1 << 32) - 40 : 1)
  }
}
