import Dataplane
import Lab
import PacketIO
import Testing

extension NetworkTests {
  /// Tunnels whose road is a TCP stream (RFC 9329), which `a` opens.
  @Suite struct StreamRoadTests {
    @Test(.timeLimit(.minutes(1)), arguments: [true, false])
    func everythingArrivesIntact(isV4: Bool) async throws {
      try await Tunnel.with(.overTCP(isV4: isV4), isLossless: false) { tunnel in
        let sizes = Array(stride(from: 0, through: 1500, by: 7)) + [4000, 30_000, 65_507]
        for address in [Side.b.inner4, Side.b.inner6] {
          try await Pings(from: tunnel.a.namespace, to: address).expectAnswers(sizes)
        }
        try await Pings(from: tunnel.b.namespace, to: Side.a.inner4).expectAnswers([0, 1, 1372, 1373])
        for (from, to) in [(tunnel.a, tunnel.b), (tunnel.b, tunnel.a)] {
          let sizes = [8, 9, 64, 100, 511, 1280, 1352, 1372, 1373, 1400, 3000, 20_000]
          let flood = VerifiedFlood(
            from: from.namespace, to: to.namespace, address: to.side.inner4, sizes: sizes, count: 2000)
          let result = try await flood.run()
          #expect(result.isIntact, "\(result)")
        }
        try await Tunnel.transfer(
          from: tunnel.a.namespace, to: tunnel.b.namespace, Side.b.inner4, bytes: 20_000_003)
        try await Tunnel.transfer(
          from: tunnel.b.namespace, to: tunnel.a.namespace, Side.a.inner6, bytes: 20_000_003, streams: 3)
        let (left, right) = (await tunnel.a.settled(), await tunnel.b.settled())
        // All of it by one stream, many records a send, and many a superpacket.
        #expect(left.transport("streams-dialled") == 1 && right.transport("streams-accepted") == 1)
        #expect(left.transport("sent-trains") * 4 < left.transport("sent-datagrams"))
        #expect(right.transport("received-trains") * 4 < right.transport("received-datagrams"))
        #expect(left.allDropped == 0 && right.allDropped == 0)
        #expect(left.transport("sent-datagrams") == right.transport("received-datagrams"))
      }
    }
  }
}
