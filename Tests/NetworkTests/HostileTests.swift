import Dataplane
import Lab
import PacketIO
import Testing

extension NetworkTests {
  /// What somebody on the path does to sealed packets, and what a partner does who is not honest. Each such packet is
  /// counted under its own reason, and none is delivered: the device of b is listened to.
  @Suite struct HostileTests {
    /// What a test has at hand.
    private struct Scene {
      let tunnel: Tunnel
      let path: Interceptor

      /// Expects that `body` makes b drop exactly these, and deliver nothing.
      func expectDrops(
        _ expected: [DropReason: UInt64], transport: [String: UInt64] = [:],
        sourceLocation: SourceLocation = #_sourceLocation, _ body: () async throws -> Void
      ) async throws {
        let before = await tunnel.b.settled()
        try await body()
        let after = await tunnel.b.settled()
        var found: [DropReason: UInt64] = [:]
        for reason in DropReason.allCases where after.dropped(reason) > before.dropped(reason) {
          found[reason] = after.dropped(reason) - before.dropped(reason)
        }
        #expect(found == expected, sourceLocation: sourceLocation)
        #expect(after.delivered == before.delivered, sourceLocation: sourceLocation)
        for (name, count) in transport {
          #expect(
            after.transport(name) - before.transport(name) == count, "\(name)", sourceLocation: sourceLocation)
        }
        await checkBalance(.b, sourceLocation: sourceLocation) { await tunnel.b.dataplane.statistics() }
      }

      /// A sealed echo request of 56 bytes from a that has not reached b.
      func undelivered() async throws -> [UInt8] {
        path.hold(from: .a)
        var pings = Pings(from: tunnel.a.namespace, to: Side.b.inner4)
        pings.patience = 0.05
        _ = try await pings.run([56]) as [String]
        #expect(await eventually { !path.held(from: .a).isEmpty })
        return try #require(path.release(from: .a).first)
      }

      /// Expects that b takes these after all.
      func expectAccepted(_ datagrams: [UInt8]..., sourceLocation: SourceLocation = #_sourceLocation) async throws {
        try await expectAccepted(all: datagrams, sourceLocation: sourceLocation)
      }

      func expectAccepted(all datagrams: [[UInt8]], sourceLocation: SourceLocation = #_sourceLocation) async throws {
        let before = await tunnel.b.settled().delivered.packets
        for datagram in datagrams { try path.send(datagram, to: .b) }
        let after = await tunnel.b.settled().delivered.packets
        #expect(after == before + UInt64(datagrams.count), sourceLocation: sourceLocation)
      }
    }

    /// - Parameter delivered: packets that b's device must have got in all.
    private func scene(
      _ plan: TunnelPlan = Interceptor.plan, delivered: Int, _ body: (Scene) async throws -> Void
    ) async throws {
      try await Tunnel.with(plan, isLossless: false) { tunnel in
        let path = try await blocking { try Interceptor(tunnel.network) }
        let device = try await blocking { try Capture(tunnel.b.namespace, TunnelPlan.device) }
        try await Pings(from: tunnel.a.namespace, to: Side.b.inner4).expectAnswers([0, 10, 1000])
        try await body(Scene(tunnel: tunnel, path: path))
        #expect(await tunnel.b.settled().delivered.packets == UInt64(3 + delivered))
        // What b writes to its device, the kernel receives.
        let seen = try await device.finish().filter { !$0.isOutgoing }
        #expect(seen.count == 3 + delivered)
      }
    }

    @Test(.timeLimit(.minutes(1)))
    func replayedPackets() async throws {
      try await scene(delivered: 0) { scene in
        let passed = scene.path.passed(from: .a)
        #expect(passed.count == 3)
        try await scene.expectDrops([.replayed: 6]) {
          for datagram in passed + passed.reversed() { try scene.path.send(datagram, to: .b) }
        }
        // From elsewhere too: it does not draw the path there.
        try await scene.expectDrops([.replayed: 3]) {
          for datagram in passed { try scene.path.sendAsStranger(datagram) }
        }
        let peer = try #require(await scene.tunnel.b.dataplane.statistics().peers.first)
        #expect(peer.path == Endpoint("198.51.100.254", defaultPort: 4500))
        #expect(peer.associations.first { $0.direction == .inbound }?.drops.map(\.packets) == [9])
        // A reload does not open the window again.
        var reloaded = scene.tunnel.plan.configuration(of: .b)
        reloaded.peers[0].keepAliveInterval = .seconds(33)
        try await scene.tunnel.b.dataplane.apply(reloaded)
        try await scene.expectDrops([.replayed: 3]) { for datagram in passed { try scene.path.send(datagram, to: .b) } }
        // b's own packets are nobody's that it receives from.
        let own = scene.path.passed(from: .b)
        #expect(own.count == 3)
        try await scene.expectDrops([.unknownSPI: 3]) { for datagram in own { try scene.path.send(datagram, to: .b) } }
      }
    }

