import Glibc
import Lab
import PacketIO
import TestSupport
import Testing
import TransportSupport

@testable import Relay
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
            if lab.side(0).stream.run.isOpen { begun = true }
          }
        }
        let malformed = lab.server.engine.statistics[.malformed]
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
        for number in 0..<1000 where lab.server.engine.statistics[.streamsMalformed] == 0 {
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
        return (lab.server.engine.statistics, own, isUnharmed, again)
      }
      #expect(statistics[.runs] >= 1 && statistics[.streamsMalformed] == 1)
      #expect(own && others && again)
    }

    /// Whoever announces chooses both figures, and how the bytes come.
    @Test func thePacketsOfARunOnlyGrow() {
      var random = SeededNumbers(seed: 1)
      for round in 0..<2000 {
        let packets = Int.random(in: 1...(round < 1000 ? 8 : 2_000_000), using: &random)
        let bytes = min(packets * Int.random(in: 6...(round % 2 == 0 ? 8 : 1500), using: &random), 16 << 20)
        let run = AnnouncedRun(bytes: bytes, packets: min(packets, bytes / 6), stream: 0)
        var before = run.packets(in: 0)
        #expect(before == 0)
        var count = 0
        while count < bytes {
          count = min(count + Int.random(in: 1...(round % 3 == 0 ? 2 : max(bytes / 4, 1)), using: &random), bytes)
          let after = run.packets(in: count)
          guard after >= before else {
            Issue.record("\(run) at \(count): \(before), then \(after)")
            return
          }
          before = after
          if round % 3 == 0, count > 200, count < bytes - 2 { count = bytes - 2 }
        }
        #expect(before == run.packets)
      }
    }

    /// A short run in every two and three pieces that it can be cut into, read one by one.
    @Test func aRunMayComeInAnyPieces() async throws {
      let (isOpen, arrived, expected, figures) = try await HairpinLab.run {
        () -> (Bool, [UInt8], [UInt8], [UInt64]) in
        let lab = try HairpinLab()
        let ticket = lab.ticket()
        let a = RawHolder(lab.sample.file(ticket, .first, proxy: HairpinLab.endpoint()))
        let b = RawHolder(lab.sample.file(ticket, .second, proxy: HairpinLab.endpoint()))
        guard a.open(in: lab), b.open(in: lab) else { return (false, [], [], []) }
        _ = b.read()
        let run = StreamOracle.record([9, 8, 7, 6]) + StreamOracle.record([5, 4, 3, 2])
        let announcement = StreamOracle.record(
          HairpinMessage.run(bytes: UInt64(run.count), packets: 2).encoded)
        var (arrived, expected): ([UInt8], [UInt8]) = ([], [])
        for first in 0..<run.count {
          // Runs so short count as messages.
          lab.shift += 1
          for second in first..<run.count {
            a.write(announcement + run[..<first])
            expected += run
            for piece in [run[first..<second], run[second...]] {
              // Until all of it was read, one turn after the other.
              for _ in 0..<20 { lab.turn() }
              a.write(Array(piece))
            }
            for _ in 0..<400 where arrived.count < expected.count {
              lab.turn()
              arrived += b.read()
            }
          }
        }
        let side = lab.side(0).traffic
        return (true, arrived, expected, [side.packets, side.bytes, side.dropped])
      }
      #expect(isOpen && arrived == expected && !expected.isEmpty)
      #expect(figures == [UInt64(expected.count / 6), UInt64(expected.count), 0])
    }

    /// A partner who never reads, and runs that are read whole with their announcements.
    @Test func whatWaitsForAStreamIsBounded() async throws {
      let (isOpen, isFilled, most, arrived) = try await HairpinLab.run { () -> (Bool, Bool, Int, [UInt8]) in
        let lab = try HairpinLab()
        let ticket = lab.ticket()
        let a = RawHolder(lab.sample.file(ticket, .first, proxy: HairpinLab.endpoint()))
        let b = RawHolder(lab.sample.file(ticket, .second, proxy: HairpinLab.endpoint()), receiveBuffer: 4096)
        guard a.open(in: lab), b.open(in: lab) else { return (false, false, 0, []) }
        _ = b.read()
        let record = StreamOracle.record([1, 2, 3, 4] + [UInt8](repeating: 0x77, count: 1396))
        for _ in 0..<40_000 where lab.side(1).stream.queue.isEmpty {
          a.write(record)
          lab.turn()
        }
        let isFilled = !lab.side(1).stream.queue.isEmpty
        // He has had his time: what comes now is let through, and dropped.
        lab.shift += 1
        let announcement = StreamOracle.record(HairpinMessage.run(bytes: UInt64(record.count), packets: 1).encoded)
        var most = 0
        for _ in 0..<1000 {
          a.write(announcement + record + StreamOracle.record([1, 2, 3, 4, 5, 6]))
          for _ in 0..<3 { lab.turn() }
          most = max(most, lab.side(1).stream.queue.count)
        }
        // And what did wait is whole.
        var arrived = b.read()
        for _ in 0..<4000 {
          lab.turn()
          arrived += b.read()
        }
        return (true, isFilled, most, arrived)
      }
      #expect(isOpen && isFilled && most <= StreamSpace.bytes)
      let found = StreamOracle(arrived, isOriginator: true)
      #expect(found.packets.allSatisfy { $0.prefix(4) == [1, 2, 3, 4] } && found.badLength == 0)
      #expect(found.packets.count > 100)
    }

    /// A proxy's control stream brings sealed packets, which are nobody's: as many as there are records.
    @Test func packetsOfNoHairpinAreCountedByRecords() async throws {
      let counted = try await HairpinLab.run { () -> UInt64 in
        let lab = try HairpinLab()
        let listener = Stranger(listeningAt: 4599)
        let file = lab.sample.file(lab.ticket(), .first, proxy: HairpinLab.endpoint(port: 4599))
        let gateway = try HairpinLab.Gateway([.init(file, .tcp)])
        for _ in 0..<20 { gateway.turn() }
        let stream = Glibc.accept(listener.descriptor, nil, nil)
        defer { close(stream) }
        let records = (0..<64).flatMap { StreamOracle.record(Self.blank($0, size: 64)) }
        _ = send(stream, records, records.count, Int32(MSG_NOSIGNAL))
        for _ in 0..<1000 where gateway.counter("received-datagrams") < 64 { gateway.turn() }
        return gateway.counter("hairpin-strangers")
      }
      #expect(counted == 64)
    }
  }
}
