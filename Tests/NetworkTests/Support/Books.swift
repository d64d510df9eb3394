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

  var allDropped: UInt64 { (outboundDrops + inboundDrops).reduce(0) { $0 + $1.packets } }

  /// Whether packets in are packets out and drops by reason (invariant 4), seen at each border.
  func checkBalance(_ side: Side, sourceLocation: SourceLocation = #_sourceLocation) {
    let outward = outboundDrops.reduce(0) { $0 + $1.packets }
    #expect(
      outbound.packets == sealed.packets + outward,
      "gateway \(side) read \(outbound), sealed \(sealed), dropped \(outboundDrops)", sourceLocation: sourceLocation)
    let inward = inboundDrops.reduce(0) { $0 + $1.packets }
    #expect(
      arrived.packets == delivered.packets + inward,
      "gateway \(side) took \(arrived), delivered \(delivered), dropped \(inboundDrops)", sourceLocation: sourceLocation
    )
    let left =
      transport("sent-datagrams") + transportErrors("send-error") + transport("queue-full")
      + transport("no-socket-of-family")
    #expect(
      sealed.packets == left, "gateway \(side) sealed \(sealed), and its transport accounts for \(left)",
      sourceLocation: sourceLocation)
    let taken =
      arrived.packets + transport("keep-alives-received") + transport("key-exchange-ignored")
      + transport("too-short")
    #expect(
      transport("received-datagrams") == taken,
      "gateway \(side) received \(transport("received-datagrams")) datagrams and accounts for \(taken)",
      sourceLocation: sourceLocation)
  }
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

  /// Datagrams that the kernel dropped before the gateway could take them.
  func kernelDrops() async throws -> UInt64 {
    try await namespace.inside {
      // Pairs of lines, names over values: "Udp: InDatagrams NoPorts InErrors …".
      let rows = (ProcFile.read("/proc/thread-self/net/snmp") ?? "").split(separator: "\n").map {
        $0.split(separator: " ")
      }
      var drops: UInt64 = 0
      for (names, values) in zip(rows, rows.dropFirst()) where names[0] == "Udp:" && values[0] == "Udp:" {
        for (name, value) in zip(names, values) where name == "InErrors" { drops += UInt64(value) ?? 0 }
      }
      for line in (ProcFile.read("/proc/thread-self/net/snmp6") ?? "").split(separator: "\n") {
        let words = line.split(separator: " ")
        if words.count == 2, words[0] == "Udp6InErrors" { drops += UInt64(words[1]) ?? 0 }
      }
      return drops
    }
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
  /// The books of both gateways, and of the road between them.
  func checkBooks(isLossless: Bool = true, sourceLocation: SourceLocation = #_sourceLocation) async {
    let (left, right) = (await a.settled(), await b.settled())
    for (gateway, statistics) in [(a, left), (b, right)] {
      statistics.checkBalance(gateway.side, sourceLocation: sourceLocation)
      #expect(
        statistics.freeBuffers == gateway.idleBuffers, "gateway \(gateway.side) still holds buffers of packets",
        sourceLocation: sourceLocation)
    }
    guard isLossless else { return }
    for (sender, receiver, gateway) in [(left, right, b), (right, left, a)] {
      let kernel = (try? await gateway.kernelDrops()) ?? 0
      #expect(
        sender.sealed.packets == receiver.arrived.packets,
        "sealed and lost on the road to \(gateway.side); the kernel there dropped \(kernel)",
        sourceLocation: sourceLocation)
      #expect(receiver.inboundDrops == [], "at \(gateway.side)", sourceLocation: sourceLocation)
    }
  }
}
