import PacketIO
import TestSupport
import Testing
import TransportSupport

@testable import Relay
@testable import Transports

/// The proxy's decisions, on a clock of the tests' own.
@Suite struct HairpinRulesTests {
  private static let start = MonotonicTime(nanoseconds: 1 << 40)

  // MARK: Bandwidth

  /// A sender that always has something: over ten seconds it gets its rate, whatever its messages' sizes.
  @Test(
    arguments: [(64_000, 200), (1_000_000, 1400), (20_000_000, 200), (20_000_000, 64_800), (1_000_000_000, 64_800)]
      as [(UInt64, Int)])
  func aRateHoldsOverTenSeconds(rate: UInt64, size: Int) {
    var now = Self.start
    var bucket = TokenBucket(bitRate: rate, now: now)
    let end = now.adding(seconds: 10)
    var bytes = 0
    while now < end {
      let room = bucket.available(now: now)
      if room == 0 {
        let opens = bucket.opens(now: now)
        #expect(opens > now)
        now = opens
      } else {
        bucket.take(size)
        bytes += size
      }
    }
    let expected = Double(rate) / 8 * 10
    // A burst at the beginning and a message of debt at the end are allowed.
    let burst = max(Double(rate) / 8 * 0.05, 16_384)
    #expect(Double(bytes) >= expected * 0.99 && Double(bytes) <= expected + burst + Double(size) * 2)
  }

  // MARK: Priorities

  /// The same, said slowly: a list, searched each time.
  private struct SlowSchedule {
    var ready: [(side: Int, priority: UInt8)] = []
    var parked: [(side: Int, wake: MonotonicTime, priority: UInt8)] = []

    mutating func markReady(_ side: Int, _ priority: UInt8) {
      if !ready.contains(where: { $0.side == side }), !parked.contains(where: { $0.side == side }) {
        ready.append((side, priority))
      }
    }
    mutating func next() -> Int? {
      guard let highest = ready.map(\.priority).max() else { return nil }
      let index = ready.firstIndex { $0.priority == highest }!
      return ready.remove(at: index).side
    }
    mutating func park(_ side: Int, _ wake: MonotonicTime, _ priority: UInt8) {
      remove(side)
      parked.append((side, wake, priority))
    }
    mutating func remove(_ side: Int) {
      ready.removeAll { $0.side == side }
      parked.removeAll { $0.side == side }
    }
    mutating func wake(_ now: MonotonicTime) {
      for entry in parked.sorted(by: { $0.wake < $1.wake }) where entry.wake <= now {
        ready.append((entry.side, entry.priority))
      }
      parked.removeAll { $0.wake <= now }
    }
  }

  @Test(arguments: 1...20 as ClosedRange<UInt64>) func theScheduleAgreesWithASlowOne(seed: UInt64) {
    var random = SeededNumbers(seed: seed)
    var schedule = Schedule(capacity: 24)
    var slow = SlowSchedule()
    var time = Self.start.nanoseconds
    for step in 0..<4000 {
      let side = Int.random(in: 0..<24, using: &random)
      switch Int.random(in: 0..<10, using: &random) {
      case 0..<4:
        let priority = UInt8(side % 8)
        schedule.markReady(side, priority: priority)
        slow.markReady(side, priority)
      case 4..<7:
        let (found, expected) = (schedule.next(), slow.next())
        #expect(found == expected, "step \(step)")
      case 7:
        // Different times each, so that the order is defined.
        let wake = MonotonicTime(nanoseconds: time + UInt64(step) + UInt64.random(in: 0..<50, using: &random) * 10_000)
        schedule.park(side, until: wake, priority: UInt8(side % 8))
        slow.park(side, wake, UInt8(side % 8))
      case 8:
        schedule.remove(side)
        slow.remove(side)
      default:
        time += 100_000
        let now = MonotonicTime(nanoseconds: time)
        schedule.wake(now: now)
        slow.wake(now)
      }
      let (count, wake) = (schedule.readyCount, schedule.nextWake)
      #expect(count == slow.ready.count)
      #expect(wake == slow.parked.map(\.wake).min())
    }
  }

