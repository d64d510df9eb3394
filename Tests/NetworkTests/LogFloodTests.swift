import Testing

@testable import Lab

extension NetworkTests {
  /// What a log gets when something goes wrong again and again.
  @Suite struct LogFloodTests {
    /// A hundred thousand packets that cannot be sent: a few lines, one that says how many there were, and no event that
    /// tells of a state is lost.
    @Test(.timeLimit(.minutes(2))) func packetsThatCannotBeSent() async throws {
      let network = try await blocking { try Network(.direct) }
      defer { network.remove() }
      let site = try GatewaySite(
        .a, in: network["a"], keys: .manual(try await GatewaySite.makeSecret()))
      let gateway = try await site.start()
      defer { gateway.terminate() }
      let before = gateway.output.split(separator: "\n").count
      try await blocking { try network["a"].ip(["link set wire down"]) }
      let sending = LabThread {
        try network["a"].inside {
          let socket = try Socket(.datagram, isV6: false)
          try socket.connect(Lab.Endpoint(Side.b.inner4, port: 9))
          let buffer = LabBuffer(count: 8)
          for number in 0..<400_000 {
            _ = socket.send(buffer, 0, 8)
            if number % 64 == 63 { pause(seconds: 0.002) }
          }
        }
      }
      let areEnough = try await eventually(within: 90) {
        try await site.report().statistics.transportErrors("send-error") >= 100_000
      }
      #expect(areEnough)
      try await blocking { try network["a"].ip(["link set wire up"]) }
      try await sending.value
      let isTold = await eventually(within: 30) { gateway.output.contains("failures=") }
      #expect(isTold, "\(gateway.output)")
      let lines = gateway.output.split(separator: "\n").dropFirst(before)
      #expect(lines.count <= 30, "\(lines)")
      #expect(try await site.report().statistics.lostEvents == 0)
    }
  }
}
