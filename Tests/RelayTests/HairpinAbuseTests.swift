import Glibc
import Lab
import PacketIO
import TestSupport
import Testing

@testable import Relay
@testable import Transports

extension HairpinNetworks {
  /// Strangers at a proxy: they get less than they gave, hold nothing, and are counted by one reason each.
  @Suite struct HairpinAbuseTests {
    /// A UDP socket of a stranger.
    private final class Stranger {
      let descriptor: Int32
      private(set) var sentBytes = 0
      private(set) var gotBytes = 0
      private(set) var got: [[UInt8]] = []

      init() {
        descriptor = UDPSocket.open(
          Endpoint(address: IPAddress(v4: 0x7F00_0001), port: 0), waits: true, bufferSize: 1 << 20)
      }
      deinit { close(descriptor) }

      func send(_ bytes: [UInt8], port: UInt16 = HairpinLab.port) {
        sentBytes += bytes.count
        _ = UDPSocket.send(descriptor, bytes, to: SocketName(HairpinLab.endpoint(port: port)))
      }

      func receive() {
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
          let count = recv(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT))
          guard count >= 0 else { return }
          gotBytes += count
          got.append(Array(buffer[0..<count]))
        }
      }
    }

    @Test func randomBytesGetNothing() async throws {
      let (statistics, got) = try await HairpinLab.run { () -> (HairpinStatistics, Int) in
        let lab = try HairpinLab()
        let stranger = Stranger()
        var random = SeededNumbers(seed: 77)
        for round in 0..<400 {
          var bytes = (0..<Int.random(in: 0..<900, using: &random)).map { _ in
            UInt8.random(in: .min ... .max, using: &random)
          }
          // Half of them begin as messages do.
          if round % 2 == 0, bytes.count >= 12 {
            bytes.replaceSubrange(
              0..<12,
              with: [
                0, 0, 0, 0, 0x43, 0x48, 0x50, 1, UInt8(round % 12), 0, UInt8(bytes.count >> 8),
                UInt8(bytes.count & 255),
              ])
          }
          stranger.send(bytes)
          lab.turn()
        }
        lab.until([], within: 0.2) { false }
        stranger.receive()
        return (lab.server.engine.statistics, stranger.gotBytes)
      }
      #expect(got == 0)
      #expect(statistics[.malformed] + statistics[.badCookie] >= 390 && statistics.hairpins == 0)
    }

    /// Hellos from many, each with its own number: an answer each, shorter than the question, and nothing kept.
    @Test func noAnswerIsLongerThanItsQuestion() async throws {
      let (sent, got, answers, live) = try await HairpinLab.run { () -> (Int, Int, Int, Int) in
        let lab = try HairpinLab()
        let stranger = Stranger()
        for number in 0..<500 {
          stranger.send(HairpinMessage.hello(nonce: HairpinNumber(high: 1, low: UInt64(number)), token: .zero).encoded)
          lab.turn()
        }
        lab.until([], within: 0.2) { false }
        stranger.receive()
        return (stranger.sentBytes, stranger.gotBytes, stranger.got.count, lab.server.admission.hairpins.count)
      }
      #expect(answers == 500 && got < sent && live == 0)
      let number = HairpinNumber(high: 1, low: 2)
      let cookie = [UInt8](repeating: 1, count: 32)
      let sizes: [(HairpinMessage, HairpinMessage)] = [
        (.hello(nonce: number, token: number), .challenge(nonce: number, cookie: cookie)),
        (
          .present(
            .init(
              end: .first, encapsulation: .udp, nonce: number, cookie: cookie, sequence: 1,
              signature: [UInt8](repeating: 0, count: 64), ticket: [0])),
          .accepted(nonce: number, token: number, port: 1, silence: 1, secondsLeft: 1)
        ),
        (
          .prove(
            .init(
              nonce: number, cookie: cookie, token: number, sequence: 1, signature: [UInt8](repeating: 0, count: 64))),
          .welcome(nonce: number, partnerIsThere: true)
        ), (.hold(nonce: number), .held(nonce: number, partnerIsThere: true)),
      ]
      for (request, answer) in sizes { #expect(answer.encoded.count <= request.encoded.count) }
    }

    @Test func aPortScanGetsNothingAndDisturbsNobody() async throws {
      let (got, strangers, isOpen, passes) = try await HairpinLab.run { () -> (Int, UInt64, Bool, Bool) in
        let lab = try HairpinLab { $0.ports = 21000...21099 }
        let pair = try lab.pair()
        let stranger = Stranger()
        for port in UInt16(21000)...21099 {
          stranger.send([0xFF], port: port)
          stranger.send(HairpinLab.packet(1, size: 100), port: port)
          stranger.send(HairpinMessage.hello(nonce: .zero, token: .zero).encoded, port: port)
          stranger.send(HairpinMessage.hold(nonce: .zero).encoded, port: port)
        }
        pair.a.send([HairpinLab.packet(9, size: 100)], to: pair.toB)
        let passes = lab.until([pair.a, pair.b]) { pair.b.received == [HairpinLab.packet(9, size: 100)] }
        stranger.receive()
        return (stranger.gotBytes, lab.server.engine.statistics[.stranger], pair.isOpen, passes)
      }
      #expect(isOpen && got == 0 && strangers == 8 && passes)
    }

    /// Opens a session with that file, as a gateway of its own.
    private static func refusal(_ lab: HairpinLab, _ file: HairpinTicketFile) throws -> UInt64 {
      let gateway = try HairpinLab.Gateway([.init(file, .udp)])
      lab.until([gateway], within: 1) {
        gateway.counter("hairpin-refusals") == 1 || gateway.counter("hairpins-open") == 1
      }
      return gateway.counter("hairpins-open")
    }

    @Test func forgedExpiredReplayedAndStolenTicketsAreRefused() async throws {
      let (opened, counts) = try await HairpinLab.run { () -> ([UInt64], [UInt64]) in
        let lab = try HairpinLab()
        let proxy = HairpinLab.endpoint()
        var opened: [UInt64] = []
        // Signed by somebody else.
        let forged = try SignedHairpinTicket(signing: lab.ticket().ticket, with: lab.sample.keys[0])
        opened.append(try Self.refusal(lab, lab.sample.file(forged, .first, proxy: proxy)))
        let expired = lab.ticket {
          $0.notBefore -= 1000
          $0.notAfter = UInt64(lab.began) - 10
        }
        opened.append(try Self.refusal(lab, lab.sample.file(expired, .first, proxy: proxy)))
        // Genuine, and presented by somebody who has not the key: the signature is another's.
        let stolen = lab.ticket()
        var present = HairpinMessage.Present(
          end: .first, encapsulation: .udp, nonce: .zero, cookie: [], sequence: 1, signature: [], ticket: stolen.bytes)
        let stranger = Stranger()
        stranger.send(HairpinMessage.hello(nonce: .zero, token: .zero).encoded)
        lab.until([], within: 0.05) { false }
        stranger.receive()
        if case .challenge(_, let cookie)? = stranger.got.first.flatMap({ HairpinMessage($0) }) {
          present.cookie = cookie
        }
        present.signature = lab.sample.keys[1].sign(HairpinMessage.proof(of: present, ticket: stolen.ticket.number))!
        stranger.send(HairpinMessage.present(present).encoded)
        lab.until([], within: 0.05) { false }
        opened.append(UInt64(lab.server.admission.hairpins.count))
        // Used up: its hairpin ended by its byte limit.
        let pair = try lab.pair { $0.byteLimit = 1000 }
        opened.append(pair.isOpen ? 0 : 99)
        pair.a.send([HairpinLab.packet(1, size: 1200)], to: pair.toB)
        lab.until([pair.a, pair.b]) { !lab.records.all.isEmpty }
        opened.append(try Self.refusal(lab, pair.files[0]))
        // And by a new run of the proxy that read what the first remembered.
        var options = lab.server.options
        options.uses = lab.records.uses
        lab.server.close()
        let counts = [
          lab.server.engine.statistics[.refusedForged], lab.server.engine.statistics[.refusedExpired],
          lab.server.engine.statistics[.refusedUsed],
        ]
        lab.server = try HairpinServer(options, clock: lab.clock)
        opened.append(try Self.refusal(lab, pair.files[0]))
        return (opened, counts + [lab.server.engine.statistics[.refusedUsed]])
      }
      #expect(opened == [0, 0, 0, 0, 0, 0])
      #expect(counts[0] == 2 && counts[1] == 1 && counts[2] >= 1 && counts[3] == 1, "\(counts)")
    }

    /// Why a ticket was refused is known at both ends, to the relay with the gateways' names where the ticket is genuine.
    @Test func aRefusalHasItsReasonAtBothEnds() async throws {
      let (reasons, told, lines) = try await HairpinLab.run { () -> ([HairpinReason?], [HairpinReason], [String]) in
        let lab = try HairpinLab()
        let proxy = HairpinLab.endpoint()
        let expired = lab.ticket {
          $0.notBefore -= 1000
          $0.notAfter = UInt64(lab.began) - 10
        }
        let forged = try SignedHairpinTicket(signing: lab.ticket().ticket, with: lab.sample.keys[0])
        var reasons: [HairpinReason?] = []
        for ticket in [expired, forged] {
          let entry = HairpinTransport.Entry(lab.sample.file(ticket, .first, proxy: proxy), .udp)
          let gateway = try HairpinLab.Gateway([entry])
          reasons.append(gateway.transport.reason(entry))
          lab.until([gateway]) { gateway.counter("hairpin-refusals") == 1 }
          reasons.append(gateway.transport.reason(entry))
        }
        return (reasons, lab.records.refusals.map(\.reason), lab.records.refusals.map(\.description))
      }
      #expect(reasons == [nil, .expired, nil, .forged])
      #expect(told == [.expired, .forged])
      #expect(lines.first?.contains("a ticket of oslo and bergen, refused: the ticket has expired") == true, "\(lines)")
      #expect(lines.last?.contains("something, refused:") == true, "\(lines)")
    }

    /// Two minutes without a word from one side end the hairpin, and cost neither of them the ticket; nor does it begin anew.
    @Test func aSilentSideBurnsNoTicket() async throws {
      let (isOpen, use, again, bytes) = try await HairpinLab.run { () -> (Bool, HairpinUse?, UInt64, UInt64) in
        let lab = try HairpinLab()
        let pair = try lab.pair { $0.byteLimit = 100_000 }
        pair.a.send([HairpinLab.packet(1, size: 1200)], to: pair.toB)
        lab.until([pair.a, pair.b]) { pair.b.received.count == 1 }
        lab.shift = 200
        lab.until([]) { !lab.records.all.isEmpty }
        let opened = try Self.refusal(lab, pair.files[0])
        let place = lab.server.admission.hairpins.place(pair.ticket.ticket.number)
        return (pair.isOpen, lab.records.uses.last, opened, place.map { lab.server.admission.hairpins[$0].bytes } ?? 0)
      }
      #expect(isOpen && again == 1 && bytes == 1200)
      #expect(use?.isSpent == false && use?.bytes == 1200)
    }

    /// Who has seen all that a gateway said, and says it again from elsewhere, moves nothing.
    @Test func aProofIsNoUseFromAnotherAddress() async throws {
      let (isOpen, bad, passes) = try await HairpinLab.run { () -> (Bool, UInt64, Bool) in
        let lab = try HairpinLab()
        let pair = try lab.pair()
        let side = 0
        let name = lab.side(side).holder.name.endpoint
        // The proof as the gateway sends it, with the cookie of its own address.
        let nonce = HairpinNumber(high: 7, low: 7)
        let cookie = lab.server.admission.cookies.cookie(
          name, nonce: nonce, port: lab.side(side).port.number, now: lab.clock.monotonic)
        var prove = HairpinMessage.Prove(
          nonce: nonce, cookie: cookie, token: lab.side(side).port.token, sequence: .max, signature: [])
        prove.signature = lab.sample.keys[0].sign(
          HairpinMessage.proof(of: prove, end: .first, encapsulation: .udp, ticket: pair.ticket.ticket.number))!
        let stranger = Stranger()
        stranger.send(HairpinMessage.prove(prove).encoded, port: lab.side(side).port.number)
        lab.until([pair.a, pair.b], within: 0.1) { false }
        pair.b.send([HairpinLab.packet(3, size: 80)], to: pair.toA)
        let passes = lab.until([pair.a, pair.b]) { pair.a.received == [HairpinLab.packet(3, size: 80)] }
        stranger.receive()
        return (pair.isOpen, lab.server.engine.statistics[.badCookie], passes && stranger.got.isEmpty)
      }
      #expect(isOpen && bad == 1 && passes)
    }

    /// More streams than may be open without a proof, silent or talking nonsense; a gateway gets in all the same.
    @Test func halfOpenStreamsHoldLittleAndNotForLong() async throws {
      let (held, isOpen, statistics) = try await HairpinLab.run { () -> (Int, Bool, HairpinStatistics) in
        let lab = try HairpinLab {
          $0.unprovenStreams = 16
          $0.proofSeconds = 1
        }
        var streams: [Int32] = []
        for number in 0..<60 {
          let stream = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
          let name = SocketName(HairpinLab.endpoint())
          _ = name.withPointer { connect(stream, $0, $1) }
          let words: [[UInt8]] = [
            [], Array("IKETCP".utf8), Array("GET / HTTP/1.1\r\n\r\n".utf8), Array("IKETCP".utf8) + [0xFF, 0xFF, 1],
          ]
          _ = TCPSocket.send(stream, words[number % 4])
          streams.append(stream)
          lab.turn()
        }
        let held = lab.server.streams.table.unauthenticated
        let pair = try lab.pair(encapsulations: (.tcp, .udp))
        lab.until([pair.a, pair.b], within: 1.6) { false }
        for stream in streams { close(stream) }
        return (held, pair.isOpen && pair.a.counter("hairpins-open") == 1, lab.server.engine.statistics)
      }
      #expect(held <= 16 && isOpen)
      #expect(statistics[.streamsMalformed] >= 10 && statistics[.streamsRefused] > 0 && statistics[.streamsTooSlow] > 0)
    }

    /// A flood of silent streams: as many as may are kept, the oldest make room, and a gateway gets in beside them.
    @Test func thousandsOfStrangersKeepNobodyOut() async throws {
      let crowd = 4000
      let (held, isOpen, refused) = try await HairpinLab.run { () -> (Int, Bool, UInt64) in
        let lab = try HairpinLab()
        var streams: [Int32] = []
        for number in 0..<crowd {
          let stream = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
          let name = SocketName(HairpinLab.endpoint())
          _ = name.withPointer { connect(stream, $0, $1) }
          streams.append(stream)
          if number % 32 == 0 { lab.turn() }
        }
        let pair = try lab.pair(encapsulations: (.tcp, .udp))
        let held = lab.server.streams.table.unauthenticated
        for stream in streams { close(stream) }
        return (
          held, pair.isOpen && pair.a.counter("hairpins-open") == 1, lab.server.engine.statistics[.streamsRefused]
        )
      }
      #expect(isOpen && held <= HairpinProxyOptions(listen: [], publicKeys: []).unprovenStreams)
      #expect(refused >= UInt64(crowd - held - 1), "all others made room")
    }
  }
}
