import Identity
import Relay
import Settings
import Transports

/// Reads who may meet whom: `groups`, `pairs` and `deny`, in the relay's file or in one of their own.
struct RelayPolicyReader {
  static let known = ["groups", "pairs", "deny"]
  private static let terms = ["between", "groups", "bandwidth", "priority", "until", "windows"]
  private static let gidRemedy =
    "write what 'culvert identity FILE' prints, not the short form, in quotes: \"2001:22:…\""

  let reader: SettingReader

  /// The policy, as far as it can be read; what is wrong has been reported.
  func policy() -> RelayPolicy {
    var policy = RelayPolicy()
    readGroups(&policy)
    for element in elements("pairs", "begin each with '- between: [\"GID\", \"GID\"]'") { readRule(element, &policy) }
    policy.deny(
      elements("deny", "write '- \"GID\"' or '- between: [\"GID\", \"GID\"]'").compactMap { readDenial($0) })
    return policy
  }

  private func elements(_ name: String, _ remedy: String) -> [Setting] {
    guard let entry = reader.setting(name) else { return [] }
    switch entry.setting.value {
    case .empty: return []
    case .list(let list): return list
    case .scalar, .table:
      reader.add(name, "\(entry.setting.kind) stands where a list should", remedy)
      return []
    }
  }

  /// A gateway, or two of them.
  private func readDenial(_ element: Setting) -> RelayPolicy.Pair? {
    if case .scalar(let text) = element.value {
      guard let gateway = HostIdentityTag(text) else {
        reader.add("deny", "'\(shortened(text))' is not a GID", Self.gidRemedy, line: element.line)
        return nil
      }
      return RelayPolicy.Pair(gateway, gateway)
    }
    let denial = SettingReader(
      element, line: element.line, place: "deny", known: ["between"], problems: reader.problems)
    return readPair(denial)
  }

  private func readPair(_ rule: SettingReader) -> RelayPolicy.Pair? {
    guard rule.has("between") else {
      rule.reportMissing("between", "write 'between: [\"GID\", \"GID\"]'")
      return nil
    }
    let tags = rule.list("between", "a GID", Self.gidRemedy) { HostIdentityTag($0) }.map(\.value)
    guard tags.count == 2, tags[0] != tags[1] else {
      rule.add("between", tags.count == 2 ? "it is the same gateway twice" : "there are \(tags.count) GIDs", "name two")
      return nil
    }
    return RelayPolicy.Pair(tags[0], tags[1])
  }

  private func readGroups(_ policy: inout RelayPolicy) {
    guard let entry = reader.setting("groups") else { return }
    guard case .table(let groups) = entry.setting.value else {
      if case .empty = entry.setting.value { return }
      reader.add("groups", "\(entry.setting.kind) stands where groups should", "write 'NAME: [\"GID\", \"GID\"]' lines")
      return
    }
    let members = reader.group("groups", known: groups.map(\.name))
    for group in groups {
      let tags = members?.list(group.name, "a GID", Self.gidRemedy) { HostIdentityTag($0) } ?? []
      if isEmpty(group.setting) {
        reader.add("groups", "'\(group.name)' has no members", "name GIDs, or remove it", line: group.line)
      }
      if !policy.add(group: group.name, tags.map(\.value)) {
        reader.add(
          "groups", "'\(group.name)' is one too many, or there twice",
          "have \(RelayPolicy.mostGroups) at most, each once",
          line: group.line)
      }
    }
  }

  private func isEmpty(_ setting: Setting) -> Bool {
    switch setting.value {
    case .empty: true
    case .list(let list): list.isEmpty
    case .scalar, .table: false
    }
  }

  private func readRule(_ element: Setting, _ policy: inout RelayPolicy) {
    let rule = SettingReader(
      element, line: element.line, place: "pairs", known: Self.terms, problems: reader.problems)
    guard let terms = readTerms(rule) else { return }
    if rule.has("between") {
      if rule.has("groups") { rule.add("groups", "stands beside 'between'", "make it a rule of its own") }
      if let pair = readPair(rule) { policy.allow(pair.smaller, pair.greater, terms) }
    } else if rule.has("groups") {
      let names = rule.list("groups", "a group's name", "name one or two groups", { $0 }).map(\.value)
      guard (1...2).contains(names.count) else {
        return rule.add("groups", "there are \(names.count)", "name one or two: members of one may meet each other")
      }
      if !policy.allow(groups: names[0], names.count == 2 ? names[1] : names[0], terms) {
        rule.add("groups", "there is no such group, or there are too many rules", "name groups that stand in 'groups'")
      }
    } else {
      rule.reportMissing("between", "write 'between: [\"GID\", \"GID\"]', or 'groups: [NAME, NAME]'")
    }
  }

  private func readTerms(_ rule: SettingReader) -> RelayPolicy.Terms? {
    var terms = RelayPolicy.Terms()
    let bandwidth = rule.value("bandwidth", "a rate", "write bits a second, like 100M or 1G") { BitRate($0) }
    terms.bandwidth = bandwidth?.value.bitsPerSecond ?? 0
    terms.priority = rule.number("priority", in: 0...7, "a number").map { UInt8(clamping: $0) } ?? terms.priority
    let until = rule.value("until", "a time", "write seconds since 1970 UTC, as 'date -d … +%s' has them") { Int64($0) }
    terms.notAfter = until?.value ?? terms.notAfter
    terms.windows = rule.list("windows", "a time of day", "write it like 08:00-18:00, in UTC", Self.window).map(\.value)
    return terms
  }

  /// "08:00-18:00".
  private static func window(_ text: String) -> HairpinTicket.Window? {
    let ends = text.split(separator: "-", omittingEmptySubsequences: false).map { end -> UInt32? in
      let parts = end.split(separator: ":", omittingEmptySubsequences: false).map { UInt32($0) ?? 99 }
      guard parts.count == 2, parts[0] <= 24, parts[1] < 60, parts[0] * 60 + parts[1] <= 1440 else { return nil }
      return (parts[0] * 60 + parts[1]) * 60
    }
    guard ends.count == 2, let start = ends[0], let end = ends[1], start < 86_400, end > 0, start != end else {
      return nil
    }
    return HairpinTicket.Window(start: start, end: end)
  }
}
