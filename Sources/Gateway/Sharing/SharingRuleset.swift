import Dataplane
import PacketIO

/// The ruleset by which the kernel shares the base network, as text for `nft`: a pure function of the configuration.
///
/// Everything is in one table of our own, so that it goes as one. The kernel keeps ports where it can and finds a
/// mapping again by its source, but lets two hosts share a port towards different destinations. So for IPv4, TCP and
/// UDP, the table remembers which external port belongs to whom: `…-outside` from the host's address and port to the
/// external port, `…-inside` back, `…-used` the ports alone. A host has one port towards all destinations (RFC 4787
/// REQ-1), nobody else has it (REQ-3), and hosts of the LAN reach each other by it (REQ-9). The memory holds 65,535
/// ports of each protocol; when it is full, new ones are not remembered, and the kernel's own ways are what is left.
struct SharingRuleset: Equatable {
  /// The table's name.
  let table: String
  private let sharing: SharingConfiguration
  private let tunnel: [Prefix]
  private let ownPorts: [String: UInt16]

  /// For sources whose own port belongs to another host already.
  static let sparePorts: ClosedRange<UInt16> = 20_000...22_047
  /// Seconds (RFC 4787 REQ-5, RFC 5382 REQ-5, RFC 5508 REQ-2).
  static let udpUnanswered = 120
  static let udp = 300
  static let tcpEstablished = 7440
  static let tcpTransitory = 240
  static let icmpQuery = 60

  /// - Parameters:
  ///   - gateway: its name, a valid one of a gateway's file.
  ///   - tunnel: what is reached through the tunnel, and so never translated.
  ///   - listen: the gateway's UDP port, which no host of the LAN may occupy.
  ///   - listenTCP: the same of TCP; nil: it has none.
  init(
    _ sharing: SharingConfiguration, gateway: String, tunnel: [Prefix], listen: UInt16, listenTCP: UInt16? = nil
  ) {
    self.sharing = sharing
    self.tunnel = tunnel
    ownPorts = ["udp": listen, "tcp": listenTCP].compactMapValues { $0 }
    table = SharingRuleset.table(gateway)
  }

  static func table(_ gateway: String) -> String { "culvert-\(gateway)" }

  /// Puts the table in the place of whatever has its name, as one transaction.
  var installation: String { "\(SharingRuleset.removal(table))table inet \(table) {\n\(body)}\n" }

  /// The same over a table that is in force: rules are replaced, and what is remembered stays.
  var update: String { "flush table inet \(table)\ntable inet \(table) {\n\(body)}\n" }

  /// Removes the table, where there is one.
  static func removal(_ table: String) -> String { "table inet \(table)\ndelete table inet \(table)\n" }

  // MARK: Text

  private enum Family: CaseIterable {
    case v4, v6
    var address: IPAddress.Family { self == .v4 ? .v4 : .v6 }
    var word: String { self == .v4 ? "ip" : "ip6" }
    var digit: String { self == .v4 ? "4" : "6" }
    var match: String { self == .v4 ? "meta nfproto ipv4" : "meta nfproto ipv6" }
  }

  private static let transports = SharingConfiguration.Service.Transport.allCases.map(\.rawValue)

  private var base: String { SharingRuleset.set(sharing.interfaces.map { "\"\($0)\"" }) }

  private static func set(_ elements: [String]) -> String { "{ \(elements.joined(separator: ", ")) }" }

  private static func set(_ prefixes: [Prefix]) -> String { set(prefixes.map(\.description)) }

  private func lan(_ family: Family) -> [Prefix] { SharingConfiguration.outermost(sharing.lan, family.address) }

  /// Whether hosts of this family share anything.
  func isShared(_ family: IPAddress.Family) -> Bool { sharing.lan.contains { $0.address.family == family } }

  /// The families in which there is something to share.
  private var families: [Family] { Family.allCases.filter { !lan($0).isEmpty } }

  private var body: String {
    var lines = ["counter shared { }", "counter refused { }"]
    lines += sharing.services.map { "counter \(SharingRuleset.counter($0)) { }" }
    lines += timeouts + memory
    for family in families { lines += inward(family) + outward(family) }
    return (lines + hooks).map { "  \($0)\n" }.joined()
  }

  static func counter(_ service: SharingConfiguration.Service) -> String { "service-\(service.name)" }

