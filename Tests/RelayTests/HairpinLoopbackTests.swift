import Lab
import PacketIO
import Testing

@testable import Relay
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

    private static func transfer(
      isV4: (Bool, Bool), encapsulations: (Encapsulation, Encapsulation) = (.udp, .udp), features: RingFeatures = .all
    ) throws -> Outcome {
      let lab = try HairpinLab { $0.allowedFeatures = features }
      var outcome = Outcome()
      do {
        let pair = try lab.pair(isV4: isV4, encapsulations: encapsulations)
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
      lab.server.close()
      outcome.record = lab.records.all.first
      outcome.statistics = lab.server.engine.statistics
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

    @Test(arguments: [(Encapsulation.udp, Encapsulation.tcp), (.tcp, .udp), (.tcp, .tcp)])
    func trainsPassUnchangedBetweenKindsOfPath(encapsulations: (Encapsulation, Encapsulation)) async throws {
      let outcome = try await HairpinLab.run { try Self.transfer(isV4: (true, false), encapsulations: encapsulations) }
      #expect(outcome.isOpen)
      #expect(outcome.received == outcome.sent)
      #expect(outcome.paths == [try #require(outcome.expectedPath)])
      #expect(outcome.lostBuffers == 0)
      let record = try #require(outcome.record)
      #expect(record.firstPackets == UInt64(outcome.sent.count) && record.dropped == 0)
      // What a gateway sends at once is moved at once, where both sides are streams.
      #expect((outcome.statistics[.runs] > 0) == (encapsulations == (.tcp, .tcp)))
      // A run's bytes count with their lengths.
      let sealed = outcome.sent.reduce(0) { $0 + UInt64($1.count) }
      let lengths = encapsulations == (.tcp, .tcp) ? UInt64(outcome.sent.count * RecordFramer.lengthBytes) : 0
      #expect(record.firstBytes >= sealed && record.firstBytes <= sealed + lengths)
    }

    /// A proxy that listens on all addresses answers from the one that was spoken to, and forwards from there.
    @Test(arguments: [(Encapsulation.udp, Encapsulation.udp), (.udp, .tcp)])
    func answersLeaveFromWhereTheQuestionCame(encapsulations: (Encapsulation, Encapsulation)) async throws {
      let (isOpen, passes) = try await HairpinLab.run { () -> (Bool, Bool) in
        let lab = try HairpinLab {
          $0.listen = [Endpoint(address: IPAddress(v4: 0), port: HairpinLab.port)]
        }
        // The loopback interface has all of these, and prefers the first as a source.
        let proxies = [UInt32(0x7F00_0007), 0x7F00_0009].map {
          Endpoint(address: IPAddress(v4: $0), port: HairpinLab.port)
        }
        let pair = try lab.pair(encapsulations: encapsulations, at: (proxies[0], proxies[1]))
        let packets = [HairpinLab.packet(1, size: 700), HairpinLab.packet(2, size: 700)]
        pair.a.send(packets, to: pair.toB)
        pair.b.send(packets, to: pair.toA)
        return (
          pair.isOpen, lab.until([pair.a, pair.b]) { pair.a.received == packets && pair.b.received == packets }
        )
      }
      #expect(isOpen && passes)
    }

    /// A kernel without multishot receive and buffer rings: slower, and otherwise the same.
    @Test(arguments: [(Encapsulation.udp, Encapsulation.udp), (.udp, .tcp), (.tcp, .tcp)])
    func trainsPassWithAnOlderKernel(encapsulations: (Encapsulation, Encapsulation)) async throws {
      let outcome = try await HairpinLab.run {
        try Self.transfer(isV4: (true, true), encapsulations: encapsulations, features: [])
      }
      #expect(outcome.isOpen && outcome.received == outcome.sent && outcome.record?.dropped == 0)
    }

    /// A gateway that stops to read in the middle of a run: its stream goes, its partner's stays, and it comes back.
    @Test func aReceiverThatStandsStillIsPutOutAndComesBack() async throws {
      let (wasStalled, sender, comesBack) = try await HairpinLab.run { () -> (Bool, Bool, Bool) in
        let lab = try HairpinLab()
        let pair = try lab.pair(encapsulations: (.tcp, .tcp))
        let train = (0..<40).map { HairpinLab.packet($0, size: 1400) }
        let wasStalled = lab.until([pair.a], within: 8) {
          for _ in 0..<4 where pair.a.io.pool.available > 64 { pair.a.send(train, to: pair.toB) }
          return lab.server.engine.statistics[.streamsStalled] == 1
        }
        let sender = pair.a.counter("hairpins-opened") == 1 && lab.side(0).holder.isProven
        let last = HairpinLab.packet(999, size: 900)
        let comesBack = lab.until([pair.a, pair.b], within: 8) {
          guard pair.b.counter("hairpins-opened") == 2 else { return false }
          if pair.a.io.pool.available > 64 { pair.a.send([last], to: pair.toB) }
          return pair.b.received.contains(last)
        }
        return (wasStalled, sender, comesBack)
      }
      #expect(wasStalled && sender && comesBack)
    }

    /// A sender whose stream ends inside a run: what its partner has begins a record, so both begin anew.
    @Test func aStreamThatEndsInsideARunTakesThePartnersWithIt() async throws {
      let (wasInside, again) = try await HairpinLab.run { () -> (Bool, Bool) in
        let lab = try HairpinLab()
        let pair = try lab.pair(encapsulations: (.tcp, .tcp))
        let train = (0..<40).map { HairpinLab.packet($0, size: 1400) }
        let wasInside = lab.until([pair.a], within: 4) {
          for _ in 0..<4 where pair.a.io.pool.available > 64 { pair.a.send(train, to: pair.toB) }
          return lab.server.isInsideRun(SideIndex(place: 1))
        }
        lab.server.cut(SideIndex(place: 0))
        let isCut = !lab.side(1).holder.isProven
        let last = HairpinLab.packet(999, size: 900)
        let again = lab.until([pair.a, pair.b], within: 8) {
          guard pair.a.counter("hairpins-opened") == 2, pair.b.counter("hairpins-opened") == 2 else { return false }
          if pair.a.io.pool.available > 64 { pair.a.send([last], to: pair.toB) }
          return pair.b.received.contains(last)
        }
        return (wasInside && isCut, again)
      }
      #expect(wasInside && again)
    }

    @Test func aLostProxyIsFoundAgain() async throws {
      let (isOpen, lost, again) = try await HairpinLab.run { () -> (Bool, Bool, Bool) in
        let lab = try HairpinLab()
        let pair = try lab.pair()
        // As after a kill: nobody is told anything.
        let options = lab.server.options
        lab.server.abandon()
        lab.server = try HairpinServer(options, clock: lab.clock)
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
