import PacketIO
import TestSupport
import Testing
import TransportSupport

@testable import Transports

/// A gateway's side of a hairpin, on a clock of the tests' own.
@Suite struct HairpinSessionTests {
  private static let start = MonotonicTime(nanoseconds: 1 << 40)

  /// A session whose port is open.
  private static func session(_ encapsulation: Encapsulation, _ random: inout SeededNumbers) -> HairpinSession {
    var sample = HairpinSample()
    let proxy = Endpoint(address: IPAddress(v4: 0x7F00_0001), port: 4501)
    var session = HairpinSession(
      sample.file(sample.ticket(), .first, proxy: proxy), encapsulation: encapsulation, now: start)
    let cookie = [UInt8](repeating: 1, count: HairpinMessage.cookieLength)
    var step = session.poll(now: start, wall: 1, using: &random)
    while !session.isOpen {
      let (said, isFromPort): ([UInt8], Bool)
      switch step {
      case .sendToProxy(let bytes): (said, isFromPort) = (bytes, false)
      case .sendToPort(let bytes): (said, isFromPort) = (bytes, true)
      default: return session
      }
      let answer: HairpinMessage
      switch HairpinMessage(unmarked: said[...]) {
      case .hello(let nonce, _): answer = .challenge(nonce: nonce, cookie: cookie)
      case .present(let present):
        answer = .accepted(
          nonce: present.nonce, token: HairpinNumber(high: 1, low: 1), port: 5000, silence: 60, secondsLeft: 60)
      case .prove(let prove): answer = .welcome(nonce: prove.nonce, partnerIsThere: true)
      default: return session
      }
      step = session.receive(answer.unmarked, isFromPort: isFromPort, now: start, wall: 1, using: &random)
    }
    return session
  }

  /// The clock goes back an hour while a gateway runs: what it signs is later all the same, so the relay takes it.
  @Test func proofsGoOnWhenTheClockGoesBack() throws {
    var random = SeededNumbers(seed: 4)
    var session = Self.session(.udp, &random)
    var sequences: [UInt64] = []
    for wall in [UInt64(3_600_000_000_000), 1, 2] {
      // The port tells of its end, and the session begins anew.
      _ = session.receive(
        HairpinMessage.end(token: HairpinNumber(high: 1, low: 1), reason: HairpinReason.stopping.rawValue).unmarked,
        isFromPort: true, now: Self.start, wall: wall, using: &random)
      let now = session.deadline
      guard case .sendToProxy(let hello)? = session.poll(now: now, wall: wall, using: &random),
        case .hello(let nonce, _)? = HairpinMessage(unmarked: hello[...])
      else {
        Issue.record("no hello")
        return
      }
      let cookie = [UInt8](repeating: 1, count: HairpinMessage.cookieLength)
      let step = session.receive(
        HairpinMessage.challenge(nonce: nonce, cookie: cookie).unmarked, isFromPort: false, now: now, wall: wall,
        using: &random)
      guard case .sendToProxy(let said)? = step, case .present(let present)? = HairpinMessage(unmarked: said[...])
      else {
        Issue.record("nothing presented")
        return
      }
      sequences.append(present.sequence)
      _ = session.receive(
        HairpinMessage.accepted(
          nonce: present.nonce, token: HairpinNumber(high: 1, low: 1), port: 5000, silence: 60, secondsLeft: 60
        ).unmarked, isFromPort: false, now: now, wall: wall, using: &random)
    }
    #expect(sequences == sequences.sorted() && Set(sequences).count == 3, "\(sequences)")
  }

  /// A file that was put right, with the same ticket, is another session; one that says the same goes on.
  @Test func aCorrectedFileBeginsAnew() {
    var sample = HairpinSample()
    let ticket = sample.ticket()
    func entry(_ end: HairpinEnd, port: UInt16) -> HairpinTransport.Entry {
      let proxy = Endpoint(address: IPAddress(v4: 0x7F00_0001), port: port)
      return HairpinTransport.Entry(sample.file(ticket, end, proxy: proxy), .udp)
    }
    var sessions = HairpinSessions()
    #expect(sessions.replace([entry(.first, port: 1)], now: Self.start).isEmpty)
    let later = Self.start.adding(seconds: 5)
    #expect(sessions.replace([entry(.first, port: 1)], now: later).isEmpty)
    for (end, port) in [(HairpinEnd.first, UInt16(2)), (.second, 2)] {
      let gone = sessions.replace([entry(end, port: port)], now: later)
      #expect(gone.count == 1 && sessions.count == 1)
      #expect(sessions[0].file.proxy.port == port && sessions[0].file.end == end)
    }
  }

  /// The answer to a hold may wait behind a run that takes long: a stream by which packets come is not given up.
  @Test(arguments: [Encapsulation.tcp, .udp]) func aStreamByWhichPacketsComeIsThere(encapsulation: Encapsulation) {
    var random = SeededNumbers(seed: 3)
    var session = Self.session(encapsulation, &random)
    #expect(session.isOpen)
    // A hold is due after 15 s at most, and nobody answers it.
    let isGivenUp = Self.isLost(&session, tenths: 1..<300, packetsCome: true, &random)
    #expect(isGivenUp == (encapsulation == .udp))
    guard encapsulation == .tcp else { return }
    let isLost = Self.isLost(&session, tenths: 300..<330, packetsCome: false, &random)
    #expect(isLost && !session.isOpen)
  }

  private static func isLost(
    _ session: inout HairpinSession, tenths: Range<UInt64>, packetsCome: Bool, _ random: inout SeededNumbers
  ) -> Bool {
    for tenth in tenths {
      let now = start.adding(nanoseconds: tenth * 100_000_000)
      if packetsCome { session.heard(now: now) }
      while let step = session.poll(now: now, wall: 1, using: &random) {
        if case .lost = step { return true }
      }
    }
    return false
  }

  @Test func ratesAreReadAsPeopleWriteThem() {
    for (text, rate) in [("1", 1), ("500k", 500_000), ("100M", 100_000_000), ("2.5G", 2_500_000_000)]
      as [(String, UInt64)]
    {
      #expect(BitRate(text)?.bitsPerSecond == rate)
    }
    for text in ["", "0", "-1", "1.5", "M", "1T", "1.M", "1.2345G", "99999999999999999999", "1001G", "1e3"] {
      #expect(BitRate(text) == nil, "\(text)")
    }
  }
}
