import PacketIO
import Testing

@testable import Dataplane

/// A configuration is right as a whole or refused, with a line that names the place and a remedy.
@Suite struct ValidationTests {
  struct Fault: CustomTestStringConvertible, Sendable {
    let testDescription: String
    let subject: ConfigurationError.Subject
    let setting: String
    let change: @Sendable (inout Configuration) -> Void

    init(
      _ description: String, _ subject: ConfigurationError.Subject, _ setting: String,
      _ change: @escaping @Sendable (inout Configuration) -> Void
    ) {
      testDescription = description
      self.subject = subject
      self.setting = setting
      self.change = change
    }

    static func interface(
      _ what: String, _ setting: String, _ change: @escaping @Sendable (inout InterfaceConfiguration) -> Void
    )
      -> Fault
    {
      Fault(what, .interface, setting) { change(&$0.interface) }
    }

    /// In the second of three peers.
    static func peer(_ what: String, _ setting: String, _ change: @escaping @Sendable (inout PeerConfiguration) -> Void)
      -> Fault
    {
      Fault(what, .peer("peer-1"), setting) { change(&$0.peers[1]) }
    }

    static let all: [Fault] = [
      .interface("empty name", "name") { $0.source = .name("") },
      .interface("long name", "name") { $0.source = .name("abcdefghijklmnop") },
      .interface("name of 15 characters that are 16 bytes", "name") { $0.source = .name("abcdefghijklmnö") },
      .interface("name with a slash", "name") { $0.source = .name("a/b") },
      .interface("name with a space", "name") { $0.source = .name("a b") },
      .interface("name with a line break", "name") { $0.source = .name("a\n") },
      .interface("name with a zero", "name") { $0.source = .name("a\0b") },
      .interface("the name .", "name") { $0.source = .name(".") },
      .interface("the name ..", "name") { $0.source = .name("..") },
      .interface("MTU below 576", "mtu") { $0.mtu = 575 },
      .interface("MTU below 1280 with IPv6", "mtu") {
        $0.mtu = 1279
        $0.addresses = [InterfaceAddress(IPAddress("fd00::1")!, prefixLength: 64)]
      },
      .interface("MTU beyond a packet", "mtu") { $0.mtu = 65536 },
      .interface("prefix of no length", "addresses") {
        $0.addresses = [InterfaceAddress(IPAddress("10.0.0.1")!, prefixLength: 0)]
      },
      .interface("IPv4 prefix of 33", "addresses") {
        $0.addresses = [InterfaceAddress(IPAddress("10.0.0.1")!, prefixLength: 33)]
      },
      .interface("IPv6 prefix of 129", "addresses") {
        $0.addresses = [InterfaceAddress(IPAddress("fd00::1")!, prefixLength: 129)]
      },
      Fault("peer without a name", .peer(""), "name") { $0.peers[1].name = "" },
      Fault("two peers of one name", .peer("peer-0"), "name") { $0.peers[1].name = "peer-0" },
      Fault("name of two lines", .peer("a\nb"), "name") { $0.peers[1].name = "a\nb" },
      .peer("another's prefix", "prefixes") { $0.prefixes.append(Prefix(Star.address(0))!) },
      .peer("transport that is not there", "path") { $0.path?.transport = 1 },
      .peer("port 0", "path") { $0.path?.endpoint.port = 0 },
      .peer("negative keep-alive", "keepAliveInterval") { $0.keepAliveInterval = .milliseconds(-500) },
      .peer("keep-alive of more than a day", "keepAliveInterval") { $0.keepAliveInterval = .seconds(86_401) },
      .peer("endless keep-alive", "keepAliveInterval") { $0.keepAliveInterval = .seconds(Int64.max) },
      .peer("inbound SPI of another peer", "spi") { $0.inbound[0].spi = Star(peers: 1).inbound(0).spi },
      .peer("inbound SPI twice", "spi") { $0.inbound.append($0.inbound[0]) },
      .peer("reserved inbound SPI", "spi") { $0.inbound[0].spi = 255 },
      .peer("reserved outbound SPI", "spi") { $0.outbound?.spi = 0 },
      .peer("short key", "key") { $0.outbound?.key = KeyMaterial([1, 2, 3]) },
      .peer("key without its salt", "key") { $0.inbound[0].key = KeyMaterial([UInt8](repeating: 1, count: 16)) },
      .peer("key of another cipher", "key") { $0.inbound[0].cipher = .chacha20Poly1305 },
      .peer("key of another sender", "key") { $0.outbound = Star(peers: 1).outbound(0) },
      .peer("key of another sender with another cipher's flags", "key") {
        $0.outbound = Star(peers: 1).outbound(0)
        $0.outbound?.implicitIV = true
      },
      .peer("key that it also receives under", "key") { $0.outbound?.key = $0.inbound[0].key },
      Fault("key that another peer sends under", .peer("peer-0"), "key") {
        $0.peers[1].inbound[0].key = $0.peers[0].outbound!.key
      },
      .peer("ports of a protocol without", "access") {
        $0.access = [AccessEntry(hosts: Prefix("10.1.0.0/16")!, protocol: .icmp, ports: 1...2)]
      },
      .peer("endless access list", "access") {
        $0.access = Array(repeating: AccessEntry(hosts: Prefix("10.1.0.0/16")!), count: 2049)
      },
      Fault("no flows", .firewall, "flowCapacity") { $0.firewall.flowCapacity = 0 },
      Fault("too many flows", .firewall, "flowCapacity") { $0.firewall.flowCapacity = 8_388_609 },
      Fault("no pending flows", .firewall, "pendingCapacity") { $0.firewall.pendingCapacity = 0 },
      Fault("too many pending flows", .firewall, "pendingCapacity") { $0.firewall.pendingCapacity = 4_194_305 },
      Fault("short UDP timeout", .firewall, "timeouts.udp") { $0.firewall.timeouts.udp = 119 },
      Fault("short timeout of unanswered UDP", .firewall, "timeouts.udpUnanswered") {
        $0.firewall.timeouts.udpUnanswered = 119
      },
      Fault("short TCP timeout", .firewall, "timeouts.tcpEstablished") { $0.firewall.timeouts.tcpEstablished = 7439 },
      Fault("short transitory timeout", .firewall, "timeouts.tcpTransitory") {
        $0.firewall.timeouts.tcpTransitory = 239
      },
      Fault("short ICMP timeout", .firewall, "timeouts.icmpQuery") { $0.firewall.timeouts.icmpQuery = 59 },
      Fault("short other timeout", .firewall, "timeouts.other") { $0.firewall.timeouts.other = 119 },
      Fault("endless timeout", .firewall, "timeouts.udp") { $0.firewall.timeouts.udp = 2_592_001 },
      Fault("too many rules", .firewall, "rules") {
        $0.firewall.rules = (1...4097).map { FirewallRule(number: $0, action: .deny) }
      },
      Fault("rule 0", .rule(0), "number") { $0.firewall.rules = [FirewallRule(number: 0, action: .deny)] },
      Fault("two rules of one number", .rule(7), "number") {
        $0.firewall.rules = [FirewallRule(number: 7, action: .deny), FirewallRule(number: 7, action: .allow)]
      },
      Fault("rule of two families", .rule(7), "destination") {
        $0.firewall.rules = [
          FirewallRule(
            number: 7, source: Prefix("10.0.0.0/8")!, destination: Prefix("fd00::/8")!, action: .deny)
        ]
      },
      Fault("source ports of ICMP", .rule(7), "sourcePorts") {
        $0.firewall.rules = [FirewallRule(number: 7, protocol: .icmp, sourcePorts: 1...2, action: .deny)]
      },
      Fault("destination ports of GRE", .rule(7), "destinationPorts") {
        $0.firewall.rules = [FirewallRule(number: 7, protocol: .number(47), destinationPorts: 1...2, action: .deny)]
      },
      .peer("window below 64", "replayWindow") { $0.inbound[0].replayWindow = 0 },
      .peer("window beyond 8192", "replayWindow") { $0.inbound[0].replayWindow = 8256 },
      .peer("window between words", "replayWindow") { $0.inbound[0].replayWindow = 100 },
      .peer("first number 0", "firstSequence") { $0.outbound?.firstSequence = 0 },
      .peer("first number beyond 32 bits", "firstSequence") {
        $0.inbound[0].extendedSequenceNumbers = false
        $0.inbound[0].firstSequence = (1 << 32) + 1
      },
    ]
  }

