import Glibc
import Lab
import PacketIO
import Testing
import TransportSupport

@testable import Relay
@testable import Transports

extension HairpinNetworks {
  /// What one may take of the relay's time, on a clock that moves when it is read: no verdict depends on the machine.
  @Suite struct HairpinFairnessTests {
    /// A megabyte of holds: a turn ends all the same, few are answered, and the holder stays.
    @Test func holdsTakeNoTurnForThemselves() async throws {
      let (isOpen, most, statistics, stays) = try await HairpinLab.run { () -> (Bool, Int, HairpinStatistics, Bool) in
        let lab = try HairpinLab()
        let ticket = lab.ticket()
        let a = RawHolder(lab.sample.file(ticket, .first, proxy: HairpinLab.endpoint()))
        guard a.open(in: lab) else { return (false, 0, HairpinStatistics(), false) }
        let hold = StreamOracle.record(HairpinMessage.hold(nonce: .zero).encoded)
        let holds = Array(repeatElement(hold, count: 2000).joined())
        var (written, most) = (0, 0)
        while written < 1 << 20 {
          a.pour(holds)
          written += holds.count
          let before = lab.server.engine.statistics[.holds]
          let reads = lab.turn(step: 100_000)
          most = max(most, reads)
          if lab.server.engine.statistics[.holds] - before > 64 { break }
        }
        for _ in 0..<200 { most = max(most, lab.turn(step: 100_000)) }
        return (true, most, lab.server.engine.statistics, lab.side(0).holder.isProven)
      }
      #expect(isOpen && stays)
      // 2 ms of turns, each batch a tenth of a millisecond, and some for the clock's other readers.
      #expect(most < 40)
      // A minute of a clock that moves a little with each read is some two seconds here.
      #expect(statistics[.holds] <= 300, "\(statistics[.holds]) answered")
    }

    /// What waits in one stream is not moved in one turn when each batch takes long.
    @Test func aTurnEnds() async throws {
      let (isOpen, moved, all) = try await HairpinLab.run { () -> (Bool, UInt64, UInt64) in
        let lab = try HairpinLab()
        let ticket = lab.ticket()
        let a = RawHolder(lab.sample.file(ticket, .first, proxy: HairpinLab.endpoint()))
        let b = RawHolder(lab.sample.file(ticket, .second, proxy: HairpinLab.endpoint()))
        guard a.open(in: lab), b.open(in: lab) else { return (false, 0, 0) }
        let record = StreamOracle.record([1, 2, 3, 4] + [UInt8](repeating: 7, count: 1396))
        let written = 700 * record.count
        a.pour(Array(repeatElement(record, count: 700).joined()))
        var moved: UInt64 = 0
        for _ in 0..<20 where moved == 0 {
          a.pour([])
          lab.turn(step: 1_000_000)
          moved = lab.side(0).traffic.bytes
        }
        for _ in 0..<4000 where lab.side(0).traffic.bytes < UInt64(written / 1402 * 1400) {
          a.pour([])
          lab.turn()
          _ = b.read()
        }
        return (true, moved, lab.side(0).traffic.bytes)
      }
      #expect(isOpen && all >= 600_000)
      #expect(moved > 0 && moved <= 4 << 16, "\(moved) bytes in a turn of four batches")
    }

    /// Hellos in thousands: a few in each turn, what was admitted first.
    @Test func strangersWaitForWhoWasAdmitted() async throws {
      let (most, arrived, answered) = try await HairpinLab.run { () -> (UInt64, Bool, Bool) in
        let lab = try HairpinLab()
        let pair = try lab.pair()
        let flood = DatagramStranger(0x7F00_0002)
        let newcomer = DatagramStranger(0x7F00_0003)
        for number in 0..<2000 {
          flood.say(HairpinMessage.hello(nonce: HairpinNumber(high: 1, low: UInt64(number)), token: .zero).encoded)
        }
        newcomer.say(HairpinMessage.hello(nonce: HairpinNumber(high: 2, low: 0), token: .zero).encoded)
        var most: UInt64 = 0
        var arrived = true
        for number in 0..<3000 where !newcomer.hasAnswer {
          if number % 50 == 0 { pair.a.send([HairpinLab.packet(number, size: 200)], to: pair.toB) }
          let before = lab.server.engine.statistics[.hellos]
          lab.turn(step: 50_000)
          pair.a.turn(wait: 1000)
          pair.b.turn(wait: 1000)
          most = max(most, lab.server.engine.statistics[.hellos] - before)
        }
        lab.until([pair.a, pair.b]) { pair.b.received.contains(HairpinLab.packet(0, size: 200)) }
        arrived = pair.b.received.contains(HairpinLab.packet(0, size: 200))
        return (most, arrived, newcomer.hasAnswer)
      }
      #expect(most <= 16, "\(most) hellos in a turn")
      #expect(arrived && answered)
    }

