import Identity
import PacketIO
import TestSupport
import Testing

@testable import Relay
@testable import Transports

/// Tickets that name GIDs: shown at an enrolment, they let two meet of which no rule says anything.
@Suite struct RelayTicketTests {
  private let authority: HairpinPrivateKey

  init() throws {
    var random = SeededNumbers(seed: 21)
    authority = try #require(HairpinPrivateKey.generate(using: &random))
  }

  private static let now: UInt64 = 1_800_000_000

  private func sites(_ count: Int, name: String = "", _ pairs: [(Int, Int)] = []) -> RelaySites {
    RelaySites(count) { [authority] options, sites in
      options.ticketKeys = [authority.publicKey]
      options.name = name
      for (a, b) in pairs { options.policy.allow(sites[a].tag, sites[b].tag) }
    }
  }

  private func ticket(
    _ sites: RelaySites, _ a: Int, _ b: Int, by key: HairpinPrivateKey? = nil,
    _ change: (inout IdentityTicket) -> Void = { _ in }
  ) throws -> [UInt8] {
    var ticket = IdentityTicket(
      number: HairpinNumber(high: 1, low: UInt64(a * 10 + b)),
      RelayPolicy.Pair(sites.sites[a].tag, sites.sites[b].tag), notBefore: Self.now - 10, notAfter: Self.now + 100)
    change(&ticket)
    let bytes = try #require(SignedIdentityTicket(signing: ticket, with: key ?? authority)).bytes
    var shown: [UInt8] = []
    shown.append(number: UInt16(clamping: bytes.count))
    return shown + bytes
  }

  private func enrol(_ sites: RelaySites, _ number: Int, showing tickets: [UInt8]) -> [UInt8]? {
    sites.sites[number].sequence += 1
    return sites.say(sites.enrolment(number) { $0.tickets = tickets }, from: sites.sites[number].endpoint)
  }