  private let good = Star(peers: 3).configuration

  private func complaint(_ configuration: Configuration, running: Configuration? = nil) -> ConfigurationError? {
    do throws(ConfigurationError) {
      try configuration.validate(transports: 1, engine: .openSSL, running: running)
      return nil
    } catch {
      return error
    }
  }

  @Test(arguments: Fault.all)
  func isRefused(fault: Fault) throws {
    var configuration = good
    fault.change(&configuration)
    let error = try #require(complaint(configuration))
    #expect(error.subject == fault.subject)
    #expect(error.setting == fault.setting)
    // One line, with a problem and a remedy, that shows no key.
    #expect(!error.description.contains("\n"))
    #expect(!error.problem.isEmpty && !error.remedy.isEmpty)
    #expect(error.description.contains(error.setting) && error.description.contains(error.remedy))
  }

  @Test func whatIsJustWithinTheLimitsIsAccepted() {
    var configuration = good
    configuration.interface.source = .name("abcdefghijklmno")
    configuration.interface.mtu = 576
    configuration.interface.addresses = [InterfaceAddress(IPAddress("10.0.0.1")!, prefixLength: 32)]
    configuration.peers[0].prefixes += configuration.peers[0].prefixes
    // Inside another's prefix, a longer one may belong to somebody else.
    configuration.peers[1].prefixes = [Prefix("10.2.0.0/16")!, Prefix("0.0.0.0/0")!]
    configuration.peers[0].keepAliveInterval = .seconds(86_400)
    configuration.peers[1].keepAliveInterval = .zero
    configuration.peers[0].inbound[0].spi = 256
    configuration.peers[0].inbound[0].replayWindow = 64
    configuration.peers[1].inbound[0].replayWindow = 8192
    configuration.peers[0].outbound?.extendedSequenceNumbers = false
    configuration.peers[0].outbound?.firstSequence = 1 << 32
    configuration.peers[1].outbound?.firstSequence = UInt64.max
    configuration.peers[2].outbound = nil
    configuration.peers[2].inbound = []
    configuration.peers[2].path = nil
    configuration.peers[2].prefixes = []
    #expect(complaint(configuration) == nil)
    configuration.interface.mtu = 65535
    configuration.interface.addresses = []
    configuration.peers = []
    #expect(complaint(configuration) == nil)
    // A window that is accepted can be made.
    _ = Snapshot(configuration, sealing: .by(.openSSL), now: .seconds(1))
  }