    /// Who presents what is no ticket takes nobody's signatures.
    @Test func unreadableTicketsCostNoSignatures() async throws {
      let (refused, spared, opened) = try await HairpinLab.run { () -> (Int, UInt64, Bool) in
        let lab = try HairpinLab { $0.signatures = 8 }
        var refused = 0
        for number in 0..<100 {
          let (_, answer) = lab.present([1, 2, 3, UInt8(number)], from: lab.stranger(7))
          if case .refused(_, HairpinReason.malformed.rawValue)? = answer { refused += 1 }
        }
        let spared = lab.server.engine.statistics[.tooManySignatures]
        return (refused, spared, try lab.pair().isOpen)
      }
      #expect(refused == 100 && spared == 0 && opened)
    }

    /// An origin that has forged tickets checked without end leaves others their share.
    @Test func oneOriginTakesNotAllSignatures() async throws {
      let (answered, dropped, other) = try await HairpinLab.run { () -> (Int, UInt64, Bool) in
        let lab = try HairpinLab {
          $0.signatures = 100
          $0.signaturesPerOrigin = 20
        }
        let forged = try SignedHairpinTicket(signing: lab.ticket().ticket, with: lab.sample.keys[0])
        var answered = 0
        for number in 0..<200
        where lab.present(forged.bytes, from: lab.stranger(7), sequence: UInt64(number)).1 != nil {
          answered += 1
        }
        let dropped = lab.server.engine.statistics[.tooManySignatures]
        return (answered, dropped, lab.present(forged.bytes, from: lab.stranger(8)).1 != nil)
      }
      #expect(answered <= 50 && dropped >= 150, "\(answered)")
      #expect(other)
    }

    /// A run whose announcement names more packets than it has is charged no less.
    @Test func aFalseAnnouncementExceedsNoTicket() async throws {
      let (isOpen, charged, sent) = try await HairpinLab.run { () -> (Bool, UInt64, UInt64) in
        let lab = try HairpinLab()
        let ticket = lab.ticket()
        let a = RawHolder(lab.sample.file(ticket, .first, proxy: HairpinLab.endpoint()))
        let b = RawHolder(lab.sample.file(ticket, .second, proxy: HairpinLab.endpoint()))
        guard a.open(in: lab), b.open(in: lab) else { return (false, 0, 0) }
        _ = b.read()
        let run = StreamOracle.record([1, 2, 3, 4] + [UInt8](repeating: 7, count: 59_996))
        a.pour(
          StreamOracle.record(
            HairpinMessage.run(bytes: UInt64(run.count), packets: UInt64(run.count / 6)).encoded) + run)
        var arrived = 0
        for _ in 0..<4000 where arrived < run.count {
          a.pour([])
          lab.turn()
          arrived += b.read().count
        }
        let place = lab.server.admission.hairpins.place(ticket.ticket.number)
        return (arrived == run.count, place.map { lab.server.admission.hairpins[$0].bytes } ?? 0, 60_000)
      }
      #expect(isOpen && charged >= sent, "\(charged) of \(sent)")
    }

    // MARK: Replays

    /// Who was not told that he has the side does not have it.
    @Test func aSideIsHadByWhoWasWelcomed() async throws {
      let (welcome, before, after, again) = try await HairpinLab.run { () -> (Bool, Bool, Bool, HairpinMessage?) in
        let lab = try HairpinLab()
        let ticket = lab.ticket()
        _ = lab.present(ticket.bytes, from: lab.stranger(7), key: 0, ticket: ticket, sequence: 5)
        let side = SideIndex(place: 0)
        let answer = lab.prove(ticket, from: lab.stranger(7), sequence: 6)
        let isWelcome = answer.flatMap { HairpinMessage($0.bytes) }.map {
          if case .welcome = $0 { true } else { false }
        }
        let before = lab.side(0).holder.isProven
        if let answer { lab.server.settle(answer, side) }
        let after = lab.side(0).holder.isProven
        // A clock that went back: its gateway is told why.
        let late = lab.prove(ticket, from: lab.stranger(7), sequence: 5)
        return (isWelcome == true, before, after, late.flatMap { HairpinMessage($0.bytes) })
      }
      #expect(welcome && !before && after)
      guard case .refused(_, HairpinReason.outdated.rawValue)? = again else {
        Issue.record("\(String(describing: again))")
        return
      }
    }

    /// A `present` that was recorded says nothing new: it closes no port that its side has got since.
    @Test func aRecordedPresentMovesNothing() async throws {
      let (isOpen, before, after, answer) = try await HairpinLab.run {
        () -> (Bool, UInt16, UInt16, HairpinMessage?) in
        let lab = try HairpinLab()
        let ticket = lab.ticket()
        let recorded = lab.present(ticket.bytes, from: lab.stranger(7), key: 0, ticket: ticket, sequence: 5)
        guard case .accepted? = recorded.1 else { return (false, 0, 0, nil) }
        let later = lab.present(
          ticket.bytes, from: lab.stranger(7), key: 0, ticket: ticket, encapsulation: .tcp, sequence: 9)
        guard case .accepted(_, _, let port, _, _)? = later.1 else { return (false, 0, 0, nil) }
        let answer = lab.server.answer(recorded.0, lab.stranger(7), toControl: 0, .udp)
        return (true, port, lab.side(0).port.number, answer.flatMap { HairpinMessage($0.bytes) })
      }
      #expect(isOpen && before == after)
      guard case .refused? = answer else {
        Issue.record("\(String(describing: answer))")
        return
      }
    }

