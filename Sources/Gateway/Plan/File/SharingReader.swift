import Dataplane
import PacketIO
import Settings

/// Reads how a gateway's file shares the base network with its LAN.
struct SharingReader {
  private let group: SettingReader
  private let gatewayLAN: [Prefix]
  private let ownPorts: [SharingConfiguration.Service.Transport: [UInt16]]

  static let known = ["interface", "lan", "services", "filtering"]
  static let knownOfService = ["name", "protocol", "port", "to"]

  /// Nil where the file does not mention it.
  /// - Parameters:
  ///   - top: the file's own settings.
  ///   - lan: the gateway's, which is meant where nothing else is said.
  ///   - ports: on which the gateway itself is reached.
  init?(_ top: SettingReader, lan: [Prefix], ports: [SharingConfiguration.Service.Transport: [UInt16]]) {
    guard let group = top.group("sharing", known: SharingReader.known) else { return nil }
    self.group = group
    gatewayLAN = lan
    ownPorts = ports
  }

  /// - Parameter device: the tunnel's, which is no way to the base network.
  func configuration(device: InterfaceConfiguration) -> SharingConfiguration? {
    if !group.has("interface") {
      group.reportMissing("interface", "name the interface that leads to the base network: 'interface: eth0'")
    }
    let interfaces = interfaces(device)
    if group.isEmpty("interface") { group.add("interface", "there is none", "name one, or remove 'sharing'") }
    let problems = group.problems.problems.count
    let lan = lan()
    // Services are compared with prefixes only when all of those could be read.
    let isWhole = group.problems.problems.count == problems
    let services = services(isWhole ? lan : [])
    let filtering = group.choice("filtering", SharingConfiguration.Filtering.allCases) ?? .addressAndPort
    guard !interfaces.isEmpty, !lan.isEmpty else { return nil }
    return SharingConfiguration(
      interfaces: interfaces, lan: lan, services: services, filtering: filtering)
  }

  private func lan() -> [Prefix] {
    let remedy = "name the prefixes whose sources are translated: 'lan: [192.168.1.0/24]'"
    guard group.has("lan") else {
      if gatewayLAN.isEmpty { group.reportMissing("lan", remedy) }
      return gatewayLAN
    }
    if group.isEmpty("lan") { group.add("lan", "there is none", remedy) }
    let lan = group.prefixes("lan")
    for prefix in lan where prefix.value.length == 0 || !prefix.value.address.isUnicast {
      group.add("lan", "\(prefix.value) is no LAN's prefix", "write the LAN's own, 192.168.1.0/24", line: prefix.line)
    }
    return lan.map(\.value)
  }

  private func interfaces(_ device: InterfaceConfiguration) -> [String] {
    var seen: Set<String> = []
    return group.list(
      "interface", "a device name", "use 1 to 15 letters, digits, '-', '_' or '.'", GatewayFileReader.validDeviceName
    ).compactMap { element in
      if case .name(element.value) = device.source {
        group.add(
          "interface", "\(element.value) is the tunnel's own", "name the interface that leads to the base network",
          line: element.line)
        return nil
      }
      return seen.insert(element.value).inserted ? element.value : nil
    }
  }

  private func services(_ lan: [Prefix]) -> [SharingConfiguration.Service] {
    guard let entry = group.setting("services") else { return [] }
    guard case .list(let list) = entry.setting.value else {
      if case .empty = entry.setting.value { return [] }
      group.add("services", "\(entry.setting.kind) stands where a list should", "begin each service with '- name: '")
      return []
    }
    guard list.count <= SharingConfiguration.maximumServices else {
      group.add("services", "there are \(list.count)", "\(SharingConfiguration.maximumServices) is the limit")
      return []
    }
    var names: [String: Int] = [:]
    var ports: [String: Int] = [:]
    return list.enumerated().compactMap { place, setting in
      let reader = SettingReader(
        setting, line: setting.line, place: "sharing: service \(place + 1)", known: SharingReader.knownOfService,
        problems: group.problems)
      guard let service = service(reader, lan) else { return nil }
      if let first = names.updateValue(reader.line("name"), forKey: service.name) {
        reader.add("name", "'\(service.name)' is given twice, first on line \(first)", "choose another name")
      }
      let family = service.target.address.isV4 ? "IPv4" : "IPv6"
      let port = "\(service.transport.rawValue) port \(service.port)"
      if let first = ports.updateValue(reader.line("port"), forKey: "\(port) \(family)") {
        reader.add(
          "port", "\(port) is forwarded twice for \(family), first on line \(first)", "give each service its own port")
      }
      if ownPorts[service.transport]?.contains(service.port) ?? false {
        reader.add("port", "\(service.port) is where the gateway itself listens", "choose another port")
      }
      return service
    }
  }

  private func service(_ reader: SettingReader, _ lan: [Prefix]) -> SharingConfiguration.Service? {
    for (name, remedy) in [
      ("name", "give the service a name, 'name: web'"), ("port", "name the gateway's port, 'port: 8080'"),
      ("to", "name the host and its port, 'to: 192.168.1.10:80'"),
    ] where !reader.has(name) { reader.reportMissing(name, remedy) }
    let name = reader.value("name", "a name", GatewayFileReader.nameRemedy, GatewayFileReader.validName)?.value
    let transport =
      reader.has("protocol") ? reader.choice("protocol", SharingConfiguration.Service.Transport.allCases) : .tcp
    let port = reader.number("port", in: 1...65535, "a port")
    let remedy = "write an address with a port, 192.168.1.10:80 or \"[fd00:1::10]:80\""
    // No default: a forgotten port would send strangers somewhere unexpected.
    let target = reader.value("to", "an address with a port", remedy) { text in
      Endpoint(text, defaultPort: 0).flatMap { $0.port == 0 ? nil : $0 }
    }?.value
    guard let name, let transport, let port, let target else { return nil }
    if !lan.isEmpty, !lan.contains(where: { $0.contains(target.address) }) {
      reader.add(
        "to", "\(target.address) is in none of the prefixes under 'lan'", "add its prefix there, or correct it")
    }
    return SharingConfiguration.Service(
      name: name, transport: transport, port: UInt16(truncatingIfNeeded: port), target: target)
  }
}

extension SettingReader {
  /// Whether a setting is there and says nothing.
  fileprivate func isEmpty(_ name: String) -> Bool {
    switch setting(name)?.setting.value {
    case .empty: true
    case .list(let list): list.isEmpty
    default: false
    }
  }
}