  /// Ten hairpins want more than there is: the high class gets all it wants, what is left is shared evenly.
  @Test func prioritiesDecideUnderContention() {
    var now = Self.start
    var schedule = Schedule(capacity: 10)
    var total = TokenBucket(bitRate: 80_000_000, now: now)
    // Side 0 has priority 5 and 30 Mbit/s of its own; the others have priority 2 and no limit.
    var own = TokenBucket(bitRate: 30_000_000, now: now)
    var bytes = [Int](repeating: 0, count: 10)
    for side in 0..<10 { schedule.markReady(side, priority: side == 0 ? 5 : 2) }
    let end = now.adding(seconds: 10)
    while now < end {
      schedule.wake(now: now)
      guard total.available(now: now) > 0 else {
        now = total.opens(now: now)
        continue
      }
      guard let side = schedule.next() else {
        now = schedule.nextWake ?? end
        continue
      }
      if side == 0, own.available(now: now) == 0 {
        schedule.park(0, until: own.opens(now: now), priority: 5)
        continue
      }
      total.take(1400)
      if side == 0 { own.take(1400) }
      bytes[side] += 1400
      schedule.markReady(side, priority: side == 0 ? 5 : 2)
    }
    let rates = bytes.map { Double($0) * 8 / 10 }
    #expect(abs(rates[0] - 30_000_000) < 30_000_000 * 0.05, "\(rates)")
    #expect(abs(rates.reduce(0, +) - 80_000_000) < 80_000_000 * 0.05)
    for rate in rates.dropFirst() { #expect(abs(rate - 50_000_000 / 9) < 50_000_000 / 9 * 0.05) }
  }

  // MARK: Time

  private static func life(_ change: (inout HairpinTicket) -> Void, silence: UInt64 = 120) -> HairpinLife {
    var sample = HairpinSample()
    let ticket = sample.ticket(change).ticket
    var life = HairpinLife(ticket, started: HairpinSample.noon, silence: silence, now: start)
    life.proved(.first, now: start)
    life.proved(.second, now: start)
    return life
  }

  private static func verdict(
    _ life: HairpinLife, second: Int64, bytes: UInt64 = 0, data: UInt64? = nil, heard: UInt64? = nil
  ) -> HairpinReason? {
    let now = start.adding(nanoseconds: UInt64(second) * 1_000_000_000)
    return life.verdict(
      HairpinClock(monotonic: now, wall: HairpinSample.noon + second), bytes: bytes,
      lastData: data.map { start.adding(nanoseconds: $0 * 1_000_000_000) } ?? now
    ) { _ in heard.map { start.adding(nanoseconds: $0 * 1_000_000_000) } ?? now }
  }

  @Test func endsAreRightToTheSecond() {
    let lifetime = Self.life { $0.lifetime = 100 }
    #expect(Self.verdict(lifetime, second: 99) == nil && Self.verdict(lifetime, second: 100) == .lifetime)
    let ticket = Self.life { _ in }
    #expect(Self.verdict(ticket, second: 3600) == nil && Self.verdict(ticket, second: 3601) == .lifetime)
    let window = Self.life { $0.windows = [.init(start: 43200, end: 43210)] }
    #expect(Self.verdict(window, second: 9) == nil && Self.verdict(window, second: 10) == .window)
    let idle = Self.life { $0.idle = 30 }
    #expect(Self.verdict(idle, second: 39, data: 10) == nil && Self.verdict(idle, second: 40, data: 10) == .idle)
    let bytes = Self.life { $0.byteLimit = 1000 }
    #expect(Self.verdict(bytes, second: 1, bytes: 999) == nil && Self.verdict(bytes, second: 1, bytes: 1000) == .bytes)
    let silent = Self.life({ _ in }, silence: 20)
    #expect(Self.verdict(silent, second: 24, heard: 5) == nil)
    #expect(Self.verdict(silent, second: 25, heard: 5) == .partnerGone)
  }

  @Test func whoNeverProvesItselfHoldsNothingForLong() {
    var sample = HairpinSample()
    let life = HairpinLife(sample.ticket().ticket, started: HairpinSample.noon, silence: 120, now: Self.start)
    #expect(Self.verdict(life, second: 29) == nil && Self.verdict(life, second: 30) == .failed)
  }

  // MARK: Admission

  @Test func ticketsAreRefusedForOneReasonEach() throws {
    var sample = HairpinSample()
    let noon = HairpinSample.noon
    func judge(
      _ ticket: SignedHairpinTicket, _ memory: [HairpinUse] = [], encapsulation: Encapsulation = .udp,
      capacity: Int = 8,
      reserved: Int = 0, now: Int64 = HairpinSample.noon
    ) -> HairpinReason? {
      var admission = TicketJudge(
        keys: [sample.authority.publicKey], name: "relay-1", memory: TicketMemory(capacity: capacity, memory))
      guard let presented = PresentedTicket(ticket.bytes, .first) else { return .malformed }
      return admission.judge(
        presented, encapsulation: encapsulation, end: .first, now: now, isLive: false, reserved: reserved)
    }
    let good = sample.ticket { $0.proxy = "relay-1" }
    #expect(judge(good) == nil)
    #expect(judge(good, now: noon - 60) == nil && judge(good, now: noon - 61) == .notYetValid)
    #expect(judge(good, now: noon + 3600) == nil && judge(good, now: noon + 3601) == .expired)
    #expect(judge(sample.ticket { $0.proxy = "relay-2" }) == .otherProxy)
    // One without a name would be good at every relay of the key.
    #expect(judge(sample.ticket()) == .otherProxy)
    let datagramsOnly = sample.ticket {
      $0.proxy = "relay-1"
      $0.first.encapsulations = [.udp]
    }
    #expect(judge(datagramsOnly, encapsulation: .tcp) == .encapsulationNotAllowed)
    let later = sample.ticket {
      $0.proxy = "relay-1"
      $0.windows = [.init(start: 43201, end: 43300)]
    }
    #expect(judge(later) == .closedNow)
    let forged = try SignedHairpinTicket(signing: good.ticket, with: sample.keys[0])
    #expect(judge(forged) == .forged)
    var use = HairpinUse(
      number: good.ticket.number, notAfter: good.ticket.notAfter, isSpent: true, bytes: 1, started: noon)
    #expect(judge(good, [use]) == .used)
    use.isSpent = false
    #expect(judge(good, [use]) == nil)
    #expect(judge(good, capacity: 4, reserved: 4) == .full && judge(good, capacity: 4, reserved: 3) == nil)
  }

  // MARK: Strangers

  /// What comes from one address, network or site has an end, and leaves others theirs.
  @Test func originsHaveSharesOfTheirOwn() throws {
    var shares = OriginShares(messages: 10, signatures: 5)
    let now = Self.start
    func count(_ addresses: [String]) throws -> Int {
      let addresses = try addresses.map { try #require(IPAddress($0)) }
      return (0..<200).reduce(0) { sum, round in
        sum + (shares.admitMessage(of: addresses[round % addresses.count], byStream: false, now: now) ? 1 : 0)
      }
    }
    #expect(try count(["192.0.2.1"]) == 10)
    #expect(try count(["192.0.2.2"]) == 10)
    // One network, whatever the host; one site, whatever the network.
    #expect(try count(["2001:db8:0:1::1", "2001:db8:0:1:ffff::2"]) == 10)
    #expect(try count((0..<100).map { "2001:db8:0:1\($0 < 10 ? "0" : "")\($0)::1" }) <= 40)
    let later = now.adding(seconds: 0.5)
    let again = (0..<20).filter { _ in
      shares.admitMessage(of: IPAddress(v4: 0xC000_0201), byStream: false, now: later)
    }.count
    #expect(again == 5)
    let checked = (0..<20).filter { _ in shares.admitSignature(of: IPAddress(v4: 0xC000_0201), now: later) }.count
    #expect(checked == 5)
    // Datagrams whose senders are made up take nothing from who has a stream.
    let isLeft = shares.admitMessage(of: IPAddress(v4: 0xC000_0201), byStream: true, now: later)
    #expect(isLeft)
  }

  /// Where sides keep the relay busy, strangers get a tenth of the time, and owe what they took beyond.
  @Test func strangersHaveATenthOfABusyRelay() {
    var work = StrangerWork()
    var (forwarding, strangers): (UInt64, UInt64) = (0, 0)
    for turn in 0..<1000 {
      while work.count < 8 { work.append(.datagrams(listen: 0)) }
      forwarding += 2_000_000
      work.grant(forwarding: 2_000_000)
      while work.take() != nil {
        // A hello, or now and then two signatures.
        let cost: UInt64 = turn % 10 == 0 ? 300_000 : 20_000
        strangers += cost
        work.spend(cost)
        work.append(.datagrams(listen: 0))
      }
    }
    let share = Double(strangers) / Double(strangers + forwarding)
    #expect(share > 0.08 && share < 0.11, "\(share)")
    // And all of a relay that has nothing else to do, a piece at a time.
    work.grant(forwarding: nil)
    var piece: UInt64 = 0
    while work.take() != nil {
      piece += 20_000
      work.spend(20_000)
      work.append(.datagrams(listen: 0))
    }
    #expect(piece > 0 && piece <= 120_000)
  }

  @Test func memoryForgetsNothingBeforeItsTime() {
    var random = SeededNumbers(seed: 9)
    var memory = TicketMemory(capacity: 100)
    var uses: [HairpinUse] = []
    for number in 0..<100 {
      let hasRoom = memory.hasRoom(reserved: 0, now: 0)
      #expect(hasRoom)
      let use = HairpinUse(
        number: .random(using: &random), notAfter: UInt64(1000 + number), isSpent: true, bytes: 0, started: 0)
      memory.remember(use)
      uses.append(use)
      #expect(HairpinUse(line: use.line) == use)
    }
    var hasRoom = memory.hasRoom(reserved: 0, now: 1000)
    #expect(!hasRoom)
    for use in uses { #expect(memory[use.number] == use) }
    // 1000 to 1009 have passed.
    hasRoom = memory.hasRoom(reserved: 9, now: 1010)
    #expect(hasRoom && memory.count == 90)
    hasRoom = memory.hasRoom(reserved: 10, now: 1010)
    #expect(!hasRoom)
    #expect(uses.dropFirst(10).allSatisfy { memory[$0.number] == $0 })
  }

  // MARK: Options

  @Test func aShortageOfFilesIsSaidInOneLine() throws {
    var options = HairpinProxyOptions(listen: [Endpoint(address: IPAddress(v4: 0), port: 4501)], publicKeys: [])
    options.hairpins = 10_000
    #expect(options.shortage(openFiles: 50_000) == nil)
    let line = try #require(options.shortage(openFiles: 20_000))
    #expect(
      line.contains("4871 hairpins over TCP and 9743 over UDP, of 10000 configured") && !line.contains("\n"), "\(line)")
    #expect(options.shortage(openFiles: 100)?.contains("enough for 0 hairpins") == true)
  }
}
