import PacketIO
import Testing

@testable import Dataplane

/// The short way for packets of established flows comes to the same as the long way, in verdicts and in what is
/// remembered.
@Suite struct FirewallShortWayTests {
  /// Packets that have much to do with each other: few hosts, few ports, numbers near each other.
  private struct Chaos {
    var numbers: SeededNumbers

    mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &numbers) < percent }
    mutating func pick<T>(_ list: [T]) -> T { list[Int.random(in: list.indices, using: &numbers)] }

    mutating func packet(_ direction: TrafficDirection) -> PacketSketch {
      let v6 = chance(30)
      let (local, remote) = (pick([80, 40000] as [UInt16]), pick([80, 40000] as [UInt16]))
      let outward = direction == .outbound
      let (source, destination) = outward ? (local, remote) : (remote, local)
      switch Int.random(in: 0..<20, using: &numbers) {
      case 0..<13:
        var tcp = PacketSketch.TCP(sourcePort: source, destinationPort: destination)
        let base: UInt32 = outward ? 0xFFFF_FF00 : 5000
        let other: UInt32 = outward ? 5000 : 0xFFFF_FF00
        tcp.sequence = base &+ pick([0, 1, 1, 1, 2, 101, 70000, 0x4000_0000])
        tcp.acknowledgement = other &+ pick([0, 1, 1, 1, 2, 101])
        tcp.flags = pick([
          TCPFlags.syn, TCPFlags.syn | TCPFlags.ack, TCPFlags.ack, TCPFlags.ack, TCPFlags.ack,
          TCPFlags.ack | TCPFlags.psh,
          TCPFlags.ack | TCPFlags.urg, TCPFlags.fin | TCPFlags.ack, TCPFlags.rst, 0,
        ])
        tcp.window = pick([0, 1, 1000, 65535])
        if tcp.flags & TCPFlags.syn != 0, chance(70) { tcp.options = [3, 3, pick([0, 7, 14, 200]), 0] }
        return PacketSketch(direction, v6: v6, .tcp(tcp), payload: [UInt8](repeating: 1, count: pick([0, 0, 1, 100])))
      case 13..<17: return .udp(direction, local, remote, v6: v6)
      case 17: return .icmp(direction, pick(v6 ? [128, 129] : [8, 0]), word: 0x0001_0000, v6: v6)
      case 18: return .error(v6 ? 1 : 3, code: 3, about: packet(direction.opposite))
      default:
        var sketch = PacketSketch.udp(direction, local, remote, v6: v6, payload: [UInt8](repeating: 2, count: 16))
        sketch.fragment = (offset: pick([0, 3]), more: chance(50))
        return sketch
      }
    }
  }

  @Test(arguments: 1...12) func comesToTheSame(seed: UInt64) {
    var chaos = Chaos(numbers: SeededNumbers(seed: seed))
    let rules = [
      FirewallRule(number: 1, protocol: .udp, direction: .inbound, destinationPorts: 80...80, action: .allow),
      FirewallRule(number: 2, protocol: .tcp, direction: .inbound, destinationPorts: 80...80, action: .allow),
    ]
    let configurations = [
      FirewallConfiguration(mode: .on, rules: rules, flowCapacity: 3, pendingCapacity: 3),
      FirewallConfiguration(mode: .on, rules: [rules[0]], flowCapacity: 3, pendingCapacity: 3),
    ]
    let (short, long) = (Gate(configurations[0]), Gate(configurations[0]))
    long.firewall.usesShortWay = false
    var passed = 0
    for step in 0..<4000 {
      let direction: TrafficDirection = chaos.chance(50) ? .outbound : .inbound
      let bytes = chaos.packet(direction).bytes
      let verdict = short.verdict(bytes, direction)
      #expect(verdict == long.verdict(bytes, direction), "step \(step)")
      if verdict.passes { passed += 1 }
      if chaos.chance(1) {
        let seconds = Double(chaos.pick([1, 100, 200, 5000]))
        for gate in [short, long] { gate.wait(seconds) }
      }
      if chaos.chance(1) {
        let configuration = chaos.pick(configurations)
        for gate in [short, long] { gate.reload(configuration) }
      }
    }
    #expect(passed > 500)
    #expect(state(short) == state(long))
    #expect(short.firewall.report() == long.firewall.report())
  }

  private func state(_ gate: Gate) -> [String] {
    var flows: [String] = []
    for place in 0..<gate.firewall.table.flows.count {
      let flow = gate.firewall.table.flows[place]
      guard flow.segment != .free else { continue }
      flows.append(
        "\(flow.key) \(flow.lastSeen) \(flow.phase) \(flow.segment) \(flow.isLoose) \(flow.ground) \(flow.connection)")
    }
    return flows
  }
}