    /// After an outage of one side that lasted longer than the relay waits, both come back with the same ticket.
    @Test(arguments: [0, 1]) func anOutageBurnsNoTicketOfEither(side: Int) async throws {
      let (reason, isOpen, passes) = try await HairpinLab.run { () -> (HairpinReason?, Bool, Bool) in
        let lab = try HairpinLab { $0.silence = 4 }
        let pair = try lab.pair { $0.byteLimit = 1 << 20 }
        let gateways = [pair.a, pair.b]
        // One side's network is gone; the other one goes on.
        lab.until([gateways[1 - side]], within: 8) { !lab.records.all.isEmpty }
        let reason = lab.records.all.first?.reason
        let last = HairpinLab.packet(77, size: 300)
        let passes = lab.until(gateways, within: 40) {
          // Where there is no partner they would be charged all the same.
          if gateways.allSatisfy({ $0.counter("hairpins-open") == 1 }), pair.a.io.pool.available > 64 {
            pair.a.send([last], to: pair.toB)
          }
          return pair.b.received.contains(last)
        }
        return (reason, pair.a.counter("hairpins-open") == 1 && pair.b.counter("hairpins-open") == 1, passes)
      }
      #expect(reason == .partnerGone && isOpen && passes)
    }
  }
}

/// Somebody at an address of the loopback interface who says what he likes to the control port.
private final class DatagramStranger {
  private let descriptor: Int32

  init(_ address: UInt32) {
    descriptor = UDPSocket.open(Endpoint(address: IPAddress(v4: address), port: 0), waits: true, bufferSize: 1 << 20)
  }
  deinit { close(descriptor) }

  func say(_ bytes: [UInt8]) { _ = UDPSocket.send(descriptor, bytes, to: SocketName(HairpinLab.endpoint())) }

  var hasAnswer: Bool {
    var byte: UInt8 = 0
    return recv(descriptor, &byte, 1, Int32(MSG_DONTWAIT | MSG_PEEK)) >= 0
  }
}

extension HairpinLab {
  /// A turn at whose reads the clock has moved on by so many nanoseconds each time.
  /// - Returns: how often it was read.
  @discardableResult
  func turn(step: UInt64) -> Int {
    var reads = 0
    var now = MonotonicTime(nanoseconds: max(clock.monotonic.nanoseconds, server.engine.clock.monotonic.nanoseconds))
    let wall = clock.wall
    _ = server.turn(waiting: 0) {
      reads += 1
      now = now.adding(nanoseconds: step)
      return HairpinClock(monotonic: now, wall: wall)
    }
    return reads
  }

  /// Proves to be the first gateway, by a message that has never been on a wire.
  func prove(_ ticket: SignedHairpinTicket, from sender: Endpoint, sequence: UInt64) -> Admission.Answer? {
    let side = SideIndex(place: 0)
    let port = server.engine.sides[side].port
    let nonce = HairpinNumber(high: 2, low: sequence)
    let cookie = server.admission.cookies.cookie(
      sender, nonce: nonce, port: port.number, now: server.engine.clock.monotonic)
    var prove = HairpinMessage.Prove(nonce: nonce, cookie: cookie, token: port.token, sequence: sequence, signature: [])
    prove.signature = sample.keys[0].sign(
      HairpinMessage.proof(of: prove, end: .first, encapsulation: port.encapsulation, ticket: ticket.ticket.number))!
    return server.answer(HairpinMessage.prove(prove).encoded, sender, atPortOf: side)
  }

  /// An address of documentation (RFC 5737).
  func stranger(_ number: UInt32) -> Endpoint { Endpoint(address: IPAddress(v4: 0xC000_0200 + number), port: 4000) }

  /// Presents a ticket by a message that has never been on a wire, with a cookie for that sender.
  /// - Parameter key: whose signature it has, of the sample's gateways.
  /// - Returns: the message and what was answered.
  func present(
    _ bytes: [UInt8], from sender: Endpoint, key: Int = 0, ticket: SignedHairpinTicket? = nil,
    encapsulation: Encapsulation = .udp, sequence: UInt64 = 1
  ) -> ([UInt8], HairpinMessage?) {
    let nonce = HairpinNumber(high: 1, low: sequence)
    let cookie = server.admission.cookies.cookie(
      sender, nonce: nonce, port: HairpinLab.port, now: server.engine.clock.monotonic)
    var present = HairpinMessage.Present(
      end: .first, encapsulation: encapsulation, nonce: nonce, cookie: cookie, sequence: sequence,
      signature: [UInt8](repeating: 0, count: 64), ticket: bytes)
    if let ticket {
      present.signature = sample.keys[key].sign(HairpinMessage.proof(of: present, ticket: ticket.ticket.number))!
    }
    let message = HairpinMessage.present(present).encoded
    let answer = server.answer(message, sender, toControl: 0, .udp)
    return (message, answer.flatMap { HairpinMessage($0.bytes) })
  }
}
