import Dataplane
import PacketIO
import Settings

/// Reads what a gateway's file says of prefixes that both sides of a tunnel have.
struct TranslationReader {
  private let lan: [Prefix]
  private let problems: ProblemList
  /// Intermediate prefixes of earlier peers' networks: here, each stands for one of them.
  private var taken: [(prefix: Prefix, peer: String, line: Int)] = []

  static let known = ["mode", "known-as", "theirs", "dns-port"]
  private static let remedy = "write {192.168.1.0/24: 100.112.7.0/24}, a real prefix and the one that stands for it"

  init(lan: [Prefix], problems: ProblemList) {
    self.lan = lan
    self.problems = problems
  }

  /// - Parameters:
  ///   - peer: the reader of the peer's settings, `name` the peer's name.
  ///   - prefixes: the peer's.
  mutating func translation(_ peer: SettingReader, name: String, prefixes: [Prefix]) -> TranslationConfiguration {
    var translation = TranslationConfiguration()
    guard let entry = peer.setting("translation") else { return translation }
    if case .scalar = entry.setting.value {
      translation.mode = peer.choice("translation", TranslationConfiguration.Mode.allCases) ?? .automatic
      return translation
    }
    guard let group = peer.group("translation", known: TranslationReader.known) else { return translation }
    translation.mode = group.choice("mode", TranslationConfiguration.Mode.allCases) ?? .automatic
    let port = group.number("dns-port", in: 0...65535, "a UDP port, or 0 to leave DNS alone,") ?? 53
    translation.dnsPort = UInt16(truncatingIfNeeded: port)
    let knownAs = pairs(group, "known-as")
    let theirs = pairs(group, "theirs")
    for pair in knownAs where translation.mode == .automatic && !lan.contains(pair.value.real) {
      group.add(
        "known-as", "\(pair.value.real) is not in this gateway's 'lan'", "add it there, or write 'mode: fixed'",
        line: pair.line)
    }
    for pair in theirs where !prefixes.contains(where: { $0.covers(pair.value.real) }) {
      group.add(
        "theirs", "\(pair.value.real) is not among the peer's prefixes", "add it to 'prefixes'", line: pair.line)
    }
    checkIntermediates(group, knownAs: knownAs, theirs: theirs, peer: name)
    translation.knownAs = knownAs.map(\.value)
    translation.theirs = theirs.map(\.value)
    return translation
  }

  private mutating func checkIntermediates(
    _ group: SettingReader, knownAs: [Located<PrefixPair>], theirs: [Located<PrefixPair>], peer: String
  ) {
    var own: [Located<PrefixPair>] = []
    for (setting, pairs) in [("known-as", knownAs), ("theirs", theirs)] {
      for pair in pairs {
        let prefix = pair.value.intermediate
        func clash(_ with: String) {
          group.add(setting, "\(prefix) overlaps \(with)", "choose a prefix that is free", line: pair.line)
        }
        if let other = lan.first(where: prefix.overlaps) {
          clash("\(other) of this gateway's 'lan'")
        } else if let other = own.first(where: { $0.value.intermediate.overlaps(prefix) }) {
          clash("\(other.value.intermediate) on line \(other.line)")
        } else if setting == "theirs", let other = taken.first(where: { $0.prefix.overlaps(prefix) }) {
          clash("\(other.prefix) of peer \(other.peer), on line \(other.line)")
        }
        own.append(pair)
      }
    }
    for pair in theirs { taken.append((pair.value.intermediate, peer, pair.line)) }
  }

  /// A table from prefix to prefix of the same length.
  private func pairs(_ group: SettingReader, _ name: String) -> [Located<PrefixPair>] {
    guard let entry = group.setting(name) else { return [] }
    guard case .table(let entries) = entry.setting.value else {
      if case .empty = entry.setting.value { return [] }
      group.add(name, "\(entry.setting.kind) stands where pairs of prefixes should", TranslationReader.remedy)
      return []
    }
    var pairs: [Located<PrefixPair>] = []
    for entry in entries {
      func add(_ problem: String, _ remedy: String = TranslationReader.remedy) {
        group.add(name, problem, remedy, line: entry.line)
      }
      guard let real = prefix(entry.name) else {
        add("'\(shortened(entry.name))' is not a prefix")
        continue
      }
      guard case .scalar(let text) = entry.setting.value, let intermediate = prefix(text) else {
        add("what stands for \(real) is not a prefix")
        continue
      }
      let pair = PrefixPair(real: real, intermediate: intermediate)
      if !pair.isUsable {
        add("\(real) and \(intermediate) are not of the same size", "write two prefixes of one IP version and length")
      } else if !intermediate.address.isUnicast {
        add("\(intermediate) has no hosts' addresses", "choose a private prefix")
      } else if pairs.contains(where: { $0.value.real == real }) {
        add("\(real) is given twice", "remove one")
      } else {
        pairs.append(Located(value: pair, line: entry.line))
      }
    }
    return pairs
  }

  /// Nil also for one with bits behind its length.
  private func prefix(_ text: String) -> Prefix? {
    guard let prefix = Prefix(text), IPAddress(String(text.prefix { $0 != "/" })) == prefix.address, prefix.length > 0
    else {
      return nil
    }
    return prefix
  }
}

extension GatewayFileReader {
  /// The prefixes of this gateway's own network.
  func lan() -> [Prefix] {
    var kept: [Located<Prefix>] = []
    for element in top.prefixes("lan") {
      let prefix = element.value
      if !prefix.address.isUnicast {
        top.add("lan", "\(prefix) has no hosts' addresses", "write the network's prefix", line: element.line)
      } else if let other = kept.first(where: { $0.value.overlaps(prefix) }) {
        top.add(
          "lan", "\(prefix) overlaps \(other.value) on line \(other.line)", "write the shorter one only",
          line: element.line)
      } else {
        kept.append(element)
      }
    }
    if kept.count > 16 {
      top.add("lan", "there are \(kept.count) prefixes", "write 16 at most, shorter ones that cover several")
    }
    return kept.map(\.value)
  }

  /// Where intermediate prefixes are taken from.
  func intermediatePool() -> [Prefix] {
    guard top.has("intermediate-pool") else { return IntermediateSpace.defaultPool }
    return top.prefixes("intermediate-pool").compactMap { element in
      guard element.value.address.isUnicast, element.value.length > 0 else {
        top.add(
          "intermediate-pool", "\(element.value) has no hosts' addresses", "write private prefixes", line: element.line)
        return nil
      }
      return element.value
    }
  }
}
