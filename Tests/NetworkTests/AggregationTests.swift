import Dataplane
import Foundation
import PacketIO
import Testing

@testable import Lab

extension NetworkTests {
  /// Two gateways that let small packets share ESP packets, when both have said that they take such.
  @Suite struct AggregationTests {
    /// Small datagrams, faster than the gateway takes them one by one; no more than its queues hold, so that none is
    /// lost where it has to wait for a processor.
    private func flood(_ tunnel: Tunnel, count: Int = 40) async throws {
      var flood = VerifiedFlood(
        from: tunnel.a.namespace, to: tunnel.b.namespace, address: Side.b.inner4, sizes: [64, 8, 200], count: count)
      flood.rate = 100_000
      let result = try await flood.run()
      #expect(result.isIntact, "\(result)")
    }

    /// Small packets until a side sends them together, or has stopped doing so.
    private func awaitSharing(_ tunnel: Tunnel, _ expected: Bool) async throws {
      for _ in 0..<100 {
        let before = await tunnel.a.dataplane.statistics().aggregation.sent
        try await flood(tunnel)
        if (await tunnel.a.dataplane.statistics().aggregation.sent > before) == expected { return }
      }
      Issue.record("packets \(expected ? "never" : "still") go together")
    }

    /// What a capture of the path holds is what the device handed over, packet by packet and in order; scapy opens it.
    @Test(.timeLimit(.minutes(1)), .enabled(if: Judges.hasScapy, "needs scapy"))
    func smallPacketsShareAndScapyTellsThemApart() async throws {
      var plan = TunnelPlan()
      plan.aggregates = [.a, .b]
      // The device hands over packets as they will be sealed, and the wire shows each ESP packet.
      plan.offloads = []
      let directory = try TemporaryDirectory()
      let capture = "\(directory.path)/wire.pcap"
      let file = "\(directory.path)/a.pcap"
      let description = Judges.CaptureDescription(
        capture: capture, output: [Side.a.outer4: file, Side.b.outer4: "\(directory.path)/b.pcap"],
        associations: Side.allCases.map { Judges.Association(plan, from: $0) })
      var handed: [[UInt8]] = []
      try await Tunnel.with(plan) { tunnel in
        let (a, b) = (tunnel.a.namespace, tunnel.b.namespace)
        for end in [a, b] { try await blocking { try end.ip(["link set wire gso_max_segs 1"]) } }
        try await awaitSharing(tunnel, true)
        let wire = try await blocking { try Capture(a, "wire") }
        let device = try await blocking { try Capture(a, TunnelPlan.device) }
        try await Pings(from: a, to: Side.b.inner6).expectAnswers([0, 56, 1352])
        try await flood(tunnel, count: 400)
        try await Tunnel.transfer(from: a, to: b, Side.b.inner4, bytes: 200_001)
        try PacketFile.write(try await wire.finish().map(\.bytes), link: .ethernet, to: capture)
        handed = try await device.finish().filter(\.isOutgoing).map(\.bytes)
        let statistics = await tunnel.b.dataplane.statistics()
        #expect(statistics.aggregation.received > 20)
        #expect(statistics.aggregation.packetsReceived > 2 * statistics.aggregation.received)
      }
      let report = try await Judges.run("open_capture.py", description, answer: Judges.OpenedCapture.self)
      let found = try #require(report.associations["\(plan.spi(.a))"])
      #expect(report.unknown == 0 && found.failures == [] && found.shared > 20)
      #expect(try PacketFile.read(file) == handed)
      print("AGGFRAG judged by \(found.judge): \(found.shared) of \(found.opened) ESP packets brought several packets")
    }

    /// Nothing is shared until both want it; it begins and ends with the configuration, and loses nothing when it
    /// begins.
    @Test(.timeLimit(.minutes(1)), arguments: [false, true]) func bothSidesMustWantIt(usesTCP: Bool) async throws {
      var plan = usesTCP ? TunnelPlan.overTCP() : TunnelPlan()
      plan.aggregates = [.a]
      try await Tunnel.with(plan) { tunnel in
        try await Pings(from: tunnel.a.namespace, to: Side.b.inner4).expectAnswers([0, 56])
        try await flood(tunnel)
        #expect(await tunnel.a.dataplane.statistics().aggregation == AggregationCount())
        plan.aggregates = [.a, .b]
        try await tunnel.b.dataplane.apply(plan.configuration(of: .b))
        try await awaitSharing(tunnel, true)
        try await Tunnel.transfer(from: tunnel.b.namespace, to: tunnel.a.namespace, Side.a.inner6, bytes: 200_001)
        plan.aggregates = [.b]
        try await tunnel.a.dataplane.apply(plan.configuration(of: .a))
        try await awaitSharing(tunnel, false)
      }
    }
  }
}
