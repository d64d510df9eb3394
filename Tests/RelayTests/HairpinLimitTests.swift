import Foundation
import Glibc
import Lab
import PacketIO
import Testing
import TransportSupport

@testable import Relay
@testable import Transports

extension HairpinNetworks {
  /// Limits over real sockets.
  @Suite struct HairpinLimitTests {
    /// Nanoseconds that bandwidth is measured; HAIRPIN_SECONDS asks for more.
    private static let measured =
      UInt64(ProcessInfo.processInfo.environment["HAIRPIN_SECONDS"].flatMap { UInt64($0) } ?? 3) * 1_000_000_000

    @Test(arguments: [Encapsulation.udp, .tcp])
    func bandwidthHoldsAndBothSidesAreToldOfTheEnd(encapsulation: Encapsulation) async throws {
      let (rate, seconds, reasons) = try await HairpinLab.run { () -> (Double, Double, [Int32]) in
        let lab = try HairpinLab()
        // A burst that survives the pauses of a busy machine; it is not measured.
        let pair = try lab.pair(
          {
            $0.bandwidth = 40_000_000
            $0.burst = 1_000_000
          }, encapsulations: (encapsulation, encapsulation))
        let train = (0..<20).map { HairpinLab.packet($0, size: 1400) }
        var begin = MonotonicTime.current()
        var now = begin
        var before = 0.0
        while now.nanoseconds(since: begin) < Self.measured {
          if before == 0, lab.side(0).traffic.bytes > 1_200_000 {
            before = Double(lab.side(0).traffic.bytes)
            begin = now
          }
          if pair.a.io.pool.available > 64 { pair.a.send(train, to: pair.toB) }
          lab.turn([pair.a, pair.b])
          now = .current()
        }
        let seconds = Double(now.nanoseconds(since: begin)) / 1e9
        let bytes = Double(lab.side(0).traffic.bytes) - before
        // Tomorrow the ticket is over.
        lab.shift = 7200
        lab.until([pair.a, pair.b]) { [pair.a, pair.b].allSatisfy { $0.reports.contains { $0.error == ECONNRESET } } }
        return (
          bytes * 8 / seconds, seconds,
          (pair.a.reports + pair.b.reports).compactMap(\.error)
            + (lab.records.all.first.map { [Int32($0.reason.rawValue)] } ?? [])
        )
      }
      #expect(rate > 40_000_000 * 0.95 && rate < 40_000_000 * 1.05, "\(rate) bit/s over \(seconds) s")
      #expect(reasons.contains(Int32(HairpinReason.lifetime.rawValue)) && reasons.filter { $0 == 104 }.count >= 2)
    }

    /// Tenants are named by their tickets, strangers by where they come from.
    @Test func itShowsWhoHoldsWhat() async throws {
      let (number, shares, isOpen) = try await HairpinLab.run { () -> (HairpinNumber, [RelayShares.Share], Bool) in
        let lab = try HairpinLab()
        let pair = try lab.pair(encapsulations: (.tcp, .tcp))
        let stranger = Stranger(to: HairpinLab.port, from: "127.0.0.9")
        stranger.say(Array("IKETCP".utf8) + [0, 200, 0])
        let isSeen = lab.until([pair.a, pair.b]) {
          lab.server.shares().shares.contains { $0.resource == .pendingRecordsOfStrangers && $0.used > 0 }
        }
        return (pair.ticket.ticket.number, lab.server.shares().shares, isSeen && pair.isOpen)
      }
      #expect(isOpen)
      #expect(
        shares.map(\.resource) == [.streams, .heldBuffers, .pendingRecords, .pendingRecordsOfStrangers])
      let streams = try #require(shares.first)
      #expect(streams.holders.count { $0.holder.hasPrefix("ticket \(number) of ") && $0.held == 1 } == 2, "\(streams)")
      #expect(streams.used == 3 && streams.holders.contains { $0.holder == "127.0.0.9" && $0.held == 1 }, "\(streams)")
      #expect(shares.last?.holders.map(\.holder) == ["127.0.0.9"])
    }

    @Test func whoIsImportantGoesFirst() async throws {
      let (high, low) = try await HairpinLab.run { () -> (Double, Double) in
        let lab = try HairpinLab { $0.bandwidth = 40_000_000 }
        let first = try lab.pair {
          $0.priority = 6
          $0.bandwidth = 30_000_000
        }
        let second = try lab.pair { $0.priority = 1 }
        let all = [first.a, first.b, second.a, second.b]
        let train = (0..<10).map { HairpinLab.packet($0, size: 1400) }
        let begin = MonotonicTime.current()
        while MonotonicTime.current().nanoseconds(since: begin) < 2_000_000_000 {
          first.a.send(train, to: first.toB)
          second.a.send(train, to: second.toB)
          lab.turn(all)
        }
        let seconds = Double(MonotonicTime.current().nanoseconds(since: begin)) / 1e9
        let bytes = lab.server.admission.hairpins.numbers.sorted { $0 == first.ticket.ticket.number && $1 != $0 }
          .compactMap { lab.server.admission.hairpins.place($0) }.map {
            Double(lab.side(2 * $0).traffic.bytes) * 8 / seconds
          }
        return (bytes[0], bytes[1])
      }
      #expect(high > 27_000_000 && high < 33_000_000, "\(high)")
      #expect(low > 7_000_000 && low < 13_000_000, "\(low)")
    }
  }
}
