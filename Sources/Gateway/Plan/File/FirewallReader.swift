import Dataplane
import PacketIO
import Settings

/// Reads the firewall of a gateway's file, and the access lists of its peers.
struct FirewallReader {
  private let group: SettingReader?
  private let problems: ProblemList

  static let known = ["mode", "rules", "log-refusals", "flows", "pending-flows"]
  static let knownOfRule = [
    "number", "name", "enabled", "protocol", "direction", "source", "destination", "source-ports",
    "destination-ports", "action", "log",
  ]
  static let knownOfAccess = ["hosts", "direction", "protocol", "ports"]

  /// - Parameter top: the file's own settings.
  init(_ top: SettingReader) {
    group = top.group("firewall", known: FirewallReader.known)
    problems = top.problems
  }

  /// A gateway has its firewall on unless its file says otherwise.
  func configuration() -> FirewallConfiguration {
    var configuration = FirewallConfiguration(mode: .on)
    guard let group else { return configuration }
    configuration.mode = group.choice("mode", FirewallConfiguration.Mode.allCases) ?? .on
    configuration.logsRefusals = group.flag("log-refusals") ?? false
    configuration.flowCapacity = group.number("flows", in: 1...8_388_608, "flows") ?? configuration.flowCapacity
    configuration.pendingCapacity =
      group.number("pending-flows", in: 1...4_194_304, "flows") ?? configuration.pendingCapacity
    configuration.rules = rules(group)
    return configuration
  }

  // MARK: Rules

  private func rules(_ group: SettingReader) -> [FirewallRule] {
    let settings = FirewallReader.settings("rules", in: group, "begin each rule with '- number: '")
    if settings.count > FirewallConfiguration.maximumRules {
      group.add(
        "rules", "there are \(settings.count) rules",
        "\(FirewallConfiguration.maximumRules) is the limit; join some by prefix or port range")
      return []
    }
    var lines: [Int: Int] = [:]
    return settings.enumerated().compactMap { place, setting in
      let reader = SettingReader(
        setting, line: setting.line, place: "firewall: rule \(FirewallReader.number(of: setting) ?? place + 1)",
        known: FirewallReader.knownOfRule, problems: problems)
      return rule(reader, &lines)
    }
  }

  private static func number(of setting: Setting) -> Int? {
    guard case .table(let entries) = setting.value, let entry = entries.first(where: { $0.name == "number" }),
      case .scalar(let text) = entry.setting.value
    else { return nil }
    return Int(text)
  }

  private func rule(_ reader: SettingReader, _ lines: inout [Int: Int]) -> FirewallRule? {
    if !reader.has("number") { reader.reportMissing("number", "rules are judged by ascending number: 'number: 10'") }
    if !reader.has("action") { reader.reportMissing("action", "write allow or deny") }
    let number = reader.number("number", in: 1...1_000_000_000, "a number")
    if let number, let first = lines.updateValue(reader.line("number"), forKey: number) {
      reader.add("number", "\(number) is given twice, first on line \(first)", "give each rule a number of its own")
    }
    guard let number, let action = reader.choice("action", FirewallRule.Action.allCases) else { return nil }
    var rule = FirewallRule(number: number, action: action)
    rule.name = reader.value("name", "a name", "use up to 63 characters", FirewallReader.ruleName)?.value ?? ""
    rule.isEnabled = reader.flag("enabled") ?? true
    rule.logs = reader.flag("log") ?? false
    rule.direction = reader.choice("direction", FirewallRule.Direction.allCases) ?? .both
    rule.protocol = reader.firewallProtocol("protocol")
    rule.source = reader.anyOrPrefix("source")
    rule.destination = reader.anyOrPrefix("destination")
    rule.sourcePorts = reader.ports("source-ports", of: rule.protocol)
    rule.destinationPorts = reader.ports("destination-ports", of: rule.protocol)
    if let source = rule.source, let destination = rule.destination,
      source.address.family != destination.address.family
    {
      reader.add(
        "destination", "\(destination) is of another IP version than the source, \(source)",
        "make one rule for each version")
    }
    return rule
  }

  private static func ruleName(_ text: String) -> String? {
    text.count <= 63 && text.unicodeScalars.allSatisfy({ $0.properties.generalCategory != .control }) ? text : nil
  }

  // MARK: Access lists