    @Test(.timeLimit(.minutes(1)), arguments: [false, true])
    func reorderedAndLatePackets(extended: Bool) async throws {
      var plan = Interceptor.plan
      plan.replayWindow = 64
      plan.extended = extended
      try await scene(plan, delivered: 1 + 64 + 100) { scene in
        let a = scene.tunnel.a.namespace
        let early = try await scene.undelivered()
        scene.path.hold(from: .a)
        var pings = Pings(from: a, to: Side.b.inner4)
        pings.patience = 0.001
        _ = try await pings.run([Int](repeating: 8, count: 64)) as [String]
        #expect(await eventually { scene.path.held(from: .a).count == 64 })
        let late = scene.path.release(from: .a)
        // Within the window order does not matter, but twice is once too often.
        try await scene.expectAccepted(all: late.reversed())
        try await scene.expectDrops([.replayed: 64]) { for datagram in late { try scene.path.send(datagram, to: .b) } }
        // The one before them has just left the window. Of extended numbers only the low half is sent, so this one is
        // taken for the same one of the next 2³² (RFC 4303 appendix A2.2), under which it is not authentic.
        let tooOld = extended ? DropReason.authenticationFailed : .replayed
        try await scene.expectDrops([tooOld: 1]) { try scene.path.send(early, to: .b) }
        let lost = try await scene.undelivered()
        try await scene.expectAccepted(lost)
        try await Pings(from: a, to: Side.b.inner4).expectAnswers([Int](repeating: 8, count: 100))
        try await scene.expectDrops([tooOld: 2]) {
          for datagram in [lost, early] { try scene.path.send(datagram, to: .b) }
        }
      }
    }

    @Test(.timeLimit(.minutes(1)), arguments: [false, true])
    func truncatedPackets(implicitIV: Bool) async throws {
      var plan = Interceptor.plan
      plan.implicitIV = implicitIV
      try await scene(plan, delivered: 1) { scene in
        let whole = try await scene.undelivered()
        let front = implicitIV ? 8 : 16
        var expected: [DropReason: UInt64] = [:]
        for length in 4..<whole.count {
          // RFC 4303: header, IV, at least pad length and next header, ICV, and all of it in whole words.
          let sealed = length - front - 16
          expected[sealed >= 2 && sealed % 4 == 0 ? .authenticationFailed : .truncated, default: 0] += 1
        }
        #expect((expected[.authenticationFailed] ?? 0) > 10)
        try await scene.expectDrops(expected, transport: ["too-short": 4]) {
          for length in 0..<whole.count { try scene.path.send(Array(whole[..<length]), to: .b) }
        }
        // Longer than it was is no better.
        try await scene.expectDrops([.authenticationFailed: 1, .truncated: 3]) {
          for count in 1...4 { try scene.path.send(whole + [UInt8](repeating: 0, count: count), to: .b) }
        }
        // None of them has used up the number.
        try await scene.expectAccepted(whole)
      }
    }

    @Test(.timeLimit(.minutes(1)), arguments: [Cipher.aes128GCM, .chacha20Poly1305])
    func flippedBits(cipher: Cipher) async throws {
      var plan = Interceptor.plan
      plan.cipher = cipher
      try await scene(plan, delivered: 1) { scene in
        let whole = try await scene.undelivered()
        #expect(whole[4..<8].elementsEqual([0, 0, 0, 4]))
        // Number 4 with its only bit flipped is number 0, which never was. All others are in the future.
        let expected: [DropReason: UInt64] = [
          .unknownSPI: 32, .replayed: 1, .authenticationFailed: UInt64(whole.count * 8 - 33),
        ]
        try await scene.expectDrops(expected) {
          for bit in 0..<whole.count * 8 {
            var altered = whole
            altered[bit / 8] ^= 1 << UInt8(bit % 8)
            try scene.path.send(altered, to: .b)
          }
        }
        try await scene.expectAccepted(whole)
      }
    }

