import Dataplane
import Foundation
import Glibc
import Host
import Identity
import PacketIO
import Settings
import Transports

/// Reads the settings of a gateway's file that belong to no peer.
struct GatewayFileReader {
  let top: SettingReader
  private let directory: String

  static let known = [
    "name", "listen", "listen-tcp", "listen-tls", "tls", "reach", "interface", "control", "state", "engine", "workers",
    "firewall", "sharing", "peers", "lan", "own", "intermediate-pool", "identity", "relays",
    "relay-tickets",
  ]

  init(_ root: Setting, path: String, problems: ProblemList) {
    top = SettingReader(root, line: root.line, place: "", known: GatewayFileReader.known, problems: problems)
    directory = PosixFile.directory(of: path)
  }

  /// The plan, as far as it can be read; what is wrong has been reported.
  func plan() -> GatewayPlan {
    let ownName = name()
    var plan = GatewayPlan(name: ownName ?? "NAME")
    plan.listen = listen("listen") ?? plan.listen
    plan.listenTCP = listen("listen-tcp")
    plan.listenTLS = listen("listen-tls", defaultPort: TLSTransport.standardPort)
    if let tls = TLSReader(top, directory: directory) {
      plan.tls.certificate = certificate(tls)
      plan.tls.webServer = tls.webServer()
    }
    checkPorts(plan)
    plan.interface = interface()
    plan.engine = engine()
    plan.workers = workers()
    plan.firewall = FirewallReader(top).configuration()
    plan.control = path("control") ?? plan.control
    plan.hasSiblings = !top.has("state")
    plan.state = path("state") ?? plan.state
    plan.namesIdentity = top.has("identity")
    plan.identity = identity()
    plan.lan = lan()
    plan.own = top.prefixes("own").map(\.value)
    plan.sharing = sharing(plan)
    plan.intermediatePool = intermediatePool()
    plan.relays = relays(of: plan)
    let tickets = RelayTicketReader(top, directory: directory).tickets()
    for place in plan.relays.indices { plan.relays[place].tickets = tickets }
    plan.peers = peers(of: plan, ownName: ownName)
    checkMTU(plan.interface, peers: plan.peers)
    checkControl(plan.control)
    return plan
  }

  private func identity() -> HostIdentity? {
    guard let file = path("identity") else { return nil }
    do throws(OperatorError) {
      return try IdentityFile.read(file)
    } catch {
      top.add("identity", error.problem, error.remedy)
      return nil
    }
  }

  /// Paths to identity relays, the best first.
  private func relays(of plan: GatewayPlan) -> [PlannedRelay] { RelayReader(top, plan: plan).relays() }

  private func name() -> String? {
    if !top.has("name") { top.reportMissing("name", "give the gateway a name, 'name: alpha'") }
    return top.value("name", "a name", GatewayFileReader.nameRemedy, GatewayFileReader.validName)?.value
  }

  /// Two listeners cannot have one port.
  private func checkPorts(_ plan: GatewayPlan) {
    guard let tcp = plan.listenTCP, let tls = plan.listenTLS, tcp.port == tls.port else { return }
    guard tcp.address == nil || tls.address == nil || tcp.address == tls.address else { return }
    top.add("listen-tls", "port \(tls.port) is that of 'listen-tcp'", "choose another port for one of them")
  }

  private func listen(_ name: String, defaultPort: UInt16 = GatewayPlan.defaultPort) -> GatewayPlan.Listen? {
    let remedy = "write a port, or an address with a port: 4500, 192.0.2.1:4500, \"[2001:db8::1]:4500\""
    let value = top.value(name, "a port or address", remedy) { text -> GatewayPlan.Listen? in
      if let port = UInt16(text) { return port == 0 ? nil : GatewayPlan.Listen(port: port, address: nil) }
      guard let endpoint = Endpoint(text, defaultPort: defaultPort) else { return nil }
      return GatewayPlan.Listen(port: endpoint.port, address: endpoint.address)
    }
    return value?.value
  }

  private func interface() -> InterfaceConfiguration {
    var interface = InterfaceConfiguration(source: .name("culvert0"))
    guard let group = top.group("interface", known: ["name", "addresses", "mtu", "routes"]) else { return interface }
    let nameRemedy = "use 1 to 15 letters, digits, '-', '_' or '.'"
    if let name = group.value("name", "a device name", nameRemedy, GatewayFileReader.validDeviceName) {
      interface.source = .name(name.value)
    }
    let addressRemedy = "write an address with its prefix length, 10.1.0.1/24 or \"fd00:1::1/64\""
    var seen: [IPAddress: Int] = [:]
    for element in group.list("addresses", "an address", addressRemedy, GatewayFileReader.interfaceAddress) {
      let address = element.value.address
      if let first = seen.updateValue(element.line, forKey: address) {
        group.add("addresses", "\(address) is given twice, first on line \(first)", "remove one", line: element.line)
      } else if !address.isUnicast {
        group.add("addresses", "\(address) is no host's address", addressRemedy, line: element.line)
      } else {
        interface.addresses.append(element.value)
      }
    }
    interface.mtu = group.number("mtu", in: 576...65535, "bytes") ?? interface.mtu
    interface.routes = group.prefixes("routes").map(\.value)
    return interface
  }

  private func engine() -> CipherEngine? {
    enum Choice: String, CaseIterable {
      case auto
      case multiBuffer = "multi-buffer"
      case openSSL = "openssl"
    }
    return top.choice("engine", Choice.allCases).flatMap { CipherEngine(rawValue: $0.rawValue) }
  }

