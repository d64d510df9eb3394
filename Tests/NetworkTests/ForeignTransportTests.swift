import Dataplane
import Glibc
import Lab
import PacketIO
import Testing

extension NetworkTests {
  /// What somebody else writes is a path like any other.
  @Suite struct ForeignTransportTests {
    @Test(.timeLimit(.minutes(1)))
    func unixDatagramsCarryATunnel() async throws {
      let directory = try TemporaryDirectory()
      var plan = TunnelPlan()
      plan.unixTransports = directory.path
      try await Tunnel.with(plan, isLossless: false) { tunnel in
        try await Pings(from: tunnel.a.namespace, to: Side.b.inner4).expectAnswers([0, 1, 100, 1372, 5000])
        try await Pings(from: tunnel.b.namespace, to: Side.a.inner6).expectAnswers([0, 1, 100, 1352])
        try await Tunnel.transfer(from: tunnel.a.namespace, to: tunnel.b.namespace, Side.b.inner4, bytes: 5_000_001)
        try await Tunnel.transfer(from: tunnel.b.namespace, to: tunnel.a.namespace, Side.a.inner6, bytes: 1_000_001)
      }
    }
  }
}
