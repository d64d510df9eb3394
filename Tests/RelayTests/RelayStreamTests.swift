import Identity
import PacketIO
import TestSupport
import Testing
import TransportSupport

@testable import Relay
@testable import Transports

extension HairpinNetworks {
  /// An identity relay whose gateways come by streams, over loopback.
  @Suite struct RelayStreamTests {
    /// A relay, and who may meet there.
    private struct Place {
      let relay: HostIdentity
      let identities: [HostIdentity]
      let lab: HairpinLab

      init(_ count: Int, _ pairs: [(Int, Int)]) throws {
        let relay = HostIdentity.generate(.p256)
        let identities = (0..<count).map { HostIdentity.generate($0 % 2 == 0 ? .ed25519 : .p256) }
        (self.relay, self.identities) = (relay, identities)
        lab = try HairpinLab { options in
          var own = RelayOptions(identity: relay)
          (own.gateways, own.pairs, own.enrolmentsPerOrigin) = (16, 16, 100)
          for (a, b) in pairs { own.policy.allow(identities[a].tag, identities[b].tag) }
          options.relay = own
        }
      }

      func guest(_ number: Int, isStream: Bool, receiveBuffer: Int32? = nil) -> RelayGuest {
        RelayGuest(identities[number], isStream: isStream, receiveBuffer: receiveBuffer)
      }

      func enrolled(_ number: Int, isStream: Bool, receiveBuffer: Int32? = nil) throws -> RelayGuest {
        let guest = guest(number, isStream: isStream, receiveBuffer: receiveBuffer)
        try #require(guest.enrol(at: relay.tag, in: lab))
        return guest
      }

      /// Waits until what one has said has come to the other.
      func arrives(_ packets: [[UInt8]], at guest: RelayGuest, from sender: RelayGuest) -> Bool {
        var found: [[UInt8]] = []
        lab.until([], within: 5) {
          _ = sender.hasUnsent
          found += guest.packets()
          return found.count >= packets.count
        }
        return found == packets
      }

      func drops(_ drop: RelayDrop) -> UInt64 { lab.server.identities?.statistics[drop] ?? 0 }
      var enrolled: Int { lab.server.identities?.places.enrolled ?? -1 }

      /// Both tell each other an SPI, 0x1000 of the first and 0x2000 of the second.
      func bind(_ a: RelayGuest, _ b: RelayGuest, _ spis: (UInt32, UInt32) = (0x1000, 0x2000)) -> Bool {
        let first = a.announce(spis.0, to: b)
        guard arrives([first], at: b, from: a) else { return false }
        let second = b.announce(spis.1, to: a)
        return arrives([second], at: a, from: b)
      }
    }

