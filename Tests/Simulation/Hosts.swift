import PacketIO
import TestSupport

@testable import Dataplane

/// The hosts behind all gateways: what they send next.
struct Hosts {
  /// What hosts behind one gateway send to hosts behind another at one moment.
  struct Burst {
    var packets: [Model.Sent] = []
    var pieces: [Gateway.Piece] = []
  }

  let plan: Plan
  /// By gateway with one worker, the peers it cannot send to by the tables that are in force.
  private var lacks: [(peers: Set<Int>, keys: Set<Int>)]

  init(_ plan: Plan) {
    self.plan = plan
    lacks = Array(repeating: ([], []), count: plan.gateways)
  }

  /// A gateway has other tables.
  mutating func adopt(_ configuration: Configuration, at gateway: Int) {
    lacks[gateway] = ([], [])
    for peer in 0..<plan.gateways where peer != gateway {
      let row = configuration.peers.first { $0.name == Plan.name(peer) }
      if row == nil {
        lacks[gateway].peers.insert(peer)
      } else if row?.outbound == nil {
        lacks[gateway].keys.insert(peer)
      }
    }
  }

  /// - Parameters:
  ///   - count: of packets.
  ///   - number: of the first.
  ///   - names: where addresses are translated, by which address a sender knows the receiver, and that one it.
  func burst(
    of count: Int, from gateway: Int, to other: Int, number: UInt64,
    names: (destination: IPAddress, source: IPAddress)?, now: MonotonicTime, _ numbers: inout SeededNumbers
  ) -> Burst {
    var burst = Burst()
    for index in 0..<count {
      var next = packet(from: gateway, to: other, names, &numbers)
      next.time = now
      burst.add(next, number: number + UInt64(index))
    }
    if let first = burst.packets.first, first.verdict == .arrives, first.packet.shape == .udp, count > 1,
      plan.joins(gateway), numbers.chance(500)
    {
      join(&burst, first)
    }
    return burst
  }

  /// Makes one piece of it, all of it like its first packet.
  private func join(_ burst: inout Burst, _ first: Model.Sent) {
    let count = burst.packets.count
    burst = Burst()
    for index in 0..<count {
      var next = first
      next.followers = count - 1 - index
      burst.add(next, number: first.packet.number + UInt64(index))
    }
    burst.pieces = [
      Gateway.Piece(
        bytes: first.packet.joined(count), count: count, segmentSize: first.packet.size - Packet.udpHeader)
    ]
  }

  /// A packet, which may be one that must not arrive.
  private func packet(
    from gateway: Int, to other: Int, _ names: (destination: IPAddress, source: IPAddress)?,
    _ numbers: inout SeededNumbers
  ) -> Model.Sent {
    let shape: Packet.Shape = names == nil && numbers.chance(200) ? .other : .udp
    var packet = Packet(
      shape: shape, size: plan.sizes[numbers.below(plan.sizes.count)],
      ports: (UInt16(5000 + numbers.below(30)), 7), source: plan.host(gateway, shape),
      destination: plan.host(other, shape))
    var sent = Model.Sent(packet: packet, from: gateway, to: other)
    if let names {
      sent.packet.destination = names.destination
      packet.source = names.source
      sent.seen = packet
    } else if numbers.chance(plan.forbidden) {
      forbid(&sent, &numbers)
    }
    if lacks[gateway].peers.contains(other) { sent.verdict = .goesNowhere }
    if lacks[gateway].keys.contains(other), sent.verdict != .goesNowhere { sent.verdict = .isUnsealed }
    return sent
  }

  private func forbid(_ sent: inout Model.Sent, _ numbers: inout SeededNumbers) {
    let isV4 = sent.packet.shape == .udp
    switch numbers.below(3) {
    case 0 where !plan.isWide:
      sent.verdict = .goesNowhere
      sent.packet.destination = isV4 ? IPAddress(v4: 0x0AFA_0001) : IPAddress("fd00:fa::1")!
    case 1 where plan.isWide:
      sent.verdict = .isSpoofed
      sent.packet.source = plan.host(sent.to, sent.packet.shape)
    case 1:
      sent.verdict = .isSpoofed
      sent.packet.source = isV4 ? IPAddress(v4: 0x0AFD_0001) : IPAddress("fd00:fd::1")!
    default:
      guard plan.hasFirewall, isV4 else { return }
      sent.verdict = .isForbidden
      sent.packet.ports.destination = Plan.refusedPort
    }
  }
}

extension Hosts.Burst {
  fileprivate mutating func add(_ sent: Model.Sent, number: UInt64) {
    var sent = sent
    sent.packet.number = number
    sent.seen?.number = number
    packets.append(sent)
    pieces.append(Gateway.Piece(bytes: sent.packet.bytes))
  }
}