  /// What a peer may reach and what may reach it; nil: everything.
  static func access(_ peer: SettingReader) -> [AccessEntry]? {
    guard peer.has("access") else { return nil }
    let example = "write '- 10.1.0.5', or '- { hosts: 10.1.0.5, direction: inbound, protocol: tcp, ports: 443 }'"
    let settings = settings("access", in: peer, example)
    if settings.count > FirewallConfiguration.maximumRules / 2 {
      peer.add(
        "access", "there are \(settings.count) entries",
        "\(FirewallConfiguration.maximumRules / 2) is the limit; join some by prefix")
      return []
    }
    return settings.compactMap { setting in
      if case .scalar(let text) = setting.value {
        guard let prefix = peer.prefix("access", text, line: setting.line) else { return nil }
        return AccessEntry(hosts: prefix)
      }
      let reader = SettingReader(
        setting, line: setting.line, place: "\(peer.place): access", known: knownOfAccess, problems: peer.problems)
      if !reader.has("hosts") { reader.reportMissing("hosts", "name addresses of this side: 'hosts: 10.1.0.0/28'") }
      let transport = reader.firewallProtocol("protocol")
      let ports = reader.ports("ports", of: transport)
      let direction = reader.choice("direction", FirewallRule.Direction.allCases) ?? .both
      guard let hosts = reader.anyOrPrefix("hosts", orAny: false) else { return nil }
      return AccessEntry(hosts: hosts, direction: direction, protocol: transport, ports: ports)
    }
  }

  /// The elements of a list; nothing else is one.
  private static func settings(_ name: String, in reader: SettingReader, _ remedy: String) -> [Setting] {
    guard let entry = reader.setting(name) else { return [] }
    switch entry.setting.value {
    case .list(let list): return list
    case .empty: return []
    case .scalar, .table:
      reader.add(name, "\(entry.setting.kind) stands where a list should", remedy)
      return []
    }
  }
}

extension SettingReader {
  fileprivate func firewallProtocol(_ name: String) -> FirewallProtocol {
    let words: [String: FirewallProtocol] = ["any": .any, "tcp": .tcp, "udp": .udp, "icmp": .icmp]
    let value = value(name, "a protocol", "write any, tcp, udp, icmp, or a number from 0 to 255") { text in
      words[text] ?? UInt8(text).map { .number($0) }
    }
    return value?.value ?? .any
  }

  /// One prefix; "any" reads as nil.
  fileprivate func anyOrPrefix(_ name: String, orAny: Bool = true) -> Prefix? {
    let remedy = "write an address, or an address and a length, 10.2.0.0/24\(orAny ? ", or any" : "")"
    guard let text = text(name, remedy), !orAny || text.value != "any" else { return nil }
    return prefix(name, text.value, line: text.line, remedy: remedy)
  }

  fileprivate func prefix(
    _ name: String, _ text: String, line: Int, remedy: String = "write an address and a length, 10.2.0.0/24"
  ) -> Prefix? {
    guard let prefix = Prefix(text), let address = IPAddress(String(text.prefix { $0 != "/" })) else {
      add(name, "'\(shortened(text))' is not a prefix", remedy, line: line)
      return nil
    }
    guard address == prefix.address else {
      add(name, "\(text) has bits behind its length", "write \(prefix)", line: line)
      return nil
    }
    return prefix
  }

  /// One port or a range of them; "any" reads as nil.
  fileprivate func ports(_ name: String, of transport: FirewallProtocol) -> ClosedRange<UInt16>? {
    let remedy = "write a port, a range of them, 8000-8100, or any"
    guard let text = text(name, remedy), text.value != "any" else { return nil }
    let parts = text.value.split(separator: "-", omittingEmptySubsequences: false)
    let ends = parts.compactMap { $0.utf8.allSatisfy { (48...57).contains($0) } ? UInt16($0) : nil }
    guard parts.count <= 2, ends.count == parts.count, let first = ends.first, let last = ends.last, first <= last
    else {
      add(name, "'\(shortened(text.value))' is not a range of ports", remedy)
      return nil
    }
    switch transport {
    case .any, .tcp, .udp, .number(6), .number(17): break
    case .icmp, .number:
      add(name, "the protocol has no ports", "remove them, or choose tcp or udp")
      return nil
    }
    return first...last
  }
}