    private static func sealed(_ spi: UInt32, _ number: Int, size: Int) -> [UInt8] {
      var packet: [UInt8] = []
      packet.append(number: spi)
      packet.append(number: UInt32(number))
      return packet + (8..<size).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ number) }
    }

    /// Whatever the paths, handshakes and sealed packets come as they were said.
    @Test(arguments: [(true, true), (true, false), (false, true), (false, false)])
    func gatewaysMeetByAnyTwoPaths(isStream: (Bool, Bool)) async throws {
      try await HairpinLab.run {
        let place = try Place(2, [(0, 1)])
        let a = try place.enrolled(0, isStream: isStream.0)
        let b = try place.enrolled(1, isStream: isStream.1)
        #expect(place.enrolled == 2)
        #expect(place.bind(a, b))
        for (sender, receiver, spi) in [(a, b, UInt32(0x2000)), (b, a, 0x1000)] {
          // Trains, single ones, of several workers, and small ones in between.
          let packets = (0..<300).map { number in
            Self.sealed(spi + UInt32(number / 7 % 3), number, size: number % 50 == 49 ? 24 + number : 1400)
          }
          for burst in stride(from: 0, to: packets.count, by: 20) {
            let some = Array(packets[burst..<burst + 20])
            for packet in some { sender.say(packet) }
            #expect(place.arrives(some, at: receiver, from: sender), "burst \(burst)")
          }
        }
        let statistics = place.lab.server.identities?.statistics
        #expect(statistics?.forwardedPackets == 600 && statistics?.forwardedHandshakes == 2)
        #expect(RelayDrop.allCases.allSatisfy { place.drops($0) == 0 })
        for guest in [a, b] {
          guest.say(HairpinMessage.hold(nonce: guest.token).encoded)
          let held = guest.hear(in: place.lab) { HairpinMessage($0) }
          #expect(held == .held(nonce: guest.token, partnerIsThere: false))
        }
        let shown = place.lab.server.identities?.snapshot(place.lab.clock).report.gateways.map(\.address) ?? []
        #expect(shown.count { $0.hasSuffix(" over tcp") } == (isStream.0 ? 1 : 0) + (isStream.1 ? 1 : 0), "\(shown)")
      }
    }

    /// A gateway has both paths at a time: each leads by the partner's same one, and where that is gone by the other.
    @Test func eachPathLeadsByTheSame() async throws {
      try await HairpinLab.run {
        let place = try Place(2, [(0, 1)])
        let (a, b) = (try place.enrolled(0, isStream: false), try place.enrolled(1, isStream: false))
        let (aStream, bStream) = (try place.enrolled(0, isStream: true), try place.enrolled(1, isStream: true))
        #expect(place.enrolled == 2 && place.bind(a, b))
        for (number, sender, receiver) in [(1, a, b), (2, aStream, bStream)] {
          let packet = Self.sealed(0x2000, number, size: 100)
          sender.say(packet)
          #expect(place.arrives([packet], at: receiver, from: sender))
        }
        bStream.end()
        place.lab.until([]) { place.lab.server.gateways.open.count == 1 }
        let packet = Self.sealed(0x2000, 3, size: 100)
        aStream.say(packet)
        #expect(place.arrives([packet], at: b, from: aStream))
        #expect(place.enrolled == 2)
        // With its last path a gateway is gone; who says something stays.
        place.lab.shift += 100
        aStream.say(HairpinMessage.hold(nonce: aStream.token).encoded)
        #expect(aStream.hear(in: place.lab) { HairpinMessage($0) } != nil)
        place.lab.shift += 100
        #expect(place.lab.until([]) { place.enrolled == 1 })
        aStream.say(Self.sealed(0x2000, 4, size: 100))
        #expect(place.lab.until([]) { place.drops(.receiverNotEnrolled) == 1 })
      }
    }

    /// A reader that takes nothing loses its own packets, and not before it has had its half second; everybody else gets
    /// all of theirs, also from the same sender, and what the reader finds then is whole.
    @Test func aStuckReaderLosesItsOwn() async throws {
      try await HairpinLab.run {
        let place = try Place(4, [(0, 1), (0, 2), (2, 3)])
        let sender = try place.enrolled(0, isStream: true)
        let stuck = try place.enrolled(1, isStream: true, receiveBuffer: 4096)
        let good = try place.enrolled(2, isStream: true)
        let other = try place.enrolled(3, isStream: false)
        #expect(place.bind(sender, stuck, (0x1000, 0x2000)) && place.bind(sender, good, (0x1100, 0x3000)))
        #expect(place.bind(good, other, (0x3100, 0x4000)))
        // The kernel's buffers fill, then its queue: until half a second has gone nothing is lost.
        place.lab.standing = .current()
        var told = 0
        let isBehind = place.lab.until([], within: 10) {
          if !sender.hasUnsent {
            sender.say(Self.sealed(0x2000, told, size: 1400))
            told += 1
          }
          return place.lab.server.gateways.waiting > 200_000
        }
        #expect(isBehind && place.drops(.notTaken) == 0)
        // What is under way still comes in time.
        place.lab.until([], within: 10) {
          _ = sender.hasUnsent
          return place.lab.server.identities?.statistics.forwardedPackets == UInt64(told)
        }
        (place.lab.standing, place.lab.shift) = (nil, 1)
        var (lost, sent) = (0, 0)
        for round in 0..<200 {
          sender.say(Self.sealed(0x2000, told, size: 1400))
          told += 1
          lost += 1
          let packets = [Self.sealed(0x3000, round, size: 1000), Self.sealed(0x3000, round + 1000, size: 300)]
          for packet in packets { sender.say(packet) }
          let behind = Self.sealed(0x4000, round, size: 500)
          good.say(behind)
          #expect(place.arrives(packets, at: good, from: sender))
          #expect(place.arrives([behind], at: other, from: good))
          sent += 3
        }
        #expect(place.drops(.notTaken) == UInt64(lost), "\(place.drops(.notTaken))")
        #expect(sent == 600)
        // It reads again: what comes are whole packets in order, and new ones follow.
        var found: [[UInt8]] = []
        place.lab.until([], within: 10) {
          found += stuck.packets()
          return found.count >= told - lost
        }
        #expect(found == (0..<told - lost).map { Self.sealed(0x2000, $0, size: 1400) })
        #expect(place.lab.server.gateways.waiting == 0)
        let last = Self.sealed(0x2000, told, size: 1400)
        sender.say(last)
        #expect(place.arrives([last], at: stuck, from: sender))
      }
    }

    /// However a stream is cut, and whatever stands side by side in it, each record goes where its SPI leads.
    @Test func recordsGoWhereTheyBelong() async throws {
      try await HairpinLab.run {
        let place = try Place(3, [(0, 1), (0, 2)])
        let sender = try place.enrolled(0, isStream: true)
        let receivers = [try place.enrolled(1, isStream: true), try place.enrolled(2, isStream: false)]
        #expect(place.bind(sender, receivers[0], (0x1000, 0x2000)))
        #expect(place.bind(sender, receivers[1], (0x1100, 0x3000)))
        var random = SeededNumbers(seed: 3)
        var expected: [[[UInt8]]] = [[], []]
        var (unknown, malformed): (UInt64, UInt64) = (0, 0)
        var bytes: [UInt8] = []
        for number in 0..<1500 {
          let size = [24, 25, 100, 1400, 1400, 1400, 9000].randomElement(using: &random) ?? 24
          switch Int.random(in: 0..<20, using: &random) {
          case 0: bytes += StreamOracle.record([0xFF])
          case 1:
            bytes += StreamOracle.record([1, 2])
            malformed += 1
          case 2:
            bytes += StreamOracle.record(Array(Self.sealed(0x2000, number, size: 24).prefix(23)))
            malformed += 1
          case 3:
            bytes += StreamOracle.record(Self.sealed(0x7000, number, size: size))
            unknown += 1
          case let choice:
            let packet = Self.sealed(choice % 2 == 0 ? 0x2000 : 0x3000 + UInt32(choice % 4), number, size: size)
            expected[choice % 2].append(packet)
            bytes += StreamOracle.record(packet)
          }
        }
        var found: [[[UInt8]]] = [[], []]
        var offset = 0
        while offset < bytes.count {
          let next = min(offset + Int.random(in: 1...20_000, using: &random), bytes.count)
          sender.write(Array(bytes[offset..<next]))
          offset = next
          for _ in 0..<3 {
            _ = sender.hasUnsent
            place.lab.turn()
          }
          for number in 0..<2 { found[number] += receivers[number].packets() }
        }
        place.lab.until([]) {
          for number in 0..<2 { found[number] += receivers[number].packets() }
          return zip(found, expected).allSatisfy { $0.count >= $1.count }
        }
        #expect(found == expected)
        #expect(place.drops(.malformed) == malformed && place.drops(.unknownSPI) == unknown)
        #expect(place.drops(.notTaken) == 0)
      }
    }

    /// Who has not enrolled is heard, asked who he is, and gets nothing through; then he may enrol by the same stream.
    @Test func packetsBeforeAnEnrolment() async throws {
      try await HairpinLab.run {
        let place = try Place(2, [(0, 1)])
        let a = place.guest(0, isStream: true)
        let b = try place.enrolled(1, isStream: false)
        for number in 0..<50 { a.say(Self.sealed(0x2000, number, size: 1400)) }
        a.say([0, 0, 0, 0, 59] + [UInt8](repeating: 1, count: 60))
        a.say(HairpinMessage.hold(nonce: HairpinNumber(high: 1, low: 2)).encoded)
        let isAsked = a.hear(in: place.lab) { if case .who = EnrolmentMessage($0) { true } else { nil } }
        #expect(isAsked == true)
        #expect(place.lab.until([]) { place.drops(.senderNotEnrolled) == 52 })
        #expect(a.packets().isEmpty && a.inbox.isEmpty && !a.hasEnded)
        #expect(a.enrol(at: place.relay.tag, in: place.lab))
        #expect(place.bind(a, b))
        #expect(place.lab.server.streams.table.unauthenticated == 0)
      }
    }

    /// Many messages in one read, each of which may cost a signature: a turn looks at some of them, and all come in order.
    @Test func messagesAreLookedAtInTurns() async throws {
      try await HairpinLab.run {
        let place = try Place(2, [(0, 1)])
        let (a, b) = (try place.enrolled(0, isStream: true), try place.enrolled(1, isStream: true))
        #expect(place.bind(a, b))
        let available = place.lab.server.engine.io.pool.available
        let announcement = a.announcement(0x1000, to: b)
        let packets = (0..<200).map { $0 % 10 == 9 ? Self.sealed(0x2000, $0, size: 100) : announcement }
        let bytes = packets.flatMap { StreamOracle.record($0) }
        try #require(bytes.count < 60_000)
        a.write(bytes)
        var (found, most): ([[UInt8]], UInt64) = ([], 0)
        for _ in 0..<100 where found.count < packets.count {
          let before = place.lab.server.identities?.statistics.forwardedHandshakes ?? 0
          place.lab.turn()
          most = max(most, (place.lab.server.identities?.statistics.forwardedHandshakes ?? 0) - before)
          found += b.packets()
        }
        #expect(found == packets && most > 0 && most < 20, "\(found.count) \(most)")
        // What waits goes with its stream.
        a.write(bytes)
        place.lab.until([]) { place.lab.server.gateways.hasReady }
        for stream in place.lab.server.gateways.open { SharedStreams.end(stream, &place.lab.server) }
        for _ in 0..<3 { place.lab.turn() }
        #expect(place.lab.server.engine.io.pool.available == available && place.enrolled == 0)
      }
    }

    /// One gateway has each of very many datagrams go elsewhere than the one before, without end: streams have their turn.
    @Test func whoAlternatesHoldsUpNoStream() async throws {
      try await HairpinLab.run {
        let place = try Place(5, [(0, 1), (0, 2), (3, 4)])
        let alternating = try place.enrolled(0, isStream: false)
        let others = [try place.enrolled(1, isStream: false), try place.enrolled(2, isStream: false)]
        let (a, b) = (try place.enrolled(3, isStream: true), try place.enrolled(4, isStream: true))
        #expect(place.bind(alternating, others[0], (0x1000, 0x2000)))
        #expect(place.bind(alternating, others[1], (0x1100, 0x3000)) && place.bind(a, b, (0x3100, 0x4000)))
        let train = (0..<60).map { Self.sealed($0 % 2 == 0 ? 0x2000 : 0x3000, $0, size: 40) }
        let packet = Self.sealed(0x4000, 1, size: 100)
        a.say(packet)
        var found: [[UInt8]] = []
        var most: UInt64 = 0
        for _ in 0..<40 {
          let before = place.lab.server.identities?.statistics.forwardedPackets ?? 0
          for _ in 0..<20 { alternating.say(train: train) }
          place.lab.turn()
          most = max(most, (place.lab.server.identities?.statistics.forwardedPackets ?? 0) - before)
          found += b.packets()
        }
        #expect(found == [packet] && most > 100 && most < 400, "\(found.count) \(most)")
      }
    }

    /// Of a path a gateway has one stream, its newest; and nobody speaks for another by a stream of his own.
    @Test func aStreamIsOneGateways() async throws {
      try await HairpinLab.run {
        let place = try Place(4, [(0, 1), (2, 3)])
        let a = try place.enrolled(0, isStream: true)
        let b = try place.enrolled(1, isStream: true)
        let other = try place.enrolled(2, isStream: true)
        #expect(place.bind(a, b))
        // Under a foreign SPI, as a foreign sender, and with an enrolment of somebody else.
        other.say(Self.sealed(0x2000, 1, size: 100))
        #expect(place.lab.until([]) { place.drops(.foreignSource) == 1 })
        let forged = RelayGuest(place.identities[0], isStream: true).announce(0x5000, to: b)
        other.say(forged)
        #expect(place.lab.until([]) { place.drops(.foreignSource) == 2 })
        #expect(b.packets().isEmpty)
        let newer = try place.enrolled(0, isStream: true)
        #expect(
          place.lab.until([]) {
            a.fetch()
            return a.hasEnded
          })
        #expect(place.lab.server.gateways.open.count == 3)
        let packet = Self.sealed(0x2000, 2, size: 100)
        newer.say(packet)
        #expect(place.arrives([packet], at: b, from: newer))
        // Lengths of zero are no records: that stream ends, and with it what was enrolled by it.
        other.write([0, 0])
        #expect(place.lab.until([]) { place.lab.server.gateways.open.count == 2 && place.enrolled == 2 })
        // Nothing is kept of those who are gone.
        newer.end()
        b.end()
        #expect(place.lab.until([]) { place.lab.server.streams.table.count == 0 })
      }
    }
  }
}
