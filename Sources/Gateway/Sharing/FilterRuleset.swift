import Dataplane
import PacketIO

/// The ruleset by which the kernel keeps strangers out of the tunnel and shares the base network, as text for `nft`: a
/// pure function of the configuration.
///
/// What the kernel forwards into the device, the gateway seals; so only what came by the interface where its source is
/// routed may get there (RFC 3704 §2.2): a neighbour on the base network cannot pass for a host of the LAN.
///
/// Everything is in one table of our own, so that it goes as one. The kernel keeps ports where it can and finds a
/// mapping again by its source, but lets two hosts share a port towards different destinations. So for IPv4, TCP and
/// UDP, the table remembers which external port belongs to whom: `…-outside` from the host's address and port to the
/// external port, `…-inside` back, `…-used` the ports alone. A host has one port towards all destinations (RFC 4787
/// REQ-1), nobody else has it (REQ-3), and hosts of the LAN reach each other by it (REQ-9). The memory holds 65,535
/// ports of each protocol; when it is full, new ones are not remembered, and the kernel's own ways are what is left.
struct FilterRuleset: Equatable {
  /// The table's name.
  let table: String
  /// The tunnel's; nil: it has no name that is known.
  private let device: String?
  private let sharing: SharingConfiguration?
  private let tunnel: [Prefix]
  private let ownPorts: [String: [UInt16]]

  /// For sources whose own port belongs to another host already.
  static let sparePorts: ClosedRange<UInt16> = 20_000...22_047
  /// Seconds (RFC 4787 REQ-5, RFC 5382 REQ-5, RFC 5508 REQ-2).
  static let udpUnanswered = 120
  static let udp = 300
  static let tcpEstablished = 7440
  static let tcpTransitory = 240
  static let icmpQuery = 60

  /// - Parameters:
  ///   - sharing: nil: nothing is shared.
  ///   - gateway: its name, a valid one of a gateway's file.
  ///   - tunnel: what is reached through the tunnel, and so never translated.
  ///   - listen: the gateway's UDP port, which no host of the LAN may occupy.
  ///   - streams: the same of TCP.
  init(
    _ sharing: SharingConfiguration?, gateway: String, device: String?, tunnel: [Prefix], listen: UInt16,
    streams: [UInt16] = []
  ) {
    self.sharing = sharing
    self.device = device
    self.tunnel = tunnel
    ownPorts = ["udp": [listen], "tcp": streams]
    table = FilterRuleset.table(gateway)
  }

  /// Whether it is about more than the tunnel.
  var shares: Bool { sharing != nil }

  static func table(_ gateway: String) -> String { "culvert-\(gateway)" }

  /// Puts the table in the place of whatever has its name, as one transaction.
  var installation: String { "\(FilterRuleset.removal(table))table inet \(table) {\n\(body)}\n" }

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

  private var base: String { FilterRuleset.set((sharing?.interfaces ?? []).map { "\"\($0)\"" }) }
  private var services: [SharingConfiguration.Service] { sharing?.services ?? [] }

  private static func set(_ elements: [String]) -> String { "{ \(elements.joined(separator: ", ")) }" }

  private static func set(_ prefixes: [Prefix]) -> String { set(prefixes.map(\.description)) }

  private func lan(_ family: Family) -> [Prefix] { SharingConfiguration.outermost(sharing?.lan ?? [], family.address) }

  /// Whether hosts of this family share anything.
  func isShared(_ family: IPAddress.Family) -> Bool {
    sharing?.lan.contains { $0.address.family == family } ?? false
  }

  /// The families in which there is something to share.
  private var families: [Family] { Family.allCases.filter { !lan($0).isEmpty } }

  private var body: String {
    var lines = ["counter unrouted { }"] + guardian
    guard shares else { return lines.map { "  \($0)\n" }.joined() }
    lines += ["counter shared { }", "counter refused { }"]
    lines += services.map { "counter \(FilterRuleset.counter($0)) { }" }
    lines += timeouts + memory
    for family in families { lines += inward(family) + outward(family) }
    return (lines + hooks).map { "  \($0)\n" }.joined()
  }

  /// Where nothing is shared, without a look at connections, which would cost each packet that the machine forwards.
  private var guardian: [String] {
    guard let device else { return [] }
    var rules = ["oifname \"\(device)\" fib saddr . iif oif missing counter name unrouted drop"]
    for family in Family.allCases where shares {
      let lan = lan(family)
      let others = lan.isEmpty ? family.match : "\(family.word) saddr != \(FilterRuleset.set(lan))"
      rules.append(
        "iifname \(base) oifname \"\(device)\" \(others) ct state { new, invalid, untracked } ct status & dnat == 0 "
          + "counter name unrouted drop")
    }
    return FilterRuleset.chain("tunnel", ["type filter hook forward priority filter; policy accept;"] + rules)
  }

  static func counter(_ service: SharingConfiguration.Service) -> String { "service-\(service.name)" }