  private var timeouts: [String] {
    let seconds = SharingRuleset.self
    let brief = [
      "syn_sent", "syn_recv", "fin_wait", "close_wait", "last_ack", "time_wait", "close", "retrans", "unack",
    ]
    let tcp = (brief.map { "\($0) : \(seconds.tcpTransitory)" } + ["established : \(seconds.tcpEstablished)"])
    return Family.allCases.flatMap { family in
      [
        "ct timeout udp\(family.digit) { protocol udp; l3proto \(family.word); policy = "
          + "{ unreplied : \(seconds.udpUnanswered), replied : \(seconds.udp) }; }",
        "ct timeout tcp\(family.digit) { protocol tcp; l3proto \(family.word); policy = "
          + "{ \(tcp.joined(separator: ", ")) }; }",
      ]
    }
  }

  /// Declared whether used or not, so that an update finds what it expects.
  private var memory: [String] {
    SharingRuleset.transports.flatMap { transport in
      let rest = "flags dynamic,timeout; size 65535; timeout \(SharingRuleset.udp)s;"
      return [
        "map \(transport)-inside { type inet_service : ipv4_addr . inet_service; \(rest) }",
        "map \(transport)-outside { type ipv4_addr . inet_service : inet_service; \(rest) }",
        "set \(transport)-used { type inet_service; \(rest) }",
      ]
    }
  }

  private static func chain(_ name: String, _ rules: [String]) -> [String] {
    ["chain \(name) {"] + rules.map { "  \($0)" } + ["}"]
  }

  /// Packets to the gateway's own addresses: from the base network, and from the LAN.
  private func inward(_ family: Family) -> [String] {
    let services = sharing.services.filter { $0.target.address.family == family.address }.map { service in
      let transport = service.transport.rawValue
      return "\(family.match) meta l4proto \(transport) \(transport) dport \(service.port) "
        + "counter name \(SharingRuleset.counter(service)) dnat \(family.word) to \(service.target)"
    }
    let remembered =
      family == .v6
      ? [] : SharingRuleset.transports.map { "meta l4proto \($0) dnat ip to \($0) dport map @\($0)-inside" }
    let open = sharing.filtering == .endpointIndependent ? remembered : []
    return SharingRuleset.chain("from-base\(family.digit)", services + open)
      + SharingRuleset.chain("from-lan\(family.digit)", services + remembered)
  }

  /// Packets whose source is translated: towards the base network, and back into the LAN.
  private func outward(_ family: Family) -> [String] {
    let hairpin = "snat \(family.word) to ct original \(family.word) daddr"
    guard family == .v4 else {
      return SharingRuleset.chain("share6", ["counter name shared masquerade"])
        + SharingRuleset.chain("hairpin6", [hairpin])
    }
    var chains: [String] = []
    for transport in SharingRuleset.transports {
      for (way, translate) in [("share", "masquerade"), ("hairpin", hairpin)] {
        chains += SharingRuleset.chain("\(way)-\(transport)", translation(transport, translate))
      }
      chains += remembering(transport)
    }
    let choices = SharingRuleset.transports.map { way in "\(way) : goto WAY-\(way)" }.joined(separator: ", ")
    func choose(_ way: String) -> String { "meta l4proto vmap { \(choices.replacing("WAY", with: way)) }" }
    return chains + SharingRuleset.chain("share4", ["counter name shared", choose("share"), "masquerade"])
      + SharingRuleset.chain("hairpin4", [choose("hairpin"), hairpin])
  }

  /// - Parameter translate: the statement, which may be followed by a port.
  private func translation(_ transport: String, _ translate: String) -> [String] {
    let match = "\(Family.v4.match) meta l4proto \(transport)"
    let to = translate == "masquerade" ? "masquerade to :" : "\(translate) :"
    let ports = SharingRuleset.sparePorts
    let spares = ports.enumerated().map { "\($0.offset) : \($0.element)" }.joined(separator: ", ")
    let spare = "\(to) numgen inc mod \(ports.count) map { \(spares) }"
    var reserved = sharing.services.filter { $0.transport.rawValue == transport }.map(\.port)
    if let port = ownPorts[transport] { reserved.append(port) }
    let busy = Set(reserved).sorted().filter { $0 >= 1024 }.map(String.init)
    return [
      // The kernel exchanges well-known ports for well-known ones (RFC 4787 REQ-3 a). They are not remembered: the
      // gateway's own services are there.
      "\(match) \(transport) sport 0-1023 \(translate)",
      "\(match) \(to) ip saddr . \(transport) sport map @\(transport)-outside",
    ] + (busy.isEmpty ? [] : ["\(match) \(transport) sport \(SharingRuleset.set(busy)) \(spare)"]) + [
      "\(match) \(transport) sport @\(transport)-used \(spare)", "\(match) \(translate)",
    ]
  }

