import Dataplane
import Lab
import PacketIO
import Testing

extension Statistics {
  func transport(_ name: String) -> UInt64 {
    transports.reduce(0) { $0 + $1.counters.filter { $0.name == name }.reduce(0) { $0 + $1.value } }
  }

  func transportErrors(_ prefix: String) -> UInt64 {
    transports.reduce(0) { $0 + $1.counters.filter { $0.name.hasPrefix(prefix) }.reduce(0) { $0 + $1.value } }
  }

  func dropped(_ reason: DropReason) -> UInt64 {
    (outboundDrops + inboundDrops).filter { $0.reason == reason }.reduce(0) { $0 + $1.packets }
  }

  /// Packets of hosts and messages of its own.
  var allSealed: UInt64 { sealed.packets + controlSent }

  var allDropped: UInt64 { (outboundDrops + inboundDrops).reduce(0) { $0 + $1.packets } }

  /// Packets in, and packets out and drops by reason (invariant 4), at each border.
  private var balances: [(what: String, incoming: UInt64, accounted: UInt64)] {
    let others =
      transport("keep-alives-received") + transport("key-exchange-ignored") + transport("messages-received")
      + transports.flatMap(\.counters).reduce(0) { $0 + ($1.loss == .notPassedOn ? $1.value : 0) }
    return [
      ("read from the device", outbound.packets, sealed.packets + outboundDrops.sum),
      (
        "sealed", allSealed + transport("message-records-sent") + aggregation.sent,
        transport("sent-datagrams") + notSent + aggregation.packetsSent
      ),
      (
        "received", transport("received-datagrams") + aggregation.packetsReceived,
        arrived.packets + others + aggregation.received
      ),
      ("taken from the path", arrived.packets, delivered.packets + controlReceived + inboundDrops.sum),
    ]
  }

  fileprivate var isInBalance: Bool { balances.allSatisfy { $0.incoming == $0.accounted } }

  fileprivate func checkBalance(_ side: Side, sourceLocation: SourceLocation) {
    for (what, incoming, accounted) in balances {
      #expect(incoming == accounted, "packets \(what) by gateway \(side): \(self)", sourceLocation: sourceLocation)
    }
  }
}

/// Balances the books of a gateway, once what it gave the kernel is sent: until then it stands in none of the columns.
func checkBalance(
  _ side: Side, sourceLocation: SourceLocation = #_sourceLocation, _ statistics: () async throws -> Statistics
) async rethrows {
  var last = try await statistics()
  _ = try await eventually {
    if last.isInBalance { return true }
    last = try await statistics()
    return last.isInBalance
  }
  last.checkBalance(side, sourceLocation: sourceLocation)
}

extension [DropCount] {
  fileprivate var sum: UInt64 { reduce(0) { $0 + $1.packets } }
}

extension TestGateway {
  /// The figures once nothing moves any more.
  func settled() async -> Statistics {
    var last = await dataplane.statistics()
    for _ in 0..<100 {
      try? await Task.sleep(for: .milliseconds(40))
      let now = await dataplane.statistics()
      if now.flow == last.flow { return now }
      last = now
    }
    return last
  }

  /// What the namespace's kernel has dropped, for whatever reason.
  func kernelLosses() async -> [String] {
    let words = ["Discards", "NoRoutes", "Errors", "NoPorts", "UnReach"]
    let text = try? await namespace.inside { ProcFile.read("/proc/thread-self/net/snmp6") ?? "" }
    return (text ?? "").split(separator: "\n").map(String.init).filter { line in
      !line.hasSuffix("\t0") && words.contains { line.contains($0) }
    }
  }

  /// A counter of the calling thread's namespace, of both families.
  static func datagrams(_ counter: String) -> UInt64 {
    // Pairs of lines, names over values: "Udp: InDatagrams NoPorts InErrors …".
    let rows = (ProcFile.read("/proc/thread-self/net/snmp") ?? "").split(separator: "\n").map {
      $0.split(separator: " ")
    }
    var count: UInt64 = 0
    for (names, values) in zip(rows, rows.dropFirst()) where names[0] == "Udp:" && values[0] == "Udp:" {
      for (name, value) in zip(names, values) where name == counter { count += UInt64(value) ?? 0 }
    }
    for line in (ProcFile.read("/proc/thread-self/net/snmp6") ?? "").split(separator: "\n") {
      // Blanks, then a tabulator.
      let words = line.split { $0 == " " || $0 == "\t" }
      if words.count == 2, words[0] == "Udp6\(counter)" { count += UInt64(words[1]) ?? 0 }
    }
    return count
  }
}

extension Statistics {
  /// What moves with packets.
  fileprivate var flow: [UInt64] {
    [outbound.packets, sealed.packets, arrived.packets, delivered.packets, UInt64(freeBuffers)]
      + transports.flatMap { $0.counters.map(\.value) }
  }
}

extension Tunnel {
  /// The books of both gateways, and of the path between them.
  func checkBooks(isLossless: Bool = true, sourceLocation: SourceLocation = #_sourceLocation) async {
    // The gateways' own probes go on for a second after the last packet, so both must be seen between two of them.
    var (left, right) = (await a.settled(), await b.settled())
    _ = await eventually(within: 3) {
      (left, right) = (await a.dataplane.statistics(), await b.dataplane.statistics())
      return left.freeBuffers >= a.idleBuffers && right.freeBuffers >= b.idleBuffers && left.isInBalance
        && right.isInBalance && (!isLossless || left.allSealed == right.arrived.packets + b.early)
        && (!isLossless || right.allSealed == left.arrived.packets + a.early)
    }
    for (gateway, statistics) in [(a, left), (b, right)] {
      statistics.checkBalance(gateway.side, sourceLocation: sourceLocation)
      #expect(
        statistics.freeBuffers >= gateway.idleBuffers, "gateway \(gateway.side) still holds buffers of packets",
        sourceLocation: sourceLocation)
    }
    guard isLossless else { return }
    for (sender, receiver, gateway) in [(left, right, b), (right, left, a)] {
      if sender.allSealed != receiver.arrived.packets + gateway.early {
        let other = gateway.side == .b ? a : b
        let kernel = (await other.kernelLosses(), await gateway.kernelLosses())
        #expect(
          sender.allSealed == receiver.arrived.packets + gateway.early,
          """
          sealed and lost on the path to \(gateway.side), which began after \(gateway.early); the kernels here and there \
          count \(kernel)
          """, sourceLocation: sourceLocation)
      }
      #expect(receiver.inboundDrops == [], "at \(gateway.side)", sourceLocation: sourceLocation)
    }
  }
}
