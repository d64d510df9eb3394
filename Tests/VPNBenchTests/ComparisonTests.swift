import Lab
import Testing

@testable import vpnbench

@Suite struct ComparisonTests {
  private static func row(_ before: [Double], _ after: [Double], _ metric: Report.Metric) throws -> Comparison.Row {
    let comparison = Comparison(
      Reports.report([(Reports.tunnel, metric, before)]), Reports.report([(Reports.tunnel, metric, after)]))
    return try #require(comparison.rows.first)
  }

  @Test func aChangeBeyondTheNoiseHasADirection() throws {
    #expect(try Self.row([10, 10, 10], [12, 12, 12], Reports.speed).verdict == .better)
    #expect(try Self.row([10, 10, 10], [12, 12, 12], Reports.time).verdict == .worse)
    #expect(try Self.row([10, 10, 10], [10.05, 10.05, 10.05], Reports.speed).verdict == .same)
    #expect(try Self.row([8, 10, 12], [9, 11, 13], Reports.speed).verdict == .same)
  }

  @Test func figuresThatMayBeNothingAreCompared() throws {
    // A program whose memory does not grow, and one whose memory began to.
    #expect(try Self.row([0], [0], Reports.time).verdict == .same)
    #expect(try Self.row([0], [3], Reports.time).verdict == .worse)
    #expect(try Self.row([3], [0], Reports.time).verdict == .better)
    let text = Comparison(
      Reports.report([(Reports.tunnel, Reports.time, [0])]), Reports.report([(Reports.tunnel, Reports.time, [3])])
    ).text(before: "a", after: "b")
    #expect(text.contains("from 0") && text.contains("worse"))
  }

  @Test func aBoundThatMovedAlikeIsNoChange() throws {
    let before = Reports.report([(Reports.wire, Reports.speed, [40]), (Reports.tunnel, Reports.speed, [10])])
    let after = Reports.report([(Reports.wire, Reports.speed, [20]), (Reports.tunnel, Reports.speed, [5])])
    let row = try #require(Comparison(before, after).rows.last)
    #expect(row.change == 0.5 && row.relativeChange == 1 && row.verdict == .same)
  }

  @Test func whatOnlyOneSideHasIsNamed() {
    var before = Reports.report([(Reports.tunnel, Reports.speed, [10])])
    var after = Reports.report([(Reports.tunnel, Reports.speed, [10]), (Reports.other, Reports.time, [5])])
    before.settings = ["seconds": "1", "mtu": "1400"]
    after.settings = ["seconds": "2", "mtu": "1400", "pings": "500"]
    let text = Comparison(before, after).text(before: "a", after: "b")
    #expect(text.contains("Subjects in one of the two only: other"))
    #expect(text.contains("Figures in one of the two only: time"))
    #expect(text.contains("different settings: seconds"))
    #expect(!text.contains("pings"))
  }
}
