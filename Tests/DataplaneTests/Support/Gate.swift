import PacketIO
import Testing

@testable import Dataplane

/// A firewall between 10.1.0.0/16, fd00:1::/32 on this side and the partner "beta" with 10.2.0.0/16, fd00:2::/32, a
/// clock that stands still, and packets written field by field.
///
/// Before each packet is judged, `explain` is asked, and must say the same without changing anything.
final class Gate {
  private(set) var tables: Snapshot
  private var registry: Registry
  var firewall: Firewall
  var now: MonotonicTime
  private let pool = BufferPool(count: 1)
  private let bytes: PacketBytes

  static let local = "10.1.0.1"
  static let remote = "10.2.0.2"
  static let local6 = "fd00:1::1"
  static let remote6 = "fd00:2::2"

  init(
    _ firewall: FirewallConfiguration = FirewallConfiguration(mode: .on), access: [AccessEntry]? = nil,
    now: MonotonicTime = .seconds(1000), seed: UInt64 = 1
  ) {
    registry = Registry(Gate.configuration(firewall, access), sealing: .leftOut, workers: 1, now: now)
    tables = Snapshot(registry.parts(of: 0))
    var random = SeededNumbers(seed: seed)
    self.firewall = Firewall(using: &random)
    self.now = now
    bytes = pool.bytes(pool.take()!)
    self.firewall.adopt(tables.firewall)
  }

  static func configuration(_ firewall: FirewallConfiguration, _ access: [AccessEntry]?) -> Configuration {
    Configuration(
      interface: InterfaceConfiguration(source: .name("none")),
      peers: [
        PeerConfiguration(name: "beta", prefixes: Sites.betaPrefixes, access: access),
        PeerConfiguration(name: "gamma", prefixes: [Prefix("10.3.0.0/16")!]),
      ], firewall: firewall)
  }

  func reload(_ firewall: FirewallConfiguration, access: [AccessEntry]? = nil) {
    reload(Gate.configuration(firewall, access))
  }

  func reload(_ configuration: Configuration) {
    guard let draft = try? registry.draft(configuration, limits: .none) else { return }
    tables = registry.commit(draft, now: now)[0].takeOver(tables)
    firewall.adopt(tables.firewall)
  }

  func takeLog() -> [FirewallLogEntry] {
    let tables = tables
    return firewall.takeLog { tables.record($0)?.configuration.name }
  }

  func wait(_ seconds: Double) { now = now.adding(seconds: seconds) }

  // MARK: Judging

  /// - Parameter length: bytes of the superpacket that the packet begins; nil: it is one alone.
  func verdict(_ packet: [UInt8], _ direction: TrafficDirection, length: Int? = nil) -> Verdict {
    // What lies behind a packet is not to be read.
    bytes.copy([UInt8](repeating: 0xEE, count: packet.count + 64), to: 0)
    bytes.copy(packet, to: 0)
    let window = bytes.slice(0, packet.count)
    guard let parsed = InnerPacket(window) else {
      return Verdict(refusal: .malformedPacket, ground: .none, isKnown: false)
    }
    let slice = window.slice(0, parsed.length)
    let length = length ?? parsed.length
    let before = state
    let explained = firewall.explain(parsed, slice, length: length, direction: direction, now: now)
    #expect(before == state, "explaining a packet has changed something")
    let judged = firewall.judge(
      parsed, slice, length: length, packets: 1, octets: length, direction: direction, now: now)
    #expect(explained == judged)
    return judged
  }

  /// All that could change, but for the logs.
  private var state: [UInt64] {
    var state = [firewall.table.counts.opened, firewall.table.counts.evicted, firewall.table.counts.expired]
    for place in 0..<min(firewall.table.flows.count, 64) {
      let flow = firewall.table.flows[place]
      state += [
        UInt64(flow.lastSeen), UInt64(flow.version), UInt64(flow.phase.rawValue), UInt64(flow.segment.rawValue),
      ]
    }
    return state
  }

  func out(_ sketch: PacketSketch, length: Int? = nil) -> DropReason? {
    verdict(sketch.bytes, .outbound, length: length).refusal
  }

  func back(_ sketch: PacketSketch, length: Int? = nil) -> DropReason? {
    verdict(sketch.bytes, .inbound, length: length).refusal
  }

  /// Flows in all segments, expired ones that were not swept included.
  var flowCount: Int {
    [FlowSegment.pendingOutbound, .pendingInbound, .established, .closed].reduce(0) { $0 + firewall.table.count($1) }
  }
}

extension PacketSketch {
  /// From this side to the partner, and the other way; `v6` picks the addresses.
  static func udp(
    _ direction: TrafficDirection, _ localPort: UInt16, _ remotePort: UInt16, v6: Bool = false,
    payload: [UInt8] = [1, 2]
  ) -> PacketSketch {
    let outward = direction == .outbound
    return PacketSketch(
      direction, v6: v6,
      .udp(sourcePort: outward ? localPort : remotePort, destinationPort: outward ? remotePort : localPort),
      payload: payload)
  }

  init(_ direction: TrafficDirection, v6: Bool = false, _ body: Body, payload: [UInt8] = []) {
    let local = v6 ? Gate.local6 : Gate.local
    let remote = v6 ? Gate.remote6 : Gate.remote
    self.init(
      direction == .outbound ? local : remote, direction == .outbound ? remote : local, body, payload: payload)
  }

  /// An ICMP or ICMPv6 message with the right checksum: type, code, the four bytes behind, and the rest.
  static func icmp(
    _ direction: TrafficDirection, _ type: UInt8, code: UInt8 = 0, word: UInt32 = 0, v6: Bool = false,
    rest: [UInt8] = []
  ) -> PacketSketch {
    var sketch = PacketSketch(direction, v6: v6, .other(v6 ? 58 : 1))
    sketch.setICMP(type, code: code, word: word, rest: rest)
    return sketch
  }

  mutating func setICMP(_ type: UInt8, code: UInt8, word: UInt32, rest: [UInt8]) {
    var message = [type, code, 0, 0] + be32(word) + rest
    let pseudo = isV4 ? [] : pseudoHeader(source, destination, 58, length: message.count)
    message.replaceSubrange(2..<4, with: be16(~onesComplementSum(pseudo + message)))
    body = .other(isV4 ? 1 : 58)
    payload = message
  }

  /// An error about `packet`, sent back to its source by `router`.
  static func error(
    _ type: UInt8, code: UInt8 = 0, about packet: PacketSketch, from router: String? = nil, quoting bytes: Int = 1 << 16
  ) -> PacketSketch {
    var sketch = packet
    sketch.source = router.flatMap { IPAddress($0) } ?? packet.destination
    sketch.destination = packet.source
    sketch.extensions = []
    sketch.options = []
    sketch.fragment = nil
    sketch.setICMP(type, code: code, word: 0, rest: Array(packet.bytes.prefix(bytes)))
    return sketch
  }
}