  /// What went out renews the memory of its port. TCP's ends as the kernel's own does: soon after the connection.
  private func remembering(_ transport: String) -> [String] {
    func update(_ seconds: Int) -> [String] {
      let match = "\(Family.v4.match) meta l4proto \(transport)"
      let source = "ct original ip saddr . ct original proto-src"
      return [
        "\(match) update @\(transport)-used { \(transport) sport timeout \(seconds)s }",
        "\(match) update @\(transport)-inside { \(transport) sport timeout \(seconds)s : \(source) }",
        "\(match) update @\(transport)-outside { \(source) timeout \(seconds)s : \(transport) sport }",
      ]
    }
    let wellKnown = "\(Family.v4.match) meta l4proto \(transport) \(transport) sport 0-1023 return"
    guard transport == "tcp" else { return SharingRuleset.chain("learn-udp", [wellKnown] + update(SharingRuleset.udp)) }
    return SharingRuleset.chain("learn-tcp-open", update(SharingRuleset.tcpEstablished))
      + SharingRuleset.chain(
        "learn-tcp",
        [wellKnown, "ct expiration > \(SharingRuleset.tcpTransitory)s goto learn-tcp-open"]
          + update(SharingRuleset.tcpTransitory))
  }

  /// Where the kernel calls us.
  private var hooks: [String] {
    var (prerouting, forward, input, postrouting, learn): ([String], [String], [String], [String], [String]) =
      ([], [], [], [], [])
    for family in families {
      let (word, digit) = (family.word, family.digit)
      let own = lan(family)
      let inner = SharingConfiguration.outermost(own + tunnel, family.address)
      let (lan, near) = (SharingRuleset.set(own), SharingRuleset.set(inner))
      let far = SharingConfiguration.outermost(tunnel, family.address)
      prerouting += [
        "\(family.match) iifname \(base) \(word) daddr != \(near) fib daddr type local goto from-base\(digit)",
        "\(word) saddr \(lan) \(word) daddr != \(near) fib daddr type local goto from-lan\(digit)",
      ]
      forward += [
        // Neither an untranslated source outwards, nor a stranger straight at a host (RFC 4787 §5, RFC 5508 REQ-4, 5).
        "oifname \(base) \(word) saddr \(lan) ct state invalid counter name refused drop",
        "iifname \(base) \(word) daddr \(lan) ct state { new, invalid, untracked } ct status & dnat == 0 "
          + "counter name refused drop",
      ]
      for transport in SharingRuleset.transports {
        let set = "meta l4proto \(transport) ct timeout set \"\(transport)\(digit)\""
        forward += [
          "oifname \(base) ct state new \(word) saddr \(lan) \(set)",
          "ct state new \(word) daddr \(lan) ct status & dnat != 0 \(set)",
        ]
      }
      postrouting.append("\(word) saddr \(lan) \(word) daddr \(lan) ct status & dnat != 0 goto hairpin\(digit)")
      if !far.isEmpty { postrouting.append("\(word) daddr \(SharingRuleset.set(far)) return") }
      postrouting.append("oifname \(base) \(word) saddr \(lan) goto share\(digit)")
      guard family == .v4 else { continue }
      for transport in SharingRuleset.transports {
        let match = "\(family.match) meta l4proto \(transport)"
        // An answer, and be it a reset, would take the port away from its owner (RFC 5382 REQ-4).
        input.append(
          "iifname \(base) ct state new \(match) \(transport) dport @\(transport)-used counter name refused drop")
        let mine = "\(match) ct direction original ct status & snat != 0 ct original ip saddr \(lan)"
        learn += [
          "oifname \(base) \(mine) goto learn-\(transport)",
          "\(mine) ct status & dnat != 0 goto learn-\(transport)",
        ]
      }
    }
    let chains: [(String, String, [String])] = [
      ("prerouting", "type nat hook prerouting priority dstnat; policy accept;", prerouting),
      ("forward", "type filter hook forward priority filter; policy accept;", forward),
      ("input", "type filter hook input priority filter; policy accept;", input),
      ("postrouting", "type nat hook postrouting priority srcnat; policy accept;", postrouting),
      ("learn", "type filter hook postrouting priority srcnat + 10; policy accept;", learn),
    ]
    return chains.flatMap { SharingRuleset.chain($0.0, [$0.1] + $0.2) }
  }
}
