import Dataplane
import Testing

@testable import vpnbench

@Suite struct ResultTests {
  @Test func profilesAreReadFromWhatPerfPrints() {
    let rows = Profile.rows(
      """
      # Overhead\tSymbol\tShared Object
          63.12%\t[.] $s9Dataplane8ChecksumV\tculvert            \t
           4.30%\t[k] _copy_to_iter     \t[kernel.kallsyms]
           0.51%\t[.] operator new(unsigned long)\tlibstdc++.so.6
      not a row
      12%\tno symbol\tx

      """)
    #expect(
      rows == [
        Profile.Row(percent: 63.12, symbol: "$s9Dataplane8ChecksumV", module: "culvert"),
        Profile.Row(percent: 4.3, symbol: "_copy_to_iter", module: "[kernel.kallsyms]"),
        Profile.Row(percent: 0.51, symbol: "operator new(unsigned long)", module: "libstdc++.so.6"),
      ])
  }

  @Test func aBusyMachineIsNamed() {
    #expect(Quiet.warnings(busy: 0.03, most: 0.2, stolen: 0.001) == [])
    #expect(Quiet.warnings(busy: 0.3, most: 0.4, stolen: 0).count == 1)
    #expect(Quiet.warnings(busy: 0.03, most: 1.5, stolen: 0).count == 1)
    #expect(Quiet.warnings(busy: 0.3, most: 1.5, stolen: 0.1).count == 2)
  }

  @Test func theNoisiestFigureIsNamed() throws {
    var report = Reports.report([
      (Reports.tunnel, Reports.speed, [10, 10, 10]), (Reports.tunnel, Reports.time, [100, 200, 300]),
    ])
    report.warnOfNoise(["speed", "time", "not measured"])
    #expect(try #require(report.warnings.first).contains("(Time)"))
    var calm = Reports.report([(Reports.tunnel, Reports.speed, [10, 10, 10])])
    calm.machine.build = "release"
    calm.warnOfNoise(["speed"])
    #expect(calm.warnings == [])
  }

  @Test func manyPeersAndFlowsComeThroughWhole() throws {
    // It throws when a packet is dropped, so that dropping is never taken for speed.
    let timing = try HubTiming(peers: 3, flows: 200, .udp(payload: 64), .aes128GCM, .by(.openSSL))
    let time = try timing.run(seconds: 0.002)
    #expect(time.out > 0 && time.back > 0)
  }
}