  @Test func someThingsCannotChangeWhileItRuns() {
    var next = good
    next.interface.mtu = 1300
    next.interface.addresses = [InterfaceAddress(IPAddress("10.0.0.1")!, prefixLength: 24)]
    next.interface.routes = [Prefix("10.2.0.0/16")!]
    #expect(complaint(next, running: good) == nil)
    var other = good
    other.interface.source = .name("other")
    #expect(complaint(other, running: good)?.setting == "source")
    other = good
    other.interface.offloads = [.checksum]
    #expect(complaint(other, running: good)?.setting == "offloads")
    other = good
    other.firewall.flowCapacity += 1
    #expect(complaint(other, running: good)?.setting == "flowCapacity")
    other = good
    other.firewall.pendingCapacity += 1
    #expect(complaint(other, running: good)?.setting == "pendingCapacity")
    other = good
    other.firewall.mode = .on
    other.firewall.rules = [FirewallRule(number: 1, action: .allow)]
    other.peers[0].access = []
    #expect(complaint(other, running: good) == nil)
  }

  /// A chain of peers that hand a key on in one step, from the sender that had it to one that has none.
  @Test func aKeyMayChangeHandsAtOnce() {
    var configuration = good
    configuration.peers[0].outbound = nil
    configuration.peers[1].outbound = good.peers[0].outbound
    #expect(complaint(configuration, running: good) == nil)
  }
}
