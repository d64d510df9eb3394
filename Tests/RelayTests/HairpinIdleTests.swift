import Foundation
import Glibc
import Lab
import PacketIO
import Testing

@testable import Relay
@testable import Transports

extension HairpinNetworks {
  /// Ten thousand hairpins that say nothing.
  @Suite struct HairpinIdleTests {
    private struct Figures: Sendable {
      var few: Double
      var many: Double
      var bytesEach: Double
      var opened: Int
      var wanted: Int
    }

    private static func resident() -> Double {
      let words = (ProcFile.read("/proc/self/statm") ?? "").split(separator: " ")
      return Double(words.count > 1 ? Int(words[1]) ?? 0 : 0) * 4096
    }

    private static func ownSeconds() -> Double {
      var time = timespec()
      clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
      return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    /// Seconds of the proxy for each of many trains through the first pair, in the quietest of five rounds: others run
    /// beside this test.
    private static func cost(_ lab: HairpinLab, _ pair: HairpinLab.Pair) -> Double {
      let train = (0..<16).map { HairpinLab.packet($0, size: 600) }
      var least = Double.infinity
      for _ in 0..<5 {
        var seconds = 0.0
        for _ in 0..<40 {
          pair.a.send(train, to: pair.toB)
          pair.a.turn(wait: 1000)
          let begin = ownSeconds()
          lab.turn()
          seconds += ownSeconds() - begin
          pair.b.turn(wait: 1000)
        }
        least = min(least, seconds / 40)
      }
      return least
    }

    private static func open(_ count: Int, _ lab: HairpinLab) -> Int {
      lab.server.openIdle(count, key: lab.sample.authority.publicKey)
    }

    /// A port each is a descriptor each, and others run beside this test.
    private static func possible() -> Int {
      let files = OpenFiles.raiseLimit(wanted: 50_000)
      let open = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count) ?? 0
      return min(10_000, (files - open - 200) / 2)
    }

    @Test func tenThousandIdleOnesCostNoMoreThanTen() async throws {
      let figures = try await HairpinLab.run { () -> Figures in
        func lab() throws -> HairpinLab {
          try HairpinLab {
            $0.hairpins = 10_100
            $0.ports = 1024...65000
          }
        }
        let before = Self.resident()
        let (small, large) = (
          try lab(),
          try HairpinLab {
            $0.hairpins = 10_100
            $0.ports = 1024...65000
            $0.listen = [HairpinLab.endpoint(port: 900)]
          }
        )
        let wanted = Self.possible()
        if wanted < 10_000 {
          print("SKIPPED: some of ten thousand hairpins: only \(wanted) may be open here (ulimit -Hn)")
        }
        _ = Self.open(10, small)
        let opened = Self.open(wanted, large)
        let bytes = (Self.resident() - before) / Double(wanted)
        let few = try small.pair()
        let many = try large.pair(port: 900)
        var ratios: [(Double, Double)] = []
        for _ in 0..<9 { ratios.append((Self.cost(small, few), Self.cost(large, many))) }
        let sorted = (ratios.map(\.0).sorted(), ratios.map(\.1).sorted())
        return Figures(few: sorted.0[4], many: sorted.1[4], bytesEach: bytes, opened: opened, wanted: wanted)
      }
      print(
        "FIGURE: a train through the proxy takes \(figures.few * 1e6) µs among ten, \(figures.many * 1e6) µs among \(figures.opened); \(figures.bytesEach) bytes each"
      )
      #expect(figures.opened == figures.wanted)
      #expect(figures.bytesEach < 4096)
      #expect(figures.many < figures.few * 1.5)
    }
  }
}
