import Dataplane
import Gateway
import Keying
import PacketIO

extension GatewayReport {
  /// What `culvert show` prints: the gateway, its traffic, peers, keys, paths, spaces, associations, drops and
  /// transports.
  var text: String {
    let parts = [
      heading, traffic, workerTable, peerTable, keyTable, relayTable, pathMTUTable, pathTable, translationTables,
      associationTable,
      dropTable, firewallTable, sharing?.lines ?? [], transportLines,
    ]
    return parts.filter { !$0.isEmpty }.map { $0.joined(separator: "\n") }.joined(separator: "\n\n")
  }

  private var heading: [String] {
    let offloads = statistics.offloads.isEmpty ? "none" : statistics.offloads.joined(separator: " ")
    let network = lan.isEmpty ? "" : ", network \(lan.joined(separator: " "))"
    let first = ["\(name) on \(statistics.interface), up \(Figure.duration(statistics.uptime))"]
    let ports = [listen] + [listenTCP.map { "TCP \($0)" }, listenTLS.map { "TLS \($0)" }].compactMap { $0 }
    let gid = identity.map { ["  GID \($0)"] } ?? []
    return first + gid + [
      "  listens on \(ports.joined(separator: " and ")), process \(process), \(configurationFile)",
      "  addresses \(addresses.isEmpty ? "none" : addresses.joined(separator: " "))\(network), MTU \(mtu)",
      "  engine \(statistics.engine), offloads \(offloads), buffers \(statistics.buffers - statistics.freeBuffers) of "
        + "\(statistics.buffers) in use",
    ]
  }

  private var traffic: [String] {
    var table = TextTable([("TRAFFIC", .left), ("PACKETS", .right), ("BYTES", .right)])
    let rows = [
      ("from the device", statistics.outbound), ("sealed", statistics.sealed), ("arrived", statistics.arrived),
      ("to the device", statistics.delivered),
    ]
    for (title, count) in rows { table.add([title, Figure.count(count.packets), Figure.bytes(count.bytes)]) }
    table.add(["control sent", Figure.count(statistics.controlSent), ""])
    table.add(["control taken", Figure.count(statistics.controlReceived), ""])
    let shared = statistics.aggregation
    let directions = [
      ("shared sent", shared.packetsSent, shared.sent), ("shared taken", shared.packetsReceived, shared.received),
    ]
    for (title, packets, carriers) in directions where carriers > 0 {
      table.add([title, "\(Figure.count(packets)) in \(Figure.count(carriers))", ""])
    }
    return table.lines(indent: "  ")
  }

  /// Where there are several.
  private var workerTable: [String] {
    guard !statistics.workers.isEmpty else { return [] }
    var table = TextTable([
      ("WORKER", .left), ("SEALED", .right), ("ARRIVED", .right), ("TO THE DEVICE", .right), ("HANDED OVER", .right),
    ])
    for (number, worker) in statistics.workers.enumerated() {
      table.add([
        "\(number)", Figure.count(worker.sealed.packets), Figure.count(worker.arrived.packets),
        Figure.count(worker.delivered.packets), Figure.count(worker.handedOver),
      ])
    }
    return table.lines(indent: "  ")
  }

  private var peerTable: [String] {
    var table = TextTable([
      ("PEER", .left), ("KIND", .left), ("ADDRESS", .left), ("VERIFIED", .left), ("SENT", .right),
      ("RECEIVED", .right), ("LAST HEARD", .right), ("PREFIXES", .left),
    ])
    for peer in statistics.peers {
      let planned = peers.first { $0.name == peer.name }
      table.add([
        peer.name, planned?.pathKind ?? "", peer.path.map { "\($0)" } ?? "unknown",
        peer.path == nil ? "" : peer.isPathVerified ? "yes" : "no", Figure.bytes(peer.sent.bytes),
        Figure.bytes(peer.received.bytes), peer.lastHeard.map { "\(Figure.duration($0)) ago" } ?? "never",
        planned?.prefixes.joined(separator: " ") ?? "",
      ])
    }
    let refused = peers.flatMap { peer in (peer.refusedKeys + peer.refusedHairpins).map { "  \(peer.name): \($0)" } }
    return table.isEmpty ? ["  no peers"] : table.lines(indent: "  ") + refused
  }

  /// Where it is enrolled.
  private var relayTable: [String] {
    var table = TextTable([
      ("RELAY", .left), ("TRANSPORT", .left), ("ADDRESS", .left), ("STATE", .left), ("SEEN AS", .left),
    ])
    for relay in relays ?? [] {
      let state = relay.isEnrolled ? "enrolled" : relay.problem.map { "not enrolled: \($0)" } ?? "connecting"
      table.add([relay.gid, relay.transport, relay.address, state, relay.seenAs ?? ""])
    }
    return table.isEmpty ? [] : table.lines(indent: "  ") + (translators ?? []).map { "  \($0.text)" }
  }

