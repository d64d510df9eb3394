import Dataplane
import Foundation
import Glibc
import PacketIO

/// Reads the settings of a gateway's file that belong to no peer.
struct GatewayFileReader {
  let top: SettingReader
  private let directory: String

  static let known = [
    "name", "listen", "listen-tcp", "reach", "interface", "control", "state", "engine", "workers", "firewall",
    "sharing", "peers", "lan", "intermediate-pool",
  ]

  init(_ root: Setting, path: String, problems: ProblemList) {
    top = SettingReader(root, line: root.line, place: "", known: GatewayFileReader.known, problems: problems)
    directory = PosixFile.directory(of: path)
  }

  func has(_ name: String) -> Bool { top.has(name) }

  func name() -> String? {
    if !top.has("name") { top.reportMissing("name", "give the gateway a name, 'name: alpha'") }
    return top.value("name", "a name", GatewayFileReader.nameRemedy, GatewayFileReader.validName)?.value
  }

  func listen() -> GatewayFile.Listen {
    listen("listen") ?? GatewayFile.Listen(port: GatewayFile.defaultPort, address: nil)
  }

  func reach() -> Reach { top.choice("reach", Reach.allCases) ?? .auto }

  func listenTCP() -> GatewayFile.Listen? { listen("listen-tcp") }

  private func listen(_ name: String) -> GatewayFile.Listen? {
    let remedy = "write a port, or an address with a port: 4500, 192.0.2.1:4500, \"[2001:db8::1]:4500\""
    let value = top.value(name, "a port or address", remedy) { text -> GatewayFile.Listen? in
      if let port = UInt16(text) { return port == 0 ? nil : GatewayFile.Listen(port: port, address: nil) }
      guard let endpoint = Endpoint(text, defaultPort: GatewayFile.defaultPort) else { return nil }
      return GatewayFile.Listen(port: endpoint.port, address: endpoint.address)
    }
    return value?.value
  }

  func interface() -> InterfaceConfiguration {
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

  func engine() -> CipherEngine? {
    enum Choice: String, CaseIterable {
      case auto
      case multiBuffer = "multi-buffer"
      case openSSL = "openssl"
    }
    return top.choice("engine", Choice.allCases).flatMap { CipherEngine(rawValue: $0.rawValue) }
  }

  /// The threads that carry packets; 1 where the file does not say.
  func workers() -> Int {
    let remedy = "write 1, 2, 4, 8, 16 or auto"
    return top.value("workers", "a number of workers", remedy, GatewayFileReader.workers)?.value ?? 1
  }

  /// "auto" leaves half of the processors to the kernel and to hosts: one worker on up to three, 8 at most.
  static func workers(_ text: String) -> Int? {
    guard text == "auto" else { return Int(text).flatMap { [1, 2, 4, 8, 16].contains($0) ? $0 : nil } }
    let half = ProcessInfo.processInfo.activeProcessorCount / 2
    return [8, 4, 2].first { $0 <= half } ?? 1
  }

  func firewall() -> FirewallConfiguration { FirewallReader(top).configuration() }

  func sharing(
    device: InterfaceConfiguration, lan: [Prefix], listen: UInt16, listenTCP: UInt16?
  ) -> SharingConfiguration? {
    var ports: [SharingConfiguration.Service.Transport: UInt16] = [.udp: listen]
    ports[.tcp] = listenTCP
    return SharingReader(top, lan: lan, ports: ports)?.configuration(device: device)
  }

  /// A path, absolute or relative to the file.
  func path(_ name: String) -> String? {
    top.text(name, "write a path").map { GatewayFileReader.resolve($0.value, in: directory) }
  }

  func peers(
    ownName: String?, listen: GatewayFile.Listen, reach: Reach, interface: InterfaceConfiguration, lan: [Prefix],
    workers: Int
  ) -> [GatewayFile.Peer] {
    guard let entry = top.setting("peers") else { return [] }
    guard case .list(let list) = entry.setting.value else {
      if case .empty = entry.setting.value { return [] }
      top.add("peers", "\(entry.setting.kind) stands where a list should", "begin each peer with '- name: '")
      return []
    }
    var reader = PeerReader(
      ownName: ownName, listen: listen, ownReach: reach, ownAddresses: Set(interface.addresses.map(\.address)),
      lan: lan, workers: workers, directory: directory, problems: top.problems)
    return list.enumerated().compactMap { reader.peer($0.element, number: $0.offset + 1) }
  }

  /// IPv6 asks more of a link than IPv4 does (RFC 8200 §5).
  func checkMTU(_ interface: InterfaceConfiguration, peers: [GatewayFile.Peer]) {
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
  func checkControl(_ path: String) {
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

  static func resolve(_ path: String, in directory: String) -> String {
    path.hasPrefix("/") || directory == "." ? path : "\(directory == "/" ? "" : directory)/\(path)"
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
