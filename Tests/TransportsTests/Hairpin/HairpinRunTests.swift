import Lab
import PacketIO
import Testing

@testable import Transports

extension HairpinNetworks {
  /// Announcements of runs that are not true: they harm the hairpin whose gateway made them, and no other.
  @Suite struct HairpinRunTests {
    /// A sealed packet of zeros, which read from the middle is no record.
    private static func blank(_ number: UInt8, size: Int) -> [UInt8] {
      [0x10, 0x01, 0, number] + [UInt8](repeating: 0, count: size - 4)
    }

    @Test func absurdAnnouncementsBeginNothing() async throws {
      let (malformed, begun, passed, opened) = try await HairpinLab.run { () -> (UInt64, Bool, Bool, UInt64) in
        let lab = try HairpinLab()
        let pair = try lab.pair(encapsulations: (.tcp, .tcp))
        let absurd: [(UInt64, UInt64)] = [
          (0, 0), (0, 1), (100, 0), (5, 1), (65_536, 1), (HairpinMessage.longestRun + 1, 12_000), (.max, 1), (1, .max),
          (.max, .max), (1 << 63, 1 << 62),
        ]
        var begun = false
        var sent: [[UInt8]] = []
        for (number, (bytes, packets)) in absurd.enumerated() {
          pair.a.send([HairpinMessage.run(bytes: bytes, packets: packets).encoded], to: pair.toB)
          sent.append(HairpinLab.packet(number, size: 300))
          pair.a.send([sent[number]], to: pair.toB)
          for _ in 0..<2000 where pair.b.received.count <= number {
            lab.turn([pair.a, pair.b])
            if lab.engine.announced[0].isOpen { begun = true }
          }
        }
        let malformed = lab.engine.statistics[.malformed]
        return (malformed, begun, pair.b.received == sent, pair.a.counter("hairpins-opened"))
      }
      #expect(malformed == 10 && !begun && passed && opened == 1)
    }

    /// The announced bytes end in the middle of a record: what follows is read as one and is none.
    @Test func anAnnouncementThatEndsInsideARecordHarmsItsOwnHairpin() async throws {
      let (statistics, own, others, again) = try await HairpinLab.run { () -> (HairpinStatistics, Bool, Bool, Bool) in
        let lab = try HairpinLab()
        let pair = try lab.pair(encapsulations: (.tcp, .tcp))
        let other = try lab.pair(encapsulations: (.tcp, .tcp))
        let gateways = [pair.a, pair.b, other.a, other.b]
        let record = UInt64(1400 + RecordFramer.lengthBytes)
        pair.a.send([HairpinMessage.run(bytes: 2 * record + 700, packets: 3).encoded], to: pair.toB)
        pair.a.send((0..<3).map { Self.blank($0, size: 1400) }, to: pair.toB)
        var sent: [[UInt8]] = []
        for number in 0..<1000 where lab.engine.statistics[.streamsMalformed] == 0 {
          sent.append(HairpinLab.packet(number, size: 700))
          other.a.send([sent[number]], to: other.toB)
          lab.turn(gateways)
        }
        let own = pair.b.received == (0..<2).map { Self.blank($0, size: 1400) }
        let last = Self.blank(99, size: 900)
        let again = lab.until(gateways, within: 8) {
          if pair.a.io.pool.available > 64 { pair.a.send([last], to: pair.toB) }
          return pair.b.received.contains(last)
        }
        let count = sent.count
        lab.until(gateways) { other.b.received.count == count }
        let isUnharmed = other.b.received == sent && other.a.counter("hairpins-opened") == 1
        return (lab.engine.statistics, own, isUnharmed, again)
      }
      #expect(statistics[.runs] >= 1 && statistics[.streamsMalformed] == 1)
      #expect(own && others && again)
    }
  }
}
