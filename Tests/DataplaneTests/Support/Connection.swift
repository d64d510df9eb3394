import PacketIO
import Testing

@testable import Dataplane

/// Two well-behaved TCP hosts, one on either side of a gate, that keep count of their numbers. What they send is
/// expected to pass.
final class Connection {
  struct End {
    var next: UInt32
    var window: UInt16
    /// Offered, and in use when both have.
    var scale: UInt8?
  }

  let gate: Gate
  let opener: TrafficDirection
  let localPort: UInt16
  let remotePort: UInt16
  let v6: Bool
  /// By direction of what they send: ours, the partner's.
  var ends: [TrafficDirection: End]

  init(
    _ gate: Gate, opener: TrafficDirection, localPort: UInt16 = 40000, remotePort: UInt16 = 443, v6: Bool = false,
    sequences: (UInt32, UInt32) = (1000, 5000), scales: (UInt8?, UInt8?) = (7, 7),
    windows: (UInt16, UInt16) = (64240, 65160)
  ) {
    self.gate = gate
    self.opener = opener
    self.localPort = localPort
    self.remotePort = remotePort
    self.v6 = v6
    ends = [
      .outbound: End(next: sequences.0, window: windows.0, scale: scales.0),
      .inbound: End(next: sequences.1, window: windows.1, scale: scales.1),
    ]
  }

  /// A packet as `direction`'s host would send it now, with any of its fields changed.
  func packet(
    _ direction: TrafficDirection, _ flags: UInt8 = TCPFlags.ack, sequence: UInt32? = nil,
    acknowledgement: UInt32? = nil,
    payload: Int = 0, window: UInt16? = nil
  ) -> PacketSketch {
    let own = ends[direction]!
    let other = ends[direction.opposite]!
    let outward = direction == .outbound
    var tcp = PacketSketch.TCP(
      sourcePort: outward ? localPort : remotePort, destinationPort: outward ? remotePort : localPort)
    tcp.sequence = sequence ?? own.next
    tcp.acknowledgement = flags & TCPFlags.ack != 0 ? acknowledgement ?? other.next : acknowledgement ?? 0
    tcp.flags = flags
    tcp.window = window ?? own.window
    if flags & TCPFlags.syn != 0, let scale = own.scale { tcp.options = [2, 4, 5, 0xB4, 1, 3, 3, scale] }
    return PacketSketch(direction, v6: v6, .tcp(tcp), payload: [UInt8](repeating: 0x5A, count: payload))
  }

  /// Judges a packet.
  func judge(_ packet: PacketSketch, length: Int? = nil) -> DropReason? {
    let outward = packet.source == IPAddress(v6 ? Gate.local6 : Gate.local)!
    return outward ? gate.out(packet, length: length) : gate.back(packet, length: length)
  }

  /// A packet that must pass; its numbers are used up.
  func pass(
    _ direction: TrafficDirection, _ flags: UInt8 = TCPFlags.ack, payload: Int = 0, window: UInt16? = nil,
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    let verdict = judge(packet(direction, flags, payload: payload, window: window))
    #expect(verdict == nil, sourceLocation: sourceLocation)
    ends[direction]!.next &+= UInt32(payload) &+ (flags & (TCPFlags.syn | TCPFlags.fin) != 0 ? 1 : 0)
  }

  /// The handshake.
  func open(sourceLocation: SourceLocation = #_sourceLocation) {
    pass(opener, TCPFlags.syn, sourceLocation: sourceLocation)
    pass(opener.opposite, TCPFlags.syn | TCPFlags.ack, sourceLocation: sourceLocation)
    pass(opener, sourceLocation: sourceLocation)
  }

  /// Payload in one superpacket, and its acknowledgement.
  func send(_ direction: TrafficDirection, _ bytes: Int, sourceLocation: SourceLocation = #_sourceLocation) {
    pass(direction, TCPFlags.ack | TCPFlags.psh, payload: bytes, sourceLocation: sourceLocation)
    pass(direction.opposite, sourceLocation: sourceLocation)
  }

  /// FIN from either side, acknowledged.
  func close(sourceLocation: SourceLocation = #_sourceLocation) {
    pass(opener, TCPFlags.fin | TCPFlags.ack, sourceLocation: sourceLocation)
    pass(opener.opposite, sourceLocation: sourceLocation)
    pass(opener.opposite, TCPFlags.fin | TCPFlags.ack, sourceLocation: sourceLocation)
    pass(opener, sourceLocation: sourceLocation)
  }

  /// What the table has of it.
  var flow: Flow? {
    let key = FlowKey(
      local: IPAddress(v6 ? Gate.local6 : Gate.local)!, remote: IPAddress(v6 ? Gate.remote6 : Gate.remote)!,
      transport: 6,
      localPort: localPort, remotePort: remotePort)
    let place = gate.firewall.table.find(key, tag: gate.firewall.table.tag(key))
    return place < 0 ? nil : gate.firewall.table.flows[place]
  }
}
