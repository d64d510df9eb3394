import Lab
import PacketIO
import Testing

@testable import Transports

extension HairpinNetworks {
  /// A proxy and two gateways over real sockets on a loopback interface.
  @Suite struct HairpinLoopbackTests {
    /// What a run leaves.
    private struct Outcome: Sendable {
      var isOpen = false
      var sent: [[UInt8]] = []
      var received: [[UInt8]] = []
      var trains = 0
      var paths: Set<Path> = []
      var expectedPath: Path?
      var record: HairpinRecord?
      var statistics = HairpinStatistics()
      var lostBuffers = 0
    }

    private static func transfer(isV4: (Bool, Bool), roads: (HairpinRoad, HairpinRoad) = (.udp, .udp)) throws -> Outcome
    {
      let lab = try HairpinLab()
      var outcome = Outcome()
      do {
        let pair = try lab.pair(isV4: isV4, roads: roads)
        outcome.isOpen = pair.isOpen
        let before = pair.a.io.pool.available
        for train in 0..<40 {
          // Trains of one to forty datagrams, the last shorter.
          let count = train % 40 + 1
          var datagrams = (0..<count).map { HairpinLab.packet(train * 64 + $0, size: 1400) }
          if train % 3 == 0 { datagrams[count - 1] = HairpinLab.packet(train, size: 100 + train) }
          outcome.sent += datagrams
          pair.a.send(datagrams, to: pair.toB)
          lab.turn([pair.a, pair.b])
        }
        lab.until([pair.a, pair.b]) { pair.b.received.count >= outcome.sent.count }
        for _ in 0..<5 { lab.turn([pair.a, pair.b]) }
        outcome.received = pair.b.received
        outcome.trains = pair.b.trains
        outcome.paths = pair.b.paths
        outcome.expectedPath = pair.toA
        outcome.lostBuffers = before - pair.a.io.pool.available
      }
      lab.engine.close()
      outcome.record = lab.records.all.first
      outcome.statistics = lab.engine.statistics
      return outcome
    }

    @Test(arguments: [(true, true), (true, false), (false, true), (false, false)])
    func trainsPassUnchangedBetweenAddressFamilies(isV4: (Bool, Bool)) async throws {
      let outcome = try await HairpinLab.run { try Self.transfer(isV4: isV4) }
      #expect(outcome.isOpen)
      #expect(outcome.received == outcome.sent)
      #expect(outcome.paths == [try #require(outcome.expectedPath)])
      #expect(outcome.lostBuffers == 0)
      // Trains stay trains: a datagram each would make eight hundred.
      #expect(outcome.trains < 200)
      let record = try #require(outcome.record)
      #expect(record.reason == .stopping)
      #expect(record.firstPackets == UInt64(outcome.sent.count) && record.secondPackets == 0)
      #expect(record.firstBytes == outcome.sent.reduce(0) { $0 + UInt64($1.count) })
      #expect(record.dropped == 0)
      #expect(outcome.statistics[.forwardedPackets] == UInt64(outcome.sent.count))
    }

    @Test(arguments: [(HairpinRoad.udp, HairpinRoad.tcp), (.tcp, .udp), (.tcp, .tcp)])
    func trainsPassUnchangedBetweenKindsOfRoad(roads: (HairpinRoad, HairpinRoad)) async throws {
      let outcome = try await HairpinLab.run { try Self.transfer(isV4: (true, false), roads: roads) }
      #expect(outcome.isOpen)
      #expect(outcome.received == outcome.sent)
      #expect(outcome.paths == [try #require(outcome.expectedPath)])
      #expect(outcome.lostBuffers == 0)
      let record = try #require(outcome.record)
      #expect(record.firstPackets == UInt64(outcome.sent.count) && record.dropped == 0)
      #expect(record.firstBytes == outcome.sent.reduce(0) { $0 + UInt64($1.count) })
    }

    @Test func aLostProxyIsFoundAgain() async throws {
      let (isOpen, lost, again) = try await HairpinLab.run { () -> (Bool, Bool, Bool) in
        let lab = try HairpinLab()
        let pair = try lab.pair()
        // As after a kill: nobody is told anything.
        let options = lab.engine.options
        lab.engine.abandon()
        lab.engine = try HairpinEngine(options, clock: lab.clock)
        let lost = lab.until([pair.a, pair.b], within: 8) {
          pair.a.send([HairpinLab.packet(1, size: 100)], to: pair.toB)
          return pair.a.reports.contains { $0.error == 110 && $0.path == pair.toB }
        }
        let again = lab.until([pair.a, pair.b], within: 8) {
          pair.a.send([HairpinLab.packet(1, size: 100)], to: pair.toB)
          pair.b.send([HairpinLab.packet(2, size: 100)], to: pair.toA)
          return pair.b.received.last == HairpinLab.packet(1, size: 100)
            && pair.a.received.last == HairpinLab.packet(2, size: 100)
        }
        return (pair.isOpen, lost, again)
      }
      #expect(isOpen && lost && again)
    }
  }
}
