import PacketIO
import Testing

@testable import Dataplane

/// Who may send from which address: a peer with everything, one with parts of what is this side's, and this side.
@Suite struct SourceTests {
  /// "wide" has the Internet; "narrow" has a part of the LAN, the network of the device, and link-local addresses.
  private static func configuration(isClosed: Bool = true) -> Configuration {
    func association(_ spi: UInt32) -> SecurityAssociationConfiguration {
      SecurityAssociationConfiguration(
        spi: spi, cipher: .aes128GCM, key: KeyMaterial([UInt8](repeating: UInt8(spi & 255), count: 20)))
    }
    var wide = PeerConfiguration(
      name: "wide", prefixes: [Prefix("0.0.0.0/0")!, Prefix("::/0")!], path: .path(1), inbound: [association(0x1001)],
      outbound: association(0x1002))
    wide.translation.mode = .fixed
    var narrow = PeerConfiguration(
      name: "narrow",
      prefixes: ["10.1.7.0/24", "10.99.0.0/24", "fe80::/64", "fd00:1:7::/48"].map { Prefix($0)! }, path: .path(2),
      inbound: [association(0x1003)], outbound: association(0x1004))
    narrow.translation.mode = .fixed
    return Configuration(
      interface: InterfaceConfiguration(
        source: .name("own"),
        addresses: [
          InterfaceAddress(IPAddress("10.99.0.1")!, prefixLength: 24),
          InterfaceAddress(IPAddress("10.98.0.1")!, prefixLength: 24),
          InterfaceAddress(IPAddress("fd00:99::1")!, prefixLength: 64),
        ]), peers: [wide, narrow], localPrefixes: isClosed ? [Prefix("10.1.0.0/16")!, Prefix("fd00:1::/32")!] : [],
      ownPrefixes: [Prefix("192.0.2.1/32")!])
  }

  /// What no peer has, however wide its prefix: special addresses, link-local ones, and this gateway's own.
  private static let never = [
    "0.0.0.0", "0.1.2.3", "127.0.0.1", "127.9.9.9", "224.0.0.1", "239.1.2.3", "255.255.255.255", "169.254.1.1", "::",
    "::1", "::ffff:10.1.0.5", "ff02::1", "ff0e::5", "10.99.0.1", "10.98.0.1", "10.98.0.7", "fd00:99::1", "fd00:99::7",
    "192.0.2.1",
  ]
  private static let lan = ["10.1.0.5", "10.1.255.255", "fd00:1::5", "fd00:1:8::1"]
  private static let narrow = ["10.1.7.5", "10.99.0.7", "fd00:1:7::5"]
  private static let internet = ["203.0.113.9", "10.2.0.1", "192.0.2.2", "2001:db8::1", "240.0.0.1", "::2", "fec0::1"]

  private static func inbound(_ peer: Int, _ source: String, isClosed: Bool) -> [DropReason: Int] {
    let gateway = TestGateway(configuration(isClosed: isClosed))
    let sketch = PacketSketch(source, source.contains(":") ? "fd00:1::1" : "10.1.0.1", .other(50), payload: [1, 2])
    let association = configuration().peers[peer].inbound[0]
    let delivered = gateway.open([Train(SlowESP(association).seal(sketch, sequence: 1))])
    #expect(delivered.isEmpty == !gateway.drops.isEmpty)
    return gateway.drops
  }