  /// The threads that carry packets; 1 where the file does not say.
  private func workers() -> Int {
    let remedy = "write 1, 2, 4, 8, 16 or auto"
    return top.value("workers", "a number of workers", remedy, GatewayFileReader.workers)?.value ?? 1
  }

  /// "auto" leaves half of the processors to the kernel and to hosts: one worker on up to three, 8 at most.
  static func workers(_ text: String) -> Int? {
    guard text == "auto" else { return Int(text).flatMap { [1, 2, 4, 8, 16].contains($0) ? $0 : nil } }
    let half = ProcessInfo.processInfo.activeProcessorCount / 2
    return [8, 4, 2].first { $0 <= half } ?? 1
  }

  private func sharing(_ plan: GatewayPlan) -> SharingConfiguration? {
    let streams = [plan.listenTCP, plan.listenTLS].compactMap { $0?.port }
    return SharingReader(top, lan: plan.lan, ports: [.udp: [plan.listen.port], .tcp: streams])?.configuration(
      device: plan.interface)
  }

  /// A path, absolute or relative to the file.
  private func path(_ name: String) -> String? { top.path(name, in: directory) }

  /// Nil: one is made at the start.
  private func certificate(_ tls: TLSReader) -> TLSCertificate? {
    guard var files = tls.files() else { return nil }
    do throws(TLSCertificate.Problem) {
      return try TLSCertificate(chain: files.chain, key: KeyMaterial(taking: &files.key))
    } catch {
      tls.report(error.words(chain: files.chainPath, key: files.keyPath))
      return nil
    }
  }

  private func peers(of plan: GatewayPlan, ownName: String?) -> [PlannedPeer] {
    guard let entry = top.setting("peers") else { return [] }
    guard case .list(let list) = entry.setting.value else {
      if case .empty = entry.setting.value { return [] }
      top.add("peers", "\(entry.setting.kind) stands where a list should", "begin each peer with '- name: '")
      return []
    }
    let reach = top.choice("reach", Reach.allCases) ?? .auto
    var reader = PeerReader(
      of: plan, ownName: ownName, ownReach: reach, directory: directory, problems: top.problems)
    return list.enumerated().compactMap { reader.peer($0.element, number: $0.offset + 1) }
  }

  /// IPv6 asks more of a link than IPv4 does (RFC 8200 §5).
  private func checkMTU(_ interface: InterfaceConfiguration, peers: [PlannedPeer]) {
    guard interface.mtu < 1280 else { return }
    let families =
      interface.addresses.map(\.address.family) + interface.routes.map(\.address.family)
      + peers.flatMap { $0.configuration.prefixes.map(\.address.family) }
    guard families.contains(.v6), let group = top.setting("interface"),
      case .table(let entries) = group.setting.value
    else { return }
    let line = entries.first { $0.name == "mtu" }?.line ?? group.line
    top.problems.add(
      line, "interface: mtu: \(interface.mtu) is too small for IPv6", "write 1280 or more, or use IPv4 only")
  }

  /// `sockaddr_un` has room for 107 bytes and a zero.
  private func checkControl(_ path: String) {
    guard path.utf8.count > UnixSocket.longestPath else { return }
    top.add(
      "control", "the path is longer than \(UnixSocket.longestPath) bytes", "choose a shorter one")
  }

  // MARK: Texts

  static let nameRemedy = "use 1 to 63 letters, digits, '-', '_' or '.', beginning with a letter or digit"

  /// Names become parts of file names.
  static func validName(_ text: String) -> String? {
    guard (1...63).contains(text.utf8.count), isWord(text), text.first!.isLetter || text.first!.isNumber else {
      return nil
    }
    return text
  }

  static func validDeviceName(_ text: String) -> String? {
    (1...15).contains(text.utf8.count) && isWord(text) && text != "." && text != ".." ? text : nil
  }

  private static func isWord(_ text: String) -> Bool {
    text.utf8.allSatisfy { byte in
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."):
        true
      default: false
      }
    }
  }

  private static func interfaceAddress(_ text: String) -> InterfaceAddress? {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard let prefix = Prefix(text), prefix.length > 0, let address = IPAddress(String(parts[0])) else { return nil }
    return InterfaceAddress(address, prefixLength: prefix.length)
  }
}

extension SettingReader {
  /// Prefixes without bits behind their length, each once.
  func prefixes(_ name: String) -> [Located<Prefix>] {
    let remedy = "write an address and a length, 10.2.0.0/24 or \"fd00:2::/64\""
    var seen: [Prefix: Int] = [:]
    return list(name, "a prefix", remedy, { text in Prefix(text).map { (text, $0) } }).compactMap { element in
      let (text, prefix) = element.value
      let address = IPAddress(String(text.prefix { $0 != "/" }))
      guard address == prefix.address else {
        add(name, "\(text) has bits behind its length", "write \(prefix)", line: element.line)
        return nil
      }
      if let first = seen.updateValue(element.line, forKey: prefix) {
        add(name, "\(prefix) is given twice, first on line \(first)", "remove one", line: element.line)
        return nil
      }
      return Located(value: prefix, line: element.line)
    }
  }
}

extension IPAddress {
  /// Neither unspecified, nor multicast, nor broadcast.
  var isUnicast: Bool {
    if isV4 { return v4 >> 24 != 0 && v4 >> 28 != 0xE && v4 != 0xFFFF_FFFF }
    return (high, low) != (0, 0) && high >> 56 != 0xFF
  }
}