    @Test(.timeLimit(.minutes(1)))
    func wrongAssociations() async throws {
      try await scene(delivered: 1) { scene in
        let whole = try await scene.undelivered()
        func under(_ spi: UInt32) -> [UInt8] {
          [UInt8(spi >> 24), UInt8(spi >> 16 & 255), UInt8(spi >> 8 & 255), UInt8(spi & 255)] + whole[4...]
        }
        try await scene.expectDrops([.unknownSPI: 4]) {
          for spi in [1, 256, Side.b.spi, .max] as [UInt32] { try scene.path.send(under(spi), to: .b) }
        }
        // SPI 0 marks key exchange (RFC 3948 §2.2), one byte 0xFF a keep-alive (§2.3): not sealed packets at all.
        try await scene.expectDrops([:], transport: ["key-exchange-ignored": 1, "keep-alives-received": 1]) {
          try scene.path.send(under(0), to: .b)
          try scene.path.send([0xFF], to: .b)
        }
        // The right SPI under a wrong key.
        var other = scene.tunnel.plan
        other.keyAge = 9
        var association = scene.tunnel.plan.association(from: .a)
        association.key = other.association(from: .a).key
        let inner = InnerBytes.udp4(from: Side.a.inner4, to: Side.b.inner4, payload: [1, 2, 3])
        let forged = Forger(association).seal(inner: inner, nextHeader: 4, sequence: 100)
        try await scene.expectDrops([.authenticationFailed: 1]) { try scene.path.send(forged, to: .b) }
        try await scene.expectAccepted(whole)
      }
    }

    /// Good and bad packets in one train, which is opened as one.
    @Test(.timeLimit(.minutes(1)), arguments: CipherEngine.available)
    func badPacketsAmongGoodOnes(engine: CipherEngine) async throws {
      var plan = Interceptor.plan
      plan.engine = engine
      try await scene(plan, delivered: 40) { scene in
        scene.path.hold(from: .a)
        var pings = Pings(from: scene.tunnel.a.namespace, to: Side.b.inner4)
        pings.patience = 0.001
        _ = try await pings.run([Int](repeating: 500, count: 40)) as [String]
        #expect(await eventually { scene.path.held(from: .a).count == 40 })
        let good = scene.path.release(from: .a)
        // Each comes once whole and once damaged in one of several ways, the damaged one first.
        var train: [[UInt8]] = []
        for (number, datagram) in good.enumerated() {
          var bad = datagram
          switch number % 4 {
          case 0: bad[2] ^= 1
          case 1: bad[datagram.count - 1] ^= 1
          case 2: bad[100] ^= 0x80
          default: bad[12] ^= 4
          }
          train += number % 8 == 7 ? [datagram, datagram] : [bad, datagram]
        }
        let before = await scene.tunnel.b.settled()
        for start in stride(from: 0, to: train.count, by: 40) {
          try scene.path.send(train: Array(train[start..<start + 40]), to: .b)
        }
        let after = await scene.tunnel.b.settled()
        #expect(after.transport("received-trains") == before.transport("received-trains") + 2)
        #expect(after.delivered.packets == before.delivered.packets + 40)
        #expect(after.dropped(.unknownSPI) == 10)
        #expect(after.dropped(.authenticationFailed) == 25)
        #expect(after.dropped(.replayed) == 5)
      }
    }