  /// With whom keys are agreed upon, and how that stands.
  private var keyTable: [String] {
    var table = TextTable([
      ("KEYS WITH", .left), ("STATE", .left), ("SUITE", .left), ("GROUP", .left), ("POST-QUANTUM", .left),
      ("AGE", .right), ("NEXT REKEY", .right), ("GID", .left),
    ])
    for peer in peers {
      guard let keys = peer.keys else { continue }
      table.add([
        peer.name, keys.state.rawValue + (keys.problem.map { ": \($0)" } ?? ""),
        (keys.suite ?? "") + (keys.implicitIV == true ? " implicit-iv" : ""), keys.group ?? "",
        keys.awaitsPostQuantum == true ? "pending" : keys.isPostQuantum.map { $0 ? "yes" : "no" } ?? "",
        keys.age.map { Figure.duration($0) } ?? "",
        keys.nextRekey.map { $0 > 0 ? "in \(Figure.duration($0))" : "now" } ?? "", keys.gid,
      ])
    }
    return table.isEmpty ? [] : table.lines(indent: "  ")
  }

  /// What packets the paths take that were used. A peer that answers no probes is not measured.
  private var pathMTUTable: [String] {
    var table = TextTable([
      ("PATH TO", .left), ("PATH MTU", .right), ("", .left), ("ROUND TRIP", .right), ("PROBES LOST", .right),
    ])
    for peer in statistics.peers where peer.roundTrip != nil || peer.probesSent > 0 {
      let lost = peer.probesSent - min(peer.probesAnswered, peer.probesSent)
      table.add([
        peer.name, peer.pathMTU.map(String.init) ?? "any", peer.pathMTUSource?.text ?? "",
        peer.roundTrip.map { "\(Int($0 * 1e6)) µs" } ?? "",
        "\(Figure.count(lost)) of \(Figure.count(peer.probesSent))",
      ])
    }
    return table.isEmpty ? [] : table.lines(indent: "  ")
  }

  /// The ways to peers that have more than one; a star marks the one that is used.
  private var pathTable: [String] {
    var table = TextTable([
      ("PATH TO", .left), ("", .left), ("KIND", .left), ("ADDRESS", .left), ("STATE", .left), ("ROUND TRIP", .right),
      ("LOSS", .right), ("MTU", .right), ("", .left), ("WHY", .left),
    ])
    for peer in statistics.peers {
      for path in peer.paths {
        let why = path.isUsed ? peer.pathReason?.rawValue ?? "" : ""
        let age = path.isUsed ? peer.pathAge.map { ", for \(Figure.duration($0))" } ?? "" : ""
        table.add([
          peer.name, path.isUsed ? "*" : "", path.name, "\(path.path)",
          "\(path.state.rawValue) \(Figure.duration(path.stateAge))",
          path.roundTrip.map { "\(Int($0 * 1e6)) µs" } ?? "", path.loss.map { "\(Int(($0 * 100).rounded())) %" } ?? "",
          path.pathMTU.map(String.init) ?? (path.roundTrip == nil ? "" : "any"),
          path.pathMTUSource.map { $0.isConfirmed ? "" : $0.text } ?? "", why + age,
        ])
      }
    }
    let findings = peers.compactMap { peer in peer.reach.map { "  \($0.text(peer: peer.name))" } }
    return table.isEmpty ? [] : table.lines(indent: "  ") + findings
  }

  private var associationTable: [String] {
    var table = TextTable([
      ("ASSOCIATION", .left), ("SPI", .left), ("CIPHER", .left), ("OPTIONS", .left), ("SEQUENCE", .right),
      ("PACKETS", .right), ("BYTES", .right), ("DROPS", .left),
    ])
    for peer in statistics.peers {
      for association in peer.associations {
        let options = [association.extendedSequenceNumbers ? "esn" : "", association.implicitIV ? "implicit-iv" : ""]
        let drops = association.drops.filter { $0.packets > 0 }
        table.add([
          association.direction == .outbound ? "to \(peer.name)" : "from \(peer.name)",
          "0x" + String(association.spi, radix: 16), association.cipher.rawValue,
          options.filter { !$0.isEmpty }.joined(separator: " "), "\(association.sequence)",
          Figure.count(association.packets), Figure.bytes(association.bytes),
          drops.map { "\($0.reason.name) \(Figure.count($0.packets))" }.joined(separator: ", "),
        ])
      }
    }
    let wentBack = statistics.peers.filter { $0.associations.contains { $0.disagreement == .peerWentBack } }
    let findings = wentBack.map { "  \($0.name)'s sequence numbers went back and are refused as replays" }
    return table.isEmpty ? [] : table.lines(indent: "  ") + findings
  }

  private var dropTable: [String] {
    var table = TextTable([("DROPPED", .left), ("REASON", .left), ("PACKETS", .right)])
    for (direction, drops) in [("outbound", statistics.outboundDrops), ("inbound", statistics.inboundDrops)] {
      for drop in drops where drop.packets > 0 { table.add([direction, drop.reason.name, Figure.count(drop.packets)]) }
    }
    for (title, loss) in [("sending", TransportCounter.Loss.notSent), ("receiving", .notPassedOn)] {
      for transport in statistics.transports {
        for counter in transport.counters where counter.loss == loss && counter.value > 0 {
          table.add([
            "\(title) by transport \(transport.index)", counter.name, Figure.count(counter.value),
          ])
        }
      }
    }
    return table.isEmpty ? ["  nothing dropped"] : table.lines(indent: "  ")
  }