  @Test(arguments: [false, true]) func peersSendFromWhatIsTheirs(isClosed: Bool) {
    let lan = Self.lan.map { ($0, isClosed) }
    let rows: [(peer: Int, sources: [(String, Bool)])] = [
      (0, lan + (Self.never + Self.narrow + ["fe80::7", "fe80:1::7"]).map { ($0, true) }),
      (0, Self.internet.map { ($0, false) }),
      (1, (Self.never + Self.lan + Self.internet + ["fe80:0:0:1::7"]).map { ($0, true) }),
      (1, (Self.narrow + ["fe80::7"]).map { ($0, false) }),
    ]
    for row in rows {
      for (source, isSpoofed) in row.sources {
        #expect(
          Self.inbound(row.peer, source, isClosed: isClosed) == (isSpoofed ? [.spoofedSource: 1] : [:]),
          "\(source) from \(Self.configuration().peers[row.peer].name)")
      }
    }
  }

  /// A train whose packets change their sources: the remembered one does not speak for the next.
  @Test func aTrainOfSeveralSources() {
    let gateway = TestGateway(Self.configuration())
    let esp = SlowESP(Self.configuration().peers[0].inbound[0])
    let sources = ["203.0.113.9", "10.1.0.5", "203.0.113.9", "10.1.0.5", "127.0.0.1", "203.0.113.9"]
    let datagrams = sources.enumerated().map { number, source in
      esp.seal(PacketSketch(source, "10.1.0.1", .other(50), payload: [1, 2]), sequence: UInt64(number + 1))
    }
    let delivered = gateway.open([Train(datagrams.flatMap(\.self), segmentSize: datagrams[0].count)])
    #expect(delivered.flatMap(\.packets).count == 3)
    #expect(gateway.drops == [.spoofedSource: 3])
  }

  /// Where this side's prefixes are known, it seals what comes from there or from another peer; where they are not,
  /// whatever a host can send.
  @Test(arguments: [false, true]) func thisSideSealsWhatIsItsOwn(isClosed: Bool) {
    let own = Self.lan + ["10.99.0.1", "10.98.0.7", "fd00:99::1", "192.0.2.1", "fe80::1"]
    let special = ["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1", "::ffff:1.2.3.4"]
    let rows: [(peer: Int, isForeign: Bool, sources: [String])] = [
      (0, false, own + Self.narrow), (0, true, special), (0, isClosed, Self.internet + ["169.254.1.1"]),
      // From one peer to another: a hub forwards.
      (1, false, own + Self.internet), (1, true, special), (1, isClosed, Self.narrow),
    ]
    for row in rows {
      for source in row.sources {
        let destinations = source.contains(":") ? ["2001:db8:9::9", "fd00:1:7::9"] : ["203.0.113.99", "10.1.7.9"]
        let sketch = PacketSketch(source, destinations[row.peer], .other(50), payload: [1, 2])
        let gateway = TestGateway(Self.configuration(isClosed: isClosed))
        let verdict = gateway.explain(sketch.bytes)
        #expect(gateway.seal(sketch.bytes).isEmpty == row.isForeign)
        #expect(gateway.drops == (row.isForeign ? [.foreignSource: 1] : [:]), "\(source) to \(destinations[row.peer])")
        if verdict.direction == .outbound { #expect(verdict.drop == (row.isForeign ? .foreignSource : nil)) }
      }
    }
  }

  /// What is this side's is not routed to a peer that covers it.
  @Test func ownDestinationsStayHere() {
    let gateway = TestGateway(Self.configuration())
    for destination in ["10.1.0.77", "10.99.0.1", "192.0.2.1", "fe80:1::1", "169.254.1.1"] {
      let source = destination.contains(":") ? "fd00:1::5" : "10.1.0.5"
      #expect(gateway.seal(PacketSketch(source, destination, .other(50)).bytes).isEmpty)
    }
    #expect(gateway.drops == [.noRoute: 5])
  }

  /// The addresses by which a peer knows this side's hosts are no more its own than theirs.
  @Test func translatedAddressesAreOwnToo() throws {
    var configuration = Self.configuration(isClosed: false)
    configuration.peers[0].translation.knownAs = [
      PrefixPair(real: Prefix("10.50.0.0/24")!, intermediate: Prefix("100.64.3.0/24")!)
    ]
    let gateway = TestGateway(configuration)
    let esp = SlowESP(configuration.peers[0].inbound[0])
    for (number, source) in ["10.50.0.1", "100.64.3.1", "100.64.4.1"].enumerated() {
      let sketch = PacketSketch(source, "100.64.3.9", .other(50))
      #expect(gateway.open([Train(esp.seal(sketch, sequence: UInt64(number + 1)))]).count == (number == 2 ? 1 : 0))
    }
    #expect(gateway.drops == [.spoofedSource: 2])
  }

  /// With no firewall, or one that lets everything of the tunnel pass, a peer could else set this host's routes.
  @Test(arguments: [FirewallConfiguration.Mode.off, .tunnelOnly]) func noRouterAdvertisementsFromPeers(
    mode: FirewallConfiguration.Mode
  ) {
    var configuration = Self.configuration()
    configuration.firewall.mode = mode
    let gateway = TestGateway(configuration)
    var advertisement = PacketSketch("fe80::7", "ff02::1", .other(58))
    advertisement.setICMP(134, code: 0, word: 0x4000_0708, rest: [UInt8](repeating: 0, count: 8))
    #expect(gateway.open([Train(SlowESP(configuration.peers[0].inbound[0]).seal(advertisement, sequence: 1))]).isEmpty)
    #expect(gateway.drops == [.spoofedSource: 1])
  }

  /// What is own comes and goes with a reload, and so does what follows for flows.
  @Test func ownPrefixesChangeAtAReload() {
    let gateway = TestGateway(Self.configuration())
    let esp = SlowESP(Self.configuration().peers[0].inbound[0])
    var sequence: UInt64 = 0
    func passes(_ source: String) -> Bool {
      sequence += 1
      return !gateway.open([Train(esp.seal(PacketSketch(source, "10.1.0.1", .other(50)), sequence: sequence))]).isEmpty
    }
    func seals(_ source: String) -> Bool {
      !gateway.seal(PacketSketch(source, "203.0.113.9", .other(50)).bytes).isEmpty
    }
    #expect(passes("10.97.0.1") && !seals("10.97.0.1") && !passes("10.98.0.7") && seals("10.98.0.7"))
    var other = Self.configuration()
    other.interface.addresses[1] = InterfaceAddress(IPAddress("10.97.0.1")!, prefixLength: 24)
    gateway.adopt(other)
    #expect(!passes("10.97.0.1") && seals("10.97.0.1") && passes("10.98.0.7") && !seals("10.98.0.7"))
    other.localPrefixes = []
    gateway.adopt(other)
    #expect(passes("10.1.0.5") && seals("10.98.0.7"))
  }
}
