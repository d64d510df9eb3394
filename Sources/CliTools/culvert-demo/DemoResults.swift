import Dataplane
import Gateway
import Lab

/// What the demonstration found, and whether it is what it should be.
struct DemoResults {
  struct Ping {
    var trip: DemoSites.Trip
    var sent: Int
    /// Microseconds.
    var times: Samples
  }
  struct Transfer {
    var trip: DemoSites.Trip
    var result: BulkTransfer.Result
  }

  var cipher: String
  var pings: [Ping] = []
  var transfers: [Transfer] = []
  var wire = WireTap.Record()
  var lan = WireTap.Record()
  var gateways: [GatewayReport] = []

  init(cipher: String) { self.cipher = cipher }

  /// What is wrong; nil: nothing.
  var failure: String? {
    if let bad = pings.first(where: { $0.times.count * 2 < $0.sent }) {
      return "pings from \(bad.trip.from) to \(bad.trip.address) were lost: \(bad.times.count) of \(bad.sent) came back"
    }
    if let bad = transfers.first(where: { !$0.result.isIntact }) {
      return "what \(bad.trip.to) received is not what \(bad.trip.from) sent"
    }
    if wire.revealing > 0 { return "\(wire.revealing) frames on the wire could be read" }
    if wire.frames[.other, default: 0] > 0 { return "frames that are not ESP were on the wire" }
    if wire.frames[.esp, default: 0] == 0 { return "no ESP packet was on the wire" }
    if let bad = gateways.first(where: { !$0.statistics.isBalanced }) {
      return "the counters of gateway \(bad.name) do not add up"
    }
    return nil
  }

  var areCountersBalanced: Bool { gateways.allSatisfy(\.statistics.isBalanced) }

  var text: String {
    var lines = ["What happened", "─────────────"]
    for transfer in transfers {
      let result = transfer.result
      lines.append(
        "\(transfer.trip.from) → \(transfer.trip.to): \(result.bytes >> 20) MiB in \(DemoScreen.fixed(result.seconds, 1)) s, "
          + "\(DemoScreen.fixed(result.bitsPerSecond / 1e9, 2)) Gbit/s, \(result.retransmits) retransmits; "
          + (result.isIntact ? "both ends computed digest \(digest(result))" : "the DIGESTS DIFFER"))
    }
    for ping in pings {
      lines.append(
        "ping \(ping.trip.from) → \(ping.trip.address): median \(Int(ping.times.median)), 90 % within "
          + "\(Int(ping.times.percentile(0.9))), longest \(Int(ping.times.max)) µs")
    }
    lines += [""] + wireLines + [""] + gateways.flatMap(counterLines)
    return lines.map { $0.isEmpty ? "" : "  " + $0 }.joined(separator: "\n")
  }

  private func digest(_ result: BulkTransfer.Result) -> String {
    let text = String(result.digests.first?.received ?? 0, radix: 16)
    return String(repeating: "0", count: 16 - text.count) + text
  }

  private var wireLines: [String] {
    let kinds = WireTap.Kind.allCases.compactMap { kind in wire.frames[kind].map { "\($0) \(kind.rawValue)" } }
    var lines = [
      "While we pinged, the wire carried: \(kinds.joined(separator: ", ")).",
      "The pings' text was seen on \(lan.revealing) frames of the LAN and on \(wire.revealing) of the wire. One sealed packet:",
    ]
    lines += SealedPacketText(Array(wire.example.prefix(96))).lines.map { "  " + $0 }
    return lines
  }

  private func counterLines(_ gateway: GatewayReport) -> [String] {
    let statistics = gateway.statistics
    // The kernel tells multicast routers about each device's groups, and no peer is one.
    func hint(_ count: DropCount) -> String {
      count.reason == .noRoute && count.packets < 20 ? " (the kernel's own multicast reports)" : ""
    }
    func drops(_ counts: [DropCount]) -> String {
      let occurred = counts.filter { $0.packets > 0 }
      return occurred.isEmpty
        ? "none dropped"
        : "dropped "
          + occurred.map { "\(DemoScreen.grouped($0.packets)) \($0.reason.name)\(hint($0))" }.joined(separator: ", ")
    }
    let control = statistics.controlReceived
    return [
      "gateway \(gateway.name): \(DemoScreen.grouped(statistics.sealed.packets)) packets sealed of "
        + "\(DemoScreen.grouped(statistics.outbound.packets)), \(drops(statistics.outboundDrops)); "
        + "\(DemoScreen.grouped(statistics.delivered.packets)) opened of "
        + "\(DemoScreen.grouped(statistics.arrived.packets)), \(control) probes of the path among them, "
        + drops(statistics.inboundDrops)
    ]
  }
}

extension Statistics {
  /// Packets in are packets out plus drops, in both directions; control messages are nobody's packets.
  fileprivate var isBalanced: Bool {
    outbound.packets == sealed.packets + outboundDrops.reduce(0) { $0 + $1.packets }
      && arrived.packets == delivered.packets + controlReceived + inboundDrops.reduce(0) { $0 + $1.packets }
  }
}

/// A sealed packet, taken apart for people: everything that a bystander can know of it.
struct SealedPacketText {
  let lines: [String]

  /// - Parameter packet: from the IPv4 header on, possibly cut.
  init(_ packet: [UInt8]) {
    guard packet.count >= 44, packet[0] >> 4 == 4 else {
      lines = ["(none was seen)"]
      return
    }
    func number(_ offset: Int, _ count: Int) -> UInt32 {
      packet[offset..<offset + count].reduce(0) { $0 << 8 | UInt32($1) }
    }
    func address(_ offset: Int) -> String { packet[offset..<offset + 4].map(String.init).joined(separator: ".") }
    func hex(_ bytes: some Sequence<UInt8>) -> String {
      bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: " ")
    }
    let udp = Int(packet[0] & 15) * 4
    let esp = udp + 8
    lines = [
      "IP    \(address(12)) → \(address(16)), \(number(2, 2)) bytes",
      "UDP   \(number(udp, 2)) → \(number(udp + 2, 2))",
      "ESP   SPI 0x\(String(number(esp, 4), radix: 16)), sequence \(number(esp + 4, 4)), IV \(hex(packet[(esp + 8)..<(esp + 16)]))",
      "      \(hex(packet[(esp + 16)...].prefix(24))) … and so on, unreadable",
    ]
  }
}
