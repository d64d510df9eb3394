import PacketIO
import Testing

@testable import Dataplane

/// Looking ahead in a batch changes nothing but time: against the same gateway that gets its packets one by one, where
/// nothing is looked ahead.
@Suite struct LookaheadTests {
  private static let star = Star(peers: 300)
  private static let plain = star.configuration

  /// A UDP packet between this side and a peer.
  private static func packet(_ peer: Int, port: Int, isOutbound: Bool) -> PacketSketch {
    let ends = ("10.1.0.1", Star.address(peer))
    return isOutbound
      ? PacketSketch(ends.0, ends.1, .udp(sourcePort: UInt16(port), destinationPort: 443), payload: [1, 2, 3])
      : PacketSketch(ends.1, ends.0, .udp(sourcePort: 443, destinationPort: UInt16(port)), payload: [4, 5])
  }

  @Test func batchesOfEverySizeAreSealedAlike() {
    let batches = TestGateway(Self.plain, buffers: 200)
    let single = TestGateway(Self.plain, buffers: 200)
    #expect(batches.tables.isLarge)
    var random = SeededNumbers(seed: 1)
    for size in 1...64 {
      // Some go nowhere, and some are no packets.
      let packets = (0..<size).map { _ in
        let peer = Int.random(in: 0..<310, using: &random)
        return peer == 305 ? [0x45, 0, 0] : Self.star.packetTo(peer)
      }
      let together = batches.seal(packets.map { TunPacket($0) }).datagrams
      let oneByOne = packets.flatMap { single.seal($0) }
      #expect(Set(together) == Set(oneByOne) && together.count == oneByOne.count)
    }
    #expect(batches.drops == single.drops)
    #expect(batches.drops[.noRoute] != nil && batches.drops[.malformedPacket] != nil)
  }

  @Test func batchesOfEverySizeAreOpenedAlike() {
    let batches = TestGateway(Self.plain, buffers: 200)
    let single = TestGateway(Self.plain, buffers: 200)
    var random = SeededNumbers(seed: 2)
    for size in 1...64 {
      // Of SPIs that nobody has, and too short to have one.
      let datagrams = (0..<size).map { number in
        switch Int.random(in: 0..<40, using: &random) {
        case 0: [UInt8](repeating: 7, count: 60)
        case 1: [UInt8](repeating: 0, count: Int.random(in: 1..<9, using: &random))
        default:
          Self.star.datagramFrom(Int.random(in: 0..<300, using: &random), sequence: UInt64(size * 64 + number))
        }
      }
      let together = batches.open(datagrams.map { Train($0) }).flatMap(\.packets)
      #expect(together == datagrams.flatMap { single.open($0) })
    }
    #expect(batches.drops == single.drops)
    #expect(batches.drops[.unknownSPI] != nil && batches.drops[.truncated] != nil)
  }

  @Test func flowsAreJudgedAlike() {
    var configuration = Self.plain
    configuration.firewall.mode = .on
    let batches = TestGateway(configuration, buffers: 200)
    let single = TestGateway(configuration, buffers: 200)
    let flows = 9000
    func packet(_ flow: Int, isOutbound: Bool) -> PacketSketch {
      Self.packet(flow % 300, port: 1000 + flow, isOutbound: isOutbound)
    }
    for flow in 0..<flows {
      #expect(single.seal([TunPacket(packet(flow, isOutbound: true))]).count == 1)
    }
    var sealed = 0
    for first in stride(from: 0, to: flows, by: 50) {
      sealed += batches.seal((first..<first + 50).map { TunPacket(packet($0, isOutbound: true)) }).datagrams.count
    }
    #expect(sealed == flows)
    let isLarge = batches.firewall.reference.value.isLarge
    #expect(isLarge)

    // Answers, and what nobody asked for.
    var random = SeededNumbers(seed: 3)
    for round in 1...8 {
      let datagrams = (0..<60).map { number in
        let flow = Int.random(in: 0..<flows + 500, using: &random)
        return SlowESP(Self.star.inbound(flow % 300)).seal(
          packet(flow, isOutbound: false), sequence: UInt64(round * 100 + number))
      }
      let together = batches.open(datagrams.map { Train($0) }).flatMap(\.packets)
      #expect(together == datagrams.flatMap { single.open($0) })
    }
    #expect(batches.drops == single.drops)
    #expect(batches.drops[.firewallDefault] != nil)
  }
}