  /// Neither is named by a rule: both come in by the ticket, meet, and end with it.
  @Test func aTicketLetsTwoMeet() throws {
    let sites = sites(3)
    let shown = try ticket(sites, 0, 1)
    for number in 0..<2 { #expect(sites.enrol(number) == nil, "without it") }
    for number in 0..<2 {
      guard case .enrolled? = enrol(sites, number, showing: shown).flatMap({ EnrolmentMessage($0) }) else {
        Issue.record("\(number) is not let in")
        return
      }
    }
    sites.announce(0, 1, 0x1000)
    #expect(sites.receiver(0x1000, from: 1) == 0)
    sites.wait(100)
    sites.sweep()
    #expect(sites.receiver(0x1000, from: 1) == 0)
    sites.wait(1)
    sites.sweep()
    #expect(sites.receiver(0x1000, from: 1) == nil && sites.pairs == 0)
    guard
      case .refused(_, HairpinReason.notAllowed.rawValue)? =
        enrol(sites, 0, showing: shown).flatMap({ HairpinMessage($0) })
    else {
      Issue.record("it has ended")
      return
    }
  }

  /// One of the two shows it, the other is named by a rule: that is enough. Its bandwidth and times of day hold.
  @Test func whatItSaysHolds() throws {
    let sites = sites(3, [(1, 2)])
    let day = Int64(Self.now) % 86_400
    let shown = try ticket(sites, 0, 1) {
      $0.bandwidth = 8_000_000
      $0.windows = [HairpinTicket.Window(start: UInt32(day), end: UInt32(day) + 20)]
    }
    #expect(sites.enrol(1) != nil && enrol(sites, 0, showing: shown) != nil)
    sites.announce(0, 1, 0x1000)
    guard case .forward(let side, _, _) = sites.route(0x1000, from: sites.sites[1].endpoint) else {
      Issue.record("not bound")
      return
    }
    var bytes = 0
    for _ in 0..<1000 {
      sites.wait(0.001)
      for _ in 0..<10 where sites.admits(1000, side) { bytes += 1000 }
    }
    #expect(bytes < 1_200_000)
    sites.wait(30)
    sites.sweep()
    #expect(sites.receiver(0x1000, from: 1) == nil)
  }

  /// Both are let in by what one of them has shown, whichever comes first, and without a rule for either.
  @Test func oneOfTheTwoShowsIt() throws {
    let sites = sites(3)
    #expect(sites.enrol(1) == nil && sites.enrol(2) == nil)
    let shown = try ticket(sites, 0, 1)
    #expect(enrol(sites, 0, showing: shown) != nil)
    #expect(sites.enrol(1) != nil && sites.enrol(2) == nil)
    sites.announce(1, 0, 0x1000)
    #expect(sites.receiver(0x1000, from: 0) == 1)
    sites.wait(101)
    sites.sweep()
    #expect(sites.receiver(0x1000, from: 0) == nil && sites.enrol(1) == nil)
  }

  /// A ticket that is shown too early counts from when it begins, for both, without being shown again. One that follows
  /// another leaves no gap.
  @Test func aTicketThatHasNotBegunIsKept() throws {
    let sites = sites(3)
    func both(_ body: (Int) -> Bool) -> Bool { (0..<2).allSatisfy(body) }
    let early = try ticket(sites, 0, 1) { ($0.notBefore, $0.notAfter) = (Self.now + 10, Self.now + 100) }
    let refused = enrol(sites, 0, showing: early).flatMap { HairpinMessage($0) }
    guard case .refused(_, HairpinReason.notAllowed.rawValue)? = refused else {
      Issue.record("let in too early")
      return
    }
    #expect(both { sites.enrol($0) == nil })
    sites.wait(10)
    #expect(both { sites.enrol($0) != nil })
    sites.announce(0, 1, 0x1000)
    let next = try ticket(sites, 0, 1) { ($0.notBefore, $0.notAfter) = (Self.now + 50, Self.now + 300) }
    #expect(enrol(sites, 1, showing: next) != nil)
    for _ in 0..<3 {
      sites.wait(90)
      for number in 0..<2 { sites.enrol(number) }
      sites.sweep()
      #expect(sites.receiver(0x1000, from: 1) == 0)
    }
    sites.wait(21)
    sites.sweep()
    #expect(sites.receiver(0x1000, from: 1) == nil && both { sites.enrol($0) == nil })
  }

  /// What a policy denies, a pair or a whole gateway, no ticket allows: not one that is known, and not one that is shown
  /// then. Others meet as before, and to be allowed as a pair is to be denied no more.
  @Test(arguments: [false, true]) func aDenialGoesBeforeATicket(isOfGateway: Bool) throws {
    let sites = sites(4)
    let (shown, other) = (try ticket(sites, 0, 1), try ticket(sites, 2, 3))
    for number in 0..<2 { #expect(enrol(sites, number, showing: shown) != nil) }
    for number in 2..<4 { #expect(enrol(sites, number, showing: other) != nil) }
    sites.announce(0, 1, 0x1000)
    sites.announce(2, 3, 0x2000)
    var policy = RelayPolicy()
    let tags = sites.sites.map(\.tag)
    policy.deny([RelayPolicy.Pair(tags[0], isOfGateway ? tags[0] : tags[1])])
    #expect(sites.relay.set(policy, sites.clock).count == 2)
    #expect(sites.receiver(0x1000, from: 1) == nil && sites.receiver(0x2000, from: 3) == 2)
    for number in 0..<2 {
      let refused = enrol(sites, number, showing: shown).flatMap { HairpinMessage($0) }
      guard case .refused(_, HairpinReason.notAllowed.rawValue)? = refused else {
        Issue.record("\(number) comes back")
        return
      }
    }
    guard case .drop(.notAllowed, _) = sites.announce(0, 1, 0x1000) else {
      Issue.record("it is bound again")
      return
    }
    policy.allow(tags[0], tags[1])
    _ = sites.relay.set(policy, sites.clock)
    for number in 0..<2 { #expect(sites.enrol(number) != nil) }
    sites.announce(0, 1, 0x1000)
    #expect(sites.receiver(0x1000, from: 1) == 0)
  }

  /// Signatures of tickets are charged to whoever shows them, and what is known is not looked at again.
  @Test func ticketsAreChargedToTheirOrigin() throws {
    let sites = sites(2)
    let signed = try #require(SignedIdentityTicket(Array(try ticket(sites, 0, 1).dropFirst(2))))
    var tickets = RelayTickets(keys: [authority.publicKey], name: "", capacity: 4)
    let wall = sites.clock.wall
    #expect(tickets.take([signed], wall: wall) == 1 && tickets.take([signed], wall: wall) == 0)
    let over = wall + 101
    let gateway = sites.sites[0].tag
    #expect(tickets.promising([signed], of: gateway, under: RelayPolicy(), wall: wall).count == 1)
    #expect(tickets.promising([signed], of: gateway, under: RelayPolicy(), wall: over).isEmpty)
    var random = SeededNumbers(seed: 23)
    let stranger = try #require(HairpinPrivateKey.generate(using: &random))
    let forged = Array(try (0..<4).map { _ in try ticket(sites, 0, 1, by: stranger) }.joined())
    // Four enrolments a second would be looked at; this one costs five.
    _ = enrol(sites, 0, showing: forged)
    #expect(enrol(sites, 0, showing: forged) == nil && sites.relay.statistics[.enrolmentBusy] == 1)
    sites.wait(1)
    #expect(enrol(sites, 0, showing: try ticket(sites, 0, 1)) != nil && sites.enrolled == 1)
  }

  /// A rule that says when two may meet is not widened by a ticket.
  @Test func aRuleGoesBefore() throws {
    let sites = RelaySites(2) { [authority] options, sites in
      options.ticketKeys = [authority.publicKey]
      options.policy.allow(sites[0].tag, sites[1].tag, .init(notAfter: 5))
    }
    for number in 0..<2 { _ = enrol(sites, number, showing: try ticket(sites, 0, 1)) }
    guard case .drop(.notAllowed, _) = sites.announce(0, 1, 0x1000) else {
      Issue.record("it passes")
      return
    }
  }

  /// Each thing that is wrong: nobody is let in, and nothing is kept.
  @Test func whatIsWrongLetsNobodyIn() throws {
    var random = SeededNumbers(seed: 22)
    let stranger = try #require(HairpinPrivateKey.generate(using: &random))
    let wrong: [(String, (RelaySites) throws -> [UInt8])] = [
      ("none", { _ in [] }),
      ("of others", { try ticket($0, 1, 2) }),
      ("of another key", { try ticket($0, 0, 1, by: stranger) }),
      ("for another relay", { try ticket($0, 0, 1) { $0.relay = "other" } }),
      ("not yet", { try ticket($0, 0, 1) { $0.notBefore = Self.now + 1 } }),
      ("over", { try ticket($0, 0, 1) { $0.notAfter = Self.now - 1 } }),
      ("cut", { Array(try ticket($0, 0, 1).dropLast()) }),
      (
        "altered",
        { sites in
          var bytes = try ticket(sites, 0, 1)
          bytes[40] ^= 1
          return bytes
        }
      ),
      ("too many", { sites in Array(try (0..<5).map { _ in try ticket(sites, 0, 1) }.joined()) }),
    ]
    for (name, make) in wrong {
      let sites = sites(3)
      let answer = enrol(sites, 0, showing: try make(sites))
      if case .enrolled? = answer.flatMap({ EnrolmentMessage($0) }) { Issue.record("\(name) lets in") }
      #expect(sites.enrolled == 0 && sites.place(0) == nil && sites.drops == 1, "\(name)")
    }
    // A named relay takes those that name it.
    let named = sites(2, name: "relay-1")
    #expect(enrol(named, 0, showing: try ticket(named, 0, 1) { $0.relay = "relay-1" }) != nil && named.enrolled == 1)
  }

  @Test func ticketsReadBack() throws {
    let sites = sites(2)
    var ticket = IdentityTicket(
      number: HairpinNumber(high: 5, low: 6), RelayPolicy.Pair(sites.sites[0].tag, sites.sites[1].tag),
      relay: String(repeating: "r", count: 64), notBefore: 1, notAfter: 2, bandwidth: .max, priority: 7,
      windows: (0..<4).map { HairpinTicket.Window(start: $0, end: 86_400) })
    let signed = try #require(SignedIdentityTicket(signing: ticket, with: authority))
    #expect(signed.bytes.count <= IdentityTicket.mostBytes && SignedIdentityTicket(signed.bytes) == signed)
    #expect(signed.isSigned(by: authority.publicKey) && SignedHairpinTicket(signed.bytes) == nil)
    for count in 0..<signed.bytes.count {
      #expect(SignedIdentityTicket(Array(signed.bytes.prefix(count)))?.isSigned(by: authority.publicKey) != true)
    }
    ticket.priority = 8
    #expect(SignedIdentityTicket(signing: ticket, with: authority) == nil)
    #expect(IdentityTicket(encoded: ticket.encoded[...]) == nil)
    // As many as are shown at a time fit an enrolment of the longest kind.
    let shown = SignedIdentityTicket.mostShown * (2 + IdentityTicket.mostBytes)
    #expect(EnrolmentMessage.leastEnrol + shown <= EnrolmentMessage.mostEnrol)
  }
}