  private var firewallTable: [String] {
    guard let firewall = statistics.firewall else { return [] }
    guard firewall.mode != .off else { return ["  firewall off"] }
    let count = { (flows: Int) in Figure.count(UInt64(clamping: flows)) }
    var lines = [
      "  firewall \(firewall.mode.rawValue), \(count(firewall.establishedFlows)) flows of "
        + "\(count(firewall.flowCapacity)) established, \(count(firewall.pendingFlows)) pending, "
        + "\(count(firewall.closedFlows)) closed"
    ]
    if firewall.evicted + firewall.overflowed > 0 {
      lines.append(
        "  \(Figure.count(firewall.evicted)) flows were pushed out, \(Figure.count(firewall.overflowed)) times no room "
          + "was left for an established one")
    }
    var table = TextTable([
      ("FIREWALL", .left), ("ACTION", .left), ("PACKETS", .right), ("BYTES", .right), ("NAME", .left),
    ])
    for rule in firewall.rules {
      table.add([
        "rule \(rule.number)", rule.action.rawValue, Figure.count(rule.traffic.packets),
        Figure.bytes(rule.traffic.bytes), rule.name,
      ])
    }
    for ground in firewall.grounds {
      table.add([ground.name, "", Figure.count(ground.traffic.packets), Figure.bytes(ground.traffic.bytes), ""])
    }
    return lines + (table.isEmpty ? [] : table.lines(indent: "  "))
  }

  private var transportLines: [String] {
    var table = TextTable([("TRANSPORT", .left), ("COUNTER", .left), ("VALUE", .right)])
    for transport in statistics.transports {
      for counter in transport.counters where counter.value > 0 {
        table.add(["\(transport.index)", counter.name, Figure.count(counter.value)])
      }
    }
    var lines = table.isEmpty ? [] : table.lines(indent: "  ")
    if statistics.lostEvents > 0 { lines.append("  \(Figure.count(statistics.lostEvents)) events were not logged") }
    return lines
  }
}

extension GatewayPlan {
  /// As a peer's `address` is written.
  private func address(_ path: ConfiguredPath) -> String {
    "\(path.name == "udp" ? "" : "\(path.name):")\(path.path.endpoint)"
  }

  /// What `culvert check` prints of a plan without errors.
  /// - Parameter file: where it was read.
  func summary(of file: String) -> String {
    var table = TextTable([
      ("PEER", .left), ("ADDRESS", .left), ("CIPHER", .left), ("KEYS", .left), ("PREFIXES", .left),
    ])
    for peer in peers {
      let configuration = peer.configuration
      table.add([
        configuration.name,
        configuration.paths.isEmpty ? "unknown" : configuration.paths.map(address).joined(separator: " "),
        peer.ciphers, peer.origin, configuration.prefixes.map(\.description).joined(separator: " "),
      ])
    }
    let addresses = interface.addresses.map { "\($0.address)/\($0.prefixLength)" }.joined(separator: " ")
    var device = "culvert0"
    if case .name(let name) = interface.source { device = name }
    let enabled = firewall.rules.count(where: \.isEnabled)
    let lines = [
      "\(file): OK",
      "  gateway \(name) on \(device), \(addresses.isEmpty ? "no address" : addresses)"
        + (identity.map { ", GID \($0.tag)" } ?? ""),
      "  firewall \(firewall.mode.rawValue), \(enabled) rule\(enabled == 1 ? "" : "s")",
    ]
    return
      (lines + sharingLines + (table.isEmpty ? ["  no peers"] : table.lines(indent: "  "))
      + warnings.map { "  warning: \($0)" }).joined(separator: "\n")
  }

  private var sharingLines: [String] {
    guard let sharing else { return [] }
    let lan = sharing.lan.map(\.description).joined(separator: " ")
    return ["  sharing \(sharing.interfaces.joined(separator: " ")) with \(lan), \(sharing.filtering.rawValue)"]
      + sharing.services.map { "  service \($0.name): \($0.transport.rawValue) port \($0.port) to \($0.target)" }
  }
}

extension PlannedPeer {
  /// Those that may be used.
  fileprivate var ciphers: String {
    guard let keys else { return configuration.outbound?.cipher.rawValue ?? "none" }
    let named = keys.partner.suites.reduce(into: [String]()) { names, suite in
      if !names.contains(suite.cipher.rawValue) { names.append(suite.cipher.rawValue) }
    }
    return named.count > 1 ? "any" : named.first ?? "none"
  }

  /// Where its keys come from.
  fileprivate var origin: String {
    if let keys { return "agreed, GID \(keys.partner.remote)" }
    func spi(_ association: SecurityAssociationConfiguration?) -> String {
      association.map { "0x" + String($0.spi, radix: 16) } ?? "none"
    }
    return "manual, \(spi(configuration.outbound)) out, \(spi(configuration.inbound.first)) in"
  }
}
