import PacketIO
import Testing

@testable import Dataplane

/// Well-behaved hosts on a bad network: whatever loss, repetition, reordering and gathering of segments come together,
/// the firewall refuses none of their packets.
@Suite struct FirewallTransferTests {
  /// One host's half of a connection, sending an endless stream and acknowledging the other's.
  private struct Host {
    let initial: UInt32
    let scale: UInt8?
    /// Offsets of the stream: acknowledged, sent, received in order.
    var acknowledged: UInt64 = 0
    var sent: UInt64 = 0
    var received: UInt64 = 0
    /// Pieces received ahead of order.
    var ahead: [Range<UInt64>] = []
    /// Where the other host may send to, and where this one may.
    var edge: UInt64 = 0
    var limit: UInt64 = 0

    mutating func receive(_ piece: Range<UInt64>) {
      ahead.append(piece)
      ahead.sort { $0.lowerBound < $1.lowerBound }
      while let first = ahead.first, first.lowerBound <= received {
        received = max(received, first.upperBound)
        ahead.removeFirst()
      }
    }
  }

  private struct Packet {
    var from: TrafficDirection
    var flags = TCPFlags.ack
    var piece: Range<UInt64>
    var acknowledges: UInt64
    var window: UInt64
  }

  @Test(arguments: 1...24)
  func nothingOfAnHonestTransferIsRefused(seed: Int) {
    var numbers = SeededNumbers(seed: UInt64(seed))
    func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &numbers) < percent }
    let gate = Gate()
    let scale: UInt8? = chance(70) ? UInt8.random(in: 0...14, using: &numbers) : nil
    let initial = [UInt32.random(in: .min ... .max, using: &numbers), UInt32.max - 5000]
    var hosts: [TrafficDirection: Host] = [
      .outbound: Host(initial: initial[0], scale: scale), .inbound: Host(initial: initial[1], scale: scale),
    ]
    let lossy = seed % 3 == 0 ? 15 : seed % 3
    let unit: UInt64 = scale.map { 1 << UInt64($0) } ?? 1
    var refused = 0

    func judge(_ packet: Packet, isSyn: Bool = false) {
      let own = hosts[packet.from]!
      let other = hosts[packet.from.opposite]!
      let outward = packet.from == .outbound
      var tcp = PacketSketch.TCP(sourcePort: outward ? 40000 : 443, destinationPort: outward ? 443 : 40000)
      tcp.flags = packet.flags
      tcp.sequence = own.initial &+ (isSyn ? 0 : 1) &+ UInt32(truncatingIfNeeded: packet.piece.lowerBound)
      tcp.acknowledgement = other.initial &+ 1 &+ UInt32(truncatingIfNeeded: packet.acknowledges)
      tcp.window = UInt16(isSyn ? min(packet.window, 65535) : packet.window / unit)
      if isSyn, let scale { tcp.options = [3, 3, scale, 0] }
      let header = isSyn && scale != nil ? 44 : 40
      let sketch = PacketSketch(packet.from, .tcp(tcp))
      let length = header + packet.piece.count
      if (outward ? gate.out(sketch, length: length) : gate.back(sketch, length: length)) != nil { refused += 1 }
    }

    func offer(_ direction: TrafficDirection) -> UInt64 {
      // Any window, but its right edge never goes back (RFC 9293 §3.8.6).
      let host = hosts[direction]!
      let least = max(host.edge, host.received) - host.received
      let most = min(65535 * unit, 8 << 20)
      let wish = chance(5) ? 0 : UInt64.random(in: 0...most, using: &numbers)
      let window = min(max(least.roundedUp(to: unit), wish / unit * unit), 65535 * unit)
      hosts[direction]!.edge = host.received + window
      return window
    }

    // The handshake; windows of SYNs are not scaled.
    for direction in [TrafficDirection.outbound, .inbound] {
      hosts[direction]!.edge = 20000
      hosts[direction.opposite]!.limit = 20000
      judge(
        Packet(
          from: direction, flags: direction == .outbound ? TCPFlags.syn : TCPFlags.syn | TCPFlags.ack, piece: 0..<0,
          acknowledges: 0, window: 20000), isSyn: true)
    }
    judge(Packet(from: .outbound, piece: 0..<0, acknowledges: 0, window: UInt64(20000).roundedUp(to: unit)))
    hosts[.outbound]!.edge = UInt64(20000).roundedUp(to: unit)

    /// On the way to the gate, and from the gate to the other host.
    var flying: [Packet] = []
    for _ in 0..<4000 {
      let direction: TrafficDirection = chance(50) ? .outbound : .inbound
      let host = hosts[direction]!
      var piece = host.sent..<host.sent
      if chance(10), host.acknowledged < host.sent {
        // Sent again, cut otherwise than before.
        let start = chance(50) ? host.acknowledged : UInt64.random(in: host.acknowledged..<host.sent, using: &numbers)
        piece = start..<min(start + UInt64.random(in: 1...64000, using: &numbers), host.sent)
      } else if chance(70), host.sent < host.limit {
        piece = host.sent..<min(host.sent + UInt64.random(in: 1...64000, using: &numbers), host.limit)
        hosts[direction]!.sent = piece.upperBound
      } else if host.sent == host.limit, chance(20), host.acknowledged == host.sent {
        // A probe of a closed window.
        piece = host.sent..<host.sent + 1
        hosts[direction]!.sent += 1
      } else if chance(10), host.sent > 0 {
        // A keep-alive.
        piece = host.sent - 1..<host.sent - 1
      }
      flying.append(Packet(from: direction, piece: piece, acknowledges: host.received, window: offer(direction)))
      // Packets of one host keep their order up to the gate; then they may be lost or overtake each other.
      while flying.count > (chance(50) ? 3 : 0) {
        let index = chance(80) ? 0 : Int.random(in: flying.indices, using: &numbers)
        let packet = flying.remove(at: flying.firstIndex { $0.from == flying[index].from }!)
        judge(packet)
        guard !chance(lossy) else { continue }
        let to = packet.from.opposite
        // Of a probe beyond the window its receiver keeps nothing.
        let end = min(packet.piece.upperBound, hosts[to]!.edge)
        if packet.piece.lowerBound < end { hosts[to]!.receive(packet.piece.lowerBound..<end) }
        hosts[to]!.acknowledged = max(hosts[to]!.acknowledged, packet.acknowledges)
        hosts[to]!.limit = max(hosts[to]!.limit, packet.acknowledges + packet.window)
      }
    }
    #expect(refused == 0)
    #expect(hosts[.outbound]!.received > 100_000 && hosts[.inbound]!.received > 100_000)
    #expect(gate.firewall.table.count(.established) == 1)
    #expect(gate.firewall.table.flows[0].isLoose == false)
  }
}

extension UInt64 {
  fileprivate func roundedUp(to unit: UInt64) -> UInt64 { (self + unit - 1) / unit * unit }
}