    /// Sealed by a itself, under the right key, but from an address that is not behind a.
    @Test(.timeLimit(.minutes(1)))
    func spoofedSources() async throws {
      try await scene(delivered: 1) { scene in
        let a = scene.tunnel.a.namespace
        try await blocking { try a.ip(["addr add 10.66.0.1/32 dev lo", "addr add fd66::1/128 dev lo nodad"]) }
        // Whose addresses these are.
        var configuration = scene.tunnel.plan.configuration(of: .b)
        var other = scene.tunnel.plan
        other.keyAge = 5
        var peer = other.peer(.a)
        peer.name = "c"
        peer.path = nil
        peer.prefixes = ["10.66.0.0/24", "fd66::/64"].compactMap { Prefix($0) }
        configuration.peers.append(peer)
        try await scene.tunnel.b.dataplane.apply(configuration)
        try await scene.expectDrops([.spoofedSource: 4]) {
          for (source, address) in [("10.66.0.1", Side.b.inner4), ("fd66::1", Side.b.inner6)] {
            var pings = Pings(from: a, to: address, source: source)
            pings.patience = 0.05
            let problems: [String] = try await pings.run([56, 57])
            #expect(problems.count == 2)
          }
        }
        // b's own address, nobody's, and in one train with an honest one.
        let forger = Forger(scene.tunnel.plan.association(from: .a))
        try await scene.expectDrops([.spoofedSource: 2]) {
          for (number, source) in [Side.b.inner4, "0.0.0.0"].enumerated() {
            let inner = InnerBytes.udp4(from: source, to: Side.b.inner4, payload: [1])
            try scene.path.send(forger.seal(inner: inner, nextHeader: 4, sequence: UInt64(100 + number)), to: .b)
          }
        }
        let honest = InnerBytes.udp4(from: Side.a.inner4, to: Side.b.inner4, payload: [1])
        try await scene.expectAccepted(forger.seal(inner: honest, nextHeader: 4, sequence: 102))
      }
    }

    /// Authentic, and yet not what it should be.
    @Test(.timeLimit(.minutes(1)))
    func malformedContents() async throws {
      try await scene(delivered: 1) { scene in
        let forger = Forger(scene.tunnel.plan.association(from: .a))
        let inner = InnerBytes.udp4(from: Side.a.inner4, to: Side.b.inner4, payload: [1, 2, 3, 4])
        var sequence: UInt64 = 100
        func expect(_ reason: DropReason, _ datagrams: [(UInt64) -> [UInt8]]) async throws {
          try await scene.expectDrops([reason: UInt64(datagrams.count)]) {
            for datagram in datagrams {
              sequence += 1
              try scene.path.send(datagram(sequence), to: .b)
            }
          }
        }
        try await expect(
          .badPadding,
          [
            { forger.seal(inner + [2, 1, 2, 4], sequence: $0) },
            { forger.seal(inner + [0, 0, 2, 4], sequence: $0) },
            // More padding than there are bytes.
            { forger.seal([0, 0, 255, 4], sequence: $0) },
          ])
        try await expect(.dummyPacket, [{ forger.seal(inner: inner, nextHeader: 59, sequence: $0) }])
        try await expect(
          .unknownNextHeader,
          [
            { forger.seal(inner: inner, nextHeader: 6, sequence: $0) },
            { forger.seal(inner: [], nextHeader: 0, sequence: $0) },
          ])
        var long = inner
        long[3] += 1
        try await expect(
          .malformedInnerPacket,
          [
            { forger.seal(inner: inner, nextHeader: 41, sequence: $0) },
            { forger.seal(inner: [], nextHeader: 4, sequence: $0) },
            { [long] in forger.seal(inner: long, nextHeader: 4, sequence: $0) },
            { forger.seal(inner: Array(inner[..<19]), nextHeader: 4, sequence: $0) },
          ])
        sequence += 1
        try await scene.expectAccepted(forger.seal(inner: inner, nextHeader: 4, sequence: sequence))
      }
    }

    /// Noise of every length from a stranger: nothing traps, all of it is accounted for.
    @Test(.timeLimit(.minutes(1)))
    func noise() async throws {
      try await scene(delivered: 0) { scene in
        var random = SplitMix64(seed: 11)
        let before = await scene.tunnel.b.settled()
        for _ in 0..<2000 {
          var bytes = (0..<Int.random(in: 0...200, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random)
          }
          // Often with an SPI that is known.
          if bytes.count >= 4, Bool.random(using: &random) { bytes.replaceSubrange(0..<4, with: [0, 0, 0x10, 0x01]) }
          try scene.path.sendAsStranger(bytes)
        }
        let after = await scene.tunnel.b.settled()
        #expect(after.delivered == before.delivered)
        #expect(after.arrived.packets - before.arrived.packets > 1500)
        #expect(
          await scene.tunnel.b.dataplane.statistics().peers.first?.path == Endpoint("198.51.100.254", defaultPort: 4500)
        )
      }
    }
  }
}
