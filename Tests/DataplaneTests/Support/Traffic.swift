import PacketIO

@testable import Dataplane

/// Random flows between two sites: what a kernel hands over, superpackets and single packets of all kinds mixed.
struct Traffic {
  /// A packet of the TUN device, and what it is when it has been completed and cut: the oracle's answer.
  struct Item {
    var packet: TunPacket
    var segments: [SlowPacket]
  }

  private struct Flow {
    /// The next packet, but for its payload.
    var sketch: PacketSketch
    var segmentSize: Int
  }

  private var numbers: SeededNumbers
  private var flows: [Flow] = []
  private let sources: [String]
  private let destinations: [String]
  private let superpackets: Bool

  /// - Parameters:
  ///   - sources: an IPv4 and an IPv6 address, as `destinations`.
  ///   - superpackets: also hands over packets that are to be cut, or completed.
  init(
    seed: UInt64, flows count: Int, from sources: [String] = ["10.1.0.1", "fd00:1::1"],
    to destinations: [String] = ["10.2.0.1", "fd00:2::1"], superpackets: Bool = true
  ) {
    numbers = SeededNumbers(seed: seed)
    self.sources = sources
    self.destinations = destinations
    self.superpackets = superpackets
    for _ in 0..<count { flows.append(newFlow()) }
  }

  private mutating func pick<T>(_ choices: [T]) -> T { choices[Int.random(in: choices.indices, using: &numbers)] }
  private mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &numbers) < percent }
  private mutating func word() -> UInt32 { UInt32(truncatingIfNeeded: numbers.next()) }

  // MARK: Flows

  private mutating func newFlow() -> Flow {
    let family = Int.random(in: 0...1, using: &numbers)
    var sketch = PacketSketch(sources[family], destinations[family], newBody(isV4: family == 0))
    sketch.dontFragment = chance(70)
    sketch.identification = UInt16(truncatingIfNeeded: word())
    sketch.ttl = UInt8.random(in: 1...255, using: &numbers)
    sketch.tos = pick([0, 2, 0xB8])
    sketch.flowLabel = pick([0, 0xFFFFF, 12345])
    if chance(15) {
      sketch.options = numbers.bytes(pick([4, 40]))
      sketch.extensions = [(type: 60, rest: [0] + numbers.bytes(6))]
      if chance(50) { sketch.extensions.insert((type: 0, rest: [1] + numbers.bytes(14)), at: 0) }
    }
    return Flow(sketch: sketch, segmentSize: pick([1, 7, 19, 100, 536, 1200, 1348, 1361]))
  }

  private mutating func newBody(isV4: Bool) -> PacketSketch.Body {
    let source = UInt16.random(in: 1...4, using: &numbers)
    let destination = UInt16.random(in: 1...4, using: &numbers)
    switch Int.random(in: 0..<6, using: &numbers) {
    case 0: return .other(isV4 ? 1 : 58)
    case 1: return .other(pick([47, 50, 132, 59]))
    case 2, 3: return .udp(sourcePort: source, destinationPort: destination)
    default:
      var tcp = PacketSketch.TCP(sourcePort: source, destinationPort: destination)
      tcp.sequence = chance(50) ? 0xFFFF_F000 : word()
      tcp.acknowledgement = word()
      tcp.options = pick([[], [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8], numbers.bytes(40)])
      return .tcp(tcp)
    }
  }

  // MARK: Packets

  /// The next packet of a random flow.
  mutating func next() -> Item {
    let index = Int.random(in: flows.indices, using: &numbers)
    if chance(3) { flows[index] = newFlow() }
    var flow = flows[index]
    vary(&flow)
    var sketch = flow.sketch
    let hasPorts = sketch.transport == 6 || sketch.transport == 17
    let cut = hasPorts && superpackets && chance(60)
    sketch.payload = numbers.bytes(payloadLength(flow, cut: cut))
    advance(&flow, sketch)

    let packet: TunPacket
    if cut {
      packet = TunPacket(sketch, segmentSize: flow.segmentSize)
    } else if hasPorts, superpackets, chance(40) {
      packet = TunPacket(sketch)
    } else {
      spoil(&sketch)
      packet = TunPacket(sketch.bytes)
    }
    var segments = [SlowPacket(packet.bytes)]
    if cut {
      segments = segments[0].segments(of: flow.segmentSize)
    } else if packet.offload.needsChecksum {
      segments[0].writeTransportChecksum()
    }
    flow.sketch.identification &+= UInt16(segments.count) &+ (chance(5) ? 7 : 0)
    flows[index] = flow
    return Item(packet: packet, segments: segments)
  }

  private mutating func payloadLength(_ flow: Flow, cut: Bool) -> Int {
    guard cut else { return pick([0, 1, flow.segmentSize, flow.segmentSize, flow.segmentSize, 1400]) }
    let most = min(pick([2, 3, 5, 17, 64]) * flow.segmentSize, 65535 - 40 - flow.sketch.transportOffset - 20)
    return chance(50) ? most : Int.random(in: 1...most, using: &numbers)
  }

  /// Now and then a flow changes what must keep packets apart.
  private mutating func vary(_ flow: inout Flow) {
    if chance(2) { flow.sketch.ttl ^= 1 }
    if chance(2) { flow.sketch.tos ^= 1 }
    if chance(2) { flow.sketch.flowLabel ^= 1 }
    if chance(2) { flow.sketch.dontFragment.toggle() }
    guard case .tcp(var tcp) = flow.sketch.body else { return }
    tcp.flags = TCPFlags.ack
    if chance(20) { tcp.flags |= TCPFlags.psh }
    if chance(5) {
      tcp.flags |= pick([TCPFlags.fin, TCPFlags.cwr, TCPFlags.ece, TCPFlags.urg, TCPFlags.syn, TCPFlags.rst])
    }
    if chance(5) { tcp.window &+= 1 }
    if chance(5) { tcp.acknowledgement &+= 100 }
    if chance(2) { tcp.options = numbers.bytes(tcp.options.count) }
    flow.sketch.body = .tcp(tcp)
  }

  /// What follows continues the sequence, mostly.
  private mutating func advance(_ flow: inout Flow, _ sketch: PacketSketch) {
    guard case .tcp(var tcp) = flow.sketch.body else { return }
    tcp.sequence &+= UInt32(sketch.payload.count)
    if chance(3) { tcp.sequence &+= 1 }
    flow.sketch.body = .tcp(tcp)
  }

  /// Makes of some packets what must pass unchanged: fragments, and packets with no checksum or a wrong one.
  private mutating func spoil(_ sketch: inout PacketSketch) {
    if chance(3) { sketch.checksumField = .wrong }
    if chance(3) { sketch.wrongHeaderChecksum = true }
    if chance(10), case .udp(let source, let destination, _) = sketch.body {
      sketch.body = .udp(sourcePort: source, destinationPort: destination, hasChecksum: false)
    }
    if chance(4) { sketch.fragment = chance(50) ? (offset: 0, more: true) : (offset: 185, more: chance(50)) }
  }
}