  private var timeouts: [String] {
    let seconds = FilterRuleset.self
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
    FilterRuleset.transports.flatMap { transport in
      let rest = "flags dynamic,timeout; size 65535; timeout \(FilterRuleset.udp)s;"
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
    let services = self.services.filter { $0.target.address.family == family.address }.map { service in
      let transport = service.transport.rawValue
      return "\(family.match) meta l4proto \(transport) \(transport) dport \(service.port) "
        + "counter name \(FilterRuleset.counter(service)) dnat \(family.word) to \(service.target)"
    }
    let remembered =
      family == .v6
      ? [] : FilterRuleset.transports.map { "meta l4proto \($0) dnat ip to \($0) dport map @\($0)-inside" }
    let open = sharing?.filtering == .endpointIndependent ? remembered : []
    return FilterRuleset.chain("from-base\(family.digit)", services + open)
      + FilterRuleset.chain("from-lan\(family.digit)", services + remembered)
  }

  /// Packets whose source is translated: towards the base network, and back into the LAN.
  private func outward(_ family: Family) -> [String] {
    let hairpin = "snat \(family.word) to ct original \(family.word) daddr"
    guard family == .v4 else {
      return FilterRuleset.chain("share6", ["counter name shared masquerade"])
        + FilterRuleset.chain("hairpin6", [hairpin])
    }
    var chains: [String] = []
    for transport in FilterRuleset.transports {
      for (way, translate) in [("share", "masquerade"), ("hairpin", hairpin)] {
        chains += FilterRuleset.chain("\(way)-\(transport)", translation(transport, translate))
      }
      chains += remembering(transport)
    }
    let choices = FilterRuleset.transports.map { way in "\(way) : goto WAY-\(way)" }.joined(separator: ", ")
    func choose(_ way: String) -> String { "meta l4proto vmap { \(choices.replacing("WAY", with: way)) }" }
    return chains + FilterRuleset.chain("share4", ["counter name shared", choose("share"), "masquerade"])
      + FilterRuleset.chain("hairpin4", [choose("hairpin"), hairpin])
  }

  /// - Parameter translate: the statement, which may be followed by a port.
  private func translation(_ transport: String, _ translate: String) -> [String] {
    let match = "\(Family.v4.match) meta l4proto \(transport)"
    let to = translate == "masquerade" ? "masquerade to :" : "\(translate) :"
    let ports = FilterRuleset.sparePorts
    let spares = ports.enumerated().map { "\($0.offset) : \($0.element)" }.joined(separator: ", ")
    let spare = "\(to) numgen inc mod \(ports.count) map { \(spares) }"
    var reserved = services.filter { $0.transport.rawValue == transport }.map(\.port)
    reserved += ownPorts[transport] ?? []
    let busy = Set(reserved).sorted().filter { $0 >= 1024 }.map(String.init)
    return [
      // The kernel exchanges well-known ports for well-known ones (RFC 4787 REQ-3 a). They are not remembered: the
      // gateway's own services are there.
      "\(match) \(transport) sport 0-1023 \(translate)",
      "\(match) \(to) ip saddr . \(transport) sport map @\(transport)-outside",
    ] + (busy.isEmpty ? [] : ["\(match) \(transport) sport \(FilterRuleset.set(busy)) \(spare)"]) + [
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
    guard transport == "tcp" else { return FilterRuleset.chain("learn-udp", [wellKnown] + update(FilterRuleset.udp)) }
    return FilterRuleset.chain("learn-tcp-open", update(FilterRuleset.tcpEstablished))
      + FilterRuleset.chain(
        "learn-tcp",
        [wellKnown, "ct expiration > \(FilterRuleset.tcpTransitory)s goto learn-tcp-open"]
          + update(FilterRuleset.tcpTransitory))
  }

  /// Where the kernel calls us.
  private var hooks: [String] {
    var (prerouting, forward, input, postrouting, learn): ([String], [String], [String], [String], [String]) =
      ([], [], [], [], [])
    for family in families {
      let (word, digit) = (family.word, family.digit)
      let own = lan(family)
      let inner = SharingConfiguration.outermost(own + tunnel, family.address)
      let (lan, near) = (FilterRuleset.set(own), FilterRuleset.set(inner))
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
      for transport in FilterRuleset.transports {
        let set = "meta l4proto \(transport) ct timeout set \"\(transport)\(digit)\""
        forward += [
          "oifname \(base) ct state new \(word) saddr \(lan) \(set)",
          "ct state new \(word) daddr \(lan) ct status & dnat != 0 \(set)",
        ]
      }
      postrouting.append("\(word) saddr \(lan) \(word) daddr \(lan) ct status & dnat != 0 goto hairpin\(digit)")
      if !far.isEmpty { postrouting.append("\(word) daddr \(FilterRuleset.set(far)) return") }
      postrouting.append("oifname \(base) \(word) saddr \(lan) goto share\(digit)")
      guard family == .v4 else { continue }
      for transport in FilterRuleset.transports {
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
    return chains.flatMap { FilterRuleset.chain($0.0, [$0.1] + $0.2) }
  }
}
