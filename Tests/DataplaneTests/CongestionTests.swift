import PacketIO
import Testing

@testable import Dataplane

/// Congestion marks and traffic classes on their way in and out of the tunnel (RFC 6040, RFC 2983).
@Suite struct CongestionTests {
  private static let notECT: UInt8 = 0, ect1: UInt8 = 1, ect0: UInt8 = 2, ce: UInt8 = 3

  /// RFC 6040 §4.2, figure 4: rows are inner marks, columns outer ones; nil: dropped.
  private static let exit: [[UInt8?]] = [
    // Not-ECT, ECT(1), ECT(0), CE outside
    [notECT, notECT, notECT, nil],
    [ect1, ect1, ect1, ce],
    [ect0, ect1, ect0, ce],
    [ce, ce, ce, ce],
  ]

  private func sketch(_ tos: UInt8, isV4: Bool, index: Int = 0) -> PacketSketch {
    var sketch = PacketSketch(
      isV4 ? "10.1.0.1" : "fd00:1::1", isV4 ? "10.2.0.1" : "fd00:2::1", .udp(sourcePort: 1, destinationPort: 2),
      payload: [UInt8](repeating: UInt8(index), count: 50))
    sketch.tos = tos
    sketch.flowLabel = 0xABCDE
    sketch.identification = UInt16(index)
    return sketch
  }

  @Test(arguments: 0..<4 as Range<UInt8>, [true, false])
  func marksComeIn(inner: UInt8, isV4: Bool) {
    for outer in 0..<4 as Range<UInt8> {
      for dscp in [0, 0xB8] as [UInt8] {
        let beta = Sites().beta()
        let datagram = SlowESP(Sites()).seal(sketch(dscp | inner, isV4: isV4), sequence: 1)
        // The outer code point is not the inner packet's business.
        let opened = beta.open([Train(datagram, trafficClass: 0x28 | outer)]).flatMap(\.packets)
        if let mark = Self.exit[Int(inner)][Int(outer)] {
          #expect(opened == [sketch(dscp | mark, isV4: isV4).bytes], "\(outer) outside")
          #expect(beta.drops == [:])
        } else {
          #expect(opened == [] && beta.drops == [.congestionExperienced: 1])
        }
      }
    }
  }

  /// Marked or not, packets of a flow are merged only with their like.
  @Test func aMarkedTrainIsMerged() {
    let beta = Sites().beta()
    let esp = SlowESP(Sites())
    let datagrams = (0..<6).map { esp.seal(sketch(2, isV4: true, index: $0), sequence: UInt64($0 + 1)) }
    let delivered = beta.open([
      Train(datagrams[0] + datagrams[1], segmentSize: datagrams[0].count),
      Train(datagrams[2] + datagrams[3], segmentSize: datagrams[0].count, trafficClass: 3),
      Train(datagrams[4] + datagrams[5], segmentSize: datagrams[0].count, trafficClass: 2),
    ])
    #expect(delivered.map(\.count) == [2, 2, 2])
    var oracle = DeliveryOracle((0..<6).map { sketch([2, 2, 3, 3, 2, 2][$0], isV4: true, index: $0).bytes })
    oracle.judge(delivered)
  }

  @Test(arguments: [true, false], [true, false])
  func marksGoOut(isV4: Bool, copiesDSCP: Bool) {
    var configuration = Sites().alphaConfiguration
    configuration.peers[0].outbound?.copiesDSCP = copiesDSCP
    let alpha = TestGateway(configuration)
    let classes: [UInt8] = [0, 1, 2, 3, 0xB8, 0xB9, 0xFF, 0x28]
    let trains = alpha.seal(classes.map { TunPacket(sketch($0, isV4: isV4).bytes) })
    // Those that look the same from outside share a train.
    var expected: [UInt8] = []
    for tos in classes.map({ copiesDSCP ? $0 : $0 & 3 }) where expected.last != tos { expected.append(tos) }
    #expect(trains.map(\.trafficClass) == expected)
    #expect(
      trains.datagrams.compactMap { SlowESP(Sites()).open($0)?.payload } == classes.map { sketch($0, isV4: isV4).bytes }
    )
  }

  @Test func checksumsAreUpdatedAsRecomputed() {
    var numbers = SeededNumbers(seed: 8)
    for _ in 0..<2000 {
      var words = (0..<5).map { _ in UInt16.random(in: .min ... .max, using: &numbers) }
      if numbers.next() % 4 == 0 { words = words.map { _ in [0, 0xFFFF].randomElement(using: &numbers)! } }
      let before = ~onesComplementSum(words.flatMap(be16))
      let old = words[2]
      words[2] = UInt16.random(in: .min ... .max, using: &numbers)
      let updated = Checksum.updated(before, from: old, to: words[2])
      // Zero and all ones are the same number.
      #expect(onesComplementSum(words.flatMap(be16) + be16(updated)) == 0xFFFF || words.allSatisfy { $0 == 0 })
    }
  }
}
